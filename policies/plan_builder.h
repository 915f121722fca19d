// SPDX-License-Identifier: Apache-2.0
// Builds a plan that keeps the rules of policy.h: within the budget, no page twice, no tier filled
// beyond its room. Used by the policies whose moves are one page at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_set>
#include <utility>
#include <vector>

#include "policies/policy.h"

namespace thermocline {

class PlanBuilder {
 public:
  explicit PlanBuilder(const View& view) : view_(view), budget_(view.budget.moves.get()) {
    for (const TierView& tier : view.tiers)
      room_.push_back(static_cast<std::int64_t>(tier.free.get()) -
                      static_cast<std::int64_t>(tier.used.minus_floor(tier.capacity).get()));
  }

  /// Pages that may still be moved.
  [[nodiscard]] PageCount budget() const { return PageCount(budget_); }
  /// Free pages of the tier at `index` after what is planned; below 0 while it holds more than its
  /// share.
  [[nodiscard]] std::int64_t room(std::size_t index) const { return room_[index]; }

  static std::int64_t pages_of(const PageRef& page) {
    return static_cast<std::int64_t>(page.order.pages().get());
  }

  [[nodiscard]] bool is_planned(const PageRef& page) const {
    return planned_.contains({page.asid, page.vpn});
  }

  /// Plans the move to the tier at index `to`. False, and nothing is planned, when the budget or
  /// the room doesn't reach or the page is in the plan already.
  bool move(const PageRef& page, std::size_t to, std::uint8_t rule) {
    return fits(page, to) && pages_of(page) <= room_[to] && add(page, to, rule);
  }

  /// Plans the demotion of `cold`, from `next` on, while the tier at `fast` holds more than its
  /// share.
  void give_back(std::size_t fast, const std::vector<PageRef>& cold, std::size_t& next,
                 std::uint8_t rule) {
    for (; next < cold.size() && room_[fast] < 0; ++next) (void)move(cold[next], fast + 1, rule);
  }

  /// Plans the promotion of `page` from the tier at `slow` to the one at `fast`, and as many
  /// demotions of `cold`, from `next` on, as make room for it. Stops at the first of `cold` for
  /// which `pays(cold)` is false. False, and nothing is planned, when room or budget don't reach.
  template <class Pays>
  bool promote(const PageRef& page, std::size_t fast, std::size_t slow,
               const std::vector<PageRef>& cold, std::size_t& next, Pays pays,
               std::uint8_t rule_room, std::uint8_t rule_up, std::uint8_t rule_down) {
    const std::int64_t size = pages_of(page);
    std::int64_t room = room_[fast];
    std::int64_t freed = 0;
    std::size_t end = next;
    for (; room < size && end < cold.size() && pays(cold[end]); ++end) {
      if (!fits(cold[end], slow)) continue;
      room += pages_of(cold[end]);
      freed += pages_of(cold[end]);
    }
    // What leaves a tier makes room there, even on one that holds more than its share.
    const std::int64_t more = freed - size;
    if (room < size || !fits(page, fast) || (more > 0 && more > room_[slow]) ||
        static_cast<std::uint64_t>(size + freed) > budget_)
      return false;
    const bool makes_room = freed > 0;
    for (; next < end; ++next)
      if (fits(cold[next], slow)) add(cold[next], slow, rule_down);
    return add(page, fast, makes_room ? rule_up : rule_room);
  }

  /// Plans that `down` (at index `fast`) makes room for `up` (at index `slow`), or neither. Both of
  /// one size.
  bool exchange(const PageRef& up, const PageRef& down, std::size_t fast, std::size_t slow,
                std::uint8_t rule_up, std::uint8_t rule_down) {
    if (up.order != down.order || !fits(down, slow) || !fits(up, fast) || room_[fast] < 0 ||
        2 * static_cast<std::uint64_t>(pages_of(up)) > budget_)
      return false;
    return add(down, slow, rule_down) && add(up, fast, rule_up);
  }

  [[nodiscard]] Plan& plan() { return plan_; }
  [[nodiscard]] Plan take() { return std::move(plan_); }

 private:
  [[nodiscard]] bool fits(const PageRef& page, std::size_t to) const {
    return to < room_.size() && page.tier != view_.tiers[to].id &&
           page.order.pages().get() <= budget_ && !is_planned(page);
  }

  bool add(const PageRef& page, std::size_t to, std::uint8_t rule) {
    const TierId tier = view_.tiers[to].id;
    std::vector<Move>& moves = tier > page.tier ? plan_.demotions : plan_.promotions;
    moves.push_back({page.asid, page.vpn, page.order, page.tier, tier, page.heat, rule});
    planned_.emplace(page.asid, page.vpn);
    budget_ -= page.order.pages().get();
    room_[to] -= pages_of(page);
    for (std::size_t from = 0; from < room_.size(); ++from)
      if (view_.tiers[from].id == page.tier) room_[from] += pages_of(page);
    return true;
  }

  struct Hash {
    std::size_t operator()(const std::pair<Asid, Vpn>& page) const {
      // Multiplier of the golden ratio: neighbours are spread (Knuth, TAOCP 6.4).
      return (page.second.get() ^ page.first.get() << 52) * 0x9e3779b97f4a7c15ull >> 16;
    }
  };

  const View& view_;
  std::uint64_t budget_;
  std::vector<std::int64_t> room_;
  std::unordered_set<std::pair<Asid, Vpn>, Hash> planned_;
  Plan plan_;
};

}  // namespace thermocline
