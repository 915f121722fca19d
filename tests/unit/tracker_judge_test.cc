// SPDX-License-Identifier: Apache-2.0
// How `bench trackers` judges: what is planned, what a guest wrote, what follows from it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "bench/trackers/hot_pages.h"
#include "bench/trackers/judge.h"
#include "bench/trackers/plan.h"
#include "bench/trackers/row.h"
#include "cli/tracker_rows_report.h"

namespace thermocline::trackers {
namespace {

using testing::HasSubstr;
using testing::Not;

/// 100 pages from 1000 on, of which the first ten are hot in the last phase, which begins at 1 s of
/// a run of 3 s. The clock was at 5 s when it began.
constexpr std::uint64_t kStart = 5'000'000'000;
constexpr std::uint64_t kRoom = 10;

suite::Truth truth() {
  suite::Truth t;
  t.phases_ns = {1'000'000'000};
  t.end_ns = 3'000'000'000;
  for (std::uint64_t page = 0; page < 100; ++page)
    t.last_phase_pages.emplace_back(1000 + page, page < kRoom ? 100 + page : page % 7);
  return t;
}

std::vector<bool> pages(std::uint64_t first, std::uint64_t count) {
  std::vector<bool> hot(100);
  for (std::uint64_t i = first; i < first + count; ++i) hot[i] = true;
  return hot;
}

Watch::Look look(double at_s, std::vector<bool> hot, double cpu_s = 0, double tracking_s = 0) {
  const auto ns = [](double s) { return static_cast<std::uint64_t>(std::llround(s * 1e9)); };
  return {kStart + ns(at_s), ns(cpu_s), 0, ns(tracking_s), std::move(hot)};
}

Watch watch(std::vector<Watch::Look> looks) {
  Watch w;
  w.tracker = "bpf";
  w.regions = {{1000, 60}, {1060, 40}};
  w.looks = std::move(looks);
  return w;
}

Judgement judged(const Watch& w) {
  const auto j = judge(w, truth(), kStart, kRoom);
  EXPECT_TRUE(j) << j.error().message;
  return *j;
}

TEST(TrackerJudge, RecallAndPrecisionAreOfTheSettledHalfByTime) {
  // Settled is from 2 s to 3 s: 0.25 s of the first, 0.5 s of the second, 0.25 s of the third.
  const Judgement j = judged(watch({look(1.5, pages(2, 8)), look(2.25, pages(5, 10)),
                                    look(2.75, std::vector<bool>(100)), look(3.2, pages(0, 10))}));
  EXPECT_DOUBLE_EQ(*j.recall, 0.25 * 0.8 + 0.5 * 0.5);
  EXPECT_DOUBLE_EQ(*j.precision, (0.25 * 1.0 + 0.5 * 0.5) / 0.75);
  const Judgement late = judged(watch({look(2.5, pages(0, 10))}));
  EXPECT_DOUBLE_EQ(*late.recall, 0.5) << "nothing is known before the first look";
}

TEST(TrackerJudge, ALookBeforeThePhaseStillHolds) {
  const Judgement j = judged(watch({look(0.5, pages(0, 10))}));
  EXPECT_DOUBLE_EQ(*j.recall, 1.0);
  EXPECT_DOUBLE_EQ(*j.delay_s, 0.0);
}

TEST(TrackerJudge, NothingHeldForHotHasNoPrecision) {
  const Judgement j = judged(watch({look(2.2, std::vector<bool>(100))}));
  EXPECT_EQ(j.recall, 0.0);
  EXPECT_FALSE(j.precision);
  EXPECT_FALSE(j.delay_s);
}

TEST(TrackerJudge, ATrackerThatNeverLooksFindsNothing) {
  EXPECT_EQ(judged(watch({})).recall, 0.0);
  Watch alone = watch({look(1.0, {}), look(2.0, {})});
  alone.tracker = kNone;
  EXPECT_FALSE(judged(alone).recall) << "there was none";
}

TEST(TrackerJudge, TheDelayIsUntilNineTenthsThatStay) {
  const auto all = pages(0, 10), most = pages(0, 9), few = pages(0, 8);
  EXPECT_DOUBLE_EQ(
      *judged(watch({look(0.5, all), look(1.1, few), look(1.4, most), look(2.5, all)})).delay_s,
      0.4);
  EXPECT_DOUBLE_EQ(
      *judged(watch({look(1.1, all), look(1.4, few), look(1.75, most), look(2.5, all)})).delay_s,
      0.75);
  EXPECT_FALSE(judged(watch({look(1.1, all), look(2.5, few)})).delay_s);
}

TEST(TrackerJudge, WhatTheProgramDidNotGetIsTheTrackersButForTheLooking) {
  Watch w = watch({look(0.0, {}, 7.0), look(2.0, {}, 8.5)});
  w.looks[1].own_cpu_ns = 100'000'000;
  EXPECT_NEAR(*judged(w).cpu_share, (2.0 - 1.5 - 0.1) / 2, 1e-9);
}

/// The first look in the run, and four epochs, which took 4 us of CPU time for 100 pages: 10 ns a
/// page and epoch. The second that ended in the phase found what is hot.
Watch watch_of_four_epochs() {
  Watch w = watch({look(-0.2, {}, 6.0, 9e-6), look(0.8, {}, 7.0, 10e-6),
                   look(1.1, pages(0, 8), 7.2, 12e-6), look(1.5, pages(0, 10), 7.5, 12.5e-6),
                   look(2.0, pages(0, 10), 8.0, 13e-6), look(2.8, pages(0, 10), 8.8, 14e-6)});
  w.cost.entries = 200;
  w.scans_ranges = true;
  return w;
}

TEST(TrackerJudge, AnEpochCostsWhatTheEngineCountsByThePage) {
  const Judgement j = judged(watch_of_four_epochs());
  EXPECT_NEAR(*j.epoch_ns_per_page, 10, 1e-9);
  // 16,777,216 pages of 10 ns are 0.16777216 s of CPU time, and that is 1 % of 16.777216 s.
  EXPECT_NEAR(*j.epoch_64gib_s, 16.777216, 1e-9);
}

TEST(TrackerJudge, After64GibsWorthOfAsManyEpochsAsMuchIsFound) {
  const Judgement j = judged(watch_of_four_epochs());
  EXPECT_EQ(j.delay_epochs, 2.0);
  EXPECT_NEAR(*j.delay_s, 0.5, 1e-9);
  EXPECT_NEAR(*j.delay_64gib_s, 33.554432, 1e-9);
  EXPECT_EQ(j.recall_64gib, 1.0);
  EXPECT_EQ(j.recall_64gib, j.recall);
  EXPECT_EQ(j.precision_64gib, j.precision);
}

TEST(TrackerJudge, WhatIsNeverFoundHasNoDelayAtAnySize) {
  Watch w = watch_of_four_epochs();
  for (Watch::Look& look : w.looks) look.hot = pages(0, 8);
  const Judgement j = judged(w);
  EXPECT_FALSE(j.delay_epochs);
  EXPECT_FALSE(j.delay_64gib_s);
  EXPECT_EQ(j.recall_64gib, 0.8);
}

TEST(TrackerJudge, LongerWindowsAreOtherEvidenceSoNothingButTheCostIsScaled) {
  Watch w = watch_of_four_epochs();
  w.scans_ranges = false;
  const Judgement j = judged(w);
  EXPECT_TRUE(j.epoch_64gib_s);
  EXPECT_FALSE(j.recall_64gib);
  EXPECT_FALSE(j.precision_64gib);
  EXPECT_FALSE(j.delay_64gib_s);
}

TEST(TrackerJudge, CostThatHasNothingToDoWithPagesIsNotScaled) {
  Watch w = watch_of_four_epochs();
  w.cost.entries = 0;
  EXPECT_FALSE(judged(w).epoch_ns_per_page);
  EXPECT_FALSE(judged(w).epoch_64gib_s);
  w = watch_of_four_epochs();
  w.tracker = kNone;
  EXPECT_FALSE(judged(w).epoch_64gib_s) << "there was none";
  EXPECT_FALSE(judged(w).delay_epochs);
}

TEST(TrackerJudge, HeatIsRankedAgainstMisses) {
  Watch w = watch({look(2.5, pages(0, 10))});
  for (const auto& [page, misses] : truth().last_phase_pages)
    w.heat.push_back(static_cast<std::uint8_t>(misses));
  EXPECT_DOUBLE_EQ(*judged(w).rank_correlation, 1.0);
  std::fill(w.heat.begin(), w.heat.end(), std::uint8_t{5});
  EXPECT_FALSE(judged(w).rank_correlation) << "all alike tells nothing";
}

TEST(TrackerJudge, SpearmansCorrelationSharesTheRanksOfTies) {
  const std::vector<double> a{1, 2, 3, 4, 5}, reversed{9, 7, 5, 3, 1}, tied{1, 1, 2, 2, 3};
  EXPECT_DOUBLE_EQ(*rank_correlation(a, a), 1.0);
  EXPECT_DOUBLE_EQ(*rank_correlation(a, reversed), -1.0);
  EXPECT_NEAR(*rank_correlation(a, tied), 0.9486832980505138, 1e-12);
}

TEST(TrackerJudge, CostIsByTheEntry) {
  Watch w = watch({look(2.5, pages(0, 10))});
  w.cost = {200, 1000};
  suite::Truth t = truth();
  t.scan_instructions = 2400;
  const auto j = judge(w, t, kStart, kRoom);
  ASSERT_TRUE(j);
  EXPECT_EQ(j->instr_per_entry, 12.0);
  EXPECT_EQ(j->ns_per_entry, 5.0);
}

TEST(TrackerJudge, ATruthOfOtherPagesIsRefused) {
  Watch w = watch({});
  w.regions = {{5000, 100}};
  EXPECT_FALSE(judge(w, truth(), kStart, kRoom));
}

TEST(HotPages, AreAsManyAsThereIsRoomForAsNearAsTheirHeatTells) {
  const auto count = [](std::initializer_list<std::pair<int, int>> heats, std::uint64_t room) {
    std::vector<std::uint8_t> heat(300);
    std::size_t at = 0;
    for (const auto& [pages, h] : heats)
      for (int i = 0; i < pages; ++i) heat[at++] = static_cast<std::uint8_t>(h);
    const auto hot = hot_pages(heat, room);
    return std::count(hot.begin(), hot.end(), true);
  };
  EXPECT_EQ(count({{90, 60}, {12, 59}}, 100), 102);
  EXPECT_EQ(count({{90, 60}, {20, 59}}, 100), 90) << "110 would be too many";
  EXPECT_EQ(count({{90, 60}, {4, 59}, {15, 58}}, 100), 94);
  EXPECT_EQ(count({{100, 60}, {3, 59}, {2, 58}}, 100), 100) << "nearer than 103 and 105";
  EXPECT_EQ(count({{110, 60}}, 100), 0) << "they can't be told apart";
  EXPECT_EQ(count({{20, 60}}, 100), 20) << "no heat is not hot";
  EXPECT_EQ(count({}, 100), 0);
}

TEST(WatchFile, ComesBackAsItWas) {
  Watch w = watch({look(1.0, pages(3, 9), 0.5, 0.25), look(2.0, {})});
  w.scans_ranges = true;
  w.cost = {1, 2};
  w.heat.assign(100, 0xa5);
  const auto back = parse_watch(to_text(w));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->tracker, "bpf");
  EXPECT_EQ(back->pages(), 100u);
  ASSERT_EQ(back->looks.size(), 2u);
  EXPECT_EQ(back->looks[0].hot, pages(3, 9));
  EXPECT_EQ(back->looks[0].target_cpu_ns, 500'000'000u);
  EXPECT_EQ(back->looks[0].tracking_cpu_ns, 250'000'000u);
  EXPECT_TRUE(back->scans_ranges);
  EXPECT_TRUE(back->looks[1].hot.empty());
  EXPECT_EQ(back->heat, w.heat);
  EXPECT_EQ(back->cost.cpu_ns, 2u);
}

TEST(WatchFile, PartsThatDoNotFitAreRefused) {
  const auto refused = [](const std::string& text) { return !parse_watch(text); };
  const std::string good = to_text(watch({look(1.0, pages(3, 9))}));
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  EXPECT_FALSE(refused(good));
  EXPECT_TRUE(refused(""));
  EXPECT_TRUE(refused(good.substr(0, good.size() / 2)));
  EXPECT_TRUE(refused(with("[1060,40]", "[1060,41000]"))) << "more pages than bits";
  EXPECT_TRUE(refused(with("[1060,40]", "[1060,18446744073709551615]")));
  EXPECT_TRUE(refused(with("[1060,40]", "[1060,-1]")));
  EXPECT_TRUE(refused(with("\"heat\":\"\"", "\"heat\":\"00\"")));
  EXPECT_TRUE(refused(with("\"at_ns\":", "\"at\":")));
  EXPECT_TRUE(refused(with("\"scans_ranges\":false", "\"scans_ranges\":0")));
}

TEST(TrackersPlan, EveryTrackerAtEveryBudgetAndTheProgramAloneOnce) {
  TrackersOptions o;
  o.patterns = {"moving", "90-10"};
  o.budgets = {0.001, 0.01};
  const auto runs = plan_runs(o, {"kmod", "refs"});
  ASSERT_TRUE(runs) << runs.error().message;
  ASSERT_EQ(runs->size(), 2 * (1 + 2 * 2));
  EXPECT_EQ((*runs)[0].tracker, kNone);
  EXPECT_EQ((*runs)[0].budget, 0);
  EXPECT_EQ((*runs)[0].pattern.name, "90-10");
}

TEST(TrackersPlan, TwoTrackersCanBeCombined) {
  EXPECT_THAT(sources_of("damon+written"), testing::ElementsAre("damon", "written"));
  EXPECT_THAT(sources_of("damon"), testing::ElementsAre("damon"));
  TrackersOptions o;
  o.trackers = {"kmod+refs", "kmod", "kmod+refs"};
  o.patterns = {"zipf"};
  const auto runs = plan_runs(o, {"kmod", "refs"});
  ASSERT_TRUE(runs) << runs.error().message;
  ASSERT_EQ(runs->size(), 2u);
  EXPECT_EQ((*runs)[0].tracker, "kmod");
  EXPECT_EQ((*runs)[1].tracker, "kmod+refs");
}

TEST(TrackersPlan, WhatIsNotThereOrCanNotBeIsSaid) {
  const auto refusal = [](auto change) {
    TrackersOptions o;
    change(o);
    const auto runs = plan_runs(o, {"kmod", "refs"});
    return runs ? std::string("planned") : runs.error().message;
  };
  EXPECT_THAT(refusal([](TrackersOptions& o) { o.trackers = {"kmodd"}; }), HasSubstr("\"kmod\""));
  EXPECT_THAT(refusal([](TrackersOptions& o) { o.trackers = {"kmod+reff"}; }),
              HasSubstr("did you mean \"refs\"?"));
  EXPECT_THAT(refusal([](TrackersOptions& o) { o.trackers = {"kmod+none"}; }),
              HasSubstr("there is no tracker \"none\""));
  EXPECT_THAT(refusal([](TrackersOptions& o) { o.trackers = {"kmod+"}; }),
              HasSubstr("there is no tracker \"\""));
  EXPECT_THAT(refusal([](TrackersOptions& o) { o.trackers = {"kmod+refs+kmod"}; }),
              HasSubstr("two trackers"));
  EXPECT_THAT(refusal([](TrackersOptions& o) { o.patterns = {"zip"}; }), HasSubstr("\"zipf\""));
  EXPECT_THAT(refusal([](TrackersOptions& o) { o.budgets = {0}; }), HasSubstr("0.0001 to 1"));
  EXPECT_THAT(refusal([](TrackersOptions& o) { o.footprint = Bytes(1 << 20); }),
              HasSubstr("footprint"));
  EXPECT_THAT(refusal([](TrackersOptions& o) { o.footprint = Bytes((160 << 20) + 4096); }),
              HasSubstr("multiple"));
  EXPECT_EQ(refusal([](TrackersOptions&) {}), "planned");
}

Row row(const std::string& tracker, double budget, std::optional<double> recall) {
  Row r;
  r.tracker = tracker;
  r.pattern = "90-10";
  r.kernel = "6.12";
  r.timing = "cxl-asic";
  r.budget = budget;
  r.footprint = Bytes(1 << 28);
  r.result.recall = recall;
  return r;
}

TEST(TrackerRows, ComeBackAndALaterOneTakesThePlaceOfItsLike) {
  const std::string text = to_json(row("kmod", 0.01, 0.5)).dump() + "\n" +
                           to_json(row("refs", 0.01, std::nullopt)).dump() + "\n" +
                           to_json(row("kmod", 0.01, 0.75)).dump() + "\n";
  const auto rows = parse_rows(text);
  ASSERT_TRUE(rows) << rows.error().message;
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_FALSE((*rows)[0].result.recall);
  EXPECT_EQ((*rows)[1].result.recall, 0.75);
  EXPECT_FALSE(parse_rows(text + "{}\n"));
}

TEST(TrackerRows, ATrackerThatIsNotThereIsNoFailure) {
  Row gone = row("idle", 0.03, std::nullopt);
  gone.unsupported = "this kernel has no bitmap";
  const auto json = to_json(gone);
  EXPECT_EQ(json["unsupported"], "this kernel has no bitmap");
  EXPECT_EQ(json["error"], "");
  EXPECT_TRUE(json["recall"].is_null());
  const auto back = parse_rows(json.dump() + "\n");
  ASSERT_TRUE(back);
  EXPECT_EQ((*back)[0].unsupported, gone.unsupported);
  EXPECT_EQ(to_json(row("kmod", 0.03, 1.0))["unsupported"], "");
  Row other = gone;
  other.budget = 0.01;
  const std::vector<Row> rows{gone, other};
  EXPECT_THAT(cli::tracker_rows_table(rows), HasSubstr("not there: this kernel has no bitmap"));
  const std::string page = cli::tracker_rows_markdown(rows, "thermocline bench trackers", "p-");
  EXPECT_THAT(page, HasSubstr("| idle | 3 % | not there: this kernel has no bitmap | | | | | | |"));
  EXPECT_THAT(page, Not(HasSubstr("| idle | 1 %")));
  EXPECT_THAT(page, Not(HasSubstr("by CPU budget"))) << "there is nothing to draw";
}

TEST(TrackerRows, RowsOfOlderBuildsAreRead) {
  auto json = to_json(row("kmod", 0.03, 1.0));
  json.erase("unsupported");
  json.erase("recall_64gib");
  const auto rows = parse_rows(json.dump());
  ASSERT_TRUE(rows) << rows.error().message;
  EXPECT_EQ((*rows)[0].result.recall, 1.0);
  EXPECT_FALSE((*rows)[0].result.recall_64gib);
}

TEST(TrackerRows, APageTellsWhatFollowsFor64Gib) {
  Row kmod = row("kmod", 0.03, 0.995), bpf = row("bpf", 0.03, 0.9);
  kmod.result.precision = kmod.result.precision_64gib = 0.98;
  kmod.result.recall_64gib = 0.995;
  kmod.result.epoch_ns_per_page = 10;
  kmod.result.epoch_64gib_s = 16.777216;
  kmod.result.delay_epochs = 2;
  kmod.result.delay_64gib_s = 33.554432;
  bpf.result.epoch_ns_per_page = 20;
  bpf.result.epoch_64gib_s = 33.554432;
  const std::string page =
      cli::tracker_rows_markdown({kmod, bpf, row("damon", 0.03, 0.5)}, "thermocline", "p-");
  EXPECT_THAT(page, HasSubstr("16777216 pages"));
  EXPECT_THAT(page, HasSubstr("| kmod | 90-10 | 99.5 %, 98.0 % at 3 % | 99.5 % | 98.0 % | 10.0 | "
                              "0.17 s | 17 s | 2 | 34 s |"));
  EXPECT_THAT(page, HasSubstr("| bpf | 90-10 | 90.0 %, - at 3 % | - | - | 20.0 | 0.34 s | 34 s | - "
                              "| - |"));
  EXPECT_THAT(page, Not(HasSubstr("| damon | 90-10 |")));
}

TEST(TrackerRows, PagesShowFailuresAndTheCurve) {
  Row failed = row("bpf", 0.03, std::nullopt);
  failed.error = "the guest hung";
  const std::vector<Row> rows{row("none", 0, std::nullopt), row("kmod", 0.001, 0.25),
                              row("kmod", 0.03, 0.995), failed};
  const std::string page = cli::tracker_rows_markdown(rows, "thermocline bench trackers", "p-");
  EXPECT_THAT(page, HasSubstr("| kmod | 3 % | 99.5 % "));
  EXPECT_THAT(page, HasSubstr("failed: the guest hung"));
  EXPECT_THAT(page, HasSubstr("25.0 % (-), -"));
  EXPECT_THAT(page, HasSubstr("p-kmod.svg"));
  EXPECT_THAT(page, Not(HasSubstr("p-bpf.svg")));
  EXPECT_THAT(cli::tracker_rows_table(rows), HasSubstr("failed: the guest hung"));
  EXPECT_THAT(cli::tracker_curve_svg(rows, "kmod"), HasSubstr("90-10"));
}

}  // namespace
}  // namespace thermocline::trackers
