// SPDX-License-Identifier: Apache-2.0
// Traffic of tiers, as far as accessed bits tell it, and shifting it from one tier to another.
// For policies that balance tiers instead of filling the fastest.
//
// A page's traffic is the share of windows in which it is touched, in 1024ths: pages that are
// touched several times in every window count no more than those that are touched once. So an
// amount is told roughly, and who uses this must look at what came of it and correct.
#pragma once

#include <cstdint>

#include "heat/scale.h"
#include "policies/plan_builder.h"

namespace thermocline {

/// Traffic of a page or of all movable pages of a tier, in touched windows times 1024.
[[nodiscard]] inline std::uint64_t traffic_of(const PageRef& page) {
  return page.order.pages().get() * touched_share(page.heat.get());
}
[[nodiscard]] inline std::uint64_t traffic_of(const View& view, std::size_t tier) {
  std::uint64_t sum = 0;
  const auto pages = view.heat.histogram(view.tiers[tier].id, true);
  for (unsigned heat = 0; heat < pages.size(); ++heat)
    sum += pages[heat].get() * touched_share(heat);
  return sum;
}

/// Shares of the traffic of two tiers are told in parts of this.
inline constexpr std::uint64_t kAllTraffic = 1u << 16;

/// Traffic of the pages of two neighbours, and the share of it that the faster one serves.
struct SharedTraffic {
  std::uint64_t all = 0, share = 0;
};
[[nodiscard]] inline SharedTraffic shared_traffic(const View& view, std::size_t fast) {
  const std::uint64_t above = traffic_of(view, fast);
  const std::uint64_t all = above + traffic_of(view, fast + 1);
  return {all, all == 0 ? 0 : above / ((all + kAllTraffic - 1) / kAllTraffic)};
}

/// Finds the share of the traffic with which two tiers answer alike, by bisection: it lies between
/// the last share at which the faster one answered sooner and the last at which it answered later,
/// and half of the way is gone each time. When both have met and the tiers still differ, the load
/// has changed, and the bracket is opened again.
/// Source: Colloid (Vuppalapati, Agarwal, SOSP'24), algorithm 1.
class BalancedShare {
 public:
  /// The share to go for. `share`: that the faster tier serves now, and it answers `sooner` or
  /// later. The bracket is opened when it is narrower than `epsilon`.
  std::uint64_t next(std::uint64_t share, bool sooner, std::uint64_t epsilon) {
    (sooner ? low_ : high_) = share;
    if (high_ < low_ + epsilon) (sooner ? high_ : low_) = sooner ? kAllTraffic : 0;
    return (low_ + high_) / 2;
  }
  /// No share is known with which the faster tier answered later.
  [[nodiscard]] bool is_open() const { return high_ == kAllTraffic; }

 private:
  std::uint64_t low_ = 0, high_ = kAllTraffic;
};

struct ShiftRules {
  std::uint8_t hot;   ///< of the pages that take traffic along
  std::uint8_t cold;  ///< of those that make room for them
};

/// Plans moves of the hottest pages of tier `from` to its neighbour `to` until they take `amount`
/// of traffic along. When `to` has no room its coldest pages come back in exchange, and what
/// traffic they bring is taken off; a pair must lie `apart` (HeatRuler::kUnit) from each other.
/// Pages that are in the plan already are left to it. False when nothing was planned.
inline bool shift_traffic(const View& view, PlanBuilder& builder, std::size_t from, std::size_t to,
                          std::uint64_t amount, const HeatRuler& ruler, std::uint64_t apart,
                          const ShiftRules& rules) {
  const auto hot = view.heat.candidates(view.tiers[from].id, Heat(1), Heat(255), true,
                                        PageCount(builder.budget().get()));
  const auto cold = view.heat.candidates(view.tiers[to].id, Heat(0), Heat(255), false,
                                         PageCount(builder.budget().get() / 2));
  std::size_t next = 0;
  bool planned = false;
  for (const PageRef& page : hot) {
    const std::uint64_t gain = traffic_of(page);
    if (gain > amount || builder.is_planned(page)) continue;
    if (builder.room(to) >= PlanBuilder::pages_of(page)) {
      if (!builder.move(page, to, rules.hot)) break;
      planned = true;
      amount -= gain;
      continue;
    }
    while (next < cold.size() && (cold[next].order != page.order || builder.is_planned(cold[next])))
      ++next;
    if (next == cold.size()) break;
    const PageRef& back = cold[next];
    if (page.heat <= back.heat ||
        ruler.distance(page.heat.get(), back.heat.get()) < std::max<std::uint64_t>(apart, 1))
      break;
    const bool upward = to < from;
    if (upward ? !builder.exchange(page, back, to, from, rules.hot, rules.cold)
               : !builder.exchange(back, page, from, to, rules.cold, rules.hot))
      break;
    planned = true;
    ++next;
    amount -= gain - std::min(gain, traffic_of(back));
  }
  return planned;
}

}  // namespace thermocline
