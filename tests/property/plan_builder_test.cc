// SPDX-License-Identifier: Apache-2.0
#include "policies/plan_builder.h"

#include <gtest/gtest.h>

#include <array>

#include "policies/traffic.h"
#include "tracking/record.h"

namespace thermocline {
namespace {

/// Two tiers; pages from 0 on, of which each has its tier and its heat.
class PlanBuilderTest : public testing::Test {
 protected:
  PlanBuilderTest() {
    const std::array tiers{TierId(0), TierId(1)};
    heat_.set_node_tiers(tiers);
    for (unsigned t = 0; t < 2; ++t) {
      tiers_[t].id = TierId(static_cast<std::uint8_t>(t));
      tiers_[t].capacity = tiers_[t].used = PageCount(100);
    }
  }

  /// Takes `windows` of which each touches the pages that are this hot at least.
  void observe(std::span<const unsigned> tier, std::span<const unsigned> touched,
               unsigned windows) {
    for (unsigned w = 0; w < windows; ++w) {
      std::vector<EntryObservation> entries;
      for (std::size_t i = 0; i < tier.size(); ++i)
        entries.push_back(
            {NodeId(static_cast<std::int32_t>(tier[i])), true, true, touched[i] > w, false});
      std::vector<std::byte> bytes;
      RecordHeader header;
      header.asid = Asid(1);
      RecordWriter(bytes).append(header, w, Vpn(0), kOrder4K, entries);
      RecordReader reader(bytes);
      heat_.apply(*reader.next(), true);
    }
  }

  View view() { return {Epoch(1), heat_, tiers_, {}, {}, Budget{PageCount(1000)}}; }
  static PageRef page(std::uint64_t vpn, unsigned tier, unsigned heat) {
    return {Asid(1), Vpn(vpn), kOrder4K, Heat(static_cast<std::uint8_t>(heat)),
            TierId(static_cast<std::uint8_t>(tier))};
  }

  HeatMap heat_;
  std::array<TierView, 2> tiers_{};
};

TEST_F(PlanBuilderTest, PagesGoUpFromATierThatHoldsMoreThanItsShare) {
  tiers_[1].capacity = PageCount(60);
  const auto always = [](const PageRef&) { return true; };
  const std::vector<PageRef> cold{page(1, 0, 0), page(2, 0, 0)};
  std::size_t next = 0;
  {
    const View shown = view();
    PlanBuilder builder(shown);
    EXPECT_EQ(builder.room(1), -40);
    ASSERT_TRUE(builder.promote(page(9, 1, 100), 0, 1, cold, next, always, 0, 1, 2))
        << "as many go down as come up";
    EXPECT_EQ(builder.room(1), -40);
    EXPECT_EQ(next, 1u);
  }
  tiers_[0].capacity = PageCount(101);
  tiers_[0].free = PageCount(1);
  const View shown = view();
  PlanBuilder builder(shown);
  EXPECT_TRUE(builder.promote(page(9, 1, 100), 0, 1, {}, next, always, 0, 1, 2)) << "into room";
  EXPECT_EQ(builder.room(1), -39);
}

TEST_F(PlanBuilderTest, MoreThanComesUpDoesNotGoDownToATierWithoutRoom) {
  // A huge page makes room for a small one.
  tiers_[1].capacity = PageCount(60);
  const PageRef huge{Asid(1), Vpn(512), kOrder2M, Heat(0), TierId(0)};
  std::size_t next = 0;
  const View shown = view();
  PlanBuilder builder(shown);
  EXPECT_FALSE(builder.promote(
      page(9, 1, 100), 0, 1, {huge}, next, [](const PageRef&) { return true; }, 0, 1, 2));
  EXPECT_TRUE(builder.take().demotions.empty());
}

TEST_F(PlanBuilderTest, NoPageIsPlannedTwice) {
  tiers_[0].capacity = PageCount(99);
  tiers_[1].free = PageCount(10);
  tiers_[1].capacity = PageCount(110);
  const View shown = view();
  PlanBuilder builder(shown);
  EXPECT_TRUE(builder.move(page(1, 0, 5), 1, 0));
  EXPECT_TRUE(builder.is_planned(page(1, 0, 5)));
  EXPECT_FALSE(builder.move(page(1, 0, 5), 1, 0));
  EXPECT_FALSE(builder.exchange(page(9, 1, 100), page(1, 0, 5), 0, 1, 0, 1));
  EXPECT_FALSE(builder.is_planned(page(9, 1, 100)));
}

TEST_F(PlanBuilderTest, AShiftPassesOverPagesThatAreLeavingAlready) {
  // Pages 0..3 on the fast tier, the first of them the hottest; the slow one has room.
  const std::array tier{0u, 0u, 0u, 0u}, touched{8u, 7u, 7u, 7u};
  observe(tier, touched, 8);
  tiers_[1].free = PageCount(10);
  tiers_[1].capacity = PageCount(110);
  const View shown = view();
  PlanBuilder builder(shown);
  ASSERT_TRUE(builder.move(page(0, 0, 127), 1, 0));
  EXPECT_TRUE(shift_traffic(shown, builder, 0, 1, 1u << 20, HeatRuler(8), 1, {0, 1}));
  EXPECT_EQ(builder.take().demotions.size(), 4u);
  EXPECT_FALSE(shift_traffic(shown, builder, 0, 1, 0, HeatRuler(8), 1, {0, 1})) << "of nothing";
}

}  // namespace
}  // namespace thermocline
