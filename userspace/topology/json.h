// SPDX-License-Identifier: Apache-2.0
// The topology as JSON, for `thermocline tiers --json` and the control socket. Keys are stable and
// carry their unit; what isn't known is null.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "topology/topology.h"

namespace thermocline {

/// Throws nothing that a topology can cause: every string in it is made valid UTF-8.
[[nodiscard]] nlohmann::ordered_json to_json(const Topology& topology);

}  // namespace thermocline
