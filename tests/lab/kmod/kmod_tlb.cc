// SPDX-License-Identifier: Apache-2.0
// What a scan sees of, and costs, a process that never sleeps, with and without a flush of the
// TLBs: by whom the scan is made and on which CPU. Rows of words:
//
//   tlb SCANNER PLACE FLUSH PAGES recall R touch_ns T cpu_ns C scan_us S
//
// SCANNER none, process (a synchronous scan each window) or thread (the module's); PLACE same or
// other, as the target's CPU; R the mean share of PAGES, all touched in every window, that a scan
// told; T the time that a touch took all in all; C the same by the target's own CPU time; S the
// time of a scan, its flush included. C means little in parallel mode, where no two CPUs have the
// same clock. Arguments: the number of windows (20), and "other" for rows of that PLACE only. Exit
// status: 0, or 1 when it could not be measured.
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <string_view>
#include <vector>

#include "device.h"

namespace {

using namespace thermocline::labtest;

constexpr std::uint64_t kPage = 4096;
std::uint32_t windows = 20;
constexpr std::uint64_t kWindowNs = 1'000'000;

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::exit(1);
}

void pin(pid_t pid, int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  if (sched_setaffinity(pid, sizeof(one), &one) != 0) give_up("sched_setaffinity");
}

std::uint64_t nanoseconds(const timespec& t) {
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u +
         static_cast<std::uint64_t>(t.tv_nsec);
}

std::uint64_t now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return nanoseconds(t);
}

/// CPU time of a process, to the present.
std::uint64_t cpu_ns(pid_t pid) {
  clockid_t clock{};
  timespec t{};
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
    give_up("clock_getcpuclockid");
  return nanoseconds(t);
}

/// A process that touches all its pages over and over, in an order that no prefetcher knows.
class Target {
 public:
  Target(std::uint64_t pages, int cpu) : pages_(pages) {
    void* const shared =
        mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    void* const data =
        mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || data == MAP_FAILED) give_up("mmap");
    if (madvise(data, pages * kPage, MADV_NOHUGEPAGE) != 0) give_up("madvise");
    sweeps_ = new (shared) std::atomic<std::uint64_t>{0};
    data_ = static_cast<char*>(data);
    pid_ = fork();
    if (pid_ < 0) give_up("fork");
    if (pid_ != 0) return;
    pin(0, cpu);
    std::vector<char*> order;
    // Another line of each page: otherwise all would share a few sets of the caches.
    for (std::uint64_t i = 0; i < pages; ++i) order.push_back(data_ + i * kPage + i * 64 % kPage);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
    for (char* const at : order) *at = 1;
    for (;;) {
      for (char* const at : order) (void)*static_cast<volatile char*>(at);
      sweeps_->fetch_add(1, std::memory_order_relaxed);
    }
  }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  ~Target() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    munmap(data_, pages_ * kPage);
    munmap(sweeps_, kPage);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] std::uint64_t sweeps() const { return sweeps_->load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t pages() const { return pages_; }
  [[nodiscard]] thermocline_range range() const {
    return {reinterpret_cast<std::uintptr_t>(data_) / kPage, pages_};
  }

 private:
  std::uint64_t pages_;
  std::atomic<std::uint64_t>* sweeps_ = nullptr;
  char* data_ = nullptr;
  pid_t pid_ = 0;
};

enum class Scanner { kNone, kProcess, kThread };

/// What is counted while the scans run.
class Meter {
 public:
  explicit Meter(const Target& target) : target_(target) { start(); }
  void start() {
    began_ = now();
    cpu_ = cpu_ns(target_.pid());
    sweeps_ = target_.sweeps();
  }
  void stop() {
    began_ = now() - began_;
    cpu_ = cpu_ns(target_.pid()) - cpu_;
    sweeps_ = target_.sweeps() - sweeps_;
  }
  [[nodiscard]] double touch_ns() const { return per_touch(began_); }
  [[nodiscard]] double cpu_ns_per_touch() const { return per_touch(cpu_); }
  [[nodiscard]] std::uint64_t sweeps() const { return sweeps_; }

 private:
  [[nodiscard]] double per_touch(std::uint64_t ns) const {
    return static_cast<double>(ns) / static_cast<double>(sweeps_ * target_.pages());
  }
  const Target& target_;
  std::uint64_t began_ = 0, cpu_ = 0, sweeps_ = 0;
};

struct Row {
  std::uint64_t found = 0;    ///< accessed pages that were told, all windows together
  std::uint64_t scan_ns = 0;  ///< of all scans
};

void window() {
  const timespec pause{0, static_cast<long>(kWindowNs)};
  nanosleep(&pause, nullptr);
}

Row scan_by_process(const Target& target, std::uint32_t flags, Meter& meter) {
  const Device device;
  if (!device.opened() || device.attach(target.pid()) != 0) give_up(THERMOCLINE_DEVICE);
  const std::vector<Range> range{{target.range().first_page, target.range().count}};
  (void)device.scan(flags, range, 64 << 10, 0, false);
  Row row;
  meter.start();
  for (std::uint32_t i = 0; i < windows; ++i) {
    window();
    const Pass pass = device.scan(flags, range, 64 << 10, 0, false);
    if (pass.error != 0 || !pass.malformed.empty()) give_up("scan");
    row.found += pass.accessed;
    row.scan_ns += pass.elapsed_ns;
  }
  meter.stop();
  return row;
}

Row scan_by_thread(const Target& target, std::uint32_t flags, int cpu, Meter& meter) {
  const Device device;
  if (!device.opened() || device.attach(target.pid()) != 0) give_up(THERMOCLINE_DEVICE);
  const thermocline_range range = target.range();
  thermocline_start start = valid_start();
  start.schedule.flags = flags;
  start.schedule.windows = windows;
  start.schedule.window_ns = kWindowNs;
  start.schedule.range_count = 1;
  start.schedule.ranges = reinterpret_cast<std::uintptr_t>(&range);
  start.ring_bytes = 4 << 20;
  if (device.start(start) != 0) give_up("START");
  Ring ring(device, start.map_bytes);
  if (!ring.mapped()) give_up("the ring");
  pin(device.stats().tid, cpu);
  meter.start();
  if (device.round(start.schedule) != 0 || device.poll(120'000) <= 0) give_up("a round");
  meter.stop();
  Row row;
  std::vector<RingPass> passes;
  if (!ring.take(passes, false) || passes.size() != windows + 1) give_up("the ring");
  for (const RingPass& pass : passes) {
    if (pass.mark.pass == 0) continue;
    row.found += pass.mark.accessed;
    row.scan_ns += pass.mark.elapsed_ns;
  }
  return row;
}

void measure(Scanner scanner, bool same, bool flush, std::uint64_t pages, int target_cpu,
             int other) {
  const int scanner_cpu = same ? target_cpu : other;
  pin(0, scanner_cpu);
  const Target target(pages, target_cpu);
  while (target.sweeps() < 3) usleep(1000);
  const std::uint32_t flags = THERMOCLINE_SCAN_CLEAR | (flush ? THERMOCLINE_SCAN_FLUSH : 0u);
  Meter meter(target);
  Row row;
  switch (scanner) {
    case Scanner::kNone:
      for (std::uint32_t i = 0; i < windows; ++i) window();
      meter.stop();
      break;
    case Scanner::kProcess:
      row = scan_by_process(target, flags, meter);
      break;
    case Scanner::kThread:
      row = scan_by_thread(target, flags, scanner_cpu, meter);
  }
  // Twice all of it in a window at least, so that all of it was touched between any two scans.
  if (meter.sweeps() < 2 * windows) {
    std::fprintf(stderr, "kmod_tlb: the target was too slow: %lu sweeps in %u windows\n",
                 meter.sweeps(), windows);
    std::exit(1);
  }
  static const char* const names[] = {"none", "process", "thread"};
  std::printf("tlb %-7s %-5s %-5s %6lu recall %.4f touch_ns %.3f cpu_ns %.3f scan_us %.1f\n",
              names[static_cast<int>(scanner)], same ? "same" : "other", flush ? "flush" : "-",
              pages, static_cast<double>(row.found) / static_cast<double>(pages * windows),
              meter.touch_ns(), meter.cpu_ns_per_touch(),
              static_cast<double>(row.scan_ns) / windows / 1000);
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc > 1) windows = static_cast<std::uint32_t>(std::max(std::atoi(argv[1]), 1));
  const bool only_other = argc > 2 && std::string_view(argv[2]) == "other";
  const int cpus = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  const int target_cpu = cpus - 1;
  // What fits into the TLB of the timing model, and what doesn't.
  for (const std::uint64_t pages : {std::uint64_t{1024}, std::uint64_t{16384}})
    for (const bool same : {true, false}) {
      if ((!same && cpus == 1) || (same && only_other)) continue;
      measure(Scanner::kNone, same, false, pages, target_cpu, 0);
      for (const Scanner scanner : {Scanner::kProcess, Scanner::kThread})
        for (const bool flush : {false, true}) measure(scanner, same, flush, pages, target_cpu, 0);
    }
  return 0;
}
