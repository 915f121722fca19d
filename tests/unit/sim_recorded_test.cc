// SPDX-License-Identifier: Apache-2.0
// A recording as a workload: rates, phases and tenants are those that the records tell.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "emulation/sim/recorded.h"
#include "emulation/sim/spread.h"
#include "tracking/record.h"

namespace thermocline::sim {
namespace {

constexpr std::uint64_t kSpacePages = 2048;
constexpr auto kWindow = std::chrono::milliseconds(10);

/// Epochs of eight windows, after an arming pass each, of one or two address spaces.
class Trace {
 public:
  /// One pass; touched(page) tells which are set. The pages lie in two pieces with a hole between.
  template <class Touched>
  void pass(std::uint64_t asid, std::uint64_t epoch, Nanoseconds window, Touched touched) {
    RecordWriter writer(bytes_);
    RecordHeader header;
    header.asid = Asid(asid);
    header.epoch = Epoch(epoch);
    header.window = window;
    header.scan_time = now_;
    header.cleared = true;
    for (std::uint64_t first = 0; first < kSpacePages; first += kSpacePages / 2) {
      std::vector<EntryObservation> entries(kSpacePages / 2);
      for (std::size_t i = 0; i < entries.size(); ++i)
        entries[i] = {NodeId(0), true, true, touched(first + i), false};
      writer.append(header, 0, Vpn(100 + 3 * first), kOrder4K, entries);
    }
  }
  template <class Touched>
  void epoch(std::uint64_t number, Touched touched, unsigned spaces = 1) {
    for (unsigned w = 0; w <= 8; ++w) {
      // The first pass ends a window in which nobody looked: all that was used since is set.
      for (std::uint64_t asid = 1; asid <= spaces; ++asid)
        pass(asid, number, w == 0 ? std::chrono::seconds(1) : kWindow,
             [&](std::uint64_t page) { return w == 0 || touched(asid, page, w); });
      now_ += w == 8 ? std::chrono::seconds(1) : kWindow;
    }
  }
  [[nodiscard]] Result<std::shared_ptr<const Recorded>> read(Bytes largest = Bytes(64u
                                                                                   << 20)) const {
    MemoryRecords source(bytes_);
    return read_recorded(source, "dir/app.tct", largest);
  }

 private:
  std::vector<std::byte> bytes_;
  Nanoseconds now_ = std::chrono::seconds(100);
};

double share_of(const Phase& phase, std::uint64_t page) {
  return phase.share[phase.classes[page]];
}

TEST(SimRecorded, ATouchInSoManyWindowsIsARate) {
  Trace trace;
  // A quarter of the pages in half of the windows, a quarter in all, a quarter in one, and none.
  for (std::uint64_t e = 1; e <= 6; ++e)
    trace.epoch(e, [](std::uint64_t, std::uint64_t page, unsigned w) {
      return page % 4 == 0 ? w <= 4 : page % 4 == 1 ? true : page % 4 == 2 && w == 3;
    });
  const auto recorded = trace.read();
  ASSERT_TRUE(recorded) << recorded.error().message;
  EXPECT_EQ((*recorded)->pages, kSpacePages);
  EXPECT_THAT((*recorded)->name, testing::StartsWith("trace:app.tct@"));
  const double window = 0.01;
  const double half = -std::log1p(-4.0 / 8) / window, all = -std::log1p(-7.5 / 8) / window,
               one = -std::log1p(-1.0 / 8) / window;
  EXPECT_NEAR((*recorded)->least_rate / (kSpacePages / 4 * (half + all + one)), 1, 0.05);
  const Workload workload = (*recorded)->kind.make({}, 0, 1);
  Phase phase;
  for (const std::uint64_t number : {0, 3, 1000}) {
    workload.fill(number, phase);
    ASSERT_EQ(phase.classes.size(), kSpacePages);
    EXPECT_NEAR(share_of(phase, 1) / share_of(phase, 0), all / half, 0.1 * all / half);
    EXPECT_NEAR(share_of(phase, 0) / share_of(phase, 2), half / one, 0.1 * half / one);
    EXPECT_EQ(share_of(phase, 3), 0);
    double sum = 0;
    for (std::uint64_t page = 0; page < kSpacePages; ++page) sum += share_of(phase, page);
    EXPECT_NEAR(sum, 1, 1e-9);
  }
}

TEST(SimRecorded, PhasesComeWhenTheyCameAndTenantsAreApart) {
  Trace trace;
  // Of the first address space one half is used, then the other; of the second always one page.
  for (std::uint64_t e = 1; e <= 10; ++e)
    trace.epoch(
        e,
        [&](std::uint64_t asid, std::uint64_t page, unsigned) {
          return asid == 2 ? page == 7 : (page < kSpacePages / 2) == (e <= 5);
        },
        2);
  const auto recorded = trace.read();
  ASSERT_TRUE(recorded) << recorded.error().message;
  EXPECT_EQ((*recorded)->processes, 2u);
  EXPECT_EQ((*recorded)->pages, 2 * kSpacePages);
  const Workload workload = (*recorded)->kind.make({}, 0, 1);
  ASSERT_EQ(workload.tenants.size(), 2u);
  EXPECT_EQ(workload.tenants[1].first, kSpacePages);
  // An epoch and its pause are 1.08 s.
  EXPECT_NEAR((*recorded)->seconds, 10 * 1.08 - 1, 0.1);
  Phase phase;
  const auto at = [&](double seconds) {
    std::uint64_t number = 0;
    while (workload.phase_start(number + 1) <= seconds) ++number;
    workload.fill(number, phase);
  };
  for (const double early : {0.1, 2.0, 4.5}) {
    at(early);
    EXPECT_GT(share_of(phase, 0), 0) << early;
    EXPECT_EQ(share_of(phase, kSpacePages - 1), 0) << early;
    EXPECT_GT(share_of(phase, kSpacePages + 7), 0);
    EXPECT_EQ(share_of(phase, kSpacePages + 8), 0);
  }
  for (const double late : {6.5, 8.0, 9.5}) {
    at(late);
    EXPECT_EQ(share_of(phase, 0), 0) << late;
    EXPECT_GT(share_of(phase, kSpacePages - 1), 0) << late;
  }
  // Then it begins again.
  at((*recorded)->seconds + 2);
  EXPECT_GT(share_of(phase, 0), 0);
}

TEST(SimRecorded, HugePagesAndOddRangesAreAllTheirPages) {
  std::vector<std::byte> bytes;
  RecordWriter writer(bytes);
  RecordHeader header;
  header.asid = Asid(1);
  header.window = kWindow;
  header.cleared = true;
  for (unsigned w = 0; w < 8; ++w) {
    header.scan_time = std::chrono::seconds(1) + w * kWindow;
    const std::vector<EntryObservation> huge(3, {NodeId(0), true, true, w % 2 == 0, false});
    writer.append(header, 0, Vpn(1024), kOrder2M, huge);
    std::vector<EntryObservation> small(700, {NodeId(0), true, true, false, false});
    small[699].accessed = true;
    writer.append(header, 1, Vpn(4096 + 100), kOrder4K, small);
  }
  MemoryRecords source(bytes);
  const auto recorded = read_recorded(source, "x");
  ASSERT_TRUE(recorded) << recorded.error().message;
  EXPECT_EQ((*recorded)->pages, 3 * 512 + 700);
  Phase phase;
  (*recorded)->kind.make({}, 0, 1).fill(0, phase);
  EXPECT_GT(share_of(phase, 0), 0);
  EXPECT_EQ(share_of(phase, 0), share_of(phase, 3 * 512 - 1));
  EXPECT_EQ(share_of(phase, 3 * 512 + 698), 0);
  EXPECT_GT(share_of(phase, 3 * 512 + 699), share_of(phase, 0));
}

TEST(SimRecorded, WhatCannotBePlayedIsRefused) {
  const auto why = [](const Trace& trace, Bytes largest = Bytes(64u << 20)) {
    const auto recorded = trace.read(largest);
    return recorded ? std::string("it was taken") : recorded.error().message;
  };
  EXPECT_THAT(why(Trace{}), testing::HasSubstr("tells of 0 pages"));
  Trace unknown;
  unknown.pass(1, 1, Nanoseconds(0), [](std::uint64_t) { return true; });
  EXPECT_THAT(why(unknown), testing::HasSubstr("no window of known length"));
  Trace idle;
  idle.epoch(1, [](std::uint64_t, std::uint64_t, unsigned) { return false; });
  EXPECT_THAT(why(idle), testing::HasSubstr("no touch"));
  Trace large;
  for (std::uint64_t e = 1; e <= 4; ++e)
    large.epoch(e, [](std::uint64_t, std::uint64_t, unsigned) { return true; });
  EXPECT_EQ(why(large), "it was taken");
  EXPECT_THAT(why(large, Bytes(kSpacePages * 4)), testing::HasSubstr("4 slices of time"));
  EXPECT_THAT(why(large, Bytes(1024)), testing::HasSubstr("more than"));
}

TEST(SimRecorded, ThinkTimeGivesTheRate) {
  Machine machine;
  machine.tiers = {{100, 1e6, 0}, {300, 1e6, 0}};
  for (const double rate : {1e5, 1e7, 1e8}) {
    machine.think_ns = think_ns_for(machine, rate);
    EXPECT_NEAR(throughput(machine, {1, 0}) / rate, 1, 0.01);
  }
  EXPECT_EQ(think_ns_for(machine, 1e12), 0);
}

}  // namespace
}  // namespace thermocline::sim
