// SPDX-License-Identifier: Apache-2.0
// `thermocline bench trackers`: how right and how dear each source of access records is, in
// modelled guests, against the model's ground truth (bench/trackers).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/output.h"
#include "base/text.h"
#include "bench/trackers/run.h"
#include "cli/command.h"
#include "cli/tracker_rows_report.h"
#include "emulation/lab/guest_image.h"
#include "emulation/lab/kernels.h"
#include "emulation/lab/runner.h"
#include "emulation/timing/model.h"
#include "tracking/tracker.h"

namespace thermocline::cli {

namespace {

namespace fs = std::filesystem;

struct Options {
  trackers::TrackersOptions what;
  std::string footprint = "160M";
  std::string out = "trackers";
  std::string markdown;
  unsigned jobs = 2;
  bool list = false, json = false;
};

std::vector<std::string> names_of_all() {
  std::vector<std::string> names;
  for (const TrackerFactory& factory : tracker_factories())
    if (factory.automatic) names.push_back(factory.name);
  return names;
}

void list_as_json() {
  nlohmann::ordered_json json;
  for (const trackers::Pattern& p : trackers::patterns())
    json["patterns"].push_back({{"pattern", p.name}, {"about", p.about}});
  json["trackers"].push_back({{"tracker", trackers::kNone}, {"about", "the program by itself"}});
  for (const TrackerFactory& f : tracker_factories())
    if (f.automatic) json["trackers"].push_back({{"tracker", f.name}, {"about", f.summary}});
  print_line(json_text(json));
}

void list() {
  print_line("PATTERN     WHAT IT IS");
  for (const trackers::Pattern& p : trackers::patterns())
    print_line(fmt::format("{:<11} {}", p.name, p.about));
  print_line("\nTRACKER     WHAT IT IS");
  print_line(fmt::format("{:<11} {}", trackers::kNone, "the program by itself"));
  for (const TrackerFactory& f : tracker_factories())
    if (f.automatic) print_line(fmt::format("{:<11} {}", f.name, f.summary));
}

/// kUsage for two trackers that can't be combined. Whether they work here is no matter: they run in
/// a guest.
Status check_pair(const TrackerOptions& options) {
  const auto system = make_real_system();
  for (const TrackerFactory& factory : tracker_factories()) {
    if (factory.name != "combine") continue;
    const Status works = factory.probe(*system, options);
    if (!works && works.error().kind == ErrorKind::kUsage) return works;
  }
  return {};
}

/// What the guests need shows before the first one boots.
Status check_parts(const std::vector<trackers::PlannedRun>& runs, const Options& o) {
  TC_TRY(lab::qemu_version());
  TC_ASSIGN(const lab::GuestKernel guest, lab::find_kernel(o.what.kernel));
  TC_TRY(lab::timing_plugin_file());
  TC_TRY(timing::load_model(o.what.timing));
  if (lab::build_dir().empty() || !fs::exists(lab::build_dir() / "bench/trackers/tracker_watch"))
    return fail(ErrorKind::kUnsupported,
                "there is no tracker_watch beside this program; run it from a build tree with "
                "THERMOCLINE_BENCH=ON");
  for (const trackers::PlannedRun& run : runs) {
    TrackerOptions options;
    options.sources = trackers::sources_of(run.tracker);
    if (options.sources.size() > 1) TC_TRY(check_pair(options));
    if (std::find(options.sources.begin(), options.sources.end(), "kmod") == options.sources.end())
      continue;
    const fs::path module = lab::module_file(guest);
    if (module.empty() || !fs::exists(module))
      return fail(ErrorKind::kUnsupported,
                  "there is no thermocline.ko for {}; build it with emulation/lab/setup.sh and "
                  "cmake, or leave the tracker out with --trackers",
                  guest.release.empty() ? guest.name : guest.release);
  }
  return {};
}

Status write_page(const Options& o, const std::vector<trackers::Row>& rows,
                  const std::string& command) {
  const std::string prefix = "pictures/trackers-";
  const fs::path page(o.markdown);
  std::error_code ec;
  fs::create_directories(page.parent_path() / "pictures", ec);
  if (ec) return fail_errno(ec.value(), "can't make a folder for the pictures");
  for (const std::string& tracker : trackers_with_curve(rows))
    TC_TRY(write_whole((page.parent_path() / (prefix + tracker + ".svg")).string(),
                       tracker_curve_svg(rows, tracker)));
  return write_whole(o.markdown, tracker_rows_markdown(rows, command, prefix));
}

Result<int> run(Options& o, const std::string& command) {
  if (o.jobs < 1 || o.jobs > 64) return fail(ErrorKind::kUsage, "--jobs must be 1 to 64");
  TC_ASSIGN(o.what.footprint, parse_bytes(o.footprint));
  TC_ASSIGN(const auto runs, trackers::plan_runs(o.what, names_of_all()));
  if (o.list) {
    o.json ? list_as_json() : list();
    return 0;
  }
  TC_TRY(check_parts(runs, o));
  trackers::RunSetting setting;
  setting.options = o.what;
  setting.out_dir = o.out;
  std::error_code ec;
  setting.thermocline = fs::read_symlink("/proc/self/exe", ec).string();
  if (ec) return fail_errno(ec.value(), "can't find this program's own file");
  setting.version = build_version();
  setting.jobs = o.jobs;
  setting.say = [](const std::string& text) { fmt::print(stderr, "thermocline: {}\n", text); };
  TC_ASSIGN(const std::vector<trackers::Row> rows, trackers::run_trackers(runs, setting));
  if (!o.markdown.empty()) TC_TRY(write_page(o, rows, command));
  if (o.json) {
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    for (const trackers::Row& row : rows) json.push_back(to_json(row));
    print_line(json_text(json));
  } else {
    print_line(tracker_rows_table(rows));
  }
  // Who asked for a tracker by its name wanted its figures.
  const bool asked = !o.what.trackers.empty();
  for (const trackers::Row& row : rows)
    if (!row.error.empty() || (asked && !row.unsupported.empty())) return 1;
  return 0;
}

/// As typed, for whoever wants the same again.
std::string typed(const Options& o) {
  const trackers::TrackersOptions usual;
  std::string text = "thermocline bench trackers";
  if (!o.what.trackers.empty())
    text += fmt::format(" --trackers {}", fmt::join(o.what.trackers, ","));
  if (!o.what.patterns.empty())
    text += fmt::format(" --patterns {}", fmt::join(o.what.patterns, ","));
  if (o.what.budgets != usual.budgets)
    text += fmt::format(" --budgets {}", fmt::join(o.what.budgets, ","));
  if (o.what.kernel != usual.kernel) text += " --kernel " + o.what.kernel;
  if (o.what.timing != usual.timing) text += " --timing " + o.what.timing;
  if (o.footprint != "160M") text += " --footprint " + o.footprint;
  if (o.what.seed != usual.seed) text += fmt::format(" --seed {}", o.what.seed);
  return text + " --out " + o.out;
}

}  // namespace

void register_bench_trackers(CLI::App& bench, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* const verb = bench.add_subcommand(
      "trackers", "how right and how dear each tracker is, against the model's ground truth");
  verb->add_option("--trackers", o->what.trackers,
                   "see --list; two joined by + are combined (default: all that work there)")
      ->delimiter(',')
      ->type_name("A,B,...");
  verb->add_option("--patterns", o->what.patterns, "see --list (default: all)")
      ->delimiter(',')
      ->type_name("A,B,...");
  verb->add_option("--budgets", o->what.budgets, "shares of one processor that a tracker may take")
      ->delimiter(',')
      ->type_name("A,B,...")
      ->capture_default_str();
  verb->add_option("--kernel", o->what.kernel, "as of `lab run`")->capture_default_str();
  verb->add_option("--timing", o->what.timing, "memory-timing model: a preset or a file")
      ->type_name("MODEL")
      ->capture_default_str();
  verb->add_option("--footprint", o->footprint, "of every program")->capture_default_str();
  verb->add_option("--seed", o->what.seed, "of load and page layout")->capture_default_str();
  verb->add_option("--jobs", o->jobs, "runs at a time, a host core each")->capture_default_str();
  verb->add_option("--out", o->out, "folder of the results; a run goes on with what is there")
      ->type_name("DIR")
      ->capture_default_str();
  verb->add_option("--markdown", o->markdown, "write the tables, and pictures beside them")
      ->type_name("FILE");
  verb->add_flag("--list", o->list, "patterns and trackers, and nothing else");
  verb->add_flag("--json", o->json, "print JSON with stable keys");
  verb->callback([&context, o] {
    const std::string command = typed(*o);
    context.action = [o, command] { return run(*o, command); };
  });
}

}  // namespace thermocline::cli
