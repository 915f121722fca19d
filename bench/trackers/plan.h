// SPDX-License-Identifier: Apache-2.0
// What `thermocline bench trackers` can run, and the runs that follow from what was asked for.
// Pure.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline::trackers {

/// How a program touches its memory.
struct Pattern {
  std::string name;
  std::string about;
  std::string workload;  ///< of `workload run`
  double seconds;        ///< of guest time
  std::vector<std::string> settings;
  bool huge_pages = false;
  double hot = 0.1;  ///< share of the pages that the hot set is
};
[[nodiscard]] const std::vector<Pattern>& patterns();

/// Stands for no tracker: what the program gets by itself.
inline constexpr const char* kNone = "none";

/// "damon+written": damon and written. Of any other name, that name alone.
[[nodiscard]] std::vector<std::string> sources_of(const std::string& tracker);

struct TrackersOptions {
  std::vector<std::string> trackers;  ///< empty: all, and kNone; "damon+written": two combined
  std::vector<std::string> patterns;  ///< empty: all
  std::vector<double> budgets{0.03};  ///< shares of one processor
  std::string kernel = "6.12";
  std::string timing = "cxl-asic";
  Bytes footprint{std::uint64_t{160} << 20};
  std::uint64_t seed = 1;
};

struct PlannedRun {
  std::string tracker;
  Pattern pattern;
  double budget = 0;
};

/// In the order of running. kUsage, in one sentence, for a name that there is not and a number that
/// can't be. `known`: the trackers that there are.
[[nodiscard]] Result<std::vector<PlannedRun>> plan_runs(const TrackersOptions& options,
                                                        const std::vector<std::string>& known);

}  // namespace thermocline::trackers
