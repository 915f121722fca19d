// SPDX-License-Identifier: Apache-2.0
// `thermocline bench agreement`: cells of the suite that our policies ran, simulated, and how far
// the two agree.
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/output.h"
#include "base/text.h"
#include "bench/suite/plan.h"
#include "cli/agreement.h"
#include "cli/command.h"
#include "emulation/sim/sweep.h"

namespace thermocline::cli {

namespace {

struct AgreementOptions {
  std::string dir, markdown;
  unsigned jobs = std::max(1u, std::thread::hardware_concurrency());
  std::uint64_t seeds = 3;
  bool json = false;
};

constexpr std::string_view kOurs = "thermocline:";

/// How a workload of the suite is simulated, its measured part taking so many seconds. Empty: there
/// is no workload of the simulator that does the same.
///
/// A pass over memory misses less than once a line, as the prefetcher brings in the rest: 28 of 64
/// lines were fitted to the length of the passes in the lab's phase-change.
std::string twin_of(std::string_view workload, double seconds) {
  if (workload == "gups-hot") return "hotset:hot=0.1,access=0.9";
  if (workload == "hot-larger") return "hotset:hot=0.6,access=0.9";
  if (workload == "gups-moving")
    return fmt::format("moving:hot=0.1,access=0.9,period={:.6g}", seconds / 2);
  if (workload == "phase-change")
    return fmt::format("changes:hot=0.1,access=0.9,loop=0.1,lines=28,period={:.6g}", seconds / 5);
  return {};
}

/// As thermocline.sh sets the daemon up in a cell. What its work costs on the guest's one CPU is
/// guessed, some four times the defaults, whose caches are warm; it was not measured page by page.
void set_up(sim::Case& c) {
  c.engine.epoch = std::chrono::milliseconds(200);
  c.engine.window = std::chrono::milliseconds(2);
  c.engine.window_auto = false;
  c.engine.windows_per_epoch = 4;
  c.engine.cpu_burst = std::chrono::seconds(2);
  c.machine.threads = 1;
  c.machine.scan_idle_ns = 20;
  c.machine.scan_accessed_ns = 60;
  c.machine.move_page_us = 12;
  c.machine.tracking = c.machine.moving = sim::Charge::kProgram;
}

struct LabProblem {
  Problem problem;
  const suite::SuiteWorkload* workload = nullptr;
  std::string timing;
  Bytes footprint;
  double all_fast = 0, all_slow = 0;  ///< operations a second
};

Result<std::vector<LabProblem>> read_lab(const AgreementOptions& o) {
  TC_ASSIGN(const suite::Cells cells,
            suite::read_cells((std::filesystem::path(o.dir) / "cells.jsonl").string()));
  std::map<std::string, std::pair<double, double>> bounds;  // all fast and all slow, seed 1
  std::set<std::string> settings;
  for (const suite::CellRecord& cell : cells.records) {
    settings.insert(fmt::format("{}, {}, {}", cell.key.timing, cell.key.mode, cell.key.kernel));
    if (settings.size() > 1)
      return fail(
          ErrorKind::kUsage,
          "{} has cells of several timing models, modes or kernels ({}); give a folder with "
          "those of one",
          o.dir, fmt::join(settings, "; "));
    if (!cell.done || cell.key.seed != 1) continue;
    if (cell.key.system == "all-fast") bounds[cell.key.workload].first = *cell.ops_per_s;
    if (cell.key.system == "all-slow") bounds[cell.key.workload].second = *cell.ops_per_s;
  }
  std::vector<LabProblem> problems;
  for (const suite::CellRecord& cell : cells.records) {
    if (!cell.done || !cell.key.system.starts_with(kOurs) ||
        cell.key.system.find('@') != std::string::npos || cell.key.mode != "reference" ||
        !cell.fast_hit_ratio || !cell.footprint_bytes || twin_of(cell.key.workload, 1).empty())
      continue;
    const auto found = bounds.find(cell.key.workload);
    if (found == bounds.end() || found->second.first <= 0 ||
        found->second.second >= found->second.first || found->second.second <= 0)
      return fail(ErrorKind::kUsage,
                  "{} has {} but not its all-fast and all-slow: run bench suite with these two "
                  "systems as well",
                  o.dir, cell.key.workload);
    const auto& workloads = suite::suite_workloads();
    const auto spec = std::find_if(workloads.begin(), workloads.end(),
                                   [&](const auto& w) { return w.name == cell.key.workload; });
    if (spec == workloads.end()) continue;
    auto at = std::find_if(problems.begin(), problems.end(), [&](const LabProblem& p) {
      return p.problem.workload == cell.key.workload && p.problem.ratio == cell.key.ratio;
    });
    if (at == problems.end()) {
      problems.push_back({{cell.key.workload, cell.key.ratio, {}, {}, {}},
                          &*spec,
                          cell.key.timing,
                          *cell.footprint_bytes,
                          found->second.first,
                          found->second.second});
      at = std::prev(problems.end());
    }
    at->problem.lab[cell.key.system.substr(kOurs.size())][cell.key.seed] = {
        *cell.ops_per_s / at->all_fast, *cell.fast_hit_ratio};
  }
  if (problems.empty())
    return fail(ErrorKind::kUsage,
                "{} has no cell of gups-hot, hot-larger, gups-moving or phase-change that a system "
                "thermocline:POLICY ran in reference mode",
                o.dir);
  return problems;
}

/// Runs the simulator's twin of a problem with the policies that the lab had.
Status simulate(LabProblem& lab, const AgreementOptions& o, const PolicyRegistry& registry) {
  sim::SweepRequest request;
  TC_ASSIGN(request.base.machine, sim::machine_of_timing_model(lab.timing));
  request.base.timing = lab.timing;
  set_up(request.base);
  // What an operation takes with all memory fast and with all memory slow gives both.
  sim::Machine& machine = request.base.machine;
  const double fast_ns = 1e9 / lab.all_fast, slow_ns = 1e9 / lab.all_slow;
  const double fast_latency = machine.tiers.front().latency_ns,
               slow_latency = machine.tiers.back().latency_ns;
  machine.mlp = std::max(1.0, (slow_latency - fast_latency) / (slow_ns - fast_ns));
  machine.think_ns = std::max(0.0, fast_ns - fast_latency / machine.mlp);
  request.base.pages = pages_of(lab.footprint).get();
  request.base.seconds = lab.workload->seconds;
  request.base.judged_from = 0;
  lab.problem.simulated = twin_of(lab.problem.workload, lab.workload->seconds);
  TC_ASSIGN(sim::WorkloadChoice choice, sim::parse_workload(lab.problem.simulated));
  request.workloads.push_back(std::move(choice));
  lab.problem.simulated +=
      fmt::format("; think {:.3g} ns, mlp {:.3g}", machine.think_ns, machine.mlp);
  TC_ASSIGN(request.ratios, sim::parse_ratios(lab.problem.ratio, machine.tiers.size()));
  std::vector<std::string> names;
  for (const auto& [policy, runs] : lab.problem.lab) names.push_back(policy);
  TC_ASSIGN(request.systems,
            sim::parse_systems(fmt::format("{}", fmt::join(names, ",")), {}, registry));
  request.seeds = o.seeds;
  TC_ASSIGN(const std::vector<sim::Case> cases, sim::plan_sweep(request));
  sim::RunOptions run;
  run.jobs = o.jobs;
  TC_ASSIGN(const auto lines, sim::run_cases(cases, registry, run));
  for (const nlohmann::ordered_json& line : lines)
    lab.problem.sim[line.at("system")][line.at("seed")] = {line.at("of_all_fast"),
                                                           line.at("hit_ratio")};
  return {};
}

Result<int> agree(const AgreementOptions& o) {
  if (o.seeds < 1 || o.seeds > 1000 || o.jobs < 1 || o.jobs > 1024)
    return fail(ErrorKind::kUsage, "--seeds wants a number from 1 to 1000, --jobs one up to 1024");
  PolicyRegistry registry;
  register_builtin_policies(registry);
  TC_ASSIGN(std::vector<LabProblem> problems, read_lab(o));
  std::vector<Agreement> all;
  for (LabProblem& problem : problems) {
    TC_TRY(simulate(problem, o, registry));
    all.push_back(agreement_of(problem.problem));
  }
  if (!o.markdown.empty())
    TC_TRY(write_whole(o.markdown,
                       agreement_markdown(all, fmt::format("thermocline bench agreement {} "
                                                           "--markdown {}",
                                                           o.dir, o.markdown))));
  if (o.json)
    print_line(json_text(agreement_json(all)));
  else if (o.markdown.empty())
    print_line(agreement_text(all));
  return 0;
}

}  // namespace

void register_bench_agreement(CLI::App& bench, Context& context) {
  auto o = std::make_shared<AgreementOptions>();
  CLI::App* const verb =
      bench.add_subcommand("agreement", "does the simulator order our policies as the lab does?");
  verb->add_option("dir", o->dir, "folder of results of `bench suite`")
      ->type_name("DIR")
      ->required();
  verb->add_option("--seeds", o->seeds, "of the simulator")->capture_default_str();
  verb->add_option("--jobs", o->jobs, "cases at a time (default: one a core)")->type_name("N");
  verb->add_option("--markdown", o->markdown, "write the tables as Markdown instead")
      ->type_name("FILE");
  verb->add_flag("--json", o->json, "print JSON with stable keys");
  verb->callback([&context, o] { context.action = [o] { return agree(*o); }; });
}

}  // namespace thermocline::cli
