// SPDX-License-Identifier: Apache-2.0
// Policy `tpp`: a second access promotes, a watermark demotes.
//
// TPP takes a page of the slow tier for hot when it faults on it (a NUMA hint fault) while the page
// is on the active list already: the first access only makes it active. Here an access is a window
// in which the page was touched; one of the epoch before counts as well, however many there were.
//
// Promotion and demotion don't wait for each other: what is free is taken at once, down to the
// engine's own headroom, and a background demotion brings back a headroom of its own that is
// larger, from the tail of what was not touched lately. So promotions (and new pages of programs)
// find room in most epochs. Nothing weighs the page that comes against the one that goes: where
// more is active than fits, pages are bounced, as on the kernel.
//
// Source: TPP (Maruf et al., ASPLOS'23), the active-list filter of promotions and the decoupled
// allocation and demotion watermarks (demote_scale_factor, 2 %). Upstream: NUMA balancing mode 2
// with demotion.
#include <array>

#include "policies/builtin.h"
#include "policies/options.h"
#include "policies/plan_builder.h"

namespace thermocline {

namespace {

struct TppOptions {
  unsigned accesses = 2;
  unsigned headroom_percent = 2;
};

enum Rule : std::uint8_t { kActive, kWatermark };
constexpr std::array<std::string_view, 2> kRules = {
    "touched again while it was active",
    "not touched lately, and its tier is below the demotion watermark",
};

class TppPolicy final : public Policy {
 public:
  TppPolicy(const TppOptions& options, std::uint64_t) : options_(options) {}
  [[nodiscard]] std::string_view name() const override { return "tpp"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return kRules; }
  [[nodiscard]] bool needs_touches() const override { return true; }

  [[nodiscard]] Plan decide(const View& view) override {
    PlanBuilder builder(view);
    const TouchSet active([this](Touches t) {
      return t.windows() > 0 && t.windows() + (t.before() ? 1u : 0u) >= options_.accesses;
    });
    for (std::size_t fast = 0; fast + 1 < view.tiers.size(); ++fast) {
      const std::size_t slow = fast + 1;
      // What is touched more often faults sooner.
      for (const PageRef& page : view.heat.candidates(view.tiers[slow].id, Heat(0), Heat(255), true,
                                                      builder.budget(), {active}))
        if (!builder.move(page, fast, kActive) && page.order == kOrder4K) break;
      demote(view, builder, fast);
    }
    return builder.take();
  }

 private:
  void demote(const View& view, PlanBuilder& builder, std::size_t fast) const {
    const TierView& tier = view.tiers[fast];
    const auto headroom =
        static_cast<std::int64_t>(tier.capacity.get() / 100 * options_.headroom_percent);
    // The tail of the inactive list, its rest, and what the kernel deactivates when that is empty.
    const TouchSet tails[] = {
        TouchSet([](Touches t) { return t.windows() == 0 && !t.before(); }),
        TouchSet([](Touches t) { return t.windows() == 0 && t.before(); }),
        TouchSet([](Touches t) { return t.windows() > 0; }),
    };
    for (const TouchSet& tail : tails) {
      if (builder.room(fast) >= headroom) return;
      const auto missing = static_cast<std::uint64_t>(headroom - builder.room(fast));
      const PageCount limit = std::min(builder.budget(), PageCount(missing) + kOrder2M.pages());
      for (const PageRef& page :
           view.heat.candidates(tier.id, Heat(0), Heat(255), false, limit, {tail})) {
        if (builder.room(fast) >= headroom) return;
        (void)builder.move(page, fast + 1, kWatermark);
      }
    }
  }

  TppOptions options_;
};

std::vector<NumberOption> known(TppOptions& options) {
  return {
      {"accesses", "windows in which a page must have been touched to be promoted",
       &options.accesses, 1, 64},
      {"headroom_percent", "share of the fast tier that demotion keeps free",
       &options.headroom_percent, 0, 50},
  };
}

}  // namespace

PolicyFactory tpp_policy() {
  return policy_with_options<TppPolicy>(
      {"tpp", "a second access promotes; demotion keeps a headroom free",
       "TPP (ASPLOS'23); upstream as NUMA balancing mode 2 with demotion"},
      known);
}

}  // namespace thermocline
