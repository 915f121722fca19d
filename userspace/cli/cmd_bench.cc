// SPDX-License-Identifier: Apache-2.0
// `thermocline bench suite|report`: tiering systems beside each other in modelled guests, and the
// pages that show what came out (bench/suite).
#include <fmt/chrono.h>
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <ctime>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/output.h"
#include "base/text.h"
#include "bench/suite/facts.h"
#include "bench/suite/report.h"
#include "bench/suite/run.h"
#include "bench/suite/summary.h"
#include "cli/command.h"
#include "emulation/lab/files.h"
#include "emulation/lab/guest_image.h"
#include "emulation/lab/kernels.h"
#include "emulation/lab/runner.h"
#include "emulation/timing/model.h"

namespace thermocline::cli {

namespace {

namespace fs = std::filesystem;
using namespace suite;

struct Options {
  SuiteOptions suite;
  std::string out = "suite";
  std::string footprint = "160M";
  unsigned jobs = 2;
  bool smoke = false, full = false, list = false, json = false, again = false;
  bool all_seeds = false;
  /// Of options with a default: whether they were given.
  bool typed_ratios = false, typed_seeds = false, typed_length = false;
};

struct ReportOptions {
  std::string dir;
  std::string html, markdown;
  bool json = false;
};

void say(const std::string& text) {
  fmt::print(stderr, "thermocline: {}\n", text);
}

void list(bool json) {
  if (json) {
    nlohmann::ordered_json out;
    for (const SuiteWorkload& w : suite_workloads())
      out["workloads"].push_back({{"name", w.name},
                                  {"core", w.core},
                                  {"seconds", w.seconds},
                                  {"settings", w.settings},
                                  {"huge_pages", w.huge_pages},
                                  {"swapped", w.swapped}});
    for (const SuiteSystem& s : suite_systems())
      out["systems"].push_back(
          {{"name", s.name}, {"core", s.core}, {"about", s.about}, {"seeded", s.seeded}});
    print_line(json_text(out));
    return;
  }
  print_line("WORKLOAD          GUEST TIME  TABLE     SETTINGS");
  for (const SuiteWorkload& w : suite_workloads())
    print_line(fmt::format(
        "{:<17} {:>8} s  {:<8}  {}{}{}", w.name, w.seconds, w.core ? "core" : "optional",
        fmt::join(w.settings, " "), w.huge_pages ? "huge pages" : "",
        w.swapped != 0 ? fmt::format("{}, {:g} % in swap", w.runs, 100 * w.swapped) : ""));
  print_line("\nSYSTEM                     TABLE     WHAT IT IS");
  for (const SuiteSystem& s : suite_systems())
    print_line(fmt::format("{:<26} {:<8}  {}", s.name, s.core ? "core" : "optional", s.about));
}

/// Pages from what is in the folder of a run. `expected`: what should be there; empty: whatever
/// combinations occur.
Result<Summary> read_summary(const std::string& dir, const std::vector<CellKey>& expected) {
  TC_ASSIGN(const Cells cells, read_cells((fs::path(dir) / kStoreName).string()));
  for (const std::string& note : cells.notes) say(note);
  return summarize(cells.records,
                   expected.empty()
                       ? without_unneeded(every_combination(cells.records), cells.records)
                       : expected);
}

Result<ReportHeader> read_header(const std::string& dir, const Summary& summary) {
  TC_ASSIGN(const std::string text, lab::read_whole(fs::path(dir) / kFactsName));
  const auto runs = parse_facts(text);
  if (!runs) return fail(ErrorKind::kCorrupt, "{}/{}: {}", dir, kFactsName, runs.error().message);
  ReportHeader header = header_of(*runs);
  header.log_tails = read_log_tails(summary, dir);
  return header;
}

Result<int> report(const ReportOptions& o) {
  TC_ASSIGN(const Summary summary, read_summary(o.dir, {}));
  TC_ASSIGN(ReportHeader header, read_header(o.dir, summary));
  if (!o.html.empty()) TC_TRY(write_whole(o.html, report_html(summary, header)));
  if (!o.markdown.empty()) {
    const fs::path page(o.markdown);
    header.page_command =
        fmt::format("thermocline bench report {} --markdown {}", o.dir, o.markdown);
    header.picture_prefix = "pictures/results-";
    std::error_code ec;
    fs::create_directories(page.parent_path() / "pictures", ec);
    if (ec) return fail_errno(ec.value(), "can't make a folder for the pictures");
    for (const Table& table : summary.tables)
      TC_TRY(
          write_whole((page.parent_path() / (header.picture_prefix + picture_name(table))).string(),
                      slowdown_chart_svg(table, Measure::kWhole)));
    TC_TRY(write_whole(o.markdown, report_markdown(summary, header)));
  }
  if (o.json)
    print_line(json_text(summary_json(summary)));
  else if (o.html.empty() && o.markdown.empty())
    return fail(ErrorKind::kUsage, "say what to make: --html FILE, --markdown FILE or --json");
  return 0;
}

/// A small part of everything, for a test: it runs, it is whole, it can fail.
void make_smoke(Options& o) {
  if (o.suite.workloads.empty()) o.suite.workloads = {"chase"};
  if (!o.typed_ratios) o.suite.ratios = {"1:2"};
  if (o.suite.systems.empty())
    o.suite.systems = {"all-fast",         "all-slow",    "first-touch", "oracle-static",
                       "thermocline:auto", "numab@tuned", "damos@tuned"};
  if (!o.typed_length) o.suite.length = 0.2;
}

/// What the guests need shows before the first one boots.
Status check_parts(const std::vector<PlannedCell>& cells, const std::string& kernel) {
  TC_TRY(lab::qemu_version());
  TC_ASSIGN(const lab::GuestKernel guest, lab::find_kernel(kernel));
  TC_TRY(lab::timing_plugin_file());
  if (lab::build_dir().empty() || !fs::exists(lab::build_dir() / "bench/workloads/workload"))
    return fail(ErrorKind::kUnsupported,
                "there are no workloads beside this program; run it from a build tree with "
                "THERMOCLINE_BENCH=ON");
  for (const PlannedCell& cell : cells) {
    if (cell.system.script == "thermocline") {
      const fs::path module = lab::module_file(guest);
      if (module.empty() || !fs::exists(module))
        return fail(ErrorKind::kUnsupported,
                    "there is no thermocline.ko for {}; build it with emulation/lab/setup.sh and "
                    "cmake, or leave the system out with --systems",
                    guest.release.empty() ? guest.name : guest.release);
    }
    if (!cell.workload.program.empty() &&
        !fs::exists(lab::cache_dir() / "programs" / cell.workload.program))
      return fail(ErrorKind::kUnsupported,
                  "{} needs {}, which is not there; run emulation/lab/setup.sh as root once, or "
                  "leave it out with --workloads",
                  cell.workload.name, cell.workload.program);
  }
  return {};
}

Result<int> run_suite(Options& o, const std::string& command) {
  if (o.list) {
    list(o.json);
    return 0;
  }
  if (o.smoke && o.full)
    return fail(ErrorKind::kUsage, "give --smoke or --full, not both: one is short, one is long");
  TC_ASSIGN(o.suite.footprint, parse_bytes(o.footprint));
  if (o.smoke) make_smoke(o);
  if (o.full && !o.typed_seeds) o.suite.seeds = 3;
  if (o.jobs < 1 || o.jobs > 64) return fail(ErrorKind::kUsage, "--jobs must be 1 to 64");
  TC_ASSIGN(const std::vector<PlannedCell> cells, plan_cells(o.suite));
  TC_TRY(check_parts(cells, o.suite.kernel));
  RunSetting setting;
  setting.options = o.suite;
  setting.out_dir = o.out;
  std::error_code ec;
  setting.thermocline = fs::read_symlink("/proc/self/exe", ec).string();
  if (ec) return fail_errno(ec.value(), "can't find this program's own file");
  setting.version = build_version();
  setting.jobs = o.jobs;
  setting.again = o.again;
  setting.all_seeds = o.all_seeds;
  setting.say = say;
  setting.facts = [&](const std::string& before) -> Result<std::string> {
    std::vector<RunFacts> runs;
    if (!before.empty()) {
      auto there = parse_facts(before);
      if (!there)
        return fail(ErrorKind::kCorrupt, "{}/{}: {}", o.out, kFactsName, there.error().message);
      runs = std::move(*there);
    }
    TC_ASSIGN(const ReportHeader header, gather_facts(*make_real_system(), command, o.suite.kernel,
                                                      o.suite.timing, setting.version));
    add_run(runs, {fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::time(nullptr))), header});
    return facts_json(runs);
  };
  TC_ASSIGN(const RunOutcome outcome, run_cells(cells, setting));
  if (outcome.signal != 0) {
    say("stopped; the same command goes on from here");
    return 128 + outcome.signal;
  }
  std::vector<CellKey> expected;
  for (const PlannedCell& cell : cells) expected.push_back(cell.key);
  if (!o.all_seeds) {
    TC_ASSIGN(const Cells kept, read_cells((fs::path(o.out) / kStoreName).string()));
    expected = without_unneeded(expected, kept.records);
  }
  TC_ASSIGN(const Summary summary, read_summary(o.out, expected));
  TC_ASSIGN(const ReportHeader header, read_header(o.out, summary));
  const std::string page = (fs::path(o.out) / "report.html").string();
  TC_TRY(write_whole(page, report_html(summary, header)));
  if (o.json) print_line(json_text(summary_json(summary)));
  say(fmt::format("{} cells done, {} were there already, {} failed{}; look at {}", outcome.done,
                  outcome.skipped, outcome.failed,
                  outcome.not_needed == 0 ? "" : fmt::format(", {} not needed", outcome.not_needed),
                  page));
  return outcome.failed == 0 ? 0 : 1;
}

/// The options that decide what the table is.
std::string typed(const Options& o) {
  std::string text = o.smoke ? "--smoke" : o.full ? "--full" : "";
  const auto add = [&text](const std::string& more) { text += (text.empty() ? "" : " ") + more; };
  const SuiteOptions usual;
  if (!o.suite.workloads.empty())
    add(fmt::format("--workloads {}", fmt::join(o.suite.workloads, ",")));
  if (o.typed_ratios) add(fmt::format("--ratios {}", fmt::join(o.suite.ratios, ",")));
  if (!o.suite.systems.empty()) add(fmt::format("--systems {}", fmt::join(o.suite.systems, ",")));
  if (o.suite.timing != usual.timing) add("--timing " + o.suite.timing);
  if (o.suite.mode != usual.mode) add("--mode " + o.suite.mode);
  if (o.suite.kernel != usual.kernel) add("--kernel " + o.suite.kernel);
  if (o.typed_seeds) add(fmt::format("--seeds {}", o.suite.seeds));
  if (parse_bytes(o.footprint).value_or(Bytes()) != usual.footprint)
    add("--footprint " + o.footprint);
  if (o.typed_length) add(fmt::format("--length {:g}", o.suite.length));
  if (o.all_seeds) add("--all-seeds");
  add("--out " + o.out);
  return text;
}

}  // namespace

std::string build_version() {
  const std::string plain = THERMOCLINE_VERSION;
  if (lab::build_dir().empty()) return plain;
  const Result<lab::ProgramOutput> git =
      lab::run_program({"git", "-C", lab::build_dir().string(), "describe", "--always", "--dirty"});
  return git && git->exit_code == 0 ? plain + "-" + std::string(trim(git->text)) : plain;
}

void register_bench(CLI::App& app, Context& context) {
  CLI::App* const bench =
      app.add_subcommand("bench", "tiering systems beside each other under emulated CXL");
  bench->require_subcommand(1);
  auto o = std::make_shared<Options>();
  CLI::App* const verb =
      bench->add_subcommand("suite", "run the table of workloads, ratios and systems");
  const auto names = [&](const char* option, std::vector<std::string>& into, const char* about) {
    return verb->add_option(option, into, about)->delimiter(',')->type_name("A,B,...");
  };
  names("--workloads", o->suite.workloads, "see --list (default: the core of the table)");
  const CLI::Option* const ratios =
      names("--ratios", o->suite.ratios, "of fast to slow memory")->capture_default_str();
  names("--systems", o->suite.systems, "see --list (default: the core of the table)");
  verb->add_option("--timing", o->suite.timing, "memory-timing model: a preset or a file")
      ->type_name("MODEL")
      ->capture_default_str();
  verb->add_option("--mode", o->suite.mode,
                   "reference (one CPU for all) or parallel (a second one for the kernel's threads "
                   "and the daemon)")
      ->type_name("MODE")
      ->capture_default_str();
  verb->add_option("--kernel", o->suite.kernel, "as of `lab run`")->capture_default_str();
  const CLI::Option* const seeds =
      verb->add_option("--seeds", o->suite.seeds,
                       "repeats with another seed of load, page layout and start phase (--full: 3)")
          ->capture_default_str();
  verb->add_option("--footprint", o->footprint, "of every workload")->capture_default_str();
  const CLI::Option* const length =
      verb->add_option("--length", o->suite.length, "of a measured part, as a factor")
          ->capture_default_str();
  verb->add_option("--jobs", o->jobs, "cells at a time, a host core each")->capture_default_str();
  verb->add_option("--out", o->out, "folder of the results; a run goes on with what is there")
      ->type_name("DIR")
      ->capture_default_str();
  verb->add_flag("--all-seeds", o->all_seeds,
                 "also further seeds of a rival's setting that was slower with seed 1");
  verb->add_flag("--again", o->again,
                 "run finished cells again that had another footprint, length, timing model or "
                 "scripts");
  verb->add_flag("--smoke", o->smoke, "a few short cells: does all of it work here?");
  verb->add_flag("--full", o->full, "the published table, with three seeds: hours");
  verb->add_flag("--list", o->list, "workloads and systems, and nothing else");
  verb->add_flag("--json", o->json, "print JSON with stable keys");
  verb->callback([&context, o, ratios, seeds, length] {
    o->typed_ratios = ratios->count() != 0;
    o->typed_seeds = seeds->count() != 0;
    o->typed_length = length->count() != 0;
    // As typed, for whoever wants the same again; names of folders are theirs.
    const std::string command = fmt::format("thermocline bench suite {}", typed(*o));
    context.action = [o, command] { return run_suite(*o, command); };
  });

  auto r = std::make_shared<ReportOptions>();
  CLI::App* const report_verb =
      bench->add_subcommand("report", "pages from the results of `bench suite`");
  report_verb->add_option("dir", r->dir, "folder of the results")->type_name("DIR")->required();
  report_verb->add_option("--html", r->html, "write a page with charts and tables")
      ->type_name("FILE");
  report_verb
      ->add_option("--markdown", r->markdown,
                   "write a page of Markdown, and its pictures beside it")
      ->type_name("FILE");
  report_verb->add_flag("--json", r->json, "print the summary as JSON with stable keys");
  report_verb->callback([&context, r] { context.action = [r] { return report(*r); }; });

  register_bench_trackers(*bench, context);
  register_bench_agreement(*bench, context);
}

}  // namespace thermocline::cli
