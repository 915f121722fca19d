// SPDX-License-Identifier: Apache-2.0
// Policy `auto` in a closed loop over loads that are drawn at random: where the pages end up, how
// fast, and that it then keeps still.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "loop_sim.h"

namespace thermocline {
namespace {

std::unique_ptr<Policy> made_auto() {
  PolicyRegistry registry;
  register_builtin_policies(registry);
  return std::move(*registry.make("auto", {}, 1));
}

struct HotSetCase {
  double fast;       ///< fast tier's share of the pages
  double of_fast;    ///< hot set's share of the fast tier
  double hot, cold;  ///< touched in a window with this probability
  unsigned windows = 8;
  std::uint32_t seed = 1;
};

void PrintTo(const HotSetCase& c, std::ostream* out) {
  *out << "fast " << c.fast << ", hot set " << c.of_fast << " of it, touched " << c.hot << " / "
       << c.cold << ", windows " << c.windows << ", seed " << c.seed;
}

/// Hot pages scattered over the whole, at first all on the slow tier; the fast tier is full.
class HotSet : public testing::TestWithParam<HotSetCase> {
 protected:
  static constexpr std::size_t kPages = 30000;
  HotSet()
      : fast_(static_cast<std::size_t>(kPages * GetParam().fast)),
        hot_(static_cast<std::size_t>(static_cast<double>(fast_) * GetParam().of_fast)),
        order_(kPages),
        sim_(start(), {fast_}, GetParam().seed) {
    sim_.windows = GetParam().windows;
    heat_up(0);
  }

  void heat_up(std::size_t first) {
    first_hot_ = first;
    std::fill(sim_.touch.begin(), sim_.touch.end(), GetParam().cold);
    for (std::size_t i = 0; i < hot_; ++i) sim_.touch[order_[first + i]] = GetParam().hot;
  }
  [[nodiscard]] double hot_share_on_fast() const {
    std::size_t n = 0;
    for (std::size_t i = 0; i < hot_; ++i) n += sim_.place(order_[first_hot_ + i]) == 0 ? 1 : 0;
    return static_cast<double>(n) / static_cast<double>(hot_);
  }

  std::size_t fast_, hot_;
  std::vector<std::size_t> order_;
  LoopSim sim_;
  std::size_t first_hot_ = 0;
  std::unique_ptr<Policy> policy_ = made_auto();

 private:
  std::vector<std::uint8_t> start() {
    std::iota(order_.begin(), order_.end(), 0);
    std::mt19937 rng(GetParam().seed);
    std::shuffle(order_.begin(), order_.end(), rng);
    std::vector<std::uint8_t> place(kPages, 1);
    for (std::size_t i = 0; i < fast_; ++i) place[order_[hot_ + i]] = 0;
    return place;
  }
};

TEST_P(HotSet, IsPromotedAndThenLeftAlone) {
  for (int epoch = 0; epoch < 5; ++epoch) sim_.run(*policy_);
  EXPECT_GE(hot_share_on_fast(), 0.98);
  std::size_t moved = 0;
  for (int epoch = 0; epoch < 10; ++epoch) {
    const LoopSim::Epoch e = sim_.run(*policy_);
    moved += e.promoted + e.demoted;
  }
  EXPECT_GE(hot_share_on_fast(), 0.98);
  EXPECT_LE(static_cast<double>(moved) / 10, static_cast<double>(fast_) * 0.005)
      << "pages are bounced";
  EXPECT_LE(sim_.on_tier(0), fast_);
}

TEST_P(HotSet, ThatMovedIsInThePlanOfTheSecondEpoch) {
  for (int epoch = 0; epoch < 10; ++epoch) sim_.run(*policy_);
  heat_up(hot_);  // disjoint
  sim_.run(*policy_);
  sim_.run(*policy_);  // plans and moves at the end of the second full epoch
  EXPECT_GE(hot_share_on_fast(), 0.90);
}

// A slow tier that is cold throughout, an edge that is hardly an edge, small and large fast tiers.
INSTANTIATE_TEST_SUITE_P(Loads, HotSet,
                         testing::Values(HotSetCase{1. / 3, 0.80, 0.97, 0.20},
                                         HotSetCase{1. / 3, 0.85, 0.97, 0.25},
                                         HotSetCase{1. / 3, 0.90, 0.97, 0.25, 8, 2},
                                         HotSetCase{1. / 3, 0.90, 0.97, 0.30, 8, 3},
                                         HotSetCase{1. / 2, 0.85, 0.99, 0.30, 8, 4},
                                         HotSetCase{1. / 9, 0.85, 0.97, 0.20, 8, 5},
                                         HotSetCase{1. / 17, 0.90, 0.99, 0.05, 8, 6},
                                         HotSetCase{1. / 3, 0.85, 0.97, 0.25, 16, 7}));

TEST(AutoPolicyLoop, TheRateLimitStretchesButDoesNotSpoil) {
  // A budget of a tenth of the hot set an epoch, both directions.
  constexpr std::size_t kPages = 12000, kFast = 4000, kHot = 3400;
  std::vector<std::uint8_t> place(kPages, 1);
  std::fill(place.begin() + kHot, place.begin() + kHot + kFast, std::uint8_t{0});
  LoopSim sim(place, {kFast}, 11);
  sim.budget = PageCount(kHot / 10);
  for (std::size_t i = 0; i < kPages; ++i) sim.touch[i] = i < kHot ? 0.97 : 0.25;
  const auto policy = made_auto();
  for (int epoch = 0; epoch < 24; ++epoch) {
    const LoopSim::Epoch e = sim.run(*policy);
    EXPECT_LE(e.promoted + e.demoted, sim.budget.get());
  }
  std::size_t hot_on_fast = 0;
  for (std::size_t i = 0; i < kHot; ++i) hot_on_fast += sim.place(i) == 0 ? 1 : 0;
  EXPECT_GE(hot_on_fast, kHot * 98 / 100);
}

TEST(AutoPolicyLoop, ACrowdOfEqualsIsLeftAlone) {
  for (const double touched : {0.05, 0.3, 0.5, 0.8, 1.0}) {
    for (const std::size_t fast : {1000u, 10000u}) {
      std::vector<std::uint8_t> place(20000, 1);
      std::fill(place.begin(), place.begin() + static_cast<std::ptrdiff_t>(fast), std::uint8_t{0});
      LoopSim sim(place, {fast}, 5);
      std::fill(sim.touch.begin(), sim.touch.end(), touched);
      const auto policy = made_auto();
      // While heat settles some are exchanged for nothing, but few.
      std::size_t promoted = 0, settled = 0;
      for (int epoch = 0; epoch < 24; ++epoch) promoted += sim.run(*policy).promoted;
      for (int epoch = 0; epoch < 20; ++epoch) settled += sim.run(*policy).promoted;
      EXPECT_LE(promoted, fast / 8) << "touched " << touched << ", fast " << fast;
      EXPECT_LE(settled, fast * 20 / 500) << "touched " << touched << ", fast " << fast;
    }
  }
}

struct ZipfCase {
  double exponent, fast, edge;  ///< edge: chance that the page at the capacity's edge is touched
  unsigned windows = 8;
};

void PrintTo(const ZipfCase& c, std::ostream* out) {
  *out << "exponent " << c.exponent << ", fast " << c.fast << ", edge " << c.edge << ", windows "
       << c.windows;
}

class Zipf : public testing::TestWithParam<ZipfCase> {};

TEST_P(Zipf, NearTheBestStaticPlacement) {
  constexpr std::size_t kPages = 30000;
  const auto fast = static_cast<std::size_t>(kPages * GetParam().fast);
  std::vector<std::size_t> order(kPages);
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 rng(3);
  std::shuffle(order.begin(), order.end(), rng);
  std::vector<double> rate(kPages);
  for (std::size_t i = 0; i < kPages; ++i)
    rate[order[i]] = std::pow(static_cast<double>(i + 1), -GetParam().exponent);
  const double scale = -std::log(1 - GetParam().edge) / rate[order[fast]];
  // The fast tier starts with the coldest pages.
  std::vector<std::uint8_t> place(kPages, 1);
  for (std::size_t i = 0; i < fast; ++i) place[order[kPages - 1 - i]] = 0;
  LoopSim sim(place, {fast}, 5);
  for (std::size_t i = 0; i < kPages; ++i) sim.touch[i] = 1 - std::exp(-rate[i] * scale);
  sim.windows = GetParam().windows;
  const auto policy = made_auto();
  for (int epoch = 0; epoch < 30; ++epoch) sim.run(*policy);

  double best = 0, best_windows = 0, got = 0, got_windows = 0;
  for (std::size_t i = 0; i < kPages; ++i) {
    if (i < fast) best += rate[order[i]];
    if (i < fast) best_windows += sim.touch[order[i]];
    if (sim.place(i) == 0) got += rate[i];
    if (sim.place(i) == 0) got_windows += sim.touch[i];
  }
  EXPECT_GE(got / best, 0.98) << "accesses";
  EXPECT_GE(got_windows / best_windows, 0.95) << "page-windows";
  std::size_t moved = 0;
  for (int epoch = 0; epoch < 10; ++epoch) {
    const LoopSim::Epoch e = sim.run(*policy);
    moved += e.promoted + e.demoted;
  }
  EXPECT_LE(static_cast<double>(moved) / 10, static_cast<double>(fast) * 0.01);
}

// In the last three the page at the edge is touched once in twenty to a hundred windows.
INSTANTIATE_TEST_SUITE_P(Loads, Zipf,
                         testing::Values(ZipfCase{1.0, 1. / 3, 0.5}, ZipfCase{1.0, 1. / 3, 0.3},
                                         ZipfCase{0.8, 1. / 3, 0.5}, ZipfCase{1.2, 0.1, 0.5},
                                         ZipfCase{1.0, 1. / 3, 0.05, 16},
                                         ZipfCase{0.99, 1. / 3, 0.02, 16},
                                         ZipfCase{0.99, 1. / 9, 0.01, 32}));

TEST(AutoPolicyLoop, MovesThatDoNotRepayThemselvesAreNotMade) {
  // Windows of half a second: a page that is touched in three of ten is served 100 ns sooner 36
  // times a minute, which pays for two moves of 1 us, not for two of 1 ms.
  for (const bool dear : {true, false}) {
    constexpr std::size_t kFast = 400, kHot = 300, kAll = 4000;
    std::vector<std::uint8_t> place(kAll, 1);
    std::fill_n(place.end() - kFast, kFast, std::uint8_t{0});
    LoopSim sim(place, {kFast}, 21);
    std::fill_n(sim.touch.begin(), kHot, 0.3);
    sim.window_length = std::chrono::milliseconds(500);
    sim.page_move = dear ? Nanoseconds(1'000'000) : Nanoseconds(1'000);
    const auto policy = made_auto();
    std::size_t moved = 0;
    for (int epoch = 0; epoch < 20; ++epoch) {
      const auto done = sim.run(*policy);
      moved += done.promoted + done.demoted;
    }
    if (dear)
      EXPECT_EQ(moved, 0u);
    else
      EXPECT_GE(moved, kHot);
  }
}

TEST(AutoPolicyLoop, ThreeTiersSortByHeat) {
  // Hot, warm and cold pages, all upside down at first.
  constexpr std::size_t kEach = 3000;
  std::vector<std::uint8_t> place(3 * kEach);
  for (std::size_t i = 0; i < place.size(); ++i)
    place[i] = static_cast<std::uint8_t>(2 - i / kEach);
  LoopSim sim(place, {kEach, kEach}, 5);
  for (std::size_t i = 0; i < place.size(); ++i)
    sim.touch[i] = i < kEach ? 0.98 : i < 2 * kEach ? 0.5 : 0.02;
  const auto policy = made_auto();
  for (int epoch = 0; epoch < 30; ++epoch) sim.run(*policy);
  for (std::size_t group = 0; group < 3; ++group) {
    std::size_t right = 0;
    for (std::size_t i = group * kEach; i < (group + 1) * kEach; ++i)
      right += sim.place(i) == group ? 1 : 0;
    EXPECT_GE(right, kEach * 95 / 100) << "tier " << group;
  }
}

TEST(AutoPolicyLoop, ATierAboveItsShareGivesPagesBack) {
  std::vector<std::uint8_t> place(4000, 1);
  std::fill(place.begin(), place.begin() + 2000, std::uint8_t{0});
  LoopSim sim(place, {1500}, 5);
  for (std::size_t i = 0; i < place.size(); ++i) sim.touch[i] = i < 1000 ? 1.0 : 0.1;
  const auto policy = made_auto();
  const LoopSim::Epoch e = sim.run(*policy);
  EXPECT_EQ(e.demoted, 500u);
  for (std::size_t i = 0; i < 1000; ++i) EXPECT_EQ(sim.place(i), 0) << "a hot page was given away";
}

TEST(AutoPolicyLoop, RoomIsFilledWithTheHottest) {
  std::vector<std::uint8_t> place(4000, 1);
  LoopSim sim(place, {1000}, 5);
  for (std::size_t i = 0; i < place.size(); ++i) sim.touch[i] = i % 5 == 0 ? 1.0 : 0.0;
  const auto policy = made_auto();
  const LoopSim::Epoch e = sim.run(*policy);
  EXPECT_EQ(e.promoted, 800u) << "untouched pages are not worth a move";
  EXPECT_EQ(e.demoted, 0u);
}

/// Window advice for pages that are all touched with the same probability, fast tier a third.
unsigned advice_for(double hot, double cold) {
  std::vector<std::uint8_t> place(9000, 1);
  std::fill(place.begin(), place.begin() + 3000, std::uint8_t{0});
  LoopSim sim(place, {3000}, 5);
  for (std::size_t i = 0; i < place.size(); ++i) sim.touch[i] = i < 2500 ? hot : cold;
  const auto policy = made_auto();
  unsigned advice = 0;
  for (int epoch = 0; epoch < 6; ++epoch) advice = sim.run(*policy).plan.advice.window_eighths;
  return advice;
}

TEST(AutoPolicyLoop, WindowAdvice) {
  EXPECT_EQ(advice_for(1.0, 1.0), 4u) << "every page is set: says nothing";
  EXPECT_EQ(advice_for(1.0, 0.7), 4u);
  EXPECT_EQ(advice_for(0.02, 0.01), 16u) << "hardly a page is set";
  EXPECT_EQ(advice_for(0.97, 0.25), 8u);
  EXPECT_EQ(advice_for(0.9, 0.05), 8u);
}

}  // namespace
}  // namespace thermocline
