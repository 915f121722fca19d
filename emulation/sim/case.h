// SPDX-License-Identifier: Apache-2.0
// One case: a workload, a machine, a ratio and a system (a policy with its options, or a baseline),
// and what came of it. The same case gives the same figures, to the last byte.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "emulation/sim/machine.h"
#include "emulation/sim/oracle.h"
#include "emulation/sim/workload.h"
#include "engine/engine.h"
#include "policies/policy.h"

namespace thermocline::sim {

/// What decides where pages are: a policy of the registry, or a placement that stays.
struct SystemChoice {
  std::string name;
  std::vector<PolicyOption> options;
  bool baseline = false;
};
/// first-touch, interleaved, all-fast, all-slow and oracle-static: no engine, no tracking.
[[nodiscard]] const std::vector<std::string>& baselines();
/// "heat" or "heat:warm_band=3;min_heat=2".
[[nodiscard]] std::string to_text(const SystemChoice& system);

/// A number of the engine's options that can be set or swept.
struct EngineKey {
  std::string_view name, meaning;
  double least, most;
  bool whole;
  void (*set)(EngineOptions& options, double value);
  double (*get)(const EngineOptions& options);
};
[[nodiscard]] const std::vector<EngineKey>& engine_keys();

struct Case {
  WorkloadChoice workload;
  std::uint64_t pages = 1u << 20;
  std::vector<unsigned> ratio{1, 4};
  std::string timing = "cxl-asic";
  Machine machine;
  EngineOptions engine;
  Settings changed;  ///< keys of machine and engine that were set, for people and for the key
  SystemChoice system;
  std::uint64_t seed = 1;
  double seconds = 120;
  double judged_from = 60;
  std::string group;  ///< of a set of draws: which; empty otherwise
};
[[nodiscard]] std::string ratio_text(const std::vector<unsigned>& ratio);
/// What tells a case from others of any run; two with one key give the same figures.
[[nodiscard]] std::string case_key(const Case& c);
/// The same of what cases of different systems have in common.
[[nodiscard]] std::string problem_key(const Case& c);

/// What is possible, whatever the system: the same for all cases of a problem.
struct Bounds {
  double static_hit_ratio = 0;
  AccessRate static_throughput = 0;
  double dynamic_hit_ratio = 0;
  AccessRate dynamic_throughput = 0;
  AccessRate all_fast = 0, all_slow = 0;
};

/// Of the judged time, unless it says otherwise. All modelled.
struct Outcome {
  double hit_ratio = 0;             ///< share of the accesses that the fastest tier serves
  AccessRate throughput = 0;        ///< accesses a second
  double whole_hit_ratio = 0;       ///< of the whole time
  AccessRate whole_throughput = 0;  ///< of the whole time
  Bytes promoted, demoted;
  double moved_share = 0;      ///< pages moved an epoch, of the footprint's
  double ping_pong_share = 0;  ///< of the moves of the whole time: undone within eight epochs
  double tracking_cpu = 0;     ///< of one core, deciding included
  double moving_cpu = 0;
  std::uint64_t epochs = 0;  ///< of the whole time
  /// Changes of phase after which the placement had to change, and how often 90 % of what there was
  /// to win came back before the next one; how long that took (mean, and most).
  std::uint64_t changes = 0, reconverged = 0;
  std::optional<double> reconverge_epochs, reconverge_s, reconverge_most_s;
  /// Mean of max(3 epochs, 2 * bytes to be promoted / rate limit) over the same changes.
  std::optional<double> reconverge_goal_s;
};

[[nodiscard]] Result<Bounds> bounds_of(const Case& c);
/// kUsage when the policy refuses its options; kFailure when a plug-in didn't decide every epoch.
[[nodiscard]] Result<Outcome> run_case(const Case& c, const PolicyRegistry& registry,
                                       bool helper = false);

/// A line of results: what the case was, what came of it, beside what was possible. Keys are
/// documented in thermocline-sim(1).
[[nodiscard]] nlohmann::ordered_json to_json(const Case& c, const Outcome& outcome,
                                             const Bounds& bounds);

}  // namespace thermocline::sim
