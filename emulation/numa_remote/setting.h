// SPDX-License-Identifier: Apache-2.0
// Which node is fast, which one stands in for slow memory, and where a command may run. Pure.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "topology/topology.h"

namespace thermocline::numa_remote {

struct Setting {
  NodeId fast, slow;
  std::vector<CpuId> cpus;       ///< of the fast node, where the command runs; ascending
  std::vector<NodeId> left_out;  ///< other nodes with memory
  std::vector<std::string> notes;
};

/// `allowed`: CPUs that this process may use. Without a slow node: the farthest from the fast one,
/// one with CPUs before one without. Without a fast node: the first with CPUs and memory.
/// kUnsupported on a machine with one node of memory; kUsage for a node that can't be what it
/// should be.
[[nodiscard]] Result<Setting> choose(const Topology& topology, std::span<const CpuId> allowed,
                                     std::optional<NodeId> slow, std::optional<NodeId> fast);

}  // namespace thermocline::numa_remote
