// SPDX-License-Identifier: Apache-2.0
// How long windows should be so that what fits the fast tier is told apart from what doesn't. For
// policies that go by heat.
#pragma once

#include <algorithm>
#include <cstdint>

#include "heat/scale.h"
#include "policies/policy.h"

namespace thermocline {

/// An accessed bit tells most when a page at the edge has it set in half of the windows. Edge heat
/// lags by epochs; the share of pages that are set does not.
[[nodiscard]] inline ScanAdvice advise_windows(const View& view) {
  ScanAdvice advice;
  const std::uint64_t seen = view.feedback.present_page_windows.get();
  const std::uint64_t set = view.feedback.accessed_page_windows.get();
  std::uint64_t total = 0;
  for (const TierView& tier : view.tiers) total += tier.used.get();
  if (seen == 0 || total == 0) return advice;
  const std::uint64_t fits = std::min(view.tiers.front().capacity.get(), total);
  // In 1/1024ths. If what fits were always set, a third of the rest may be too.
  const std::uint64_t share = set * 1024 / seen;
  const std::uint64_t fit_share = fits * 1024 / total;
  const unsigned edge = view.threshold.heat.get();
  if (share > fit_share + (1024 - fit_share) / 3 || edge > steady_heat(1024 * 7 / 8)) {
    advice.window_eighths = 4;
  } else if (share < fit_share / 2 && edge < steady_heat(1024 / 8)) {
    advice.window_eighths = 16;
  }
  return advice;
}

}  // namespace thermocline
