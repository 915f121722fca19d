// SPDX-License-Identifier: Apache-2.0
// `thermocline trackers`: the sources of access records, what each can tell, and which work here.
#include <algorithm>
#include <memory>
#include <optional>

#include "cli/command.h"
#include "cli/trackers_report.h"

namespace thermocline::cli {

namespace {

struct Options {
  bool json = false;
  std::optional<std::int32_t> pid;
};

Result<int> run(const Options& options) {
  const auto system = make_real_system();
  std::vector<ProcessIdentity> targets;
  if (options.pid) {
    TC_ASSIGN(auto target, identify_process(*system, Pid(*options.pid)));
    targets.push_back(std::move(target));
  }
  std::vector<TrackerState> states;
  for (const TrackerFactory& factory : tracker_factories()) {
    const Status works = factory.probe(*system, {});
    states.push_back({&factory, works ? "" : works.error().message});
  }
  const AutoOrder order = auto_order(*system, targets);
  const auto works = [&](const TrackerFactory* factory) {
    return std::any_of(states.begin(), states.end(), [&](const TrackerState& state) {
      return state.factory == factory && state.why_not.empty();
    });
  };
  const auto chosen = std::find_if(order.factories.begin(), order.factories.end(), works);
  const auto report = trackers_json(states, chosen == order.factories.end() ? "" : (*chosen)->name);
  print_line(options.json ? json_text(report) : trackers_text(report));
  if (!options.json && order.second_mmu) print_line(second_mmu_sentence(*order.second_mmu));
  return 0;
}

}  // namespace

void register_trackers(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("trackers", "sources of access records, and which work here");
  const auto options = std::make_shared<Options>();
  command->add_flag("--json", options->json, "print JSON with stable keys");
  command->add_option("--pid", options->pid, "tell what \"auto\" takes for this process")
      ->type_name("PID");
  command->callback([options, &context] { context.action = [options] { return run(*options); }; });
}

}  // namespace thermocline::cli
