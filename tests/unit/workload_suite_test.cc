// SPDX-License-Identifier: Apache-2.0
// Every workload of the suite: the same for the same seed, as large as asked for, and aware of
// damage.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "base/system.h"
#include "bench/workloads/suite/latency.h"
#include "bench/workloads/suite/permutation.h"
#include "bench/workloads/suite/progress.h"
#include "bench/workloads/suite/runner.h"
#include "bench/workloads/suite/server.h"

namespace thermocline::workloads {
namespace {

using testing::HasSubstr;

RunOptions small_run(const WorkloadSpec& spec, std::uint64_t seed = 1) {
  RunOptions o;
  o.name = spec.name;
  o.footprint = kLeastFootprint;
  o.seed = seed;
  o.operations = std::uint64_t{spec.sample_every} * 16 + 3;
  o.warm_up = 5;
  return o;
}

std::map<std::string, double> defaults(const WorkloadSpec& spec) {
  std::map<std::string, double> settings;
  for (const Setting& s : spec.settings) settings[s.key] = s.value;
  return settings;
}

class Suite : public testing::TestWithParam<std::string> {
 protected:
  const WorkloadSpec& spec_ = **find_workload(GetParam());
  std::unique_ptr<System> system_ = make_real_system();
};

TEST_P(Suite, GivesTheSameForTheSameSeed) {
  const auto a = run_workload(small_run(spec_), *system_);
  ASSERT_TRUE(a) << a.error().message;
  EXPECT_TRUE(a->verified) << a->verified.error().message;
  EXPECT_EQ(a->operations(), small_run(spec_).operations);
  const auto b = run_workload(small_run(spec_), *system_);
  ASSERT_TRUE(b);
  EXPECT_EQ(a->checksum, b->checksum);
  EXPECT_EQ(a->operations(), b->operations());
  const auto c = run_workload(small_run(spec_, 2), *system_);
  ASSERT_TRUE(c);
  EXPECT_NE(a->checksum, c->checksum);
  EXPECT_TRUE(c->verified) << c->verified.error().message;
}

TEST_P(Suite, ThreadsShareNothingAndStayDeterministic) {
  RunOptions o = small_run(spec_);
  o.threads = 2;
  o.footprint = Bytes(2 * kLeastFootprint.get());
  const auto a = run_workload(o, *system_);
  const auto b = run_workload(o, *system_);
  ASSERT_TRUE(a && b);
  EXPECT_TRUE(a->verified) << a->verified.error().message;
  EXPECT_EQ(a->checksum, b->checksum);
  EXPECT_EQ(a->operations(), o.operations);
}

TEST_P(Suite, TakesTheFootprintWithinFivePercent) {
  for (const std::uint64_t footprint : {8ul << 20, 9'999'999ul, 16'000'000ul, 100ul << 20}) {
    Memory memory(false);
    ASSERT_TRUE(spec_.make({memory, Bytes(footprint), 1, defaults(spec_)}));
    EXPECT_NEAR(static_cast<double>(memory.allocated().get()), static_cast<double>(footprint),
                0.05 * static_cast<double>(footprint));
  }
}

TEST_P(Suite, SeesDamage) {
  Memory memory(false);
  auto workload = spec_.make({memory, kLeastFootprint, 1, defaults(spec_)});
  ASSERT_TRUE(workload);
  memory.touch(1);
  (*workload)->fill();
  (*workload)->run(0, 10);
  // One byte in the middle of the largest structure: what most of the footprint is.
  const auto structures = memory.structures();
  const auto largest =
      std::max_element(structures.begin(), structures.end(),
                       [](const auto& a, const auto& b) { return a.size() < b.size(); });
  (*largest)[largest->size() / 2 + 5] ^= std::byte{0x10};
  const Status verified = (*workload)->verify(10);
  ASSERT_FALSE(verified);
  EXPECT_EQ(verified.error().kind, ErrorKind::kFailure);
}

TEST_P(Suite, TakesTheEndsOfEverySetting) {
  for (const Setting& s : spec_.settings)
    for (const double value : {s.min, s.max}) {
      RunOptions o = small_run(spec_);
      o.settings[s.key] = value;
      o.operations = std::max<std::uint64_t>(o.operations, 200 * (s.key == "phases"));
      const auto result = run_workload(o, *system_);
      ASSERT_TRUE(result) << s.key << "=" << value << ": " << result.error().message;
      EXPECT_TRUE(result->verified)
          << s.key << "=" << value << ": " << result->verified.error().message;
    }
}

std::vector<std::string> names(bool with_program) {
  std::vector<std::string> names;
  for (const WorkloadSpec& spec : all_workloads())
    if (spec.program.empty() != with_program) names.push_back(spec.name);
  return names;
}
std::string test_name(const testing::TestParamInfo<std::string>& one) {
  std::string name = one.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, Suite, testing::ValuesIn(names(false)), test_name);

/// Workloads that drive a program; what needs one is tested where it is installed. In guests,
/// tests/lab/workload-programs.lab tests all of them.
class ProgramSuite : public Suite {
 protected:
  void SetUp() override {
    if (const auto found = find_program(spec_.program); !found)
      GTEST_SKIP() << found.error().message;
  }
};

TEST_P(ProgramSuite, GivesTheSameForTheSameSeed) {
  const auto a = run_workload(small_run(spec_), *system_);
  ASSERT_TRUE(a) << a.error().message;
  EXPECT_TRUE(a->verified) << a->verified.error().message;
  EXPECT_EQ(a->operations(), small_run(spec_).operations);
  const auto b = run_workload(small_run(spec_), *system_);
  ASSERT_TRUE(b) << b.error().message;
  EXPECT_EQ(a->checksum, b->checksum);
  const auto c = run_workload(small_run(spec_, 2), *system_);
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_NE(a->checksum, c->checksum);
  EXPECT_NE(a->process.pid, Pid(::getpid()));
  EXPECT_FALSE(system_->exists(fmt::format("/proc/{}", a->process.pid.get()))) << "not reaped";
}

TEST_P(ProgramSuite, TakesTheFootprintWithinFivePercent) {
  RunOptions o = small_run(spec_);
  o.footprint = Bytes(std::uint64_t{24} << 20);
  const auto result = run_workload(o, *system_);
  ASSERT_TRUE(result) << result.error().message;
  const auto wanted = static_cast<double>(o.footprint.get());
  EXPECT_NEAR(static_cast<double>(result->process.resident.get()), wanted, 0.05 * wanted);
}

TEST_P(ProgramSuite, TakesTheEndsOfEverySetting) {
  for (const Setting& s : spec_.settings)
    for (const double value : {s.min, s.max}) {
      RunOptions o = small_run(spec_);
      o.settings[s.key] = value;
      const auto result = run_workload(o, *system_);
      ASSERT_TRUE(result) << s.key << "=" << value << ": " << result.error().message;
      EXPECT_TRUE(result->verified)
          << s.key << "=" << value << ": " << result->verified.error().message;
    }
}
INSTANTIATE_TEST_SUITE_P(All, ProgramSuite, testing::ValuesIn(names(true)), test_name);

TEST(SuiteProgram, SaysWhatIsWrongWithTheProgram) {
  const auto system = make_real_system();
  RunOptions o = small_run(**find_workload("redis"));
  const auto refused = [&] {
    auto result = run_workload(o, *system);
    return result ? Error{ErrorKind::kFailure, "not refused", 0} : std::move(result).error();
  };
  o.program = "/nowhere/redis-server";
  EXPECT_EQ(refused().kind, ErrorKind::kUnsupported);
  EXPECT_THAT(refused().message, HasSubstr("no program /nowhere/redis-server"));
  o.program = "/bin/false";
  EXPECT_EQ(refused().kind, ErrorKind::kFailure);
  EXPECT_THAT(refused().message, HasSubstr("redis-server ended with exit code 1 at its start"));
  o.program = "/bin/cat";  // takes no --port
  EXPECT_THAT(refused().message, HasSubstr("it said: "));
  o = small_run(**find_workload("sqlite"));
  o.program = "/bin/false";
  EXPECT_THAT(refused().message, HasSubstr("ended with exit code 1"));
  o.threads = 2;
  o.footprint = Bytes(2 * kLeastFootprint.get());
  EXPECT_EQ(refused().kind, ErrorKind::kUsage);
  o = small_run(all_workloads().front());
  o.program = "/bin/false";
  EXPECT_EQ(refused().kind, ErrorKind::kUsage);
}

/// A workload of 8 MiB whose memory a test can damage and mend again.
struct Patient {
  explicit Patient(const std::string& name, std::map<std::string, double> changed = {}) {
    const WorkloadSpec& spec = **find_workload(name);
    auto settings = defaults(spec);
    for (const auto& [key, value] : changed) settings[key] = value;
    workload = *spec.make({memory, kLeastFootprint, 1, settings});
    memory.touch(1);
    workload->fill();
  }
  Memory memory{false};
  std::unique_ptr<Workload> workload;
};

TEST(Ycsb, EveryByteIsVerifiedAndNoneCrashesIt) {
  Random random(4);
  for (const char* const name : {"ycsb-a", "ycsb-d", "ycsb-e"}) {
    Patient store(name);
    store.workload->run(0, 2000);
    ASSERT_TRUE(store.workload->verify(2000));
    for (int i = 0; i < 60; ++i)
      for (const std::span<std::byte> structure : store.memory.structures()) {
        const std::uint64_t at = random.below(structure.size());
        const auto flip = static_cast<std::byte>(1u << random.below(8));
        structure[at] ^= flip;
        EXPECT_FALSE(store.workload->verify(2000)) << name << ", byte " << at;
        structure[at] ^= flip;
      }
    EXPECT_TRUE(store.workload->verify(2000));
    // A store that goes on with links and sizes that lead anywhere.
    for (int i = 0; i < 2000; ++i)
      for (const std::span<std::byte> structure : store.memory.structures())
        structure[random.below(structure.size())] ^= static_cast<std::byte>(random.below(256));
    store.workload->run(0, 2000);
    EXPECT_FALSE(store.workload->verify(4000));
  }
}

TEST(PageRank, SeesTheSmallestChangeOfAScore) {
  // After all but the last few vertices of an iteration, and in the first.
  for (const std::uint64_t operations : {40ul, 32'760ul})
    for (const std::size_t structure : {2u, 3u, 4u})  // scores; shares of the last and this round
      for (const std::size_t vertex : {20u, 30'000u}) {
        Patient ranks("pagerank");
        ranks.workload->run(0, operations);
        ranks.memory.structures()[structure][vertex * sizeof(float)] ^= std::byte{1};
        EXPECT_FALSE(ranks.workload->verify(operations)) << structure << ", vertex " << vertex;
      }
}

TEST(Btree, StaysInShapeWhenEveryRecordIsReplacedManyTimes) {
  for (const std::uint64_t inserts : {1ul, 1000ul, 2'000'000ul}) {
    Patient tree("btree", {{"insert_share", 1}});
    tree.workload->run(0, inserts);
    const Status verified = tree.workload->verify(inserts);
    EXPECT_TRUE(verified) << inserts << ": " << verified.error().message;
  }
}

TEST(Btree, EveryByteIsVerified) {
  Patient tree("btree");
  tree.workload->run(0, 20'000);
  const std::span<std::byte> nodes = tree.memory.structures()[0];
  Random random(3);
  for (std::uint64_t i = 0; i < 200; ++i) {
    // The head of a node first, then anything.
    const std::uint64_t node = random.below(nodes.size() / 512);
    const std::uint64_t byte = i < 32 ? i % 16 : random.below(512);
    // A key right above the leaves may have any value that still parts its neighbours.
    if (nodes[node * 512 + 8] == std::byte{1} && byte >= 16 && byte < 264) continue;
    const auto flip = static_cast<std::byte>(1u << random.below(8));
    nodes[node * 512 + byte] ^= flip;
    EXPECT_FALSE(tree.workload->verify(20'000)) << "byte " << byte << " of node " << node;
    nodes[node * 512 + byte] ^= flip;
  }
  EXPECT_TRUE(tree.workload->verify(20'000));
}

TEST(Permutation, GivesEachNumberOnceInAnotherOrder) {
  for (const std::uint64_t count : {1ul, 2ul, 3ul, 64ul, 1000ul, 4097ul, 65536ul}) {
    const Permutation permutation(count, 7);
    std::vector<bool> seen(count);
    std::uint64_t rises = 0, last = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t at = permutation(i);
      ASSERT_LT(at, count);
      EXPECT_FALSE(seen[at]);
      EXPECT_EQ(permutation.inverse(at), i);
      seen[at] = true;
      rises += at > last;
      last = at;
    }
    // Of a random order, half of the steps go up.
    if (count >= 64) {
      EXPECT_NEAR(static_cast<double>(rises), static_cast<double>(count) / 2,
                  static_cast<double>(count) / 8);
    }
  }
}

TEST(SuiteRunner, RefusesWhatCantBe) {
  const auto system = make_real_system();
  const RunOptions good = small_run(all_workloads().front());
  const auto refused = [&](const RunOptions& o) {
    const auto result = run_workload(o, *system);
    if (result) return std::string("not refused");
    EXPECT_EQ(result.error().kind, ErrorKind::kUsage);
    return result.error().message;
  };
  RunOptions o = good;
  o.name = "gups-uniforn";
  EXPECT_THAT(refused(o), HasSubstr("did you mean \"gups-uniform\"?"));
  o = good;
  o.footprint = Bytes(kLeastFootprint.get() - 1);
  EXPECT_THAT(refused(o), HasSubstr("too small"));
  o.footprint = Bytes(std::uint64_t{1} << 60);
  EXPECT_THAT(refused(o), HasSubstr("too large"));
  o = good;
  o.threads = 2;
  EXPECT_THAT(refused(o), HasSubstr("each of 2 threads"));
  o = good;
  o.name = "gups-hot";
  o.settings["hot"] = 1;
  EXPECT_THAT(refused(o), HasSubstr("it has hot_fraction, hot_share"));
  o.settings = {{"hot_share", 1.5}};
  EXPECT_THAT(refused(o), HasSubstr("0 to 1"));
  o = good;
  o.operations = 0;
  o.duration_s = 0;
  EXPECT_THAT(refused(o), HasSubstr("--duration"));
  o = good;
  o.samples_s = -1;
  EXPECT_THAT(refused(o), HasSubstr("--samples"));
  o = good;
  o.name = "gups-moving";
  o.operations = 2;
  EXPECT_THAT(refused(o), HasSubstr("3 phases"));
}

TEST(SuiteRunner, EndsAfterItsDurationWithEveryPhase) {
  const auto system = make_real_system();
  RunOptions o;
  o.name = "gups-moving";
  o.footprint = kLeastFootprint;
  o.duration_s = 0.06;
  const auto result = run_workload(o, *system);
  ASSERT_TRUE(result);
  ASSERT_EQ(result->phases.size(), 3u);
  EXPECT_GE(result->seconds(), 0.06);
  for (const PhaseResult& phase : result->phases) EXPECT_LE(phase.start_s, phase.end_s);
}

TEST(SuiteRunner, TellsItsOperationsAtEveryPeriod) {
  const auto system = make_real_system();
  RunOptions o;
  o.name = "gups-moving";
  o.footprint = Bytes(2 * kLeastFootprint.get());
  o.threads = 2;
  o.duration_s = 0.1;
  o.samples_s = 0.01;
  const auto result = run_workload(o, *system);
  ASSERT_TRUE(result);
  ASSERT_GE(result->samples.size(), 10u);
  EXPECT_TRUE(std::is_sorted(result->samples.begin(), result->samples.end()));
  EXPECT_LE(result->samples.back(), result->operations());
  const auto json = to_json(*result);
  EXPECT_DOUBLE_EQ(json["samples"][9][0].get<double>(), 0.1);
  EXPECT_EQ(json["samples"][9][1].get<std::uint64_t>(), result->samples[9]);
  o.samples_s = 0;
  EXPECT_TRUE(to_json(*run_workload(o, *system))["samples"].empty());
}

TEST(Progress, TellsOperationsAtFullPeriods) {
  Progress none;
  none.start(0, 0);
  none.reading(5000, 10);
  EXPECT_TRUE(none.points().empty());
  EXPECT_EQ(none.operations(), 10u);

  Progress progress;
  progress.start(500, 1000);
  progress.reading(1300, 100);
  EXPECT_TRUE(progress.points().empty());
  progress.reading(1900, 60);  // 1500 is a third of the way
  progress.reading(4500, 40);  // 2500, 3500 and, by a hair, 4500
  progress.reading(4500, 0);
  EXPECT_THAT(progress.points(), testing::ElementsAre(120, 169, 184, 200));

  Progress shorter;
  shorter.start(500, 1000);
  shorter.reading(1500, 7);
  shorter.reading(1600, 2);
  EXPECT_THAT(sum_of({&progress, &shorter}), testing::ElementsAre(127, 178, 193, 209));
}

TEST(SuiteRunner, EveryKeyAndWorkloadIsDocumented) {
  std::ifstream in(std::string(THERMOCLINE_SOURCE_DIR) + "/docs/workloads.md");
  std::ostringstream text;
  text << in.rdbuf();
  const auto system = make_real_system();
  const auto result = run_workload(small_run(all_workloads().front()), *system);
  ASSERT_TRUE(result);
  const auto json = to_json(*result);
  for (const auto& [key, value] : json.items()) EXPECT_THAT(text.str(), HasSubstr("`" + key + "`"));
  for (const auto& [key, value] : json["phases"][0].items())
    EXPECT_THAT(text.str(), HasSubstr("`" + key + "`"));
  for (const WorkloadSpec& spec : all_workloads()) {
    EXPECT_THAT(text.str(), HasSubstr("`" + spec.name + "`"));
    for (const Setting& s : spec.settings) EXPECT_THAT(text.str(), HasSubstr("`" + s.key + "`"));
  }
}

TEST(LatencyHistogram, TellsQuantilesToWithinItsBins) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.quantile(0.5), 0u);
  for (std::uint64_t ns = 1; ns <= 100'000; ++ns) histogram.add(ns);
  EXPECT_NEAR(static_cast<double>(histogram.quantile(0.50)), 50'000, 50'000 * 0.0625);
  EXPECT_NEAR(static_cast<double>(histogram.quantile(0.99)), 99'000, 99'000 * 0.0625);
  LatencyHistogram ends;
  ends.add(0);
  ends.add(~std::uint64_t{0});
  EXPECT_EQ(ends.quantile(0.5), 0u);
  EXPECT_GT(ends.quantile(1.0), std::uint64_t{1} << 63);
  ends.merge(histogram);
  EXPECT_EQ(ends.count(), 100'002u);
}

}  // namespace
}  // namespace thermocline::workloads
