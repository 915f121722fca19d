// SPDX-License-Identifier: Apache-2.0
// A source that needs no machine: touches of a made address space, drawn by a seed, and told with
// the imperfections that one asks for. For tests, and for programs that simulate. The same seed
// gives the same touches, whatever was asked before.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/units.h"
#include "tracking/tracker.h"

namespace thermocline {

/// Chance, 0..1, that a page is touched in a window. Pages and windows count from 0. Pure.
using TouchChance = std::function<double(std::uint64_t page, std::uint64_t window)>;

/// All pages alike.
[[nodiscard]] TouchChance uniform_touches(double chance);
/// A share of the pages, scattered by the seed, is hot.
[[nodiscard]] TouchChance hot_set_touches(double share, double hot, double cold,
                                          std::uint64_t seed);
/// A hot set that is drawn anew every `stay` windows (at least 1).
[[nodiscard]] TouchChance moving_touches(double share, double hot, double cold, std::uint64_t stay,
                                         std::uint64_t seed);
/// So many accesses a window, the one of rank r (from 1) with a weight of r^-exponent; ranks are
/// scattered by the seed. 1 to 2^32 pages.
[[nodiscard]] TouchChance zipf_touches(PageCount pages, double accesses, double exponent,
                                       std::uint64_t seed);
/// A sweep: each window goes on by `step` pages (at least 1), and begins anew after the last of
/// them, of which there are 1 to 2^32.
[[nodiscard]] TouchChance scan_touches(PageCount pages, PageCount step);

struct SyntheticLoad {
  PageCount pages{4096};
  Vpn first{512 * 1000};
  TouchChance chance = uniform_touches(0.5);
  double missed = 0;        ///< share of the touches that the source doesn't see, 0..1
  std::uint64_t delay = 0;  ///< windows until a touch is told; the first so many tell nothing
  std::uint64_t seed = 1;
  /// Where a page is; none: not known.
  std::function<std::optional<NodeId>(std::uint64_t page)> node_of = {};

  /// What really happened.
  [[nodiscard]] bool touched(std::uint64_t page, std::uint64_t window) const;
};

/// Attaches to any identity, and tells the same load for each. A clearing scan ends a window of the
/// whole address space, whatever its ranges; window 0 ends with the first one. Its clock begins at
/// 0, and goes by the windows that it is asked for.
[[nodiscard]] std::unique_ptr<Tracker> make_synthetic_tracker(SyntheticLoad load);

}  // namespace thermocline
