// SPDX-License-Identifier: Apache-2.0
// The kernel's weights for weighted interleaving (MPOL_WEIGHTED_INTERLEAVE, Linux 6.9 and later),
// set for as long as somebody wants them and put back then. Where the kernel has none, nothing is
// done. A program that is killed leaves what it had set; any program may set them anew.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/system.h"

namespace thermocline {

/// Of a node, 1..255.
struct NodeWeight {
  NodeId node;
  std::uint8_t weight = 1;
};

class InterleaveWeights {
 public:
  explicit InterleaveWeights(System& system) : system_(system) {}
  /// Puts back what was there.
  ~InterleaveWeights();
  InterleaveWeights(const InterleaveWeights&) = delete;
  InterleaveWeights& operator=(const InterleaveWeights&) = delete;

  /// Sets these and leaves other nodes as they are; empty: puts back what was there. The kernel's
  /// refusal is returned, and weights set so far are put back. True: it did something.
  [[nodiscard]] Result<bool> set(std::span<const NodeWeight> weights);

 private:
  void restore();

  System& system_;
  std::vector<std::pair<std::string, std::string>> before_;  ///< file and what it said
};

}  // namespace thermocline
