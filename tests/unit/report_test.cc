// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cli/report_html.h"
#include "cli/report_model.h"

namespace thermocline::report {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string epoch(double time_s, const std::string& bins, const std::string& command = "hotset") {
  return R"({"epoch":)" + std::to_string(std::lround(time_s * 2)) + R"(,"time_s":)" +
         std::to_string(time_s) +
         R"(,"epoch_s":0.5,"promoted_pages":10,"demoted_pages":7,"accessed_page_windows":100,)"
         R"("accessed_page_windows_fast":40,"targets":[{"pid":5,"command":")" +
         command + R"(","bins":[)" + bins + "]}]}\n";
}

constexpr const char* kBins =
    R"({"first_page":512,"pages":512,"present":512,"fast":512,"heat_mean":200},)"
    R"({"first_page":4096,"pages":512,"present":100,"fast":0,"heat_mean":3})";

History history_of(const std::string& lines) {
  return parse_history(lines, "h")->front();
}

TEST(ReportModel, ReadsAHistory) {
  const auto history = parse_history(epoch(1, kBins) + epoch(1.5, kBins), "h");
  ASSERT_TRUE(history) << history.error().message;
  ASSERT_EQ(history->size(), 1u);
  const History& run = history->front();
  ASSERT_EQ(run.epochs.size(), 2u);
  EXPECT_EQ(run.epochs[1].promoted_pages, 10u);
  EXPECT_EQ(run.epochs[1].accessed_page_windows_fast, 40u);
  ASSERT_EQ(run.processes.size(), 1u);
  EXPECT_EQ(run.processes[0].pid, 5);
  ASSERT_EQ(run.processes[0].columns.size(), 2u);
  EXPECT_EQ(run.processes[0].columns[0].bins[1].present, 100u);
}

TEST(ReportModel, RunsOfTheDaemonInOneFileAreToldApart) {
  const std::string first = epoch(3, kBins) + epoch(3.5, kBins);
  const std::string second = R"({"epoch":1,"time_s":9,"epoch_s":0.5,"targets":[]})"
                             "\n";
  const auto restarted = parse_history(first + second, "h");
  ASSERT_TRUE(restarted) << restarted.error().message;
  ASSERT_EQ(restarted->size(), 2u);
  EXPECT_EQ((*restarted)[0].epochs.size(), 2u);
  EXPECT_EQ((*restarted)[1].epochs.size(), 1u);
  // After a boot the clock begins again; epochs may have got further by the same time.
  const auto booted = parse_history(first + R"({"epoch":90,"time_s":1,"epoch_s":0.5,"targets":[]})"
                                            "\n",
                                    "h");
  ASSERT_TRUE(booted) << booted.error().message;
  EXPECT_EQ(booted->size(), 2u);
}

TEST(ReportModel, ALastLineThatWasCutIsLeftOut) {
  const std::string whole = epoch(1, kBins);
  const auto history = parse_history(whole + epoch(2, kBins).substr(0, 60), "h");
  ASSERT_TRUE(history);
  EXPECT_EQ(history->front().epochs.size(), 1u);
  // Only the last one: a hole in the middle is damage.
  const auto damaged = parse_history(whole.substr(0, 60) + "\n" + whole, "h");
  ASSERT_FALSE(damaged);
  EXPECT_THAT(damaged.error().message, HasSubstr("h:1"));
}

TEST(ReportModel, RefusesBinsThatCantBe) {
  for (const char* bins :
       {R"({"first_page":512,"pages":0,"present":0,"fast":0,"heat_mean":0})",
        R"({"first_page":512,"pages":1,"present":2,"fast":0,"heat_mean":0})",
        R"({"first_page":512,"pages":9,"present":2,"fast":3,"heat_mean":0})",
        R"({"first_page":18446744073709551615,"pages":9,"present":2,"fast":1,"heat_mean":0})",
        R"({"first_page":5,"pages":9,"present":2,"fast":1})",
        R"({"first_page":5,"pages":9,"present":2,"fast":1,"heat_mean":1},)"
        R"({"first_page":13,"pages":9,"present":2,"fast":1,"heat_mean":1})"}) {
    const auto history = parse_history(epoch(1, bins), "h");
    ASSERT_FALSE(history) << bins;
    EXPECT_EQ(history.error().kind, ErrorKind::kCorrupt);
  }
  EXPECT_FALSE(parse_history("", "h"));
}

TEST(ReportModel, SaysOfAnotherFileThatItIsNoHistory) {
  for (const char* text :
       {"[]\n", "# Notes\n", "notes", "{}\n", R"({"epoch":"1"})", "\xff\xfe\n"}) {
    const auto history = parse_history(text, "h");
    ASSERT_FALSE(history) << text;
    EXPECT_EQ(history.error().message,
              "h:1 is not a line of a history: give the file that [history] of thermoclined.toml "
              "names");
  }
}

TEST(ReportModel, ReadsHotsetAndTables) {
  const auto run = parse_hotset(
      R"({"program":"hotset","pid":5,"fast_node":0,"start_monotonic_s":1.0,
          "samples":[{"time_s":0.5,"fast_share":0.25}],
          "phases":[{"start_s":0},{"start_s":0.6}]})",
      "j");
  ASSERT_TRUE(run) << run.error().message;
  EXPECT_EQ(run->moves_s, std::vector<double>{0.6});
  EXPECT_FALSE(parse_hotset(R"({"program":"hotset","fast_node":null})", "j"));
  EXPECT_FALSE(parse_hotset("nonsense", "j"));
  EXPECT_TRUE(parse_table(R"({"title":"t","columns":["a","b"],"rows":[["1","2"]]})", "j"));
  EXPECT_FALSE(parse_table(R"({"title":"t","columns":["a","b"],"rows":[["1"]]})", "j"));
}

TEST(ReportHtml, IsSelfContainedAndEscapesWhatItDidNotWrite) {
  Model model;
  model.title = "A & B";
  model.histories.push_back(
      history_of(epoch(1, kBins, "<script>x") + epoch(1.5, kBins, "<script>x")));
  model.tables.push_back({"Results", "", {"what"}, {{"<b>"}}});
  const std::string html = to_html(model);
  EXPECT_THAT(html, HasSubstr("<h1>A &amp; B</h1>"));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;x"));
  EXPECT_THAT(html, HasSubstr("<td>&lt;b&gt;</td>"));
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  for (const char* elsewhere : {"http:", "https:", "url(", "src=", "href="})
    EXPECT_THAT(html, Not(HasSubstr(elsewhere)));
  EXPECT_THAT(html, Not(HasSubstr("nan")));
  EXPECT_THAT(html, Not(HasSubstr("inf ")));
  EXPECT_EQ(html, to_html(model)) << "the same model gives the same bytes";
}

TEST(ReportHtml, DrawsFastAndSlowInTheirColours) {
  Model model;
  model.histories.push_back(history_of(epoch(1, kBins)));
  const std::string html = to_html(model);
  EXPECT_THAT(html, HasSubstr(R"(<path fill="#fff0b8" d="M92.0 46.0h)")) << "hot, all in DRAM";
  EXPECT_THAT(html, HasSubstr(R"(<path fill="#0a1a2e" d="M92.0)")) << "cold, all on slow memory";
}

TEST(ReportHtml, SurvivesAHistoryWithNothingInIt) {
  Model model;
  model.histories.push_back(history_of(epoch(1, "")));
  model.histories.push_back(history_of(R"({"epoch":1,"time_s":1,"epoch_s":0,"targets":[]})"
                                       "\n"));
  EXPECT_THAT(to_html(model), Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace thermocline::report
