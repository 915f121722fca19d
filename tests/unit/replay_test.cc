// SPDX-License-Identifier: Apache-2.0
// Recordings played to policies on virtual tiers.
#include "emulation/replay/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "cli/oracle.h"
#include "cli/replay_report.h"
#include "emulation/replay/virtual_tiers.h"
#include "told.h"
#include "tracking/synthetic_tracker.h"

namespace thermocline::replay {
namespace {

constexpr Nanoseconds kWindow = std::chrono::milliseconds(100);

/// Passes as a recorder makes them: the first has no window, and each has an epoch of its own.
class Recorded {
 public:
  /// Passes [from, to) of a process that is touched so.
  void add(std::uint64_t asid, SyntheticLoad load, std::uint64_t from, std::uint64_t to) {
    const auto tracker = make_synthetic_tracker(load);
    ProcessIdentity process;
    process.asid = Asid(asid);
    ASSERT_TRUE(tracker->attach(process));
    for (std::uint64_t n = from; n < to; ++n) {
      ScanRequest request = request_for(process.asid);
      request.epoch = Epoch(n + 1);
      request.window = n == from ? Nanoseconds(0) : kWindow;
      std::vector<std::byte> bytes = scan_with(*tracker, request).bytes;
      // The synthetic clock stands for its windows: all passes of one number are of one time.
      const auto time = static_cast<std::uint64_t>((n + 1) * kWindow.count());
      for (std::size_t at = 0; at < bytes.size();) {
        std::memcpy(bytes.data() + at + 40, &time, 8);  // scan_ns
        std::uint32_t size = 0;
        std::memcpy(&size, bytes.data() + at + 8, 4);
        at += size;
      }
      auto& pass = passes_[n];
      pass.insert(pass.end(), bytes.begin(), bytes.end());
    }
  }
  [[nodiscard]] std::unique_ptr<RecordSource> source() const {
    std::vector<std::byte> all;
    for (const auto& [n, bytes] : passes_) all.insert(all.end(), bytes.begin(), bytes.end());
    return std::make_unique<MemoryRecords>(std::move(all));
  }

 private:
  std::map<std::uint64_t, std::vector<std::byte>> passes_;
};

/// Hot at the end of the addresses, where first touch comes last.
SyntheticLoad hot_end(std::uint64_t pages, std::uint64_t hot) {
  SyntheticLoad load;
  load.pages = PageCount(pages);
  load.chance = [=](std::uint64_t page, std::uint64_t) {
    return page >= pages - hot ? 0.95 : 0.05;
  };
  return load;
}

Outcome play_or_fail(const Recorded& recorded, const Options& options) {
  const auto surveyed = survey(*recorded.source());
  EXPECT_TRUE(surveyed) << surveyed.error().message;
  auto outcome = play(recorded.source(), *surveyed, options);
  EXPECT_TRUE(outcome) << outcome.error().message;
  return *outcome;
}

TEST(VirtualTiers, PlaceByFirstTouchAndMoveWhileThereIsRoom) {
  VirtualTiers tiers({PageCount(2), PageCount(9)});
  const Asid a(1);
  EXPECT_EQ(tiers.settle(a, Vpn(5), kOrder4K), TierId(0));
  EXPECT_EQ(tiers.settle(a, Vpn(6), kOrder4K), TierId(0));
  EXPECT_EQ(tiers.settle(a, Vpn(7), kOrder4K), TierId(1)) << "the fast tier is full";
  EXPECT_EQ(tiers.settle(a, Vpn(5), kOrder4K), TierId(0)) << "it stays where it is";
  EXPECT_EQ(tiers.move(a, Vpn(7), kOrder4K, TierId(0)), MoveOutcome::kNoMemory);
  EXPECT_EQ(tiers.move(a, Vpn(8), kOrder4K, TierId(0)), MoveOutcome::kGone);
  EXPECT_EQ(tiers.move(a, Vpn(7), kOrder4K, TierId(5)), MoveOutcome::kRefused);
  EXPECT_EQ(tiers.move(a, Vpn(5), kOrder4K, TierId(1)), MoveOutcome::kMoved);
  EXPECT_EQ(tiers.move(a, Vpn(7), kOrder4K, TierId(0)), MoveOutcome::kMoved);
  EXPECT_EQ(tiers.used(TierId(0)), PageCount(2));
  tiers.release(a, Vpn(0), Vpn(7));
  EXPECT_EQ(tiers.used(TierId(0)), PageCount(1));
  EXPECT_EQ(tiers.used(TierId(1)), PageCount(0));
  EXPECT_EQ(tiers.settle(Asid(2), Vpn(7), kOrder4K), TierId(0)) << "another address space";
}

TEST(VirtualTiers, AHugePageComesTogether) {
  VirtualTiers tiers({PageCount(600), PageCount(4096)});
  const Asid a(1);
  EXPECT_EQ(tiers.settle(a, Vpn(512), kOrder2M), TierId(0));
  EXPECT_EQ(tiers.settle(a, Vpn(1024), kOrder2M), TierId(1)) << "88 pages are left";
  EXPECT_EQ(tiers.settle(a, Vpn(1536), kOrder4K), TierId(0));
  EXPECT_EQ(tiers.settle(a, Vpn(1536), kOrder2M), TierId(1)) << "its parts collapsed";
  EXPECT_EQ(tiers.used(TierId(0)), PageCount(512));
  EXPECT_EQ(tiers.used(TierId(1)), PageCount(1024));
  EXPECT_EQ(tiers.move(a, Vpn(512), kOrder2M, TierId(1)), MoveOutcome::kMoved);
  EXPECT_EQ(tiers.used(TierId(0)), PageCount(0));
}

TEST(ReplayPolicy, FirstTouchHasTheShareThatArithmeticSays) {
  // Page 0 is touched in every second window, page 1 in each; the fast tier holds page 0.
  SyntheticLoad load;
  load.pages = PageCount(2);
  load.chance = [](std::uint64_t page, std::uint64_t window) {
    return page == 1 || window % 2 == 0 ? 1.0 : 0.0;
  };
  Recorded recorded;
  recorded.add(7, load, 0, 41);  // pass 0 has no window, so 40 windows: 20 touches and 40
  const Outcome outcome = play_or_fail(recorded, {.ratio = {1, 1}, .policy = "static"});
  EXPECT_EQ(outcome.fast, PageCount(1));
  EXPECT_EQ(outcome.accessed_page_windows, PageCount(60));
  EXPECT_EQ(outcome.accessed_page_windows_fast, PageCount(20));
  EXPECT_EQ(outcome.epochs.size(), 5u);
  EXPECT_EQ(outcome.moves.promotions.tried, PageCount(0));
}

TEST(ReplayPolicy, HeatComesNearTheBestStaticPlacement) {
  Recorded recorded;
  recorded.add(7, hot_end(3000, 800), 0, 161);
  const auto surveyed = survey(*recorded.source());
  ASSERT_TRUE(surveyed);
  EXPECT_EQ(surveyed->footprint, PageCount(3000));
  EXPECT_EQ(surveyed->windows, 160u);
  EXPECT_EQ(surveyed->windows_left_out, 1u);
  EXPECT_EQ(surveyed->median_window, kWindow);
  const Outcome first_touch = play_or_fail(recorded, {.ratio = {1, 2}, .policy = "static"});
  const Outcome heat = play_or_fail(recorded, {.ratio = {1, 2}, .policy = "heat"});
  const auto best =
      oracle::best_static_placement(*recorded.source(), {.fast_pages = PageCount(1000)});
  ASSERT_TRUE(best);
  EXPECT_EQ(heat.accessed_page_windows, best->accessed_page_windows) << "every window is evidence";
  EXPECT_EQ(heat.accessed_page_windows, first_touch.accessed_page_windows);
  EXPECT_LT(first_touch.hit_ratio(), 0.1);
  EXPECT_GT(heat.hit_ratio(), 0.85 * best->best_share());
  EXPECT_LE(heat.hit_ratio(), best->best_share());
  EXPECT_GE(heat.moves.promotions.applied, PageCount(800));
  PageCount promoted, fast;
  for (const EpochOutcome& e : heat.epochs) {
    promoted += e.promoted;
    fast += e.accessed_page_windows_fast;
  }
  EXPECT_EQ(promoted, heat.moves.promotions.applied);
  EXPECT_EQ(fast, heat.accessed_page_windows_fast);
}

TEST(ReplayPolicy, IsTheSameEveryTime) {
  Recorded recorded;
  recorded.add(7, hot_end(2000, 500), 0, 60);
  recorded.add(9, hot_end(1000, 300), 0, 60);
  const Outcome a = play_or_fail(recorded, {.ratio = {1, 3}});
  const Outcome b = play_or_fail(recorded, {.ratio = {1, 3}});
  EXPECT_EQ(a.accessed_page_windows_fast, b.accessed_page_windows_fast);
  EXPECT_EQ(a.moves.demotions.applied, b.moves.demotions.applied);
  EXPECT_GT(a.moves.demotions.applied, PageCount(0));
}

TEST(ReplayPolicy, TheRateLimitHoldsForEveryEpoch) {
  Recorded recorded;
  recorded.add(7, hot_end(4000, 1000), 0, 81);
  // 800 ms an epoch: 100 pages in it.
  const Options options{.ratio = {1, 2}, .rate_limit = Bytes(125 * kPageSize)};
  const Outcome outcome = play_or_fail(recorded, options);
  EXPECT_GT(outcome.moves.promotions.applied, PageCount(100));
  for (const EpochOutcome& e : outcome.epochs)
    EXPECT_LE((e.promoted + e.demoted).get(), 512u) << "one batch, in which the limit is kept";
  EXPECT_LE((outcome.moves.promotions.applied + outcome.moves.demotions.applied).get(),
            outcome.epochs.size() * 150 + 512);
}

TEST(ReplayPolicy, ProcessesComeAndGo) {
  Recorded recorded;
  recorded.add(7, hot_end(1000, 200), 0, 40);
  recorded.add(9, hot_end(600, 200), 60, 100);  // when the first one has long gone
  const auto surveyed = survey(*recorded.source());
  ASSERT_TRUE(surveyed);
  EXPECT_EQ(surveyed->footprint, PageCount(1000));
  EXPECT_EQ(surveyed->address_spaces, 2u);
  const Outcome outcome = play_or_fail(recorded, {.ratio = {3, 2}, .policy = "static"});
  const auto all = oracle::best_static_placement(*recorded.source(), {});
  EXPECT_EQ(outcome.accessed_page_windows, all->accessed_page_windows);
  EXPECT_GT(outcome.hit_ratio(), 0.5) << "the second has the fast tier to itself";
}

TEST(ReplayPolicy, RefusesWhatCannotBe) {
  for (const char* ratio : {"", "1", "1:0", "0:1", "1:2:3", "a:b", "1:1025", "-1:2"}) {
    const auto parsed = parse_ratio(ratio);
    ASSERT_FALSE(parsed) << ratio;
    EXPECT_EQ(parsed.error().kind, ErrorKind::kUsage);
  }
  EXPECT_EQ(parse_ratio("2:3")->slow, 3u);
  Recorded recorded;
  recorded.add(7, hot_end(10, 2), 0, 20);
  const auto surveyed = survey(*recorded.source());
  ASSERT_TRUE(surveyed);
  EXPECT_FALSE(play(recorded.source(), *surveyed, {.ratio = {1, 100}}));
  EXPECT_EQ(play(recorded.source(), *surveyed, {.policy = "hat"}).error().kind, ErrorKind::kUsage);
  Recorded first_only;
  first_only.add(7, hot_end(10, 2), 0, 1);
  EXPECT_EQ(survey(*first_only.source()).error().kind, ErrorKind::kFailure);
  MemoryRecords text(std::vector<std::byte>(300, std::byte{'x'}));
  EXPECT_EQ(survey(text).error().kind, ErrorKind::kCorrupt);
  std::vector<std::byte> idle;
  RecordWriter(idle).append_idle(
      {.asid = Asid(1), .epoch = Epoch(1), .window = kWindow, .cleared = true}, 0, Vpn(0), kOrder2M,
      1);
  MemoryRecords pruned(std::move(idle));
  EXPECT_THAT(survey(pruned).error().message, testing::HasSubstr("pruned"));
}

TEST(ReplayPolicy, ReportsPoliciesBesideTheBestStaticPlacement) {
  Recorded recorded;
  recorded.add(7, hot_end(300, 100), 0, 41);
  cli::ReplayReport report;
  report.trace = "t.tct";
  report.ratio = {1, 2};
  report.survey = *survey(*recorded.source());
  report.best = *oracle::best_static_placement(*recorded.source(), {.fast_pages = PageCount(100)});
  report.outcomes = {play_or_fail(recorded, {}), play_or_fail(recorded, {.policy = "static"})};
  const std::string text = cli::replay_text(report);
  EXPECT_THAT(text, testing::HasSubstr("static (first touch)"));
  EXPECT_THAT(text, testing::HasSubstr("best static"));
  EXPECT_THAT(text, testing::HasSubstr("1:2 of the 1.2 MiB"));
  EXPECT_THAT(text, testing::HasSubstr("(modelled)"));
}

}  // namespace
}  // namespace thermocline::replay
