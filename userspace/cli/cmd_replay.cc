// SPDX-License-Identifier: Apache-2.0
// `thermocline replay`: what a policy would have made of a recording, on tiers of a given size.
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "cli/oracle.h"
#include "cli/replay_report.h"
#include "policies/plugin/plugin_policy.h"
#include "policies/policy.h"
#include "trace/trace_reader.h"

namespace thermocline::cli {

namespace {

struct ReplayOptions {
  std::string trace, policy = "auto", ratio = "1:2", rate_limit = "256M", plugin_dir;
  std::vector<std::string> set;
  unsigned windows = 8;
  std::uint64_t seed = 1;
  bool json = false;
};

Result<std::vector<PolicyOption>> policy_options(const ReplayOptions& o) {
  std::vector<PolicyOption> options;
  for (const std::string& text : o.set) {
    const auto equals = text.find('=');
    if (equals == 0 || equals == std::string::npos)
      return fail(ErrorKind::kUsage, "--set {}: give KEY=VALUE, an option of the policy", text);
    options.push_back({text.substr(0, equals), text.substr(equals + 1)});
  }
  if (!options.empty() && o.policy == "all")
    return fail(ErrorKind::kUsage, "--set is for one policy: name it with --policy");
  return options;
}

Result<int> run(const ReplayOptions& o) {
  replay::Options options;
  TC_ASSIGN(options.ratio, replay::parse_ratio(o.ratio));
  TC_ASSIGN(options.policy_options, policy_options(o));
  TC_ASSIGN(options.rate_limit, parse_bytes(o.rate_limit));
  if (options.rate_limit == Bytes(0))
    return fail(ErrorKind::kUsage, "--rate-limit 0: give the bytes that may be moved in a second");
  options.windows_per_epoch = o.windows;
  options.seed = o.seed;
  PolicyRegistry registry;
  register_builtin_policies(registry);
  if (!o.plugin_dir.empty()) TC_TRY(register_plugins(registry, o.plugin_dir, patient_plugins()));
  options.registry = &registry;
  std::vector<std::string> policies;
  if (o.policy == "all") {
    for (const PolicyFactory& factory : registry.factories()) policies.push_back(factory.name);
  } else {
    TC_ASSIGN(const auto policy, registry.make(o.policy, options.policy_options, o.seed));
    policies.emplace_back(policy->name());
    if (o.policy != "static") policies.emplace_back("static");  // to compare with
  }

  ReplayReport report;
  report.trace = o.trace;
  report.ratio = options.ratio;
  const auto named = [&](Error error) {
    if (error.message.find(o.trace) == std::string::npos)
      error.message = o.trace + ": " + error.message;
    return tl::make_unexpected(std::move(error));
  };
  TC_ASSIGN(trace::Recording recording, trace::open_recording(o.trace));
  if (recording.torn_bytes > 0)
    fmt::print(stderr, "thermocline: {}: its last {} bytes are no whole frame and are left out\n",
               o.trace, recording.torn_bytes);
  const auto survey = replay::survey(*recording.source);
  if (!survey) return named(survey.error());
  report.survey = *survey;
  const PageCount fast = replay::fast_pages(survey->footprint, options.ratio);
  auto best = oracle::best_static_placement(*recording.source, {.fast_pages = fast});
  if (!best) return named(best.error());
  report.best = std::move(*best);
  for (const std::string& policy : policies) {
    TC_ASSIGN(trace::Recording again, trace::open_recording(o.trace));
    options.policy = policy;
    const bool chosen = policy == policies.front();
    if (!chosen) options.policy_options.clear();
    auto outcome = replay::play(std::move(again.source), *survey, options);
    if (!outcome) return named(outcome.error());
    report.outcomes.push_back(std::move(*outcome));
  }
  print_line(o.json ? json_text(replay_json(report)) : replay_text(report));
  return 0;
}

}  // namespace

void register_replay(CLI::App& app, Context& context) {
  auto options = std::make_shared<ReplayOptions>();
  CLI::App* verb = app.add_subcommand(
      "replay", "what a policy would have made of a recording, on modelled tiers");
  verb->add_option("trace", options->trace, "trace of thermocline record, or the daemon's [record]")
      ->type_name("FILE")
      ->required();
  verb->add_option("--policy", options->policy, "policy to play it to; all: every one")
      ->type_name("NAME")
      ->capture_default_str();
  verb->add_option("--plugin-dir", options->plugin_dir, "also the policy plug-ins in DIR, NAME.so")
      ->type_name("DIR");
  verb->add_option("--set", options->set, "option of the policy, KEY=VALUE; may be given again")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  verb->add_option("--ratio", options->ratio, "sizes of the fast and the slow tier, FAST:SLOW")
      ->type_name("RATIO")
      ->capture_default_str();
  verb->add_option("--windows", options->windows, "windows of an epoch, 1..64")
      ->type_name("N")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  verb->add_option("--rate-limit", options->rate_limit, "bytes that may be moved in a second")
      ->type_name("BYTES")
      ->capture_default_str();
  verb->add_option("--seed", options->seed, "of the policy")->type_name("N")->capture_default_str();
  verb->add_flag("--json", options->json, "print JSON with stable keys, with every epoch");
  verb->callback([&context, options] { context.action = [options] { return run(*options); }; });
}

}  // namespace thermocline::cli
