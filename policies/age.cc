// SPDX-License-Identifier: Apache-2.0
// Policy `age`: recency, in two generations.
//
// A page that was touched in this epoch is young; one that was touched neither in this epoch nor in
// the one before is old; what lies between stays where it is. Young pages of the slow tier are
// promoted, and old ones of the fast tier make room for them. How often a page was touched counts
// for nothing, so equals are taken in order of address. That is cheap and follows a change at
// once, and it is fooled by a scan that touches everything for once.
//
// Where every page is young recency tells nothing: the windows are made shorter until the young
// pages are about as many as fit.
//
// Source: the age policy of memtierd (intel/memtierd, 2021-2026), which is that of the kernel's
// active and inactive lists and of its generations (MGLRU) with two of them; the working set of two
// intervals is Denning's (CACM 1968).
#include <array>

#include "policies/builtin.h"
#include "policies/options.h"
#include "policies/plan_builder.h"

namespace thermocline {

namespace {

struct AgeOptions {};

enum Rule : std::uint8_t { kYoung, kOld, kOverfull };
constexpr std::array<std::string_view, 3> kRules = {
    "touched in this epoch",
    "touched neither in this epoch nor in the one before, makes room for a young page",
    "oldest on its tier, which holds more than its share",
};

class AgePolicy final : public Policy {
 public:
  AgePolicy(const AgeOptions&, std::uint64_t) {}
  [[nodiscard]] std::string_view name() const override { return "age"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return kRules; }
  [[nodiscard]] bool needs_touches() const override { return true; }

  [[nodiscard]] Plan decide(const View& view) override {
    PlanBuilder builder(view);
    for (std::size_t fast = 0; fast + 1 < view.tiers.size(); ++fast) {
      give_back(view, builder, fast);
      const std::size_t slow = fast + 1;
      const auto young = some(view, slow, young_, builder.budget());
      if (young.empty()) continue;
      const auto old = some(view, fast, old_, builder.budget());
      std::size_t next = 0;
      for (const PageRef& page : young)
        if (!builder.promote(
                page, fast, slow, old, next, [](const PageRef&) { return true; }, kYoung, kYoung,
                kOld) &&
            page.order == kOrder4K)
          break;
    }
    builder.plan().advice = advise(view);
    return builder.take();
  }

 private:
  /// The first such pages of a tier, up to `limit` and in order of address.
  static std::vector<PageRef> some(const View& view, std::size_t tier, const TouchSet& touches,
                                   PageCount limit) {
    std::vector<PageRef> pages;
    PageCount sum;
    view.heat.for_each(view.tiers[tier].id, {touches}, [&](const PageRef& page) {
      sum += page.order.pages();
      if (sum > limit) return false;
      pages.push_back(page);
      return true;
    });
    return pages;
  }

  void give_back(const View& view, PlanBuilder& builder, std::size_t fast) const {
    for (const TouchSet* generation : {&old_, &middle_, &young_}) {
      if (builder.room(fast) >= 0) return;
      for (const PageRef& page : some(view, fast, *generation, builder.budget())) {
        if (builder.room(fast) >= 0) return;
        (void)builder.move(page, fast + 1, kOverfull);
      }
    }
  }

  /// So that the young pages of an epoch are about as many as fit.
  static ScanAdvice advise(const View& view) {
    ScanAdvice advice;
    const std::uint64_t seen = view.feedback.present_page_windows.get();
    std::uint64_t total = 0;
    for (const TierView& tier : view.tiers) total += tier.used.get();
    if (seen == 0 || total == 0) return advice;
    const std::uint64_t fits = std::min(view.tiers.front().capacity.get(), total);
    std::uint64_t young = 0;
    const TouchSet touched([](Touches t) { return t.windows() > 0; });
    for (const TierView& tier : view.tiers)
      view.heat.for_each(tier.id, {touched}, [&](const PageRef& page) {
        young += page.order.pages().get();
        return true;
      });
    if (young > fits + (total - fits) / 3) advice.window_eighths = 4;
    if (young < fits / 2) advice.window_eighths = 16;
    return advice;
  }

  const TouchSet young_{[](Touches t) { return t.windows() > 0; }};
  const TouchSet middle_{[](Touches t) { return t.windows() == 0 && t.before(); }};
  const TouchSet old_{[](Touches t) { return t.windows() == 0 && !t.before(); }};
};

std::vector<NumberOption> known(AgeOptions&) {
  return {};
}

}  // namespace

PolicyFactory age_policy() {
  return policy_with_options<AgePolicy>(
      {"age", "recency: what was touched lately takes the place of what was not for two epochs",
       "age policy of memtierd; the kernel's two lists and generations"},
      known);
}

}  // namespace thermocline
