// SPDX-License-Identifier: Apache-2.0
// What clearing accessed bits does to the kernel's own choice of the pages that it demotes, in a
// guest with two tiers and thermocline.ko: the two ways that the bpf tracker has, and the module's
// beside them. tests/lab/clear-victims.lab has it run with MGLRU and without; docs/trackers.md has
// the figures.
//
// A process touches a quarter of its memory, the hot pages, in each of a few windows; a tracker
// looks and clears in each. The kernel has to demote half of that memory: for memory.reclaim of a
// cgroup, or because the fast node is full.
//
// The process drops its cached translations before it touches, so that none of its touches is
// hidden: what clear_refs misses of those is not the matter here.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>

#include "reclaim.h"
#include "tracking/tracker.h"

namespace thermocline::labtest {
namespace {

constexpr std::uint64_t kBytes = 16 << 20, kPages = kBytes / kPage;
constexpr unsigned kWindows = 4;
/// A little more of the fast node is free than kswapd keeps free.
constexpr std::uint64_t kNearlyFull = 8 << 20;

/// Who clears.
enum class Clear { kNothing, kRefs, kCold, kModule };

struct Case {
  bool blocks;   ///< parts are whole blocks of 2 MiB, else every fourth page
  bool steady;   ///< see demote_after()
  bool kswapd;   ///< makes the pressure, else memory.reclaim does
  bool touched;  ///< the hot pages are touched between a clear and the pressure
};

/// The memory in quarters.
enum Part : unsigned { kHot = 1, kOld = 2, kNew = 4, kAll = 7 };

Part part_of(const Case& c, std::uint64_t page) {
  constexpr std::array kParts{kHot, kOld, kNew, kNew};
  return kParts[(c.blocks ? page / 512 : page) % kParts.size()];
}

int node_number(const char* variable) {
  const char* const text = std::getenv(variable);
  EXPECT_NE(text, nullptr) << variable << " is not set";
  return text == nullptr ? -1 : std::atoi(text);
}

/// A process that touches pages of its own when it is told to.
class Target {
 public:
  explicit Target(const Case& c) : case_(c), region_(kBytes) {
    talk_ = new (mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
        Talk{};
    child_.emplace([this] { obey(); }, Child::Start::kDoNotWait);
    cgroup_.emplace(child_->pid());
  }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  ~Target() {
    child_->end();
    munmap(talk_, kPage);
  }
  [[nodiscard]] pid_t pid() const { return child_->pid(); }
  [[nodiscard]] const OwnCgroup& cgroup() const { return *cgroup_; }

  /// Of the pages of these parts, the nth of `of` lots; the first touch of a page makes it.
  void touch(unsigned parts, unsigned n = 0, unsigned of = 1) {
    talk_->parts = parts;
    talk_->n = n;
    talk_->of = of;
    const int order = ++talk_->asked;
    while (talk_->done != order) usleep(200);
  }
  /// No page looks touched, neither by its entry nor by its flags.
  void forget() const {
    std::ofstream("/proc/" + std::to_string(pid()) + "/clear_refs") << "1" << std::flush;
  }
  /// Without MGLRU, has the kernel put the hot pages on the active list: those that
  /// get_user_pages() hands out count as used, and twice is enough.
  void activate_hot() const {
    char byte = 0;
    for (std::uint64_t i = 0; i < kPages; ++i) {
      if (part_of(case_, i) != kHot) continue;
      const iovec here{&byte, 1}, there{region_.page(i), 1};
      for (int twice = 0; twice < 2; ++twice)
        EXPECT_EQ(process_vm_readv(pid(), &here, 1, &there, 1, 0), 1);
    }
  }
  [[nodiscard]] std::vector<bool> on_node(int node) const {
    std::vector<void*> pages(kPages);
    for (std::uint64_t i = 0; i < kPages; ++i) pages[i] = region_.page(i);
    std::vector<int> nodes(kPages, -1);
    EXPECT_EQ(syscall(SYS_move_pages, pid(), kPages, pages.data(), nullptr, nodes.data(), 0), 0);
    std::vector<bool> there;
    for (const int n : nodes) there.push_back(n == node);
    return there;
  }

 private:
  struct Talk {
    std::atomic<int> asked, done;
    unsigned parts, n, of;
  };
  [[noreturn]] void obey() const {
    // What finds no room on the fast node waits for some. The kernel demotes bound memory, too. The
    // whole process is bound: memory that is bound by itself is none of a tracker's business.
    const unsigned long fast = 1ul << node_number("TC_FAST_NODE");
    if (syscall(SYS_set_mempolicy, MPOL_BIND, &fast, sizeof(fast) * 8) != 0) _exit(1);
    for (int order = 0;;) {
      while (talk_->asked == order) usleep(200);
      order = talk_->asked;
      // Twice another protection: what the page tables say stays, cached translations do not.
      mprotect(region_.data(), kBytes, PROT_READ);
      mprotect(region_.data(), kBytes, PROT_READ | PROT_WRITE);
      for (std::uint64_t i = 0; i < kPages; ++i)
        if ((part_of(case_, i) & talk_->parts) != 0 && i * talk_->of / kPages == talk_->n)
          region_.write(i);
      talk_->done = order;
    }
  }

  const Case case_;
  const Region region_;
  Talk* talk_ = nullptr;
  std::optional<Child> child_;
  std::optional<OwnCgroup> cgroup_;
};

std::uint64_t count(const std::vector<bool>& pages) {
  return static_cast<std::uint64_t>(std::count(pages.begin(), pages.end(), true));
}

/// Locked memory that fills the fast node.
class Ballast {
 public:
  Ballast() = default;
  Ballast(const Ballast&) = delete;
  Ballast& operator=(const Ballast&) = delete;
  ~Ballast() { shrink_to(0); }
  [[nodiscard]] std::size_t parts() const { return parts_.size(); }
  /// Until that much is free; nothing where less is.
  void leave_free(std::uint64_t bytes) {
    const std::uint64_t free = kPage * free_pages();
    if (free > bytes) grow(free - bytes);
  }
  void grow(std::uint64_t bytes) {
    void* const data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(data, MAP_FAILED);
    parts_.emplace_back(data, bytes);
    madvise(data, bytes, MADV_DONTFORK);
    const unsigned long fast = 1ul << node_number("TC_FAST_NODE");
    EXPECT_EQ(syscall(SYS_mbind, data, bytes, MPOL_BIND, &fast, sizeof(fast) * 8, 0), 0);
    EXPECT_EQ(mlock(data, bytes), 0) << std::strerror(errno);
  }
  void shrink_to(std::size_t parts) {
    for (; parts_.size() > parts; parts_.pop_back())
      munmap(parts_.back().first, parts_.back().second);
  }

 private:
  static std::uint64_t free_pages() {
    return read_counter(
        fmt::format("/sys/devices/system/node/node{}/vmstat", node_number("TC_FAST_NODE")).c_str(),
        "nr_free_pages");
  }
  std::vector<std::pair<void*, std::uint64_t>> parts_;
};

class ClearVictims : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_GE(fast_, 0);
    ASSERT_GE(slow_, 0);
    thermocline_info info{};
    ASSERT_EQ(Device().control(THERMOCLINE_IOC_INFO, &info), 0) << "the module is not loaded";
    has_young_ = (info.features & THERMOCLINE_FEATURE_YOUNG) != 0;
  }
  void compare(Case c);

 private:
  Tracker* tracker(Clear clear) {
    auto& tracker = trackers_[static_cast<std::size_t>(clear)];
    if (tracker != nullptr || clear == Clear::kNothing) return tracker.get();
    TrackerOptions options;
    options.continuous = false;
    if (clear == Clear::kModule) options.flush = TrackerOptions::Flush::kOn;
    options.clear =
        clear == Clear::kRefs ? TrackerOptions::Clear::kClearRefs : TrackerOptions::Clear::kCold;
    auto made = make_tracker(*system_, clear == Clear::kModule ? "kmod" : "bpf", options);
    EXPECT_TRUE(made) << made.error().message;
    if (made) tracker = std::move(*made);
    return tracker.get();
  }

  [[nodiscard]] Victims demote_after(Clear clear, const Case& c);
  /// Pages that the kernel demoted since the guest began.
  static std::uint64_t demoted() {
    std::ofstream("/proc/sys/vm/stat_refresh") << "1" << std::flush;
    return read_counter("/proc/vmstat", "pgdemote_kswapd") +
           read_counter("/proc/vmstat", "pgdemote_direct");
  }

  const std::unique_ptr<System> system_ = make_real_system();
  std::array<std::unique_ptr<Tracker>, 4> trackers_;
  Ballast ballast_;
  const int fast_ = node_number("TC_FAST_NODE"), slow_ = node_number("TC_SLOW_NODE");
  bool has_young_ = false;  ///< the module hands touches on that it clears
};

/// At first the kernel knows nothing of the memory, and all of the pressure comes at the end, after
/// the last window.
///
/// Or the pressure is steady: the kernel knows that the hot pages were in use (they are on the
/// active list or of a young generation) and the old ones were not; new memory comes up in each
/// window, is touched once, and as much has to leave.
Victims ClearVictims::demote_after(Clear clear, const Case& c) {
  // What the target and the rest of the guest need at first is free.
  if (c.kswapd && ballast_.parts() == 0) ballast_.leave_free(2 * kBytes);
  const std::size_t ballast = ballast_.parts();
  const std::uint64_t demotions = demoted();
  Target target(c);
  target.touch(c.steady ? kHot | kOld : kAll);
  EXPECT_EQ(count(target.on_node(fast_)), c.steady ? kPages / 2 : kPages)
      << "the target doesn't start on the fast node";
  target.forget();
  age(target.cgroup());
  if (c.steady) {
    if (!is_mglru()) target.activate_hot();
    target.touch(kHot);
  }
  age(target.cgroup());
  target.forget();

  Tracker* const tracker = this->tracker(clear);
  ScanRequest request;
  if (tracker != nullptr) {
    const auto process = identify_process(*system_, Pid(target.pid()));
    EXPECT_TRUE(process && tracker->attach(*process)) << "can't follow the target";
    request.asid = process->asid;
  }
  if (c.kswapd) ballast_.leave_free(kNearlyFull);
  // Where nothing changes but by the last of them, two are enough.
  for (unsigned window = c.steady ? 0 : kWindows - 2; window < kWindows; ++window) {
    if (!c.touched) target.touch(kHot);
    if (c.steady) target.touch(kNew, window, kWindows);
    if (tracker != nullptr) {
      const auto stats = tracker->scan(request, [](std::span<const std::byte>) {});
      EXPECT_TRUE(stats) << stats.error().message;
      // Under steady pressure the kernel looks at accessed bits and takes them, too.
      if (stats && !c.steady && (!c.touched || window == kWindows - 1)) {
        EXPECT_GE(stats->accessed, kPages / 4) << "touches were not seen";
      }
    }
    if (c.touched) target.touch(kHot);
    if (!c.steady && window < kWindows - 1) continue;
    const std::uint64_t goal = c.steady ? kPages / 2 * (window + 1) / kWindows : kPages / 2;
    for (int i = 0; i < 500; ++i) {
      const std::uint64_t gone = count(target.on_node(slow_));
      if (gone >= goal) break;
      // Linux 6.1 reclaims half as much again as it is asked for.
      const std::uint64_t part = std::max<std::uint64_t>(64, (goal - gone) / 2);
      if (c.kswapd) {
        ballast_.leave_free(kNearlyFull);
        ballast_.grow(64 * kPage);
        usleep(10000);
      } else {
        target.cgroup().reclaim(part * kPage);
      }
    }
  }
  ballast_.shrink_to(ballast);
  if (tracker != nullptr) tracker->detach(request.asid);

  Victims victims;
  victims.gone = target.on_node(slow_);
  for (std::uint64_t i = 0; i < kPages; ++i)
    if (victims.gone[i]) ++(part_of(c, i) == kHot ? victims.hot_gone : victims.cold_gone);
  EXPECT_GE(victims.count(), kPages / 2) << "too little was demoted to tell";
  EXPECT_LE(victims.count(), kPages * 9 / 10) << "too much was demoted to tell";
  EXPECT_GE(demoted() - demotions, victims.count()) << "pages left by another way";
  return victims;
}

/// The share of the hot pages that is demoted, with room for chance around what was measured.
struct Bound {
  double least, most;
};

Bound bound_of_hot(Clear clear, const Case& c, bool has_young) {
  const bool mglru = is_mglru();
  constexpr Bound kAny{0, 1}, kFew{0, 0.1}, kSome{0, 0.3}, kUpToHalf{0, 0.6}, kAsCold{0.3, 0.7};
  // New memory makes pressure at any time, before a clear and after it: no two runs are alike.
  if (c.kswapd) return kAny;
  // MGLRU takes hot blocks, too, when new memory is as young as they are.
  if (clear == Clear::kNothing) return !c.steady ? kFew : mglru && c.blocks ? kAny : kUpToHalf;
  // Now and then MGLRU ages between a clear of the module and the touch; of blocks all go then.
  if (c.touched)
    return !c.steady || clear != Clear::kModule ? kFew : mglru && c.blocks ? kAny : kSome;
  const bool hands_on = clear == Clear::kModule && has_young;
  if (!c.steady) return hands_on || (mglru && c.blocks && clear == Clear::kCold) ? kFew : kAsCold;
  // Pages leave the active list; with MGLRU they go to a generation in the middle.
  if (clear == Clear::kCold)
    return mglru ? (c.blocks ? Bound{0, 0.7} : kAsCold) : Bound{c.blocks ? 0.8 : 0.35, 1};
  // The active list stays as it is, while it is shorter than the other one: now and then it isn't,
  // and all of a block goes. To MGLRU all of the new memory is younger.
  if (!mglru) return c.blocks ? kAny : kUpToHalf;
  return hands_on ? kAny : Bound{0.7, 1};
}

void ClearVictims::compare(Case c) {
  const auto run = [&](const std::string& how, Clear clear, const Victims* other) {
    Victims victims = demote_after(clear, c);
    const double hot = share(victims.hot_gone, kPages / 4);
    fmt::print("MGLRU {}, {}, {}, {}: {:29} ", is_mglru() ? "on " : "off",
               c.kswapd ? "kswapd" : "cgroup", c.steady ? "steady " : "at once",
               c.blocks ? "blocks" : "pages ", how);
    fmt::print("{:5.1f} % of hot, {:5.1f} % of cold, {:5.1f} % of all; {:5.1f} % the same\n",
               100 * hot, 100 * share(victims.cold_gone, kPages / 4 * 3),
               100 * share(victims.count(), kPages),
               100 * alike(victims, other == nullptr ? victims : *other));
    std::fflush(stdout);
    const Bound bound = bound_of_hot(clear, c, has_young_);
    EXPECT_GE(hot, bound.least) << how;
    EXPECT_LE(hot, bound.most) << how;
    return victims;
  };
  const Victims untracked = run("not tracked", Clear::kNothing, nullptr);
  // Of kswapd's rows the shares are only printed: no two runs are alike.
  if (!c.kswapd && !(is_mglru() && c.steady && c.blocks)) {
    EXPECT_LT(share(untracked.hot_gone, kPages / 4), share(untracked.cold_gone, kPages / 4 * 3))
        << "demotion can't tell hot from cold";
  }
  run("not tracked, again", Clear::kNothing, &untracked);
  for (const auto& [name, clear] : {std::pair{"clear_refs", Clear::kRefs},
                                    {"MADV_COLD", Clear::kCold},
                                    {"module", Clear::kModule}}) {
    if (clear == Clear::kModule && c.kswapd) continue;  // takes long, and tells nothing more
    for (const bool touched : {true, false}) {
      c.touched = touched;
      run(fmt::format("{}, {}", name, touched ? "touched since" : "not touched since"), clear,
          &untracked);
    }
  }
}

TEST_F(ClearVictims, AtOnce) {
  for (const bool blocks : {false, true}) compare({blocks, false, false, false});
}

TEST_F(ClearVictims, Steady) {
  for (const bool blocks : {false, true}) compare({blocks, true, false, false});
}

TEST_F(ClearVictims, SteadyByKswapd) {
  compare({false, true, true, false});
}

}  // namespace
}  // namespace thermocline::labtest
