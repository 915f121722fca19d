// SPDX-License-Identifier: Apache-2.0
// What a table of the benchmark suite says. All records are made up, and the expected figures are
// worked out by hand.
#include "bench/suite/summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

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
  const Estimate ratio = ratio_over_seeds(a, b);
  EXPECT_NEAR(ratio.value, std::sqrt(8), 1e-12);
  ASSERT_TRUE(ratio.interval);
  const double half = 12.706 * std::log(2) / 2;
  EXPECT_NEAR(std::log(ratio.interval->low), 1.5 * std::log(2) - half, 1e-9);
  EXPECT_NEAR(std::log(ratio.interval->high), 1.5 * std::log(2) + half, 1e-9);
}

TEST(RatioOverSeeds, AddsUpTheVariancesOfDifferentSeeds) {
  // Squared errors: {0, 2} has 1, {0, 2, 4} has 4/3; the smaller side has one degree of freedom.
  const BySeed a{{1, 0}, {2, 2}};
  const BySeed b{{1, 0}, {2, 2}, {3, 4}};
  const Estimate ratio = ratio_over_seeds(a, b);
  EXPECT_NEAR(ratio.value, std::exp(-1), 1e-12);
  ASSERT_TRUE(ratio.interval);
  EXPECT_NEAR(std::log(ratio.interval->high), -1 + 12.706 * std::sqrt(1 + 4.0 / 3), 1e-9);
}

TEST(RatioOverSeeds, OneSeedVariesAsTheOtherSide) {
  // Variance 2, so the squared errors are 2 / 2 of the two seeds and 2 / 1 of the one.
  for (const double sign : {1.0, -1.0}) {
    const BySeed many{{1, 0}, {2, 2}};
    const BySeed one{{1, 5}};
    const Estimate ratio = sign > 0 ? ratio_over_seeds(one, many) : ratio_over_seeds(many, one);
    EXPECT_NEAR(std::log(ratio.value), sign * 4, 1e-12);
    ASSERT_TRUE(ratio.interval);
    EXPECT_NEAR(std::log(ratio.interval->high), sign * 4 + 12.706 * std::sqrt(3), 1e-9);
  }
}

TEST(RatioOverSeeds, SingleSeedsHaveNoInterval) {
  const Estimate ratio = ratio_over_seeds({{1, std::log(3)}}, {{1, 0}});
  EXPECT_NEAR(ratio.value, 3, 1e-12);
  EXPECT_FALSE(ratio.interval);
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

TEST(Bootstrap, SameInputSameBits) {
  std::vector<Sample> samples;
  for (int i = 0; i < 12; ++i)
    samples.push_back({std::string(1, static_cast<char>('a' + i / 3)),
                       {{{1, 0.1 * i}, {2, 0.2 * i}, {3, 0.15 * i}}, {{1, 0.3}}}});
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

/// "a" is won at 1:2 and lost at 1:8.
std::vector<CellRecord> small_table() {
  std::vector<CellRecord> records;
  add_bounds(records, "a");
  const auto add = [&records](const std::string& ratio, const std::string& system, double time,
                              double steady) {
    records.push_back(made_up("a", ratio, system, time, steady));
  };
  add("1:2", "thermocline:heat", 1.25, 1.1);
  add("1:2", "numab", 2, 1.5);
  add("1:2", "numab@tuned", 1.5, 1.6);
  add("1:2", "damos", 1.75, 1.75);
  add("1:2", "first-touch", 1.25, 1.25);
  add("1:2", "oracle-static", 1.1, 1.1);
  add("1:8", "thermocline:heat", 2, 1.6);
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
  EXPECT_EQ(table.goals[0].met, false);
  EXPECT_THAT(table.goals[0].detail, HasSubstr("2 of 2 core cells; lowest 0.800, a 1:8"));
  // Only at 1:2 the oracle is worth while.
  EXPECT_NEAR(table.goals[1].figure->value, 1.2, 1e-12);
  EXPECT_EQ(table.goals[1].met, true);
  // 0.25 - 0.4 of 0.4 + 0.1; steady: 0.4 of 0.4, as nothing is to win at 1:8.
  EXPECT_NEAR(table.goals[2].figure->value, -0.15 / 0.5, 1e-12);
  EXPECT_EQ(table.goals[2].met, false);
  EXPECT_NEAR(table.goals[3].figure->value, 1, 1e-12);
  EXPECT_NEAR(table.goals[4].figure->value, 0.25 / 0.4, 1e-12);
  EXPECT_FALSE(table.goals[4].met) << "told, not judged";
  EXPECT_NEAR(table.goals[6].figure->value, 1, 1e-12);
  EXPECT_EQ(table.goals[6].met, true);
  EXPECT_NEAR(table.goals[7].figure->value, 1.5 / 1.6, 1e-12);
  EXPECT_EQ(table.goals[7].met, true);
  EXPECT_NEAR(table.goals[8].figure->value, 0.95, 1e-12);
  EXPECT_EQ(table.goals[8].met, false);
}

TEST(Summary, AFigureThatIsHighEnoughIsNoGoalMetIfItsIntervalReachesOne) {
  // Two workloads, 1.44 and 0.9: mean 1.138, but the draws that have only the second are below 1.
  std::vector<CellRecord> records;
  for (const auto& [workload, rival] : {std::pair("a", 1.44), std::pair("b", 0.9)}) {
    add_bounds(records, workload);
    records.push_back(made_up(workload, "1:4", "thermocline:heat", 1, 1));
    records.push_back(made_up(workload, "1:4", "damos", rival, rival));
  }
  const Summary summary = summarize(records, {});
  const Goal& goal = only_table(summary).goals[0];
  EXPECT_NEAR(goal.figure->value, std::sqrt(1.44 * 0.9), 1e-12);
  EXPECT_NEAR(goal.figure->interval->low, 0.9, 1e-12);
  EXPECT_EQ(goal.met, false);
}

TEST(Summary, OtherRatiosAreShownButNotInTheGoals) {
  std::vector<CellRecord> records = small_table();
  records.push_back(made_up("a", "1:16", "thermocline:heat", 2, 2));
  records.push_back(made_up("a", "1:16", "numab", 1, 1));
  const Summary summary = summarize(records, {});
  const Table& table = only_table(summary);
  ASSERT_THAT(table.cells, SizeIs(3));
  EXPECT_EQ(table.cells[2].ratio, "1:16") << "ordered by number";
  EXPECT_FALSE(table.cells[2].core);
  EXPECT_TRUE(table.cells[2].cause);
  EXPECT_NEAR(table.goals[0].figure->value, std::sqrt(1.2 * 0.8), 1e-12);
}

TEST(Summary, SeedsArePairedWithTheSameSeedOfAllFast) {
  std::vector<CellRecord> records;
  records.push_back(made_up("a", "-", "all-fast", 1, 1, 1));
  records.push_back(made_up("a", "1:2", "numab", 2, 2, 1));
  records.push_back(made_up("a", "1:2", "numab", 8, 8, 2));
  Summary summary = summarize(records, {});
  EXPECT_NEAR(only_table(summary).cells[0].find("numab")->slowdown->value, 4, 1e-12);
  EXPECT_NEAR(*only_table(summary).cells[0].find("numab")->mean.ops_per_s, 1e6 / 4, 1e-6);
  EXPECT_EQ(only_table(summary).cells[0].find("numab")->seeds, 2u);
  // With its own all-fast, four times as slow as well, the second seed is worth 2.
  records.push_back(made_up("a", "-", "all-fast", 4, 4, 2));
  summary = summarize(records, {});
  const Estimate slowdown = *only_table(summary).cells[0].find("numab")->slowdown;
  EXPECT_NEAR(slowdown.value, 2, 1e-12);
  EXPECT_NEAR(slowdown.interval->low, 2, 1e-9);
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
  EXPECT_EQ(to_text(table.missing[0]), "a 1:8 numab@tuned, seed 1 (cxl-asic, reference, 6.12)");
  ASSERT_THAT(table.failed, SizeIs(2));
  EXPECT_EQ(table.failed[0].key.system, "damos");
  EXPECT_THAT(table.failed[0].error, HasSubstr("wrong result"));
  EXPECT_EQ(table.failed[1].error, "the guest died");
  EXPECT_EQ(verdict(table.cells[1].against(kBetterRival).whole), Verdict::kUnknown);
  EXPECT_THAT(table.goals[0].detail, HasSubstr("1 of 2 core cells"));
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
  EXPECT_FALSE(summary.tables[1].goals[0].met);
}

/// Ours in the lost cell of the small table, with figures that say why.
Cause cause_with(double tracker, double mover, double hits, double its_hits,
                 const std::string& mode = "reference") {
  std::vector<CellRecord> records = small_table();
  for (CellRecord& record : records) {
    record.key.mode = mode;
    if (record.key.ratio != "1:8") continue;
    if (record.key.system == "thermocline:heat") {
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
      if (record.key.ratio == "1:8" && record.key.system == "thermocline:heat") {
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

TEST(Causes, SayWhatTheyCanNotKnow) {
  const Summary summary = summarize(small_table(), {});
  const Cause& cause = *only_table(summary).cells[1].cause;
  EXPECT_THAT(cause.parts, IsEmpty());
  EXPECT_THAT(cause.main, IsEmpty());
  EXPECT_THAT(cause.why, HasSubstr("not known"));
}

}  // namespace
}  // namespace thermocline::suite
