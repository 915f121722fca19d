// SPDX-License-Identifier: Apache-2.0
// Checks in a guest, with thermocline.ko loaded, that scans leave reclaim its judgement, and what
// the kernel's own ageing, which clears accessed bits too, leaves of the module's. Both hold for
// the ageing that /sys/kernel/mm/lru_gen/enabled chooses; tests/lab/kmod-manners.lab has both
// tried.
//
// Every clearing scan here flushes too: what cached translations hide is kmod_tlb's to measure.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "reclaim.h"

namespace thermocline::labtest {
namespace {

bool has_swap() {
  std::ifstream swaps("/proc/swaps");
  const std::string list{std::istreambuf_iterator<char>(swaps), {}};
  return list.find("/dev/") != std::string::npos;
}

// ------------------------------------------------------------------ what reclaim takes

/// Who scans between touches.
enum class Scan { kNone, kAll, kPruned, kThread };

class KmodManners : public Kmod {};

/// A quarter of the memory is touched, a few times over; then half of it has to go.
Victims reclaim_after(Scan scan, bool blocks) {
  constexpr int kTouches = 3;
  const auto is_hot = [&](std::uint64_t i) { return (blocks ? i / 512 : i) % 4 == 0; };
  const Device device;
  EXPECT_EQ(device.attach(getpid()), 0);
  const OwnCgroup cgroup(getpid());
  const Region region(48 << 20);
  region.write_all();
  // Nothing is young, in any run: neither the bits nor what a scan hands on for them, nor a CPU.
  expect_good(device.scan(kClear, region.range()));
  std::ofstream("/proc/self/clear_refs") << "1" << std::flush;
  // To MGLRU new pages are as young as any that it finds touched in its next pass.
  for (int i = 0; i < 2; ++i) age(cgroup);

  std::vector<thermocline_range> range{{region.first(), region.pages()}};
  thermocline_start start = valid_start();
  start.schedule.range_count = 1;
  start.schedule.ranges = reinterpret_cast<std::uintptr_t>(range.data());
  if (scan == Scan::kThread) {
    EXPECT_EQ(device.start(start), 0);
  }
  for (int i = 0; i < kTouches; ++i) {
    for (std::uint64_t page = 0; page < region.pages(); ++page)
      if (is_hot(page)) region.read(page);
    switch (scan) {
      case Scan::kNone:
        break;
      case Scan::kAll:
        EXPECT_EQ(device.scan(kClear, region.range()).accessed, region.pages() / 4);
        break;
      case Scan::kPruned:
        EXPECT_EQ(device.scan(kPrune, region.range()).accessed, region.pages() / 4);
        break;
      case Scan::kThread:
        EXPECT_EQ(device.round(start.schedule), 0);
        while (device.stats().rounds <= static_cast<unsigned>(i)) usleep(1000);
    }
  }
  cgroup.reclaim(region.pages() / 2 * kPage);

  std::vector<std::uint64_t> entries(region.pages());
  Pagemap("self").read(region.first(), entries);
  Victims victims;
  for (std::uint64_t i = 0; i < entries.size(); ++i) {
    const bool gone = (entries[i] >> 63) == 0;
    victims.gone.push_back(gone);
    if (gone) ++(is_hot(i) ? victims.hot_gone : victims.cold_gone);
  }
  return victims;
}

/// Against a run without scans. Two such runs tell how alike runs are by themselves.
TEST_F(KmodManners, ReclaimTakesTheSamePages) {
  if (!has_swap()) GTEST_SKIP() << "this guest has no swap";
  thermocline_info info{};
  ASSERT_EQ(device_.control(THERMOCLINE_IOC_INFO, &info), 0);
  const bool has_young = (info.features & THERMOCLINE_FEATURE_YOUNG) != 0;
  constexpr std::uint64_t kPages = (48 << 20) / kPage, kHot = kPages / 4, kCold = kPages - kHot;
  for (const bool blocks : {false, true}) {
    const Victims unscanned = reclaim_after(Scan::kNone, blocks);
    const double control = alike(unscanned, reclaim_after(Scan::kNone, blocks));
    const auto print = [&](const char* how, const Victims& victims, double same) {
      std::printf(
          "victims, hot %s, %-34s %5.1f %% of hot pages, %5.1f %% of cold, %5.1f %% the same\n",
          blocks ? "blocks" : "pages ", how, 100 * share(victims.hot_gone, kHot),
          100 * share(victims.cold_gone, kCold), 100 * same);
    };
    print("not scanned (twice)", unscanned, control);
    EXPECT_GT(unscanned.cold_gone, kCold / 3) << "the kernel reclaimed too little to tell";
    EXPECT_LT(unscanned.hot_gone, kHot / 50) << "reclaim can't tell hot from cold by itself";
    for (const auto& [how, scan] : {std::pair{"scanned", Scan::kAll},
                                    {"scanned with pruning", Scan::kPruned},
                                    {"scanned by the module's thread", Scan::kThread}}) {
      const Victims victims = reclaim_after(scan, blocks);
      const double same = alike(unscanned, victims);
      print(how, victims, same);
      if (has_young) {
        EXPECT_LE(share(victims.hot_gone, kHot), share(unscanned.hot_gone, kHot) + 0.02) << how;
        EXPECT_GE(same, control - 0.05) << how;
      } else {
        // Nowhere to hand the touches on: hot pages look like cold ones, but not worse.
        EXPECT_STREQ(std::getenv("TC_KERNEL"), "6.1") << "only Debian's 6.1 has no young flag";
        EXPECT_LE(share(victims.hot_gone, kHot), share(victims.cold_gone, kCold) + 0.1) << how;
      }
    }
  }
}

// ------------------------------------------------------------------ what ageing leaves

/// What the test and the process that it watches tell each other.
struct Talk {
  std::atomic<int> asked, done;  ///< number of a window
  std::atomic<bool> stop;        ///< the window's touches end
};

constexpr std::uint64_t kBlocks = 16;

/// What is touched in a window: a quarter of the blocks, other ones every few windows, half of
/// them.
std::set<std::uint64_t> touched_in(int window) {
  std::mt19937_64 random(static_cast<unsigned>(window));
  std::set<std::uint64_t> pages;
  while (pages.size() < kBlocks * 512 / 8)
    pages.insert((random() % 4 * 4 + static_cast<unsigned>(window / 6) % 4) * 512 + random() % 512);
  return pages;
}

/// Keeps the page cache growing, which only kswapd can make room for; nothing can run out of
/// memory.
class CachePressure {
 public:
  explicit CachePressure(const char* device)
      : child_(
            [device] {
              const int fd = open(device, O_RDONLY | O_CLOEXEC);
              std::vector<char> buffer(1 << 20);
              if (fd < 0) _exit(1);
              for (;;)
                if (read(fd, buffer.data(), buffer.size()) <= 0 && lseek(fd, 0, SEEK_SET) != 0)
                  _exit(1);
            },
            Child::Start::kDoNotWait) {}

 private:
  Child child_;
};

TEST_F(KmodManners, RecallWhileKswapdAges) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "needs two CPUs";
  if (!has_swap()) GTEST_SKIP() << "this guest has no swap";
  const char* const device = std::getenv("TC_CACHE_FILE");
  ASSERT_NE(device, nullptr) << "name a large file to read in TC_CACHE_FILE";
  constexpr useconds_t kWindow = 20000;
  constexpr int kWindows = 24;

  auto* const talk =
      new (mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Talk{};
  const Region region(kBlocks * kHuge);
  const Child target(
      [&] {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(1, &one);
        sched_setaffinity(0, sizeof(one), &one);
        for (int window = 0;;) {
          while (talk->asked == window) usleep(100);
          window = talk->asked;
          if (window == 1) region.write_all();
          const auto pages = touched_in(window);
          do {
            for (const std::uint64_t i : pages) region.read(i);
          } while (!talk->stop);
          talk->done = window;
        }
      },
      Child::Start::kDoNotWait);
  const OwnCgroup cgroup(target.pid());
  ASSERT_EQ(device_.attach(target.pid()), 0);
  int window = 0;
  // A window: touches until its end, or once at its begin; and a pass of ageing in the middle.
  const auto ask = [&](bool to_the_end, bool aged) {
    talk->stop = !to_the_end;
    talk->asked = ++window;
    while (!to_the_end && talk->done != window) usleep(200);
    usleep(kWindow / 2);
    if (aged) age(cgroup);
    usleep(kWindow / 2);
    talk->stop = true;
    while (talk->done != window) usleep(200);
  };
  ask(false, false);
  const CachePressure pressure(device);
  const auto scanned_by_kswapd = [] { return read_counter("/proc/vmstat", "pgscan_kswapd"); };
  const std::uint64_t before = scanned_by_kswapd();
  for (int i = 0; i < 2000 && scanned_by_kswapd() < before + 10000; ++i) usleep(20000);

  struct Way {
    const char* name;
    bool to_the_end, aged;
    std::uint32_t flags;
    double least;
  };
  for (const Way& way :
       {Way{"over and over", true, false, kClear, 0.98},
        Way{"over and over; pruned", true, false, kPrune, 0.95},
        Way{"once", false, false, kClear, 0.8}, Way{"once; pruned", false, false, kPrune, 0.8},
        Way{"over and over, aged between", true, true, kClear, 0.5},
        Way{"over and over, aged between; pruned", true, true, kPrune, 0.5},
        Way{"once, then aged", false, true, kClear, 0}}) {
    if (way.aged && !is_mglru()) continue;
    std::uint64_t touched = 0, seen = 0, told = 0;
    const std::uint64_t kswapd = scanned_by_kswapd(), passes = generations(cgroup).sum();
    for (int i = 0; i < kWindows; ++i) {
      const std::uint32_t flags = i % 8 == 0 ? way.flags & ~THERMOCLINE_SCAN_PRUNE : way.flags;
      expect_good(device_.scan(flags, region.range()));
      ask(way.to_the_end, way.aged);
      const Pass pass = device_.scan(flags, region.range());
      expect_good(pass);
      const auto pages = touched_in(window);
      const auto found = accessed(pass, region);
      touched += pages.size();
      told += found.size();
      for (const std::uint64_t page : found) seen += pages.contains(page) ? 1u : 0u;
    }
    std::printf(
        "recall, touched %-37s %5.1f %%, precision %5.1f %%; %3lu passes of MGLRU, and kswapd "
        "looked at %lu pages\n",
        way.name, 100 * share(seen, touched), 100 * share(seen, told),
        generations(cgroup).sum() - passes, scanned_by_kswapd() - kswapd);
    EXPECT_GT(scanned_by_kswapd() - kswapd, 1000u) << "kswapd was not at work";
    EXPECT_GE(share(seen, touched), way.least) << way.name;
  }
  munmap(talk, kPage);
}

}  // namespace
}  // namespace thermocline::labtest
