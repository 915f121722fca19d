// SPDX-License-Identifier: Apache-2.0
// workload: runs one of the access patterns that tiering is judged by, and checks what it computed.
#include <cmath>

#include "base/text.h"
#include "bench/workloads/command_line.h"
#include "bench/workloads/common.h"
#include "bench/workloads/suite/runner.h"

namespace thermocline::workloads {
namespace {

Result<std::map<std::string, double>> parse_settings(const std::vector<std::string>& texts) {
  std::map<std::string, double> settings;
  for (const std::string& text : texts) {
    const auto equals = text.find('=');
    char* end = nullptr;
    const std::string value = equals == std::string::npos ? "" : text.substr(equals + 1);
    const double number = std::strtod(value.c_str(), &end);
    if (value.empty() || *end != '\0' || !std::isfinite(number))
      return fail(ErrorKind::kUsage, "--set wants KEY=NUMBER, not \"{}\"", printable(text));
    settings[text.substr(0, equals)] = number;
  }
  return settings;
}

Status list(bool json) {
  if (json) {
    fmt::print("{}\n", list_json().dump(2));
    return {};
  }
  for (const WorkloadSpec& spec : all_workloads()) {
    fmt::print("{:<14} {}\n{:<14} after {}\n", spec.name, spec.about, "", spec.source);
    if (!spec.program.empty())
      fmt::print("{:<14} runs the program {} (--program FILE)\n", "", spec.program);
    for (const Setting& s : spec.settings)
      fmt::print("{:<14} --set {}={} ({} to {}): {}\n", "", s.key, s.value, s.min, s.max, s.about);
  }
  return {};
}

Result<int> run_and_report(const RunOptions& o, const std::string& json) {
  catch_stop_signals();
  const std::unique_ptr<System> system = make_real_system();
  TC_ASSIGN(const RunResult result, run_workload(o, *system));
  const nlohmann::ordered_json report = to_json(result);
  TC_TRY(write_json(json, report));
  if (json != "-") {
    for (const PhaseResult& p : result.phases)
      fmt::print("phase {:<10} {:7.2f} s to {:7.2f} s  {} operations\n", p.name, p.start_s, p.end_s,
                 p.operations);
    fmt::print(
        "{}, {}, seed {}: {:.0f} operations/s, {:.1f} ns each, median {} ns, 99 % within {} ns, "
        "checksum {:016x}\n",
        o.name, format_bytes(result.process.resident), o.seed, report["ops_per_s"].get<double>(),
        report["ns_per_op"].get<double>(), result.p50_ns, result.p99_ns, result.checksum);
  }
  if (!result.verified)
    return fail(ErrorKind::kFailure, "{} gave a wrong result: {}", o.name,
                result.verified.error().message);
  return 0;
}

Result<int> run(int argc, char** argv) {
  RunOptions o;
  CLI::App app{"workload: runs one of the access patterns that tiering is judged by."};
  app.require_subcommand(1);
  bool list_as_json = false;
  CLI::App* const list_verb = app.add_subcommand("list", "every workload and its settings");
  list_verb->add_flag("--json", list_as_json, "as JSON");
  CLI::App* const run_verb = app.add_subcommand("run", "run one; exit 1 when its result is wrong");
  std::string footprint = "128M";
  std::string seed = "1";
  std::string operation_count;
  std::string json;
  std::vector<std::string> settings;
  run_verb->add_option("name", o.name, "see workload list")->required();
  run_verb->add_option("--footprint", footprint, "memory of all its structures together")
      ->capture_default_str();
  run_verb->add_option("--seed", seed, "same seed and operations, same accesses")
      ->capture_default_str();
  run_verb->add_option("--threads", o.threads, "each has an instance with its share of all")
      ->capture_default_str();
  CLI::Option* const operations =
      run_verb->add_option("--operations", operation_count, "end after so many");
  run_verb->add_option("--duration", o.duration_s, "end after so many seconds")
      ->capture_default_str()
      ->excludes(operations);
  run_verb->add_option("--warm-up", o.warm_up,
                       "before what is measured, in the manner of the first phase: operations with "
                       "--operations, else seconds");
  run_verb->add_option("--samples", o.samples_s,
                       "tell in the JSON, every so many seconds, how many operations were done");
  run_verb->add_option("--set", settings, "KEY=VALUE; may be given again")->allow_extra_args(false);
  run_verb->add_option("--json", json, "write the results to this file (-: standard output)");
  run_verb->add_flag("--thp", o.huge_pages, "ask for transparent huge pages");
  run_verb->add_option("--program", o.program, "file to run as its server, if not from PATH");
  run_verb->add_option("--ready-file", o.ready_file, "create this file when the memory is filled");
  run_verb->add_option("--wait-file", o.wait_file, "then wait for this file before running");
  TC_ASSIGN(const bool go_on, understand(app, "workload", argc, argv));
  if (!go_on) return 0;
  if (*list_verb) {
    TC_TRY(list(list_as_json));
    return 0;
  }
  TC_ASSIGN(o.footprint, parse_bytes(footprint));
  TC_ASSIGN(o.seed, parse_u64(seed));
  if (*operations) {
    TC_ASSIGN(o.operations, parse_u64(operation_count));
    if (o.operations == 0) return fail(ErrorKind::kUsage, "--operations must be at least 1");
  }
  TC_ASSIGN(o.settings, parse_settings(settings));
  return run_and_report(o, json);
}

}  // namespace
}  // namespace thermocline::workloads

int main(int argc, char** argv) {
  return thermocline::workloads::run_program(
      "workload", [&] { return thermocline::workloads::run(argc, argv); });
}
