// SPDX-License-Identifier: Apache-2.0
// Many cases: the product of what was asked for, or random draws; run on all cores, kept one by
// one, so that a run that was ended goes on where it was.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "emulation/sim/case.h"

namespace thermocline::sim {

/// A key of the machine, the engine or the workload, and the values it takes in turn.
struct SweepAxis {
  std::string key;
  std::vector<double> values;
};
/// "key=a,b,c" with a key of the machine, the engine or one of the workloads; kUsage otherwise,
/// with the nearest key.
[[nodiscard]] Result<SweepAxis> parse_axis(std::string_view text,
                                           std::span<const WorkloadChoice> workloads);

/// "1:1..1:16" (doubling), "1:4", "1:1:4": one part a tier, `tiers` of them.
[[nodiscard]] Result<std::vector<std::vector<unsigned>>> parse_ratios(std::string_view text,
                                                                      std::size_t tiers);
/// "all", or names of policies and baselines. `grids`: "POLICY:key=a,b;key=c", each combination of
/// which becomes a system of its own. "all" has the policies in the order of the registry.
[[nodiscard]] Result<std::vector<SystemChoice>> parse_systems(std::string_view text,
                                                              std::span<const std::string> grids,
                                                              const PolicyRegistry& registry);

struct SweepRequest {
  std::vector<WorkloadChoice> workloads;
  std::vector<std::vector<unsigned>> ratios;
  std::vector<SystemChoice> systems;
  std::vector<SweepAxis> axes;
  std::uint64_t first_seed = 1, seeds = 1;
  Case base;  ///< everything else
};
/// In the order: workloads, ratios, axes, seeds, systems.
[[nodiscard]] Result<std::vector<Case>> plan_sweep(const SweepRequest& request);
/// `draws` problems: a workload of the kinds in `request`, its keys and a ratio, drawn at random by
/// the first seed, each with all systems. Draws of one seed are the same whatever their number.
[[nodiscard]] Result<std::vector<Case>> plan_draws(const SweepRequest& request,
                                                   std::uint64_t draws);

struct RunOptions {
  std::string out_dir;  ///< cases.jsonl is kept there; empty: nowhere
  unsigned jobs = 1;
  std::function<void(const std::string&)> say;  ///< a line for the user
  /// Of the code that runs: a case that another one has kept is run again.
  std::string version;
};
inline constexpr const char* kCasesName = "cases.jsonl";

struct StoredCases {
  std::vector<nlohmann::ordered_json> lines;
  std::vector<std::string> versions;  ///< of the code that found each line; "" = not known
  std::size_t whole_bytes = 0;        ///< length of the text up to the end of its last whole line
};
/// A store's text, which may be anybody's. A last line without a newline is what a killed run
/// leaves. Any other line that is no case is kCorrupt, "NAME:LINE: why".
[[nodiscard]] Result<StoredCases> parse_cases(std::string_view text, const std::string& name);

/// The cases' lines (to_json() of case.h), in their order. Those that out_dir has already, of
/// this version, are not run again. kUsage when the folder can't be written, is in use, or a policy
/// refuses its options; kCorrupt, "FILE:LINE: why", when it holds something else.
[[nodiscard]] Result<std::vector<nlohmann::ordered_json>> run_cases(const std::vector<Case>& cases,
                                                                    const PolicyRegistry& registry,
                                                                    const RunOptions& options);

}  // namespace thermocline::sim
