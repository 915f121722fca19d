// SPDX-License-Identifier: Apache-2.0
// The parts of `thermocline emulate numa-remote` that need no second node: choosing nodes, taking
// memory from a scripted machine and giving it back, the journal, and what may be called CXL.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "cli/emulate_report.h"
#include "emulation/numa_remote/journal.h"
#include "emulation/numa_remote/judge.h"
#include "emulation/numa_remote/limit.h"
#include "emulation/numa_remote/setting.h"
#include "tests/unit/tree_system.h"
#include "topology/stand_in.h"

namespace thermocline::numa_remote {
namespace {

using literals::operator""_MiB;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Topology machine(const std::string& name) {
  return *discover(TreeSystem::of_machine(name));
}

std::vector<CpuId> cpus(unsigned count) {
  std::vector<CpuId> out;
  for (unsigned i = 0; i < count; ++i) out.emplace_back(i);
  return out;
}

Error refusal(const Result<Setting>& setting) {
  return setting ? Error{ErrorKind::kFailure, "accepted", 0} : setting.error();
}

TEST(Choose, TheFartherSocketIsSlow) {
  const auto setting = choose(machine("two-socket"), cpus(64), {}, {});
  ASSERT_TRUE(setting);
  EXPECT_EQ(setting->fast, NodeId(0));
  EXPECT_EQ(setting->slow, NodeId(1));
  EXPECT_THAT(setting->cpus, ElementsAre(CpuId(0), CpuId(1)));
  EXPECT_THAT(setting->left_out, IsEmpty());
  EXPECT_THAT(setting->notes, IsEmpty());
}

TEST(Choose, ASocketGoesBeforeMemoryWithoutCpus) {
  const auto setting = choose(machine("two-socket-two-cxl"), cpus(64), {}, {});
  ASSERT_TRUE(setting);
  EXPECT_EQ(setting->slow, NodeId(1));
  EXPECT_THAT(setting->left_out, ElementsAre(NodeId(2), NodeId(3)));
}

TEST(Choose, SlowMemoryBesideOneSocketIsTakenAndSaidToBeNoStandIn) {
  const auto setting = choose(machine("cxl-node-no-hmat"), cpus(64), {}, {});
  ASSERT_TRUE(setting);
  EXPECT_EQ(setting->slow, NodeId(1));
  EXPECT_THAT(setting->notes, ElementsAre(HasSubstr("slow memory by itself")));
}

TEST(Choose, TheOtherWayRound) {
  const auto setting = choose(machine("two-socket"), cpus(64), NodeId(0), {});
  ASSERT_TRUE(setting);
  EXPECT_EQ(setting->fast, NodeId(1));
  EXPECT_THAT(setting->cpus, ElementsAre(CpuId(2), CpuId(3)));
}

TEST(Choose, OneNodeIsUnsupportedAndSaysWhatWorks) {
  const Error error = refusal(choose(machine("one-node"), cpus(64), {}, {}));
  EXPECT_EQ(error.kind, ErrorKind::kUnsupported);
  EXPECT_THAT(error.message, HasSubstr("lab run --timing"));
}

TEST(Choose, NodesThatCannotBe) {
  const Topology two = machine("two-socket");
  const auto message = [&](std::optional<NodeId> slow, std::optional<NodeId> fast, unsigned count) {
    const Error error = refusal(choose(two, cpus(count), slow, fast));
    EXPECT_EQ(error.kind, ErrorKind::kUsage);
    return error.message;
  };
  EXPECT_THAT(message(NodeId(7), {}, 64), HasSubstr("--slow-node 7: the nodes with memory here"));
  EXPECT_THAT(message({}, NodeId(7), 64), HasSubstr("--fast-node 7: the nodes with CPUs"));
  EXPECT_THAT(message(NodeId(1), NodeId(1), 64), HasSubstr("can't be both"));
  EXPECT_THAT(message(NodeId(0), {}, 1), HasSubstr("none of the CPUs of node 1"));
  EXPECT_THAT(refusal(choose(machine("cxl-node-no-hmat"), cpus(64), NodeId(0), {})).message,
              HasSubstr("nothing can be the fast tier"));
}

Journal full_journal() {
  Journal journal;
  journal.who = {Pid(185), NodeId(0), NodeId(1)};
  journal.blocks = {{6, false}, {5, true}};
  journal.held = HeldPages{3, 16};
  journal.group = "/sys/fs/cgroup/thermocline-numa-remote";
  journal.group_back = "/sys/fs/cgroup/user.slice/a";
  journal.enabled_cpusets = true;
  journal.min_free_kib = 67584;
  return journal;
}

TEST(Journal, ComesBackAsItWas) {
  const auto journal = parse_journal(journal_text(full_journal()));
  ASSERT_TRUE(journal);
  EXPECT_EQ(*journal, full_journal());
  EXPECT_EQ(*parse_journal(journal_text(Journal())), Journal());
}

TEST(Journal, WhatIsNotOursIsRefused) {
  const std::string good = journal_text(full_journal());
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  for (const std::string& text :
       {std::string(), std::string("[]"), good.substr(0, good.size() / 2),
        with("\"version\":1", "\"version\":2"), with("\"number\":6", "\"number\":-6"),
        with("\"number\":6", "\"number\":\"6/../x\""), with("\"before\":3", "\"before\":1.5"),
        with("/sys/fs/cgroup/thermocline", "/sys/fs/thermocline"),
        with("/user.slice/a", "/../../a"), with("true", "1")}) {
    const auto journal = parse_journal(text);
    ASSERT_FALSE(journal) << text;
    EXPECT_EQ(journal.error().kind, ErrorKind::kCorrupt);
  }
}

/// Node 0 with memory blocks of 128 MiB and a pool of huge pages, as the kernel would act.
class ScriptedMachine : public System {
 public:
  ScriptedMachine() {
    tree_.files["/sys/devices/system/memory/block_size_bytes"] = "8000000\n";
    for (unsigned n = 0; n < 8; ++n) {
      const std::string block = block_path(n);
      tree_.files[fmt::format("/sys/devices/system/node/node0/memory{}", n)] = "";
      tree_.files[block + "/state"] = "online\n";
      tree_.files[block + "/valid_zones"] = n < 6 ? "Normal\n" : "Movable\n";
    }
    tree_.files[pool_path(NodeId(0)) + "/nr_hugepages"] = "0\n";
    refresh();
  }

  std::uint64_t free_kib = 900 << 10;
  std::vector<unsigned> busy;               ///< blocks that can't be taken
  std::uint64_t most_huge_pages = 1 << 20;  ///< that the node can form
  std::vector<std::string> written;
  std::string& file(const std::string& path) { return tree_.files[path]; }
  std::vector<unsigned> offline() {
    std::vector<unsigned> out;
    for (unsigned n = 0; n < 8; ++n)
      if (file(block_path(n) + "/state") == "offline\n") out.push_back(n);
    return out;
  }

  Status write_file(const std::string& path, std::string_view text) override {
    written.push_back(path + " " + std::string(text));
    if (path.ends_with("/state")) {
      unsigned number = 0;
      while (path != block_path(number) + "/state") ++number;
      const bool online = text.starts_with("online");
      if (!online && std::count(busy.begin(), busy.end(), number) != 0)
        return fail_errno(EBUSY, "can't write");
      file(path) = online ? "online\n" : "offline\n";
      // The kernel names the zone of an online block, and what it may become of an offline one.
      file(block_path(number) + "/valid_zones") = !online                    ? "Normal Movable\n"
                                                  : text == "online_movable" ? "Movable\n"
                                                                             : "Normal\n";
      free_kib = online ? free_kib + (128 << 10) : free_kib - (128 << 10);
    } else if (path.ends_with("/nr_hugepages")) {
      const std::uint64_t before = *parse_u64(trim(file(path)));
      const std::uint64_t after = std::min(*parse_u64(text), most_huge_pages);
      free_kib += (before - after) * 2048;  // both ways: unsigned arithmetic wraps
      file(path) = std::to_string(after) + "\n";
    } else {
      file(path) = text;
    }
    refresh();
    return {};
  }

  Result<std::string> read_file(const std::string& path) const override {
    return tree_.read_file(path);
  }
  Result<std::vector<std::string>> list_dir(const std::string& path) const override {
    return tree_.list_dir(path);
  }
  bool exists(const std::string& path) const override { return tree_.exists(path); }
  Result<std::string> read_link_name(const std::string& path) const override {
    return tree_.read_link_name(path);
  }
  Nanoseconds now() const override { return {}; }
  Nanoseconds process_cpu_time() const override { return {}; }
  Result<UniqueFd> open_device(const std::string& path, int flags) override {
    return tree_.open_device(path, flags);
  }
  int ioctl(int, unsigned long, void*) override { return -ENOSYS; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -ENOSYS;
  }
  Result<UniqueFd> pidfd_open(Pid pid) override { return tree_.pidfd_open(pid); }
  bool pidfd_exited(int) const override { return true; }

 private:
  void refresh() {
    file("/sys/devices/system/node/node0/meminfo") = fmt::format(
        "Node 0 MemTotal: 1048576 kB\nNode 0 MemFree: {} kB\nNode 0 Active(file): 51200 "
        "kB\nNode 0 Inactive(file): 20480 kB\n",
        free_kib);
    file("/proc/zoneinfo") =
        "Node 0, zone   Normal\n  pages free 1\n        min      0\n        low      0\n        "
        "high     0\n        managed  262144\n        protection: (0, 0, 0, 0, 0)\n";
  }
  TreeSystem tree_;
};

class LimitFast : public testing::Test {
 protected:
  LimitFast() {
    journal_.who = {Pid(1), NodeId(0), NodeId(1)};
    hooks_.save = [this](const Journal& j) {
      saved_ = j;
      return Status();
    };
    hooks_.progress = [](const std::string&) {};
    hooks_.stopped = [this] { return --rounds_ < 0; };
  }
  Result<Limit> limit(Bytes wanted) { return limit_fast(machine_, journal_, wanted, hooks_); }
  void put_back_all() {
    EXPECT_THAT(put_back(machine_, saved_), IsEmpty());
    EXPECT_THAT(machine_.offline(), IsEmpty());
    EXPECT_EQ(machine_.free_kib, 900u << 10);
    for (unsigned n = 0; n < 8; ++n)
      EXPECT_EQ(machine_.file(block_path(n) + "/valid_zones"), n < 6 ? "Normal\n" : "Movable\n")
          << n;
    EXPECT_EQ(machine_.file(pool_path(NodeId(0)) + "/nr_hugepages"), "0\n");
  }
  ScriptedMachine machine_;
  Journal journal_;
  Journal saved_;
  LimitHooks hooks_;
  int rounds_ = 100;
};

TEST_F(LimitFast, WholeBlocksThenHugePagesAndBack) {
  const auto limited = limit(300_MiB);
  ASSERT_TRUE(limited) << limited.error().message;
  // 600 MiB have to go: four blocks, the movable ones and high addresses first, and 88 MiB.
  EXPECT_THAT(machine_.offline(), ElementsAre(4, 5, 6, 7));
  EXPECT_EQ(limited->offlined, 512_MiB);
  EXPECT_EQ(limited->held, 88_MiB);
  EXPECT_EQ(limited->left, 300_MiB);
  put_back_all();
}

TEST_F(LimitFast, HugePagesStandInForBlocksThatStayBusy) {
  machine_.busy = {7, 5, 3, 2, 1, 0};
  const auto limited = limit(300_MiB);
  ASSERT_TRUE(limited) << limited.error().message;
  EXPECT_THAT(machine_.offline(), ElementsAre(4, 6));
  EXPECT_EQ(limited->held, 344_MiB);
  put_back_all();
}

TEST_F(LimitFast, WhatCannotBeReachedIsSaidAndPutBack) {
  machine_.busy = {0, 1, 2, 3, 4, 5, 6, 7};
  machine_.most_huge_pages = 50;
  const auto limited = limit(300_MiB);
  ASSERT_FALSE(limited);
  EXPECT_EQ(limited.error().kind, ErrorKind::kFailure);
  EXPECT_THAT(limited.error().message, HasSubstr("could be brought to 800 MiB, not to 300 MiB"));
  put_back_all();
}

TEST_F(LimitFast, MoreThanThereIsIsAMistakeAndChangesNothing) {
  const auto limited = limit(901_MiB);
  ASSERT_FALSE(limited);
  EXPECT_EQ(limited.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(limited.error().message, HasSubstr("70 MiB hold cached files"));
  EXPECT_THAT(machine_.written, IsEmpty());
}

TEST_F(LimitFast, StoppedHalfWayEverythingGoesBack) {
  rounds_ = 2;
  EXPECT_FALSE(limit(100_MiB));
  EXPECT_EQ(machine_.offline().size(), 2u);
  put_back_all();
}

TEST_F(LimitFast, AKernelWithoutHotPlugUsesHugePagesAlone) {
  machine_.file("/sys/devices/system/memory/block_size_bytes") = "";
  const auto limited = limit(300_MiB);
  ASSERT_TRUE(limited) << limited.error().message;
  EXPECT_EQ(limited->held, 600_MiB);
}

TEST_F(LimitFast, APoolThatOthersGrewMeanwhileKeepsTheirPages) {
  ASSERT_TRUE(limit(300_MiB));
  const std::string pool = pool_path(NodeId(0)) + "/nr_hugepages";
  EXPECT_EQ(machine_.file(pool), "44\n");
  machine_.file(pool) = "54\n";
  EXPECT_THAT(put_back(machine_, saved_), IsEmpty());
  EXPECT_EQ(machine_.file(pool), "10\n");
}

TEST_F(LimitFast, MinFreeKbytesComesBackLast) {
  machine_.file(kMinFreePath) = "2000\n";
  ASSERT_TRUE(limit(300_MiB));
  machine_.file(kMinFreePath) = "67584\n";  // as the kernel does with each block
  put_back_all();
  EXPECT_EQ(machine_.file(kMinFreePath), "2000");
}

TEST_F(LimitFast, MemoryForDevicesWith32BitAddressesStays) {
  for (unsigned n : {0u, 6u, 7u}) machine_.file(block_path(n) + "/valid_zones") = "DMA32\n";
  ASSERT_TRUE(limit(300_MiB));
  EXPECT_THAT(machine_.offline(), ElementsAre(2, 3, 4, 5));
}

TEST_F(LimitFast, TooLittleForAnyMachineIsRefused) {
  const auto limited = limit(1_MiB);
  ASSERT_FALSE(limited);
  EXPECT_EQ(limited.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(machine_.written, IsEmpty());
}

/// put_back() of the cpuset controller alone.
TEST_F(LimitFast, CpusetsThatOthersCameToUseStayOn) {
  const std::string root = "/sys/fs/cgroup";
  const std::string off = root + "/cgroup.subtree_control -cpuset";
  Journal journal;
  journal.enabled_cpusets = true;
  machine_.file(root + "/cgroup.subtree_control") = "cpuset memory\n";
  machine_.file(root + "/other/cpuset.cpus") = "\n";
  machine_.file(root + "/other/cgroup.subtree_control") = "\n";
  EXPECT_THAT(put_back(machine_, journal), IsEmpty());
  EXPECT_THAT(machine_.written, ElementsAre(off));
  for (const char* file : {"/other/cpuset.cpus", "/other/cpuset.mems"}) {
    machine_.written.clear();
    machine_.file(root + file) = "2\n";
    EXPECT_THAT(put_back(machine_, journal), IsEmpty());
    EXPECT_THAT(machine_.written, IsEmpty()) << file;
    machine_.file(root + file) = "\n";
  }
  machine_.file(root + "/other/cgroup.subtree_control") = "cpuset\n";
  EXPECT_THAT(put_back(machine_, journal), IsEmpty());
  EXPECT_THAT(machine_.written, IsEmpty());
}

TEST_F(LimitFast, PuttingBackTwiceChangesNothing) {
  ASSERT_TRUE(limit(300_MiB));
  put_back_all();
  machine_.written.clear();
  put_back_all();
  EXPECT_THAT(machine_.written, IsEmpty());
}

Figures figures(double fast_ns, double slow_ns, double gb_per_s, bool saturated) {
  Figures out;
  out.cpus = 8;
  out.huge_pages = true;
  out.fast = {NodeId(0), fast_ns, 0.02, 150, true, {}};
  out.slow = {NodeId(1), slow_ns, 0.02, gb_per_s, saturated, {}};
  return out;
}

TEST(Judge, AnAsicDeviceIsCxl) {
  const Judgement judgement = judge(figures(100, 255, 24, true), Label::kMeasured);
  EXPECT_EQ(judgement.stands_for, StandsFor::kCxl);
  EXPECT_EQ(judgement.preset, "cxl-asic");
  EXPECT_NEAR(judgement.preset_latency, 0.02, 0.001);
  ASSERT_TRUE(judgement.preset_bandwidth);
  EXPECT_NEAR(*judgement.preset_bandwidth, -0.04, 0.001);
}

TEST(Judge, ANearSocketIsNotCalledCxl) {
  const Judgement judgement = judge(figures(95, 145, 55, true), Label::kMeasured);
  EXPECT_EQ(judgement.stands_for, StandsFor::kRemoteNuma);
  EXPECT_EQ(judgement.preset, "remote-numa");
  EXPECT_THAT(judgement.why, HasSubstr("not CXL"));
  EXPECT_THAT(judgement.why, HasSubstr("latency over the fast node's"));
}

TEST(Judge, EachFigureOutsideIsEnough) {
  for (const Figures& outside :
       {figures(200, 420, 24, true), figures(50, 255, 24, true), figures(100, 255, 70, true),
        figures(100, 255, 70, false), figures(100, 255, 10, true), figures(60, 130, 24, true)})
    EXPECT_EQ(judge(outside, Label::kMeasured).stands_for, StandsFor::kRemoteNuma)
        << outside.slow.idle_ns << " " << outside.slow.gb_per_s;
}

TEST(Judge, BandwidthThatTheCpusCannotDrawIsNotHeldAgainstIt) {
  const Judgement judgement = judge(figures(100, 255, 10, false), Label::kModelled);
  EXPECT_EQ(judgement.stands_for, StandsFor::kCxl);
  EXPECT_FALSE(judgement.axes[2].known());
  EXPECT_FALSE(judgement.preset_bandwidth);
  EXPECT_THAT(judgement.why, HasSubstr("as far as these CPUs can tell"));
}

TEST(Judge, MemoryThatIsNotSlowerStandsForNothing) {
  EXPECT_EQ(judge(figures(150, 160, 24, true), Label::kMeasured).stands_for, StandsFor::kNothing);
}

TEST(Judge, ASocketThatWakesUpUnderLoadIsJudgedAwake) {
  // Idle, the other socket clocks itself down: 190 ns; with traffic it has 130.
  Figures asleep = figures(90, 190, 40, true);
  EXPECT_EQ(judge(asleep, Label::kMeasured).stands_for, StandsFor::kCxl);
  asleep.slow.loaded = {{1, 130}, {10, 140}, {20, 160}};
  EXPECT_EQ(judge(asleep, Label::kMeasured).stands_for, StandsFor::kRemoteNuma);
}

TEST(Judge, LatencyAtHalfLoadIsToldBesideThePublishedCard) {
  Figures loaded = figures(100, 250, 20, true);
  loaded.slow.loaded = {{2, 255}, {9, 320}, {20, 600}};
  const Judgement judgement = judge(loaded, Label::kMeasured);
  ASSERT_EQ(judgement.axes.size(), 4u);
  EXPECT_NEAR(judgement.axes[3].value, 1.28, 0.001);
  EXPECT_EQ(judgement.stands_for, StandsFor::kCxl) << "one card is too few to judge by";
}

TEST(Judge, ABusyMachineAndPageWalksGiveNoVerdict) {
  Figures busy = figures(100, 255, 24, true);
  busy.slow.spread = 0.3;
  EXPECT_EQ(judge(busy, Label::kMeasured).stands_for, StandsFor::kNothing);
  Figures walks = figures(100, 255, 24, true);
  walks.huge_pages = false;
  EXPECT_EQ(judge(walks, Label::kMeasured).stands_for, StandsFor::kNothing);
}

TEST(Judge, TimesOfPlainEmulationStandForNothing) {
  EXPECT_EQ(judge(figures(100, 255, 24, true), Label::kEmulated).stands_for, StandsFor::kNothing);
}

TEST(EmulateReport, DrawsBothNodesAndTheEnvelope) {
  cli::EmulateReport report;
  report.figures = figures(100, 255, 24, true);
  report.figures->slow.loaded = {{10, 300}, {20, 500}};
  report.judgement = judge(*report.figures, Label::kMeasured);
  const std::string svg = cli::emulate_svg(report);
  EXPECT_THAT(svg, HasSubstr("(measured)"));
  EXPECT_THAT(svg, HasSubstr("node 1: 255 ns idle"));
  // 500 ns is the top of the plot, and 20 GB/s its right end.
  EXPECT_THAT(svg, HasSubstr("620.0,60.0"));
  // 410 ns is 82 % up a plot of 310.
  EXPECT_THAT(svg, HasSubstr("y=\"115.8\""));
}

TEST(StandIn, MakesTwoTiersWhileItsKeeperLives) {
  TreeSystem system = TreeSystem::of_machine("two-socket");
  system.files[kStandInPath] = journal_text(full_journal());
  system.files["/proc/185/comm"] = "tc-keeper\n";
  const auto kept = discover(system);
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->source, TierSource::kStandIn);
  ASSERT_EQ(kept->tiers.size(), 2u);
  EXPECT_THAT(kept->tiers[1].nodes, ElementsAre(NodeId(1)));

  // A declaration goes before it.
  const std::vector<TierDeclaration> declared{{"only", {NodeId(0), NodeId(1)}}};
  EXPECT_EQ(discover(system, declared)->source, TierSource::kConfig);

  // Another process that got the keeper's number is not it.
  system.files["/proc/185/comm"] = "bash\n";
  EXPECT_EQ(discover(system)->source, TierSource::kNothing);
}

TEST(StandIn, AFileThatIsNoneIsANote) {
  TreeSystem system = TreeSystem::of_machine("two-socket");
  system.files[kStandInPath] = "{";
  const auto topology = discover(system);
  ASSERT_TRUE(topology);
  EXPECT_EQ(topology->source, TierSource::kNothing);
  EXPECT_THAT(topology->notes, testing::Contains(HasSubstr(kStandInPath)));
}

}  // namespace
}  // namespace thermocline::numa_remote
