// SPDX-License-Identifier: Apache-2.0
#include "topology/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/unit/tree_system.h"
#include "topology/json.h"
#include "topology/tiers.h"

namespace thermocline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::string kNodes = "/sys/devices/system/node/";

std::vector<std::string> all_machines() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(THERMOCLINE_SOURCE_DIR) +
                                                               "/tests/fixtures/machines"))
    if (entry.path().extension() == ".machine") names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  return names;
}

/// GoogleTest takes letters, digits and "_" only.
std::string test_name(std::string machine) {
  for (char& c : machine)
    if (c == '-' || c == '.') c = '_';
  return machine;
}

Topology discover_machine(const std::string& name) {
  const auto topology = discover(TreeSystem::of_machine(name));
  if (!topology) throw std::runtime_error(topology.error().message);
  return *topology;
}

using Tiers = std::vector<std::vector<int>>;
Tiers tiers_of(const Topology& topology) {
  Tiers result;
  for (const Tier& tier : topology.tiers) {
    result.emplace_back();
    for (const NodeId node : tier.nodes) result.back().push_back(node.get());
  }
  return result;
}

std::vector<int> numbers(const std::vector<NodeId>& nodes) {
  std::vector<int> result;
  for (const NodeId node : nodes) result.push_back(node.get());
  return result;
}

struct Expected {
  const char* machine;
  TierSource source;
  Tiers tiers;
  std::vector<MemoryKind> kinds;  ///< of the nodes in order, offline ones too

  friend void PrintTo(const Expected& expected, std::ostream* out) { *out << expected.machine; }
};

constexpr MemoryKind kU = MemoryKind::kUnknown, kD = MemoryKind::kDram, kH = MemoryKind::kHbm,
                     kC = MemoryKind::kCxl, kP = MemoryKind::kPmem;

class CapturedMachine : public testing::TestWithParam<Expected> {};

TEST_P(CapturedMachine, HasTheTiersAndKinds) {
  const Expected& expected = GetParam();
  const Topology topology = discover_machine(expected.machine);
  EXPECT_EQ(to_string(topology.source), to_string(expected.source)) << topology.why;
  EXPECT_EQ(tiers_of(topology), expected.tiers);
  std::vector<MemoryKind> kinds;
  for (const Node& node : topology.nodes) kinds.push_back(node.kind);
  EXPECT_EQ(kinds, expected.kinds);
  EXPECT_THAT(topology.why, testing::EndsWith("."));
}

INSTANTIATE_TEST_SUITE_P(
    Topology, CapturedMachine,
    testing::Values(
        Expected{"one-node", TierSource::kSingleNode, {{0}}, {kD}},
        Expected{"two-socket", TierSource::kNothing, {{0, 1}}, {kD, kD}},
        Expected{"two-socket-no-hmat", TierSource::kNothing, {{0, 1}}, {kD, kD}},
        Expected{"cxl-node-no-hmat", TierSource::kDistance, {{0}, {1}}, {kD, kU}},
        Expected{"hmat", TierSource::kKernel, {{0}, {1}}, {kD, kU}},
        Expected{"hmat-6.1", TierSource::kHmat, {{0}, {1}}, {kD, kU}},
        Expected{"nvdimm", TierSource::kKernel, {{0}, {1}}, {kD, kP}},
        Expected{"nvdimm-6.1", TierSource::kKernel, {{0}, {1}}, {kD, kP}},
        Expected{"cxl", TierSource::kKernel, {{0}, {1}}, {kD, kC}},
        Expected{"cxl-6.1", TierSource::kKernel, {{0}, {1}}, {kD, kC}},
        Expected{"cxl-hmat", TierSource::kKernel, {{0}, {2}}, {kD, kU, kC}},
        Expected{"two-cxl", TierSource::kKernel, {{0}, {1}, {2}}, {kD, kU, kU}},
        Expected{"two-cxl-6.1", TierSource::kHmat, {{0}, {1}, {2}}, {kD, kU, kU}},
        Expected{"two-cxl-devices", TierSource::kKernel, {{0}, {1, 2}}, {kD, kC, kC}},
        Expected{"hbm-dram-cxl", TierSource::kKernel, {{1}, {0}, {2}}, {kD, kH, kU}},
        Expected{"hbm-dram-cxl-6.1", TierSource::kHmat, {{1}, {0}, {2}}, {kD, kH, kU}},
        Expected{"two-socket-two-cxl", TierSource::kKernel, {{0, 1}, {2, 3}}, {kD, kD, kU, kU}},
        Expected{"two-socket-two-cxl-6.1", TierSource::kHmat, {{0, 1}, {2, 3}}, {kD, kD, kU, kU}},
        Expected{"cpu-only-node", TierSource::kKernel, {{0}, {2}}, {kD, kU, kU}},
        Expected{"cgroup", TierSource::kSingleNode, {{0}}, {kD, kU}},
        Expected{"memory-offline", TierSource::kSingleNode, {{0}}, {kD, kC}},
        Expected{"node-offline", TierSource::kSingleNode, {{0}}, {kD, kU}}),
    [](const auto& machine) { return test_name(machine.param.machine); });

TEST(CapturedMachines, AreAllTested) {
  EXPECT_EQ(all_machines().size(), 22u);
}

TEST(Discover, ANodeWithoutAllOfItsMemoryIsNoted) {
  TreeSystem system = TreeSystem::of_machine("one-node");
  const std::uint64_t all = discover(system)->nodes.front().total.get() / 1024;
  for (const auto& [percent, told] : {std::pair{104u, false}, {107u, true}, {90u, true}}) {
    system.files["/proc/meminfo"] = fmt::format("MemTotal: {} kB\n", all * percent / 100);
    const auto notes = discover(system)->notes;
    EXPECT_EQ(std::any_of(notes.begin(), notes.end(),
                          [](const auto& note) { return note.find("meminfo") != note.npos; }),
              told)
        << percent;
  }
}

TEST(Discover, ReadsTheFactsOfANode) {
  const Topology topology = discover_machine("hmat");
  const Node& slow = *topology.find(NodeId(1));
  EXPECT_TRUE(slow.usable());
  EXPECT_THAT(slow.cpus, IsEmpty());
  EXPECT_GT(slow.total, 960_MiB);
  EXPECT_LT(slow.free, slow.total);
  EXPECT_GT(slow.free, 900_MiB);
  EXPECT_EQ(slow.distance_to(NodeId(0)), 20u);
  EXPECT_EQ(slow.distance_to(NodeId(7)), std::nullopt);
  ASSERT_TRUE(slow.performance);
  EXPECT_EQ(slow.performance->read_latency, Nanoseconds(250));
  EXPECT_EQ(slow.performance->write_bandwidth, MegabytesPerSecond(30720));
  EXPECT_EQ(slow.performance->source, "access1");
  EXPECT_EQ(numbers(slow.performance->initiators), (std::vector<int>{0}));
  EXPECT_EQ(slow.kernel_tier, 93u);
  EXPECT_EQ(topology.find(NodeId(0))->cpus.size(), 2u);
  EXPECT_EQ(topology.kernel_demotion, false);
}

TEST(Discover, SumsWatermarksAndCpuListsOfANodesZones) {
  TreeSystem system = TreeSystem::of_machine("hmat");
  system.files["/proc/zoneinfo"] =
      "Node 0, zone DMA\n  pages free 9\n        min      1\n        low      2\n"
      "        high     3\n        protection: (0, 4, 5)\n  pagesets\n    cpu: 0\n              "
      "count: 7\n"
      "              high: 500\n    cpu: 1\n              count: 11\n"
      "Node 1, zone DMA32\n  pages free 50\n        min      100\n        low      200\n        "
      "high     300\n        protection: (0, 0, 80)\n"
      "Node 1, zone Movable\n        min      10\n        low      20\n        high     30\n"
      "Node 5, zone Movable\n        min      10\n";
  const auto topology = discover(system);
  ASSERT_TRUE(topology);
  EXPECT_EQ(topology->find(NodeId(0))->watermarks.high, PageCount(3));
  EXPECT_EQ(topology->find(NodeId(1))->watermarks.min, PageCount(110));
  EXPECT_EQ(topology->find(NodeId(1))->watermarks.low, PageCount(220));
  EXPECT_EQ(topology->find(NodeId(1))->watermarks.high, PageCount(330));
  EXPECT_EQ(topology->find(NodeId(0))->cpu_lists, PageCount(18));
  EXPECT_EQ(topology->find(NodeId(1))->cpu_lists, PageCount(0));
  EXPECT_EQ(topology->find(NodeId(0))->reserved, PageCount(5));
  EXPECT_EQ(topology->find(NodeId(1))->reserved, PageCount(50)) << "no more than is free";
}

TEST(Discover, NamesTheDevicesBehindANode) {
  const Topology topology = discover_machine("two-cxl-devices");
  EXPECT_THAT(topology.find(NodeId(1))->devices, ElementsAre("region0", "dax0.0"));
  EXPECT_THAT(topology.find(NodeId(2))->devices, ElementsAre("region1", "dax1.0"));
}

TEST(Discover, FindsARegionThatFirmwareMadePlainMemory) {
  TreeSystem system = TreeSystem::of_machine("cxl");
  std::erase_if(system.files, [](const auto& f) { return f.first.find("dax") != f.first.npos; });
  system.links.clear();
  const auto topology = discover(system);
  ASSERT_TRUE(topology);
  EXPECT_EQ(topology->find(NodeId(1))->kind, MemoryKind::kCxl);
  EXPECT_THAT(topology->find(NodeId(1))->devices, ElementsAre("region0"));
}

TEST(Discover, ADaxDeviceOfItsOwnDriverIsNoMemory) {
  TreeSystem system = TreeSystem::of_machine("nvdimm-6.1");
  system.links["/sys/bus/dax/devices/dax0.0/driver"] = "../../bus/dax/drivers/device_dax";
  EXPECT_EQ(discover(system)->find(NodeId(1))->kind, MemoryKind::kUnknown);
}

TEST(Discover, UsesAccess0WhenThereIsNoAccess1) {
  TreeSystem system = TreeSystem::of_machine("hmat-6.1");
  std::erase_if(system.files,
                [](const auto& f) { return f.first.find("access1") != f.first.npos; });
  const auto topology = discover(system);
  ASSERT_TRUE(topology);
  EXPECT_EQ(topology->source, TierSource::kHmat);
  EXPECT_EQ(topology->find(NodeId(1))->performance->source, "access0");
}

TEST(Discover, TellsWhoRestricts) {
  const Topology topology = discover_machine("cgroup");
  EXPECT_FALSE(topology.find(NodeId(1))->usable());
  ASSERT_EQ(topology.notes.size(), 1u);
  EXPECT_THAT(topology.notes[0], HasSubstr("cgroup /fast-only keeps this process off node 1"));
}

TEST(Discover, NoAllowedNodeIsAnError) {
  TreeSystem system = TreeSystem::of_machine("one-node");
  system.files["/proc/self/status"] = "Mems_allowed_list:\t5\n";
  const auto topology = discover(system);
  ASSERT_FALSE(topology);
  EXPECT_EQ(topology.error().kind, ErrorKind::kFailure);
  EXPECT_THAT(topology.error().message, HasSubstr("cpuset.mems"));
}

TEST(Discover, SaysWhenTheKernelDemotesToo) {
  TreeSystem system = TreeSystem::of_machine("hmat");
  system.files["/sys/kernel/mm/numa/demotion_enabled"] = "true\n";
  EXPECT_THAT(discover(system)->notes, ElementsAre(HasSubstr("demotes pages by itself")));
}

TEST(Discover, NoMachineThere) {
  const auto nothing = discover(TreeSystem());
  ASSERT_FALSE(nothing);
  EXPECT_EQ(nothing.error().kind, ErrorKind::kNotFound);
  TreeSystem no_numa;
  no_numa.files["/sys/devices/system/cpu/online"] = "0\n";
  EXPECT_EQ(discover(no_numa).error().kind, ErrorKind::kUnsupported);
}

// Linux 6.12 computes its tiers from the same figures: ours must be the same numbers.
TEST(AbstractDistance, IsTheKernels) {
  for (const char* machine :
       {"hmat", "two-cxl", "hbm-dram-cxl", "two-socket-two-cxl", "cxl-hmat"}) {
    const Topology topology = discover_machine(machine);
    const Performance dram = *topology.find(NodeId(0))->performance;
    for (const Node& node : topology.nodes) {
      if (!node.usable()) continue;
      EXPECT_EQ(*abstract_distance(*node.performance, dram) / 128, *node.kernel_tier)
          << machine << " node " << node.id.get();
    }
  }
}

TEST(AbstractDistance, NeedsALatency) {
  Performance dram;
  EXPECT_EQ(abstract_distance({}, dram), std::nullopt);
  dram.read_latency = Nanoseconds(100);
  Performance twice;
  twice.read_latency = Nanoseconds(200);
  EXPECT_EQ(abstract_distance(twice, dram), 2 * 576u);
}

TEST(Tiers, OneKernelTierAndNoHmatFallsBackToDistance) {
  TreeSystem system = TreeSystem::of_machine("two-socket-two-cxl-6.1");
  std::erase_if(system.files, [](const auto& f) { return f.first.find("access") != f.first.npos; });
  const auto topology = discover(system);
  ASSERT_TRUE(topology);
  EXPECT_EQ(topology->source, TierSource::kDistance);
  EXPECT_EQ(tiers_of(*topology), (Tiers{{0, 1}, {2, 3}}));
  EXPECT_THAT(topology->why, HasSubstr("one memory tier (memory_tier4)"));
}

TEST(Tiers, WorksWithoutMemoryTiersOfTheKernel) {
  TreeSystem system = TreeSystem::of_machine("hmat");
  std::erase_if(system.files,
                [](const auto& f) { return f.first.find("tiering") != f.first.npos; });
  const auto topology = discover(system);
  ASSERT_TRUE(topology);
  EXPECT_EQ(topology->source, TierSource::kHmat);
  EXPECT_THAT(topology->why, HasSubstr("the kernel has no memory tiers"));
}

TEST(Tiers, WarnsOfAKernelTierThatHmatWouldPart) {
  TreeSystem system = TreeSystem::of_machine("hbm-dram-cxl");
  std::erase_if(system.files,
                [](const auto& f) { return f.first.find("tiering") != f.first.npos; });
  system.files["/sys/devices/virtual/memory_tiering/memory_tier4/nodelist"] = "0,2\n";
  system.files["/sys/devices/virtual/memory_tiering/memory_tier1/nodelist"] = "1\n";
  const auto topology = discover(system);
  ASSERT_TRUE(topology);
  EXPECT_EQ(tiers_of(*topology), (Tiers{{1}, {0, 2}}));
  EXPECT_THAT(topology->notes, ElementsAre(HasSubstr("nodes 0 and 2 in one tier")));
}

TEST(Tiers, NamesAndSums) {
  const Topology three = discover_machine("hbm-dram-cxl");
  EXPECT_EQ(three.tiers[0].name, "fast");
  EXPECT_EQ(three.tiers[1].name, "middle");
  EXPECT_EQ(three.tiers[2].name, "slow");
  const Topology two = discover_machine("two-cxl-devices");
  EXPECT_EQ(two.tiers[1].total, Bytes(2 * (524288u << 10)));
  EXPECT_EQ(two.tier_of(NodeId(2)), TierId(1));
  EXPECT_EQ(two.tier_of(NodeId(9)), kNoTier);
}

TEST(Tiers, NoMoreThanAPageCanName) {
  TreeSystem system = TreeSystem::of_machine("one-node");
  for (int i = 0; i < 12; ++i) {
    const std::string dir = kNodes + "node" + std::to_string(i) + "/";
    system.files[dir + "distance"] = std::to_string(10 + i) + " 99 99 99 99 99 99 99 99 99 99 99\n";
    system.files[dir + "cpulist"] = i == 0 ? "0-1\n" : "\n";
    system.files[dir + "meminfo"] = "Node 0 MemTotal: 1024 kB\nNode 0 MemFree: 512 kB\n";
  }
  for (const char* file : {"online", "possible", "has_memory"})
    system.files[kNodes + file] = "0-11\n";
  system.files["/proc/self/status"] = "Mems_allowed_list:\t0-11\n";
  const auto topology = discover(system);
  ASSERT_TRUE(topology) << topology.error().message;
  EXPECT_EQ(topology->tiers.size(), kMaxTiers);
  EXPECT_EQ(topology->tiers.back().nodes.size(), 12 - kMaxTiers + 1);
  EXPECT_EQ(topology->notes.size(), 1u);
}

TEST(Nearest, StaysOnTheSocket) {
  const Topology topology = discover_machine("two-socket-two-cxl");
  EXPECT_THAT(numbers(topology.nearest(NodeId(0), TierId(1))), ElementsAre(2, 3));
  EXPECT_THAT(numbers(topology.nearest(NodeId(1), TierId(1))), ElementsAre(3, 2));
  EXPECT_THAT(numbers(topology.nearest(NodeId(3), TierId(0))), ElementsAre(1, 0));
  EXPECT_THAT(numbers(topology.nearest(NodeId(1), TierId(0))), ElementsAre(1, 0));
  EXPECT_THAT(numbers(topology.nearest(NodeId(0), TierId(5))), IsEmpty());
}

TEST(Nearest, BreaksTiesByInitiator) {
  TreeSystem system = TreeSystem::of_machine("two-socket-two-cxl");
  for (const char* node : {"node0", "node1", "node2", "node3"})
    system.files[kNodes + node + "/distance"] = "10 10 10 10\n";
  const auto topology = discover(system);
  ASSERT_TRUE(topology);
  EXPECT_THAT(numbers(topology->nearest(NodeId(1), TierId(1))), ElementsAre(3, 2));
  EXPECT_THAT(numbers(topology->nearest(NodeId(3), TierId(0))), ElementsAre(1, 0));
}

TEST(RefreshFree, ReadsSizesOnly) {
  TreeSystem system = TreeSystem::of_machine("hmat");
  auto topology = discover(system);
  ASSERT_TRUE(topology);
  system.files[kNodes + "node1/meminfo"] = "Node 1 MemTotal: 2048 kB\nNode 1 MemFree: 1024 kB\n";
  ASSERT_TRUE(topology->refresh_free(system));
  EXPECT_EQ(topology->find(NodeId(1))->free, Bytes(1024 << 10));
  EXPECT_EQ(topology->tiers[1].free, Bytes(1024 << 10));
  EXPECT_EQ(topology->tiers[1].total, Bytes(2048 << 10));
  system.files.erase(kNodes + "node1/meminfo");
  EXPECT_EQ(topology->refresh_free(system).error().kind, ErrorKind::kNotFound);
}

TEST(Declared, OverridesWhatWasFound) {
  const std::vector<TierDeclaration> declared{{"near", {NodeId(0)}}, {"far", {NodeId(1)}}};
  const auto topology = discover(TreeSystem::of_machine("two-socket"), declared);
  ASSERT_TRUE(topology) << topology.error().message;
  EXPECT_EQ(topology->source, TierSource::kConfig);
  EXPECT_EQ(tiers_of(*topology), (Tiers{{0}, {1}}));
  EXPECT_EQ(topology->tiers[1].name, "far");
}

TEST(Declared, SaysWhatItLeavesAlone) {
  const std::vector<TierDeclaration> declared{{"fast", {NodeId(0)}}, {"slow", {NodeId(2)}}};
  const auto topology = discover(TreeSystem::of_machine("two-cxl-devices"), declared);
  ASSERT_TRUE(topology);
  EXPECT_EQ(topology->tier_of(NodeId(1)), kNoTier);
  EXPECT_THAT(topology->notes, ElementsAre(HasSubstr("node 1 is in no declared tier")));
}

TEST(Declared, IsCheckedAgainstTheMachine) {
  const auto refused = [](const std::string& machine, std::vector<TierDeclaration> declared) {
    const auto topology = discover(TreeSystem::of_machine(machine), declared);
    if (topology) return std::string("accepted");
    EXPECT_EQ(topology.error().kind, ErrorKind::kUsage);
    return topology.error().message;
  };
  const NodeId n0(0), n1(1), n9(9);
  EXPECT_THAT(refused("hmat", {{"a", {n0}}, {"b", {n9}}}), HasSubstr("node 9, which this machine"));
  EXPECT_THAT(refused("hmat", {{"a", {NodeId(-1)}}}), HasSubstr("node -1"));
  EXPECT_THAT(refused("hmat", {{"a", {n0}}, {"b", {n0}}}),
              HasSubstr("which tier \"a\" has already"));
  EXPECT_THAT(refused("hmat", {{"a", {n0}}, {"a", {n1}}}), HasSubstr("called \"a\""));
  EXPECT_THAT(refused("hmat", {{"a", {}}}), HasSubstr("no nodes"));
  EXPECT_THAT(refused("hmat", {{"", {n0}}}), HasSubstr("no name"));
  EXPECT_THAT(refused("node-offline", {{"a", {n0}}, {"b", {n1}}}), HasSubstr("offline"));
  EXPECT_THAT(refused("memory-offline", {{"a", {n0}}, {"b", {n1}}}), HasSubstr("no memory"));
  EXPECT_THAT(refused("cgroup", {{"a", {n0}}, {"b", {n1}}}), HasSubstr("cpuset"));
  EXPECT_THAT(refused("hmat", std::vector<TierDeclaration>(8, {"a", {n0}})),
              HasSubstr("7 at most"));
}

TEST(TopologyJson, IsUtf8WhateverACgroupIsCalled) {
  TreeSystem system = TreeSystem::of_machine("cgroup");
  system.files["/proc/self/cgroup"] = "0::/\xff\xfe\n";
  const auto topology = discover(system);
  ASSERT_TRUE(topology);
  const auto json = to_json(*topology);
  EXPECT_NO_THROW((void)json.dump());
  EXPECT_EQ(json["nodes"][1]["tier"], nullptr);
  EXPECT_EQ(json["nodes"][1]["read_latency_ns"], 250);
}

/// Every file of every machine, truncated, emptied, replaced and removed: never a crash; an answer
/// that holds together, or an error in words.
class Damaged : public testing::TestWithParam<std::string> {};

void check_holds_together(const TreeSystem& system, const std::string& what) {
  const auto topology = discover(system);
  if (!topology) {
    EXPECT_GT(topology.error().message.size(), 20u) << what;
    if (topology.error().kind == ErrorKind::kCorrupt) {
      EXPECT_THAT(topology.error().message, testing::AnyOf(HasSubstr("/sys/"), HasSubstr("/proc/")))
          << what;
    }
    return;
  }
  EXPECT_FALSE(topology->tiers.empty()) << what;
  EXPECT_LE(topology->tiers.size(), kMaxTiers) << what;
  for (const Tier& tier : topology->tiers) {
    EXPECT_FALSE(tier.nodes.empty()) << what;
    for (const NodeId id : tier.nodes) {
      ASSERT_NE(topology->find(id), nullptr) << what;
      EXPECT_TRUE(topology->find(id)->usable()) << what;
      EXPECT_EQ(topology->tier_of(id), tier.id) << what;
      EXPECT_EQ(topology->nearest(id, tier.id).size(), tier.nodes.size()) << what;
    }
  }
  EXPECT_NO_THROW((void)to_json(*topology).dump()) << what;
}

TEST_P(Damaged, FilesNeverCrashIt) {
  const TreeSystem good = TreeSystem::of_machine(GetParam());
  std::mt19937 random(20240501);
  const std::vector<std::string> replacements{
      "",
      "\n",
      "-1\n",
      "0-",
      "0-99999999\n",
      "18446744073709551615\n",
      "99999999999999999999\n",
      "0x\n",
      "0xffffffffffffffff\n",
      std::string("\0\xff\x80", 3),
      "a b c d\n",
      "1023\n",
      "1024\n",
      std::string(70000, '7'),
      "Node 0 MemTotal: 99999999999999999 kB\nNode 0 MemFree: 1 kB\n",
      "Node 99999999999, zone DMA\n min -1\n",
      "Mems_allowed_list:",
      "0::",
      ":::\n",
      "memory_tier"};
  for (const auto& [path, content] : good.files) {
    if (path.starts_with("/sys/devices/system/cpu")) continue;  // for hwloc, which isn't asked here
    TreeSystem bad = good;
    bad.files.erase(path);
    check_holds_together(bad, path + " removed");
    for (const std::string& text : replacements) {
      bad.files[path] = text;
      check_holds_together(bad, path + " replaced by " + text.substr(0, 30));
    }
    for (int i = 0; i < 8; ++i) {
      bad.files[path] = content.substr(0, random() % (content.size() + 1));
      check_holds_together(bad, path + " truncated");
      std::string garbled = content;
      for (int j = 0; j < 3 && !garbled.empty(); ++j)
        garbled[random() % garbled.size()] = static_cast<char>(random());
      bad.files[path] = garbled;
      check_holds_together(bad, path + " garbled");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Topology, Damaged, testing::ValuesIn(all_machines()),
                         [](const auto& machine) { return test_name(machine.param); });

}  // namespace
}  // namespace thermocline
