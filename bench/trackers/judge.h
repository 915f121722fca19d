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
  std::optional<double> delay_epochs;  ///< that ended in that time
  std::optional<double> cpu_share;  ///< of one processor, that the program did not get in the run
  std::optional<double> instr_per_entry, ns_per_entry;  ///< of passes over the program at rest
  /// CPU time that tracking takes in an epoch, by page that is watched: all passes, the one that
  /// opens the first window and what they leave out included, with records, heat, deciding, and the
  /// looks at a few hot pages while the engine rests. As the engine counts it, so it is what the
  /// budget is kept against; a mean over the run. None: nothing is read entry by entry, so it says
  /// nothing about other sizes.
  std::optional<double> epoch_ns_per_page;

  // Scaled to k64GibPages within kOnePercent of a processor, for a program that touches each page
  // as often as this one.
  /// How long an epoch takes: the budget decides nothing else.
  std::optional<double> epoch_64gib_s;
  /// As many epochs as in the run. This and what follows: none when the tracker can't scan ranges,
  /// as a window then lasts as long as a pass over the whole, and is no longer the same evidence.
  std::optional<double> delay_64gib_s;
  std::optional<double> recall_64gib, precision_64gib;  ///< after as many epochs: as in the run
};

inline constexpr std::uint64_t k64GibPages = std::uint64_t{64} << (30 - 12);  ///< of 4 KiB
inline constexpr double kOnePercent = 0.01;

/// Of two rankings of the same things, ties sharing their mean rank (Spearman, 1904). None when one
/// of them tells nothing apart.
[[nodiscard]] std::optional<double> rank_correlation(std::span<const double> a,
                                                     std::span<const double> b);

/// `start_ns`: CLOCK_MONOTONIC when the run began. kCorrupt when the truth knows none of the pages.
[[nodiscard]] Result<Judgement> judge(const Watch& watch, const suite::Truth& truth,
                                      std::uint64_t start_ns, std::uint64_t room);

}  // namespace thermocline::trackers
