// SPDX-License-Identifier: Apache-2.0
// The suite's way from what was asked for to cells, to the command of a cell, and back from what a
// guest printed to a record. All figures are made up.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include "bench/suite/cell.h"
#include "bench/suite/facts.h"
#include "bench/suite/plan.h"
#include "bench/suite/run.h"
#include "bench/suite/truth.h"
#include "emulation/timing/model.h"

namespace thermocline::suite {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

std::vector<std::string> names(const std::vector<PlannedCell>& cells) {
  std::vector<std::string> out;
  for (const PlannedCell& cell : cells)
    out.push_back(fmt::format("{} {} {} {}", cell.key.workload, cell.key.ratio, cell.key.system,
                              cell.key.seed));
  return out;
}

std::string complaint(const SuiteOptions& options) {
  const auto cells = plan_cells(options);
  if (cells) return "";
  EXPECT_EQ(cells.error().kind, ErrorKind::kUsage);
  return cells.error().message;
}

TEST(SuitePlan, GoesSeedBySeedWithBoundsOnceAndOthersAtEveryRatio) {
  SuiteOptions options;
  options.workloads = {"stream"};
  options.ratios = {"1:2", "1:4", "1:2"};
  options.systems = {"first-touch", "thermocline:auto", "all-fast"};
  options.seeds = 2;
  const auto cells = plan_cells(options);
  ASSERT_TRUE(cells);
  EXPECT_THAT(names(*cells),
              ElementsAre("stream - all-fast 1", "stream 1:2 first-touch 1",
                          "stream 1:2 thermocline:auto 1", "stream 1:4 first-touch 1",
                          "stream 1:4 thermocline:auto 1", "stream 1:2 thermocline:auto 2",
                          "stream 1:4 thermocline:auto 2"));
  EXPECT_FALSE(cells->front().fast);
  EXPECT_EQ((*cells)[1].fast, Bytes(options.footprint.get() / 3 / 4096 * 4096));
}

TEST(SuitePlan, GivesTheOracleTheRunItLooksAt) {
  SuiteOptions options;
  options.workloads = {"chase"};
  options.ratios = {"1:8"};
  options.systems = {"oracle-static"};
  const auto cells = plan_cells(options);
  ASSERT_TRUE(cells);
  EXPECT_THAT(names(*cells), ElementsAre("chase - all-fast 1", "chase 1:8 oracle-static 1"));
}

TEST(SuitePlan, CoreHasTenWorkloadsThreeRatiosAndEverySystem) {
  const auto cells = plan_cells({});
  ASSERT_TRUE(cells);
  std::set<std::string> workloads, systems, ratios;
  for (const PlannedCell& cell : *cells) {
    workloads.insert(cell.key.workload);
    systems.insert(cell.key.system);
    ratios.insert(cell.key.ratio);
  }
  EXPECT_GE(workloads.size(), 10u);
  for (const SuiteSystem& system : suite_systems())
    EXPECT_EQ(systems.contains(system.name), system.core) << system.name;
  EXPECT_THAT(ratios, ElementsAre("-", "1:2", "1:4", "1:8"));
}

TEST(SuitePlan, TellsExperimentsApartByMoreThanTheirKey) {
  const auto setting = [](const SuiteOptions& o) { return plan_cells(o)->back().setting; };
  SuiteOptions usual;
  usual.workloads = {"chase"};
  usual.systems = {"numab"};
  const std::string hash = setting(usual);
  EXPECT_EQ(hash.size(), 16u);
  EXPECT_EQ(setting(usual), hash);
  std::set<std::string> all{hash};
  SuiteOptions other = usual;
  other.footprint = Bytes(std::uint64_t{320} << 20);
  all.insert(setting(other));
  other = usual;
  other.length = 2;
  all.insert(setting(other));
  other = usual;
  other.timing = "cxl-fpga";
  all.insert(setting(other));
  other = usual;
  other.workloads = {"stream"};
  all.insert(setting(other));
  other = usual;
  other.systems = {"damos"};
  all.insert(setting(other));
  EXPECT_EQ(all.size(), 6u);
  // The texts of a model count, not what it is called.
  const std::string file = testing::TempDir() + "model.toml";
  std::ofstream(file) << timing::preset_text("cxl-asic");
  other = usual;
  other.timing = file;
  EXPECT_EQ(setting(other), hash);
  std::ofstream(file, std::ios::app) << "# another card\n";
  EXPECT_NE(setting(other), hash);
  std::filesystem::remove(file);
}

TEST(SuitePlan, RefusesInOneSentence) {
  SuiteOptions options;
  options.workloads = {"chas"};
  EXPECT_EQ(complaint(options), "there is no workload \"chas\"; did you mean \"chase\"?");
  options = {};
  options.systems = {"numab@tune"};
  EXPECT_THAT(complaint(options), HasSubstr("did you mean \"numab@tuned\"?"));
  options = {};
  options.ratios = {"1:64"};
  EXPECT_THAT(complaint(options), HasSubstr("1:64 of 160 MiB leaves 2.5 MiB of fast memory"));
  for (const char* ratio : {"", "1", "1:", ":2", "0:1", "1:65", "1:2:3", "a:b", "1:-2"}) {
    options.ratios = {ratio};
    EXPECT_THAT(complaint(options), HasSubstr("a ratio is FAST:SLOW")) << ratio;
  }
  options = {};
  options.seeds = 0;
  EXPECT_THAT(complaint(options), HasSubstr("--seeds"));
  options = {};
  options.length = 0;
  EXPECT_THAT(complaint(options), HasSubstr("--length"));
  options = {};
  options.footprint = Bytes(1 << 20);
  EXPECT_THAT(complaint(options), HasSubstr("--footprint"));
  options = {};
  options.mode = "report";
  EXPECT_THAT(complaint(options), HasSubstr("report mode"));
  options = {};
  options.timing = "no-such-model";
  EXPECT_THAT(complaint(options), HasSubstr("no-such-model"));
}

TEST(SuitePlan, WhatNothingMovesRunsHalfAsLongWhereTheWorkloadIsAlwaysTheSame) {
  SuiteOptions options;
  options.workloads = {"chase", "gups-moving"};
  options.ratios = {"1:4"};
  options.systems = {"first-touch", "numab"};
  const auto cells = plan_cells(options);
  ASSERT_TRUE(cells);
  std::map<std::string, double> seconds;
  for (const PlannedCell& cell : *cells)
    seconds[cell.key.workload + " " + cell.key.system] = cell.workload.seconds;
  EXPECT_EQ(seconds["chase first-touch"] * 2, seconds["chase numab"]);
  EXPECT_EQ(seconds["gups-moving first-touch"], seconds["gups-moving numab"]);
}

TEST(SuiteCell, CommandCanBePastedAndSaysEverything) {
  SuiteOptions options;
  options.workloads = {"gups-moving"};
  options.ratios = {"1:4"};
  options.systems = {"numab@tuned"};
  options.seeds = 2;
  const auto cells = plan_cells(options);
  ASSERT_TRUE(cells);
  CellPlaces places;
  places.thermocline = "/bin/thermocline";
  places.scripts = "/x/scripts";
  places.carried = "/x/none";
  places.truth = "/x/truth";
  const std::vector<std::string> words =
      cell_command(cells->back(), "cxl-asic", options.footprint, 0.5,
                   {Bytes(std::uint64_t{128} << 20), Bytes(40960)}, places);
  const std::string line = fmt::format("{}", fmt::join(words, " "));
  EXPECT_THAT(line, HasSubstr("/bin/thermocline lab run --kernel 6.12 --timing cxl-asic"));
  EXPECT_THAT(line, HasSubstr("--smp 1 --fast 128M --slow 512M"));
  EXPECT_THAT(line, HasSubstr("memmap=40K$131032K"));
  EXPECT_THAT(line, HasSubstr("--with /x/none:/lab/page-counts"));
  EXPECT_THAT(line, HasSubstr("cell.sh numab tuned 37 32768 gups-moving --footprint 160M --seed 2 "
                              "--duration 2 --samples 0.05 --set phases=2"));
}

TEST(SuiteCell, SwapLiesBelowBothNodes) {
  SuiteOptions options;
  options.workloads = {"llm-decode", "llm-decode-swap"};
  options.ratios = {"1:4"};
  options.systems = {"numab@tuned", "all-slow"};
  const auto cells = plan_cells(options);
  ASSERT_TRUE(cells);
  std::map<std::string, std::string> lines;
  for (const PlannedCell& cell : *cells)
    lines[cell.key.workload + " " + cell.key.system] = fmt::format(
        "{}", fmt::join(cell_command(cell, "cxl-asic", options.footprint, 1,
                                     {Bytes(std::uint64_t{256} << 20), Bytes(40960)}, {}),
                        " "));
  const std::string& line = lines["llm-decode-swap numab@tuned"];
  // Of 160 MiB a quarter is swapped, 32 MiB are on the fast node: 88 MiB are on the slow one.
  EXPECT_THAT(line, HasSubstr("swap.sh 90112 numab tuned 0 32768 llm-decode --footprint 160M"));
  EXPECT_THAT(line, HasSubstr("memmap=96M!256M"));
  EXPECT_THAT(line, HasSubstr("--module nd_pmem"));
  // Nothing of it where one node has room for everything, or where it was not asked for.
  for (const char* other :
       {"llm-decode-swap all-slow", "llm-decode numab@tuned", "llm-decode all-slow"}) {
    EXPECT_THAT(lines[other], HasSubstr("/cell.sh ")) << other;
    EXPECT_THAT(lines[other], Not(HasSubstr("nd_pmem"))) << other;
  }
}

TEST(SuitePlan, WhatIsSwappedChangesTheSettingAndLeavesRoomOnTheSlowNode) {
  SuiteOptions options;
  options.workloads = {"llm-decode", "llm-decode-swap"};
  options.ratios = {"1:4"};
  options.systems = {"numab", "all-slow"};
  const auto cells = plan_cells(options);
  ASSERT_TRUE(cells);
  std::map<std::string, std::string> settings;
  for (const PlannedCell& cell : *cells)
    settings[cell.key.workload + " " + cell.key.system] = cell.setting;
  EXPECT_NE(settings["llm-decode numab"], settings["llm-decode-swap numab"]);
  EXPECT_EQ(settings["llm-decode all-slow"], settings["llm-decode-swap all-slow"]);
  options.ratios = {"3:1"};
  EXPECT_THAT(complaint(options), HasSubstr("llm-decode-swap with too little slow memory"));
  options.workloads = {"llm-decode"};
  EXPECT_EQ(complaint(options), "");
}

constexpr const char* kTruth =
    "thermocline-truth 1\n"
    "mode reference\n"
    "profile_period_ns 50000\n"
    "range tier 0 node 0 first_frame 0x0 frames 256\n"
    "range tier 1 node 1 first_frame 0x100 frames 256\n"
    "space 1 root_frame 0x5\n"
    "slice 0 begin_ns 0 end_ns 1000 closed_by mark instructions 1 kernel_instructions 0 walks 0 "
    "stalled_ns 0\n"
    "misses tier 0 loads 99 stores 0 prefetched 0 write_backs 0 latency_ns 9\n"
    "v 1 10 99 0\n"
    "mark run at_ns 1000 space 1\n"
    "slice 1 begin_ns 1000 end_ns 2000 closed_by slice instructions 1 kernel_instructions 0 walks "
    "0 stalled_ns 0\n"
    "misses tier 0 loads 2 stores 1 prefetched 1 write_backs 7 latency_ns 400\n"
    "misses tier 1 loads 4 stores 0 prefetched 0 write_backs 0 latency_ns 1000\n"
    "profile tracker 1 mover 2 policy 3 kernel 10 user 20 idle 0\n"
    "v 0 99 5 0\n"
    "v 1 10 3 1\n"
    "v 1 11 1 0\n"
    "slice 2 begin_ns 2000 end_ns 3000 closed_by mark instructions 1 kernel_instructions 0 walks "
    "0 stalled_ns 0\n"
    "misses tier 0 loads 6 stores 0 prefetched 0 write_backs 0 latency_ns 600\n"
    "misses tier 1 loads 0 stores 0 prefetched 0 write_backs 0 latency_ns 0\n"
    "profile tracker 1 mover 0 policy 0 kernel 1 user 29 idle 0\n"
    "profile_space 1 user 29\n"
    "v 1 10 4 0\n"
    "v 1 10 1 1\n"
    "v 1 11 2 0\n"
    "mark phase at_ns 3000 space 1\n"
    "slice 3 begin_ns 3000 end_ns 4000 closed_by mark instructions 1 kernel_instructions 0 walks "
    "0 stalled_ns 0\n"
    "misses tier 0 loads 0 stores 0 prefetched 0 write_backs 0 latency_ns 0\n"
    "misses tier 1 loads 1 stores 0 prefetched 0 write_backs 0 latency_ns 250\n"
    "v 1 10 1 1\n"
    "mark end at_ns 4000 space 1\n"
    "slice 4 begin_ns 4000 end_ns 9000 closed_by end instructions 1 kernel_instructions 0 walks 0 "
    "stalled_ns 0\n"
    "misses tier 0 loads 77 stores 0 prefetched 0 write_backs 0 latency_ns 77\n"
    "v 1 10 77 0\n";

TEST(SuiteTruth, TellsTheRunAndNothingElse) {
  const auto truth = parse_truth(kTruth, 0);
  ASSERT_TRUE(truth) << truth.error().message;
  ASSERT_EQ(truth->slices.size(), 3u);
  EXPECT_EQ(truth->slices[0].begin_ns, 0u);
  EXPECT_EQ(truth->slices[0].fast_misses, 4u);
  EXPECT_EQ(truth->slices[0].all_misses, 8u);
  EXPECT_EQ(truth->slices[0].latency_ns, 1400u);
  EXPECT_EQ(truth->end_ns, 3000u);
  EXPECT_THAT(truth->phases_ns, ElementsAre(2000u));
  ASSERT_TRUE(truth->profile);
  EXPECT_EQ(truth->profile->tracker, 2u);
  EXPECT_EQ(truth->profile->mover, 2u);
  EXPECT_EQ(truth->profile->all(), 60u);
  // Most missed first; those of the kernel and those outside the run don't count.
  EXPECT_THAT(truth->pages, ElementsAre(Pair(0x10u, 9u), Pair(0x11u, 3u)));
  // Page 0x10: slow, then seen on both sides within a slice, so it went fast; then slow again.
  EXPECT_EQ(truth->moves, 2u);
  EXPECT_EQ(truth->returns, 1u);
  EXPECT_DOUBLE_EQ(truth->fast_share(0, 1000).value_or(-1), 0.5);
  EXPECT_FALSE(truth->fast_share(5000, 6000));
}

TEST(SuiteTruth, RefusesWhatIsNone) {
  EXPECT_FALSE(parse_truth("", 0));
  EXPECT_FALSE(parse_truth("hello\n", 0));
  EXPECT_THAT(parse_truth("thermocline-truth 1\nv 1 2\n", 0).error().message,
              HasSubstr("no run between the marks"));
  std::string text = kTruth;
  for (const auto& [good, bad] : std::vector<std::pair<std::string, std::string>>{
           {"thermocline-truth 1", "thermocline-truth 2"},
           {"v 1 11 1 0", "v 1 11 1"},
           {"v 1 11 1 0", "v 1 zz 1 0"},
           {"v 1 11 1 0", "v 1 11 1 9"},
           {"misses tier 1 loads 4", "misses tier 1 loads x"},
           {"mark run at_ns 1000", "mark run"},
           {"begin_ns 2000 end_ns 3000", "begin_ns 2000 end_ns 1"},
           {"profile tracker 1 mover 2", "profile mover 2"}}) {
    std::string damaged = text;
    damaged.replace(damaged.find(good), good.size(), bad);
    const auto truth = parse_truth(damaged, 0);
    ASSERT_FALSE(truth) << bad;
    EXPECT_EQ(truth.error().kind, ErrorKind::kCorrupt);
    EXPECT_THAT(truth.error().message, HasSubstr("line "));
  }
}

TEST(SuiteCell, SettledIsTheLastThirdOrTheLastHalfOfEveryPhase) {
  EXPECT_THAT(steady_parts(3, {}), ElementsAre(Pair(2, 3)));
  EXPECT_THAT(steady_parts(6, {2}), ElementsAre(Pair(1, 2), Pair(4, 6)));
}

Truth shares(const std::vector<unsigned>& percent, std::uint64_t phase_ns) {
  Truth truth;
  for (std::size_t i = 0; i < percent.size(); ++i)
    truth.slices.push_back({i * 100, (i + 1) * 100, percent[i], 100, 0});
  truth.end_ns = percent.size() * 100;
  truth.phases_ns = {phase_ns};
  return truth;
}

TEST(SuiteCell, ReconvergedWhenNineTenthsOfTheLevelBeforeAreThere) {
  const auto after = [](const std::vector<unsigned>& percent) {
    // The first slice is not settled yet: the level is 80, nine tenths of it 72.
    std::vector<unsigned> all{10, 10, 80, 80};
    all.insert(all.end(), percent.begin(), percent.end());
    return reconverge_s(shares(all, 400));
  };
  EXPECT_DOUBLE_EQ(after({20, 50, 70, 73, 80, 80}).value_or(-1), 300e-9);
  EXPECT_DOUBLE_EQ(after({20, 73, 20, 80, 80}).value_or(-1), 100e-9) << "a single slice is a dip";
  EXPECT_DOUBLE_EQ(after({20, 73, 20, 20, 80}).value_or(-1), 400e-9) << "two are not";
  EXPECT_DOUBLE_EQ(after({20, 80, 80, 20}).value_or(-1), 100e-9) << "one at the end is a dip too";
  EXPECT_DOUBLE_EQ(after({20, 20, 80}).value_or(-1), 200e-9);
  // A system that settles lower than before has not re-converged, however flat it is there.
  EXPECT_FALSE(after({60, 60, 60, 60}));
  EXPECT_FALSE(after({20, 80, 20, 20})) << "and lost it again";
  EXPECT_DOUBLE_EQ(after({80, 80}).value_or(-1), 0) << "it never fell";
  EXPECT_FALSE(reconverge_s(Truth{})) << "no change";
}

TEST(SuiteCell, ReconvergenceIsOfTheLastChange) {
  // Phases from 0, 200 and 400: the level is that of the second, 40, not the first's.
  Truth truth = shares({80, 80, 10, 40, 10, 37, 40, 40}, 400);
  truth.phases_ns = {200, 400};
  EXPECT_DOUBLE_EQ(reconverge_s(truth).value_or(-1), 100e-9);
}

constexpr const char* kOutput =
    "=== start\nfast_bytes 4096000\ntarget 12\n=== before\npgpromote_success 5\n"
    "pgdemote_kswapd 1\npgdemote_direct 0\n=== run\n=== after\ncode 0\npgpromote_success 15\n"
    "pgdemote_kswapd 8\npgdemote_direct 3\n=== workload\n"
    R"({"ops_per_s": 100, "seconds": 3, "operations": 300, "verified": true, "p50_ns": 7,
        "p99_ns": 9, "allocated_bytes": 8192000, "samples": [[1, 60], [2, 150], [3, 300]]})"
    "\n=== system\n=== end\n";

PlannedCell cell_of(const std::string& system) {
  SuiteOptions options;
  options.workloads = {"chase"};
  options.ratios = {"1:2"};
  options.systems = {system};
  return plan_cells(options)->back();
}

TEST(SuiteCell, ReadsWhatAGuestPrinted) {
  const Truth truth = *parse_truth(kTruth, 0);
  const auto record = read_cell(cell_of("numab@tuned"), sections_of(kOutput), truth);
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_TRUE(record->done);
  EXPECT_EQ(record->policy, "tuned");
  EXPECT_EQ(record->ops_per_s, 100);
  EXPECT_EQ(record->fast_bytes, Bytes(4096000));
  EXPECT_DOUBLE_EQ(*record->fast_share, 0.5);
  EXPECT_EQ(record->promoted_bytes, Bytes(10 * 4096));
  EXPECT_EQ(record->demoted_bytes, Bytes(10 * 4096));
  EXPECT_DOUBLE_EQ(*record->ping_pong_share, 0.5);
  EXPECT_DOUBLE_EQ(*record->mover_cpu_share, 2.0 / 60);
  EXPECT_DOUBLE_EQ(*record->overhead_cpu_share, 11.0 / 60);
  EXPECT_DOUBLE_EQ(*record->fast_hit_ratio, 10.0 / 15);
  EXPECT_DOUBLE_EQ(*record->ns_per_access, 2250.0 / 15);
  EXPECT_TRUE(check(*record));
}

TEST(SuiteCell, CountsSettledOperationsBetweenSamples) {
  Truth truth = *parse_truth(kTruth, 0);
  truth.phases_ns.clear();
  const auto record = read_cell(cell_of("first-touch"), sections_of(kOutput), truth);
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_DOUBLE_EQ(record->steady_ops_per_s.value_or(0), 150);  // the last third: 2 s to 3 s
  EXPECT_EQ(record->promoted_bytes, Bytes());
}

TEST(SuiteCell, TakesTheDaemonsOwnAccounts) {
  double source = 0;  // ms
  const auto status = [&source](int promoted, int demoted, double ms, double up) {
    return fmt::format(
        R"({{"counters": {{"promoted_pages": {}, "demoted_pages": {}, "tracking_cpu_ns": {:.0f},
             "source_cpu_ns": {:.0f}, "deciding_cpu_ns": {:.0f}, "scan_ns": {:.0f}, "moving_cpu_ns": {:.0f}}},
             "daemon": {{"cpu_s": {}, "uptime_s": {}}}}})",
        promoted, demoted, 10e6 * ms, source * 1e6 * ms, 2e6 * ms, 6e6 * ms, 5e6 * ms, 0.02 * ms,
        up);
  };
  const auto read = [&status] {
    std::string output = kOutput;
    output.replace(output.find("=== system\n"), 11,
                   "=== system-before\n" + status(1, 1, 1, 0.5) + "\n=== system\n" +
                       status(4, 3, 11, 2.5) + "\n");
    return read_cell(cell_of("thermocline:auto"), sections_of(output), *parse_truth(kTruth, 0));
  };
  const auto record = read();
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_EQ(record->promoted_bytes, Bytes(3 * 4096));
  EXPECT_EQ(record->demoted_bytes, Bytes(2 * 4096));
  // In 2 s: 100 ms of tracking, of it 20 ms of deciding, 50 ms of moving, 200 ms in all.
  EXPECT_NEAR(*record->tracker_cpu_share, 0.04, 1e-9);
  EXPECT_NEAR(*record->mover_cpu_share, 0.025, 1e-9);
  EXPECT_NEAR(*record->policy_cpu_share, 0.035, 1e-9);
  // Beside what the kernel was sampled doing: all but 60 ms of scanning and 50 ms of moving.
  const auto plain = read_cell(cell_of("numab"), sections_of(kOutput), *parse_truth(kTruth, 0));
  EXPECT_NEAR(*record->overhead_cpu_share - *plain->overhead_cpu_share, 0.045, 1e-9);
  // Of the tracking 60 ms were a thread's of the module: not of the daemon's 200, but the samples
  // hold it.
  source = 6;
  const auto threaded = read();
  ASSERT_TRUE(threaded) << threaded.error().message;
  EXPECT_NEAR(*threaded->tracker_cpu_share, 0.04, 1e-9);
  EXPECT_NEAR(*threaded->policy_cpu_share, 0.065, 1e-9);
  EXPECT_NEAR(*threaded->overhead_cpu_share - *plain->overhead_cpu_share, 0.075, 1e-9);
}

TEST(SuiteCell, FailsForAWrongResultOrAnOutputThatIsNotWhole) {
  const Truth truth = *parse_truth(kTruth, 0);
  const PlannedCell cell = cell_of("numab");
  std::string wrong = kOutput;
  wrong.replace(wrong.find("true"), 4, "false");
  const auto failed = read_cell(cell, sections_of(wrong), truth);
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message, HasSubstr("result is wrong"));
  for (const char* part : {"=== end", "\"ops_per_s\"", "fast_bytes", "=== workload"}) {
    const std::string text = kOutput;
    EXPECT_FALSE(read_cell(cell, sections_of(text.substr(0, text.find(part))), truth)) << part;
  }
}

TEST(SuiteFacts, KeepWhatTheyAreGivenAndTheScriptsSayWhatTheySet) {
  ReportHeader header;
  header.command = "thermocline bench suite";
  header.machine = "a machine";
  header.facts = {{"QEMU", "10"}};
  header.settings = {{"numab", "with \"quotes\" | and bars"}};
  const auto again = parse_facts(facts_json({{"2026-01-31", header}}));
  ASSERT_TRUE(again);
  ASSERT_EQ(again->size(), 1u);
  EXPECT_EQ(again->front().date, "2026-01-31");
  EXPECT_EQ(again->front().header.facts, header.facts);
  EXPECT_EQ(again->front().header.settings, header.settings);
  for (const char* text :
       {"", "[]", "{}", "{\"command\": 1}", "{\"runs\": []}", "{\"runs\": [{}]}"})
    EXPECT_FALSE(parse_facts(text)) << text;
  EXPECT_TRUE(parse_facts(R"({"command":"c","machine":"m","timing_model":"t","facts":[],)"
                          R"("settings":[]})"));
  EXPECT_EQ(head_comment("# SPDX\n# One\n# two.\n# shellcheck x\n# three\n"), "One two.");
  for (const Script& script : scripts()) {
    EXPECT_THAT(head_comment(script.text), HasSubstr(" ")) << script.name;
    if (script.name == "numab.sh" || script.name == "damos.sh") {
      EXPECT_THAT(head_comment(script.text), HasSubstr("tuned:")) << script.name;
    }
  }
}

TEST(SuiteFacts, TellOfEveryRunThatDiffers) {
  RunFacts first{"2026-01-01", {}};
  first.header.command = "thermocline bench suite --workloads chase";
  first.header.machine = "a machine";
  first.header.facts = {{"Thermocline", "1"}};
  std::vector<RunFacts> runs;
  add_run(runs, first);
  RunFacts later = first;
  later.date = "2026-01-02";
  add_run(runs, later);
  EXPECT_EQ(runs.size(), 1u) << "only the date differs";
  EXPECT_EQ(header_of(runs).command, first.header.command);
  later.header.facts = {{"Thermocline", "2"}};
  add_run(runs, later);
  later.header.command = "thermocline bench suite --workloads bc";
  add_run(runs, later);
  const ReportHeader header = header_of(runs);
  EXPECT_EQ(header.command,
            "thermocline bench suite --workloads chase\nthermocline bench suite --workloads bc");
  EXPECT_THAT(header.facts, Contains(Pair("Run 1",
                                          "2026-01-01; a machine; Thermocline 1; "
                                          "thermocline bench suite --workloads chase")));
  EXPECT_THAT(header.facts, Contains(Pair("Run 3",
                                          "2026-01-02; a machine; Thermocline 2; "
                                          "thermocline bench suite --workloads bc")));
}

/// A folder of its own with a stand-in for `thermocline` that takes milliseconds instead of a
/// guest: it answers probes as a guest whose kernel takes 90 MiB of the fast node, and prints a
/// made-up cell. What it does with a system is said in files of the folder.
class SuiteRun : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "suite-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
    std::ofstream(dir_ / "truth") << kTruth;
    std::ofstream(dir_ / "output") << kOutput;
    std::ofstream(dir_ / "thermocline") << R"SH(#!/bin/sh
here=$(dirname "$0")
truth= fast= reserved=0 system= policy=
while [ $# -gt 0 ]; do
  case $1 in
  --fast) fast=${2%M} ;;
  --append) reserved=${2##*memmap=} reserved=${reserved%%K*} ;;
  --truth) truth=$2 ;;
  */cell.sh) system=$2 policy=$3 ;;
  esac
  shift
done
echo "$system" >>"$here/calls"
if [ "$system" = probe ]; then
  if [ -s "$here/dying-probes" ]; then
    sed -i 1d "$here/dying-probes"
    echo "out of luck"
    exit 1
  fi
  echo "=== start"
  echo "fast_bytes $((((fast - 90) * 1024 - reserved) * 1024))"
  exit 0
fi
if [ -s "$here/short-boots" ]; then
  sed -i 1d "$here/short-boots"
  echo "cell: after this boot the fast node has 200 KiB too little free"
  exit 75
fi
[ ! -e "$here/fail-$system" ] || { cat "$here/fail-$system"; exit 1; }
[ ! -e "$here/hang-$system" ] || {
  [ ! -e "$here/stubborn" ] || trap '' TERM
  echo $$ >"$here/pid"
  touch "$here/hangs"
  exec sleep 60
}
cp "$here/truth" "$truth"
[ ! -e "$here/output-$policy" ] || { cat "$here/output-$policy"; exit; }
cat "$here/output"
)SH";
    std::filesystem::permissions(dir_ / "thermocline", std::filesystem::perms::owner_all);
    options_.workloads = {"chase"};
    options_.ratios = {"1:2"};
    options_.systems = {"all-fast", "first-touch", "numab", "oracle-static"};
    setting_.out_dir = (dir_ / "out").string();
    setting_.thermocline = (dir_ / "thermocline").string();
    setting_.version = "test";
    setting_.say = [this](const std::string& line) { said_ += line + "\n"; };
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  Result<RunOutcome> run() {
    said_.clear();
    setting_.options = options_;
    return run_cells(*plan_cells(options_), setting_);
  }
  [[nodiscard]] std::vector<CellRecord> records() const {
    return read_cells((dir_ / "out" / kStoreName).string())->records;
  }
  /// Runs until a cell hangs and SIGTERM comes, or two; the rest of the test's time is bounded.
  Result<RunOutcome> run_until_signalled(int signals) {
    // Every thread has it blocked, so that it waits for the run to look.
    sigset_t set, before;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &set, &before);
    std::atomic<bool> ended = false;
    std::thread signaller([this, &ended, signals] {
      while (!ended && !std::filesystem::exists(dir_ / "hangs"))
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      for (int i = 0; i < signals && !ended; ++i) {
        ::kill(::getpid(), SIGTERM);
        if (i + 1 < signals) std::this_thread::sleep_for(std::chrono::milliseconds(500));
      }
    });
    const auto outcome = run();
    ended = true;
    signaller.join();
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return outcome;
  }
  /// The stand-in's output, so much faster as a whole and once settled.
  void set_output(const std::string& policy, int ops_per_s, int settled_samples) const {
    std::string text = kOutput;
    text.replace(text.find("\"ops_per_s\": 100"), 16, fmt::format("\"ops_per_s\": {}", ops_per_s));
    text.replace(text.find("[3, 300]"), 8, fmt::format("[3, {}]", 150 + settled_samples));
    std::ofstream(dir_ / ("output-" + policy)) << text;
  }
  [[nodiscard]] std::string calls() const {
    std::ifstream in(dir_ / "calls");
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path dir_;
  SuiteOptions options_;
  RunSetting setting_;
  std::string said_;
};

TEST_F(SuiteRun, RunsEveryCellOnceAndGoesOnWhereItStopped) {
  const auto outcome = run();
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_EQ(outcome->done, 4u);
  EXPECT_EQ(records().size(), 4u);
  EXPECT_THAT(said_, HasSubstr("4/4 chase 1:2"));
  const std::string before = calls();
  const auto again = run();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->done, 0u);
  EXPECT_EQ(again->skipped, 4u);
  EXPECT_EQ(calls(), before);
  // More systems: only the new ones run.
  options_.systems.push_back("interleave");
  EXPECT_EQ(run()->done, 1u);
  // The oracle's list is not in the store: without it, the run that it comes from is run again.
  std::filesystem::remove_all(dir_ / "out" / "page-counts");
  std::filesystem::remove(dir_ / "out" / kStoreName);
  options_.systems = {"oracle-static"};
  EXPECT_EQ(run()->done, 2u);
}

TEST_F(SuiteRun, KeepsAFailedCellWithItsLogAndTriesItAgain) {
  std::ofstream(dir_ / "fail-numab") << "=== start\nthe guest died of something\n";
  const auto outcome = run();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->done, 3u);
  EXPECT_EQ(outcome->failed, 1u);
  const auto all = records();
  const auto failed =
      std::find_if(all.begin(), all.end(), [](const CellRecord& r) { return !r.done; });
  ASSERT_NE(failed, all.end());
  EXPECT_EQ(failed->key.system, "numab");
  EXPECT_EQ(failed->error, "exit code 1: the guest died of something");
  EXPECT_TRUE(std::filesystem::exists(dir_ / "out" / failed->log));
  std::filesystem::remove(dir_ / "fail-numab");
  EXPECT_EQ(run()->done, 1u);
  for (const CellRecord& record : records()) EXPECT_TRUE(record.done);
}

TEST_F(SuiteRun, OracleFailsWhenTheRunThatItNeedsFails) {
  std::ofstream(dir_ / "fail-all-fast") << "no\n";
  const auto outcome = run();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->done, 2u);
  EXPECT_EQ(outcome->failed, 2u);
  EXPECT_THAT(said_, HasSubstr("its run with all memory on the fast node failed"));
}

TEST_F(SuiteRun, AProbeThatFailsFailsWhoeverNeedsTheNode) {
  std::ofstream(dir_ / "thermocline") << "#!/bin/sh\necho no kernel here\nexit 1\n";
  const auto outcome = run();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->done, 0u);
  EXPECT_EQ(outcome->failed, 4u);
}

TEST_F(SuiteRun, SizesTheFastNode) {
  options_.systems = {"first-touch"};
  ASSERT_TRUE(run());
  std::ifstream in(dir_ / "out/cells/chase_1-2_first-touch_cxl-asic_reference_6.12_1.command");
  const std::string command{std::istreambuf_iterator<char>(in), {}};
  // A third of 160 MiB is 53.33 MiB; 4 more are for the cell to take away; the kernel takes 90;
  // sizes go in steps of 128 MiB.
  EXPECT_THAT(command, HasSubstr("'--fast' '256M'"));
  const auto at = command.find("memmap=1", command.find("memmap=15M") + 1) + 7;
  EXPECT_NEAR(std::stod(command.substr(at)), (256 - 90 - 4 - 160 / 3.0) * 1024, 1024);
}

TEST_F(SuiteRun, ASignalEndsTheGuestsAndKeepsWhatIsDone) {
  options_.systems = {"all-fast", "numab"};
  std::ofstream(dir_ / "hang-numab") << "";
  const auto outcome = run_until_signalled(1);
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->signal, SIGTERM);
  EXPECT_EQ(outcome->done, 1u);
  EXPECT_EQ(records().size(), 1u);
}

TEST_F(SuiteRun, FinishedCellsOfAnotherExperimentAreNoneOfThisOne) {
  ASSERT_TRUE(run());
  const std::string before = calls();
  const std::vector<CellRecord> old = records();
  setting_.facts = [](const std::string&) { return std::string("of the refused run"); };
  options_.length = 0.5;
  const auto refused = run();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(refused.error().message, HasSubstr("4 of the cells in "));
  EXPECT_THAT(refused.error().message, HasSubstr("such as chase - all-fast, seed 1 ("));
  EXPECT_THAT(refused.error().message,
              HasSubstr("name another --out, or run them again with --again"));
  EXPECT_EQ(calls(), before);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "out" / kFactsName));
  setting_.again = true;
  EXPECT_EQ(run()->done, 4u);
  ASSERT_EQ(records().size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NE(records()[i].setting, old[i].setting);
  // Those are finished now, and their page counts are not the first run's.
  EXPECT_EQ(run()->skipped, 4u);
  std::size_t counts = 0;
  for (const auto& file : std::filesystem::directory_iterator(dir_ / "out/page-counts"))
    counts += file.is_regular_file() ? 1 : 0;
  EXPECT_EQ(counts, 2u);
}

TEST_F(SuiteRun, CellsOfOlderBuildsHaveNoSetting) {
  options_.systems = {"numab"};
  ASSERT_TRUE(run());
  std::filesystem::path store = dir_ / "out" / kStoreName;
  std::ifstream in(store);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  const auto at = text.find(",\"setting\"");
  text.erase(at, text.find(',', at + 1) - at);
  std::ofstream(store) << text;
  EXPECT_THAT(run().error().message, HasSubstr("1 of the cells in "));
}

TEST_F(SuiteRun, TakesATimingModelFromAFile) {
  std::filesystem::create_directories(dir_ / "models");
  std::ofstream(dir_ / "models/card.toml") << timing::preset_text("cxl-fpga");
  options_.timing = (dir_ / "models/card.toml").string();
  const auto outcome = run();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->done, 4u) << said_;
}

TEST_F(SuiteRun, AGuestThatDoesNotEndIsKilled) {
  options_.systems = {"numab"};
  std::ofstream(dir_ / "hang-numab") << "";
  std::ofstream(dir_ / "stubborn") << "";
  const auto start = std::chrono::steady_clock::now();
  setting_.patience = std::chrono::milliseconds(300);
  EXPECT_EQ(run_until_signalled(1)->signal, SIGTERM);
  std::filesystem::remove(dir_ / "hangs");
  setting_.patience = std::chrono::minutes(5);
  EXPECT_EQ(run_until_signalled(2)->signal, SIGTERM);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(50));
}

TEST_F(SuiteRun, NoGuestOutlivesARunThatIsKilled) {
  options_.systems = {"numab"};
  std::ofstream(dir_ / "hang-numab") << "";
  const pid_t suite = ::fork();
  ASSERT_GE(suite, 0);
  if (suite == 0) {
    (void)run();
    ::_exit(0);
  }
  const auto within = [](const std::function<bool()>& condition) {
    for (int i = 0; i < 3000 && !condition(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return condition();
  };
  const bool hung = within([this] { return std::filesystem::exists(dir_ / "hangs"); });
  ::kill(suite, SIGKILL);
  ::waitpid(suite, nullptr, 0);
  ASSERT_TRUE(hung);
  std::string pid;
  std::ifstream(dir_ / "pid") >> pid;
  // Gone, or dead and not yet collected: then it has no command line any more.
  EXPECT_TRUE(within([&pid] {
    std::string command;
    std::ifstream(fmt::format("/proc/{}/cmdline", pid)) >> command;
    return command.empty();
  }));
}

TEST_F(SuiteRun, AProgramThatCantBeStartedEndsTheRun) {
  std::filesystem::permissions(dir_ / "thermocline", std::filesystem::perms::owner_read);
  const auto outcome = run();
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().message.find("can't start " + setting_.thermocline), 0u)
      << outcome.error().message;
  EXPECT_TRUE(records().empty());
}

TEST_F(SuiteRun, AProbeMayDieTwice) {
  std::ofstream(dir_ / "dying-probes") << "1\n2\n";
  EXPECT_EQ(run()->done, 4u);
  EXPECT_THAT(said_, HasSubstr("a probe of 1:2 died and is tried again: out of luck"));
  std::filesystem::remove_all(dir_ / "out");
  std::ofstream(dir_ / "dying-probes") << "1\n2\n3\n";
  options_.systems = {"numab"};
  EXPECT_EQ(run()->failed, 1u);
}

TEST_F(SuiteRun, ACellWithTooLittleFastMemoryIsTriedOnALargerNode) {
  std::ofstream(dir_ / "short-boots") << "1\n2\n";
  options_.systems = {"numab"};
  EXPECT_EQ(run()->done, 1u);
  EXPECT_THAT(said_, HasSubstr("200 KiB too little free, and is tried again with more"));
  std::ifstream in(dir_ / "out/cells/chase_1-2_numab_cxl-asic_reference_6.12_1.command");
  const std::string command{std::istreambuf_iterator<char>(in), {}};
  const auto at = command.find("memmap=1", command.find("memmap=15M") + 1) + 7;
  EXPECT_NEAR(std::stod(command.substr(at)), (256 - 90 - 4 - 2 - 160 / 3.0) * 1024, 1024);
  std::filesystem::remove_all(dir_ / "out");
  std::ofstream(dir_ / "short-boots") << "1\n2\n3\n4\n";
  EXPECT_EQ(run()->failed, 1u);
}

TEST_F(SuiteRun, AFurtherSeedOfASlowerSettingIsNotNeeded) {
  options_.systems = {"numab", "numab@tuned", "damos"};
  options_.seeds = 3;
  set_output("default", 100, 100);
  set_output("tuned", 112, 112);
  const auto outcome = run();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->done, 7u) << said_;
  EXPECT_EQ(outcome->not_needed, 2u);
  EXPECT_THAT(said_, HasSubstr("chase 1:2 numab, seed 3: not needed: numab@tuned was 12 % "
                               "faster with seed 1"));
  std::vector<CellKey> expected;
  const auto cells = plan_cells(options_);
  for (const PlannedCell& cell : *cells) expected.push_back(cell.key);
  EXPECT_EQ(without_unneeded(expected, records()).size(), 7u);
  const auto again = run();
  EXPECT_EQ(again->done, 0u);
  EXPECT_EQ(again->skipped, 7u);
  EXPECT_EQ(again->not_needed, 2u);
  setting_.all_seeds = true;
  EXPECT_EQ(run()->done, 2u);
}

TEST_F(SuiteRun, SeedsOfBothSettingsAreNeededWhenEitherCanBeTheBetterOne) {
  options_.systems = {"numab", "numab@tuned"};
  options_.seeds = 2;
  setting_.jobs = 8;
  set_output("default", 100, 100);
  set_output("tuned", 104, 104);
  EXPECT_EQ(run()->done, 4u) << "within 5 %";
  std::filesystem::remove_all(dir_ / "out");
  set_output("tuned", 112, 90);
  EXPECT_EQ(run()->done, 4u) << "slower once settled";
  std::filesystem::remove_all(dir_ / "out");
  set_output("tuned", 90, 50);
  EXPECT_EQ(run()->done, 3u) << "also when many run at a time";
  std::filesystem::remove_all(dir_ / "out");
  std::ofstream(dir_ / "output-default") << "=== start\n";
  EXPECT_EQ(run()->failed, 2u) << "nothing to compare with";
}

TEST_F(SuiteRun, FactsAreOfRunsThatMadeCells) {
  options_.systems = {"numab"};
  setting_.facts = [](const std::string& before) { return before + "run\n"; };
  const auto facts = [this] {
    std::ifstream in(dir_ / "out" / kFactsName);
    return std::string{std::istreambuf_iterator<char>(in), {}};
  };
  ASSERT_TRUE(run());
  EXPECT_EQ(facts(), "run\n");
  ASSERT_TRUE(run());
  EXPECT_EQ(facts(), "run\n") << "nothing was left to do";
  options_.systems = {"damos"};
  ASSERT_TRUE(run());
  EXPECT_EQ(facts(), "run\nrun\n");
}

TEST_F(SuiteRun, RefusesAFolderThatCantBeWritten) {
  setting_.out_dir = "/proc/suite";
  const auto outcome = run();
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().kind, ErrorKind::kUsage);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "calls"));
}

}  // namespace
}  // namespace thermocline::suite
