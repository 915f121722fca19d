// SPDX-License-Identifier: Apache-2.0
// Cases on the modelled machine: the real engine, its bounds against brute force, sweeps that go
// on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "cli/sim_report.h"
#include "emulation/sim/case.h"
#include "emulation/sim/engine_host.h"
#include "emulation/sim/oracle.h"
#include "emulation/sim/spread.h"
#include "emulation/sim/sweep.h"
#include "emulation/sim/world.h"

namespace thermocline::sim {
namespace {

const PolicyRegistry& registry() {
  static const PolicyRegistry kRegistry = [] {
    PolicyRegistry made;
    register_builtin_policies(made);
    return made;
  }();
  return kRegistry;
}

Case case_of(const std::string& workload, const std::string& system) {
  Case c;
  c.workload = *parse_workload(workload);
  c.machine = *machine_of_timing_model("cxl-asic");
  c.pages = 8192;
  c.ratio = {1, 3};
  c.seconds = 40;
  c.judged_from = 20;
  c.system = {system, {}, registry().make(system, {}, 1) ? false : true};
  return c;
}

TEST(SimCase, ThePolicyAutoFindsAHotSet) {
  const Case c = case_of("hotset:hot=0.2,access=0.9", "auto");
  const auto bounds = bounds_of(c);
  const auto outcome = run_case(c, registry());
  ASSERT_TRUE(bounds && outcome);
  EXPECT_NEAR(bounds->static_hit_ratio, 0.9 + 0.1 * 0.05 / 0.8, 0.001);
  EXPECT_GT(outcome->hit_ratio, 0.97 * bounds->static_hit_ratio);
  EXPECT_LE(outcome->hit_ratio, bounds->dynamic_hit_ratio + 1e-9);
  EXPECT_LE(outcome->throughput, bounds->dynamic_throughput);
  EXPECT_LT(outcome->ping_pong_share, 0.05);
  EXPECT_GT(outcome->tracking_cpu, 0);
}

TEST(SimCase, PoliciesOfRecencyAreToldWhatWasTouched) {
  // Without that, they would never find a page to move.
  const std::string workload = "hotset:hot=0.1,access=0.999";
  const double still = run_case(case_of(workload, "static"), registry())->hit_ratio;
  for (const char* policy : {"age", "tpp"}) {
    const auto outcome = run_case(case_of(workload, policy), registry());
    ASSERT_TRUE(outcome) << policy;
    EXPECT_GT(outcome->hit_ratio, still + 0.1) << policy;
  }
}

TEST(SimCase, BaselinesAreWhatTheyAreCalled) {
  const auto hit = [](const std::string& system) {
    const Case c = case_of("uniform", system);
    EXPECT_TRUE(c.system.baseline) << system;
    return run_case(c, registry())->hit_ratio;
  };
  EXPECT_NEAR(hit("first-touch"), 0.25, 0.001);
  EXPECT_NEAR(hit("interleaved"), 0.25, 0.001);
  EXPECT_NEAR(hit("all-fast"), 1, 1e-9);
  EXPECT_NEAR(hit("all-slow"), 0, 1e-9);
  const Case zipf = case_of("zipf", "oracle-static");
  EXPECT_NEAR(run_case(zipf, registry())->hit_ratio, bounds_of(zipf)->static_hit_ratio, 1e-9);
}

// 90 % of a hot set that moved are back within three epochs, or within twice the time that its
// bytes take at the rate limit where that is longer, for as much has to leave. In modelled time.
TEST(SimCase, AMovedHotSetComesBackInTime) {
  struct Setting {
    unsigned epoch_s, rate_limit_mib;
    std::uint64_t pages;
    double goal_s;
  };
  Case c = case_of("moving:hot=0.1,period=20", "auto");
  c.ratio = {1, 4};
  c.seconds = 79;  // three changes, and time to come back after the last
  for (const Setting& s : {Setting{2, 256, 131072, 6}, Setting{1, 256, 131072, 3},
                           Setting{2, 16, 131072, 6.1}, Setting{2, 16, 262144, 12}}) {
    c.pages = s.pages;
    SCOPED_TRACE(testing::Message() << "epoch " << s.epoch_s << " s, " << s.rate_limit_mib
                                    << " MiB/s, " << s.pages << " pages");
    c.engine.epoch = std::chrono::seconds(s.epoch_s);
    c.engine.rate_limit = Bytes(s.rate_limit_mib << 20);
    const auto outcome = run_case(c, registry());
    ASSERT_TRUE(outcome);
    EXPECT_EQ(outcome->changes, 3u);
    EXPECT_EQ(outcome->reconverged, 3u);
    ASSERT_TRUE(outcome->reconverge_most_s && outcome->reconverge_goal_s);
    EXPECT_NEAR(*outcome->reconverge_goal_s, s.goal_s, 0.2);
    EXPECT_GT(*outcome->reconverge_s, 0);
    EXPECT_LE(*outcome->reconverge_most_s, *outcome->reconverge_goal_s);
    if (s.goal_s == 3 * s.epoch_s) {
      EXPECT_LE(*outcome->reconverge_epochs, 3);
    }
  }
  c.system.name = "static";
  const auto still = run_case(c, registry());
  EXPECT_EQ(still->reconverged, 0u);
  EXPECT_EQ(still->promoted, Bytes(0));
}

// Local DRAM, a CXL device, and one behind a switch: hot, warm and cold pages, scattered, each as
// many as their tier holds with some room to spare.
TEST(SimCase, OfThreeTiersTheFastestHoldsTheHottestAndTheNextTheWarm) {
  constexpr std::uint64_t kPages = 32768;
  Machine machine;
  machine.tiers = {{100, 200, 10}, {250, 25, 20}, {400, 22, 25}};
  // Half a million accesses a second, so that not all pages are touched in every window.
  machine.threads = 1;
  machine.think_ns = 2000;
  const Capacity capacity = capacity_of({1, 2, 5}, kPages);
  constexpr std::array<std::uint64_t, 3> kOfClass{3600, 7200, kPages - 10800};
  constexpr std::array<double, 3> kShare{0.75, 0.2, 0.05};
  Workload workload;
  workload.pages = kPages;
  workload.tenants = {{0, kPages}};
  workload.fill = [&](std::uint64_t, Phase& phase) {
    phase = {};
    const Permutation scattered(kPages, 5);
    for (std::uint64_t page = 0; page < kPages; ++page) {
      const std::uint64_t rank = scattered(page);
      phase.classes.push_back(rank < kOfClass[0] ? 0 : rank < kOfClass[0] + kOfClass[1] ? 1 : 2);
    }
    for (std::size_t i = 0; i < 3; ++i)
      phase.share[i] = kShare[i] / static_cast<double>(kOfClass[i]);
  };
  for (const std::string policy : {"auto", "heat", "static"}) {
    SCOPED_TRACE(policy);
    World world(machine, workload, capacity, place_at_start(workload, capacity, Start::kFirstTouch),
                1);
    const auto share_on = [&](std::size_t tier, std::size_t of_class) {
      return static_cast<double>(world.held()[tier][of_class]) /
             static_cast<double>(kOfClass[of_class]);
    };
    ASSERT_NEAR(share_on(0, 0), 0.125, 0.03) << "scattered";
    EngineHost host(world, *registry().make(policy, {}, 1), EngineOptions{}, false);
    host.run_until(std::chrono::seconds(60), [] {});
    if (policy == "static") {
      EXPECT_NEAR(share_on(0, 0), 0.125, 0.03);
      EXPECT_NEAR(share_on(1, 1), 0.25, 0.03);
      continue;
    }
    EXPECT_GT(share_on(0, 0), 0.95);
    EXPECT_GT(share_on(1, 1), 0.9);
    EXPECT_GT(share_on(2, 2), 0.9);
    for (std::size_t tier = 0; tier < 2; ++tier) EXPECT_LE(world.used(tier), capacity[tier]);
  }
}

TEST(SimCase, TheSameCaseGivesTheSameBytes) {
  for (const char* workload : {"zipf", "graph", "multi-tenant", "scan-loop:scan=5"}) {
    const Case c = case_of(workload, "auto");
    const auto line = [&](bool helper) {
      return to_json(c, *run_case(c, registry(), helper), *bounds_of(c)).dump();
    };
    const std::string first = line(false);
    EXPECT_EQ(first, line(false)) << workload;
    Case other = c;
    other.seed = 2;
    EXPECT_NE(first, to_json(other, *run_case(other, registry()), *bounds_of(other)).dump());
  }
}

TEST(SimCase, AHelpingThreadChangesNothing) {
  Case c = case_of("zipf", "auto");
  c.pages = 3u << 20;  // several chunks
  c.seconds = 4;
  c.judged_from = 2;
  const Bounds none;
  EXPECT_EQ(to_json(c, *run_case(c, registry(), false), none).dump(),
            to_json(c, *run_case(c, registry(), true), none).dump());
}

TEST(SimCase, WhatThrottlesCosts) {
  Case c = case_of("hotset:hot=0.2,access=0.9", "auto");
  const auto usual = run_case(c, registry());
  c.machine.tracking = Charge::kProgram;
  c.machine.scan_idle_ns = 1000;
  EXPECT_LT(run_case(c, registry())->throughput, usual->throughput);
}

TEST(SimOracle, TheBestStaticPlacementIsThatOfBruteForce) {
  // All choices of 3 of 10 groups of pages, over two phases.
  const std::uint64_t pages = 10;
  Workload workload;
  workload.pages = pages;
  workload.tenants = {{0, pages}};
  workload.first_phase_s = 4;
  workload.fill = [](std::uint64_t number, Phase& phase) {
    phase.classes.resize(10);
    phase.sweeps.clear();
    double sum = 0;
    for (std::size_t p = 0; p < 10; ++p) {
      phase.classes[p] = static_cast<std::uint8_t>(p);
      phase.share[p] = static_cast<double>(spread(p + 10 * number) % 100);
      sum += phase.share[p];
    }
    for (std::size_t p = 0; p < 10; ++p) phase.share[p] /= sum;
  };
  const Machine machine = *machine_of_timing_model("cxl-asic");
  const Capacity capacity{3, 10};
  const auto tiers = best_static_placement({machine, workload, capacity, 0, 10, 1e6});
  Phase first, second;
  workload.fill(0, first);
  workload.fill(1, second);
  const auto value = [&](std::size_t p) { return 4 * first.share[p] + 6 * second.share[p]; };
  double best = 0, found = 0;
  for (unsigned set = 0; set < 1u << 10; ++set) {
    if (std::popcount(set) != 3) continue;
    double sum = 0;
    for (std::size_t p = 0; p < 10; ++p)
      if ((set >> p & 1) != 0) sum += value(p);
    best = std::max(best, sum);
  }
  for (std::size_t p = 0; p < 10; ++p)
    if (tiers[p] == 0) found += value(p);
  EXPECT_NEAR(found, best, 1e-6);
  EXPECT_EQ(std::count(tiers.begin(), tiers.end(), 0), 3);
}

/// The best that can be done with `capacity` fast pages and `moves` changes, by trying everything.
double brute_force(const std::vector<std::vector<double>>& value, unsigned capacity, unsigned moves,
                   double cost) {
  const std::size_t pages = value.size(), phases = value.front().size();
  std::vector<double> best(1u << pages, 0), next;
  for (std::size_t k = 0; k < phases; ++k) {
    next.assign(1u << pages, -1e300);
    for (unsigned now = 0; now < 1u << pages; ++now) {
      if (static_cast<unsigned>(std::popcount(now)) > capacity) continue;
      double gain = 0;
      for (std::size_t p = 0; p < pages; ++p)
        if ((now >> p & 1) != 0) gain += value[p][k];
      for (unsigned before = 0; before < 1u << pages; ++before) {
        const auto changed = static_cast<unsigned>(std::popcount(now ^ before));
        if (best[before] < -1e299 || (k > 0 && changed > moves)) continue;
        next[now] = std::max(next[now], best[before] + gain - (k > 0 ? changed * cost : 0));
        if (k == 0) break;
      }
    }
    best = next;
  }
  return *std::max_element(best.begin(), best.end());
}

TEST(SimOracle, TheDynamicBoundIsOneAndIsClose) {
  Lots lots(11);
  double slack = 0;
  for (int round = 0; round < 30; ++round) {
    const unsigned capacity = 1 + static_cast<unsigned>(lots.below(3));
    const unsigned moves = static_cast<unsigned>(lots.below(4));
    const double cost = lots.share() * 0.3;
    std::vector<std::vector<double>> value(6, std::vector<double>(4));
    std::vector<PageGroup> groups;
    for (auto& of_page : value) {
      for (double& v : of_page) v = lots.share();
      groups.push_back({1, of_page});
    }
    const double best = brute_force(value, capacity, moves, cost);
    const double bound =
        relaxed_best(groups, capacity, std::vector<double>(4, static_cast<double>(moves)), cost);
    EXPECT_GE(bound, best - 1e-9) << round;
    slack += bound / best - 1;
  }
  EXPECT_LT(slack / 30, 0.1) << "a bound that bounds nothing";
}

TEST(SimOracle, ThroughputIsBestWithTrafficSpreadWhenTiersAreFull) {
  Machine machine = *machine_of_timing_model("cxl-asic");
  Traffic all{1, 0};
  EXPECT_NEAR(best_throughput(machine, {1, 1}), throughput(machine, all), 1);
  machine.threads = 2000;
  machine.tiers[0].bandwidth_gbps = 30;
  double best = 0;
  for (int i = 0; i <= 1000; ++i)
    best = std::max(best, throughput(machine, {i / 1e3, 1 - i / 1e3}));
  EXPECT_GT(best, 1.3 * throughput(machine, all));
  EXPECT_NEAR(best_throughput(machine, {1, 1}) / best, 1, 0.02);
  EXPECT_NEAR(best_throughput(machine, {0.1, 1}), throughput(machine, {0.1, 0.9}), 1e6);
}

TEST(SimSweep, ReadsRatiosSystemsAndAxes) {
  const auto ratios = parse_ratios("1:1..1:16,2:1", 2);
  ASSERT_TRUE(ratios);
  ASSERT_EQ(ratios->size(), 6u);
  EXPECT_EQ(ratio_text((*ratios)[3]), "1:8");
  EXPECT_EQ(ratio_text((*ratios)[5]), "2:1");
  EXPECT_EQ(parse_ratios("1:1:4", 3)->size(), 1u);
  for (const char* wrong : {"1", "1:0", "1:4:4", "1:8..1:2", "1:1..2:4", "a:b", ""})
    EXPECT_EQ(parse_ratios(wrong, 2).error().kind, ErrorKind::kUsage) << wrong;

  const std::vector<std::string> grid{"heat:warm_band=3,5;min_heat=2,4"};
  const auto systems = parse_systems("all,all-fast", grid, registry());
  ASSERT_TRUE(systems);
  EXPECT_EQ(systems->size(), registry().factories().size() + 4 + 1);
  EXPECT_EQ(to_text((*systems)[2]), "heat:warm_band=3;min_heat=2");
  EXPECT_TRUE(systems->back().baseline);
  EXPECT_FALSE(parse_systems("haet", {}, registry()));
  EXPECT_FALSE(parse_systems("heat", std::vector<std::string>{"heat:no_such=1"}, registry()));
  EXPECT_FALSE(parse_systems("static", grid, registry()));

  const std::vector<WorkloadChoice> workloads{*parse_workload("hotset")};
  EXPECT_EQ(parse_axis("hot=0.1,0.2", workloads)->values.size(), 2u);
  EXPECT_EQ(parse_axis("rate_limit=64", workloads)->key, "rate_limit");
  EXPECT_THAT(parse_axis("rate_limt=64", workloads).error().message,
              testing::HasSubstr("did you mean rate_limit?"));
  EXPECT_FALSE(parse_axis("overlap=0.5", workloads)) << "not of this workload";
  EXPECT_FALSE(parse_axis("hot=2", workloads));
  EXPECT_FALSE(parse_axis("hot", workloads));
}

SweepRequest request() {
  SweepRequest request;
  request.base = case_of("zipf", "auto");
  request.base.pages = 2048;
  request.base.seconds = 8;
  request.base.judged_from = 4;
  request.workloads = {*parse_workload("zipf"), *parse_workload("hotset")};
  request.ratios = *parse_ratios("1:1,1:4", 2);
  request.systems = *parse_systems("heat,static,all-fast", {}, registry());
  return request;
}

TEST(SimSweep, IsTheProductOfWhatWasAskedFor) {
  SweepRequest r = request();
  r.axes = {*parse_axis("threads=4,8,16", r.workloads)};
  r.seeds = 2;
  const auto cases = plan_sweep(r);
  ASSERT_TRUE(cases);
  EXPECT_EQ(cases->size(), 2u * 2 * 3 * 2 * 3);
  std::set<std::string> keys;
  for (const Case& c : *cases) keys.insert(case_key(c));
  EXPECT_EQ(keys.size(), cases->size()) << "each has a key of its own";
  EXPECT_EQ(cases->back().machine.threads, 16);
}

TEST(SimSweep, DrawsDoNotHangOnTheirNumber) {
  SweepRequest r = request();
  const auto few = plan_draws(r, 3), many = plan_draws(r, 30);
  ASSERT_EQ(many->size(), 30u * 3);
  for (std::size_t i = 0; i < few->size(); ++i)
    EXPECT_EQ(case_key((*few)[i]), case_key((*many)[i]));
  std::set<std::string> workloads;
  for (const Case& c : *many) workloads.insert(to_text(c.workload));
  EXPECT_GT(workloads.size(), 25u);
  r.first_seed = 2;
  EXPECT_NE(case_key(plan_draws(r, 1)->front()), case_key(few->front()));
}

class SimStore : public testing::Test {
 protected:
  SimStore() { std::filesystem::remove_all(dir_); }
  ~SimStore() override { std::filesystem::remove_all(dir_); }
  std::string stored() const {
    std::ifstream in(dir_ + "/" + kCasesName);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }
  std::string dir_ = testing::TempDir() + "sim_store_" + std::to_string(::getpid());
};

TEST_F(SimStore, ARunThatWasEndedGoesOnAndNoFigureDiffers) {
  const auto cases = *plan_sweep(request());
  const auto whole = run_cases(cases, registry(), {"", 1, {}, {}});
  ASSERT_TRUE(whole);
  ASSERT_EQ(whole->size(), cases.size());
  ASSERT_TRUE(run_cases({cases.begin(), cases.begin() + 5}, registry(), {dir_, 2, {}, {}}));
  {
    std::ofstream torn(dir_ + "/" + kCasesName, std::ios::app);
    torn << R"({"key":"half a)";
  }
  std::vector<std::string> said;
  const auto rest = run_cases(
      cases, registry(), {dir_, 2, [&](const std::string& text) { said.push_back(text); }, {}});
  ASSERT_TRUE(rest);
  EXPECT_THAT(said.front(), testing::HasSubstr("5 of 12 cases are there already"));
  EXPECT_EQ(said.size(), 1u + 7u);
  for (std::size_t i = 0; i < cases.size(); ++i) EXPECT_EQ((*whole)[i].dump(), (*rest)[i].dump());
  const std::string text = stored();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 12);
}

TEST_F(SimStore, WhatOtherCodeFoundIsFoundAgain) {
  const auto cases = *plan_sweep(request());
  std::vector<std::string> said;
  const auto say = [&](const std::string& text) { said.push_back(text); };
  const auto old = run_cases({cases.begin(), cases.begin() + 5}, registry(), {dir_, 2, {}, "1-a"});
  ASSERT_TRUE(old);
  const auto again = run_cases(cases, registry(), {dir_, 2, say, "1-b"});
  ASSERT_TRUE(again);
  EXPECT_THAT(said.front(), testing::HasSubstr("5 of 12 cases are there from other code"));
  EXPECT_EQ(said.size(), 1u + 12u);
  // Both are kept, and each is known by its own code.
  for (const std::string version : {"1-a", "1-b"}) {
    said.clear();
    const auto there =
        run_cases({cases.begin(), cases.begin() + 5}, registry(), {dir_, 2, say, version});
    ASSERT_TRUE(there);
    EXPECT_THAT(said, testing::ElementsAre("5 of 5 cases are there already"));
    for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ((*old)[i].dump(), (*there)[i].dump());
  }
  const std::string text = stored();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 17);
  // A store of a program that told no version is one of other code.
  said.clear();
  std::string without = text;
  for (std::size_t at = 0; (at = without.find(",\"version\":\"1-b\"")) != std::string::npos;)
    without.erase(at, std::string_view(",\"version\":\"1-b\"").size());
  ASSERT_NE(without, text);
  std::ofstream(dir_ + "/" + kCasesName) << without;
  ASSERT_TRUE(run_cases(cases, registry(), {dir_, 2, say, "1-b"}));
  EXPECT_THAT(said.front(), testing::HasSubstr("12 of 12 cases are there from other code"));
}

TEST_F(SimStore, RefusesAFileOfSomethingElse) {
  std::filesystem::create_directories(dir_);
  {
    std::ofstream other(dir_ + "/" + kCasesName);
    other << "{\"cell\":1}\n";
  }
  const auto lines = run_cases(*plan_sweep(request()), registry(), {dir_, 1, {}, {}});
  ASSERT_FALSE(lines);
  EXPECT_EQ(lines.error().kind, ErrorKind::kCorrupt);
  EXPECT_THAT(lines.error().message, testing::HasSubstr("cases.jsonl:1:"));
  EXPECT_EQ(stored(), "{\"cell\":1}\n") << "nothing is lost";
}

TEST(SimReport, ComparesWithTheBestTunedOther) {
  const auto line = [](const char* draw, const char* system, double rate, int epochs) {
    nlohmann::ordered_json j = to_json(case_of("zipf", "auto"), Outcome{}, Bounds{});
    j["draw"] = draw;
    j["problem"] = draw;
    j["system"] = system;
    j["throughput_per_s"] = rate;
    j["epochs"] = epochs;
    return j;
  };
  const std::vector<nlohmann::ordered_json> lines{line("1.1", "auto", 90, 9),
                                                  line("1.1", "heat", 80, 9),
                                                  line("1.1", "heat:warm_band=3", 100, 9),
                                                  line("1.1", "static", 60, 9),
                                                  line("1.1", "all-fast", 500, 0),
                                                  line("1.2", "auto", 40, 9),
                                                  line("1.2", "heat", 10, 9),
                                                  line("1.2", "heat:warm_band=3", 20, 9),
                                                  line("1.2", "static", 50, 9),
                                                  line("1.2", "all-fast", 500, 0)};
  const auto summary = cli::sim_summary(lines);
  ASSERT_EQ(summary["problems"], 2);
  const auto& entry = summary["systems"][0];
  EXPECT_EQ(entry["system"], "auto");
  EXPECT_NEAR(entry["of_best_tuned_other"].get<double>(), std::sqrt(0.9 * 0.8), 1e-9);
  EXPECT_NEAR(entry["worst_of_best_tuned_other"].get<double>(), 0.8, 1e-9);
  EXPECT_NEAR(entry["least_of_static"].get<double>(), 0.8, 1e-9);
}

}  // namespace
}  // namespace thermocline::sim
