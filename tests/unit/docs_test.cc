// SPDX-License-Identifier: Apache-2.0
// Every number that is printed and every key that is read is documented in its man page.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/suite/cell_record.h"
#include "bench/suite/plan.h"
#include "bench/suite/summary.h"
#include "cli/emulate_report.h"
#include "cli/oracle.h"
#include "cli/replay_report.h"
#include "cli/sim_report.h"
#include "cli/trace_report.h"
#include "cli/trackers_report.h"
#include "control/config.h"
#include "control/status.h"
#include "emulation/lab/machine.h"
#include "emulation/sim/case.h"
#include "engine_with_one_target.h"
#include "trace/trace_info.h"

namespace thermocline {
namespace {

std::string page(const std::string& name) {
  std::ifstream in(std::string(THERMOCLINE_SOURCE_DIR) + "/docs/man/" + name);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// What stands below a heading, until the next one of any level.
std::string section(const std::string& text, const std::string& heading) {
  const std::string start = "\n" + heading + "\n";
  const auto at = text.find(start);
  if (at == std::string::npos) return "";
  const auto begin = at + start.size();
  return text.substr(begin, text.find("\n#", begin) - begin);
}

bool names(const std::string& text, const std::string& key) {
  return text.find("*" + key + "*") != std::string::npos;
}

/// Keys of `node` that hold numbers or texts and that `text` doesn't name, and how many there are.
struct Lookup {
  std::vector<std::string> missing;
  std::size_t checked = 0;
};
void look_up(const nlohmann::json& node, const std::string& text, Lookup& result) {
  if (node.is_array())
    for (const auto& element : node) look_up(element, text, result);
  if (!node.is_object()) return;
  for (const auto& [key, value] : node.items()) {
    if (!names(text, key)) result.missing.push_back(key);
    ++result.checked;
    look_up(value, text, result);
  }
}

TEST(Docs, EveryKeyOfTrackersIsInItsManPage) {
  const TrackerFactory factory{"a", "b", {}, {}, {}};
  const std::vector<cli::TrackerState> states{{&factory, ""}};
  Lookup found;
  look_up(cli::trackers_json(states, "a"), page("thermocline-trackers.1.scd"), found);
  EXPECT_THAT(found.missing, testing::IsEmpty());
  EXPECT_GT(found.checked, 10u);
}

TEST(Docs, EveryConfigKeyIsInItsTableOfTheManPage) {
  const std::string text = page("thermoclined.toml.5.scd");
  ASSERT_FALSE(text.empty());
  for (const ConfigKey& key : config_keys()) {
    if (key.table.starts_with("policy.")) continue;  // `thermocline policies` lists them
    const std::string heading = key.list ? "# [[" + key.table + "]]" : "# [" + key.table + "]";
    EXPECT_TRUE(names(section(text, heading), key.key)) << heading << " " << key.key;
  }
  EXPECT_FALSE(names(section(text, "# [policy]"), "socket")) << "the test must be able to fail";
}

TEST(Docs, PoliciesAreThoseOfTheRegistryWithTheirSourcesAndOptions) {
  const std::string text = page("../policies.md");
  PolicyRegistry registry;
  register_builtin_policies(registry);
  std::size_t headings = 0;
  for (const PolicyFactory& policy : registry.factories()) {
    const std::string its = section(text, "## " + policy.name);
    EXPECT_FALSE(its.empty()) << policy.name;
    EXPECT_THAT(its, testing::HasSubstr("Source: " + policy.source)) << policy.name;
    for (const PolicyOptionHelp& option : policy.option_help)
      EXPECT_THAT(its, testing::HasSubstr("`" + option.key + "`")) << policy.name;
    EXPECT_THAT(text, testing::HasSubstr("| [" + policy.name + "](#" + policy.name + ") |"));
  }
  for (std::size_t at = text.find("\n## "); at != std::string::npos;
       at = text.find("\n## ", at + 1))
    ++headings;
  EXPECT_EQ(headings, registry.factories().size() + 2) << "and on plug-ins and shares";
}

TEST(Docs, EveryTopologyOfTheLabIsNamed) {
  const std::string man = page("thermocline-lab.1.scd");
  const std::string guide = page("../lab.md");
  ASSERT_GT(lab::layouts().size(), 5u);
  for (const lab::NodeLayout& layout : lab::layouts()) {
    EXPECT_TRUE(names(man, layout.name)) << layout.name;
    EXPECT_THAT(guide, testing::HasSubstr("`" + layout.name + "`"));
  }
}

TEST(Docs, EveryPageIsReachedFromTheFirstOne) {
  const std::string text = section(page("thermocline.1.scd"), "# SEE ALSO");
  std::size_t pages = 0;
  for (const auto& file : std::filesystem::directory_iterator(THERMOCLINE_SOURCE_DIR "/docs/man")) {
    const std::string name = file.path().stem().stem().string();  // of NAME.SECTION.scd
    EXPECT_TRUE(name == "thermocline" || names(text, name)) << name;
    ++pages;
  }
  EXPECT_GT(pages, 5u);
}

TEST(Docs, EveryStatusKeyIsInItsSectionOfTheManPage) {
  const std::string text = page("thermocline-status.1.scd");
  ASSERT_FALSE(text.empty());
  const EngineWithOneTarget host("x");
  std::size_t checked = 0;
  nlohmann::json status = status_json(*host.engine);
  status["tenants"].push_back(tenant_json({}));
  status["plugin"] = plugin_json({});
  for (const auto& [name, content] : status.items()) {
    Lookup lookup;
    look_up(content, section(text, "## " + name), lookup);
    EXPECT_THAT(lookup.missing, testing::IsEmpty()) << "in " << name;
    EXPECT_GT(lookup.checked, 0u) << name;
    checked += lookup.checked;
  }
  EXPECT_GT(checked, 40u);
}

TEST(Docs, EveryKeyOfAHistoryLineIsInTheManPage) {
  const std::string text = section(page("thermocline-report.1.scd"), "# HISTORY FILE");
  const EngineWithOneTarget host("x");
  nlohmann::json line = nlohmann::json::parse(history_line(*host.engine, EpochReport{}, 4));
  EXPECT_TRUE(names(text, "counters"));
  line.erase("counters");  // those of the status
  ASSERT_EQ(line["targets"].size(), 1u);
  // The engine has no pages: a bin as history_line() would write it.
  line["targets"][0]["bins"] = nlohmann::json::array(
      {{{"first_page", 1}, {"pages", 1}, {"present", 1}, {"fast", 1}, {"heat_mean", 1}}});
  Lookup lookup;
  look_up(line, text, lookup);
  EXPECT_THAT(lookup.missing, testing::IsEmpty());
  EXPECT_GT(lookup.checked, 15u);
}

TEST(Docs, EveryKeyOfTheOracleIsInTheManPage) {
  oracle::Answer answer;
  answer.windows.emplace_back();
  Lookup lookup;
  look_up(nlohmann::json(oracle::to_json(answer)),
          section(page("thermocline-oracle.1.scd"), "# JSON"), lookup);
  EXPECT_THAT(lookup.missing, testing::IsEmpty());
  EXPECT_GT(lookup.checked, 15u);
}

TEST(Docs, EveryKeyOfAReplayIsInTheManPage) {
  cli::ReplayReport report;
  report.outcomes.emplace_back();
  report.outcomes.back().epochs.emplace_back();
  Lookup lookup;
  look_up(nlohmann::json(cli::replay_json(report)),
          section(page("thermocline-replay.1.scd"), "# JSON"), lookup);
  EXPECT_THAT(lookup.missing, testing::IsEmpty());
  EXPECT_GT(lookup.checked, 25u);
}

TEST(Docs, EveryKeyOfATraceReportIsInTheManPage) {
  report::TraceReport report;
  report.processes = {{1, "a", {{0, 1, {{0, 1, 1, 1, 1}}}}}};
  report.working_set.emplace_back();
  report.hot.emplace_back();
  report.phases.emplace_back();
  const std::string text = section(page("thermocline-report.1.scd"), "## JSON");
  Lookup lookup;
  for (const auto view : {report::TraceView::kHeat, report::TraceView::kWss,
                          report::TraceView::kHot, report::TraceView::kPhases})
    look_up(nlohmann::json(report::trace_json(report, view)), text, lookup);
  EXPECT_THAT(lookup.missing, testing::IsEmpty());
  EXPECT_GT(lookup.checked, 30u);
}

TEST(Docs, EveryKeyOfATracesInformationIsDescribed) {
  std::string text = page("../trace-format.md");
  std::replace(text.begin(), text.end(), '`', '*');
  trace::SessionInfo session;
  session.tiers.emplace_back();
  trace::ProcessInfo process;
  process.mappings.emplace_back();
  Lookup lookup;
  for (const auto& json : {to_json(session), to_json(process), to_json(trace::EndInfo{})})
    look_up(nlohmann::json(json), text, lookup);
  EXPECT_THAT(lookup.missing, testing::IsEmpty());
  EXPECT_GT(lookup.checked, 20u);
}

TEST(Docs, EveryKeyOfTheSimulatorIsInTheManPage) {
  sim::Case c;
  c.workload = *sim::parse_workload("zipf");
  const nlohmann::ordered_json line = sim::to_json(c, sim::Outcome{}, sim::Bounds{});
  const std::string text = page("thermocline-sim.1.scd");
  Lookup lookup;
  look_up(nlohmann::json(line), section(text, "# CASES.JSONL"), lookup);
  EXPECT_GT(lookup.checked, 35u);
  look_up(nlohmann::json(cli::sim_summary({line})), section(text, "## SUMMARY"), lookup);
  EXPECT_THAT(lookup.missing, testing::IsEmpty());
  EXPECT_GT(lookup.checked, 48u);
}

TEST(Docs, EveryKeyOfTheEmulationReportIsInTheManPage) {
  cli::EmulateReport report;
  report.setting.cpus = {CpuId(0)};
  report.limit.emplace();
  report.figures.emplace();
  report.figures->fast.loaded = report.figures->slow.loaded = {{1, 100}};
  report.figures->slow.saturated = true;
  report.figures->huge_pages = true;
  report.figures->fast.idle_ns = 100;
  report.figures->slow.idle_ns = 250;
  report.figures->slow.gb_per_s = 20;
  report.judgement = numa_remote::judge(*report.figures, numa_remote::Label::kMeasured);
  Lookup lookup;
  look_up(nlohmann::json(cli::emulate_json(report)),
          section(page("thermocline-emulate.1.scd"), "## JSON"), lookup);
  EXPECT_THAT(lookup.missing, testing::IsEmpty());
  EXPECT_GT(lookup.checked, 30u);
}

TEST(Docs, EveryKeyOfACellIsInTheManPage) {
  Lookup lookup;
  look_up(nlohmann::json(suite::to_json(suite::CellRecord{})),
          section(page("thermocline-bench.1.scd"), "# CELLS.JSONL"), lookup);
  EXPECT_THAT(lookup.missing, testing::IsEmpty());
  EXPECT_GT(lookup.checked, 30u);
}

TEST(Docs, EveryKeyOfASummaryIsInTheManPage) {
  suite::Table table;
  table.goals.emplace_back();
  table.goals.back().figure.emplace();
  table.scores.emplace_back();
  table.failed.emplace_back();
  table.missing.emplace_back();
  suite::Cell& cell = table.cells.emplace_back();
  cell.systems.emplace_back();
  cell.comparisons.emplace_back();
  cell.comparisons.back().whole.emplace();
  cell.cause.emplace();
  cell.cause->parts.emplace_back();
  Lookup lookup;
  look_up(nlohmann::json(suite::summary_json({{table}})),
          section(page("thermocline-bench.1.scd"), "# SUMMARY"), lookup);
  EXPECT_THAT(lookup.missing, testing::IsEmpty());
  EXPECT_GT(lookup.checked, 40u);
}

TEST(Docs, EverySystemAndWorkloadOfTheSuiteIsDescribed) {
  const std::string systems = page("../benchmarks.md"), workloads = page("../workloads.md");
  for (const suite::SuiteSystem& system : suite::suite_systems())
    EXPECT_THAT(systems, testing::HasSubstr("`" + system.name + "`"));
  for (const suite::SuiteWorkload& workload : suite::suite_workloads())
    if (workload.runs.empty())
      EXPECT_THAT(workloads, testing::HasSubstr("| `" + workload.name + "` |"));
    else
      EXPECT_THAT(systems, testing::HasSubstr("`" + workload.name + "`"));
}

}  // namespace
}  // namespace thermocline
