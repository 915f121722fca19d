// SPDX-License-Identifier: Apache-2.0
// `thermocline trackers`: the sources of access records, what each can tell, and which work here.
#include <memory>

#include "cli/command.h"
#include "cli/trackers_report.h"

namespace thermocline::cli {

namespace {

Result<int> run(bool as_json) {
  const auto system = make_real_system();
  std::vector<TrackerState> states;
  for (const TrackerFactory& factory : tracker_factories()) {
    const Status works = factory.probe(*system, {});
    states.push_back({&factory, works ? "" : works.error().message});
  }
  const auto report = trackers_json(states);
  print_line(as_json ? json_text(report) : trackers_text(report));
  return 0;
}

}  // namespace

void register_trackers(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("trackers", "sources of access records, and which work here");
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "print JSON with stable keys");
  command->callback([json, &context] { context.action = [json] { return run(*json); }; });
}

}  // namespace thermocline::cli
