// SPDX-License-Identifier: Apache-2.0
// Idle and loaded latency, and bandwidth, of two nodes as seen from the CPUs of the fast one, by
// the machine's own clock.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "emulation/numa_remote/setting.h"

namespace thermocline::numa_remote {

/// A pointer chase on one CPU while the others read from the same node.
struct LoadPoint {
  double gb_per_s = 0;  ///< of the others, 10^9 bytes
  double latency_ns = 0;
};

struct NodeFigures {
  NodeId node;
  double idle_ns = 0;   ///< the best of some windows
  double spread = 0;    ///< of these windows: 0.1 when the worst is 10 % above the best
  double gb_per_s = 0;  ///< reads of all CPUs
  /// Half of the CPUs draw nearly as much: this is what the node gives, not what the CPUs ask for.
  bool saturated = false;
  std::vector<LoadPoint> loaded;  ///< by rising load; empty with one CPU
};

/// The least latency that was seen, under light load too: an idle socket may clock itself down, and
/// wakes with the first traffic.
[[nodiscard]] double least_ns(const NodeFigures& node);

struct Figures {
  NodeFigures fast, slow;
  unsigned cpus = 0;        ///< that measured: one a core
  Bytes chased;             ///< size of the chase's buffer
  bool huge_pages = false;  ///< all of it; else latencies hold page walks
};

/// Takes some seconds. While it runs, this process is the first to go when memory runs out.
/// kFailure when a node has too little free memory for a buffer that caches can't hold.
[[nodiscard]] Result<Figures> measure(System& system, Setting setting,
                                      const std::function<void(const std::string&)>& progress);

}  // namespace thermocline::numa_remote
