// SPDX-License-Identifier: Apache-2.0
// Carries pages of a process that somebody names to a node that somebody names: what the verbs
// `migrate` and `drain` do. Decides nothing, and keeps nothing of it.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"
#include "mover/mover.h"
#include "tracking/node_map.h"
#include "tracking/process.h"
#include "tracking/tracker.h"

namespace thermocline {

/// Which pages, and where to. An address range is cut to what is mapped.
struct CarryRequest {
  std::vector<ScanRange> ranges;  ///< sorted, apart; empty: all of the address space
  std::optional<NodeId> from;     ///< only pages of this node
  NodeId to;
  bool shared = false;   ///< also pages that other processes map (MPOL_MF_MOVE_ALL; needs root)
  bool dry_run = false;  ///< count only
};

struct CarryResult {
  PageCount already;  ///< on the node they should go to; with `from`, not counted
  PageCount asked;    ///< on another one: to be moved
  std::array<PageCount, kMoveOutcomes> outcomes{};  ///< of these; all 0 after a dry run
  bool full = false;                                ///< given up: the node had no more room
  /// Of address ranges that are hardly used, and too large to be gone through (set_aside()).
  PageCount set_aside;

  [[nodiscard]] PageCount of(MoveOutcome outcome) const {
    return outcomes[static_cast<std::size_t>(outcome)];
  }
};

/// Told now and then how many pages were looked at and moved so far. False: stop.
using CarryProgress = std::function<bool(const CarryResult&)>;

/// Goes once through the pages of one process, but for those that the kernel shares with all of
/// them
/// ([vdso] and the like). Pages that come meanwhile may be missed, and pages that go are kGone.
/// kNotFound when the process is gone, kPermission when this user may not look at it or move its
/// pages.
[[nodiscard]] Result<CarryResult> carry_pages(System& system, const ProcessIdentity& process,
                                              const CarryRequest& request,
                                              const CarryProgress& progress);

/// "7f00-7fff,A000-B000": hexadecimal addresses with or without 0x, rounded outwards to pages;
/// sorted and joined. kUsage for anything else.
[[nodiscard]] Result<std::vector<ScanRange>> parse_ranges(std::span<const std::string> texts);

}  // namespace thermocline
