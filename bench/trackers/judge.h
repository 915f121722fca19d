// SPDX-License-Identifier: Apache-2.0
// How right a tracker was, against the timing model's ground truth. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "bench/suite/truth.h"
#include "bench/trackers/watch_file.h"

namespace thermocline::trackers {

/// Shares are 0..1. The hot set of a phase is the `room` pages that missed the last-level cache
/// most in it; "settled" is the last half of the last phase.
struct Judgement {
  std::optional<double> recall;     ///< of the hot set, held for hot; mean over the settled time
  std::optional<double> precision;  ///< of what is held for hot; none: nothing ever was
  /// Spearman's, of heat at the end and misses of the last phase, over all pages; none when all
  /// pages have the same heat.
  std::optional<double> rank_correlation;
  /// From the begin of the last phase until a recall of nine tenths that stays. None: never.
  std::optional<double> delay_s;
  /// The same for 64 GiB of 4 KiB pages within 1 % of a processor: as many epochs, each as dear a
  /// page as in the run. Evidence comes by epochs; how long one lasts is what the budget decides.
  std::optional<double> delay_64gib_s;
  std::optional<double> cpu_share;  ///< of one processor, that the program did not get in the run
  std::optional<double> instr_per_entry, ns_per_entry;  ///< of passes over the program at rest
};

/// Of two rankings of the same things, ties sharing their mean rank (Spearman, 1904). None when one
/// of them tells nothing apart.
[[nodiscard]] std::optional<double> rank_correlation(std::span<const double> a,
                                                     std::span<const double> b);

/// `start_ns`: CLOCK_MONOTONIC when the run began. kCorrupt when the truth knows none of the pages.
[[nodiscard]] Result<Judgement> judge(const Watch& watch, const suite::Truth& truth,
                                      std::uint64_t start_ns, std::uint64_t room);

}  // namespace thermocline::trackers
