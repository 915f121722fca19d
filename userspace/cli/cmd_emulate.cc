// SPDX-License-Identifier: Apache-2.0
// `thermocline emulate numa-remote`: the other socket's memory in place of slow memory
// (emulation/numa_remote).
#include <fmt/core.h>
#include <sched.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/output.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/emulate_report.h"
#include "emulation/numa_remote/command.h"
#include "emulation/numa_remote/keeper.h"
#include "topology/stand_in.h"

namespace thermocline::cli {

namespace {

using namespace numa_remote;

struct Options {
  std::optional<std::int32_t> slow, fast;
  std::string fast_bytes;
  std::string report, svg;
  bool json = false;
  bool unmeasured = false;
  bool restore = false;
  std::vector<std::string> command;
};

/// CPUs that this process may use.
std::vector<CpuId> allowed_cpus() {
  std::vector<CpuId> cpus;
  for (std::size_t count = 1024; count <= (1u << 20); count *= 2) {
    cpu_set_t* const set = CPU_ALLOC(count);
    const std::size_t size = CPU_ALLOC_SIZE(count);
    const bool known = ::sched_getaffinity(0, size, set) == 0;
    if (known)
      for (std::size_t cpu = 0; cpu < count; ++cpu)
        if (CPU_ISSET_S(cpu, size, set)) cpus.emplace_back(static_cast<std::uint32_t>(cpu));
    CPU_FREE(set);
    if (known) break;
  }
  return cpus;
}

void say(const std::string& text) {
  fmt::print(stderr, "thermocline: {}\n", text);
}

Status give(const Options& options, const EmulateReport& report) {
  if (!options.svg.empty()) TC_TRY(write_whole(options.svg, emulate_svg(report)));
  const std::string text =
      options.json ? json_text(emulate_json(report)) + "\n" : emulate_text(report);
  if (!options.report.empty()) return write_whole(options.report, text);
  // The command's own output must stay as it is.
  std::FILE* const out = options.command.empty() ? stdout : stderr;
  std::fwrite(text.data(), 1, text.size(), out);
  return {};
}

/// Before hours of work: a file that can't be written is better known now.
Status check_writable(const std::string& path) {
  if (std::ofstream(path, std::ios::app)) return {};
  return fail(ErrorKind::kUsage, "can't write {}: {}", path, errno_text(errno));
}

/// Another run would be disturbed by this one, and one that was killed has left memory taken.
Status clear_the_way(System& system, EmulateReport& report) {
  if (!system.exists(kStandInPath)) return {};
  const auto running = read_stand_in(system);
  if (running && *running)
    return fail(
        ErrorKind::kFailure,
        "another `thermocline emulate numa-remote` is running (supervisor {}): one at a time",
        (*running)->keeper.get());
  if (::geteuid() != 0)
    return fail(ErrorKind::kPermission,
                "an earlier run was killed and has left the machine changed: `thermocline emulate "
                "numa-remote --restore` as root puts things back");
  TC_ASSIGN(const bool restored, restore(system));
  if (restored)
    report.notes.push_back(
        "an earlier run had been killed; what it had changed was put back first");
  return {};
}

Result<int> put_things_back() {
  if (::geteuid() != 0)
    return fail(ErrorKind::kPermission, "putting things back needs root, as changing them did");
  const auto system = make_real_system();
  TC_ASSIGN(const bool restored, restore(*system));
  print_line(restored ? "put back what a killed run had changed" : "there is nothing to put back");
  return 0;
}

Result<int> run(const Options& options) {
  if (options.restore && (!options.command.empty() || options.json || !options.fast_bytes.empty()))
    return fail(ErrorKind::kUsage, "--restore puts things back and does no more: give it alone");
  if (options.restore) return put_things_back();
  if (options.json && !options.command.empty() && options.report.empty())
    return fail(ErrorKind::kUsage,
                "--json with a command needs --report FILE: standard output and error are the "
                "command's");
  if (options.unmeasured && options.command.empty())
    return fail(ErrorKind::kUsage, "--no-measure leaves nothing to do without a command");
  if (options.unmeasured && !options.svg.empty())
    return fail(ErrorKind::kUsage, "--svg draws what is measured: leave out --no-measure");
  for (const std::string& path : {options.report, options.svg})
    if (!path.empty()) TC_TRY(check_writable(path));
  std::optional<Bytes> fast_bytes;
  if (!options.fast_bytes.empty()) {
    const auto bytes = parse_bytes(options.fast_bytes);
    if (!bytes) return fail(ErrorKind::kUsage, "--fast-bytes: {}", bytes.error().message);
    fast_bytes = *bytes;
    if (options.command.empty())
      return fail(ErrorKind::kUsage, "--fast-bytes holds while a command runs: give one after --");
  }
  const auto system = make_real_system();
  EmulateReport report;
  TC_TRY(clear_the_way(*system, report));
  TC_ASSIGN(const Topology topology, discover(*system));
  const auto node = [](std::optional<std::int32_t> number) {
    return number ? std::optional(NodeId(*number)) : std::nullopt;
  };
  TC_ASSIGN(report.setting,
            choose(topology, allowed_cpus(), node(options.slow), node(options.fast)));
  if (fast_bytes) {
    TC_ASSIGN(const Bytes room, fillable(*system, report.setting.fast));
    if (*fast_bytes > room)
      return fail(ErrorKind::kUsage, "--fast-bytes {}: {}", options.fast_bytes,
                  fillable_text(*system, report.setting.fast, room));
  }
  if (!options.command.empty() && ::geteuid() != 0)
    return fail(ErrorKind::kPermission,
                "holding a command to one node and limiting memory needs root; without a command, "
                "the nodes are only measured");
  report.label = label_here(*system);
  if (!options.unmeasured) {
    TC_ASSIGN(report.figures, measure(*system, report.setting, say));
    report.judgement = judge(*report.figures, report.label);
  }
  report.notes.insert(report.notes.end(), report.setting.notes.begin(), report.setting.notes.end());
  if (const auto balancing = system->read_file("/proc/sys/kernel/numa_balancing");
      balancing && trim(*balancing) != "0")
    report.notes.push_back(fmt::format(
        "kernel.numa_balancing is {}: the kernel itself moves pages to the fast node as they are "
        "used",
        trim(*balancing)));
  if (options.command.empty()) {
    TC_TRY(give(options, report));
    return 0;
  }
  Status given;
  Hooks hooks;
  hooks.progress = hooks.warn = say;
  hooks.ready = [&](const Kept& kept) {
    report.limit = kept.limit;
    report.notes.insert(report.notes.end(), kept.notes.begin(), kept.notes.end());
    given = give(options, report);
    return std::vector<std::pair<std::string, std::string>>{
        {"THERMOCLINE_STANDS_FOR",
         std::string(
             to_string(report.judgement ? report.judgement->stands_for : StandsFor::kNothing))}};
  };
  TC_ASSIGN(const int code,
            run_command(*system, report.setting, fast_bytes, options.command, hooks));
  TC_TRY(given);
  return code;
}

}  // namespace

void register_emulate(CLI::App& app, Context& context) {
  auto* emulate = app.add_subcommand("emulate", "Run a command with a stand-in for CXL memory");
  emulate->require_subcommand(1);
  auto* verb = emulate->add_subcommand(
      "numa-remote",
      "Run a command with the other socket's memory as its slow tier, and say how near that is to "
      "CXL; without a command, only measure");
  const auto o = std::make_shared<Options>();
  verb->add_option("--slow-node", o->slow, "node that stands in for slow memory (the farthest)")
      ->type_name("N")
      ->check(node_number());
  verb->add_option("--fast-node", o->fast,
                   "node whose CPUs and memory are the fast tier (the first)")
      ->type_name("N")
      ->check(node_number());
  verb->add_option("--fast-bytes", o->fast_bytes,
                   "memory of the fast node that programs can fill, such as 4G (all of it)")
      ->type_name("BYTES");
  verb->add_option("--report", o->report, "write the report to this file")->type_name("FILE");
  verb->add_option("--svg", o->svg, "also draw the latency under load into this file")
      ->type_name("FILE");
  verb->add_flag("--json", o->json, "report as JSON");
  verb->add_flag("--no-measure", o->unmeasured,
                 "don't measure: the next of many runs; nothing is said about CXL then");
  verb->add_flag("--restore", o->restore, "put back what a killed run left, and do no more");
  verb->add_option("command", o->command, "command and its arguments, after --");
  verb->callback([o, &context] { context.action = [o] { return run(*o); }; });
}

}  // namespace thermocline::cli
