// SPDX-License-Identifier: Apache-2.0
// Tries to bring thermocline.ko down, and counts what is left behind.
//
//   kmod_stress MODULE.ko [ROUNDS]      default: 50 rounds; 1000 when TC_SOAK is 1
//
// A round is one process that maps, unmaps, protects, moves, splits, collapses and swaps memory in
// two threads, forks children that do the same, and then exits, is killed, or execs, while three
// threads attach to it and its children and scan, or let the module's own thread scan and read its
// ring, and another keeps trying to unload the module. At
// the end of each round the module is unloaded and loaded again. Afterwards the kernel must have
// raised no warning, and as many mm_structs, task_structs and page tables must exist as before; and
// every kind of race that is counted must have happened. Exit status: 0 all held, 1 something did
// not, 2 usage.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

#include "device.h"

namespace thermocline::labtest {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kHuge = 2u << 20;
constexpr int kMoveOwnPages = 1 << 1;  // MPOL_MF_MOVE
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/// What the processes of a round share.
struct Shared {
  std::atomic<pid_t> target, child;
  std::atomic<std::uint64_t> operations, forks, collapses, file_collapses, failed_collapses, moved;
};

struct Totals {
  std::atomic<std::uint64_t> opens{0}, attaches{0}, gone_at_attach{0}, scans{0}, gone_at_scan{0},
      records{0}, starts{0}, passes{0}, hang_ups{0}, busy_unloads{0}, unloads{0}, failures{0};
};
Totals totals;

template <class... Args>
void complain(const char* format, Args... args) {
  std::fprintf(stderr, format, args...);
  std::fputc('\n', stderr);
  ++totals.failures;
}

// ------------------------------------------------------------------ the processes that are scanned

char* map_huge(std::uint64_t bytes, int flags, int fd) {
  void* p = mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (p == MAP_FAILED) return nullptr;
  const auto start = (reinterpret_cast<std::uintptr_t>(p) + kHuge - 1) / kHuge * kHuge;
  madvise(reinterpret_cast<void*>(start), bytes, MADV_HUGEPAGE);
  return reinterpret_cast<char*>(start);
}

void touch(char* p, std::uint64_t bytes, std::uint64_t step) {
  for (std::uint64_t i = 0; i < bytes; i += step) *static_cast<volatile char*>(p + i) = 1;
}

/// Changes one address space in every way that frees, moves, splits or joins page tables.
void churn(Shared& shared, unsigned seed, int operations) {
  constexpr std::uint64_t kBytes = 2 * kHuge;
  std::mt19937 random(seed);
  const auto below = [&](std::uint64_t n) { return random() % n; };
  for (int n = 0; n < operations; ++n) {
    ++shared.operations;
    const bool file = below(3) == 0;
    int fd = -1;
    if (file) {
      fd = memfd_create("stress", MFD_CLOEXEC);
      if (fd < 0 || ftruncate(fd, kBytes + kHuge) != 0) _exit(5);
    }
    char* p = map_huge(kBytes, (file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS), fd);
    if (fd >= 0) close(fd);
    if (p == nullptr) continue;
    touch(p, kBytes, below(2) ? kPage : kHuge);
    char* const page = p + below(kBytes / kPage) * kPage;
    char* const area = p + below(kBytes / kHuge) * kHuge;
    switch (below(10)) {
      case 0:
        madvise(page, kPage, MADV_DONTNEED);
        break;
      case 1:
        munmap(area + 16 * kPage, 64 * kPage);
        break;
      case 2:
        mprotect(page, kPage, PROT_READ);
        mprotect(area, kHuge, PROT_NONE);
        break;
      case 3: {
        void* to = mmap(nullptr, 2 * kHuge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (to != MAP_FAILED) (void)!mremap(area, kHuge, kHuge, MREMAP_MAYMOVE | MREMAP_FIXED, to);
        break;
      }
      case 4:
      case 5:
        madvise(area, kHuge, MADV_NOHUGEPAGE);
        madvise(area, kHuge, MADV_DONTNEED);
        touch(area, kHuge, kPage);
        madvise(area, kHuge, MADV_HUGEPAGE);
        if (madvise(area, kHuge, MADV_COLLAPSE) == 0)
          ++(file ? shared.file_collapses : shared.collapses);
        else
          ++shared.failed_collapses;
        break;
      case 6: {
        std::array<void*, 64> pages{};
        std::array<int, 64> nodes{}, status{};
        for (std::size_t i = 0; i < pages.size(); ++i) pages[i] = area + i * kPage;
        nodes.fill(static_cast<int>(below(2)));
        syscall(SYS_move_pages, 0, pages.size(), pages.data(), nodes.data(), status.data(),
                kMoveOwnPages);
        for (std::size_t i = 0; i < pages.size(); ++i) shared.moved += status[i] == 1;
        break;
      }
      case 7: {
        const pid_t child = fork();
        if (child == 0) {
          touch(p, kBytes, kPage);
          munmap(area, kHuge);
          if (below(2)) execl("/proc/self/exe", "kmod_stress", "--nothing", nullptr);
          _exit(0);
        }
        ++shared.forks;
        shared.child = child;
        if (child > 0) waitpid(child, nullptr, 0);
        break;
      }
      case 8:
        madvise(p, kBytes, MADV_PAGEOUT);  // to swap, if the guest has some
        touch(area, kHuge, kPage);
        break;
      default:
        madvise(p, kBytes, MADV_FREE);
        break;
    }
    munmap(p, kBytes);
  }
}

[[noreturn]] void run_target(Shared& shared, unsigned round) {
  std::thread other(churn, std::ref(shared), round * 2 + 1, 4);
  churn(shared, round * 2, 4);
  other.join();
  if (round % 3 == 1) execl("/proc/self/exe", "kmod_stress", "--nothing", nullptr);
  if (round % 3 == 2) {  // a child on the same address space, until it execs
    const pid_t child = vfork();
    if (child == 0) {
      execl("/proc/self/exe", "kmod_stress", "--nothing", nullptr);
      _exit(1);
    }
    waitpid(child, nullptr, 0);
  }
  _exit(0);
}

// ------------------------------------------------------------------ the scanners

std::vector<Range> random_ranges(std::mt19937& random) {
  std::vector<Range> ranges;
  std::uint64_t at = random() % 1024;
  // Around where mmap places things, in steps that end in the middle of tables.
  at += (0x7f0000000000ull + (random() % 256) * (1ull << 32)) / kPage;
  for (unsigned i = 0; i < 1 + random() % 64; ++i) {
    const std::uint64_t count = 1 + random() % 5000000;
    if (at + count >= 0x7ffffffff000ull / kPage) break;
    ranges.push_back({at, count});
    at += count + random() % 3000;
  }
  return ranges;
}

void scan_target(const Device& device, std::mt19937& random, bool own_sequence) {
  constexpr std::array<std::uint32_t, 5> kFlags{
      0, THERMOCLINE_SCAN_CLEAR, THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH,
      THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_PRUNE, THERMOCLINE_SCAN_FLAGS_ALL};
  constexpr std::array<std::size_t, 3> kBuffers{THERMOCLINE_SCAN_MIN_BUFFER, 64 << 10, 1 << 20};
  const auto ranges = random() % 3 == 0 ? random_ranges(random) : std::vector<Range>{};
  const Pass pass =
      device.scan(kFlags[random() % kFlags.size()], ranges, kBuffers[random() % 3], 0, false);
  ++totals.scans;
  totals.records += pass.records;
  if (pass.error == ESRCH)
    ++totals.gone_at_scan;
  else if (pass.error != 0 && pass.error != ENOTCONN)
    complain("a scan failed: %s", std::strerror(pass.error));
  if (own_sequence && !pass.malformed.empty())
    complain("a scan is wrong: %s", pass.malformed.c_str());
}

/// Lets the module's thread scan for a moment; ends it in one of the ways there are.
void follow_target(const Device& device, std::mt19937& random) {
  thermocline_start start = valid_start();
  // The last two are what the daemon asks for.
  constexpr std::array<std::uint32_t, 4> kFlags{
      THERMOCLINE_SCAN_CLEAR, THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH,
      THERMOCLINE_SCAN_FLAGS_ALL, THERMOCLINE_SCAN_FLAGS_ALL | THERMOCLINE_SCHEDULE_PRUNE_FIRST};
  start.schedule.flags = kFlags[random() % kFlags.size()];
  if (random() % 2) start.schedule.period_ns = 1'000'000;
  start.schedule.windows = static_cast<std::uint32_t>(random() % 4);
  start.schedule.window_ns = start.schedule.windows != 0 ? 200'000 : 0;
  start.ring_bytes = THERMOCLINE_RING_MIN_BYTES << random() % 5;
  if (const int error = device.start(start); error != 0) {
    if (error != ESRCH && error != ENOTCONN) complain("can't start: %s", std::strerror(error));
    return;
  }
  ++totals.starts;
  Ring ring(device, start.map_bytes);
  if (!ring.mapped()) {
    complain("can't map the ring: %s", std::strerror(ring.error()));
    return;
  }
  std::vector<RingPass> passes;
  for (unsigned i = 0; i < 1 + random() % 8; ++i) {
    const int error = device.round(start.schedule);
    if (error != 0 && error != ESRCH) complain("can't ask for a round: %s", std::strerror(error));
    const int events = device.poll(static_cast<int>(random() % 20));
    if (!ring.take(passes, false)) complain("a ring is wrong: %s", ring.malformed().c_str());
    if ((events & POLLHUP) != 0) {
      ++totals.hang_ups;
      break;
    }
  }
  totals.passes += passes.size();
  // Otherwise the file is closed, and perhaps the mapping after it, while the thread runs.
  if (random() % 2 && device.stop() != 0) complain("the thread can't be stopped");
}

/// Attaches to what there is and scans it a few times, until told to stop.
void scanner(Shared& shared, const std::atomic<bool>& stop, unsigned seed) {
  std::mt19937 random(seed);
  while (!stop) {
    const pid_t pid = random() % 3 == 0 ? shared.child : shared.target;
    if (pid <= 0) {
      usleep(200);
      continue;
    }
    const Device device;
    if (!device.opened()) {
      if (device.error() != ENOENT && device.error() != ENODEV && device.error() != ENXIO)
        complain("the device can't be opened: %s", std::strerror(device.error()));
      usleep(200);
      continue;
    }
    ++totals.opens;
    const std::uint64_t ticks = start_ticks(pid);
    const int error = ticks == 0 ? ESRCH : device.attach(pid, 1, ticks);
    if (error != 0 && error != ESRCH) complain("can't attach: %s", std::strerror(error));
    ++(error == 0 ? totals.attaches : totals.gone_at_attach);
    if (error == 0 && random() % 3 == 0) {
      follow_target(device, random);
      continue;
    }
    if (error == 0 && random() % 4 == 0) {  // two threads on one file
      std::mt19937 other_random(random());
      std::thread other([&] { scan_target(device, other_random, false); });
      scan_target(device, random, false);
      other.join();
    } else {
      for (unsigned i = 0; i < 1 + random() % 4 && !stop; ++i) scan_target(device, random, true);
    }
  }
}

// ------------------------------------------------------------------ the module

KernelModule module_under_test;

void unloader(const std::atomic<bool>& stop) {
  while (!stop) {
    const int error = KernelModule::unload();
    if (error == 0) {
      ++totals.unloads;
      if (const int loaded = module_under_test.load(); loaded != 0)
        complain("the module can't be loaded again: %s", std::strerror(loaded));
    } else if (error == EWOULDBLOCK || error == EBUSY) {
      ++totals.busy_unloads;
    } else {
      complain("unloading failed: %s", std::strerror(error));
    }
    usleep(2000);
  }
}

// ------------------------------------------------------------------ what is left behind

struct Counts {
  std::uint64_t mm_structs = 0, task_structs = 0, vm_areas = 0, page_tables_kib = 0, anon_kib = 0;
  bool operator==(const Counts&) const = default;
};

/// Objects in use of a slab cache. Shrinking it first empties the per-CPU slabs, whose free objects
/// would be counted as in use.
std::uint64_t slab_objects(const std::string& cache) {
  std::ofstream("/sys/kernel/slab/" + cache + "/shrink") << "1" << std::flush;
  std::ifstream file("/proc/slabinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t active = 0;
    if (words >> name >> active && name == cache) return active;
  }
  complain("no %s in /proc/slabinfo", cache.c_str());
  return 0;
}

/// The number after `name:` in a file of /proc.
std::uint64_t proc_kib(const char* path, const std::string& name) {
  std::ifstream file(path);
  std::string word;
  std::uint64_t value = 0;
  while (file >> word)
    if (word == name + ":" && file >> value) return value;
  complain("no %s in %s", name.c_str(), path);
  return 0;
}

/// Memory of a kind on the whole machine without what this program has itself.
std::uint64_t others_kib(const std::string& machine_name, const std::string& own_name) {
  return proc_kib("/proc/meminfo", machine_name) - proc_kib("/proc/self/status", own_name);
}

/// Runs on every CPU in turn: an idle CPU keeps the address space that it ran last.
void visit_cpus() {
  cpu_set_t all, one;
  sched_getaffinity(0, sizeof(all), &all);
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all)) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof(one), &one);
  }
  sched_setaffinity(0, sizeof(all), &all);
}

Counts count() {
  visit_cpus();
  return {slab_objects("mm_struct"), slab_objects("task_struct"), slab_objects("vm_area_struct"),
          others_kib("PageTables", "VmPTE"), others_kib("AnonPages", "RssAnon")};
}

/// What there may be more of than before. A leak of one address space in ten rounds is more than
/// this.
constexpr Counts kTolerance{1, 5, 8, 32, 256};

Counts operator+(const Counts& a, const Counts& b) {
  return {a.mm_structs + b.mm_structs, a.task_structs + b.task_structs, a.vm_areas + b.vm_areas,
          a.page_tables_kib + b.page_tables_kib, a.anon_kib + b.anon_kib};
}
Counts least(const Counts& a, const Counts& b) {
  return {std::min(a.mm_structs, b.mm_structs), std::min(a.task_structs, b.task_structs),
          std::min(a.vm_areas, b.vm_areas), std::min(a.page_tables_kib, b.page_tables_kib),
          std::min(a.anon_kib, b.anon_kib)};
}

/// The least seen in five seconds, or as soon as it's within `enough`: RCU callbacks and per-CPU
/// counters take their time, and what is leaked stays.
Counts settled(const Counts& enough) {
  Counts seen = count();
  for (int i = 0; i < 20 && least(seen, enough) != seen; ++i) {
    usleep(250000);
    seen = least(seen, count());
  }
  return seen;
}

void compare(const char* what, std::uint64_t before, std::uint64_t after, std::uint64_t tolerance) {
  std::printf("  %-22s %8lu -> %8lu   (may differ by %lu)\n", what, before, after, tolerance);
  if (after > before + tolerance) complain("%s grew from %lu to %lu", what, before, after);
}

// ------------------------------------------------------------------ rounds

void round(Shared& shared, unsigned number) {
  if (const int error = module_under_test.load(); error != 0) {
    complain("round %u: the module can't be loaded: %s", number, std::strerror(error));
    return;
  }
  shared.target = shared.child = 0;
  const pid_t target = fork();
  if (target == 0) run_target(shared, number);
  shared.target = target;

  std::atomic<bool> stop{false};
  std::thread unload(unloader, std::cref(stop));
  std::array<std::thread, 3> scanners;
  for (unsigned i = 0; i < scanners.size(); ++i)
    scanners[i] = std::thread(scanner, std::ref(shared), std::cref(stop), number * 16 + i);
  if (number % 4 == 3) {
    usleep(20000 + number % 7 * 5000);
    kill(target, SIGKILL);
  }
  int status = 0;
  waitpid(target, &status, 0);
  const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  if (status != 0 && !(killed && number % 4 == 3))
    complain("round %u: the scanned process ended with status %#x", number, status);
  stop = true;
  for (auto& thread : scanners) thread.join();
  unload.join();
  if (const int error = KernelModule::unload(); error != 0)
    complain("round %u: the module can't be unloaded: %s", number, std::strerror(error));
  // A child of a killed target may still be about.
  while (waitpid(-1, nullptr, WNOHANG) > 0) {
  }
}

int run(unsigned rounds) {
  auto* shared = static_cast<Shared*>(
      mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  for (unsigned i = 0; i < 3; ++i) round(*shared, i);  // so that caches and pools have their size
  const Counts before = settled({});
  for (unsigned i = 0; i < rounds; ++i) {
    round(*shared, 3 + i);
    if ((i + 1) % 100 == 0) std::printf("round %u of %u\n", i + 1, rounds);
  }
  const Counts after = settled(before + kTolerance);

  std::printf("%u rounds, %lu operations, %lu collapses refused\n", rounds,
              shared->operations.load(), shared->failed_collapses.load());
  const std::pair<const char*, std::uint64_t> met[] = {
      {"opens", totals.opens},
      {"attachments", totals.attaches},
      {"processes gone before they were attached to", totals.gone_at_attach},
      {"scans", totals.scans},
      {"processes gone before they were scanned", totals.gone_at_scan},
      {"records", totals.records},
      {"threads started", totals.starts},
      {"passes read from their rings", totals.passes},
      {"processes gone before the thread that scanned them", totals.hang_ups},
      {"forks", shared->forks},
      {"pages moved to the other node", shared->moved},
      {"collapses", shared->collapses},
      {"collapses of file mappings", shared->file_collapses},
      {"unloads between opens", totals.unloads},
      {"unloads refused as busy", totals.busy_unloads},
  };
  for (const auto& [what, times] : met) {
    std::printf("  %9lu  %s\n", times, what);
    if (times == 0) complain("no %s", what);
  }
  compare("mm_struct", before.mm_structs, after.mm_structs, kTolerance.mm_structs);
  compare("task_struct", before.task_structs, after.task_structs, kTolerance.task_structs);
  compare("vm_area_struct", before.vm_areas, after.vm_areas, kTolerance.vm_areas);
  compare("page tables, KiB", before.page_tables_kib, after.page_tables_kib,
          kTolerance.page_tables_kib);
  compare("anonymous memory, KiB", before.anon_kib, after.anon_kib, kTolerance.anon_kib);
  if (totals.scans < rounds || totals.records < rounds)
    complain("the scanners did next to nothing");
  if (totals.starts < rounds / 4 || totals.passes < rounds)
    complain("the module's threads did next to nothing");

  if (const std::uint64_t trouble = kernel_trouble(); trouble != 0)
    complain("the kernel is tainted: %#lx", trouble);
  std::printf(totals.failures == 0 ? "stress: all held\n" : "stress: FAILED\n");
  return totals.failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace thermocline::labtest

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--nothing") == 0) return 0;
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: kmod_stress MODULE.ko [ROUNDS]\n");
    return 2;
  }
  if (!thermocline::labtest::module_under_test.read_file(argv[1])) {
    std::fprintf(stderr, "kmod_stress: can't read the module %s\n", argv[1]);
    return 2;
  }
  const char* soak = std::getenv("TC_SOAK");
  const bool is_soak = soak != nullptr && std::strcmp(soak, "1") == 0;
  const unsigned long rounds = argc == 3 ? std::strtoul(argv[2], nullptr, 10) : is_soak ? 1000 : 50;
  return thermocline::labtest::run(static_cast<unsigned>(rounds));
}
