// SPDX-License-Identifier: Apache-2.0
// What `thermocline trackers` tells of every source of access records, as JSON and as text.
// Pure: whether a source works here is asked by the verb.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "tracking/tracker.h"

namespace thermocline::cli {

struct TrackerState {
  const TrackerFactory* factory = nullptr;
  std::string why_not;  ///< empty: it works here
};

/// One object a source, in their order; `chosen` is the one that "auto" takes, "" = none works.
[[nodiscard]] nlohmann::json trackers_json(std::span<const TrackerState> trackers,
                                           std::string_view chosen);
/// The same for people, from that JSON.
[[nodiscard]] std::string trackers_text(const nlohmann::json& trackers);

}  // namespace thermocline::cli
