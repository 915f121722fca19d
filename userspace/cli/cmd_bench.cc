// SPDX-License-Identifier: Apache-2.0
// `thermocline bench suite`: tiering systems beside each other in modelled guests (bench/suite).
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "bench/suite/run.h"
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
  bool smoke = false, full = false, list = false, json = false;
};

/// What built this program, to tell results of two builds apart.
std::string version() {
  const std::string plain = THERMOCLINE_VERSION;
  if (lab::build_dir().empty()) return plain;
  const Result<lab::ProgramOutput> git =
      lab::run_program({"git", "-C", lab::build_dir().string(), "describe", "--always", "--dirty"});
  return git && git->exit_code == 0 ? plain + "-" + std::string(trim(git->text)) : plain;
}

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
                                  {"huge_pages", w.huge_pages}});
    for (const SuiteSystem& s : suite_systems())
      out["systems"].push_back({{"name", s.name}, {"about", s.about}, {"seeded", s.seeded}});
    print_line(json_text(out));
    return;
  }
  print_line("WORKLOAD          GUEST TIME  TABLE     SETTINGS");
  for (const SuiteWorkload& w : suite_workloads())
    print_line(fmt::format("{:<17} {:>8} s  {:<8}  {}{}", w.name, w.seconds,
                           w.core ? "core" : "optional", fmt::join(w.settings, " "),
                           w.huge_pages ? "huge pages" : ""));
  print_line("\nSYSTEM                    WHAT IT IS");
  for (const SuiteSystem& s : suite_systems())
    print_line(fmt::format("{:<25} {}", s.name, s.about));
}

/// A small part of everything, for a test: it runs, it is whole, it can fail.
void make_smoke(SuiteOptions& o) {
  if (o.workloads.empty()) o.workloads = {"chase"};
  o.ratios = {"1:2"};
  if (o.systems.empty())
    o.systems = {"all-fast",         "all-slow",    "first-touch", "oracle-static",
                 "thermocline:heat", "numab@tuned", "damos@tuned"};
  o.length = 0.2;
}

Result<int> run_suite(Options& o) {
  if (o.list) {
    list(o.json);
    return 0;
  }
  if (o.smoke && o.full)
    return fail(ErrorKind::kUsage, "give --smoke or --full, not both: one is short, one is long");
  TC_ASSIGN(o.suite.footprint, parse_bytes(o.footprint));
  if (o.smoke) make_smoke(o.suite);
  if (o.full) o.suite.seeds = std::max(o.suite.seeds, 3u);
  if (o.jobs < 1 || o.jobs > 64) return fail(ErrorKind::kUsage, "--jobs must be 1 to 64");
  TC_ASSIGN(const std::vector<PlannedCell> cells, plan_cells(o.suite));
  // What every guest needs shows before the first one boots.
  TC_TRY(lab::qemu_version());
  TC_TRY(lab::find_kernel(o.suite.kernel));
  TC_TRY(lab::timing_plugin_file());
  RunSetting setting;
  setting.options = o.suite;
  setting.out_dir = o.out;
  std::error_code ec;
  setting.thermocline = fs::read_symlink("/proc/self/exe", ec).string();
  if (ec) return fail_errno(ec.value(), "can't find this program's own file");
  setting.version = version();
  setting.jobs = o.jobs;
  setting.say = say;
  TC_ASSIGN(const RunOutcome outcome, run_cells(cells, setting));
  if (outcome.signal != 0) {
    say("stopped; the same command goes on from here");
    return 128 + outcome.signal;
  }
  say(fmt::format("{} cells done, {} were there already, {} failed; all are in {}/{}", outcome.done,
                  outcome.skipped, outcome.failed, o.out, kStoreName));
  return outcome.failed == 0 ? 0 : 1;
}

}  // namespace

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
  names("--ratios", o->suite.ratios, "of fast to slow memory")->capture_default_str();
  names("--systems", o->suite.systems, "see --list (default: all)");
  verb->add_option("--timing", o->suite.timing, "memory-timing model: a preset or a file")
      ->type_name("MODEL")
      ->capture_default_str();
  verb->add_option("--mode", o->suite.mode,
                   "reference (one CPU for all) or parallel (a second one for the kernel's threads "
                   "and the daemon)")
      ->type_name("MODE")
      ->capture_default_str();
  verb->add_option("--kernel", o->suite.kernel, "as of `lab run`")->capture_default_str();
  verb->add_option("--seeds", o->suite.seeds,
                   "repeats with another seed of load, page layout and start phase (--full: 3)")
      ->capture_default_str();
  verb->add_option("--footprint", o->footprint, "of every workload")->capture_default_str();
  verb->add_option("--length", o->suite.length, "of a measured part, as a factor")
      ->capture_default_str();
  verb->add_option("--jobs", o->jobs, "cells at a time, a host core each")->capture_default_str();
  verb->add_option("--out", o->out, "folder of the results; a run goes on with what is there")
      ->type_name("DIR")
      ->capture_default_str();
  verb->add_flag("--smoke", o->smoke, "a few short cells: does all of it work here?");
  verb->add_flag("--full", o->full, "the published table, with three seeds: hours");
  verb->add_flag("--list", o->list, "workloads and systems, and nothing else");
  verb->add_flag("--json", o->json, "print JSON with stable keys");
  verb->callback([&context, o] { context.action = [o] { return run_suite(*o); }; });
}

}  // namespace thermocline::cli
