// SPDX-License-Identifier: GPL-2.0
// The parts of the timing model's plug-in: what it charges, what its self-check accepts.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "emulation/timing/plugin/accessor.h"
#include "emulation/timing/plugin/core.h"
#include "emulation/timing/plugin/memory.h"
#include "emulation/timing/plugin/plan.h"
#include "emulation/timing/plugin/profile.h"
#include "emulation/timing/plugin/truth.h"
#include "emulation/timing/plugin/unwind.h"

namespace timing_plugin {
namespace {

constexpr const char* kPlan =
    "thermocline-plan 1\nmode reference\ncore 400 224 12 40000 8000 16\nl2 524288 8 4000\n"
    "llc 2097152 16 15000\ntlb 1536 12 25000\ntier 0 200000 0 250000 10000 100000\n"
    "tier 1 25000 0 250000 20000 250000\nrange 0 1048576 0\nrange 1048576 1048576 1\ncpus 0\n";

Plan plan_of(const std::string& text) {
  Plan plan;
  std::string error;
  EXPECT_TRUE(read_plan(text, plan, error)) << error;
  return plan;
}

TEST(Plan, IsReadWhole) {
  const Plan plan = plan_of(std::string(kPlan) + "truth 1000000 virtual /tmp/a b\n");
  EXPECT_EQ(plan.mode, Mode::kReference);
  EXPECT_EQ(plan.tiers.size(), 2u);
  EXPECT_EQ(plan.ranges[1].tier, 1u);
  EXPECT_EQ(plan.truth_path, "/tmp/a b");
  EXPECT_EQ(plan.slice_ns, 1'000'000u);
}

TEST(Plan, HasTheKernelsFunctions) {
  const Plan plan =
      plan_of(std::string(kPlan) + "profile 50000\ntext mover 4096 256\nunwind 8 16 32\n");
  EXPECT_EQ(plan.profile_ns, 50'000u);
  ASSERT_EQ(plan.texts.size(), 1u);
  EXPECT_EQ(plan.texts[0].start, 4096u);
  EXPECT_EQ(plan.texts[0].purpose, Purpose::kMover);
  EXPECT_EQ(plan.places, 8u);
  EXPECT_EQ(plan.places_end, 16u);
  EXPECT_EQ(plan.entries, 32u);
  for (const char* line :
       {"profile 0", "text mover 4096 0", "text mover 4096", "text all 1 1", "unwind 8 8 32"}) {
    Plan other;
    std::string error;
    EXPECT_FALSE(read_plan(std::string(kPlan) + line + "\n", other, error)) << line;
  }
}

TEST(Plan, DamageIsNoticed) {
  const auto refused = [](const std::string& from, const std::string& to) {
    std::string text = kPlan;
    text.replace(text.find(from), from.size(), to);
    Plan plan;
    std::string error;
    return !read_plan(text, plan, error) && !error.empty();
  };
  EXPECT_TRUE(refused("plan 1", "plan 2"));
  EXPECT_TRUE(refused("mode reference", "mode quick"));
  EXPECT_TRUE(refused("core 400", "core"));
  EXPECT_TRUE(refused("l2 524288 8", "l2 524288 7"));
  EXPECT_TRUE(refused("1048576 1048576 1", "1048576 1048576 2"));  // a tier that is not there
  EXPECT_TRUE(refused("range 1048576", "range 524288"));           // overlaps
  EXPECT_TRUE(refused("cpus 0", "cpus 3"));                        // no latency from node 3
  EXPECT_TRUE(refused("cpus 0\n", ""));
  EXPECT_TRUE(refused("224 12", "224 99"));
}

// The first instructions of cpus_get_virtual_clock() and cpus_get_elapsed_ticks() of QEMU 10.0.2.
constexpr unsigned char kGet[] = {0x48, 0x8b, 0x05, 0xa1, 0xb2, 0x43, 0x01, 0x48, 0x85,
                                  0xc0, 0x74, 0x14, 0x48, 0x8b, 0x80, 0xc0, 0x00, 0x00,
                                  0x00, 0x48, 0x85, 0xc0, 0x74, 0x08, 0xff, 0xe0};
constexpr unsigned char kTicks[] = {0x48, 0x8b, 0x05, 0x41, 0xb2, 0x43, 0x01, 0x48, 0x8b,
                                    0x80, 0xd0, 0x00, 0x00, 0x00, 0x48, 0x85, 0xc0, 0x74,
                                    0x05, 0xff, 0xe0, 0x0f, 0x1f, 0x00, 0xe9, 0x63};

TEST(SelfCheck, ReadsTheTestedCode) {
  const Accessor get = decode_accessor(kGet);
  ASSERT_TRUE(get.known);
  EXPECT_EQ(get.slot, 0xc0);
  EXPECT_EQ(get.global, 0x143b2a1);
  const Accessor ticks = decode_accessor(kTicks);
  ASSERT_TRUE(ticks.known);
  EXPECT_EQ(ticks.slot, 0xd0);
}

TEST(SelfCheck, RefusesAnyOtherCode) {
  // Every byte that is not a displacement matters.
  for (const std::size_t at :
       {0u, 1u, 2u, 7u, 8u, 9u, 10u, 12u, 13u, 14u, 19u, 20u, 21u, 22u, 24u, 25u}) {
    unsigned char code[sizeof kGet];
    std::memcpy(code, kGet, sizeof code);
    code[at] ^= 1;
    EXPECT_FALSE(decode_accessor(code).known) << "byte " << at;
  }
  std::int32_t global = 0;
  EXPECT_TRUE(decode_getter(kGet, global));
  EXPECT_FALSE(decode_getter(kGet + 7, global));
}

TEST(Cache, KeepsWhatWasUsedLast) {
  Cache cache;
  cache.shape({2 * 64 * 4, 2, 0});  // four sets of two
  EXPECT_FALSE(cache.access(0, false).hit);
  EXPECT_FALSE(cache.access(4, false).hit);
  EXPECT_TRUE(cache.access(0, false).hit);
  EXPECT_FALSE(cache.access(8, false).hit);  // line 4 goes
  EXPECT_TRUE(cache.access(0, false).hit);
  EXPECT_FALSE(cache.access(4, false).hit);
}

TEST(Cache, ModifiedLinesAreWrittenBackOnce) {
  Cache cache;
  cache.shape({64, 1, 0});
  EXPECT_FALSE(cache.access(7, true).wrote_back);
  const Cache::Outcome out = cache.access(9, false);
  EXPECT_TRUE(out.wrote_back);
  EXPECT_EQ(out.victim, 7u);
  EXPECT_FALSE(cache.access(7, false).wrote_back);  // line 9 was only read
}

TEST(Tlb, HasTheReachItIsGiven) {
  Tlb tlb;
  tlb.shape(1536, 12);
  const auto misses = [&](std::uint64_t pages, bool huge) {
    const std::uint64_t step = huge ? 1u << 21 : 1u << 12;
    std::uint64_t count = 0;
    for (int round = 0; round < 3; ++round)
      for (std::uint64_t page = 0; page < pages; ++page)
        if (!tlb.access(page * step, huge) && round > 0) ++count;
    return count;
  };
  EXPECT_EQ(misses(1536, false), 0u);
  EXPECT_EQ(misses(3072, false), 2 * 3072u);
  EXPECT_EQ(misses(1536, true), 0u);
}

TEST(Tlb, ForgetsAsHardwareDoes) {
  Tlb tlb;
  tlb.shape(1536, 12);
  constexpr std::uint64_t kKernel = 0xffff'8880'0000'0000;
  tlb.access(0x1000, false);
  tlb.access(kKernel, false);
  tlb.empty_user();
  EXPECT_TRUE(tlb.access(kKernel, false)) << "global entries stay at a switch";
  EXPECT_FALSE(tlb.access(0x1000, false));
  tlb.invalidate(0x1000);
  EXPECT_FALSE(tlb.access(0x1000, false));
  EXPECT_TRUE(tlb.access(0x1000, false));
  tlb.empty();
  EXPECT_FALSE(tlb.access(kKernel, false));
}

std::uint64_t mean_wait(const TierSpec& spec, std::uint64_t gap_ps) {
  DeviceQueue queue;
  queue.shape(spec);
  std::uint64_t sum = 0;
  std::uint64_t now = 1;
  for (int i = 0; i < 4000; ++i, now += gap_ps) {
    const std::uint64_t wait = queue.wait(0, now);
    if (i >= 2000) sum += wait;
  }
  return sum / 2000;
}

TEST(DeviceQueue, WaitRisesWithLoadAndHasAKnee) {
  TierSpec spec{1, 25'000, 0, 1'000'000, 20'000, {250'000}};
  std::uint64_t before = 0;
  for (std::uint64_t load = 0; load <= 95; load += 5) {
    spec.background = spec.bandwidth * load / 100;
    const std::uint64_t wait = mean_wait(spec, 250'000);
    EXPECT_GT(wait, before) << load;
    before = wait;
  }
  EXPECT_GT(before, 15 * 20'000u) << "near saturation";
  spec.background = spec.bandwidth / 2;
  EXPECT_NEAR(static_cast<double>(mean_wait(spec, 100'000'000)), 20'000, 1'000);
}

TEST(DeviceQueue, OurShareOfTheDeviceIsItsLimit) {
  // 25 GB/s, a quarter of it ours: a line each 10.24 ns. Twice as fast, the queue grows to its
  // limit.
  const TierSpec spec{1, 25'000, 0, 250'000, 0, {250'000}};
  EXPECT_LT(mean_wait(spec, 11'000), 1'000u);
  EXPECT_GT(mean_wait(spec, 5'000), 1'000'000u);
}

/// Two vCPUs, the second `behind` the first, that take turns and each ask for a line a `gap`.
struct Pair {
  double lines_per_us = 0;  ///< of both, in modelled time
  std::uint64_t mean_wait = 0;
};
Pair run_pair(const TierSpec& spec, std::uint64_t gap_ps, std::uint64_t behind_ps) {
  DeviceQueue queue;
  queue.shape(spec);
  constexpr std::uint64_t kStart = 1'000'000'000;
  std::uint64_t now[2] = {kStart + behind_ps, kStart};
  std::uint64_t waited = 0;
  constexpr int kLines = 20'000;
  for (int i = 0; i < kLines; ++i)
    for (const unsigned cpu : {0u, 1u}) {
      const std::uint64_t wait = queue.wait(cpu, now[cpu]);
      waited += wait;
      // Each holds some lines at a time, as a core does: it goes on before a line is there.
      now[cpu] += std::max(gap_ps, wait / 12);
    }
  const std::uint64_t end = std::max(now[0], now[1]);
  return {2.0 * kLines / (static_cast<double>(end - kStart) / 1e6), waited / (2 * kLines)};
}

TEST(DeviceQueue, TwoCpusApartDrawNoMoreThanThereIs) {
  // 1 GB/s is ours: 15.6 lines a microsecond.
  const TierSpec spec{1, 25'000, 0, 40'000, 0, {250'000}};
  for (const std::uint64_t behind : {0u, 3'000'000u, 15'000'000u, 30'000'000u, 50'000'000u}) {
    const Pair pair = run_pair(spec, 20'000, behind);
    EXPECT_LT(pair.lines_per_us, 15.7) << behind;
    EXPECT_GT(pair.lines_per_us, 13) << behind;
  }
}

/// `cpus` vCPUs up to 2 ms apart, that ask at random for `percent` of the device in all.
struct Crowd {
  double used = 0;  ///< of the device, by lines that were served in the window
  double mean_wait = 0;
};
Crowd run_crowd(const TierSpec& spec, unsigned cpus, std::uint64_t percent) {
  DeviceQueue queue;
  queue.shape(spec);
  const std::uint64_t service =
      std::uint64_t{64'000'000} * 1'000'000 / (spec.bandwidth * spec.share_ppm);
  const std::uint64_t gap = service * cpus * 100 / percent;
  constexpr std::uint64_t kApart = 2'000'000'000;
  constexpr std::uint64_t kLength = 20'000'000'000;
  std::uint64_t random = 1;
  const auto up_to = [&random](std::uint64_t most) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return (random >> 20) % (most + 1);
  };
  std::vector<std::uint64_t> offset(cpus);
  std::vector<std::uint64_t> now(cpus);
  for (unsigned i = 0; i < cpus; ++i) now[i] = offset[i] = up_to(kApart);
  std::uint64_t served = 0;
  std::uint64_t lines = 0;
  double waited = 0;
  for (;;) {
    unsigned next = 0;
    for (unsigned i = 1; i < cpus; ++i)
      if (now[i] - offset[i] < now[next] - offset[next]) next = i;
    if (now[next] - offset[next] > kApart + kLength) break;
    const std::uint64_t wait = queue.wait(next, now[next]);
    const std::uint64_t turn = now[next] + wait;
    if (turn >= kApart && turn < kApart + kLength) ++served;
    ++lines;
    waited += static_cast<double>(wait);
    now[next] += std::max(up_to(2 * gap), wait / 12);
  }
  return {static_cast<double>(served * service) / kLength, waited / static_cast<double>(lines)};
}

TEST(DeviceQueue, AnyNumberOfCpusApartDrawNoMoreThanThereIs) {
  const TierSpec spec{1, 25'000, 0, 40'000, 0, {250'000}};
  for (const unsigned cpus : {8u, 16u}) {
    double before = 0;
    for (const std::uint64_t percent : {20u, 40u, 60u, 80u, 95u, 120u, 200u}) {
      const Crowd crowd = run_crowd(spec, cpus, percent);
      EXPECT_LT(crowd.used, 1.02) << cpus << " " << percent;
      EXPECT_GT(crowd.used, std::min<double>(static_cast<double>(percent), 100) / 100 * 0.9)
          << cpus << " " << percent;
      EXPECT_GT(crowd.mean_wait, before) << cpus << " " << percent;
      before = crowd.mean_wait;
    }
  }
}

TEST(DeviceQueue, ACpuFarBehindIsChargedAsWell) {
  const TierSpec spec{1, 25'000, 0, 40'000, 0, {250'000}};
  DeviceQueue queue;
  queue.shape(spec);
  queue.wait(0, 1'000'000'000'000);
  // A line takes 64 ns; 100 at once are 6.4 us.
  std::uint64_t last = 0;
  for (int i = 0; i < 100; ++i) last = queue.wait(1, 1);
  EXPECT_NEAR(static_cast<double>(last), 99 * 64'000, 1'000);
}

TEST(DeviceQueue, ACpuBehindDoesNotWaitForAnothersFuture) {
  // Both together ask for an eighth of the device.
  const TierSpec spec{1, 25'000, 0, 250'000, 0, {250'000}};
  for (const std::uint64_t behind : {0u, 3'000'000u, 30'000'000u})
    EXPECT_LT(run_pair(spec, 160'000, behind).mean_wait, 5'000u) << behind;
}

TEST(DeviceQueue, ACpuAheadSeesTheLoadOfTheOther) {
  const TierSpec spec{1, 25'000, 0, 250'000, 20'000, {250'000}};
  DeviceQueue queue;
  queue.shape(spec);
  std::uint64_t ahead = 1'000'000'000;
  std::uint64_t behind = ahead - 30'000'000;
  std::uint64_t waited = 0;
  constexpr std::uint64_t kHops = 1000;
  for (std::uint64_t i = 0; i < kHops; ++i, ahead += 250'000) {
    // A line each 12.8 ns: four fifths of what there is.
    for (; behind < ahead - 30'000'000; behind += 12'800) queue.wait(1, behind);
    waited += queue.wait(0, ahead);
  }
  // 20 ns * 0.8 / (1 - 0.8) = 80 ns.
  EXPECT_GT(waited / kHops, 60'000u);
  EXPECT_LT(waited / kHops, 130'000u);
}

class WindowTest : public testing::Test {
 protected:
  WindowTest() { window_.shape(plan_); }
  /// Loads one line each `step` instructions, 100 ns each; nanoseconds a load.
  double loads(std::uint64_t step, bool dependent) {
    constexpr std::uint64_t kLoads = 10'000;
    std::uint64_t instructions = 0;
    std::uint64_t address = 0x10'0000'0000;
    for (std::uint64_t i = 0; i < kLoads; ++i, instructions += step) {
      const std::uint64_t next = address + 0x10'0000;
      const std::uint64_t start = window_.start(address, instructions);
      window_.add_load(i, dependent ? next : 0, start + 100'000, instructions);
      address = next;
    }
    window_.drain(instructions);
    return static_cast<double>(window_.now(instructions)) / 1000 / kLoads;
  }
  Plan plan_ = plan_of(kPlan);
  Window window_;
};

TEST_F(WindowTest, AChasePaysEveryMissInFull) {
  EXPECT_NEAR(loads(3, true), 100, 0.5);
}
TEST_F(WindowTest, IndependentMissesOverlap) {
  EXPECT_NEAR(loads(3, false), 100.0 / 12, 0.5);
}
TEST_F(WindowTest, MissesAWindowApartDoNotOverlap) {
  // Each load holds the core up when 224 instructions have passed it.
  EXPECT_NEAR(loads(448, false), 448 * 0.4 + 100 - 224 * 0.4, 1);
}

TEST_F(WindowTest, AFieldOfAnArrivingLineLeadsOn) {
  const std::uint64_t start = window_.start(0x1000, 0);
  window_.add_load(1, 42, start + 100'000, 0);
  ASSERT_TRUE(window_.brings(1));
  EXPECT_TRUE(window_.join([] { return 0x8000u; }, 1));  // the line's second word is a pointer
  EXPECT_EQ(window_.start(0x8010, 2), start + 100'000);
  EXPECT_LT(window_.start(0x20000, 2), start + 100'000);
}

TEST(Prefetcher, RunsAheadOfAStreamWithinItsPage) {
  Prefetcher prefetcher;
  prefetcher.shape(16);
  const auto asked = [&](std::uint64_t line) {
    const Prefetcher::Lines lines = prefetcher.follow(line);
    return lines.first <= lines.last ? lines.last - lines.first + 1 : 0;
  };
  EXPECT_EQ(asked(640), 0u);
  EXPECT_EQ(asked(641), 0u);
  EXPECT_EQ(asked(642), 16u);  // up to 658
  EXPECT_EQ(asked(643), 1u);
  EXPECT_EQ(asked(643), 0u) << "the same line again";
  EXPECT_EQ(asked(658), 0u) << "a jump ends the stream";
  for (std::uint64_t line = 659; line < 704; ++line) asked(line);
  EXPECT_EQ(asked(704), 0u) << "the next page begins anew";
  std::uint64_t random = 1;
  std::uint64_t sum = 0;
  for (int i = 0; i < 10'000; ++i) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    sum += asked(random >> 44);
  }
  EXPECT_LT(sum, 100u) << "random lines are not prefetched";
  prefetcher.shape(0);
  for (std::uint64_t line = 0; line < 10; ++line) EXPECT_EQ(asked(line), 0u);
}

TEST(Filter, KnowsReadsFromWritesAndSpacesApart) {
  Filter filter;
  filter.insert(0x1000, false);
  EXPECT_TRUE(filter.may_read(0x1010));
  EXPECT_FALSE(filter.may_write(0x1000));
  filter.insert(0x1000, true);
  EXPECT_TRUE(filter.may_write(0x1000));
  filter.set_address_space(2);
  EXPECT_FALSE(filter.may_read(0x1000));
  filter.set_address_space(0);
  EXPECT_TRUE(filter.may_read(0x1000));
  filter.forget_page(0x1fff);
  EXPECT_FALSE(filter.may_read(0x1000));
}

TEST(Truth, CountsPagesAndSpacesBetweenMarks) {
  char name[] = "/tmp/timing_truth_XXXXXX";
  const int fd = ::mkstemp(name);
  ASSERT_GE(fd, 0);
  std::string text = std::string(kPlan) + "truth 0 virtual " + name + "\n";
  const Plan plan = plan_of(text);
  Truth truth;
  std::string error;
  ASSERT_TRUE(truth.open(plan, error)) << error;
  const std::uint32_t space = truth.space_of(0x5000);
  truth.miss(0, 3, 0x7f000, space, Truth::Why::kLoad);
  truth.miss(0, 3, 0x7f000, space, Truth::Why::kStore);
  truth.miss(0, 3, 0x80000, space, Truth::Why::kLoad);  // the frame has a new owner
  truth.miss(1, 256, 0x7f000, space, Truth::Why::kLoad);
  truth.mark({1000, 50, 20, 1, 4'000}, "begin", space);
  truth.miss(1, 257, 0x11, 0, Truth::Why::kPrefetch);
  truth.finish({3000, 80, 30, 2, 9'000});
  std::ostringstream content;
  content << std::ifstream(name).rdbuf();
  std::remove(name);
  EXPECT_EQ(
      content.str(),
      "thermocline-truth 1\nmode reference\n"
      "range tier 0 node 0 first_frame 0x0 frames 256\n"
      "range tier 1 node 1 first_frame 0x100 frames 256\n"
      "space 1 root_frame 0x5\n"
      "slice 0 begin_ns 0 end_ns 1000 closed_by mark instructions 50 kernel_instructions 20 "
      "walks 1 stalled_ns 4\n"
      "misses tier 0 loads 2 stores 1 prefetched 0 write_backs 0 latency_ns 0\n"
      "misses tier 1 loads 1 stores 0 prefetched 0 write_backs 0 latency_ns 0\n"
      "f 3 3\nf 100 1\nv 1 7f000 2 0\nv 1 7f000 1 1\nv 1 80000 1 0\n"
      "mark begin at_ns 1000 space 1\n"
      "slice 1 begin_ns 1000 end_ns 3000 closed_by end instructions 30 kernel_instructions 10 "
      "walks 1 stalled_ns 5\n"
      "misses tier 0 loads 0 stores 0 prefetched 0 write_backs 0 latency_ns 0\n"
      "misses tier 1 loads 0 stores 0 prefetched 1 write_backs 0 latency_ns 0\n"
      "f 101 1\nv 0 11 1 1\n");
}

// Addresses as they are in a kernel: the top 2 GiB.
constexpr std::uint64_t kKernel = 0xffff'ffff'8100'0000;

KernelText some_text() {
  KernelText text;
  text.add({kKernel + 0x300, 0x100, Purpose::kMover});
  text.add({kKernel + 0x100, 0x100, Purpose::kTracker});
  text.add({kKernel + 0x200, 0x80, Purpose::kPolicy});
  text.add({kKernel + 0x800, 0x100, Purpose::kApart});
  return text;
}

TEST(KernelText, FunctionsEndWhereTheyEnd) {
  const KernelText text = some_text();
  EXPECT_EQ(text.at(0), Purpose::kNone);
  EXPECT_EQ(text.at(kKernel + 0xff), Purpose::kNone);
  EXPECT_EQ(text.at(kKernel + 0x100), Purpose::kTracker);
  EXPECT_EQ(text.at(kKernel + 0x1ff), Purpose::kTracker);
  EXPECT_EQ(text.at(kKernel + 0x200), Purpose::kPolicy);
  EXPECT_EQ(text.at(kKernel + 0x280), Purpose::kNone);
  EXPECT_EQ(text.at(kKernel + 0x3ff), Purpose::kMover);
  EXPECT_EQ(text.at(kKernel + 0x400), Purpose::kNone);
  EXPECT_EQ(text.at(~std::uint64_t{0}), Purpose::kNone);
  EXPECT_EQ(KernelText().at(kKernel), Purpose::kNone);
}

/// A kernel in which callers are told: tables at kTables, and stacks.
class UnwinderTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kTables = kKernel + 0x10000;
  static constexpr std::uint64_t kStack = 0xffff'c900'0000'0f00;
  static constexpr unsigned kCall = 2;  // numbers as since Linux 6.4
  static constexpr unsigned kRegisters = 3;
  static constexpr unsigned kEnd = 1;
  static constexpr unsigned kSp = 5;
  static constexpr unsigned kBp = 4;
  static constexpr unsigned kSpIndirect = 9;
  static constexpr unsigned kPreviousSp = 1;

  /// From `address` on, callers are found so; addresses must rise.
  void tell(std::uint64_t address, int sp_offset, unsigned sp, unsigned type, unsigned bp = 0,
            int bp_offset = 0) {
    places_.push_back(static_cast<std::int32_t>(address - (kTables + 4 * places_.size())));
    for (const int value : {sp_offset, bp_offset}) {
      entries_.push_back(static_cast<std::uint8_t>(value & 0xff));
      entries_.push_back(static_cast<std::uint8_t>(value >> 8 & 0xff));
    }
    entries_.push_back(static_cast<std::uint8_t>(sp | bp << 4));
    entries_.push_back(static_cast<std::uint8_t>(type));
  }
  void load() { ASSERT_TRUE(unwinder_.load(kTables, places_, entries_)); }
  void push(std::uint64_t word) { stack_.push_back(word); }
  auto reader() {
    return [this](std::uint64_t address, std::uint64_t& word) {
      if ((address - kStack) / 8 >= stack_.size()) return false;
      word = stack_[(address - kStack) / 8];
      return true;
    };
  }
  Purpose purpose(std::uint64_t pc) {
    return some_text().of(Frame{pc, kStack, 0}, stack_, unwinder_, reader());
  }

  std::vector<std::int32_t> places_;
  std::vector<std::uint8_t> entries_;
  std::vector<std::uint64_t> stack_;
  Unwinder unwinder_;
};

// The functions of some_text(), each with 16 bytes on the stack and its return address above; from
// 0x1000 on another one alike, at 0x2000 the way in from user code.
class PurposeTest : public UnwinderTest {
 protected:
  void SetUp() override {
    tell(kKernel, 24, kSp, kCall);
    tell(kKernel + 0x2000, 0, kSp, kRegisters);
    tell(kKernel + 0x3000, 8, kSp, kCall);
    load();
  }
  void called_from(std::uint64_t function, std::uint64_t below = 0) {
    push(below);
    push(below);
    push(kKernel + function);
  }
  static constexpr std::uint64_t kOther = kKernel + 0x1000;
};

TEST_F(PurposeTest, TheInnermostCounts) {
  called_from(0x2001);
  EXPECT_EQ(purpose(kOther), Purpose::kNone);
  EXPECT_EQ(purpose(kKernel + 0x150), Purpose::kTracker);
  stack_.clear();
  called_from(0x150);
  called_from(0x2001);
  EXPECT_EQ(purpose(kOther), Purpose::kTracker);
  EXPECT_EQ(purpose(kKernel + 0x210), Purpose::kPolicy);
  EXPECT_EQ(purpose(kKernel + 0x350), Purpose::kMover);
  stack_.clear();
  called_from(0x350);
  called_from(0x150);
  called_from(0x2001);
  EXPECT_EQ(purpose(kOther), Purpose::kMover);
  EXPECT_EQ(purpose(kKernel + 0x210), Purpose::kMover);
}

TEST_F(PurposeTest, CompactionMovesPagesForReasonsOfItsOwn) {
  called_from(0x850);
  called_from(0x150);
  called_from(0x2001);
  EXPECT_EQ(purpose(kKernel + 0x350), Purpose::kNone);
}

TEST_F(PurposeTest, WhatAnOlderCallLeftIsNoCaller) {
  called_from(0x1100, kKernel + 0x350);
  called_from(0x2001, kKernel + 0x350);
  called_from(0x350);  // beyond the way in: not this call's
  EXPECT_EQ(purpose(kOther), Purpose::kNone);
}

TEST_F(PurposeTest, AReturnAddressBelongsToTheCallBeforeIt) {
  called_from(0x100);  // the function's first byte: what was called ended the one before it
  called_from(0x2001);
  EXPECT_EQ(purpose(kOther), Purpose::kNone);
  stack_.clear();
  called_from(0x400);
  called_from(0x2001);
  EXPECT_EQ(purpose(kOther), Purpose::kMover);
}

TEST_F(PurposeTest, BehindAModuleTheFirstWordThatLeadsAllTheWayUpIsItsCaller) {
  const std::uint64_t module = kKernel + 0x3000'0000;
  push(kKernel + 0x350);  // old: leads nowhere
  push(7);
  push(kKernel + 0x1100);
  called_from(0x150);
  called_from(0x2001);
  EXPECT_EQ(purpose(module), Purpose::kTracker);
  KernelText text = some_text();
  text.add({module, 0x1000, Purpose::kPolicy});
  EXPECT_EQ(text.of(Frame{module, kStack, 0}, stack_, unwinder_, reader()), Purpose::kPolicy);
}

TEST_F(PurposeTest, AStackThatEndsEarlyIsTakenAsFarAsItGoes) {
  called_from(0x150);
  EXPECT_EQ(purpose(kOther), Purpose::kTracker);
  stack_.clear();
  EXPECT_EQ(purpose(kOther), Purpose::kNone);
}

TEST_F(UnwinderTest, FollowsBasePointersAndStacksThatWereLeft) {
  tell(kKernel, 16, kBp, kCall, kPreviousSp, -16);  // push %rbp; mov %rsp,%rbp
  tell(kKernel + 0x100, 8, kSpIndirect, kCall);     // on another stack, whose top leads back
  tell(kKernel + 0x200, 8, kSp, kCall);
  tell(kKernel + 0x300, 0, 0, kEnd);
  load();
  push(kStack + 8 * 4);  // 0: the stack that was left
  push(1);               // 1
  push(77);              // 2: the caller's %rbp
  push(kKernel + 0x110);
  push(kKernel + 0x210);  // 4: beyond, the return address behind it
  Frame frame{kKernel + 0x10, kStack + 8, kStack + 16};
  ASSERT_EQ(unwinder_.up(frame, true, reader()), Unwinder::Step::kCaller);
  EXPECT_EQ(frame.pc, kKernel + 0x110);
  EXPECT_EQ(frame.sp, kStack + 32);
  EXPECT_EQ(frame.bp, 77u);
  frame.sp = kStack;
  ASSERT_EQ(unwinder_.up(frame, false, reader()), Unwinder::Step::kCaller);
  EXPECT_EQ(frame.pc, kKernel + 0x210);
  EXPECT_EQ(frame.bp, 77u);
  frame = {kKernel + 0x300, kStack, 0};
  EXPECT_EQ(unwinder_.up(frame, true, reader()), Unwinder::Step::kEnd);
  for (const std::uint64_t pc : {std::uint64_t{1}, kKernel - 1, kKernel + 0x3000'0000}) {
    frame = {pc, kStack, 0};
    EXPECT_EQ(unwinder_.up(frame, true, reader()), Unwinder::Step::kLost) << pc;
  }
}

TEST_F(UnwinderTest, KnowsTheFormBefore64) {
  for (std::uint64_t i = 0; i < 4; ++i) tell(kKernel + i, 8, kSp, 0);
  tell(kKernel + 0x100, 0, kSp, 1);  // registers
  tell(kKernel + 0x200, 0, 0, 4);    // the end
  tell(kKernel + 0x300, 0, 0, 0);    // not told
  load();
  push(kKernel + 0x110);
  const auto step = [this](std::uint64_t pc) {
    Frame frame{pc, kStack, 0};
    return unwinder_.up(frame, true, reader());
  };
  EXPECT_EQ(step(kKernel + 0x10), Unwinder::Step::kCaller);
  EXPECT_EQ(step(kKernel + 0x100), Unwinder::Step::kEnd);
  EXPECT_EQ(step(kKernel + 0x200), Unwinder::Step::kEnd);
  EXPECT_EQ(step(kKernel + 0x300), Unwinder::Step::kLost);
}

TEST_F(UnwinderTest, TablesOfAnotherFormAreRefused) {
  EXPECT_FALSE(unwinder_.load(kTables, {}, {}));
  for (std::uint64_t i = 0; i < 4; ++i) tell(kKernel + i, 8, kSp, 5);
  EXPECT_FALSE(unwinder_.load(kTables, places_, entries_));
  entries_.pop_back();
  EXPECT_FALSE(unwinder_.load(kTables, places_, entries_));
  EXPECT_FALSE(unwinder_.known());
}

TEST(Sampler, IsAPeriodApartOnAverageAndNeverInStep) {
  constexpr std::uint64_t kPeriod = 50'000'000;
  Sampler sampler;
  sampler.shape(kPeriod, 3);
  EXPECT_EQ(sampler.next_ps(), kPeriod);
  EXPECT_EQ(sampler.take(kPeriod - 1), 0u);
  std::uint64_t last = sampler.next_ps();
  std::uint64_t least = ~std::uint64_t{0};
  std::uint64_t most = 0;
  constexpr std::uint64_t kSamples = 10'000;
  for (std::uint64_t i = 0; i < kSamples; ++i) {
    EXPECT_TRUE(sampler.is_near(last, 0));
    EXPECT_EQ(sampler.take(last), 1u);
    const std::uint64_t step = sampler.next_ps() - last;
    EXPECT_FALSE(sampler.is_near(last, step - 1));
    least = std::min(least, step);
    most = std::max(most, step);
    last = sampler.next_ps();
  }
  EXPECT_GE(least, kPeriod / 2);
  EXPECT_LE(most, kPeriod * 3 / 2);
  EXPECT_GT(most - least, kPeriod * 9 / 10);
  EXPECT_NEAR(static_cast<double>(last) / kSamples, kPeriod, 0.01 * kPeriod);
  // A long wait counts for what it is.
  EXPECT_NEAR(static_cast<double>(sampler.take(last + 1000 * kPeriod)), 1000, 20);
}

TEST(Sampler, NothingIsDueWithoutAPeriod) {
  Sampler sampler;
  sampler.shape(0, 0);
  EXPECT_EQ(sampler.take(std::uint64_t{1} << 62), 0u);
  EXPECT_FALSE(sampler.is_near(std::uint64_t{1} << 62, 1'000'000));
}

TEST(Truth, SamplesAreThoseOfTheirSlice) {
  char name[] = "/tmp/timing_truth_XXXXXX";
  ASSERT_GE(::mkstemp(name), 0);
  const Plan plan =
      plan_of(std::string(kPlan) + "truth 0 none " + name + "\nprofile 50000\ntext mover 1 1\n");
  Truth truth;
  std::string error;
  ASSERT_TRUE(truth.open(plan, error)) << error;
  truth.sample_kernel(Purpose::kTracker, 3);
  truth.sample_kernel(Purpose::kMover, 4);
  truth.sample_kernel(Purpose::kNone, 5);
  truth.sample_user(2, 6);
  truth.sample_user(1, 1);
  Truth::Instant at;
  at.idle_ps = 120'000'000;
  truth.mark(at, "a", 1);
  truth.sample_kernel(Purpose::kPolicy, 1);
  at.idle_ps = 200'000'000;
  truth.finish(at);
  std::ostringstream content;
  content << std::ifstream(name).rdbuf();
  std::remove(name);
  std::string profile;
  std::istringstream lines(content.str());
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("profile")) profile += line + "\n";
  EXPECT_EQ(profile,
            "profile_period_ns 50000\n"
            "profile tracker 3 mover 4 policy 0 kernel 12 user 7 idle 2\n"
            "profile_space 1 user 1\nprofile_space 2 user 6\n"
            "profile tracker 0 mover 0 policy 1 kernel 1 user 0 idle 2\n");
}

}  // namespace
}  // namespace timing_plugin
