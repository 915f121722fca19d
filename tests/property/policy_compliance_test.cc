// SPDX-License-Identifier: Apache-2.0
// What every registered policy must hold to, whatever it thinks of pages; the example of a plug-in,
// in its own process, as well.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <stdexcept>

#include "heat/heat_map.h"
#include "loop_sim.h"
#include "policies/policy.h"
#include "tests/policy_plugin/plugin_folder.h"
#include "tracking/record.h"

namespace thermocline {
namespace {

PolicyRegistry registry() {
  static PluginFolder folder;
  static const PolicyFactory plugin = [] {
    auto described = describe_plugin(folder.add("hottest"), patient_plugins());
    if (!described) throw std::runtime_error(described.error().message);
    return std::move(*described);
  }();
  PolicyRegistry result;
  register_builtin_policies(result);
  result.add(plugin);
  return result;
}

std::vector<std::string> names() {
  std::vector<std::string> result;
  const PolicyRegistry all = registry();
  for (const PolicyFactory& factory : all.factories()) result.push_back(factory.name);
  return result;
}

/// A machine and its pages, drawn from a seed; the same seed gives the same world.
class World {
 public:
  World(std::uint32_t seed, std::size_t tiers) : rng_(seed), tier_count_(tiers) {
    std::vector<TierId> of_node;
    for (std::size_t t = 0; t < tiers; ++t) of_node.push_back(TierId(static_cast<std::uint8_t>(t)));
    map_.set_node_tiers(of_node);
  }

  /// Random pages of every kind: huge, unobservable, resting, stuck.
  void populate() {
    for (std::uint64_t asid = 1; asid <= 2; ++asid) {
      for (std::uint64_t block = 0; block < 6; ++block) {
        const unsigned kind = rng_() % 4;
        for (int window = 0; window < 4; ++window) {
          if (kind == 0) {
            observe(Asid(asid), Vpn(block * 512), kOrder2M, {page()});
          } else {
            std::vector<EntryObservation> entries;
            for (int i = 0; i < 512; ++i) entries.push_back(page());
            observe(Asid(asid), Vpn(block * 512), kOrder4K, entries);
          }
        }
        for (int i = 0; i < 20; ++i) {
          const Vpn vpn(block * 512 + rng_() % 512);
          if (i % 2 == 0) {
            map_.moved(Asid(asid), vpn, TierId(static_cast<std::uint8_t>(rng_() % tier_count_)),
                       true, rng_() % 4);
          } else {
            map_.mark_stuck(Asid(asid), vpn);
          }
        }
      }
    }
    if (tier_count_ > 1 && rng_() % 2 == 0)
      observe(Asid(3), Vpn(std::uint64_t{1} << 18), kOrder1G,
              {{NodeId(1), true, true, true, false}});
  }

  void observe(Asid asid, Vpn first, PageOrder order,
               const std::vector<EntryObservation>& entries) {
    std::vector<std::byte> bytes;
    RecordHeader header;
    header.asid = asid;
    RecordWriter(bytes).append(header, 0, first, order, entries);
    RecordReader reader(bytes);
    map_.apply(*reader.next(), true);
  }

  /// `worked` gets the entries of the map that the policy went through.
  Plan decide(Policy& policy, const std::vector<TierView>& tiers, PageCount budget,
              const Feedback& feedback, std::uint64_t* worked = nullptr) {
    const Threshold threshold = map_.age_and_select(tiers.front().capacity);
    const std::uint64_t before = map_.entries_gone_through();
    Plan plan =
        policy.decide(View{Epoch(++epoch_), map_, tiers, threshold, feedback, Budget{budget}});
    if (worked != nullptr) *worked = map_.entries_gone_through() - before;
    return plan;
  }

  /// As the engine tells it, with `free` pages left on each tier (negative: over its share).
  std::vector<TierView> tiers(std::int64_t free) const {
    const Occupancy held = map_.occupancy();
    std::vector<TierView> result;
    for (std::size_t t = 0; t < tier_count_; ++t) {
      TierView view{};
      view.id = TierId(static_cast<std::uint8_t>(t));
      view.used = held.per_tier[t];
      view.free = PageCount(static_cast<std::uint64_t>(std::max<std::int64_t>(free, 0)));
      view.capacity =
          (view.used + view.free)
              .minus_floor(PageCount(static_cast<std::uint64_t>(std::max<std::int64_t>(-free, 0))));
      view.latency_ns = 80 * (t + 1);
      view.bandwidth_mbps = t == blind_tier_ ? 0 : 40000 / (t + 1);
      view.loaded_latency_ns = loaded_latency_ns_[t];
      result.push_back(view);
    }
    return result;
  }

  Feedback feedback() {
    Feedback f{};
    f.windows = 4;
    f.present_page_windows = PageCount(10000);
    f.accessed_page_windows = PageCount(rng_() % 10001);
    return f;
  }

  /// What else a host may tell: latencies that turn about now and then, a bandwidth that isn't
  /// known.
  void shake() {
    if (rng_() % 5 == 0)
      for (std::uint64_t& latency : loaded_latency_ns_) latency = rng_() % 4 * 100;
    blind_tier_ = rng_() % 16;
  }

  HeatMap& map() { return map_; }
  std::mt19937& rng() { return rng_; }

 private:
  EntryObservation page() {
    EntryObservation e;
    e.present = rng_() % 16 != 0;
    if (!e.present) return e;
    e.node = NodeId(static_cast<std::int32_t>(rng_() % (tier_count_ + (rng_() % 32 == 0 ? 1 : 0))));
    e.observable = rng_() % 8 != 0;
    e.accessed = rng_() % 3 == 0;
    return e;
  }

  std::mt19937 rng_;
  std::size_t tier_count_;
  HeatMap map_;
  std::uint64_t epoch_ = 0;
  std::array<std::uint64_t, kMaxTiers> loaded_latency_ns_{};
  std::size_t blind_tier_ = kMaxTiers;
};

void check(const Plan& plan, const Policy& policy, const HeatMap& map,
           const std::vector<TierView>& tiers, PageCount budget) {
  std::set<std::pair<Asid, Vpn>> seen;
  PageCount moved;
  std::vector<PageCount> in(tiers.size()), out(tiers.size());
  const auto check_moves = [&](const std::vector<Move>& moves, bool slower) {
    for (const Move& move : moves) {
      const auto page = map.look_up(move.asid, move.vpn);
      ASSERT_TRUE(page) << "a page that is not there";
      ASSERT_TRUE(page->second.movable())
          << "a page nobody may move, state " << unsigned{page->second.raw()};
      ASSERT_EQ(page->second.tier(), move.from);
      ASSERT_EQ(page->first, move.heat);
      ASSERT_EQ(move.vpn.get() % move.order.pages().get(), 0u);
      ASSERT_LT(move.to.get(), tiers.size());
      ASSERT_EQ(move.to > move.from, slower) << "wrong direction";
      ASSERT_NE(move.to, move.from);
      ASSERT_LT(move.rule, policy.rules().size());
      ASSERT_TRUE(seen.emplace(move.asid, move.vpn).second) << "a page twice in a plan";
      moved += move.order.pages();
      in[move.to.get()] += move.order.pages();
      out[move.from.get()] += move.order.pages();
    }
  };
  check_moves(plan.demotions, true);
  check_moves(plan.promotions, false);
  EXPECT_LE(moved, budget);
  for (std::size_t t = 0; t < tiers.size(); ++t)
    EXPECT_LE(in[t], tiers[t].free + out[t]) << "tier " << t << " is filled beyond its room";
  EXPECT_TRUE(plan.interleave.tier_weights.empty() ||
              plan.interleave.tier_weights.size() == tiers.size());
  for (const std::uint8_t weight : plan.interleave.tier_weights) EXPECT_GT(weight, 0);
  check_moves(plan.spares, true);
  for (const Move& move : plan.spares) EXPECT_EQ(move.from, tiers.front().id);
  EXPECT_TRUE(plan.spares.empty() || !plan.promotions.empty());
  EXPECT_GE(plan.advice.window_eighths, 1u);
  EXPECT_LE(plan.advice.window_eighths, 64u);
}

bool same(const std::vector<Move>& a, const std::vector<Move>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Move& x, const Move& y) {
    return x.asid == y.asid && x.vpn == y.vpn && x.order == y.order && x.from == y.from &&
           x.to == y.to && x.heat == y.heat && x.rule == y.rule;
  });
}

class PolicyCompliance : public testing::TestWithParam<std::string> {
 protected:
  static std::unique_ptr<Policy> make(std::uint64_t seed = 1) {
    auto policy = registry().make(GetParam(), {}, seed);
    EXPECT_TRUE(policy) << policy.error().message;
    return std::move(*policy);
  }
};

TEST_P(PolicyCompliance, PlansAreValidInAnyWorld) {
  for (std::uint32_t seed = 0; seed < 60; ++seed) {
    const std::size_t tier_count = 1 + seed % 4;
    World world(seed, tier_count);
    const auto policy = make(seed);
    world.map().keep_touches(policy->needs_touches());
    for (int epoch = 0; epoch < 6; ++epoch) {
      world.populate();
      world.shake();
      const std::int64_t free[] = {0, 0, 700, 100000, -300, -100000};
      const std::uint64_t budgets[] = {0, 1, 511, 700, 5000, ~std::uint64_t{0} >> 1};
      const auto tiers = world.tiers(free[world.rng()() % std::size(free)]);
      const PageCount budget(budgets[world.rng()() % std::size(budgets)]);
      const Plan plan = world.decide(*policy, tiers, budget, world.feedback());
      check(plan, *policy, world.map(), tiers, budget);
      if (HasFatalFailure()) FAIL() << "seed " << seed << " epoch " << epoch;
      if (tier_count == 1) {
        EXPECT_TRUE(plan.demotions.empty() && plan.promotions.empty());
      }
    }
  }
}

TEST_P(PolicyCompliance, SameViewsAndSeedSamePlans) {
  for (std::uint32_t seed = 0; seed < 8; ++seed) {
    World a(seed, 2), b(seed, 2);
    const auto first = make(seed), second = make(seed);
    a.map().keep_touches(first->needs_touches());
    b.map().keep_touches(second->needs_touches());
    for (int epoch = 0; epoch < 4; ++epoch) {
      a.populate();
      b.populate();
      a.shake();
      b.shake();
      const Plan pa = a.decide(*first, a.tiers(100), PageCount(3000), a.feedback());
      const Plan pb = b.decide(*second, b.tiers(100), PageCount(3000), b.feedback());
      ASSERT_TRUE(same(pa.demotions, pb.demotions));
      ASSERT_TRUE(same(pa.promotions, pb.promotions));
      ASSERT_TRUE(same(pa.spares, pb.spares));
      ASSERT_EQ(pa.advice.window_eighths, pb.advice.window_eighths);
      ASSERT_EQ(pa.interleave.tier_weights, pb.interleave.tier_weights);
      for (const auto& [moves, up] : {std::pair(&pa.demotions, false), {&pa.promotions, true}}) {
        for (const Move& move : *moves) {
          a.map().moved(move.asid, move.vpn, move.to, up, 1);
          b.map().moved(move.asid, move.vpn, move.to, up, 1);
        }
      }
    }
  }
}

TEST_P(PolicyCompliance, WorkAndMemoryStayInTheirBudgets) {
  // In maps of one to 32 times the size: it may go through the pages a few times, plans no more
  // than it may, and keeps what policy.h allows from one decision to the next.
  constexpr std::uint64_t kPasses = 12;
  for (const std::uint64_t blocks : {8, 64, 256}) {
    World world(3, 2);
    const auto policy = make();
    world.map().keep_touches(policy->needs_touches());
    for (int epoch = 0; epoch < 3; ++epoch) {
      for (int window = 0; window < 4; ++window)
        for (std::uint64_t block = 0; block < blocks; ++block) {
          std::vector<EntryObservation> entries;
          for (int i = 0; i < 512; ++i)
            entries.push_back({NodeId(static_cast<std::int32_t>(block % 2)), true, true,
                               world.rng()() % 3 == 0, false});
          world.observe(Asid(1), Vpn(block * 512), kOrder4K, entries);
        }
      std::uint64_t worked = 0;
      const Plan plan =
          world.decide(*policy, world.tiers(0), PageCount(600), world.feedback(), &worked);
      EXPECT_LE(worked, kPasses * blocks * 512);
      EXPECT_LE(plan.demotions.size() + plan.promotions.size(), 600u);
      EXPECT_LE(plan.spares.size(), 1200u);
    }
    EXPECT_LE(policy->memory().get(), 64 * world.tiers(0).front().capacity.get() + (256u << 10));
  }
}

TEST_P(PolicyCompliance, UniformLoadInSteadyState) {
  // Equals that only luck tells apart: what moves then is for nothing.
  constexpr std::size_t kPages = 20000, kFast = 5000;
  constexpr int kEpochs = 40;
  for (const double touched : {0.1, 0.5, 0.9}) {
    std::vector<std::uint8_t> place(kPages, 1);
    std::fill(place.begin(), place.begin() + kFast, std::uint8_t{0});
    LoopSim sim(place, {kFast}, 7);
    sim.bandwidth_mbps = {30000, 10000};
    std::fill(sim.touch.begin(), sim.touch.end(), touched);
    const auto policy = make();
    for (int epoch = 0; epoch < 30; ++epoch) sim.run(*policy);
    std::size_t moved = 0;
    for (int epoch = 0; epoch < kEpochs; ++epoch) {
      const LoopSim::Epoch e = sim.run(*policy);
      moved += e.promoted + e.demoted;
    }
    const double share = static_cast<double>(moved) / kEpochs / kPages;
    std::printf("[ modelled ] %s, uniform load touched %.1f: %.3f %% of the pages move an epoch\n",
                GetParam().c_str(), touched, 100 * share);
    if (GetParam() == "auto" || GetParam() == "heat" || GetParam() == "static") {
      EXPECT_LT(share, 0.001);
    }
  }
}

TEST_P(PolicyCompliance, AnEmptyMapGivesAnEmptyPlan) {
  for (std::size_t tier_count = 1; tier_count <= 7; ++tier_count) {
    World world(1, tier_count);
    const auto policy = make();
    for (const std::int64_t free : {0, 1000}) {
      const Plan plan = world.decide(*policy, world.tiers(free), PageCount(1000), Feedback{});
      EXPECT_TRUE(plan.demotions.empty());
      EXPECT_TRUE(plan.promotions.empty());
    }
  }
}

TEST_P(PolicyCompliance, NothingObservableNothingMoved) {
  World world(1, 2);
  for (int node = 0; node < 2; ++node)
    world.observe(Asid(1), Vpn(static_cast<std::uint64_t>(node) * 512), kOrder4K,
                  std::vector<EntryObservation>(512, {NodeId(node), true, false, false, false}));
  for (const std::int64_t free : {-1000, 0, 1000}) {
    const auto policy = make();
    const Plan plan = world.decide(*policy, world.tiers(free), PageCount(1000), Feedback{});
    EXPECT_TRUE(plan.demotions.empty());
    EXPECT_TRUE(plan.promotions.empty());
  }
}

TEST_P(PolicyCompliance, SurvivesExtremeHeats) {
  for (const int touched : {0, 1, 20}) {  // all cold, all equal, all at the top
    for (const std::int64_t free : {-100000, -1, 0, 1, 100000}) {
      World world(1, 3);
      for (int w = 0; w < std::max(touched, 1); ++w)
        for (int node = 0; node < 3; ++node)
          world.observe(
              Asid(1), Vpn(static_cast<std::uint64_t>(node) * 512), kOrder4K,
              std::vector<EntryObservation>(512, {NodeId(node), true, true, touched > 0, false}));
      const auto policy = make();
      const auto tiers = world.tiers(free);
      const Plan plan = world.decide(*policy, tiers, PageCount(5000), world.feedback());
      check(plan, *policy, world.map(), tiers, PageCount(5000));
    }
  }
}

TEST_P(PolicyCompliance, DescribesItself) {
  const auto all = registry();
  for (const PolicyFactory& factory : all.factories()) {
    if (factory.name != GetParam()) continue;
    EXPECT_FALSE(factory.summary.empty());
    EXPECT_FALSE(factory.source.empty());
    EXPECT_EQ(make()->name(), factory.name);
    for (const PolicyOptionHelp& option : factory.option_help) {
      EXPECT_FALSE(option.meaning.empty()) << option.key;
      // The default is a value that the policy itself takes.
      const PolicyOption same[] = {{option.key, option.default_text}};
      EXPECT_TRUE(all.make(factory.name, same, 1)) << option.key;
    }
  }
  const PolicyOption wrong[] = {{"no_such_option", "1"}};
  const auto refused = all.make(GetParam(), wrong, 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(refused.error().message, testing::HasSubstr("no_such_option"));
}

INSTANTIATE_TEST_SUITE_P(Registered, PolicyCompliance, testing::ValuesIn(names()),
                         [](const auto& name) { return name.param; });

TEST(StaticPolicy, NeverMoves) {
  World world(5, 2);
  const auto policy = std::move(*registry().make("static", {}, 1));
  for (int epoch = 0; epoch < 5; ++epoch) {
    world.populate();
    const Plan plan = world.decide(*policy, world.tiers(-300), PageCount(9999), world.feedback());
    EXPECT_TRUE(plan.demotions.empty() && plan.promotions.empty());
  }
}

TEST(HeatPolicyOptions, AreChecked) {
  const PolicyOption good[] = {{"warm_band", "30"}, {"min_heat", "4"}};
  EXPECT_TRUE(registry().make("heat", good, 1));
  for (const std::string value : {"", "-1", "128", "hot", "4 "}) {
    const PolicyOption bad[] = {{"min_heat", value}};
    const auto refused = registry().make("heat", bad, 1);
    ASSERT_FALSE(refused) << value;
    EXPECT_EQ(refused.error().kind, ErrorKind::kUsage);
  }
}

TEST(PolicyRegistryTest, UnknownNamesAreRefusedWithTheNearest) {
  const auto refused = registry().make("heet", {}, 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(refused.error().message, testing::HasSubstr("heat"));
  EXPECT_FALSE(registry().make("zzzzzz", {}, 1));
}

TEST(PolicyRegistryDeathTest, ADuplicateNameAborts) {
  EXPECT_DEATH(
      {
        PolicyRegistry twice = registry();
        twice.add(registry().factories().front());
      },
      "two policies are called");
}

}  // namespace
}  // namespace thermocline
