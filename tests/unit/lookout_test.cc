// SPDX-License-Identifier: Apache-2.0
#include "engine/lookout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "heat/heat_map.h"
#include "heat/scale.h"
#include "tracking/record.h"

namespace thermocline {
namespace {

using Change = Lookout::Change;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr Asid kOne{42}, kTwo{43};
constexpr std::size_t kPages = 2048;  ///< of each
constexpr Nanoseconds kWindow{1'000'000};

/// Two address spaces whose pages are always touched, and looks that find so many of them touched.
class LookoutTest : public testing::Test {
 protected:
  LookoutTest() {
    const TierId tiers[] = {TierId(0)};
    heat_.set_node_tiers(tiers);
    heat_.set_window_heat(kAlwaysHot);
    for (const Asid asid : {kOne, kTwo}) heat_.apply(*record(asid, kPages), true);
  }

  std::optional<RecordView> record(Asid asid, std::size_t touched) {
    bytes_.clear();
    std::vector<EntryObservation> pages(kPages, {NodeId(0), true, true, false, false});
    for (std::size_t i = 0; i < touched; ++i) pages.at(i).accessed = true;
    RecordHeader header;
    header.asid = asid;
    RecordWriter(bytes_).append(header, 0, Vpn(0), kOrder4K, pages);
    reader_.emplace(bytes_);
    return reader_->next();
  }
  Change look(std::size_t one, std::size_t two = 0) {
    lookout_.begin();
    lookout_.take(*record(kOne, one));
    lookout_.take(*record(kTwo, two));
    return lookout_.compare();
  }
  Change after(const std::vector<std::size_t>& before, std::size_t touched) {
    lookout_.choose(heat_, TierId(0), kWindow);
    for (const std::size_t one : before) (void)look(one);
    return look(touched);
  }

  HeatMap heat_;
  Lookout lookout_;

 private:
  std::vector<std::byte> bytes_;
  std::optional<RecordReader> reader_;
};

TEST_F(LookoutTest, LooksAtAFewPagesOfEachAddressSpace) {
  lookout_.choose(heat_, TierId(0), kWindow);
  ASSERT_EQ(lookout_.parts().size(), 2u);
  std::size_t pages = 0;
  for (const Lookout::Part& part : lookout_.parts()) {
    EXPECT_GE(part.ranges.size(), 32u);
    pages += part.ranges.size();
  }
  EXPECT_LE(pages, 128u) << "of 4096";
}

TEST_F(LookoutTest, MuchLessOrMuchMoreThanBeforeIsAChange) {
  EXPECT_EQ(after({}, 0), Change::kNone) << "nothing to compare with";
  EXPECT_EQ(after({100, 100}, 60), Change::kNone) << "three fifths";
  EXPECT_EQ(after({100, 100}, 59), Change::kLess);
  EXPECT_EQ(after({100, 100}, 166), Change::kNone);
  EXPECT_EQ(after({100, 100}, 168), Change::kMore);
  EXPECT_EQ(after({0}, 64), Change::kMore);
  EXPECT_EQ(after({64, 65, 65, 65}, 36), Change::kLess);
}

TEST_F(LookoutTest, AFewTouchedPagesMoreOrLessMeanNothing) {
  EXPECT_EQ(after({23, 23}, 0), Change::kNone);
  EXPECT_EQ(after({0, 0}, 23), Change::kNone);
  EXPECT_EQ(after({24, 24}, 0), Change::kLess);
  EXPECT_EQ(after({36, 36}, 20), Change::kNone) << "less than three deviations of a count";
}

TEST_F(LookoutTest, WhereLooksDifferAnywayOnlyMoreThanThatIsAChange) {
  EXPECT_EQ(after({90, 10, 90, 10}, 10), Change::kNone) << "a scan that comes and goes";
  EXPECT_EQ(after({90, 10, 90, 10}, 120), Change::kNone);
  EXPECT_EQ(after({90, 10, 90, 10}, 400), Change::kMore);
}

TEST_F(LookoutTest, WhoseHotPagesAreHardlyTouchedAnyMoreIsNamed) {
  lookout_.choose(heat_, TierId(0), kWindow);
  (void)look(64, 64);
  EXPECT_EQ(look(64, 10), Change::kLess);
  EXPECT_THAT(lookout_.gone(), ElementsAre(kTwo));
  EXPECT_EQ(look(0, 0), Change::kLess);
  EXPECT_THAT(lookout_.gone(), ElementsAre(kOne, kTwo));
  lookout_.choose(heat_, TierId(0), kWindow);
  (void)look(64, 64);
  EXPECT_EQ(look(30, 30), Change::kLess);
  EXPECT_THAT(lookout_.gone(), IsEmpty()) << "half is not gone";
}

TEST_F(LookoutTest, AFirstLookIsHeldAgainstThoseAtOtherPages) {
  const auto first = [&](std::size_t touched, Nanoseconds window = kWindow) {
    lookout_.choose(heat_, TierId(0), kWindow);
    for (int i = 0; i < 4; ++i) (void)look(50, 50);
    lookout_.choose(heat_, TierId(0), window);
    return look(touched / 2, touched - touched / 2);
  };
  EXPECT_EQ(first(100), Change::kNone);
  EXPECT_EQ(first(41), Change::kNone);
  EXPECT_EQ(first(39), Change::kLess);
  EXPECT_THAT(lookout_.gone(), IsEmpty());
  EXPECT_EQ(first(9), Change::kLess);
  EXPECT_THAT(lookout_.gone(), ElementsAre(kOne, kTwo)) << "heat expects as much of both";
  EXPECT_EQ(first(1000), Change::kNone) << "heat may still be young";
  EXPECT_EQ(first(39, 2 * kWindow), Change::kLess) << "no fewer are touched in longer windows";
  EXPECT_EQ(first(21, kWindow / 2), Change::kNone);
  EXPECT_EQ(first(19, kWindow / 2), Change::kLess);
  // Each by what is usual for it.
  lookout_.choose(heat_, TierId(0), kWindow);
  for (int i = 0; i < 3; ++i) (void)look(100, 10);
  lookout_.choose(heat_, TierId(0), kWindow);
  EXPECT_EQ(look(0, 10), Change::kLess);
  EXPECT_THAT(lookout_.gone(), ElementsAre(kOne)) << "the other is touched as seldom as before";
  (void)after({200, 0, 200, 0}, 100);
  lookout_.choose(heat_, TierId(0), kWindow);
  EXPECT_EQ(look(0), Change::kNone) << "where looks differ anyway";
  // Half as hot: half as much is expected.
  lookout_.choose(heat_, TierId(0), kWindow);
  for (int i = 0; i < 4; ++i) (void)look(50, 50);
  heat_.fade(kOne);
  heat_.fade(kTwo);
  lookout_.choose(heat_, TierId(0), kWindow);
  EXPECT_EQ(look(15, 15), Change::kNone);
}

TEST_F(LookoutTest, ALookThatMissesPagesSaysNothing) {
  lookout_.choose(heat_, TierId(0), kWindow);
  (void)look(64, 64);
  lookout_.begin();
  lookout_.take(*record(kOne, 64));
  lookout_.miss();
  EXPECT_EQ(lookout_.compare(), Change::kNone);
  EXPECT_EQ(look(0, 0), Change::kNone) << "a first one again";
  EXPECT_EQ(look(64, 64), Change::kMore);
}

}  // namespace
}  // namespace thermocline
