// SPDX-License-Identifier: Apache-2.0
// `thermocline sim`: policies on a modelled machine, swept over what one likes.
#include <cstdio>
#include <memory>
#include <thread>

#include "base/output.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/sim_report.h"
#include "cli/table.h"
#include "emulation/lab/files.h"
#include "emulation/sim/recorded.h"
#include "emulation/sim/sweep.h"
#include "policies/plugin/plugin_policy.h"
#include "policies/plugin/plugin_process.h"
#include "trace/trace_reader.h"

namespace thermocline::cli {

namespace {

struct SimOptions {
  std::vector<std::string> workloads;
  std::string trace;
  std::string policies = "all";
  std::vector<std::string> grids;
  std::string baselines;
  std::string ratios = "1:4";
  std::vector<std::string> sweeps;
  std::optional<std::string> footprint;
  std::string timing = "cxl-asic";
  std::optional<double> seconds;
  std::optional<double> judged_from;
  std::uint64_t seeds = 1, seed = 1, draws = 0;
  unsigned jobs = std::max(1u, std::thread::hardware_concurrency());
  std::string out, html, plugin_dir;
  bool list = false, json = false, quiet = false;
};

nlohmann::ordered_json list_json() {
  nlohmann::ordered_json list;
  list["workloads"] = nlohmann::ordered_json::array();
  for (const sim::WorkloadKind& kind : sim::workload_kinds()) {
    nlohmann::ordered_json entry{{"name", kind.name}, {"summary", kind.summary}};
    entry["keys"] = nlohmann::ordered_json::array();
    for (const sim::WorkloadKey& key : kind.keys)
      entry["keys"].push_back({{"name", key.name},
                               {"meaning", key.meaning},
                               {"usual", key.usual},
                               {"least", key.least},
                               {"most", key.most},
                               {"draw_low", key.draw_low},
                               {"draw_high", key.draw_high}});
    list["workloads"].push_back(std::move(entry));
  }
  return list;
}

std::string list_text() {
  std::vector<std::vector<std::string>> rows;
  const auto put = [&](const std::string& name, const std::string& usual, std::string_view text) {
    rows.push_back({name, usual, std::string(text)});
  };
  for (const sim::WorkloadKind& kind : sim::workload_kinds()) {
    put(std::string(kind.name), "", kind.summary);
    for (const sim::WorkloadKey& key : kind.keys)
      put("  " + std::string(key.name), fmt::format("{:.6g}", key.usual), key.meaning);
  }
  const auto machine = sim::machine_of_timing_model("cxl-asic");
  if (machine) {
    put("machine", "", "keys of --sweep, for any workload");
    for (const sim::MachineKey& key : sim::machine_keys())
      put("  " + std::string(key.name),
          key.number != nullptr  ? fmt::format("{:.6g}", (*machine).*key.number)
          : key.whole != nullptr ? std::to_string((*machine).*key.whole)
                                 : "0",
          key.meaning);
  }
  put("engine", "", "the same");
  for (const sim::EngineKey& key : sim::engine_keys())
    put("  " + std::string(key.name), fmt::format("{:.6g}", key.get(EngineOptions{})), key.meaning);
  put("baselines", "", fmt::format("{}", fmt::join(sim::baselines(), ", ")));
  return format_table({{"WORKLOAD OR KEY"}, {"USUAL", true}, {"WHAT IT IS"}}, rows, kLineWidth);
}

constexpr std::string_view kUsualFootprint = "4G";
constexpr double kUsualSeconds = 120;

/// As it was typed, for what is kept.
std::string command_text(const SimOptions& o) {
  std::string text = "thermocline sim";
  for (const std::string& workload : o.workloads) text += " --workload " + workload;
  if (!o.trace.empty()) text += " --trace " + o.trace;
  text += fmt::format(" --policies {} --ratios {}", o.policies, o.ratios);
  if (o.trace.empty())
    text += fmt::format(" --footprint {}", o.footprint.value_or(std::string(kUsualFootprint)));
  text += fmt::format(" --timing {}", o.timing);
  if (o.seconds || o.trace.empty())
    text += fmt::format(" --seconds {}", o.seconds.value_or(kUsualSeconds));
  if (o.judged_from) text += fmt::format(" --judge-from {}", *o.judged_from);
  if (!o.baselines.empty()) text += " --baselines " + o.baselines;
  if (!o.plugin_dir.empty()) text += " --plugin-dir " + o.plugin_dir;
  for (const std::string& sweep : o.sweeps) text += " --sweep " + sweep;
  for (const std::string& grid : o.grids) text += fmt::format(" --policy-options '{}'", grid);
  if (o.draws > 0) text += fmt::format(" --draws {}", o.draws);
  if (o.seeds != 1) text += fmt::format(" --seeds {}", o.seeds);
  return text + fmt::format(" --seed {}", o.seed);
}

/// Of this program and of plug-ins: other code has other figures.
Result<std::string> code_version(const std::string& plugin_dir) {
  std::vector<std::string> files{"/proc/self/exe"};
  if (!plugin_dir.empty()) {
    TC_ASSIGN(const auto plugins, find_plugins(plugin_dir));
    for (const PluginFile& plugin : plugins) files.push_back(plugin.path);
    if (!plugins.empty()) {
      TC_ASSIGN(const std::string host, plugin::host_program());
      files.push_back(host);
    }
  }
  std::uint64_t code = lab::fingerprint("");
  for (const std::string& file : files) {
    TC_ASSIGN(const std::string bytes, lab::read_whole(file));
    code = lab::fingerprint(bytes, code);
  }
  return fmt::format("{}-{:016x}", THERMOCLINE_VERSION, code);
}

Result<std::shared_ptr<const sim::Recorded>> read_trace(const SimOptions& o) {
  if (!o.workloads.empty() || o.footprint || o.draws > 0)
    return fail(ErrorKind::kUsage,
                "--trace is the workload, with the footprint that was recorded; leave out "
                "--workload, --footprint and --draws");
  TC_ASSIGN(const trace::Recording recording, trace::open_recording(o.trace));
  auto recorded = sim::read_recorded(*recording.source, printable(o.trace));
  if (!recorded)
    return fail(recorded.error().kind, "{} {}", printable(o.trace), recorded.error().message);
  return recorded;
}

/// `recorded`: what is read from --trace; the cases refer to it.
Result<std::vector<sim::Case>> plan(const SimOptions& o, const PolicyRegistry& registry,
                                    std::shared_ptr<const sim::Recorded>& recorded) {
  sim::SweepRequest request;
  for (const std::string& text : o.workloads) {
    TC_ASSIGN(sim::WorkloadChoice choice, sim::parse_workload(text));
    request.workloads.push_back(std::move(choice));
  }
  if (!o.trace.empty()) {
    TC_ASSIGN(recorded, read_trace(o));
    request.workloads = {{&recorded->kind, {}}};
  }
  if (request.workloads.empty()) {
    if (o.draws == 0)
      return fail(ErrorKind::kUsage,
                  "no workload is named; give --workload (thermocline sim --list has them), "
                  "--trace or --draws");
    for (const sim::WorkloadKind& kind : sim::workload_kinds()) {
      TC_ASSIGN(sim::WorkloadChoice choice, sim::parse_workload(kind.name));
      request.workloads.push_back(std::move(choice));
    }
  }
  TC_ASSIGN(request.base.machine, sim::machine_of_timing_model(o.timing));
  request.base.timing = o.timing;
  if (recorded) {
    request.base.machine.think_ns = sim::think_ns_for(request.base.machine, recorded->least_rate);
    if (!o.quiet)
      fmt::print(
          stderr,
          "thermocline: sim: {}: {} of {} in {:.1f} s, {} phases, {:.3g} touches a second at "
          "least: think is {:.0f} ns\n",
          o.trace, format_bytes(bytes_of(PageCount(recorded->pages))),
          recorded->processes == 1 ? "one process"
                                   : fmt::format("{} processes", recorded->processes),
          recorded->seconds, recorded->phases, recorded->least_rate, request.base.machine.think_ns);
  }
  TC_ASSIGN(request.ratios, sim::parse_ratios(o.ratios, request.base.machine.tiers.size()));
  const std::string baselines = o.baselines.empty() ? (o.draws > 0 ? "none" : "all") : o.baselines;
  std::string systems = o.policies;
  if (baselines == "all") {
    systems += fmt::format(",{}", fmt::join(sim::baselines(), ","));
  } else if (baselines != "none") {
    systems += "," + baselines;
  }
  TC_ASSIGN(request.systems, sim::parse_systems(systems, o.grids, registry));
  for (const std::string& text : o.sweeps) {
    TC_ASSIGN(sim::SweepAxis axis, sim::parse_axis(text, request.workloads));
    request.axes.push_back(std::move(axis));
  }
  const std::string size = o.footprint.value_or(std::string(kUsualFootprint));
  const auto footprint = parse_bytes(size);
  if (!footprint || pages_of(*footprint).get() < sim::kFewestPages ||
      pages_of(*footprint).get() > sim::kMostPages)
    return fail(ErrorKind::kUsage, "--footprint {}: give a size from {} to {}, 4G say",
                printable(size), format_bytes(bytes_of(PageCount(sim::kFewestPages))),
                format_bytes(bytes_of(PageCount(sim::kMostPages))));
  request.base.pages = recorded ? recorded->pages : pages_of(*footprint).get();
  const double seconds = o.seconds.value_or(recorded ? recorded->seconds : kUsualSeconds);
  const double judged_from = o.judged_from.value_or(seconds / 2);
  if (!(seconds > 0 && seconds <= 1e6) || !(judged_from >= 0 && judged_from < seconds))
    return fail(ErrorKind::kUsage,
                "--seconds {} --judge-from {}: give a time of up to 1000000 s, judged from before "
                "its end on",
                seconds, judged_from);
  request.base.seconds = seconds;
  request.base.judged_from = judged_from;
  request.first_seed = o.seed;
  request.seeds = o.seeds;
  if (o.seeds < 1 || o.seeds > 10'000 || o.draws > 100'000)
    return fail(ErrorKind::kUsage,
                "--seeds wants a number from 1 to 10000, --draws one up to 100000");
  if (o.draws > 0 && o.seeds != 1)
    return fail(ErrorKind::kUsage, "--draws has a --seed of its own; leave out --seeds");
  return o.draws > 0 ? sim::plan_draws(request, o.draws) : sim::plan_sweep(request);
}

Result<int> simulate(const SimOptions& o) {
  if (o.list) {
    print_line(o.json ? json_text(list_json()) : list_text());
    return 0;
  }
  PolicyRegistry registry;
  register_builtin_policies(registry);
  if (!o.plugin_dir.empty()) TC_TRY(register_plugins(registry, o.plugin_dir, patient_plugins()));
  if (o.jobs < 1 || o.jobs > 1024)
    return fail(ErrorKind::kUsage, "--jobs wants a number from 1 to 1024");
  std::shared_ptr<const sim::Recorded> recorded;
  TC_ASSIGN(const std::vector<sim::Case> cases, plan(o, registry, recorded));
  sim::RunOptions run;
  run.out_dir = o.out;
  if (!o.out.empty()) {
    TC_ASSIGN(run.version, code_version(o.plugin_dir));
  }
  run.jobs = o.jobs;
  if (!o.quiet)
    run.say = [](const std::string& text) { fmt::print(stderr, "thermocline: sim: {}\n", text); };
  TC_ASSIGN(const SimLines lines, sim::run_cases(cases, registry, run));
  if (!o.html.empty()) TC_TRY(write_whole(o.html, sim_html(lines, command_text(o))));
  if (o.json) {
    nlohmann::ordered_json all;
    all["command"] = command_text(o);
    all["cases"] = lines;
    all["summary"] = o.draws > 0 ? sim_summary(lines) : nlohmann::ordered_json(nullptr);
    print_line(json_text(all));
    return 0;
  }
  print_line(o.draws > 0 ? sim_summary_table(sim_summary(lines)) : sim_table(lines));
  return 0;
}

}  // namespace

void register_sim(CLI::App& app, Context& context) {
  auto o = std::make_shared<SimOptions>();
  CLI::App* verb = app.add_subcommand(
      "sim", "policies on a modelled machine: the same engine, heat and policies, no hardware");
  verb->add_option("--workload", o->workloads, "kind[:key=value,...]; may be repeated")
      ->type_name("W")
      ->allow_extra_args(false);
  verb->add_option("--trace", o->trace,
                   "a recording instead: how often pages were touched, and when")
      ->type_name("FILE");
  verb->add_option("--policies", o->policies, "all, or names of policies and baselines")
      ->type_name("LIST")
      ->capture_default_str();
  verb->add_option("--plugin-dir", o->plugin_dir, "also the policy plug-ins in DIR, NAME.so")
      ->type_name("DIR");
  verb->add_option("--policy-options", o->grids,
                   "policy:key=a,b[;key=c]: also run it with each combination; may be repeated")
      ->type_name("GRID")
      ->allow_extra_args(false);
  verb->add_option("--baselines", o->baselines,
                   "all, none or a list (default: all; with --draws none)")
      ->type_name("LIST");
  verb->add_option("--ratios", o->ratios, "fast:slow, a list; 1:1..1:16 doubles")
      ->type_name("LIST")
      ->capture_default_str();
  verb->add_option("--sweep", o->sweeps,
                   "key=a,b,c of the machine, the engine or the workload; may be repeated")
      ->type_name("KEY=LIST")
      ->allow_extra_args(false);
  verb->add_option("--footprint", o->footprint, "memory of the program (default: 4G)")
      ->type_name("SIZE");
  verb->add_option("--timing", o->timing,
                   "a preset or a file of the memory-timing model: the tiers")
      ->type_name("MODEL")
      ->capture_default_str();
  verb->add_option("--seconds", o->seconds,
                   "modelled time of a case (default: 120, or as long as was recorded)")
      ->type_name("S");
  verb->add_option("--judge-from", o->judged_from,
                   "figures are of the time from then on (default: the second half)")
      ->type_name("S");
  verb->add_option("--seeds", o->seeds, "so many seeds from --seed on")
      ->type_name("N")
      ->capture_default_str();
  verb->add_option("--seed", o->seed, "the first, or that of the draws")
      ->type_name("N")
      ->capture_default_str();
  verb->add_option("--draws", o->draws,
                   "draw so many problems at random: kinds of --workload (default: all), their "
                   "keys, a ratio of --ratios")
      ->type_name("N");
  verb->add_option("--jobs", o->jobs, "cases at a time (default: one a core)")->type_name("N");
  verb->add_option("--out", o->out, "keep each finished case in DIR, and go on from there")
      ->type_name("DIR");
  verb->add_option("--html", o->html, "also write a page with tables and charts")
      ->type_name("FILE");
  verb->add_flag("--list", o->list, "the workloads and all keys, and nothing else");
  verb->add_flag("--quiet", o->quiet, "no progress on standard error");
  verb->add_flag("--json", o->json, "print JSON with stable keys");
  verb->callback([&context, o] { context.action = [o] { return simulate(*o); }; });
}

}  // namespace thermocline::cli
