// SPDX-License-Identifier: Apache-2.0
// How late a node's memory answers now, under whatever load it has: 288 dependent loads from one
// page on the node, each past the caches (the lines are flushed first), so a measurement takes
// about 300 times what it measures.
#pragma once

#include <array>
#include <cstddef>

#include "base/result.h"
#include "base/system.h"

namespace thermocline {

class LatencyProbe {
 public:
  /// Takes a page of the node's memory. kNotFound while the node has none to spare, kUnsupported
  /// where that can't be had or lines can't be flushed.
  [[nodiscard]] static Result<LatencyProbe> open(NodeId node);

  /// Whether the page still lies on the node.
  [[nodiscard]] bool in_place() const;
  /// Median of the last five measurements, of which each is the median of a few rounds: what holds
  /// up one of them is not told. 0 until there have been three, and when the page is not in place.
  [[nodiscard]] Nanoseconds measure(const System& system);

 private:
  static constexpr std::size_t kKept = 5, kEnough = 3;
  LatencyProbe(SharedMapping page, NodeId node) : page_(std::move(page)), node_(node) {}
  SharedMapping page_;
  NodeId node_;
  std::array<Nanoseconds, kKept> last_{};
  std::size_t measured_ = 0;
};

}  // namespace thermocline
