// SPDX-License-Identifier: Apache-2.0
// Policy `heat`: decayed frequency fitted to capacity, with a warm band.
//
// The hot set is what fits the fast tier: its edge is the smallest heat such that all pages at or
// above it fit (View::threshold). Pages at the edge or hotter are promoted, hottest first. To make
// room the coldest pages are demoted, but only ones that are colder than the page that comes by the
// width of the band: what lies near the edge is warm, and stays where it is. The band is told in
// standard deviations of the noise that heat has as a sample (HeatRuler, heat/scale.h). Every pair
// of neighbouring tiers is treated so, fastest pair first.
//
// `auto` (auto.cc) asks for less distance the more pages are in the wrong place.
//
// Sources: capacity-fitted threshold from counts by hotness, and the warm set: MEMTIS (Lee et al.,
// SOSP'23). Exchange of the hottest slow with the coldest fast page: Nimble (Yan et al.,
// ASPLOS'19).
#include <algorithm>
#include <array>
#include <set>

#include "heat/scale.h"
#include "policies/builtin.h"
#include "policies/options.h"
#include "policies/window_advice.h"

namespace thermocline {

namespace {

struct HeatOptions {
  unsigned warm_band = 65;
  unsigned min_heat = 4;
};

enum Rule : std::uint8_t { kHot, kMakeRoom, kOverfull };
constexpr std::array<std::string_view, 3> kRules = {
    "hot enough for the faster tier",
    "coldest on its tier, makes room for a page hotter by more than the band",
    "coldest on its tier, which holds more than its share",
};

class HeatPolicy final : public Policy {
 public:
  HeatPolicy(const HeatOptions& options, std::uint64_t) : options_(options) {}
  [[nodiscard]] std::string_view name() const override { return "heat"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return kRules; }

  [[nodiscard]] Plan decide(const View& view) override {
    Plan plan;
    State state{view, plan, HeatRuler(view.feedback.windows), view.budget.moves.get(), {}, {}};
    for (const TierView& tier : view.tiers)
      state.room.push_back(static_cast<std::int64_t>(tier.free.get()));
    PageCount above;
    for (std::size_t fast = 0; fast + 1 < view.tiers.size(); ++fast) {
      above += view.tiers[fast].capacity;
      balance(state, fast, fast == 0 ? view.threshold : view.heat.select(above));
    }
    plan.advice = advise_windows(view);
    return plan;
  }

 private:
  struct State {
    const View& view;
    Plan& plan;
    HeatRuler ruler;
    std::uint64_t budget;                     ///< pages that may still be moved
    std::vector<std::int64_t> room;           ///< free pages of each tier after the plan
    std::set<std::pair<Asid, Vpn>> promoted;  ///< not the next pair's to demote
  };

  static std::int64_t pages_of(const PageRef& page) {
    return static_cast<std::int64_t>(page.order.pages().get());
  }

  static void move(State& state, const PageRef& page, std::size_t from, std::size_t to, Rule rule) {
    auto& moves = to > from ? state.plan.demotions : state.plan.promotions;
    moves.push_back(
        {page.asid, page.vpn, page.order, page.tier, state.view.tiers[to].id, page.heat, rule});
    state.budget -= page.order.pages().get();
    state.room[to] -= pages_of(page);
    state.room[from] += pages_of(page);
  }

  void balance(State& state, std::size_t fast, const Threshold& edge) {
    const View& view = state.view;
    const TierView& tier = view.tiers[fast];
    const std::size_t slow = fast + 1;
    std::vector<PageRef> cold =
        view.heat.candidates(tier.id, Heat(0), Heat(255), false,
                             PageCount(state.budget) + PageCount(state.promoted.size()));
    std::erase_if(cold, [&](const PageRef& page) {
      return state.promoted.contains({page.asid, page.vpn});
    });
    state.promoted.clear();
    std::size_t next = 0;
    const auto fits = [&state](const PageRef& page, std::size_t to) {
      return pages_of(page) <= state.room[to] && page.order.pages().get() <= state.budget;
    };

    // A tier that holds more than its share gives its coldest pages away.
    for (auto over = static_cast<std::int64_t>(tier.used.minus_floor(tier.capacity).get());
         next < cold.size() && over > 0 && fits(cold[next], slow); ++next) {
      move(state, cold[next], fast, slow, kOverfull);
      state.room[fast] -= std::min(over, pages_of(cold[next]));  // that much wasn't its own
      over -= pages_of(cold[next]);
    }

    const auto floor = std::max(edge.heat.get(), static_cast<std::uint8_t>(options_.min_heat));
    const std::uint64_t band = HeatRuler::kUnit * options_.warm_band / 10;
    for (const PageRef& page : view.heat.candidates(view.tiers[slow].id, Heat(floor), Heat(255),
                                                    true, PageCount(state.budget))) {
      const auto pays = [&](const PageRef& colder) {
        return page.heat > colder.heat &&
               state.ruler.distance(page.heat.get(), colder.heat.get()) >= band;
      };
      std::int64_t room = state.room[fast];
      std::uint64_t cost = page.order.pages().get();
      std::size_t end = next;
      for (; room < pages_of(page) && end < cold.size() && pays(cold[end]); ++end) {
        room += pages_of(cold[end]);
        cost += cold[end].order.pages().get();
      }
      if (room < pages_of(page) || cost > state.budget) {
        if (page.order == kOrder4K) break;  // what follows is no hotter
        continue;
      }
      for (; next < end; ++next) move(state, cold[next], fast, slow, kMakeRoom);
      move(state, page, slow, fast, kHot);
      if (slow + 1 < view.tiers.size()) state.promoted.emplace(page.asid, page.vpn);
    }
  }

  HeatOptions options_;
};

std::vector<NumberOption> known(HeatOptions& options) {
  return {
      {"warm_band",
       "how much hotter a promoted page must be than the one demoted for it, in tenths of the "
       "standard deviation of their heat",
       &options.warm_band, 0, kAlwaysHot},
      {"min_heat", "colder pages are never promoted", &options.min_heat, 0, kAlwaysHot},
  };
}

}  // namespace

PolicyFactory heat_policy() {
  return policy_with_options<HeatPolicy>(
      {"heat", "fits the hottest pages to the fast tier; pages in a warm band stay where they are",
       "capacity-fitted threshold and warm set of MEMTIS (SOSP'23), exchange of Nimble "
       "(ASPLOS'19)"},
      known);
}

}  // namespace thermocline
