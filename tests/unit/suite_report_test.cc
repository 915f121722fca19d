// SPDX-License-Identifier: Apache-2.0
// The pages of the benchmark suite. All records are made up.
#include "bench/suite/report.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "bench/suite/plan.h"
#include "bench/suite/report_sections.h"
#include "draw/markup.h"

namespace thermocline::suite {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

/// Of the catalogue.
std::size_t core_workloads() {
  const auto& all = suite_workloads();
  return static_cast<std::size_t>(
      std::count_if(all.begin(), all.end(), [](const SuiteWorkload& w) { return w.core; }));
}

CellRecord made_up(const std::string& workload, const std::string& ratio, const std::string& system,
                   double time, std::uint64_t seed = 1) {
  CellRecord r;
  r.key = {workload, ratio, system, "cxl-asic", "reference", "6.12", seed};
  r.done = true;
  r.ops_per_s = 1e6 / time;
  r.steady_ops_per_s = 1e6 / time;
  r.version = "v1";
  return r;
}

/// Won at 1:2, lost at 1:8, a failed cell of a rival, a missing one of ours.
std::vector<CellRecord> records() {
  std::vector<CellRecord> all;
  all.push_back(made_up("chase", "-", "all-fast", 1));
  all.push_back(made_up("chase", "-", "all-slow", 2.5));
  for (const std::uint64_t seed : {1, 2}) {
    const double noise = seed == 1 ? 1 : 1.01;
    all.push_back(made_up("chase", "1:2", "thermocline:auto", 1.2 * noise, seed));
    all.push_back(made_up("chase", "1:2", "numab", 1.5, seed));
    all.push_back(made_up("chase", "1:2", "numab@tuned", 1.4, seed));
    all.push_back(made_up("chase", "1:8", "thermocline:auto", 2 * noise, seed));
    all.push_back(made_up("chase", "1:8", "numab", 1.6, seed));
  }
  CellRecord failed = made_up("chase", "1:8", "numab@tuned", 1, 1);
  failed.done = false;
  failed.ops_per_s.reset();
  failed.steady_ops_per_s.reset();
  failed.error = "the guest <died> | & burnt";
  failed.log = "cells/a.log";
  all.push_back(failed);
  return all;
}

Summary summary() {
  return summarize(records(), every_combination(records()));
}

ReportHeader header() {
  ReportHeader h;
  h.command = "thermocline bench suite --full --out results";
  h.machine = "made up";
  h.facts = {{"QEMU", "10.0.2"}};
  h.timing_model = "DRAM 100 ns & CXL 250 ns";
  h.settings = {{"numab@tuned", "hot threshold <10 ms>"}};
  h.log_tails = {{"cells/a.log", "last words </pre>\n"}};
  return h;
}

std::vector<std::string> texts(const std::vector<TextCell>& row) {
  std::vector<std::string> out;
  for (const TextCell& cell : row) out.push_back(cell.text);
  return out;
}

TEST(SuiteReport, VerdictsTellEveryLoss) {
  const Summary s = summary();
  const Section section = verdicts_section(s.tables.at(0));
  ASSERT_THAT(section.rows, SizeIs(2));
  EXPECT_THAT(texts(section.rows[0]),
              ElementsAre("chase", "1:2", "win 1.161", "win 1.161", "–", "–", "–", "win 1.161"));
  EXPECT_THAT(texts(section.rows[1]),
              ElementsAre("chase", "1:8", "loss 0.796", "loss 0.796", "–", "–", "–", "loss 0.796"));
  EXPECT_EQ(section.rows[1][2].tone, Tone::kBad);
  EXPECT_THAT(section.rows[0][2].note, testing::MatchesRegex("numab@tuned, .* to .*, 2 seeds"));
  EXPECT_EQ(section.rows[0][4].note, "damos has not run");
  EXPECT_THAT(causes_section(s.tables[0]).rows, SizeIs(1));
  EXPECT_EQ(scores_section(s.tables[0]).rows[0][4].text, "1");
}

TEST(SuiteReport, WhatIsNotThereIsSaid) {
  const Summary s = summary();
  const Table& table = s.tables.at(0);
  EXPECT_THAT(
      warnings_of(table),
      ElementsAre(HasSubstr(fmt::format("Of {1} core cells, 0 have run with every system (at 1:2 0 "
                                        "of {0}, at 1:4 0 of {0}, at 1:8 0 of {0})",
                                        core_workloads(), 3 * core_workloads())),
                  HasSubstr("no finished cell yet: gups-hot, gups-moving, "),
                  HasSubstr("failed: 1"), HasSubstr("not run: 1")));
  EXPECT_THAT(warnings_of(table)[1], Not(HasSubstr("chase")));
  EXPECT_EQ(failed_section(table).rows[0][0].text, "chase 1:8 numab@tuned, seed 1");
  EXPECT_THAT(texts(missing_section(table).rows[0]),
              ElementsAre("chase", "1:8", "numab@tuned", "2"));
  for (const std::string& page : {report_html(s, header()), report_markdown(s, header())}) {
    EXPECT_THAT(page, HasSubstr("Failed cells"));
    EXPECT_THAT(page, HasSubstr("Cells that have not run"));
    EXPECT_THAT(page, HasSubstr("modelled"));
    EXPECT_THAT(page, HasSubstr("loss 0.796"));
    EXPECT_THAT(page, HasSubstr("so far: missed"));
    EXPECT_THAT(page, HasSubstr("Core workloads that have no finished cell yet: "));
  }
}

TEST(SuiteReport, SeedsAndWhatTheyLeaveOpenAreSaid) {
  std::vector<CellRecord> all = records();
  all.push_back(made_up("chase", "1:2", "first-touch", 2.4));
  all.push_back(made_up("chase", "1:2", "interleave", 2.4, 7));
  all.push_back(made_up("stream", "1:2", "thermocline:auto", 1));
  for (CellRecord& record : all)
    if (record.key.system == "numab" && record.key.ratio == "1:8" && record.key.seed == 2)
      record.ops_per_s = 1e6 / 1.1;
  const Summary s = summarize(all, {});
  const Section section = verdicts_section(s.tables.at(0));
  EXPECT_EQ(section.rows[0][5].text, "win 2.000");
  EXPECT_EQ(section.rows[0][5].note, "one seed");
  EXPECT_EQ(section.rows[0][6].note, "no seed in common");
  EXPECT_EQ(section.rows[1][2].text, "not clear 0.660");
  EXPECT_EQ(section.rows[1][2].tone, Tone::kPlain);
  EXPECT_EQ(section.rows[2][0].text, "stream");
  EXPECT_EQ(section.rows[2][1].note, "not core");
  EXPECT_EQ(scores_section(s.tables[0]).rows[0][3].note, "1 not clear");
}

TEST(SuiteReport, OwnFailureIsNamedAsSuch) {
  std::vector<CellRecord> all = records();
  for (CellRecord& record : all)
    if (record.key.system == kOurs && record.key.ratio == "1:8") {
      record.done = false;
      record.error = "died";
    }
  const Summary s = summarize(all, {});
  EXPECT_EQ(verdicts_section(s.tables.at(0)).rows[1][2].note, "ours failed");
}

TEST(SuiteReport, HtmlStandsByItselfAndEscapesWhatItShows) {
  const std::string page = report_html(summary(), header());
  EXPECT_THAT(page, HasSubstr("the guest &lt;died&gt; | &amp; burnt"));
  EXPECT_THAT(page, HasSubstr("last words &lt;/pre&gt;\n"));
  EXPECT_THAT(page, HasSubstr("hot threshold &lt;10 ms&gt;"));
  EXPECT_THAT(page, HasSubstr("DRAM 100 ns &amp; CXL 250 ns"));
  for (const char* outside : {"src=", "@import", "url(", "<link", "fetch("})
    EXPECT_THAT(page, Not(HasSubstr(outside)));
  EXPECT_THAT(page, HasSubstr("<svg class=\"slowdown\""));
  EXPECT_EQ(page, report_html(summary(), header()));
}

TEST(SuiteReport, MarkdownKeepsItsTables) {
  ReportHeader h = header();
  h.picture_prefix = "pictures/results-";
  const std::string page = report_markdown(summary(), h);
  EXPECT_THAT(page, HasSubstr("the guest \\<died\\> \\| & burnt"));
  EXPECT_THAT(page, HasSubstr("    thermocline bench suite --full --out results\n"));
  EXPECT_THAT(page, HasSubstr("(pictures/results-cxl-asic-reference-6.12.svg)"));
  EXPECT_THAT(page, HasSubstr("| **loss 0.796** ("));
  EXPECT_EQ(page, report_markdown(summary(), h));
}

TEST(SuiteReport, NoRecordsNoCrash) {
  EXPECT_THAT(report_html({}, {}), HasSubstr("</html>"));
  EXPECT_THAT(report_markdown({}, {}), HasSubstr("# Results"));
  EXPECT_THAT(slowdown_chart_svg({}, Measure::kWhole), IsEmpty());
  const Summary failed_only = summarize({records().back()}, {});
  EXPECT_THAT(report_html(failed_only, {}), HasSubstr("the guest &lt;died&gt;"));
}

TEST(SuiteReport, ChartShowsEverySystemWithItsFigure) {
  std::vector<CellRecord> all = records();
  all.push_back(made_up("chase", "-", "all-fast", 1, 2));
  const Summary s = summarize(all, {});
  const std::string svg = slowdown_chart_svg(s.tables.at(0), Measure::kWhole);
  EXPECT_THAT(svg, HasSubstr("<title>chase 1:8, numab: 1.600 (1.600 to 1.600)</title>"));
  EXPECT_THAT(svg, HasSubstr("<title>chase 1:2, all-slow: 2.500</title>"));
  EXPECT_THAT(svg, HasSubstr("class=\"numab hollow\""));
}

TEST(SuiteReport, SystemsStandInOneOrder) {
  std::vector<CellRecord> all;
  for (const char* system : {"all-slow", "damos@tuned", "first-touch", "numab@tuned", "numab",
                             "oracle-static", "thermocline:auto@default", "thermocline:auto"})
    all.push_back(made_up("w", "1:2", system, 1));
  EXPECT_THAT(systems_of(summarize(all, {}).tables.at(0)),
              ElementsAre("thermocline:auto", "thermocline:auto@default", "numab", "numab@tuned",
                          "damos@tuned", "first-touch", "oracle-static", "all-slow"));
}

TEST(SuiteReport, LogsAreReadFromTheirFolderOnly) {
  std::string name = std::filesystem::temp_directory_path() / "thermocline-logs-XXXXXX";
  ASSERT_NE(::mkdtemp(name.data()), nullptr);
  const std::filesystem::path folder = name;
  std::ofstream(folder / "secret.log") << "secret\n";
  std::filesystem::create_directories(folder / "store/cells");
  std::ofstream log(folder / "store/cells/a.log");
  for (int line = 0; line < 100; ++line) log << "line " << line << "\x1b[1m\r\n";
  log.close();
  std::vector<CellRecord> all;
  for (const char* path : {"cells/a.log", "cells/none.log", "../secret.log", "/etc/passwd", ""}) {
    all.push_back(records().back());
    all.back().key.seed = all.size();
    all.back().log = path;
  }
  const auto tails = read_log_tails(summarize(all, {}), folder / "store");
  EXPECT_THAT(tails, SizeIs(2));
  EXPECT_THAT(tails.at("cells/a.log"), testing::StartsWith("line 60?[1m\nline 61"));
  EXPECT_THAT(tails.at("cells/none.log"), HasSubstr("no such file"));
  std::filesystem::remove_all(folder);
}

TEST(SuiteReport, JsonTellsTheSame) {
  const auto json = summary_json(summary());
  const auto& table = json.at("tables").at(0);
  EXPECT_EQ(table.at("label"), "modelled");
  EXPECT_THAT(table.at("failed"), SizeIs(1));
  EXPECT_THAT(table.at("missing"), SizeIs(1));
  EXPECT_TRUE(table.at("goals").at(0).at("met").is_null()) << "most core cells are missing";
  EXPECT_EQ(table.at("goals").at(0).at("so_far"), false);
  EXPECT_TRUE(table.at("goals").at(4).at("so_far").is_null());
  EXPECT_EQ(table.at("core").at("cells"), 3 * core_workloads());
  EXPECT_EQ(table.at("core").at("complete"), 0);
  EXPECT_THAT(table.at("core").at("absent"), SizeIs(core_workloads() - 1));
  EXPECT_EQ(table.at("core").at("whole"), false);
  const auto& lost = table.at("cells").at(1);
  EXPECT_EQ(lost.at("against").at(0).at("whole").at("verdict"), "loss");
  EXPECT_EQ(lost.at("against").at(0).at("whole").at("system"), "numab");
  EXPECT_EQ(lost.at("against").at(0).at("whole").at("ratio").at("seeds"), 2);
  EXPECT_NEAR(lost.at("systems").at(2).at("slowdown").at("value"), 1.6, 1e-12);
  EXPECT_EQ(lost.at("cause").at("against"), "numab");
}

TEST(SuiteReport, JsonGoalsAreMetOnlyWhenTheyAreFinal) {
  Summary s = summary();
  s.tables[0].goals[0].reached = true;
  s.tables[0].goals[0].final = true;
  const auto goal = summary_json(s).at("tables").at(0).at("goals").at(0);
  EXPECT_EQ(goal.at("met"), true);
  EXPECT_TRUE(goal.at("so_far").is_null());
  EXPECT_EQ(goals_section(s.tables[0]).rows[0][3].text, "met");
  s.tables[0].goals[0].final = false;
  EXPECT_EQ(goals_section(s.tables[0]).rows[0][3].text, "so far: met");
}

TEST(Markup, StepsAreRound) {
  EXPECT_EQ(draw::tick_step(100, 10), 10);
  EXPECT_EQ(draw::tick_step(101, 10), 20);
  EXPECT_EQ(draw::tick_step(7, 2), 5);
}

}  // namespace
}  // namespace thermocline::suite
