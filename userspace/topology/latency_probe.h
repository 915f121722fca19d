// SPDX-License-Identifier: Apache-2.0
// How late a node's memory answers now, under whatever load it has: 288 dependent loads from one
// page on the node, each past the caches (the lines are flushed first), so a measurement takes
// about 300 times what it measures.
#pragma once

#include "base/result.h"
#include "base/system.h"

namespace thermocline {

class LatencyProbe {
 public:
  /// Takes a page of the node's memory. kNotFound while the node has none to spare, kUnsupported
  /// where that can't be had or lines can't be flushed.
  [[nodiscard]] static Result<LatencyProbe> open(NodeId node);

  /// 0 when the page is no longer on the node. Else the median of a few rounds, smoothed over
  /// measurements: three parts of what was known, one of the new one.
  [[nodiscard]] Nanoseconds measure(const System& system);

 private:
  LatencyProbe(SharedMapping page, NodeId node) : page_(std::move(page)), node_(node) {}
  SharedMapping page_;
  NodeId node_;
  Nanoseconds smoothed_{};
};

}  // namespace thermocline
