// SPDX-License-Identifier: Apache-2.0
// What `thermocline replay` prints: policies beside each other on one recording, beside first touch
// and the best static placement. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/oracle.h"
#include "emulation/replay/replay.h"

namespace thermocline::cli {

struct ReplayReport {
  std::string trace;  ///< its file
  replay::Ratio ratio;
  replay::Survey survey;
  std::vector<replay::Outcome> outcomes;
  oracle::Answer best;  ///< with as many pages as the fast tier holds
};

/// A share of what the best static placement catches; 0 when that catches nothing.
[[nodiscard]] double of_best_static(const ReplayReport& report, const replay::Outcome& outcome);
[[nodiscard]] std::string replay_text(const ReplayReport& report);
/// The keys are in thermocline-replay(1).
[[nodiscard]] nlohmann::ordered_json replay_json(const ReplayReport& report);

}  // namespace thermocline::cli
