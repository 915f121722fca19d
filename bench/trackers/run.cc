// SPDX-License-Identifier: Apache-2.0
#include "bench/trackers/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <thread>

#include "base/text.h"
#include "bench/suite/cell.h"
#include "bench/suite/guest_command.h"
#include "emulation/lab/files.h"

namespace thermocline::trackers {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

/// Beyond the footprint, for the kernel: all of the program fits on the fast node.
constexpr Bytes kSpare{std::uint64_t{192} << 20};

std::string seconds_since(Clock::time_point start) {
  return fmt::format("{:.0f} s", std::chrono::duration<double>(Clock::now() - start).count());
}

/// What tracker_watch said, without the names before it.
std::string reason_of(std::string_view section) {
  constexpr std::string_view kName = "tracker_watch: ";
  const std::size_t at = section.find(kName);
  if (at == std::string_view::npos) return "no reason was told";
  section.remove_prefix(at + kName.size());
  return printable(section.substr(0, section.find('\n')));
}

class Runner {
 public:
  Runner(const std::vector<PlannedRun>& runs, const RunSetting& setting)
      : setting_(setting), runs_(runs), started_(Clock::now()) {}

  Status prepare() {
    const fs::path dir(setting_.out_dir);
    std::error_code ec;
    fs::create_directories(dir / "runs", ec);
    if (ec)
      return fail(ErrorKind::kUsage, "can't write to {}: {}; name another folder with --out",
                  setting_.out_dir, ec.message());
    std::string texts;
    for (const suite::Script& script : suite::scripts())
      if (script.name == "cell.sh") TC_TRY(keep(script, texts));
    for (const suite::Script& script : scripts()) TC_TRY(keep(script, texts));
    TC_ASSIGN(const std::string timing, suite::timing_text(setting_.options.timing));
    texts_ = texts + timing;
    std::vector<Row> there;
    if (fs::exists(rows_file())) {
      TC_ASSIGN(const std::string text, lab::read_whole(rows_file()));
      auto parsed = parse_rows(text);
      if (!parsed)
        return fail(ErrorKind::kCorrupt, "{}: {}", rows_file().string(), parsed.error().message);
      there = std::move(*parsed);
    }
    for (const PlannedRun& run : runs_) {
      Row row = row_of(run);
      const auto done = std::find_if(there.begin(), there.end(), [&](const Row& r) {
        return r.error.empty() && r.same_run(row) && r.version == row.version;
      });
      if (done != there.end() && !done->unsupported.empty())
        not_there_[row.tracker] = done->unsupported;
      rows_.push_back(done == there.end() ? std::move(row) : *done);
      is_done_.push_back(done != there.end());
    }
    log_.open(rows_file(), std::ios::app);
    if (!log_)
      return fail(ErrorKind::kUsage, "can't write {}; name another folder with --out",
                  rows_file().string());
    left_ = static_cast<std::size_t>(std::count(is_done_.begin(), is_done_.end(), false));
    if (left_ < runs_.size())
      setting_.say(
          fmt::format("{} of {} runs are there already", runs_.size() - left_, runs_.size()));
    all_ = left_;
    return {};
  }

  std::vector<Row> run() {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < std::max(1u, setting_.jobs); ++i)
      threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads) thread.join();
    return std::move(rows_);
  }

 private:
  [[nodiscard]] fs::path rows_file() const { return fs::path(setting_.out_dir) / kRowsName; }

  Status keep(const suite::Script& script, std::string& texts) const {
    texts += fmt::format("{}:{}", script.text.size(), script.text);
    return lab::write_whole(fs::path(setting_.out_dir) / "scripts" / script.name, script.text);
  }

  [[nodiscard]] Row row_of(const PlannedRun& run) const {
    Row row;
    row.tracker = run.tracker;
    row.pattern = run.pattern.name;
    row.kernel = setting_.options.kernel;
    row.timing = setting_.options.timing;
    row.budget = run.budget;
    row.footprint = setting_.options.footprint;
    row.seed = setting_.options.seed;
    row.version = setting_.version;
    std::string text = fmt::format("{} {} {} {}", run.pattern.workload, run.pattern.seconds,
                                   run.pattern.huge_pages, run.pattern.hot);
    for (const std::string& one : run.pattern.settings) text += " " + one;
    row.setting = fmt::format("{:016x}", lab::fingerprint(text + texts_));
    return row;
  }

  [[nodiscard]] std::vector<std::string> command(const PlannedRun& run, const fs::path& dir) const {
    const TrackersOptions& o = setting_.options;
    const std::uint64_t block = suite::kNodeStep.get();
    const Bytes fast((o.footprint + kSpare + suite::kNodeStep - Bytes(1)).get() / block * block);
    std::string watch = fmt::format("--hot {}", run.pattern.hot);
    if (run.budget != 0) watch += fmt::format(" --budget {}", run.budget);
    suite::GuestShape shape;
    shape.thermocline = setting_.thermocline;
    shape.kernel = o.kernel;
    shape.timing = o.timing;
    shape.mode = "reference";
    shape.fast = shape.slow = fast;
    shape.scripts = (fs::path(setting_.out_dir) / "scripts").string();
    std::vector<std::string> words = suite::guest_command(shape);
    const std::vector<std::string> more{"--out",
                                        (dir / "guest").string(),
                                        "--truth",
                                        (dir / "truth").string(),
                                        "--truth-slice",
                                        "50ms",
                                        "--truth-pages",
                                        "virtual",
                                        "--env",
                                        "WATCH=" + watch,
                                        "--",
                                        "sh",
                                        fmt::format("{}/cell.sh", suite::kGuestScripts),
                                        "tracker",
                                        run.tracker,
                                        "0",
                                        "-",
                                        run.pattern.workload,
                                        "--footprint",
                                        suite::mib(o.footprint),
                                        "--seed",
                                        std::to_string(o.seed),
                                        "--duration",
                                        fmt::format("{:g}", run.pattern.seconds)};
    words.insert(words.end(), more.begin(), more.end());
    if (run.pattern.huge_pages) words.emplace_back("--thp");
    for (const std::string& one : run.pattern.settings) {
      words.emplace_back("--set");
      words.push_back(one);
    }
    return words;
  }

  /// Empty: it is, or nobody has looked yet.
  [[nodiscard]] std::string not_there(const std::string& tracker) {
    const std::lock_guard guard(mutex_);
    const auto at = not_there_.find(tracker);
    return at == not_there_.end() ? "" : at->second;
  }

  void work() {
    for (std::size_t i = next_++; i < runs_.size(); i = next_++) {
      if (is_done_[i]) continue;
      const auto begin = Clock::now();
      Row row = row_of(runs_[i]);
      row.unsupported = not_there(row.tracker);
      if (row.unsupported.empty())
        if (const Status status = one(runs_[i], row); !status) row.error = status.error().message;
      const std::lock_guard guard(mutex_);
      rows_[i] = row;
      if (!row.unsupported.empty()) not_there_[row.tracker] = row.unsupported;
      log_ << to_json(row).dump() << "\n" << std::flush;
      --left_;
      const double each = std::chrono::duration<double>(Clock::now() - started_).count() /
                          static_cast<double>(all_ - left_);
      const auto percent = [](const std::optional<double>& share) {
        return share ? fmt::format("{:.1f} %", 100 * *share) : std::string("none");
      };
      setting_.say(fmt::format(
          "{}/{} {} {}{}: {} ({}); some {:.0f} min left", all_ - left_, all_, row.tracker,
          row.pattern, row.budget == 0 ? "" : fmt::format(" at {:g} %", 100 * row.budget),
          !row.error.empty() ? "failed: " + row.error
          : !row.unsupported.empty()
              ? "not there: " + row.unsupported
              : fmt::format("recall {}, precision {}", percent(row.result.recall),
                            percent(row.result.precision)),
          seconds_since(begin), std::ceil(each * static_cast<double>(left_) / 60)));
    }
  }

  Status one(const PlannedRun& run, Row& row) const {
    const fs::path dir =
        fs::path(setting_.out_dir) / "runs" /
        fmt::format("{}_{}_{:g}_{}", row.tracker, row.pattern, row.budget, row.kernel);
    std::error_code ec;
    fs::remove_all(dir, ec);
    fs::create_directories(dir, ec);
    if (ec) return fail_errno(ec.value(), "can't make " + dir.string());
    TC_ASSIGN(const lab::ProgramOutput output, lab::run_program(command(run, dir)));
    TC_TRY(lab::write_whole(dir / "log", output.text));
    const suite::Sections sections = suite::sections_of(output.text);
    if (const auto why = sections.find("not there"); why != sections.end()) {
      row.unsupported = reason_of(why->second);
      return {};
    }
    if (output.exit_code != 0) {
      std::string_view why = trim(output.text);
      why = why.substr(why.rfind('\n') + 1);
      return fail(ErrorKind::kFailure, "{} (look at {})", printable(why), (dir / "log").string());
    }
    const auto at = sections.find("workload");
    const Json workload = at == sections.end() ? Json() : Json::parse(at->second, nullptr, false);
    if (!workload.is_object() || !workload.value("verified", false) ||
        !workload.contains("start_monotonic_s") || !workload["start_monotonic_s"].is_number())
      return fail(ErrorKind::kCorrupt, "the workload gave no result that is right");
    row.ops_per_s = workload.value("ops_per_s", 0.0);
    TC_ASSIGN(const std::string text, lab::read_whole(dir / "guest" / "watch.json"));
    TC_ASSIGN(const Watch watch, parse_watch(text));
    TC_ASSIGN(const suite::Truth truth, suite::read_truth((dir / "truth").string(), 0));
    fs::remove(dir / "truth", ec);
    const auto start_ns =
        static_cast<std::uint64_t>(std::llround(workload["start_monotonic_s"].get<double>() * 1e9));
    const auto room = static_cast<std::uint64_t>(
        std::llround(run.pattern.hot * static_cast<double>(watch.pages())));
    TC_ASSIGN(row.result, judge(watch, truth, start_ns, room));
    return {};
  }

  const RunSetting& setting_;
  const std::vector<PlannedRun>& runs_;
  Clock::time_point started_;
  std::string texts_;
  std::vector<Row> rows_;
  std::vector<bool> is_done_;
  std::ofstream log_;
  std::atomic<std::size_t> next_{0};
  std::mutex mutex_;  ///< of rows_, log_, left_ and not_there_
  std::size_t all_ = 0, left_ = 0;
  std::map<std::string, std::string> not_there_;  ///< by tracker: why it isn't
};

}  // namespace

Result<std::vector<Row>> run_trackers(const std::vector<PlannedRun>& runs,
                                      const RunSetting& setting) {
  Runner runner(runs, setting);
  TC_TRY(runner.prepare());
  return runner.run();
}

}  // namespace thermocline::trackers
