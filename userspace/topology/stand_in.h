// SPDX-License-Identifier: Apache-2.0
// A node that stands in for slow memory while `thermocline emulate numa-remote` runs: it says so in
// a file, so that the daemon and `thermocline tiers` see two tiers where the kernel sees two
// sockets.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"

namespace thermocline {

inline constexpr const char* kStandInPath = "/run/thermocline/numa-remote.json";
/// Name of the process that puts everything back (comm).
inline constexpr const char* kKeeperName = "tc-keeper";

struct StandIn {
  Pid keeper;  ///< the process that puts everything back
  NodeId fast, slow;

  friend bool operator==(const StandIn&, const StandIn&) = default;
};

/// Reads the keys version, keeper, fast_node and slow_node; the others are for who wrote them.
/// Throws json::exception.
[[nodiscard]] StandIn stand_in_of(const nlohmann::json& json);
void put_stand_in(const StandIn& stand_in, nlohmann::ordered_json& json);

/// The keeper lives; another process that got its number doesn't count.
[[nodiscard]] bool is_kept(const System& system, const StandIn& stand_in);

/// Nothing when there is none, or its keeper has gone. kCorrupt when the file is not what it should
/// be.
[[nodiscard]] Result<std::optional<StandIn>> read_stand_in(const System& system);

}  // namespace thermocline
