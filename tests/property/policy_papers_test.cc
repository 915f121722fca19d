// SPDX-License-Identifier: Apache-2.0
// Each policy that is made after a paper or a program of others reproduces one result of it: not
// its figures, which are those of a machine, but what they show. All loads are modelled.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "loop_sim.h"

namespace thermocline {
namespace {

std::unique_ptr<Policy> made(const std::string& name, std::vector<PolicyOption> options = {}) {
  PolicyRegistry registry;
  register_builtin_policies(registry);
  return std::move(*registry.make(name, options, 1));
}

/// `pages` of them in an order that is drawn, so that hot pages lie scattered.
std::vector<std::size_t> shuffled(std::size_t pages, std::uint32_t seed) {
  std::vector<std::size_t> order(pages);
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 rng(seed);
  std::shuffle(order.begin(), order.end(), rng);
  return order;
}

/// Places of a fast tier that is full of the pages order[from, from + fast).
std::vector<std::uint8_t> filled(const std::vector<std::size_t>& order, std::size_t from,
                                 std::size_t fast) {
  std::vector<std::uint8_t> place(order.size(), 1);
  for (std::size_t i = from; i < from + fast; ++i) place[order[i]] = 0;
  return place;
}

double share_on_fast(const LoopSim& sim, const std::vector<std::size_t>& order, std::size_t first,
                     std::size_t count) {
  std::size_t fast = 0;
  for (std::size_t i = first; i < first + count; ++i) fast += sim.place(order[i]) == 0 ? 1 : 0;
  return static_cast<double>(fast) / static_cast<double>(count);
}

class Moving : public testing::TestWithParam<const char*> {};

TEST_P(Moving, ATierThatHoldsTooMuchGivesPagesBackAndTheHotSetComesAllTheSame) {
  constexpr std::size_t kPages = 12000, kFast = 4000, kHot = 2500, kTooMuch = 400;
  const auto order = shuffled(kPages, 13);
  LoopSim sim(filled(order, kPages - kFast - kTooMuch, kFast + kTooMuch), {kFast}, 13);
  std::fill(sim.touch.begin(), sim.touch.end(), 0.0);
  for (std::size_t i = 0; i < kHot; ++i) sim.touch[order[i]] = 1.0;
  const auto policy = made(GetParam());
  for (int epoch = 0; epoch < 40; ++epoch) sim.run(*policy);
  EXPECT_LE(sim.on_tier(0), kFast);
  EXPECT_GE(share_on_fast(sim, order, 0, kHot), 0.95);
}

INSTANTIATE_TEST_SUITE_P(Policies, Moving,
                         testing::Values("auto", "heat", "age", "tpp", "hemem", "hybrid",
                                         "exchange", "latency"),
                         [](const auto& policy) { return std::string(policy.param); });

// ---- age: memtierd's promise, and what O'Neil et al. showed of plain recency (LRU-K, SIGMOD'93).

TEST(Age, WhatWasTouchedLatelyIsOnTheFastTierOneEpochAfterAChange) {
  constexpr std::size_t kPages = 12000, kFast = 4000, kHot = 3000;
  const auto order = shuffled(kPages, 1);
  LoopSim sim(filled(order, kHot, kFast), {kFast}, 1);
  sim.cooldown = 0;
  const auto policy = made("age");
  for (const std::size_t first : {std::size_t{0}, std::size_t{6000}}) {
    std::fill(sim.touch.begin(), sim.touch.end(), 0.0);
    for (std::size_t i = first; i < first + kHot; ++i) sim.touch[order[i]] = 1.0;
    sim.run(*policy);
    sim.run(*policy);  // the old hot set has to be two epochs old before it makes room
    sim.run(*policy);
    EXPECT_GE(share_on_fast(sim, order, first, kHot), 0.99);
  }
}

TEST(Age, AScanDrivesThePagesInUseOutAndASecondAccessWouldNot) {
  // A scan touches each of its pages once and comes back to none. Some pages are used in one epoch
  // out of three. LRU-K: LRU-1 gives their room to the scan, LRU-2 doesn't.
  constexpr std::size_t kPages = 30000, kFast = 4000, kUsed = 3600, kStep = 2000;
  const auto scanned_on_fast = [&](Policy& policy) {
    const auto order = shuffled(kPages, 2);
    LoopSim sim(filled(order, 0, kFast), {kFast}, 2);
    sim.windows = 1;
    std::size_t scanned = kFast, promoted = 0;
    for (int epoch = 0; epoch < 12; ++epoch) {
      std::fill(sim.touch.begin(), sim.touch.end(), 0.0);
      for (std::size_t i = 0; i < kUsed; ++i)
        sim.touch[order[i]] = static_cast<int>(i % 3) == epoch % 3 ? 1.0 : 0.0;
      for (std::size_t i = 0; i < kStep; ++i) sim.touch[order[scanned++]] = 1.0;
      for (const Move& move : sim.run(policy).plan.promotions) {
        const std::size_t page = LoopSim::index(move);
        if (std::find(order.begin(), order.begin() + kUsed, page) == order.begin() + kUsed)
          ++promoted;
      }
    }
    return promoted;
  };
  const auto age = made("age"), tpp = made("tpp");
  const std::size_t by_age = scanned_on_fast(*age), by_tpp = scanned_on_fast(*tpp);
  EXPECT_GT(by_age, 10 * (by_tpp + 1));
}

// ---- tpp: Maruf et al., ASPLOS'23.

struct Traffic {
  std::size_t promoted = 0;
  double hot_on_fast = 0;
};

/// A hot set, and very many pages of which each is touched once in a long time.
Traffic with_sporadic_pages(Policy& policy) {
  constexpr std::size_t kPages = 40000, kFast = 8000, kHot = 5000;
  const auto order = shuffled(kPages, 3);
  LoopSim sim(filled(order, kPages - kFast, kFast), {kFast}, 3);
  for (std::size_t i = 0; i < kPages; ++i) sim.touch[order[i]] = i < kHot ? 0.8 : 0.002;
  for (int epoch = 0; epoch < 60; ++epoch) sim.run(policy);
  Traffic traffic;
  for (int epoch = 0; epoch < 20; ++epoch) traffic.promoted += sim.run(policy).promoted;
  traffic.hot_on_fast = share_on_fast(sim, order, 0, kHot);
  return traffic;
}

TEST(Tpp, TheActiveListFilterCutsPromotionTrafficAndKeepsTheHotSet) {
  // Section 6.3: promoting only what is on the active list brings the promotion rate down by an
  // order of magnitude, and the hot set is served from the fast tier all the same.
  const auto filtered = made("tpp"), instant = made("tpp", {{"accesses", "1"}});
  const Traffic with = with_sporadic_pages(*filtered), without = with_sporadic_pages(*instant);
  EXPECT_GE(with.hot_on_fast, 0.98);
  EXPECT_GE(with.hot_on_fast, without.hot_on_fast - 0.01);
  EXPECT_LT(with.promoted * 10, without.promoted);
}

TEST(Tpp, DecoupledDemotionLeavesRoomForBurstsOfNewPages) {
  // The same section: a demotion watermark above the allocation watermark lets new pages and
  // promotions find room on the fast tier.
  for (const auto& [headroom, expected] : {std::pair("2", 80u), std::pair("0", 0u)}) {
    constexpr std::size_t kPages = 20000, kFast = 4000;
    const auto order = shuffled(kPages, 4);
    LoopSim sim(filled(order, 0, kFast), {kFast}, 4);
    for (std::size_t i = 0; i < kPages; ++i) sim.touch[order[i]] = i < kFast / 2 ? 0.9 : 0.001;
    const auto policy = made("tpp", {{"headroom_percent", headroom}});
    for (int epoch = 0; epoch < 5; ++epoch) sim.run(*policy);
    EXPECT_EQ(kFast - sim.on_tier(0), expected);
  }
}

// ---- hemem: Raybuck et al., SOSP'21.

TEST(Hemem, AHotSetThatFitsIsServedFromTheFastTierWhereverItLies) {
  // GUPS with a hot set (section 5.1): near all-DRAM speed while the hot set fits, and again soon
  // after the hot set has moved.
  constexpr std::size_t kPages = 20000, kFast = 6000, kHot = 4000;
  const auto order = shuffled(kPages, 5);
  LoopSim sim(filled(order, kPages - kFast, kFast), {kFast}, 5);
  const auto policy = made("hemem");
  for (const std::size_t first : {std::size_t{0}, std::size_t{8000}}) {
    for (std::size_t i = 0; i < kPages; ++i)
      sim.touch[order[i]] = i >= first && i < first + kHot ? 0.9 : 0.05;
    for (int epoch = 0; epoch < 6; ++epoch) sim.run(*policy);
    EXPECT_GE(share_on_fast(sim, order, first, kHot), 0.98);
  }
}

TEST(Hemem, NothingMovesWhenTheFastTierHasNoColdPageLeft) {
  // Section 3.3: with a hot set larger than DRAM migration stops instead of thrashing.
  constexpr std::size_t kPages = 12000, kFast = 4000;
  const auto order = shuffled(kPages, 6);
  LoopSim sim(filled(order, 0, kFast), {kFast}, 6);
  std::fill(sim.touch.begin(), sim.touch.end(), 0.95);
  const auto policy = made("hemem");
  for (int epoch = 0; epoch < 3; ++epoch) sim.run(*policy);
  std::size_t moved = 0;
  for (int epoch = 0; epoch < 20; ++epoch) {
    const LoopSim::Epoch e = sim.run(*policy);
    moved += e.promoted + e.demoted;
  }
  EXPECT_EQ(moved, 0u);
}

// ---- heat: MEMTIS, Lee et al., SOSP'23.

TEST(Heat, FindsTheHotSetThatAFixedThresholdMisses) {
  // Section 2: a hot set is what fits; a fixed threshold takes nothing for hot in a program that
  // touches its pages seldom.
  constexpr std::size_t kPages = 20000, kFast = 6000, kHot = 5000;
  const auto order = shuffled(kPages, 13);
  LoopSim fitted(filled(order, kPages - kFast, kFast), {kFast}, 13);
  LoopSim fixed(filled(order, kPages - kFast, kFast), {kFast}, 13);
  for (std::size_t i = 0; i < kPages; ++i)
    fitted.touch[order[i]] = fixed.touch[order[i]] = i < kHot ? 0.3 : 0.01;
  const auto heat = made("heat"), hemem = made("hemem");
  for (int epoch = 0; epoch < 40; ++epoch) {
    fitted.run(*heat);
    fixed.run(*hemem);
  }
  EXPECT_GE(share_on_fast(fitted, order, 0, kHot), 0.9);
  EXPECT_LE(share_on_fast(fixed, order, 0, kHot), 0.5);
}

TEST(Heat, TheWarmBandKeepsPagesAtTheEdgeWhereTheyAre) {
  // Section 4.2.1: without the warm set, pages at the edge would come and go.
  constexpr std::size_t kPages = 20000, kFast = 5000;
  const auto order = shuffled(kPages, 14);
  const auto moved = [&](const std::string& band) {
    LoopSim sim(filled(order, 0, kFast), {kFast}, 14);
    for (std::size_t i = 0; i < kPages; ++i)
      sim.touch[order[i]] = 0.9 - 0.8 * static_cast<double>(i) / kPages;
    const auto policy = made("heat", {{"warm_band", band}});
    for (int epoch = 0; epoch < 10; ++epoch) sim.run(*policy);
    std::size_t pages = 0;
    for (int epoch = 0; epoch < 20; ++epoch) pages += sim.run(*policy).promoted;
    return pages;
  };
  EXPECT_GE(moved("0"), 10 * moved("60"));
  EXPECT_GE(moved("0"), kFast / 10);
}

// ---- hybrid: Song et al., ASPLOS'25.

/// Epochs after a change until nine tenths of the new hot set are on the fast tier.
int epochs_to_follow(Policy& policy) {
  constexpr std::size_t kPages = 24000, kFast = 6000, kHot = 5500;
  const auto order = shuffled(kPages, 7);
  LoopSim sim(filled(order, 0, kFast), {kFast}, 7);
  const auto heat_up = [&](std::size_t first) {
    for (std::size_t i = 0; i < kPages; ++i)
      sim.touch[order[i]] = i >= first && i < first + kHot ? 0.95 : 0.15;
  };
  heat_up(0);
  for (int epoch = 0; epoch < 60; ++epoch) sim.run(policy);
  EXPECT_GE(share_on_fast(sim, order, 0, kHot), 0.95);
  heat_up(12000);
  for (int epoch = 1; epoch <= 60; ++epoch) {
    sim.run(policy);
    if (share_on_fast(sim, order, 12000, kHot) >= 0.9) return epoch;
  }
  return 61;
}

TEST(Hybrid, MomentumFollowsAChangeSoonerThanFrequencyAlone) {
  // Section 2 and 6: trackers of frequency alone are slow to adapt when the distribution shifts;
  // momentum makes up for it.
  const auto both = made("hybrid"), frequency = made("hybrid", {{"momentum_percent", "0"}});
  const int fast = epochs_to_follow(*both), slow = epochs_to_follow(*frequency);
  EXPECT_LE(fast, 8);
  EXPECT_GE(slow, 2 * fast);
}

TEST(Hybrid, MetadataDoesNotGrowWithTheFootprint) {
  // Section 4: sketches sized by the fast tier instead of a table of all pages.
  Bytes small;
  for (const std::size_t pages : {20000u, 80000u}) {
    const auto order = shuffled(pages, 8);
    LoopSim sim(filled(order, 0, 4000), {4000}, 8);
    std::fill(sim.touch.begin(), sim.touch.end(), 0.5);
    const auto policy = made("hybrid");
    sim.run(*policy);
    if (pages == 20000u) small = policy->memory();
    EXPECT_EQ(policy->memory(), small);
  }
}

// ---- latency: Vuppalapati, Agarwal, SOSP'24.

/// A machine whose tiers answer later the more is asked of them, and neighbours that ask the fast
/// one for `contention` of what it can serve.
struct LoadedMachine {
  explicit LoadedMachine(LoopSim& loop, double contended) : sim(loop), contention(contended) {
    sim.loaded_latency_ns = [this](std::size_t tier) {
      return static_cast<std::uint64_t>(std::lround(latency(tier)));
    };
  }
  [[nodiscard]] double asked(std::size_t tier) const {
    double sum = 0;
    for (std::size_t i = 0; i < sim.size(); ++i)
      if (sim.place(i) == tier) sum += sim.touch[i];
    return sum;
  }
  [[nodiscard]] double latency(std::size_t tier) const {
    // An M/M/1 queue: the fast tier serves 10000 page-windows at 80 ns, the slow one half at twice.
    const double busy = tier == 0 ? contention + asked(0) / 10000 : asked(1) / 5000;
    return (tier == 0 ? 80.0 : 160.0) / (1 - std::min(busy, 0.97));
  }
  [[nodiscard]] double mean_latency() const {
    const double fast = asked(0), slow = asked(1);
    return (fast * latency(0) + slow * latency(1)) / (fast + slow);
  }

  LoopSim& sim;
  double contention;
};

struct Balanced {
  double fast_ns, slow_ns, mean_ns, hot_on_fast;
};

Balanced under_contention(Policy& policy, double contention) {
  constexpr std::size_t kPages = 20000, kFast = 6000, kHot = 4000;
  const auto order = shuffled(kPages, 9);
  LoopSim sim(filled(order, kPages - kFast, kFast), {kFast}, 9);
  for (std::size_t i = 0; i < kPages; ++i) sim.touch[order[i]] = i < kHot ? 0.7 : 0.02;
  LoadedMachine machine(sim, contention);
  for (int epoch = 0; epoch < 60; ++epoch) sim.run(policy);
  return {machine.latency(0), machine.latency(1), machine.mean_latency(),
          share_on_fast(sim, order, 0, kHot)};
}

TEST(Latency, WithoutContentionHotPagesFillTheFastTier) {
  const auto policy = made("latency");
  EXPECT_GE(under_contention(*policy, 0.0).hot_on_fast, 0.95);
}

TEST(Latency, UnderContentionBalancingBeatsPacking) {
  // Section 5: with memory antagonists the fast tier becomes slower than the slow one; placing the
  // hot set by capacity is then far from the optimum, and equal latencies are near it.
  const auto balancing = made("latency"), packing = made("heat");
  const Balanced balanced = under_contention(*balancing, 0.6);
  const Balanced packed = under_contention(*packing, 0.6);
  EXPECT_GT(packed.fast_ns, packed.slow_ns * 1.5) << "the load must be one where packing is wrong";
  EXPECT_NEAR(balanced.fast_ns / balanced.slow_ns, 1.0, 0.15);
  EXPECT_LT(balanced.mean_ns, packed.mean_ns * 0.9);
}

TEST(Latency, AutoBalancesACrowdedTierToo) {
  const auto policy = made("auto"), packing = made("heat");
  const Balanced balanced = under_contention(*policy, 0.6);
  EXPECT_NEAR(balanced.fast_ns / balanced.slow_ns, 1.0, 0.15);
  EXPECT_LT(balanced.mean_ns, under_contention(*packing, 0.6).mean_ns * 0.9);
  const auto free = made("auto");
  EXPECT_GE(under_contention(*free, 0.0).hot_on_fast, 0.95);
}

TEST(Latency, AutoComesBackWhenTheCrowdHasGone) {
  constexpr std::size_t kPages = 20000, kFast = 6000, kHot = 4000;
  const auto order = shuffled(kPages, 9);
  LoopSim sim(filled(order, kPages - kFast, kFast), {kFast}, 9);
  for (std::size_t i = 0; i < kPages; ++i) sim.touch[order[i]] = i < kHot ? 0.7 : 0.02;
  LoadedMachine machine(sim, 0.6);
  const auto policy = made("auto");
  for (int epoch = 0; epoch < 40; ++epoch) sim.run(*policy);
  ASSERT_LT(share_on_fast(sim, order, 0, kHot), 0.9) << "the tier must be crowded";
  machine.contention = 0;
  for (int epoch = 0; epoch < 40; ++epoch) sim.run(*policy);
  EXPECT_GE(share_on_fast(sim, order, 0, kHot), 0.95);
}

TEST(Latency, OfTiersThatAnswerAlikeAutoFillsTheFasterOneWhateverWasMeasuredOnce) {
  // As in a guest without a model of latency, where measurements scatter for a while.
  constexpr std::size_t kPages = 12000, kFast = 4000, kHot = 3000;
  const auto order = shuffled(kPages, 12);
  LoopSim sim(filled(order, kPages - kFast, kFast), {kFast}, 12);
  for (std::size_t i = 0; i < kPages; ++i) sim.touch[order[i]] = i < kHot ? 0.9 : 0.02;
  int epoch = 0;
  sim.loaded_latency_ns = [&](std::size_t tier) {
    return std::uint64_t{tier == 0 && epoch < 12 ? 150u : 100u};
  };
  const auto policy = made("auto");
  for (; epoch < 40; ++epoch) sim.run(*policy);
  EXPECT_GE(share_on_fast(sim, order, 0, kHot), 0.95);
}

TEST(Latency, WithoutMeasurementItIsAPolicyOfCapacity) {
  constexpr std::size_t kPages = 20000, kFast = 6000, kHot = 5000;
  const auto order = shuffled(kPages, 10);
  LoopSim sim(filled(order, kPages - kFast, kFast), {kFast}, 10);
  for (std::size_t i = 0; i < kPages; ++i) sim.touch[order[i]] = i < kHot ? 0.9 : 0.05;
  const auto policy = made("latency");
  for (int epoch = 0; epoch < 40; ++epoch) sim.run(*policy);
  EXPECT_GE(share_on_fast(sim, order, 0, kHot), 0.95);
}

// ---- exchange: intel/memory-optimizer.

TEST(Exchange, WhatTheFastTierHoldsStaysTheSameAndItConverges) {
  // README: as many hot pages go up as cold ones go down (dram_percent holds), and the daemon may
  // stop when migration has converged.
  constexpr std::size_t kPages = 16000, kFast = 4000, kHot = 3600;
  const auto order = shuffled(kPages, 11);
  // Room for 500 pages more, which it doesn't take.
  LoopSim sim(filled(order, kPages - kFast, kFast), {kFast + 500}, 11);
  for (std::size_t i = 0; i < kPages; ++i) sim.touch[order[i]] = i < kHot ? 0.95 : 0.1;
  const auto policy = made("exchange");
  std::size_t last = 0;
  for (int epoch = 0; epoch < 30; ++epoch) {
    const LoopSim::Epoch e = sim.run(*policy);
    EXPECT_EQ(e.promoted, e.demoted);
    EXPECT_EQ(sim.on_tier(0), kFast);
    last = e.promoted;
  }
  EXPECT_GE(share_on_fast(sim, order, 0, kHot), 0.98);
  EXPECT_LE(last, kFast / 50);
}

TEST(Exchange, TheAntiThrashThresholdStopsTheExchangeOfEquals) {
  const auto moved = [](Policy& policy) {
    const auto order = shuffled(12000, 12);
    LoopSim sim(filled(order, 0, 4000), {4000}, 12);
    std::fill(sim.touch.begin(), sim.touch.end(), 0.5);
    for (int epoch = 0; epoch < 10; ++epoch) sim.run(policy);
    std::size_t sum = 0;
    for (int epoch = 0; epoch < 20; ++epoch) sum += sim.run(policy).promoted;
    return sum;
  };
  const auto guarded = made("exchange"), open = made("exchange", {{"anti_thrash", "0"}});
  EXPECT_LT(moved(*guarded) * 2, moved(*open));
}

// ---- interleave: weighted interleave of Linux 6.9.

TEST(Interleave, WeightsByBandwidthBeatTheFastTierAloneAndEqualWeights) {
  // Cover letter of the patches (Price, 2024): for a load that is bound by bandwidth weighted
  // interleaving is faster than local memory alone, and equal weights are slower than that.
  constexpr std::size_t kPages = 16000;
  constexpr std::uint64_t kFast = 30000, kSlow = 10000;  // MB/s
  /// Share of the pages that the policy leaves on the fast tier, by what it is told of the tiers.
  const auto placed = [](std::uint64_t fast, std::uint64_t slow,
                         std::vector<std::uint8_t> weights) {
    LoopSim sim(filled(shuffled(kPages, 13), 0, kPages), {kPages}, 13);
    sim.bandwidth_mbps = {fast, slow};
    std::fill(sim.touch.begin(), sim.touch.end(), 0.5);
    const auto policy = made("interleave");
    Plan plan;
    for (int epoch = 0; epoch < 30; ++epoch) plan = sim.run(*policy).plan;
    EXPECT_EQ(plan.interleave.tier_weights, weights);
    return static_cast<double>(sim.on_tier(0)) / static_cast<double>(kPages);
  };
  // The tier that takes longest for its share of the pages decides.
  const auto throughput = [&](double on_fast) {
    return std::min(on_fast > 0 ? static_cast<double>(kFast) / on_fast : 1e9,
                    on_fast < 1 ? static_cast<double>(kSlow) / (1 - on_fast) : 1e9);
  };
  const double alone = throughput(1.0);
  const double weighted = throughput(placed(kFast, kSlow, {16, 5}));
  EXPECT_GT(weighted, 0.85 * (kFast + kSlow));
  EXPECT_GT(weighted, alone);
  EXPECT_LT(throughput(placed(kFast, kFast, {1, 1})), alone);
}

}  // namespace
}  // namespace thermocline
