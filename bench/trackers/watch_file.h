// SPDX-License-Identifier: Apache-2.0
// What tracker_watch, in the guest, tells of a run: which pages a tracker held for hot, epoch by
// epoch, and what that took. JSON; written by the guest, so read with care. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace thermocline::trackers {

/// Pages in a row, of 4 KiB, by page number.
struct Region {
  std::uint64_t first = 0;
  std::uint64_t pages = 0;
};

struct Watch {
  /// After an epoch. Times are CLOCK_MONOTONIC and CPU time, in ns.
  struct Look {
    std::uint64_t at_ns = 0;
    std::uint64_t target_cpu_ns = 0;  ///< of the program that is watched
    std::uint64_t own_cpu_ns = 0;     ///< of looking, which no tracker needs
    /// Of all epochs so far, as the engine counts it against its budget; 0: no tracker.
    std::uint64_t tracking_cpu_ns = 0;
    std::vector<bool> hot;  ///< by page, over all regions; empty: no tracker
  };
  /// Two passes over the program at rest: one that finds everything touched, one nothing.
  struct Cost {
    std::uint64_t entries = 0;  ///< of both
    std::uint64_t cpu_ns = 0;
  };
  std::string tracker;
  /// It scans ranges, so that the engine can watch a large address space section by section.
  bool scans_ranges = false;
  std::vector<Region> regions;
  std::vector<Look> looks;
  Cost cost;
  /// By page; 0 where the tracker knows of none.
  std::vector<std::uint8_t> heat;

  [[nodiscard]] std::uint64_t pages() const;
};

[[nodiscard]] std::string to_text(const Watch& watch);
/// kCorrupt, in a sentence, unless it is one whose parts fit together.
[[nodiscard]] Result<Watch> parse_watch(std::string_view text);

}  // namespace thermocline::trackers
