// SPDX-License-Identifier: Apache-2.0
#include "engine/lookout.h"

#include <gtest/gtest.h>

#include <vector>

#include "tracking/record.h"

namespace thermocline {
namespace {

using Change = Lookout::Change;

/// Looks that find so many touched pages.
class LookoutTest : public testing::Test {
 protected:
  Change look(std::size_t touched) {
    std::vector<std::byte> bytes;
    std::vector<EntryObservation> pages(512, {NodeId(0), true, true, false, false});
    for (std::size_t i = 0; i < touched; ++i) pages.at(i).accessed = true;
    RecordHeader header;
    header.asid = Asid(42);
    RecordWriter(bytes).append(header, 0, Vpn(0), kOrder4K, pages);
    RecordReader reader(bytes);
    lookout_.begin();
    while (const auto record = reader.next()) lookout_.take(*record);
    return lookout_.compare();
  }
  Change after(const std::vector<std::size_t>& before, std::size_t touched) {
    lookout_.clear();
    for (const std::size_t one : before) (void)look(one);
    return look(touched);
  }
  Lookout lookout_;
};

TEST_F(LookoutTest, MuchLessOrMuchMoreThanBeforeIsAChange) {
  EXPECT_EQ(after({}, 0), Change::kNone) << "nothing to compare with";
  EXPECT_EQ(after({100, 100}, 60), Change::kNone) << "three fifths";
  EXPECT_EQ(after({100, 100}, 59), Change::kLess);
  EXPECT_EQ(after({100, 100}, 166), Change::kNone);
  EXPECT_EQ(after({100, 100}, 168), Change::kMore);
  EXPECT_EQ(after({0}, 64), Change::kMore);
  EXPECT_EQ(after({64}, 17), Change::kLess);
  EXPECT_EQ(after({64}, 15), Change::kGone) << "less than a quarter";
}

TEST_F(LookoutTest, AFewTouchedPagesMoreOrLessMeanNothing) {
  EXPECT_EQ(after({23, 23}, 0), Change::kNone);
  EXPECT_EQ(after({0, 0}, 23), Change::kNone);
  EXPECT_EQ(after({24, 24}, 0), Change::kGone);
  EXPECT_EQ(after({36, 36}, 20), Change::kNone) << "less than three deviations of a count";
}

TEST_F(LookoutTest, WhereLooksDifferAnywayOnlyMoreThanThatIsAChange) {
  EXPECT_EQ(after({90, 10, 90, 10}, 10), Change::kNone) << "a scan that comes and goes";
  EXPECT_EQ(after({90, 10, 90, 10}, 120), Change::kNone);
  EXPECT_EQ(after({90, 10, 90, 10}, 400), Change::kMore);
}

}  // namespace
}  // namespace thermocline
