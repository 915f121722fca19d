// SPDX-License-Identifier: Apache-2.0
// What a table of the benchmark suite says. All records are made up, and the expected figures are
// worked out by hand.
#include "bench/suite/summary.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "bench/suite/plan.h"

namespace thermocline::suite {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(RatioOverSeeds, TakesSeedsThatBothHaveInPairs) {
  // Ratios 2 and 4: mean sqrt(8), logs 0.693 and 1.386, standard error 0.3466, t(1) = 12.706.
  const BySeed a{{1, std::log(2)}, {2, std::log(8)}};
  const BySeed b{{1, std::log(1)}, {2, std::log(2)}};
  const Estimate ratio = ratio_over_seeds(a, b).value();
  EXPECT_NEAR(ratio.value, std::sqrt(8), 1e-12);
  EXPECT_EQ(ratio.seeds, 2u);
  ASSERT_TRUE(ratio.interval);
  const double half = 12.706 * std::log(2) / 2;
  EXPECT_NEAR(std::log(ratio.interval->low), 1.5 * std::log(2) - half, 1e-9);
  EXPECT_NEAR(std::log(ratio.interval->high), 1.5 * std::log(2) + half, 1e-9);
}

TEST(RatioOverSeeds, LeavesOutSeedsThatOneSideHasNot) {
  // The second seed would make it 10 / 1.
  const BySeed a{{1, std::log(2)}};
  const BySeed b{{1, 0}, {2, -10}, {3, 10}};
  for (const auto& [ratio, wanted] :
       {std::pair(ratio_over_seeds(a, b), 2.0), std::pair(ratio_over_seeds(b, a), 0.5)}) {
    ASSERT_TRUE(ratio);
    EXPECT_NEAR(ratio->value, wanted, 1e-12);
    EXPECT_EQ(ratio->seeds, 1u);
    EXPECT_FALSE(ratio->interval) << "a single seed doesn't tell how far it varies";
  }
  EXPECT_FALSE(ratio_over_seeds({{1, 0}}, {{2, 0}})) << "no seed in common";
}

double first_mean(std::span<const std::vector<double>> rows) {
  double sum = 0;
  for (const auto& row : rows) sum += row[0];
  return sum / static_cast<double>(rows.size());
}

TEST(Bootstrap, DrawsSeeds) {
  // Two seeds: a quarter of the draws has the first twice, a quarter the second twice.
  const auto e = bootstrap({{"w", {{{1, 10}, {2, 20}}}}}, first_mean);
  ASSERT_TRUE(e && e->interval);
  EXPECT_EQ(e->value, 15);
  EXPECT_EQ(e->interval->low, 10);
  EXPECT_EQ(e->interval->high, 20);
}

TEST(Bootstrap, DrawsGroupsAndTheirCells) {
  const auto groups = bootstrap({{"a", {{{1, 10}}}}, {"b", {{{1, 20}}}}}, first_mean);
  ASSERT_TRUE(groups && groups->interval);
  EXPECT_EQ(groups->interval->low, 10);
  EXPECT_EQ(groups->interval->high, 20);
  const auto cells = bootstrap({{"a", {{{1, 10}}}}, {"a", {{{1, 20}}}}}, first_mean);
  ASSERT_TRUE(cells && cells->interval);
  EXPECT_EQ(cells->interval->low, 10);
  EXPECT_EQ(cells->interval->high, 20);
}

TEST(Bootstrap, KeepsPairsTogether) {
  // Seed by seed the second is the first + 1, so their difference never varies.
  const auto e = bootstrap({{"w", {{{1, 10}, {2, 20}}, {{1, 11}, {2, 21}}}}},
                           [](auto rows) { return rows[0][1] - rows[0][0]; });
  ASSERT_TRUE(e && e->interval);
  EXPECT_EQ(e->interval->low, 1);
  EXPECT_EQ(e->interval->high, 1);
}

TEST(Bootstrap, HasNoIntervalWhereNothingCanVary) {
  EXPECT_FALSE(bootstrap({}, first_mean));
  const auto e = bootstrap({{"w", {{{1, 10}}}}}, first_mean);
  ASSERT_TRUE(e);
  EXPECT_FALSE(e->interval);
  EXPECT_FALSE(bootstrap({{"w", {{{1, 1}}}}}, [](auto) { return std::nullopt; }));
}

TEST(Bootstrap, HasNoIntervalWhereDrawsHaveNoMeaning) {
  // A quarter of the draws has the first seed twice.
  const auto e = bootstrap({{"w", {{{1, -10}, {2, 20}}}}}, [](auto rows) {
    return rows[0][0] > 0 ? std::optional<double>(rows[0][0]) : std::nullopt;
  });
  ASSERT_TRUE(e);
  EXPECT_EQ(e->value, 5);
  EXPECT_FALSE(e->interval);
}

TEST(Bootstrap, SameInputSameBits) {
  std::vector<Sample> samples;
  for (int i = 0; i < 12; ++i)
    samples.push_back({std::string(1, static_cast<char>('a' + i / 3)),
                       {{{1, 0.1 * i}, {2, 0.2 * i}, {3, 0.15 * i}}}});
  const auto once = bootstrap(samples, first_mean);
  const auto again = bootstrap(samples, first_mean);
  EXPECT_EQ(once->interval->low, again->interval->low);
  EXPECT_EQ(once->interval->high, again->interval->high);
  EXPECT_LT(once->interval->low, once->value);
  EXPECT_GT(once->interval->high, once->value);
}

/// Time in units of all-fast's, whole and steady.
CellRecord made_up(const std::string& workload, const std::string& ratio, const std::string& system,
                   double time, double steady, std::uint64_t seed = 1) {
  CellRecord r;
  r.key = {workload, ratio, system, "cxl-asic", "reference", "6.12", seed};
  r.done = true;
  r.ops_per_s = 1e6 / time;
  r.steady_ops_per_s = 1e6 / steady;
  r.version = "v1";
  return r;
}

void add_bounds(std::vector<CellRecord>& records, const std::string& workload) {
  records.push_back(made_up(workload, "-", "all-fast", 1, 1));
  records.push_back(made_up(workload, "-", "all-slow", 2.5, 2.5));
}

/// Of the catalogue.
std::size_t core_workloads() {
  const auto& all = suite_workloads();
  return static_cast<std::size_t>(
      std::count_if(all.begin(), all.end(), [](const SuiteWorkload& w) { return w.core; }));
}

/// "btree" is won at 1:2 and lost at 1:8.
std::vector<CellRecord> small_table() {
  std::vector<CellRecord> records;
  add_bounds(records, "btree");
  const auto add = [&records](const std::string& ratio, const std::string& system, double time,
                              double steady) {
    records.push_back(made_up("btree", ratio, system, time, steady));
  };
  add("1:2", "thermocline:auto", 1.25, 1.1);
  add("1:2", "numab", 2, 1.5);
  add("1:2", "numab@tuned", 1.5, 1.6);
  add("1:2", "damos", 1.75, 1.75);
  add("1:2", "first-touch", 1.25, 1.25);
  add("1:2", "oracle-static", 1.1, 1.1);
  add("1:8", "thermocline:auto", 2, 1.6);
  add("1:8", "numab", 1.6, 1.5);
  add("1:8", "damos", 1.8, 1.8);
  add("1:8", "first-touch", 1.9, 1.9);
  add("1:8", "oracle-static", 1.5, 1.5);
  return records;
}

const Table& only_table(const Summary& summary) {
  EXPECT_THAT(summary.tables, SizeIs(1));
  return summary.tables.at(0);
}

TEST(Summary, TheBetterSettingOfTheBetterRivalCounts) {
  const Summary summary = summarize(small_table(), {});
  const Table& table = only_table(summary);
  ASSERT_THAT(table.cells, SizeIs(2));
  const Cell& cell = table.cells[0];
  EXPECT_EQ(cell.ratio, "1:2");
  EXPECT_TRUE(cell.core);
  EXPECT_NEAR(cell.find("numab")->slowdown->value, 2, 1e-12);
  EXPECT_NEAR(cell.find("all-slow")->slowdown->value, 2.5, 1e-12);

  const Comparison& rival = cell.against(kBetterRival);
  EXPECT_EQ(rival.whole->system, "numab@tuned");
  EXPECT_NEAR(rival.whole->ratio.value, 1.5 / 1.25, 1e-12);
  EXPECT_EQ(rival.steady->system, "numab") << "each measure has its own better one";
  EXPECT_NEAR(rival.steady->ratio.value, 1.5 / 1.1, 1e-12);
  EXPECT_EQ(cell.against("damos").whole->system, "damos");
  EXPECT_FALSE(cell.against("interleave").whole);

  EXPECT_EQ(verdict(rival.whole), Verdict::kWin);
  EXPECT_EQ(verdict(cell.against("first-touch").whole), Verdict::kTie);
  EXPECT_EQ(verdict(cell.against("interleave").whole), Verdict::kUnknown);
  EXPECT_EQ(verdict(table.cells[1].against(kBetterRival).whole), Verdict::kLoss);
}

TEST(Summary, GapAndOracle) {
  const Summary summary = summarize(small_table(), {});
  const Cell& cell = only_table(summary).cells[0];
  EXPECT_NEAR(cell.oracle_gain->value, 1.5 / 1.1, 1e-12);
  EXPECT_NEAR(*cell.gap_closed, 0.25 / 0.4, 1e-12);
  EXPECT_NEAR(*cell.steady_gap_closed, 1, 1e-12);
  EXPECT_NEAR(cell.of_oracle->value, 1, 1e-12);
  EXPECT_FALSE(cell.hot_set_fits) << "nobody told the oracle's hit ratio";
}

TEST(Summary, GoalsAreJudgedByTheFigureAndItsInterval) {
  std::vector<CellRecord> records = small_table();
  for (CellRecord& record : records)
    if (record.key.system == "oracle-static") record.steady_fast_hit_ratio = 0.86;
  const Summary summary = summarize(records, {});
  const Table& table = only_table(summary);
  ASSERT_THAT(table.goals, SizeIs(9));
  // 1.5 / 1.25 and 1.6 / 2.
  EXPECT_NEAR(table.goals[0].figure->value, std::sqrt(1.2 * 0.8), 1e-12);
  EXPECT_EQ(table.goals[0].reached, false);
  EXPECT_THAT(
      table.goals[0].detail,
      HasSubstr(fmt::format("2 of {} core cells; lowest 0.800, btree 1:8", 3 * core_workloads())));
  // Only at 1:2 the oracle is worth while.
  EXPECT_NEAR(table.goals[1].figure->value, 1.2, 1e-12);
  EXPECT_EQ(table.goals[1].reached, true);
  // 0.25 - 0.4 of 0.4 + 0.1; steady: 0.4 - 0.1 of 0.4 + 0, as our loss at 1:8 counts though there
  // is no gap.
  EXPECT_NEAR(table.goals[2].figure->value, -0.15 / 0.5, 1e-12);
  EXPECT_EQ(table.goals[2].reached, false);
  EXPECT_NEAR(table.goals[3].figure->value, 0.75, 1e-12);
  EXPECT_THAT(
      table.goals[3].detail,
      HasSubstr(fmt::format("2 of {} core cells; 1 with the better rival at or past the oracle",
                            3 * core_workloads())));
  EXPECT_NEAR(table.goals[4].figure->value, 0.25 / 0.4, 1e-12);
  EXPECT_FALSE(table.goals[4].reached) << "told, not judged";
  EXPECT_NEAR(table.goals[6].figure->value, 1, 1e-12);
  EXPECT_EQ(table.goals[6].reached, true);
  EXPECT_NEAR(table.goals[7].figure->value, 1.5 / 1.6, 1e-12);
  EXPECT_EQ(table.goals[7].reached, true);
  EXPECT_NEAR(table.goals[8].figure->value, 0.95, 1e-12);
  EXPECT_EQ(table.goals[8].reached, false);
}

TEST(Summary, AFigureThatIsHighEnoughIsNoGoalMetIfItsIntervalReachesOne) {
  // Two workloads, 1.44 and 0.9: mean 1.138, but the draws that have only the second are below 1.
  std::vector<CellRecord> records;
  for (const auto& [workload, rival] : {std::pair("btree", 1.44), std::pair("chase", 0.9)}) {
    add_bounds(records, workload);
    records.push_back(made_up(workload, "1:4", "thermocline:auto", 1, 1));
    records.push_back(made_up(workload, "1:4", "damos", rival, rival));
  }
  const Summary summary = summarize(records, {});
  const Goal& goal = only_table(summary).goals[0];
  EXPECT_NEAR(goal.figure->value, std::sqrt(1.44 * 0.9), 1e-12);
  EXPECT_NEAR(goal.figure->interval->low, 0.9, 1e-12);
  EXPECT_EQ(goal.reached, false);
}

TEST(Summary, CellsWhereTheRivalPassesTheOracleCountInTheGap) {
  // 0.5 of 0.5 is won in one cell; in the other the rival is 0.1 past the oracle and we are 0.2
  // slower than the rival.
  std::vector<CellRecord> records;
  const auto add = [&records](const std::string& workload, double rival, double ours,
                              double oracle) {
    add_bounds(records, workload);
    records.push_back(made_up(workload, "1:4", "numab", rival, rival));
    records.push_back(made_up(workload, "1:4", "thermocline:auto", ours, ours));
    records.push_back(made_up(workload, "1:4", "oracle-static", oracle, oracle));
  };
  add("btree", 1.6, 1.1, 1.1);
  add("chase", 1.2, 1.4, 1.3);
  const Summary summary = summarize(records, {});
  for (const std::size_t goal : {2u, 3u})
    EXPECT_NEAR(only_table(summary).goals[goal].figure->value, (0.5 - 0.2) / (0.5 - 0.1), 1e-12);
  EXPECT_FALSE(only_table(summary).cells[1].gap_closed) << "no gap, no share of it";
  // All together there is nothing to win: not a share, and not a goal that is reached.
  records.clear();
  add("chase", 1.2, 1.4, 1.3);
  EXPECT_FALSE(only_table(summarize(records, {})).goals[2].figure);
}

TEST(Summary, TheSteadyRowIsOfCellsWithASteadyGain) {
  // Whole: 1.5 / 1.1 at 1:2 is worth while. Steady: 1.2 / 1.1 is not.
  std::vector<CellRecord> records = small_table();
  for (CellRecord& record : records)
    if (record.key.system == "numab" && record.key.ratio == "1:2")
      record.steady_ops_per_s = 1e6 / 1.2;
  const Summary summary = summarize(records, {});
  const Table& table = only_table(summary);
  EXPECT_NEAR(table.cells[0].steady_oracle_gain->value, 1.2 / 1.1, 1e-12);
  EXPECT_TRUE(table.goals[4].figure);
  EXPECT_FALSE(table.goals[5].figure);
  EXPECT_THAT(table.goals[5].detail, testing::StartsWith("0 of "));
}

/// Every core cell with every system of the catalogue, ours faster than all but the oracle.
std::vector<CellRecord> whole_core() {
  std::vector<CellRecord> records;
  for (const SuiteWorkload& workload : suite_workloads()) {
    if (!workload.core) continue;
    add_bounds(records, workload.name);
    for (const std::string_view ratio : kCoreRatios)
      for (const SuiteSystem& system : suite_systems())
        if (!system.once && system.core) {
          const double time = system.name == kOurs             ? 1.15
                              : system.name == "oracle-static" ? 1.1
                                                               : 1.5;
          records.push_back(made_up(workload.name, std::string(ratio), system.name, time, time));
        }
  }
  return records;
}

TEST(Summary, VerdictsAreFinalWhenTheWholeCoreHasRun) {
  std::vector<CellRecord> records = whole_core();
  {
    const Summary summary = summarize(records, every_combination(records));
    const Table& table = only_table(summary);
    EXPECT_EQ(table.core.cells, 3 * core_workloads());
    EXPECT_EQ(table.core.complete, 3 * core_workloads());
    EXPECT_THAT(table.core.absent, IsEmpty());
    EXPECT_TRUE(table.core.whole);
    EXPECT_TRUE(table.goals[0].final);
    EXPECT_EQ(table.goals[0].reached, true);
  }
  // One system that failed in one cell: no goal is final.
  records.back().done = false;
  {
    const Summary summary = summarize(records, every_combination(records));
    const Table& table = only_table(summary);
    EXPECT_EQ(table.core.complete, 3 * core_workloads() - 1);
    EXPECT_FALSE(table.core.whole);
    EXPECT_FALSE(table.goals[0].final);
    EXPECT_EQ(table.goals[0].reached, true);
  }
  // Nor while a second seed has begun and is not through.
  records.back().done = true;
  records.push_back(made_up("btree", "1:2", std::string(kOurs), 1.15, 1.15, 2));
  const Summary summary = summarize(records, every_combination(records));
  EXPECT_EQ(only_table(summary).core.complete, 3 * core_workloads());
  EXPECT_FALSE(only_table(summary).core.whole);
}

TEST(Summary, TheCoreIsWorkloadsAndRatiosOfTheCatalogue) {
  std::vector<CellRecord> records = whole_core();
  // "stream" is no core workload: however good, it is in no goal.
  add_bounds(records, "stream");
  records.push_back(made_up("stream", "1:4", "thermocline:auto", 1, 1));
  records.push_back(made_up("stream", "1:4", "numab", 100, 100));
  const std::string gone = "chase";
  std::erase_if(records, [&](const CellRecord& r) {
    return r.key.workload == gone || (r.key.workload == "btree" && r.key.ratio == "1:4");
  });
  const Summary summary = summarize(records, {});
  const Table& table = only_table(summary);
  EXPECT_EQ(table.core.complete, 3 * core_workloads() - 4);
  EXPECT_THAT(table.core.absent, ElementsAre("chase"));
  EXPECT_THAT(table.core.by_ratio, ElementsAre(testing::Pair("1:2", core_workloads() - 1),
                                               testing::Pair("1:4", core_workloads() - 2),
                                               testing::Pair("1:8", core_workloads() - 1)));
  EXPECT_NEAR(table.goals[0].figure->value, 1.5 / 1.15, 1e-12);
  EXPECT_FALSE(table.goals[0].final);
}

TEST(Summary, OtherRatiosAreShownButNotInTheGoals) {
  std::vector<CellRecord> records = small_table();
  records.push_back(made_up("btree", "1:16", "thermocline:auto", 2, 2));
  records.push_back(made_up("btree", "1:16", "numab", 1, 1));
  const Summary summary = summarize(records, {});
  const Table& table = only_table(summary);
  ASSERT_THAT(table.cells, SizeIs(3));
  EXPECT_EQ(table.cells[2].ratio, "1:16") << "ordered by number";
  EXPECT_FALSE(table.cells[2].core);
  EXPECT_TRUE(table.cells[2].cause);
  EXPECT_NEAR(table.goals[0].figure->value, std::sqrt(1.2 * 0.8), 1e-12);
}

TEST(Summary, SlowDownsAreOverTheSeedsOfAllFast) {
  std::vector<CellRecord> records;
  records.push_back(made_up("btree", "-", "all-fast", 1, 1, 1));
  records.push_back(made_up("btree", "1:2", "numab", 2, 2, 1));
  records.push_back(made_up("btree", "1:2", "numab", 8, 8, 2));
  Summary summary = summarize(records, {});
  const Estimate one = *only_table(summary).cells[0].find("numab")->slowdown;
  EXPECT_NEAR(one.value, 2, 1e-12) << "seed 2 has no all-fast";
  EXPECT_EQ(one.seeds, 1u);
  EXPECT_NEAR(*only_table(summary).cells[0].find("numab")->mean.ops_per_s, 1e6 / 4, 1e-6);
  EXPECT_EQ(only_table(summary).cells[0].find("numab")->seeds, 2u);
  // With its own all-fast, twice as slow, the second seed is worth 4.
  records.push_back(made_up("btree", "-", "all-fast", 2, 2, 2));
  summary = summarize(records, {});
  const Estimate both = *only_table(summary).cells[0].find("numab")->slowdown;
  EXPECT_NEAR(both.value, std::sqrt(8), 1e-12);
  EXPECT_EQ(both.seeds, 2u);
  // No seed in common: the mean of all-fast's.
  for (CellRecord& record : records)
    if (record.key.system == "numab") record.key.seed += 10;
  summary = summarize(records, {});
  EXPECT_NEAR(only_table(summary).cells[0].find("numab")->slowdown->value, 4 / std::sqrt(2), 1e-12);
}

TEST(Summary, SystemsAreComparedOverTheSeedsThatBothHave) {
  // First-touch has seed 1 only, where ours takes 1; our other seeds take 4.
  std::vector<CellRecord> records;
  records.push_back(made_up("btree", "1:2", "first-touch", 2, 2, 1));
  for (const std::uint64_t seed : {1, 2, 3}) {
    const double time = seed == 1 ? 1 : 4;
    records.push_back(made_up("btree", "1:2", "thermocline:auto", time, time, seed));
    records.push_back(made_up("btree", "1:2", "damos", 3 * time, 3 * time, seed));
  }
  records.push_back(made_up("btree", "1:2", "interleave", 2, 2, 7));
  const Summary summary = summarize(records, {});
  const Cell& cell = only_table(summary).cells[0];
  EXPECT_NEAR(cell.against("first-touch").whole->ratio.value, 2, 1e-12);
  EXPECT_EQ(cell.against("first-touch").whole->ratio.seeds, 1u);
  EXPECT_NEAR(cell.against("damos").whole->ratio.value, 3, 1e-12);
  EXPECT_EQ(cell.against("damos").whole->ratio.seeds, 3u);
  EXPECT_FALSE(cell.against("interleave").whole) << "no seed in common";
  EXPECT_NEAR(only_table(summary).goals[8].figure->value, 2, 1e-12);
}

TEST(Summary, TheBetterSettingIsFoundOverTheSeedsThatBothSettingsHave) {
  // Tuned was slower in seed 1 and ran no other; default's later seeds are slow ones for all.
  std::vector<CellRecord> records;
  for (const std::uint64_t seed : {1, 2, 3}) {
    const double slow = seed == 1 ? 1 : 3;
    records.push_back(made_up("btree", "1:2", "thermocline:auto", slow, slow, seed));
    records.push_back(made_up("btree", "1:2", "numab", 1.2 * slow, 1.2 * slow, seed));
  }
  records.push_back(made_up("btree", "1:2", "numab@tuned", 1.5, 1.5, 1));
  Summary summary = summarize(records, {});
  for (const std::string_view opponent : {std::string_view("numab"), kBetterRival}) {
    const Versus versus = *only_table(summary).cells[0].against(opponent).whole;
    EXPECT_EQ(versus.system, "numab");
    EXPECT_NEAR(versus.ratio.value, 1.2, 1e-12);
    EXPECT_EQ(versus.ratio.seeds, 3u);
  }
  // With the same seeds all of them count: tuned, slower in the first, is faster over all.
  for (const std::uint64_t seed : {2, 3})
    records.push_back(made_up("btree", "1:2", "numab@tuned", 1.1 * 3, 1.1 * 3, seed));
  records[records.size() - 3].ops_per_s = 1e6 / 1.25;
  summary = summarize(records, {});
  EXPECT_EQ(only_table(summary).cells[0].against("numab").whole->system, "numab@tuned");
}

TEST(Summary, SeedsOfASettingThatIsNotWorthThemAreNotMissing) {
  const auto missing = [](double tuned, const std::string& other) {
    std::vector<CellRecord> records;
    for (const std::uint64_t seed : {1, 2})
      records.push_back(made_up("btree", "1:2", "numab", 1, 1, seed));
    records.push_back(made_up("btree", "1:2", other, tuned, tuned, 1));
    // So that it has a second seed somewhere.
    records.push_back(made_up("btree", "1:4", "numab", 1, 1, 1));
    records.push_back(made_up("btree", "1:4", "numab", 1, 1, 2));
    records.push_back(made_up("btree", "1:4", other, 1, 1, 1));
    records.push_back(made_up("btree", "1:4", other, 1, 1, 2));
    const Summary summary =
        summarize(records, without_unneeded(every_combination(records), records));
    return only_table(summary).missing;
  };
  EXPECT_THAT(missing(1.06, "numab@tuned"), IsEmpty());
  EXPECT_THAT(missing(1.04, "numab@tuned"), SizeIs(1));
  EXPECT_THAT(missing(1.06, "damos@tuned"), SizeIs(1)) << "numab is no setting of it";
}

TEST(Verdicts, AnIntervalAroundOneIsNotClear) {
  const auto judged = [](double value, std::optional<Interval> interval, std::size_t seeds) {
    return verdict(Versus{"numab", {value, interval, seeds}});
  };
  EXPECT_EQ(judged(1.021, std::nullopt, 1), Verdict::kWin) << "one seed: the figure decides";
  EXPECT_EQ(judged(0.979, std::nullopt, 1), Verdict::kLoss);
  EXPECT_EQ(judged(1.3, Interval{0.9, 1.9}, 3), Verdict::kUnclear);
  EXPECT_EQ(judged(0.7, Interval{0.4, 1.1}, 3), Verdict::kUnclear);
  EXPECT_EQ(judged(1.3, Interval{1.1, 1.5}, 3), Verdict::kWin);
  EXPECT_EQ(judged(0.7, Interval{0.6, 0.9}, 3), Verdict::kLoss);
  EXPECT_EQ(judged(1.01, Interval{0.9, 1.1}, 3), Verdict::kTie);
}

TEST(Summary, WhatIsNotClearIsATie) {
  std::vector<CellRecord> records;
  for (const std::uint64_t seed : {1, 2}) {
    records.push_back(made_up("btree", "1:2", "thermocline:auto", 1, 1, seed));
    records.push_back(made_up("btree", "1:2", "numab", seed == 1 ? 2 : 0.9, 2, seed));
  }
  const Summary summary = summarize(records, {});
  const Score& score = only_table(summary).scores[0];
  EXPECT_EQ(score.wins, 0u);
  EXPECT_EQ(score.ties, 1u);
  EXPECT_EQ(score.unclear, 1u);
}

TEST(Summary, MissingAndFailedCellsAreNamed) {
  std::vector<CellRecord> records = small_table();
  for (CellRecord& record : records)
    if (record.key.ratio == "1:8" && record.key.system == "numab") {
      record.done = false;
      record.ops_per_s.reset();
      record.error = "the guest died";
    } else if (record.key.ratio == "1:8" && record.key.system == "damos") {
      record.verified = false;
    }
  const std::vector<CellKey> all = every_combination(records);
  EXPECT_THAT(all, SizeIs(2 + 2 * 6)) << "two bounds, six systems at two ratios";
  const Summary summary = summarize(records, all);
  const Table& table = only_table(summary);
  ASSERT_THAT(table.missing, SizeIs(1));
  EXPECT_EQ(to_text(table.missing[0]), "btree 1:8 numab@tuned, seed 1 (cxl-asic, reference, 6.12)");
  ASSERT_THAT(table.failed, SizeIs(2));
  EXPECT_EQ(table.failed[0].key.system, "damos");
  EXPECT_THAT(table.failed[0].error, HasSubstr("wrong result"));
  EXPECT_EQ(table.failed[1].error, "the guest died");
  EXPECT_EQ(verdict(table.cells[1].against(kBetterRival).whole), Verdict::kUnknown);
  EXPECT_THAT(table.goals[0].detail,
              HasSubstr(fmt::format("1 of {} core cells", 3 * core_workloads())));
}

TEST(Summary, ModesAndVersionsAreKeptApartAndTold) {
  std::vector<CellRecord> records = small_table();
  CellRecord other = records.back();
  other.key.mode = "parallel";
  records.push_back(other);
  records[0].version = "v2";
  const Summary summary = summarize(records, {});
  ASSERT_THAT(summary.tables, SizeIs(2));
  EXPECT_EQ(summary.tables[0].mode, "reference");
  EXPECT_THAT(summary.tables[0].versions,
              ElementsAre(testing::Pair("v1", 12u), testing::Pair("v2", 1u)));
  EXPECT_EQ(summary.tables[1].mode, "parallel");
  EXPECT_FALSE(summary.tables[1].goals[0].figure);
  EXPECT_FALSE(summary.tables[1].goals[0].reached);
}

/// Ours in the lost cell of the small table, with figures that say why.
Cause cause_with(double tracker, double mover, double hits, double its_hits,
                 const std::string& mode = "reference") {
  std::vector<CellRecord> records = small_table();
  for (CellRecord& record : records) {
    record.key.mode = mode;
    if (record.key.ratio != "1:8") continue;
    if (record.key.system == "thermocline:auto") {
      record.tracker_cpu_share = tracker;
      record.policy_cpu_share = 0.01;
      record.mover_cpu_share = mover;
      record.overhead_cpu_share = tracker + 0.01 + mover;
      record.steady_fast_hit_ratio = hits;
    } else if (record.key.system == "numab") {
      record.overhead_cpu_share = 0.05;
      record.steady_fast_hit_ratio = its_hits;
    }
  }
  const Summary summary = summarize(records, {});
  const Cell& won = only_table(summary).cells[0];
  const Cell& lost = only_table(summary).cells[1];
  EXPECT_FALSE(won.cause);
  EXPECT_TRUE(lost.cause);
  return *lost.cause;
}

double part(const Cause& cause, const std::string& name) {
  for (const Cause::Part& p : cause.parts)
    if (p.name == name) return p.slowdown;
  return std::nan("");
}

TEST(Causes, PartsAddUpToWhatIsLost) {
  const Cause cause = cause_with(0.02, 0.03, 0.6, 0.7);
  EXPECT_EQ(cause.against, "numab");
  EXPECT_THAT(cause.lost_to, ElementsAre("numab", "first-touch"));
  EXPECT_NEAR(cause.ratio.value, 0.8, 1e-12);
  EXPECT_NEAR(cause.excess, 0.4, 1e-12);
  EXPECT_NEAR(part(cause, "scan"), 0.04, 1e-12);
  EXPECT_NEAR(part(cause, "decide"), 0.02, 1e-12);
  EXPECT_NEAR(part(cause, "move"), 0.06, 1e-12);
  EXPECT_NEAR(part(cause, "other work"), 0, 1e-12);
  EXPECT_NEAR(part(cause, "wrong pages"), 0.1 * 1.5, 1e-12);
  EXPECT_NEAR(part(cause, "late"), 0.4 - 0.1, 1e-12);
  EXPECT_NEAR(part(cause, "its own work"), -0.05 * 1.6, 1e-12);
  double sum = 0;
  for (const Cause::Part& p : cause.parts) sum += p.slowdown;
  EXPECT_NEAR(sum, cause.excess, 1e-12);
  EXPECT_EQ(cause.main, "late");
  EXPECT_THAT(cause.why, HasSubstr("+0.300 of +0.400"));
  EXPECT_THAT(cause.why, HasSubstr("steady hit ratio 60.0 % against 70.0 %"));
}

TEST(Causes, TheLargestPartGivesTheName) {
  EXPECT_EQ(cause_with(0.02, 0.03, 0.3, 0.7).main, "wrong pages");
  EXPECT_EQ(cause_with(0.2, 0.03, 0.6, 0.7).main, "scan");
  EXPECT_EQ(cause_with(0.02, 0.3, 0.6, 0.7).main, "move");
}

TEST(Causes, WorkBesideTheProgramIsNotItsTime) {
  const Cause cause = cause_with(0.9, 0.9, 0.6, 0.7, "parallel");
  EXPECT_EQ(part(cause, "scan"), 0);
  EXPECT_EQ(part(cause, "its own work"), 0);
  EXPECT_EQ(cause.main, "late");
}

TEST(Causes, WorkThatIsThereWithoutTieringCountsForNobody) {
  const auto with_usual = [](double usual) {
    std::vector<CellRecord> records = small_table();
    for (CellRecord& record : records)
      if (record.key.ratio == "1:8" && record.key.system == "thermocline:auto") {
        record.tracker_cpu_share = record.policy_cpu_share = record.mover_cpu_share = 0;
        record.overhead_cpu_share = usual + 0.02;
        record.steady_fast_hit_ratio = 0.5;
      } else if (record.key.ratio == "1:8" && record.key.system != "oracle-static") {
        record.overhead_cpu_share = usual + (record.key.system == "numab" ? 0.01 : 0);
      }
    const Summary summary = summarize(records, {});
    return *only_table(summary).cells[1].cause;
  };
  for (const double usual : {0.0, 0.3}) {
    EXPECT_NEAR(part(with_usual(usual), "other work"), 0.02 * 2, 1e-12);
    EXPECT_NEAR(part(with_usual(usual), "its own work"), -0.01 * 1.6, 1e-12);
  }
}

TEST(Causes, AccountsThatDisagreeAreNoNegativeWork) {
  const auto with = [](double overhead, std::optional<double> its_hits) {
    std::vector<CellRecord> records = small_table();
    for (CellRecord& record : records) {
      if (record.key.ratio != "1:8") continue;
      if (record.key.system == "thermocline:auto") {
        record.tracker_cpu_share = 0.05;
        record.policy_cpu_share = record.mover_cpu_share = 0;
        record.overhead_cpu_share = overhead;
        record.steady_fast_hit_ratio = 0.5;
      } else if (record.key.system == "numab") {
        record.steady_fast_hit_ratio = its_hits;
      }
    }
    const Summary summary = summarize(records, {});
    return *only_table(summary).cells[1].cause;
  };
  const auto other_work = [](const Cause& cause) { return cause.parts.at(3); };
  EXPECT_EQ(other_work(with(0.03, 0.5)).instead, "accounts disagree");
  EXPECT_EQ(other_work(with(0.03, 0.5)).slowdown, 0);
  EXPECT_EQ(other_work(with(0.046, 0.5)).instead, "") << "within the sampling error";
  EXPECT_EQ(other_work(with(0.046, 0.5)).slowdown, 0);
  EXPECT_NEAR(other_work(with(0.08, 0.5)).slowdown, 0.03 * 2, 1e-12);
  // Hits that nobody counted are not the same as ours.
  const Cause unknown = with(0.05, std::nullopt);
  EXPECT_EQ(unknown.parts.at(4).name, "wrong pages");
  EXPECT_EQ(unknown.parts.at(4).instead, "its hits not known");
  EXPECT_THAT(unknown.why, HasSubstr("50.0 % against one that is not known"));
  double sum = 0;
  for (const Cause::Part& p : unknown.parts) sum += p.slowdown;
  EXPECT_NEAR(sum, unknown.excess, 1e-12);
}

TEST(Causes, SayWhatTheyCanNotKnow) {
  const Summary summary = summarize(small_table(), {});
  const Cause& cause = *only_table(summary).cells[1].cause;
  EXPECT_THAT(cause.parts, IsEmpty());
  EXPECT_THAT(cause.main, IsEmpty());
  EXPECT_THAT(cause.why, HasSubstr("not known"));
}

}  // namespace
}  // namespace thermocline::suite
