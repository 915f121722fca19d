// SPDX-License-Identifier: Apache-2.0
// Policy `hemem`: a fixed threshold on counts that are cooled.
//
// A page is hot from so many counted accesses on, whatever the others have; hot pages of the slow
// tier are taken in the order in which they come, not the hottest first. A cold page of the fast
// tier makes room. When there is no cold page left nothing is moved: a hot set that is larger than
// the fast tier is left where it is. A little of the fast tier is kept free for new pages, as long
// as there are cold ones to give away.
//
// Here counts are windows in which the page was touched and cooling is the ageing of the heat map,
// so the threshold is told as the share of windows that keeps a page hot. HeMem counts PEBS samples
// (hot from 8 loads or 4 stores on, halved at 18); stores are not told apart here.
//
// Source: HeMem (Raybuck et al., SOSP'21).
#include <array>

#include "heat/scale.h"
#include "policies/builtin.h"
#include "policies/options.h"
#include "policies/plan_builder.h"

namespace thermocline {

namespace {

struct HememOptions {
  unsigned hot_percent = 50;
  unsigned free_percent = 1;
};

enum Rule : std::uint8_t { kRoom, kHot, kCold, kWatermark };
constexpr std::array<std::string_view, 4> kRules = {
    "its count is above the threshold, and the faster tier has room",
    "its count is above the threshold, that of the page it replaces below",
    "its count is below the threshold, makes room for a hot page",
    "its count is below the threshold, and its tier has less free than it should",
};

class HememPolicy final : public Policy {
 public:
  HememPolicy(const HememOptions& options, std::uint64_t) : options_(options) {}
  [[nodiscard]] std::string_view name() const override { return "hemem"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return kRules; }

  [[nodiscard]] Plan decide(const View& view) override {
    PlanBuilder builder(view);
    const unsigned hot = steady_heat(options_.hot_percent * 1024 / 100);
    for (std::size_t fast = 0; fast + 1 < view.tiers.size(); ++fast) {
      const std::size_t slow = fast + 1;
      const auto cold = some(view, fast, 0, hot - 1, builder.budget());
      std::size_t next = 0;
      for (const PageRef& page : some(view, slow, hot, 255, builder.budget()))
        if (!builder.promote(
                page, fast, slow, cold, next, [](const PageRef&) { return true; }, kRoom, kHot,
                kCold) &&
            page.order == kOrder4K)
          break;
      const auto kept =
          static_cast<std::int64_t>(view.tiers[fast].capacity.get() / 100 * options_.free_percent);
      for (; next < cold.size() && builder.room(fast) < kept; ++next)
        (void)builder.move(cold[next], slow, kWatermark);
    }
    return builder.take();
  }

 private:
  /// The first pages of a tier with such heat, up to `limit` and in order of address.
  static std::vector<PageRef> some(const View& view, std::size_t tier, unsigned low, unsigned high,
                                   PageCount limit) {
    std::vector<PageRef> pages;
    PageCount sum;
    view.heat.for_each(view.tiers[tier].id, {}, [&](const PageRef& page) {
      if (page.heat.get() < low || page.heat.get() > high) return true;
      sum += page.order.pages();
      if (sum > limit) return false;
      pages.push_back(page);
      return true;
    });
    return pages;
  }

  HememOptions options_;
};

std::vector<NumberOption> known(HememOptions& options) {
  return {
      {"hot_percent", "a page that is touched in so many percent of the windows is hot",
       &options.hot_percent, 1, 100},
      {"free_percent", "share of the fast tier that is kept free while cold pages are left",
       &options.free_percent, 0, 50},
  };
}

}  // namespace

PolicyFactory hemem_policy() {
  return policy_with_options<HememPolicy>(
      {"hemem", "a fixed threshold on counts that are cooled; stops when the fast tier is all hot",
       "HeMem (SOSP'21)"},
      known);
}

}  // namespace thermocline
