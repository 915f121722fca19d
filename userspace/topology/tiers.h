// SPDX-License-Identifier: Apache-2.0
// Puts nodes in order of speed. Pure: sees only what discover() read; internal to this layer.
#pragma once

#include <span>

#include "topology/stand_in.h"
#include "topology/topology.h"

namespace thermocline {

/// Fills tiers, source, why and the notes about tiers from `topology.nodes` and the declarations.
/// `stand_in` counts when nothing is declared.
/// Fails with kFailure when no node is usable, kUsage for a bad declaration.
[[nodiscard]] Status order_tiers(Topology& topology, std::span<const TierDeclaration> declared,
                                 const std::optional<StandIn>& stand_in = std::nullopt);

/// The kernel's "abstract distance" of memory (mm/memory-tiers.c, mt_perf_to_adistance(), Linux
/// 6.7): 576 for memory as good as `dram`, more when latency is higher or bandwidth lower. Without
/// both bandwidths, latency decides alone. Nothing when either side has no read latency.
[[nodiscard]] std::optional<std::uint64_t> abstract_distance(const Performance& memory,
                                                             const Performance& dram);

}  // namespace thermocline
