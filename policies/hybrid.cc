// SPDX-License-Identifier: Apache-2.0
// Policy `hybrid`: long-term frequency and short-term momentum, both in sketches.
//
// Two counting Bloom filters are told of the pages that were touched in a quarter of the windows
// and more: in how many. (The paper has samples, which leave rare touches out by themselves.) One
// is halved every eight epochs and tells how often the page is used in the long run (frequency),
// the other every epoch and tells what it does now (momentum). A page of the slow tier is hot when
// its momentum is above a fixed edge, or its frequency is above the edge at which the touched pages
// fit the fast tier and it has some momentum left. So a new hot set is followed at once, while
// frequency still says the old one.
//
// Demotion has a second chance: what is low in both goes first; what was used much but has hardly
// any momentum left, which takes two epochs, goes next. The rest stays.
//
// Memory is that of the sketches, sized by the fast tier and not by the pages there are.
//
// Source: HybridTier (Song et al., ASPLOS'25); FreqTier, its first version, for frequency alone.
#include <array>
#include <optional>

#include "policies/builtin.h"
#include "policies/counting_sketch.h"
#include "policies/options.h"
#include "policies/plan_builder.h"

namespace thermocline {

namespace {

struct HybridOptions {
  unsigned momentum_percent = 100;
};

enum Rule : std::uint8_t { kFrequent, kMomentum, kCold, kSpent, kOverfull };
constexpr std::array<std::string_view, 5> kRules = {
    "used often in the long run",
    "used much just now",
    "neither used often nor just now, makes room for a hotter page",
    "used often once but hardly of late, makes room for a hotter page",
    "used least on its tier, which holds more than its share",
};

/// Epochs after which frequency is halved.
constexpr std::uint64_t kCooling = 8;

class HybridPolicy final : public Policy {
 public:
  HybridPolicy(const HybridOptions& options, std::uint64_t seed) : options_(options), seed_(seed) {}
  [[nodiscard]] std::string_view name() const override { return "hybrid"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return kRules; }
  [[nodiscard]] bool needs_touches() const override { return true; }
  [[nodiscard]] Bytes memory() const override {
    return frequency_ ? frequency_->memory() + momentum_->memory() : Bytes(0);
  }

  [[nodiscard]] Plan decide(const View& view) override {
    if (!frequency_) {
      const std::uint64_t pages = view.tiers.front().capacity.get();
      frequency_.emplace(pages, seed_);
      momentum_.emplace(pages, seed_ + 1);
    }
    take_in(view);
    PlanBuilder builder(view);
    for (std::size_t fast = 0; fast + 1 < view.tiers.size(); ++fast) balance(view, builder, fast);
    ++decisions_;
    return builder.take();
  }

 private:
  struct Rated {
    PageRef page;
    unsigned frequency, momentum;
  };

  static std::uint64_t key_of(const PageRef& page) {
    return page.asid.get() * 0x9e3779b97f4a7c15 ^ page.vpn.get();
  }
  [[nodiscard]] Rated rate(const PageRef& page) const {
    return {page, frequency_->count(key_of(page)), momentum_->count(key_of(page))};
  }

  /// Cools the sketches, adds what was touched, and finds the edges.
  void take_in(const View& view) {
    if (decisions_ % kCooling == 0) frequency_->halve();
    momentum_->halve();
    const std::uint64_t least = std::max<std::uint64_t>(view.feedback.windows / 4, 1);
    const TouchSet touched([least](Touches t) { return t.windows() >= least; });
    std::array<std::uint64_t, 256> pages{};
    for (const TierView& tier : view.tiers)
      view.heat.for_each(tier.id, {touched}, [&](const PageRef& page) {
        frequency_->add(key_of(page), page.touches.windows());
        momentum_->add(key_of(page), page.touches.windows());
        pages[frequency_->count(key_of(page))] += page.order.pages().get();
        return true;
      });
    frequent_ = 256;
    std::uint64_t room = view.tiers.front().capacity.get();
    while (frequent_ > 1 && pages[frequent_ - 1] <= room) room -= pages[--frequent_];
    moving_ = static_cast<unsigned>(
        std::max<std::uint64_t>(view.feedback.windows * options_.momentum_percent / 100, 1));
  }

  [[nodiscard]] bool is_frequent(const Rated& r) const { return r.frequency >= frequent_; }
  [[nodiscard]] bool is_moving(const Rated& r) const {
    return options_.momentum_percent > 0 && r.momentum >= moving_;
  }
  [[nodiscard]] bool is_hot(const Rated& r) const {
    return is_moving(r) || (is_frequent(r) && !is_spent(r));
  }
  /// Had its second chance.
  [[nodiscard]] bool is_spent(const Rated& r) const {
    return options_.momentum_percent > 0 && r.momentum * 2 < moving_;
  }

  void balance(const View& view, PlanBuilder& builder, std::size_t fast) const {
    const std::size_t slow = fast + 1;
    std::vector<Rated> hot;
    PageCount sum;
    // Only touched pages can have become hot.
    const TouchSet touched([](Touches t) { return t.windows() > 0; });
    view.heat.for_each(view.tiers[slow].id, {touched}, [&](const PageRef& page) {
      const Rated rated = rate(page);
      if (!is_hot(rated)) return true;
      sum += page.order.pages();
      if (sum > builder.budget()) return false;
      hot.push_back(rated);
      return true;
    });
    const std::int64_t need = static_cast<std::int64_t>(sum.get()) - builder.room(fast);
    std::vector<Rated> cold;
    if (need > 0)
      cold = cold_pages(view, fast,
                        std::min(PageCount(static_cast<std::uint64_t>(need)), builder.budget()));
    std::vector<PageRef> victims;
    for (const Rated& rated : cold) victims.push_back(rated.page);
    std::size_t next = 0;
    builder.give_back(fast, victims, next, kOverfull);
    for (const Rated& up : hot) {
      const Rule why = is_frequent(up) ? kFrequent : kMomentum;
      const Rule down = next < cold.size() && is_frequent(cold[next]) ? kSpent : kCold;
      if (!builder.promote(
              up.page, fast, slow, victims, next, [](const PageRef&) { return true; }, why, why,
              down) &&
          up.page.order == kOrder4K)
        break;
    }
  }

  /// Order in which pages make room: by frequency if they are low in both, then those that are
  /// spent, then the others, which do so only where a tier holds too much.
  static constexpr std::size_t kSpentClass = 256, kOtherClass = 257, kClasses = 258;
  [[nodiscard]] std::size_t class_of(const Rated& rated) const {
    if (is_hot(rated)) return kOtherClass;
    return is_frequent(rated) ? kSpentClass : rated.frequency;
  }

  /// Pages of a tier that may make room for `need` pages, those that go first in front.
  [[nodiscard]] std::vector<Rated> cold_pages(const View& view, std::size_t tier,
                                              PageCount need) const {
    const TierView& of = view.tiers[tier];
    std::array<PageCount, kClasses> pages{};
    view.heat.for_each(of.id, {}, [&](const PageRef& page) {
      pages[class_of(rate(page))] += page.order.pages();
      return true;
    });
    std::size_t last = 0;
    PageCount before;  // in the classes before the last one that is needed
    const std::size_t classes = of.used > of.capacity ? kClasses : kClasses - 1;
    for (; last + 1 < classes && before + pages[last] < need; ++last) before += pages[last];
    std::vector<Rated> result;
    PageCount of_last;
    view.heat.for_each(of.id, {}, [&](const PageRef& page) {
      const Rated rated = rate(page);
      const std::size_t its = class_of(rated);
      if (its < last || (its == last && before + of_last < need)) result.push_back(rated);
      if (its == last) of_last += page.order.pages();
      return true;
    });
    std::stable_sort(result.begin(), result.end(),
                     [this](const Rated& a, const Rated& b) { return class_of(a) < class_of(b); });
    return result;
  }

  HybridOptions options_;
  std::uint64_t seed_;
  std::uint64_t decisions_ = 0;
  std::optional<CountingSketch> frequency_, momentum_;
  unsigned frequent_ = 256;  ///< least frequency of a hot page
  unsigned moving_ = 1;      ///< least momentum of a hot page
};

std::vector<NumberOption> known(HybridOptions& options) {
  return {
      {"momentum_percent",
       "momentum from which on a page is hot, in percent of the windows of an epoch; 0: only "
       "frequency counts",
       &options.momentum_percent, 0, 200},
  };
}

}  // namespace

PolicyFactory hybrid_policy() {
  return policy_with_options<HybridPolicy>(
      {"hybrid", "long-term frequency and short-term momentum, in sketches of fixed size",
       "HybridTier (ASPLOS'25)"},
      known);
}

}  // namespace thermocline
