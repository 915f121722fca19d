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
  /// Takes a page of the node's memory. kUnsupported where that can't be had or lines can't be
  /// flushed.
  [[nodiscard]] static Result<LatencyProbe> open(NodeId node);

  /// The median of a few rounds, smoothed over measurements: three parts of what was known, one of
  /// the new one.
  [[nodiscard]] Nanoseconds measure(const System& system);

 private:
  explicit LatencyProbe(SharedMapping page) : page_(std::move(page)) {}
  SharedMapping page_;
  Nanoseconds smoothed_{};
};

}  // namespace thermocline
