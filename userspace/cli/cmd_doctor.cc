// SPDX-License-Identifier: Apache-2.0
// `thermocline doctor`: what stands between this machine and managed memory.
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "control/doctor.h"

namespace thermocline::cli {

namespace {

void print_text(const std::vector<Finding>& findings) {
  std::size_t widest = 0;
  for (const Finding& f : findings) widest = std::max(widest, f.what.size());
  for (const Finding& f : findings) {
    print_line(fmt::format("{:<8} {:<{}}  {}", to_string(f.severity), f.what, widest, f.state));
    if (!f.advice.empty()) print_line(fmt::format("{:<{}}  -> {}", "", 9 + widest, f.advice));
  }
}

Result<int> run(bool json) {
  const auto system = make_real_system();
  const auto findings = examine_machine(*system, tracker_factories());
  const bool ready = is_ready(findings);
  if (json) {
    nlohmann::ordered_json out;
    out["ready"] = ready;
    for (const Finding& f : findings)
      out["findings"].push_back({{"what", f.what},
                                 {"severity", to_string(f.severity)},
                                 {"state", f.state},
                                 {"advice", f.advice}});
    print_line(json_text(out));
  } else {
    print_text(findings);
  }
  return static_cast<int>(ready ? ExitCode::kOk : ExitCode::kUnsupported);
}

}  // namespace

void register_doctor(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("doctor", "what stands in the way here, and what to do");
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "print JSON with stable keys");
  command->callback([json, &context] { context.action = [json] { return run(*json); }; });
}

}  // namespace thermocline::cli
