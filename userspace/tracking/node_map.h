// SPDX-License-Identifier: Apache-2.0
// Which NUMA node a physical page belongs to, from what the kernel tells of its memory.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"

namespace thermocline {

class NodeMap {
 public:
  struct Range {
    std::uint64_t first = 0, end = 0;  ///< page frame numbers [first, end)
    NodeId node;
  };

  /// From the memory blocks below /sys/devices/system/node, or, on a kernel without memory hotplug,
  /// from the zones of /proc/zoneinfo. kUnsupported when those of several nodes overlap.
  [[nodiscard]] static Result<NodeMap> read(const System& system);

  /// The range that holds a page frame, or nullptr.
  [[nodiscard]] const Range* find(std::uint64_t pfn) const;
  /// One past the highest page frame.
  [[nodiscard]] std::uint64_t end() const { return ranges_.empty() ? 0 : ranges_.back().end; }

 private:
  std::vector<Range> ranges_;  // sorted, apart; neighbours of one node merged
};

}  // namespace thermocline
