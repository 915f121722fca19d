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

#include "heat/scale.h"
#include "policies/builtin.h"
#include "policies/options.h"
#include "policies/plan_builder.h"
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
    PlanBuilder builder(view);
    PageCount above;
    for (std::size_t fast = 0; fast + 1 < view.tiers.size(); ++fast) {
      above += view.tiers[fast].capacity;
      balance(view, builder, fast, fast == 0 ? view.threshold : view.heat.select(above));
    }
    builder.plan().advice = advise_windows(view);
    return builder.take();
  }

 private:
  void balance(const View& view, PlanBuilder& builder, std::size_t fast,
               const Threshold& edge) const {
    const std::size_t slow = fast + 1;
    const std::vector<PageRef> cold =
        view.heat.candidates(view.tiers[fast].id, Heat(0), Heat(255), false,
                             builder.budget() + PageCount(builder.plan().promotions.size()));
    std::size_t next = 0;
    builder.give_back(fast, cold, next, kOverfull);

    const HeatRuler ruler(view.feedback.windows);
    const auto floor = std::max(edge.heat.get(), static_cast<std::uint8_t>(options_.min_heat));
    const std::uint64_t band = HeatRuler::kUnit * options_.warm_band / 10;
    for (const PageRef& page : view.heat.candidates(view.tiers[slow].id, Heat(floor), Heat(255),
                                                    true, builder.budget())) {
      const auto pays = [&](const PageRef& colder) {
        return page.heat > colder.heat &&
               ruler.distance(page.heat.get(), colder.heat.get()) >= band;
      };
      // What follows a page of 4 KiB is no hotter, and no smaller.
      if (!builder.promote(page, fast, slow, cold, next, pays, kHot, kHot, kMakeRoom) &&
          page.order == kOrder4K)
        break;
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
