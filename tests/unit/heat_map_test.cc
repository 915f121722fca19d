// SPDX-License-Identifier: Apache-2.0
#include "heat/heat_map.h"
#include "heat/scale.h"

#include <gtest/gtest.h>

#include <vector>

#include "tracking/record.h"

namespace thermocline {
namespace {

constexpr Asid kProcess{42};

EntryObservation on_node(int node, bool accessed) {
  return {NodeId(node), true, true, accessed, false};
}
EntryObservation absent() {
  return {};
}
EntryObservation blind(int node) {
  return {NodeId(node), true, false, false, false};
}

class HeatMapTest : public testing::Test {
 protected:
  HeatMapTest() {
    const TierId tiers[] = {TierId(0), TierId(1)};
    map_.set_node_tiers(tiers);
  }
  ApplyStats see(Vpn first, const std::vector<EntryObservation>& entries, bool count = true,
                 PageOrder order = kOrder4K, Asid asid = kProcess, bool writes_only = false) {
    std::vector<std::byte> bytes;
    RecordHeader header;
    header.asid = asid;
    header.writes_only = writes_only;
    RecordWriter(bytes).append(header, 0, first, order, entries);
    RecordReader reader(bytes);
    return map_.apply(*reader.next(), count);
  }
  unsigned heat(Vpn vpn) const { return map_.look_up(kProcess, vpn)->first.get(); }
  PageState state(Vpn vpn) const { return map_.look_up(kProcess, vpn)->second; }

  HeatMap map_;
};

TEST_F(HeatMapTest, WorkedExampleOfTheHeader) {
  const unsigned often[] = {4, 4, 0, 0}, seldom[] = {1, 0, 0, 0};
  const unsigned often_heat[] = {64, 96, 78, 69}, seldom_heat[] = {16, 15, 14, 13};
  for (int epoch = 0; epoch < 4; ++epoch) {
    for (unsigned w = 0; w < 4; ++w) {
      map_.set_window_heat(window_heat(w, 4));
      see(Vpn(1000), {on_node(0, w < often[epoch]), on_node(0, w < seldom[epoch])});
    }
    (void)map_.age_and_select(PageCount(10));
    EXPECT_EQ(heat(Vpn(1000)), often_heat[epoch]);
    EXPECT_EQ(heat(Vpn(1001)), seldom_heat[epoch]);
  }
}

TEST_F(HeatMapTest, StatsCountOnlyWhatIsObservable) {
  const ApplyStats stats =
      see(Vpn(510), {on_node(0, true), on_node(1, true), blind(0), absent(), on_node(1, false)});
  EXPECT_EQ(stats.pages, PageCount(3));
  EXPECT_EQ(stats.accessed, PageCount(2));
  EXPECT_EQ(stats.accessed_fast, PageCount(1));
  const Occupancy o = map_.occupancy(kProcess);
  EXPECT_EQ(o.per_tier[0], PageCount(2));
  EXPECT_EQ(o.per_tier[1], PageCount(2));
  EXPECT_EQ(o.unobservable, PageCount(1));
}

TEST_F(HeatMapTest, UncountedRecordsBringPlaceButNoHeat) {
  see(Vpn(7), {on_node(1, true)}, false);
  EXPECT_EQ(heat(Vpn(7)), 0u);
  EXPECT_EQ(state(Vpn(7)).tier(), TierId(1));
}

TEST_F(HeatMapTest, UnknownIsNotCold) {
  for (int w = 0; w < 8; ++w) see(Vpn(0), {on_node(0, true), on_node(0, true)});
  see(Vpn(0), {blind(0), on_node(0, false)});
  for (int epoch = 0; epoch < 8; ++epoch) (void)map_.age_and_select(PageCount(10));
  EXPECT_EQ(heat(Vpn(0)), 128u) << "heat of an unobservable page ages";
  EXPECT_LT(heat(Vpn(1)), 64u);
  EXPECT_TRUE(state(Vpn(0)).unobservable());
  const auto coldest = map_.candidates(TierId(0), Heat(0), Heat(255), false, PageCount(10));
  ASSERT_EQ(coldest.size(), 1u);
  EXPECT_EQ(coldest[0].vpn, Vpn(1));
  see(Vpn(0), {on_node(0, false)});
  EXPECT_EQ(heat(Vpn(0)), 128u);
  EXPECT_FALSE(state(Vpn(0)).unobservable());
}

TEST_F(HeatMapTest, CandidatesAreMovableUnlessOthersAreAskedFor) {
  see(Vpn(0), {on_node(0, true), on_node(0, true), on_node(0, true), blind(0)});
  map_.moved(kProcess, Vpn(0), TierId(0), true, 3);
  map_.mark_stuck(kProcess, Vpn(1));
  const auto hottest = [this](const PageFilter& filter) {
    return map_.candidates(TierId(0), Heat(1), Heat(255), true, PageCount(10), filter).size();
  };
  EXPECT_EQ(hottest({}), 1u);
  PageFilter all;
  all.unmovable = true;
  EXPECT_EQ(hottest(all), 3u) << "of one that can't be observed no heat is known";
}

TEST_F(HeatMapTest, WhatWasNotWrittenMayHaveBeenRead) {
  const auto written = [this](Vpn at, PageOrder order) {
    return see(at, {on_node(0, true), on_node(0, false)}, true, order, kProcess, true);
  };
  for (const auto& [at, order] : {std::pair(Vpn(0), kOrder4K), std::pair(Vpn(1024), kOrder2M)}) {
    EXPECT_EQ(written(at, order).pages, order.pages()) << "of the other nothing is known";
    EXPECT_GT(heat(at), 0u);
    EXPECT_FALSE(state(at).unobservable());
    EXPECT_TRUE(state(at + order.pages()).unobservable());
  }
}

TEST_F(HeatMapTest, PagesOnANodeOfNoTierAreLeftAlone) {
  see(Vpn(0), {on_node(5, true), {std::nullopt, true, true, true, false}});
  EXPECT_EQ(map_.occupancy().unobservable, PageCount(2));
  EXPECT_EQ(state(Vpn(0)).tier(), kNoTier);
  for (std::uint8_t t = 0; t < 8; ++t)
    EXPECT_TRUE(map_.candidates(TierId(t), Heat(0), Heat(255), true, PageCount(9)).empty());
}

TEST_F(HeatMapTest, UnobservablePagesOnTheFastTierTakeRoom) {
  see(Vpn(0), {blind(0), blind(0), on_node(0, true), on_node(1, true), on_node(1, false)});
  const Threshold edge = map_.select(PageCount(4));
  EXPECT_EQ(edge.at_or_above, PageCount(2));
  EXPECT_EQ(edge.heat, Heat(1));
  EXPECT_EQ(edge.below_edge, PageCount(3));
}

TEST_F(HeatMapTest, AbsentPagesAreForgottenAndEmptyBlocksFreed) {
  const Bytes empty = map_.memory();
  see(Vpn(512), std::vector<EntryObservation>(512, on_node(0, true)));
  EXPECT_GT(map_.memory(), empty);
  see(Vpn(512), std::vector<EntryObservation>(512, absent()));
  EXPECT_FALSE(map_.look_up(kProcess, Vpn(512)));
  EXPECT_TRUE(map_.address_spaces().empty());
  EXPECT_EQ(map_.occupancy().per_tier[0], PageCount(0));
  see(Vpn(512), std::vector<EntryObservation>(512, on_node(0, false)));
  EXPECT_EQ(heat(Vpn(512)), 0u) << "heat came back from the dead";
}

TEST_F(HeatMapTest, HugePageSplitsAndMerges) {
  see(Vpn(1024), {on_node(1, true)}, true, kOrder2M);
  EXPECT_EQ(map_.occupancy().per_tier[1], PageCount(512));
  EXPECT_EQ(heat(Vpn(1500)), 16u) << "any page of a huge page is the huge page";
  std::vector<EntryObservation> small(512, on_node(1, false));
  small[3] = on_node(1, true);
  see(Vpn(1024), small);
  EXPECT_EQ(heat(Vpn(1024)), 16u);
  EXPECT_EQ(heat(Vpn(1027)), 32u);
  see(Vpn(1024), {absent()}, true, kOrder2M);
  EXPECT_EQ(heat(Vpn(1027)), 32u) << "an absent huge page says nothing of small ones";
  see(Vpn(1024), {on_node(0, false)}, true, kOrder2M);
  EXPECT_EQ(heat(Vpn(1024)), 32u);
  EXPECT_EQ(map_.occupancy().per_tier[0], PageCount(512));
  EXPECT_EQ(map_.occupancy().per_tier[1], PageCount(0));
}

TEST_F(HeatMapTest, GiantPagesAreOneEntry) {
  const std::uint64_t gib = 1u << 18;
  see(Vpn(gib), {on_node(1, true)}, true, kOrder1G);
  EXPECT_EQ(map_.occupancy().per_tier[1], PageCount(gib));
  EXPECT_LT(map_.memory(), Bytes(10000));
  const auto pages = map_.candidates(TierId(1), Heat(1), Heat(255), true, PageCount(gib));
  ASSERT_EQ(pages.size(), 1u);
  EXPECT_EQ(pages[0].order, kOrder1G);
  see(Vpn(gib + 512), {on_node(1, false)}, true, kOrder2M);
  EXPECT_EQ(heat(Vpn(gib)), 16u);
  EXPECT_EQ(map_.candidates(TierId(1), Heat(0), Heat(255), true, PageCount(gib)).size(), 512u);
}

TEST_F(HeatMapTest, CandidatesComeBestFirstAndStopAtTheLimit) {
  std::vector<EntryObservation> entries;
  for (int w = 1; w <= 3; ++w) {
    entries.assign(6, on_node(1, false));
    for (std::size_t i = 0; i < 6; ++i) entries[i].accessed = static_cast<int>(i) % 3 < w;
    see(Vpn(0), entries);
  }  // heats 48 32 16 48 32 16
  const auto hot = map_.candidates(TierId(1), Heat(17), Heat(255), true, PageCount(3));
  ASSERT_EQ(hot.size(), 3u);
  EXPECT_EQ(hot[0].vpn, Vpn(0));
  EXPECT_EQ(hot[1].vpn, Vpn(3));
  EXPECT_EQ(hot[2].vpn, Vpn(1));
  const auto cold = map_.candidates(TierId(1), Heat(0), Heat(255), false, PageCount(3));
  ASSERT_EQ(cold.size(), 3u);
  EXPECT_EQ(cold[0].vpn, Vpn(2));
  EXPECT_EQ(cold[1].vpn, Vpn(5));
  EXPECT_EQ(cold[2].vpn, Vpn(1));
  EXPECT_TRUE(map_.candidates(TierId(1), Heat(0), Heat(255), true, PageCount(0)).empty());
}

TEST_F(HeatMapTest, AHugePageThatDoesNotFitEndsTheList) {
  see(Vpn(0), {on_node(1, true), on_node(1, true)});
  see(Vpn(512), {on_node(1, true)}, true, kOrder2M);
  see(Vpn(512), {on_node(1, true)}, true, kOrder2M);
  EXPECT_TRUE(map_.candidates(TierId(1), Heat(0), Heat(255), true, PageCount(511)).empty());
  EXPECT_EQ(map_.candidates(TierId(1), Heat(0), Heat(255), true, PageCount(513)).size(), 2u);
  EXPECT_EQ(map_.candidates(TierId(1), Heat(0), Heat(255), false, PageCount(513)).size(), 2u);
}

TEST_F(HeatMapTest, MovedPagesRestForTheirCooldown) {
  see(Vpn(0), {on_node(1, true)});
  map_.moved(kProcess, Vpn(0), TierId(0), true, 2);
  EXPECT_EQ(state(Vpn(0)).tier(), TierId(0));
  EXPECT_TRUE(state(Vpn(0)).promoted());
  EXPECT_EQ(map_.occupancy().per_tier[0], PageCount(1));
  EXPECT_FALSE(state(Vpn(0)).movable());
  see(Vpn(0), {on_node(0, false)});
  EXPECT_EQ(state(Vpn(0)).cooldown(), 2u);
  (void)map_.age_and_select(PageCount(1));
  EXPECT_FALSE(state(Vpn(0)).movable());
  (void)map_.age_and_select(PageCount(1));
  EXPECT_TRUE(state(Vpn(0)).movable());
}

TEST_F(HeatMapTest, StuckUntilSeenElsewhere) {
  see(Vpn(0), {on_node(1, true)});
  map_.mark_stuck(kProcess, Vpn(0));
  see(Vpn(0), {on_node(1, true)});
  EXPECT_TRUE(state(Vpn(0)).stuck());
  EXPECT_TRUE(map_.candidates(TierId(1), Heat(0), Heat(255), true, PageCount(9)).empty());
  see(Vpn(0), {on_node(0, true)});
  EXPECT_TRUE(state(Vpn(0)).movable());
}

TEST_F(HeatMapTest, FadingQuartersTheHeatOfWhatCanBeObserved) {
  map_.set_window_heat(100);
  EntryObservation blind_and_accessed = on_node(1, true);
  std::vector<EntryObservation> block(512, on_node(0, true));
  block[8] = blind_and_accessed;
  see(Vpn(0), block);
  see(Vpn(512), {on_node(1, true), on_node(1, false)});
  see(Vpn(1024), {on_node(1, true)}, true, kOrder2M);
  see(Vpn(1 << 18), {on_node(1, true)}, true, kOrder1G);
  see(Vpn(8), {blind(1)});  // from now on it can't be seen
  const unsigned unseen = heat(Vpn(8));
  see(Vpn(0), {on_node(1, true)}, true, kOrder4K, Asid(43));
  map_.fade(kProcess);
  map_.fade(Asid(99));  // of nobody: nothing happens
  EXPECT_EQ(map_.look_up(Asid(43), Vpn(0))->first.get(), 100u) << "another's";
  EXPECT_EQ(heat(Vpn(0)), 25u);
  EXPECT_EQ(heat(Vpn(511)), 25u);
  EXPECT_EQ(heat(Vpn(8)), unseen);
  EXPECT_EQ(heat(Vpn(512)), 25u);
  EXPECT_EQ(heat(Vpn(513)), 0u);
  EXPECT_EQ(heat(Vpn(1024)), 25u);
  EXPECT_EQ(heat(Vpn(1 << 18)), 25u);
  // What is hot is still found, though no block is hotter than that now.
  EXPECT_EQ(map_.candidates(TierId(0), Heat(20), Heat(30), true, PageCount(1000)).size(), 511u);
  EXPECT_TRUE(map_.candidates(TierId(0), Heat(26), Heat(255), true, PageCount(1000)).empty());
  map_.set_window_heat(255);
  see(Vpn(0), {on_node(0, true)});
  EXPECT_EQ(map_.candidates(TierId(0), Heat(26), Heat(255), true, PageCount(1000)).size(), 1u);
}

TEST_F(HeatMapTest, PagesOfAnIdleRecordAgeAndKeepTheRest) {
  EntryObservation blind = on_node(1, false);
  blind.observable = false;
  std::vector<EntryObservation> block(512, on_node(0, true));
  block[7] = on_node(1, true);
  block[8] = blind;
  block[9] = {};
  see(Vpn(512), block);
  see(Vpn(1024), {on_node(1, true)}, true, kOrder2M);
  see(Vpn(1536), {on_node(0, true), on_node(0, false)});
  const auto idle = [&](Vpn first, std::uint32_t count, PageOrder order) {
    std::vector<std::byte> bytes;
    RecordHeader header;
    header.asid = kProcess;
    RecordWriter(bytes).append_idle(header, 0, first, order, count);
    RecordReader reader(bytes);
    return map_.apply(*reader.next(), true);
  };
  const Occupancy before = map_.occupancy();
  EXPECT_EQ(idle(Vpn(0), 5, kOrder2M).pages, PageCount(510 + 512 + 2));
  EXPECT_EQ(idle(Vpn(512), 1, kOrder2M).pages, PageCount(510));
  EXPECT_EQ(idle(Vpn(512 + 6), 3, kOrder4K).pages, PageCount(2)) << "one of three is blind";
  EXPECT_EQ(idle(Vpn(1 << 18), 1, kOrder1G).pages, PageCount(0));
  EXPECT_EQ(idle(Vpn(0), 1, kOrder1G).accessed, PageCount(0));
  EXPECT_EQ(map_.occupancy().per_tier, before.per_tier);
  EXPECT_EQ(heat(Vpn(512)), 16u);
  EXPECT_TRUE(state(Vpn(520)).unobservable());
  EXPECT_FALSE(map_.look_up(kProcess, Vpn(521)).has_value());
  EXPECT_EQ(state(Vpn(519)).tier(), TierId(1));
  (void)map_.age_and_select(PageCount(10));
  EXPECT_LT(heat(Vpn(512)), 16u);
  EXPECT_LT(heat(Vpn(1024)), 16u);
  std::vector<std::byte> bytes;
  RecordHeader header;
  header.asid = Asid(77);
  RecordWriter(bytes).append_idle(header, 0, Vpn(0), kOrder2M, 1);
  RecordReader reader(bytes);
  (void)map_.apply(*reader.next(), true);
  EXPECT_EQ(map_.address_spaces(), std::vector{kProcess}) << "nothing is known of it";
}

TEST_F(HeatMapTest, ThresholdWhenEverythingFitsOrNothingDoes) {
  see(Vpn(0), {on_node(0, true), on_node(1, true), on_node(1, false)});
  Threshold edge = map_.age_and_select(PageCount(3));
  EXPECT_EQ(edge.heat, Heat(0));
  EXPECT_EQ(edge.at_or_above, PageCount(3));
  edge = map_.age_and_select(PageCount(0));
  EXPECT_TRUE(edge.fits);
  EXPECT_EQ(edge.at_or_above, PageCount(0));
  HeatMap hot(HeatMap::Options{.window_heat = 255});
  std::vector<std::byte> bytes;
  RecordHeader header;
  header.asid = kProcess;
  RecordWriter(bytes).append(header, 0, Vpn(0), kOrder4K, std::vector(4, on_node(0, true)));
  const TierId tiers[] = {TierId(0)};
  hot.set_node_tiers(tiers);
  RecordReader reader(bytes);
  hot.apply(*reader.next(), true);
  edge = hot.select(PageCount(3));
  EXPECT_EQ(edge.heat, Heat(255));
  EXPECT_FALSE(edge.fits);
  EXPECT_EQ(edge.at_or_above, PageCount(4));
}

TEST_F(HeatMapTest, CutsPartBlocksEvenlyAndNoPage) {
  EXPECT_TRUE(map_.cuts(kProcess, 4).empty()) << "nothing is known of it";
  see(Vpn(0), std::vector<EntryObservation>(1024, on_node(0, false)));
  see(Vpn(512 * 100), std::vector<EntryObservation>(512, on_node(1, true)));
  see(Vpn(512 * 200), {on_node(1, true)}, true, kOrder2M);
  EXPECT_TRUE(map_.cuts(kProcess, 1).empty());
  EXPECT_EQ(map_.cuts(kProcess, 2), std::vector{Vpn(512 * 100)});
  EXPECT_EQ(map_.cuts(kProcess, 100), (std::vector{Vpn(512), Vpn(512 * 100), Vpn(512 * 200)}));
  // A page of 1 GiB is on one side.
  see(Vpn(std::uint64_t{1} << 20), {on_node(1, true)}, true, kOrder1G);
  see(Vpn(std::uint64_t{1} << 21), {on_node(1, true)}, true, kOrder2M);
  EXPECT_EQ(map_.cuts(kProcess, 100), std::vector{Vpn(std::uint64_t{1} << 21)});
}

TEST_F(HeatMapTest, BinsCoverTheBlocksThatExist) {
  see(Vpn(0), std::vector<EntryObservation>(1024, on_node(0, false)));
  see(Vpn(512 * 100), std::vector<EntryObservation>(512, on_node(1, true)));
  see(Vpn(512 * 200), {on_node(1, true)}, true, kOrder2M);
  const auto all = map_.bins(kProcess, 100);
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[1].first, Vpn(512));
  EXPECT_EQ(all[1].fast, PageCount(512));
  EXPECT_EQ(all[2].heat_mean, 16u);
  EXPECT_EQ(all[3].present, PageCount(512));
  const auto two = map_.bins(kProcess, 3);
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[0].present, PageCount(1024));
  EXPECT_EQ(two[1].span, PageCount(512 * 101));
  EXPECT_EQ(two[1].heat_mean, 16u);
}

TEST_F(HeatMapTest, ForgetGivesTheMemoryBack) {
  const Bytes empty = map_.memory();
  for (std::uint64_t b = 0; b < 64; ++b)
    see(Vpn(b << 15), std::vector<EntryObservation>(32768, on_node(0, true)), true, kOrder4K,
        Asid(1 + b % 2));
  map_.forget(Asid(1));
  EXPECT_EQ(map_.address_spaces(), std::vector<Asid>{Asid(2)});
  EXPECT_EQ(map_.occupancy().per_tier[0], PageCount(32u << 15));
  map_.forget(Asid(2));
  EXPECT_LT(map_.memory(), empty + Bytes(4096));
}

TEST_F(HeatMapTest, TouchesAreThoseOfTheEpochUntilTheNextEvidence) {
  const Vpn page(1000);
  const auto touches = [&] {
    return map_.candidates(TierId(0), Heat(0), Heat(255), true, PageCount(1)).front().touches;
  };
  const auto epoch = [&](int windows) {
    for (int w = 0; w < 4; ++w) see(page, {on_node(0, w < windows)});
    (void)map_.age_and_select(PageCount(10));
  };
  epoch(3);
  EXPECT_EQ(touches().windows(), 0u) << "not kept unless asked for";
  map_.keep_touches(true);
  epoch(3);
  EXPECT_EQ(touches().windows(), 3u);
  EXPECT_FALSE(touches().before());
  epoch(0);
  EXPECT_EQ(touches().windows(), 0u);
  EXPECT_TRUE(touches().before());
  epoch(2);
  EXPECT_EQ(touches().windows(), 2u);
  EXPECT_FALSE(touches().before());
  (void)map_.age_and_select(PageCount(10));  // an epoch without evidence
  EXPECT_EQ(touches().windows(), 0u);
  EXPECT_TRUE(touches().before());
  map_.keep_touches(false);
  map_.keep_touches(true);
  EXPECT_EQ(touches().raw(), 0u) << "nothing is known of the time in between";
}

TEST_F(HeatMapTest, AddressSpacesCanBeLookedAtApart) {
  for (const std::uint64_t asid : {1, 2, 3})
    see(Vpn(asid * 512), {on_node(0, true)}, true, kOrder4K, Asid(asid));
  const std::set<Asid> one{Asid(2)};
  const auto found =
      map_.candidates(TierId(0), Heat(0), Heat(255), true, PageCount(9), {TouchSet(), &one});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found.front().asid, Asid(2));
  PageCount sum;
  for (const PageCount pages : map_.histogram(TierId(0), true, 1, &one)) sum += pages;
  EXPECT_EQ(sum, PageCount(1));
  see(Vpn(512), std::vector<EntryObservation>(8, on_node(0, true)), true, kOrder4K, Asid(1));
  std::vector<std::uint64_t> pages;
  map_.for_each(TierId(0), {TouchSet(), nullptr, Vpn(514), Vpn(517)}, [&](const PageRef& page) {
    pages.push_back(page.vpn.get());
    return true;
  });
  EXPECT_EQ(pages, (std::vector<std::uint64_t>{514, 515, 516}));
}

TEST_F(HeatMapTest, StateIsTwoBytesAPage) {
  const std::vector<EntryObservation> entries(32768, on_node(1, true));
  constexpr std::uint64_t kRecords = 128;  // 4 Mi pages, 16 GiB
  for (std::uint64_t r = 0; r < kRecords; ++r) see(Vpn(r << 15), entries);
  const std::uint64_t pages = kRecords << 15;
  EXPECT_EQ(map_.occupancy().per_tier[1], PageCount(pages));
  // Two bytes, and 36 bytes a block of 512 of book-keeping.
  EXPECT_LT(map_.memory().get(), pages * 2 + pages * 2 * 5 / 100);
}

}  // namespace
}  // namespace thermocline
