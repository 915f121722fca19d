// SPDX-License-Identifier: Apache-2.0
// A line of the results of `thermocline bench trackers`: what was run and what came out. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "bench/trackers/judge.h"
#include "bench/trackers/plan.h"

namespace thermocline::trackers {

struct Row {
  std::string tracker, pattern, kernel, timing;
  double budget = 0;
  Bytes footprint;
  std::uint64_t seed = 1;
  std::string setting;  ///< what else the figures depend on: the scripts and how a pattern is run

  std::string error;  ///< empty: done, or not there
  /// Why the tracker doesn't work in this guest, in its own words; then there are no figures.
  /// Empty: it does.
  std::string unsupported;
  Judgement result;
  std::optional<double> ops_per_s;  ///< of the program
  std::string version;

  /// Of the same run: the first line of members.
  [[nodiscard]] bool same_run(const Row& other) const;
};

/// Stable keys; null where there is no figure.
[[nodiscard]] nlohmann::ordered_json to_json(const Row& row);
/// Lines of to_json(); an older line of the same run is left out. Keys that an older build did not
/// write are empty. kCorrupt with its number for a line that is none.
[[nodiscard]] Result<std::vector<Row>> parse_rows(std::string_view text);

}  // namespace thermocline::trackers
