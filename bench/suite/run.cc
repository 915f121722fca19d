// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/run.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <map>
#include <set>
#include <thread>
#include <tuple>

#include "base/output.h"
#include "base/system.h"
#include "base/text.h"
#include "bench/suite/facts.h"
#include "emulation/lab/files.h"
#include "emulation/lab/guest_image.h"

namespace thermocline::suite {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using literals::operator""_MiB;

/// A fast node of so much beyond the footprint has room for everything.
constexpr Bytes kRoomForAll = 192_MiB;
/// Memory of the fast node that the kernel takes for itself, about: where the search begins.
constexpr Bytes kKernelTakes = 100_MiB;
/// A node leaves more free than a cell may have, which takes the rest away itself: one node's boots
/// differ by up to 3 MiB.
constexpr Bytes kSurplus = 4_MiB;
constexpr Bytes kLeastSurplus = 3_MiB, kMostSurplus = 6_MiB;
constexpr int kMostProbes = 12;
/// Exit code of a cell that found too little free, and by how much its node is then made larger, so
/// often at most.
constexpr int kTooLittleFree = 75;
constexpr int kMostTooLittle = 3;
/// A probe that dies is tried so often again: a whole ratio hangs on it.
constexpr int kProbeRetries = 2;

std::string file_name(const CellKey& key) {
  std::string name = fmt::format("{}_{}_{}_{}_{}_{}_{}", key.workload, key.ratio, key.system,
                                 key.timing, key.mode, key.kernel, key.seed);
  for (char& c : name)
    if (c == ':' || c == '/') c = '-';
  return name;
}

/// A program that runs in a process group of its own, with its output in a file. It dies with us,
/// however we do.
class Child {
 public:
  static Result<Child> start(const std::vector<std::string>& words, const std::string& log) {
    const auto failed = [&words](int error) {
      return fail_errno(error, "can't start " + words[0]);
    };
    const UniqueFd in(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const UniqueFd out(
        ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666));
    if (!in) return failed(errno);
    if (!out) return fail_errno(errno, "can't write " + log);
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return failed(errno);
    const UniqueFd told(ends[0]);
    UniqueFd tell(ends[1]);
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    // The signals that end the suite are handed on by it, once; and it has them blocked.
    sigset_t none;
    ::sigemptyset(&none);
    const pid_t parent = ::getpid();
    Child child;
    child.pid_ = ::fork();
    if (child.pid_ < 0) return failed(errno);
    if (child.pid_ == 0) {
      // Only async-signal-safe calls from here.
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(127);
      ::setpgid(0, 0);
      ::sigprocmask(SIG_SETMASK, &none, nullptr);
      ::dup2(in.get(), STDIN_FILENO);
      ::dup2(out.get(), STDOUT_FILENO);
      ::dup2(out.get(), STDERR_FILENO);
      ::execve(arguments[0], arguments.data(), environ);
      const int error = errno;
      (void)!::write(tell.get(), &error, sizeof error);
      ::_exit(127);
    }
    tell.reset();
    int error = 0;
    ssize_t n = 0;
    do n = ::read(told.get(), &error, sizeof error);
    while (n < 0 && errno == EINTR);
    if (n == 0) return child;
    ::waitpid(child.pid_, nullptr, 0);
    return failed(error);
  }

  void end() const { ::kill(pid_, SIGTERM); }
  void kill() const { ::kill(-pid_, SIGKILL); }
  /// Exit code, or 128 + signal; none while it runs.
  [[nodiscard]] std::optional<int> poll() const {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
};

/// Signals that end a run, blocked while it looks for them itself.
class Signals {
 public:
  Signals() {
    ::sigemptyset(&set_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&set_, signal);
    ::sigprocmask(SIG_BLOCK, &set_, &before_);
  }
  ~Signals() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  /// The one that came within `wait`, or 0.
  [[nodiscard]] int wait(std::chrono::milliseconds wait) const {
    const timespec time{0, static_cast<long>(wait.count()) * 1'000'000};
    return std::max(0, ::sigtimedwait(&set_, nullptr, &time));
  }

 private:
  sigset_t set_, before_;
};

/// Last line of a log that says what went wrong: not a part's name, not the lab's signs of life.
std::string last_words(const std::string& log) {
  std::string last;
  for (const std::string_view line : split(log, '\n')) {
    const std::string_view text = trim(line);
    if (!text.empty() && !text.starts_with("===") && !text.starts_with("---") &&
        !text.starts_with("thermocline: lab: booting"))
      last = std::string(text);
  }
  return last.empty() ? "the guest ended without a word" : printable(last);
}

class Suite {
 public:
  explicit Suite(const RunSetting& setting, Store store)
      : setting_(setting), dir_(setting.out_dir), store_(std::move(store)) {}
  /// Whatever ends a run early, no guest outlives it.
  ~Suite() {
    for (const Running& r : running_) r.child.end();
    const Clock::time_point last = Clock::now() + setting_.patience;
    for (const Running& r : running_)
      while (!r.child.poll()) {
        if (Clock::now() >= last) r.child.kill();
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
  }
  Suite(const Suite&) = delete;
  Suite& operator=(const Suite&) = delete;

  Result<RunOutcome> run(const std::vector<PlannedCell>& cells) {
    TC_TRY(take_those_left(cells));
    TC_TRY(prepare());
    // Page counts are not in the store: what the oracle needs may have to be run again.
    for (std::size_t i = 0; i < waiting_.size(); ++i)
      if (waiting_[i].system.name == "oracle-static" && !has_counts(waiting_[i]) &&
          std::none_of(waiting_.begin(), waiting_.end(),
                       [&](const PlannedCell& c) { return is_source(c, waiting_[i]); }))
        for (const PlannedCell& cell : cells)
          if (is_source(cell, waiting_[i])) {
            waiting_.insert(waiting_.begin() + static_cast<std::ptrdiff_t>(i), cell);
            ++i;
            break;
          }
    all_ = waiting_.size();
    start_ = Clock::now();
    if (outcome_.skipped != 0)
      say(fmt::format("{} of {} cells are there already", outcome_.skipped, cells.size()));
    while ((!waiting_.empty() && outcome_.signal == 0) || !running_.empty()) {
      while (outcome_.signal == 0 && running_.size() < setting_.jobs) {
        TC_ASSIGN(const bool started, start_next());
        if (!started) break;
      }
      if (running_.empty() && outcome_.signal == 0 && !waiting_.empty()) {
        // Nothing can start: the all-fast run that the oracle needs has failed.
        const PlannedCell cell = waiting_.front();
        waiting_.erase(waiting_.begin());
        TC_TRY(keep_failure(cell, "its run with all memory on the fast node failed", "", 0));
        continue;
      }
      const int signal = signals_.wait(std::chrono::milliseconds(100));
      const bool second = signal != 0 && outcome_.signal != 0;
      if (signal != 0 && outcome_.signal == 0) {
        outcome_.signal = signal;
        last_ = Clock::now() + setting_.patience;
        for (const Running& r : running_) r.child.end();
      }
      if (second || (outcome_.signal != 0 && Clock::now() >= last_))
        for (const Running& r : running_) r.child.kill();
      TC_TRY(look());
    }
    return outcome_;
  }

 private:
  struct Running {
    PlannedCell cell;
    Child child;
    Clock::time_point start;
    std::optional<FastNode> probed;  ///< when it is a probe
  };
  /// What is known of the guest of one ratio.
  struct Fitting {
    std::optional<FastNode> node;
    FastNode next;  ///< of the next probe
    int probes = 0;
    int deaths = 0;  ///< of the same probe, one after another
    int too_little = 0;
    bool busy = false;
  };

  void say(const std::string& text) const {
    if (setting_.say) setting_.say(text);
  }

  /// What is not finished yet. Finished cells of another experiment don't count as this one's.
  Status take_those_left(const std::vector<PlannedCell>& cells) {
    std::vector<CellKey> others;
    for (const PlannedCell& cell : cells) {
      const CellRecord* const record = store_.done(cell.key);
      if (record != nullptr && record->setting != cell.setting) others.push_back(cell.key);
      if (record != nullptr && record->setting == cell.setting)
        ++outcome_.skipped;
      else
        waiting_.push_back(cell);
    }
    if (others.empty() || setting_.again) return {};
    return fail(ErrorKind::kUsage,
                "{} of the cells in {} were finished with another footprint, length, timing model "
                "or scripts, such as {}; name another --out, or run them again with --again",
                others.size(), setting_.out_dir, to_text(others.front()));
  }

  Status prepare() {
    std::error_code ec;
    for (const char* part : {"scripts", "cells", "page-counts"}) {
      fs::create_directories(dir_ / part, ec);
      if (ec) return fail_errno(ec.value(), "can't make the folder " + (dir_ / part).string());
    }
    for (const Script& script : scripts())
      TC_TRY(write_whole((dir_ / "scripts" / script.name).string(), script.text));
    TC_TRY(write_whole(padding_file().string(), std::string(kPageCountsSize.get(), '\n')));
    if (setting_.facts) {
      const fs::path file = dir_ / kFactsName;
      std::string before;
      if (fs::exists(file)) {
        TC_ASSIGN(before, lab::read_whole(file));
      }
      TC_ASSIGN(facts_, setting_.facts(before));
      if (before.empty()) TC_TRY(keep_facts());
    }
    return {};
  }

  Status keep_facts() {
    if (facts_.empty()) return {};
    TC_TRY(write_whole((dir_ / kFactsName).string(), facts_));
    facts_.clear();
    return {};
  }

  /// A run that makes no cells is none that the pages tell of.
  Status keep(const CellRecord& record) {
    TC_TRY(keep_facts());
    return store_.append(record);
  }

  /// The timing model has no place in the name: it may be a path, and the setting tells it.
  [[nodiscard]] fs::path counts_file(const PlannedCell& cell) const {
    const CellKey& key = cell.key;
    return fs::absolute(dir_ / "page-counts" /
                        fmt::format("{}_{}_{}_{}_{}", key.workload, cell.all_fast_setting, key.mode,
                                    key.kernel, key.seed));
  }
  [[nodiscard]] bool has_counts(const PlannedCell& cell) const {
    return fs::exists(counts_file(cell));
  }
  [[nodiscard]] fs::path padding_file() const { return fs::absolute(dir_ / "padding"); }
  static bool is_source(const PlannedCell& cell, const PlannedCell& of) {
    return cell.system.name == "all-fast" && cell.key.workload == of.key.workload &&
           cell.key.seed == of.key.seed;
  }

  [[nodiscard]] CellPlaces places(const PlannedCell& cell) const {
    const fs::path here = fs::absolute(dir_);
    CellPlaces places;
    places.thermocline = setting_.thermocline;
    places.scripts = (here / "scripts").string();
    places.truth = (here / "cells" / (file_name(cell.key) + ".truth")).string();
    places.page_counts = counts_file(cell).string();
    places.carried =
        cell.system.script == "oracle-static" ? places.page_counts : padding_file().string();
    if (!cell.workload.program.empty())
      places.program = (lab::cache_dir() / "programs" / cell.workload.program).string();
    return places;
  }
  [[nodiscard]] std::string log_name(const PlannedCell& cell) const {
    return "cells/" + file_name(cell.key) + ".log";
  }

  Fitting& fitting(const PlannedCell& cell) {
    return fittings_[{cell.fast->get(), cell.workload.program, cell.swaps()}];
  }

  [[nodiscard]] bool is_to_come(const CellKey& key) const {
    const auto has_key = [&key](const auto& one) { return one.key == key; };
    return std::any_of(waiting_.begin(), waiting_.end(), has_key) ||
           std::any_of(running_.begin(), running_.end(),
                       [&](const Running& r) { return has_key(r.cell); });
  }

  enum class Need { kNeeded, kNotNeeded, kNotKnownYet };
  /// Of a further seed of a rival's setting; says why not.
  [[nodiscard]] Need need_of(const PlannedCell& cell) const {
    const auto others = other_settings(cell.key);
    if (setting_.all_seeds || others.empty()) return Need::kNeeded;
    CellKey first = cell.key;
    first.seed = 1;
    if (is_to_come(first) ||
        std::any_of(others.begin(), others.end(), [&](const CellKey& k) { return is_to_come(k); }))
      return Need::kNotKnownYet;
    const CellRecord* const seed1 = store_.done(first);
    if (seed1 == nullptr || seed1->setting != cell.setting) return Need::kNeeded;
    for (const CellKey& other : others) {
      const CellRecord* const rival = store_.done(other);
      const auto behind = rival == nullptr ? std::nullopt : too_far_behind(*seed1, *rival);
      if (!behind) continue;
      say(fmt::format("{} {} {}, seed {}: not needed: {} was {:.0f} % faster with seed 1",
                      cell.key.workload, cell.key.ratio, cell.key.system, cell.key.seed,
                      other.system, 100 * *behind));
      return Need::kNotNeeded;
    }
    return Need::kNeeded;
  }

  /// False when nothing that waits can be started now.
  Result<bool> start_next() {
    for (std::size_t i = 0; i < waiting_.size(); ++i) {
      const PlannedCell cell = waiting_[i];
      const Need need = need_of(cell);
      if (need == Need::kNotKnownYet) continue;
      if (need == Need::kNotNeeded) {
        waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i--));
        ++outcome_.not_needed;
        --all_;
        continue;
      }
      if (cell.system.name == "oracle-static" && !has_counts(cell)) continue;
      FastNode node{in_steps(setting_.options.footprint + kRoomForAll), Bytes()};
      if (cell.fast) {
        Fitting& fit = fitting(cell);
        if (fit.busy) continue;
        if (!fit.node) {
          TC_TRY(start_probe(cell, fit));
          return true;
        }
        node = *fit.node;
      }
      waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
      const std::vector<std::string> command =
          cell_command(cell, setting_.options.timing, setting_.options.footprint,
                       setting_.options.length, node, places(cell));
      TC_TRY(start(cell, command, std::nullopt));
      return true;
    }
    return false;
  }

  Status start_probe(const PlannedCell& cell, Fitting& fit) {
    if (fit.probes == 0) {
      fit.next.size = in_steps(*cell.fast + kKernelTakes);
      fit.next.reserved = fit.next.size - (*cell.fast + kKernelTakes);
    }
    ++fit.probes;
    fit.busy = true;
    return start(cell,
                 probe_command(cell, setting_.options.timing, setting_.options.footprint, fit.next,
                               places(cell)),
                 fit.next);
  }

  static Bytes in_steps(Bytes size) {
    const std::uint64_t step = kNodeStep.get();
    return Bytes((size.get() + step - 1) / step * step);
  }

  Status start(const PlannedCell& cell, const std::vector<std::string>& command,
               std::optional<FastNode> probed) {
    const fs::path log = dir_ / log_name(cell);
    TC_ASSIGN(const Child child, Child::start(command, log.string()));
    std::vector<std::string> quoted;
    for (const std::string& word : command) quoted.push_back(lab::shell_quote(word));
    (void)write_whole((dir_ / "cells" / (file_name(cell.key) + ".command")).string(),
                      fmt::format("{}\n", fmt::join(quoted, " ")));
    running_.push_back({cell, child, Clock::now(), probed});
    return {};
  }

  Status look() {
    for (std::size_t i = 0; i < running_.size(); ++i) {
      const auto code = running_[i].child.poll();
      if (!code) continue;
      const Running r = running_[i];
      running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(i--));
      if (outcome_.signal != 0) continue;
      if (r.probed) {
        TC_TRY(take_probe(r, *code));
      } else {
        TC_TRY(take_cell(r, *code));
      }
    }
    return {};
  }

  /// Reserves more or less of the node until what is free is what is wanted.
  Status take_probe(const Running& r, int code) {
    Fitting& fit = fitting(r.cell);
    fit.busy = false;
    TC_ASSIGN(const std::string log, lab::read_whole(dir_ / log_name(r.cell)));
    const Result<Bytes> free = fast_bytes_of(sections_of(log));
    if (code != 0 || !free) {
      const std::string why = code != 0 ? last_words(log) : free.error().message;
      if (++fit.deaths > kProbeRetries) return give_up(fit, why, log_name(r.cell));
      say(fmt::format("a probe of {} died and is tried again: {}", r.cell.key.ratio, why));
      --fit.probes;
      return {};
    }
    fit.deaths = 0;
    const Bytes least = *r.cell.fast + kLeastSurplus, most = *r.cell.fast + kMostSurplus;
    if (*free >= least && *free <= most) {
      fit.node = r.probed;
      return {};
    }
    if (fit.probes >= kMostProbes)
      return give_up(fit,
                     fmt::format("no fast node was found that leaves {} to {}, the last one leaves "
                                 "{}",
                                 format_bytes(least), format_bytes(most), format_bytes(*free)),
                     log_name(r.cell));
    const Bytes want = *r.cell.fast + kSurplus;
    fit.next = *free > want ? smaller(fit.next, *free - want) : larger(fit.next, want - *free);
    return {};
  }

  static FastNode smaller(FastNode node, Bytes by) {
    node.reserved += whole_pages(by);
    return node;
  }
  static FastNode larger(FastNode node, Bytes by) {
    by = whole_pages(by);
    if (node.reserved < by) {
      node.size += kNodeStep;
      node.reserved += kNodeStep;
    }
    node.reserved -= by;
    return node;
  }
  static Bytes whole_pages(Bytes bytes) { return Bytes(bytes.get() / 4096 * 4096); }

  /// Whoever needs this node can't run.
  Status give_up(const Fitting& fit, const std::string& why, const std::string& log) {
    std::vector<PlannedCell> rest;
    for (const PlannedCell& cell : waiting_) {
      if (cell.fast && &fitting(cell) == &fit)
        TC_TRY(keep_failure(cell, why, log, 0));
      else
        rest.push_back(cell);
    }
    waiting_ = std::move(rest);
    return {};
  }

  Status take_cell(const Running& r, int code) {
    const double wall_s = std::chrono::duration<double>(Clock::now() - r.start).count();
    const CellPlaces at = places(r.cell);
    const Result<std::string> log = lab::read_whole(dir_ / log_name(r.cell));
    if (code == kTooLittleFree && r.cell.fast) {
      Fitting& fit = fitting(r.cell);
      if (++fit.too_little <= kMostTooLittle) {
        say(fmt::format("{}, and is tried again with more", last_words(log.value_or(""))));
        if (fit.node) fit.node = larger(*fit.node, 1_MiB);
        waiting_.insert(waiting_.begin(), r.cell);
        return {};
      }
    }
    Result<CellRecord> record = read(r.cell, code, log.value_or(""), at);
    std::error_code ec;
    fs::remove(at.truth, ec);
    if (!record) return keep_failure(r.cell, record.error().message, log_name(r.cell), wall_s);
    record->setting = r.cell.setting;
    record->wall_s = wall_s;
    record->version = setting_.version;
    TC_TRY(keep(*record));
    ++outcome_.done;
    tell(r.cell,
         fmt::format("{:.3g} op/s, {:.0f} % of misses on the fast node", *record->ops_per_s,
                     100 * record->fast_hit_ratio.value_or(0)),
         wall_s);
    return {};
  }

  Result<CellRecord> read(const PlannedCell& cell, int code, const std::string& log,
                          const CellPlaces& at) const {
    if (code != 0) return fail(ErrorKind::kFailure, "exit code {}: {}", code, last_words(log));
    TC_ASSIGN(const Truth truth, read_truth(at.truth, 0));
    if (cell.system.name == "all-fast") {
      std::string counts;
      for (const auto& [page, misses] : truth.pages)
        counts += fmt::format("{:x} {}\n", page, misses);
      counts.resize(std::max<std::size_t>(counts.size(), kPageCountsSize.get()), '\n');
      TC_TRY(write_whole(at.page_counts, counts));
    }
    return read_cell(cell, sections_of(log), truth);
  }

  Status keep_failure(const PlannedCell& cell, const std::string& why, const std::string& log,
                      double wall_s) {
    CellRecord record;
    record.key = cell.key;
    record.setting = cell.setting;
    if (cell.system.policy != "-") record.policy = cell.system.policy;
    record.error = printable(why);
    record.log = log;
    record.wall_s = wall_s;
    record.version = setting_.version;
    TC_TRY(keep(record));
    ++outcome_.failed;
    tell(cell, "FAILED: " + record.error, wall_s);
    return {};
  }

  void tell(const PlannedCell& cell, const std::string& what, double wall_s) const {
    const std::size_t ended = outcome_.done + outcome_.failed;
    const double passed = std::chrono::duration<double>(Clock::now() - start_).count();
    const double left =
        ended == 0 ? 0 : passed / static_cast<double>(ended) * static_cast<double>(all_ - ended);
    const auto minutes = static_cast<unsigned>(std::ceil(left / 60));
    say(fmt::format("{}/{} {} {} {}, seed {}: {} ({:.0f} s); {}", ended, all_, cell.key.workload,
                    cell.key.ratio, cell.key.system, cell.key.seed, what, wall_s,
                    ended >= all_    ? "that was the last"
                    : minutes >= 120 ? fmt::format("some {} hours left", (minutes + 30) / 60)
                                     : fmt::format("some {} min left", minutes)));
  }

  const RunSetting& setting_;
  fs::path dir_;
  Store store_;
  Signals signals_;
  std::vector<PlannedCell> waiting_;
  std::vector<Running> running_;
  std::map<std::tuple<std::uint64_t, std::string, bool>, Fitting> fittings_;
  std::string facts_;  ///< still to be written
  RunOutcome outcome_;
  std::size_t all_ = 0;
  Clock::time_point start_;
  Clock::time_point last_;  ///< of the patience with cells that were asked to end
};

}  // namespace

Result<RunOutcome> run_cells(const std::vector<PlannedCell>& cells, const RunSetting& setting) {
  std::error_code ec;
  fs::create_directories(setting.out_dir, ec);
  if (ec)
    return fail(ErrorKind::kUsage, "can't make the folder {}: {}; choose another with --out",
                setting.out_dir, ec.message());
  TC_ASSIGN(Store store, Store::open((fs::path(setting.out_dir) / kStoreName).string()));
  for (const std::string& note : store.notes())
    if (setting.say) setting.say(note);
  return Suite(setting, std::move(store)).run(cells);
}

}  // namespace thermocline::suite
