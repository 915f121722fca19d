// SPDX-License-Identifier: Apache-2.0
#include "tracking/synthetic_tracker.h"

#include <gtest/gtest.h>

#include <set>

#include "told.h"

namespace thermocline {
namespace {

constexpr std::uint64_t kPages = 20000;  // several records

SyntheticLoad load_of(TouchChance chance) {
  SyntheticLoad load;
  load.pages = PageCount(kPages);
  load.chance = std::move(chance);
  return load;
}

std::unique_ptr<Tracker> attached(const SyntheticLoad& load) {
  auto tracker = make_synthetic_tracker(load);
  EXPECT_TRUE(tracker->attach({Pid(1), 1, Asid(7), "made"}));
  return tracker;
}

/// Pages that were touched in a window.
std::set<std::uint64_t> touched(const SyntheticLoad& load, std::uint64_t window) {
  std::set<std::uint64_t> pages;
  for (std::uint64_t p = 0; p < kPages; ++p)
    if (load.touched(p, window)) pages.insert(p);
  return pages;
}

double share(std::size_t n) {
  return static_cast<double>(n) / static_cast<double>(kPages);
}

TEST(Synthetic, TellsWhatHappenedWindowByWindow) {
  const SyntheticLoad load = load_of(uniform_touches(0.3));
  const auto tracker = attached(load);
  for (std::uint64_t window = 0; window < 3; ++window) {
    const Scanned seen = scan_with(*tracker, request_for(Asid(7)));
    ASSERT_EQ(seen.pages.size(), kPages);
    for (std::uint64_t p = 0; p < kPages; ++p)
      ASSERT_EQ(seen.pages.at(load.first.get() + p), (Told{true, load.touched(p, window), -1}))
          << p;
    EXPECT_EQ(seen.stats.accessed, touched(load, window).size());
    EXPECT_NEAR(share(seen.stats.accessed), 0.3, 0.02);
  }
}

TEST(Synthetic, ItsClockGoesByTheWindows) {
  const auto tracker = attached(load_of(uniform_touches(0.3)));
  ScanRequest request = request_for(Asid(7));
  for (const int end : {5, 10, 15}) {
    request.window = Nanoseconds(5);
    const Scanned seen = scan_with(*tracker, request);
    EXPECT_EQ(RecordReader(seen.bytes).next()->scan_time, Nanoseconds(end));
  }
}

TEST(Synthetic, TheSameSeedIsTheSameAndAnotherIsNot) {
  SyntheticLoad load = load_of(uniform_touches(0.3));
  const auto first = scan_with(*attached(load), request_for(Asid(7))).bytes;
  EXPECT_EQ(scan_with(*attached(load), request_for(Asid(7))).bytes, first);
  load.seed = 2;
  EXPECT_NE(scan_with(*attached(load), request_for(Asid(7))).bytes, first);
}

TEST(Synthetic, AHotSetStaysAndAMovingOneIsDrawnAnew) {
  const auto shared = [](const SyntheticLoad& load, std::uint64_t a, std::uint64_t b) {
    const auto first = touched(load, a), second = touched(load, b);
    std::size_t both = 0;
    for (const std::uint64_t p : first) both += second.count(p);
    return share(both);
  };
  const SyntheticLoad still = load_of(hot_set_touches(0.2, 1, 0, 5));
  EXPECT_NEAR(share(touched(still, 0).size()), 0.2, 0.02);
  EXPECT_EQ(touched(still, 0), touched(still, 1000));
  const SyntheticLoad moving = load_of(moving_touches(0.2, 1, 0, 10, 5));
  EXPECT_EQ(touched(moving, 0), touched(moving, 9));
  EXPECT_NEAR(shared(moving, 9, 10), 0.04, 0.01) << "no more in common than by chance";
}

TEST(Synthetic, ZipfHasAFewPagesThatAreAlwaysTouchedAndManyThatSeldomAre) {
  const SyntheticLoad load = load_of(zipf_touches(PageCount(kPages), 2000, 1, 3));
  std::map<std::uint64_t, int> windows;
  double chances = 0;
  for (std::uint64_t p = 0; p < kPages; ++p) chances += load.chance(p, 0);
  for (std::uint64_t w = 0; w < 20; ++w)
    for (const std::uint64_t p : touched(load, w)) ++windows[p];
  std::size_t always = 0;
  for (const auto& [page, n] : windows) always += n == 20;
  // Of weight 1/rank, 2000 accesses over 20000 pages: rank 60 is missed in 4 % of the windows.
  EXPECT_GE(always, 30u);
  EXPECT_LE(always, 120u);
  EXPECT_NEAR(static_cast<double>(touched(load, 0).size()), chances, 100);
}

TEST(Synthetic, AScanSweepsOverAllPagesInTurn) {
  const SyntheticLoad load = load_of(scan_touches(PageCount(kPages), PageCount(8000)));
  EXPECT_EQ(*touched(load, 1).begin(), 8000u);
  EXPECT_EQ(touched(load, 1).size(), 8000u);
  const auto third = touched(load, 2);  // 16000 to the end, and 4000 from the begin on
  EXPECT_TRUE(third.contains(19999) && third.contains(0) && third.contains(3999));
  EXPECT_FALSE(third.contains(4000) || third.contains(15999));
}

TEST(Synthetic, MissesAndDelaysAsMuchAsItIsAskedTo) {
  SyntheticLoad load = load_of(uniform_touches(0.5));
  load.missed = 0.2;
  load.delay = 2;
  const auto tracker = attached(load);
  for (std::uint64_t window = 0; window < 4; ++window) {
    const Scanned seen = scan_with(*tracker, request_for(Asid(7)));
    std::size_t told = 0, wrong = 0;
    for (const auto& [page, t] : seen.pages) {
      ASSERT_EQ(t.observable, window >= 2);
      told += t.accessed;
      wrong += t.accessed && !load.touched(page - load.first.get(), window - 2);
    }
    EXPECT_EQ(wrong, 0u);
    EXPECT_NEAR(share(told), window < 2 ? 0.0 : 0.4, 0.02);
  }
}

TEST(Synthetic, NodesAreWhereThePagesAreNow) {
  SyntheticLoad load = load_of(uniform_touches(0));
  std::vector<int> place(kPages, 1);
  load.node_of = [&place](std::uint64_t page) { return NodeId(place[page]); };
  const auto tracker = attached(load);
  place[3] = 0;
  const auto pages = scan_with(*tracker, request_for(Asid(7))).pages;
  EXPECT_EQ(pages.at(load.first.get() + 3).node, 0);
  EXPECT_EQ(pages.at(load.first.get() + 4).node, 1);
}

}  // namespace
}  // namespace thermocline
