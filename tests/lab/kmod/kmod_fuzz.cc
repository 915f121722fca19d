// SPDX-License-Identifier: Apache-2.0
// An ioctl fuzzer for thermocline.ko: threads that make valid and broken requests in random order,
// on files that they share, close under each other and hand to children, while the scanned
// processes map, fork, exec and die and another thread unloads the module whenever nothing is open.
//
//   kmod_fuzz MODULE.ko [CALLS [SEED]]      default: 20 000 calls; 1 000 000 when TC_SOAK is 1
//
// Every broken request names the branch it is for, and its errno is checked. At the end each branch
// and race is printed with how often it came; none may be missing, and half of the calls must have
// reached the walk. Where the kernel lets a task choose an allocation that fails (fail-nth, in the
// debug kernel), every allocation of every request does in turn.
// Exit status: 0 all held, 1 something did not, 2 usage.
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <mutex>
#include <new>
#include <random>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#include "device.h"

namespace thermocline::labtest {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kEndPage = 0x7ffffffff000ull / kPage;  // TASK_SIZE_MAX with four levels
constexpr unsigned kThreads = 4;
constexpr unsigned kTargets = 3;
constexpr std::uint64_t kTargetBytes = 4 << 20;
/// Where targets have that memory, most of the time.
constexpr std::uint64_t kTargetBase = 1ull << 44;
constexpr std::size_t kFiles = 6;
constexpr std::uint64_t kUndisturbed = 30;  ///< calls between two attempts to unload the module
constexpr int kFirstShared = 500;           ///< number of a shared file, at least

std::atomic<std::uint64_t> failures{0};

template <class... Args>
void complain(const char* format, Args... args) {
  std::fprintf(stderr, format, args...);
  std::fputc('\n', stderr);
  ++failures;
}

// ------------------------------------------------------------------ what is counted

/// Branches of the module and races, each to be met.
constexpr const char* kMet[] = {
    "open",
    "open: ENOMEM",
    "open: EPERM, no privilege",
    "open: refused to another user",
    "attach",
    "attach: EBUSY, attached already",
    "attach: EFAULT",
    "attach: EINVAL, asid",
    "attach: EINVAL, flags",
    "attach: EINVAL, process id",
    "attach: EINVAL, reserved",
    "attach: ENOMEM",
    "attach: ESRCH, a kernel thread",
    "attach: ESRCH, another start time",
    "attach: ESRCH, no such process",
    "attach: ESRCH, the id of a thread",
    "attach: ESRCH, the process ended meanwhile",
    "scan",
    "scan: EBUSY, the thread runs",
    "scan: EFAULT, the buffer",
    "scan: EFAULT, the answer",
    "scan: EFAULT, the buffer was unmapped meanwhile",
    "scan: EFAULT, the ranges",
    "scan: EFAULT, the request",
    "scan: EINVAL, a flush without clearing",
    "scan: EINVAL, a range beyond the end",
    "scan: EINVAL, a range that wraps",
    "scan: EINVAL, a small buffer",
    "scan: EINVAL, an empty range",
    "scan: EINVAL, an unaligned buffer",
    "scan: EINVAL, flags",
    "scan: EINVAL, ranges that overlap",
    "scan: EINVAL, reserved",
    "scan: EINVAL, reserved0",
    "scan: EINVAL, resume_page",
    "scan: EINVAL, too many ranges",
    "scan: ENOMEM, the ranges",
    "scan: ENOTCONN",
    "scan: ESRCH, the process is gone",
    "scan: the buffer was full",
    "start",
    "start: EBUSY, the thread runs",
    "start: EFAULT",
    "start: EFAULT, the answer",
    "start: EINVAL, map_bytes",
    "start: EINVAL, reserved",
    "start: EINVAL, the size of the ring",
    "start: ENOMEM",
    "start: ENOTCONN",
    "start: ESRCH, the process is gone",
    "schedule: EFAULT, the ranges",
    "schedule: EINVAL, a burst of no budget",
    "schedule: EINVAL, a first pass pruned alone",
    "schedule: EINVAL, a flush without clearing",
    "schedule: EINVAL, a long burst",
    "schedule: EINVAL, a long period",
    "schedule: EINVAL, a long window",
    "schedule: EINVAL, a short period",
    "schedule: EINVAL, a short window",
    "schedule: EINVAL, a small budget",
    "schedule: EINVAL, a window of no windows",
    "schedule: EINVAL, flags",
    "schedule: EINVAL, nice",
    "schedule: EINVAL, ranges that overlap",
    "schedule: EINVAL, reserved",
    "schedule: EINVAL, reserved0",
    "schedule: EINVAL, the budget",
    "schedule: EINVAL, too many ranges",
    "schedule: EINVAL, windows",
    "configure",
    "configure: EFAULT",
    "configure: ENOMEM",
    "configure: ENOTCONN",
    "configure: ESRCH, the process is gone",
    "stop",
    "stop: ENOTCONN",
    "stats",
    "stats: EFAULT",
    "mmap",
    "mmap: EINVAL, an offset",
    "mmap: EINVAL, another size",
    "mmap: EINVAL, private",
    "mmap: ENOMEM",
    "mmap: ENOTCONN, no ring",
    "mmap: no page where one was thrown away",
    "info",
    "info: EFAULT",
    "ENOTTY, no such request",
    "race: a caller is killed in its scan",
    "race: a child uses its parent's file",
    "race: a file closed by another thread",
    "race: a scanned process is killed",
    "race: opened while the module is unloaded",
    "race: the buffer is unmapped after it was written",
    "race: two attachments scan one process",
    "race: two descriptors of one file",
    "unload",
    "unload: refused, in use",
};

class Counters {
 public:
  void met(const char* name) {
    for (std::size_t i = 0; i < std::size(kMet); ++i)
      if (std::strcmp(kMet[i], name) == 0) {
        ++counts_[i];
        return;
      }
    complain("\"%s\" is not in the list of what is to be met", name);
  }
  /// Prints all; the number of those that never came.
  unsigned print(bool can_starve) {
    unsigned missing = 0;
    for (std::size_t i = 0; i < std::size(kMet); ++i) {
      if (!can_starve && std::strstr(kMet[i], "ENOMEM") != nullptr) {
        std::printf("          -  %s: only where allocations can be made to fail\n", kMet[i]);
        continue;
      }
      std::printf("  %9lu  %s\n", counts_[i].load(), kMet[i]);
      missing += counts_[i] == 0;
    }
    return missing;
  }

 private:
  std::array<std::atomic<std::uint64_t>, std::size(kMet)> counts_{};
};
Counters counters;
std::atomic<std::uint64_t> calls{0}, walks{0};

/// Whether a scan that succeeded came to anything but holes.
bool saw_something(const thermocline_scan& call) {
  return call.entries > 0 || call.idle_pages > 0 || call.skipped_pages > 0;
}

std::uint64_t pointer(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

// ------------------------------------------------------------------ allocations that fail

/// Documentation/fault-injection/fault-injection.rst. False when the kernel has none of it.
bool allow_starving() {
  if (access("/proc/self/fail-nth", W_OK) != 0) return false;
  const auto put = [](const char* file, const char* text) {
    const UniqueFd fd(open(file, O_WRONLY | O_CLOEXEC));
    if (!fd || write(fd.get(), text, std::strlen(text)) < 0)
      complain("can't write %s: %s", file, std::strerror(errno));
  };
  put("/sys/kernel/debug/failslab/ignore-gfp-wait", "N");
  put("/sys/kernel/debug/failslab/verbose", "0");
  put("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N");
  put("/sys/kernel/debug/fail_page_alloc/min-order", "0");
  put("/sys/kernel/debug/fail_page_alloc/verbose", "0");
  return true;
}

// ------------------------------------------------------------------ the processes that are scanned

/// Changes its memory, forks, execs and ends, again and again in new processes.
[[noreturn]] void be_target(unsigned seed) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::mt19937 random(seed);
  for (unsigned n = 0; n < 40; ++n) {
    char* const p =
        static_cast<char*>(mmap(reinterpret_cast<void*>(kTargetBase), kTargetBytes,
                                PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (p == MAP_FAILED) _exit(1);
    if (random() % 2) madvise(p, kTargetBytes, MADV_HUGEPAGE);
    for (std::uint64_t i = 0; i < kTargetBytes; i += kPage * (1 + random() % 4)) p[i] = 1;
    switch (random() % 6) {
      case 0:
        madvise(p + random() % (kTargetBytes / kPage) * kPage, kPage, MADV_DONTNEED);
        break;
      case 1:
        mprotect(p, kTargetBytes / 2, PROT_NONE);
        break;
      case 2: {
        const pid_t child = fork();
        if (child == 0) {
          p[0] = 2;
          _exit(0);
        }
        if (child > 0) waitpid(child, nullptr, 0);
        break;
      }
      case 3:
        madvise(p, kTargetBytes, MADV_PAGEOUT);
        break;
      default:
        break;
    }
    usleep(static_cast<useconds_t>(random() % 3000));
    munmap(p, kTargetBytes);
  }
  if (random() % 2)
    execl("/proc/self/exe", "kmod_fuzz", "--target", std::to_string(seed + 1000).c_str(), nullptr);
  _exit(0);
}

/// Some processes at a time; each that ends is replaced.
class Targets {
 public:
  explicit Targets(unsigned seed) : seed_(seed) {
    for (auto& pid : pids_) pid = spawn();
  }
  ~Targets() {
    for (auto& pid : pids_) end(pid);
  }
  Targets(const Targets&) = delete;
  Targets& operator=(const Targets&) = delete;
  [[nodiscard]] pid_t pid(unsigned i) const { return pids_[i % kTargets]; }
  /// Called by one thread.
  void renew(std::mt19937& random) {
    for (auto& pid : pids_) {
      if (random() % 16 == 0) {
        kill(pid, SIGKILL);
        counters.met("race: a scanned process is killed");
      }
      int status = 0;
      if (waitpid(pid, &status, WNOHANG) == pid) pid = spawn();
    }
  }

 private:
  pid_t spawn() {
    const pid_t pid = fork();
    if (pid == 0) {
      execl("/proc/self/exe", "kmod_fuzz", "--target", std::to_string(++seed_).c_str(), nullptr);
      _exit(1);
    }
    ++seed_;
    return pid;
  }
  static void end(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  unsigned seed_;
  std::array<std::atomic<pid_t>, kTargets> pids_{};
};

// ------------------------------------------------------------------ the files

/// Files that the threads share. One may be closed while another thread is inside a call on it, or
/// about to begin one: their numbers are from a range of their own, so that whatever has such a
/// number is a file of the device.
class Files {
 public:
  /// -1 when there is none at that place.
  [[nodiscard]] int at(unsigned i) const { return fds_[i % kFiles]; }
  void replace(unsigned i, int fd) {
    const int before = fds_[i % kFiles].exchange(fd);
    if (before >= 0) close(before);
  }
  void close_all() {
    for (unsigned i = 0; i < kFiles; ++i) replace(i, -1);
  }

 private:
  std::array<std::atomic<int>, kFiles> fds_{-1, -1, -1, -1, -1, -1};
};

/// Everything that opens files holds it shared; who unloads the module holds it alone, and is let
/// in first: threads that come and go would keep him out for ever.
std::shared_mutex module_lock;
std::atomic<bool> module_wanted{false};

// ------------------------------------------------------------------ requests

class Fuzzer {
 public:
  Fuzzer(Files& files, const Targets& targets, unsigned seed, bool can_starve)
      : files_(files), targets_(targets), random_(seed) {
    none_ = mmap(nullptr, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page_ = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    file_.reset(memfd_create("fuzz", MFD_CLOEXEC));
    if (can_starve) starve_.reset(open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC));
  }

  void step() {
    while (module_wanted) std::this_thread::yield();
    const std::shared_lock guard(module_lock);
    const auto choice = below(150);
    if (choice < 8) {
      open_file();
    } else if (choice < 9) {
      attach_to(file());
    } else if (choice < 12) {
      broken_attach();
    } else if (choice < 18) {
      broken_scan();
    } else if (choice < 20) {
      others();
    } else if (choice < 21) {
      killed_in_a_scan();
    } else if (choice < 27) {
      if (starve_ && below(4) == 0)
        without_memory();
      else
        two_attachments();
    } else if (choice < 35) {
      ring();
    } else {
      scan();
    }
  }

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  /// One that is open, or -1.
  int file() {
    int fd = -1;
    for (unsigned i = 0, first = static_cast<unsigned>(below(kFiles)); i < kFiles && fd < 0; ++i)
      fd = files_.at(first + i);
    return fd;
  }
  /// None while the module is being unloaded and loaded.
  static UniqueFd open_device() {
    UniqueFd fd(open(THERMOCLINE_DEVICE, O_RDWR | O_CLOEXEC));
    if (fd) return fd;
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
      counters.met("race: opened while the module is unloaded");
    else
      complain("the device can't be opened: %s", std::strerror(errno));
    return fd;
  }

  /// errno of a request, or 0. EBADF and ENOTCONN can come to any: others close and open files.
  static int control(int fd, unsigned long request, void* argument) {
    ++calls;
    return ioctl(fd, request, argument) < 0 ? errno : 0;
  }
  static bool is_unfit(int error) { return error == EBADF || error == ENOTCONN || error == EBUSY; }
  /// A request that must fail: with one of these, in this branch.
  void expect(const char* branch, int error, int wanted) {
    if (error == wanted)
      counters.met(branch);
    else if (error != EBADF)
      complain("%s: wanted errno %d (%s), got %d (%s)", branch, wanted, std::strerror(wanted),
               error, std::strerror(error));
  }

  void open_file() {
    const auto place = static_cast<unsigned>(below(kFiles));
    if (below(8) == 0 && file() >= 0) {
      const int copy = fcntl(file(), F_DUPFD_CLOEXEC, kFirstShared);
      if (copy >= 0) {
        files_.replace(place, copy);
        counters.met("race: two descriptors of one file");
      }
      return;
    }
    const UniqueFd own = open_device();
    if (!own) return;
    counters.met("open");
    files_.replace(place, fcntl(own.get(), F_DUPFD_CLOEXEC, kFirstShared));
    if (below(8) != 0) attach_to(files_.at(place));
  }

  thermocline_attach valid_attach() {
    thermocline_attach request{};
    const pid_t pid = targets_.pid(static_cast<unsigned>(below(kTargets)));
    request.pid = pid;
    request.start_ticks = start_ticks(pid);
    request.asid = 1 + below(100);
    return request;
  }
  void attach_to(int fd) {
    thermocline_attach request = valid_attach();
    const int error = control(fd, THERMOCLINE_IOC_ATTACH, &request);
    if (error == 0)
      counters.met("attach");
    else if (error == EBUSY)
      counters.met("attach: EBUSY, attached already");
    else if (error == ESRCH)
      counters.met("attach: ESRCH, the process ended meanwhile");
    else if (error != EBADF)
      complain("attach: %s", std::strerror(error));
  }

  void broken_attach() {
    const UniqueFd own = open_device();  // nobody else's: never EBUSY
    if (!own) return;
    thermocline_attach request = valid_attach();
    const char* branch = "";
    int wanted = EINVAL;
    void* argument = &request;
    switch (below(9)) {
      case 0:
        branch = "attach: EFAULT";
        wanted = EFAULT;
        argument = none_;
        break;
      case 1:
        branch = "attach: EINVAL, process id";
        request.pid = -static_cast<std::int32_t>(below(1000));
        break;
      case 2:
        branch = "attach: EINVAL, flags";
        request.flags = 1u << below(32);
        break;
      case 3:
        branch = "attach: EINVAL, asid";
        request.asid = 0;
        break;
      case 4:
        branch = "attach: EINVAL, reserved";
        request.reserved[below(2)] = 1ull << below(64);
        break;
      case 5:
        branch = "attach: ESRCH, no such process";
        wanted = ESRCH;
        request.pid = 0x3fffffff;
        break;
      case 6:
        branch = "attach: ESRCH, a kernel thread";
        wanted = ESRCH;
        request.pid = 2;
        request.start_ticks = start_ticks(2);
        break;
      case 7:
        branch = "attach: ESRCH, the id of a thread";
        wanted = ESRCH;
        request.pid = static_cast<std::int32_t>(gettid());
        request.start_ticks = start_ticks(getpid());
        break;
      default:
        branch = "attach: ESRCH, another start time";
        wanted = ESRCH;
        request.start_ticks += 1 + below(1000);
        break;
    }
    expect(branch, control(own.get(), THERMOCLINE_IOC_ATTACH, argument), wanted);
  }

  /// As many as fit of ranges, most of them from where targets have memory.
  void fill_ranges() {
    ranges_.clear();
    std::uint64_t at = kTargetBase / kPage - 200 + below(kTargetBytes / kPage);
    if (below(8) == 0) at = below(2) ? below(1 << 20) : 0x7f0000000ull + below(1 << 26);
    const std::uint64_t wanted = 1 + below(below(20) == 0 ? THERMOCLINE_SCAN_MAX_RANGES : 40);
    while (ranges_.size() < wanted) {
      const std::uint64_t count = 1 + below(below(2) ? 600 : 3000000);
      if (at + count >= kEndPage) break;
      ranges_.push_back({at, count});
      at += count + below(1000);
    }
    if (ranges_.empty()) ranges_.push_back({1, 1});
  }

  thermocline_scan some_scan() {
    static constexpr std::array<std::size_t, 4> kBuffers{THERMOCLINE_SCAN_MIN_BUFFER, 8192, 65536,
                                                         1 << 18};
    static constexpr std::array<std::uint32_t, 6> kFlags{
        0,
        THERMOCLINE_SCAN_CLEAR,
        THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH,
        THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_PRUNE,
        THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_SHARED,
        THERMOCLINE_SCAN_FLAGS_ALL};
    buffer_.resize(kBuffers[below(kBuffers.size())] / 8);
    thermocline_scan call = valid_scan(buffer_);
    call.flags = kFlags[below(kFlags.size())];
    if (below(2) != 0) {
      fill_ranges();
      call.ranges = pointer(ranges_.data());
      call.range_count = static_cast<std::uint32_t>(ranges_.size());
    }
    call.epoch = random_();
    call.window_ns = below(2) ? 0 : random_();
    if (below(8) == 0) call.resume_page = below(kEndPage);
    return call;
  }

  void scan() {
    thermocline_scan call = some_scan();
    if (below(16) == 0) return scan_into_a_hole(call);
    int fd = file();
    for (unsigned n = 0; n < 4; ++n) {  // a pass is rarely wanted whole
      const int error = control(fd, THERMOCLINE_IOC_SCAN, &call);
      walks += error == 0 && saw_something(call);
      switch (error) {
        case 0:
          counters.met("scan");
          if (call.bytes > buffer_.size() * 8) complain("a scan wrote more than the buffer holds");
          if (call.resume_page == 0) return;
          counters.met("scan: the buffer was full");
          break;
        case ESRCH:
          counters.met("scan: ESRCH, the process is gone");
          open_file();
          return;
        case ENOTCONN:
          counters.met("scan: ENOTCONN");
          attach_to(fd);
          break;
        case EBUSY:
          counters.met("scan: EBUSY, the thread runs");
          (void)control(fd, THERMOCLINE_IOC_STOP, nullptr);
          break;
        case EBADF:
          if (fd >= 0) counters.met("race: a file closed by another thread");
          open_file();
          fd = file();
          break;
        default:
          return complain("a scan failed: %s", std::strerror(error));
      }
    }
  }

  /// The buffer is taken away by another thread while the module writes to it.
  void scan_into_a_hole(thermocline_scan& call) {
    constexpr std::size_t kBytes = 1 << 16;
    void* const at =
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    call.buffer = pointer(at);
    call.buffer_size = kBytes;
    std::thread thief([at] { munmap(at, kBytes); });
    const int error = control(file(), THERMOCLINE_IOC_SCAN, &call);
    thief.join();
    if (error == EFAULT || (error == 0 && saw_something(call))) ++walks;
    if (error == EFAULT)
      counters.met("scan: EFAULT, the buffer was unmapped meanwhile");
    else if (error == 0 && call.records > 0)
      counters.met("race: the buffer is unmapped after it was written");
    else if (error != 0 && error != ESRCH && !is_unfit(error))
      complain("a scan into a hole: %s", std::strerror(error));
  }

  void broken_scan() {
    thermocline_scan call = some_scan();
    void* argument = &call;
    const char* branch = "";
    int wanted = EINVAL;
    const int fd = file();
    if (call.range_count == 0) {
      fill_ranges();
      call.ranges = pointer(ranges_.data());
      call.range_count = static_cast<std::uint32_t>(ranges_.size());
    }
    const std::size_t victim = below(ranges_.size());
    switch (below(16)) {
      case 0:
        branch = "scan: EFAULT, the request";
        wanted = EFAULT;
        argument = none_;
        break;
      case 1:
        branch = "scan: EINVAL, flags";
        call.flags |= 1u << (16 + below(16));
        break;
      case 2:
        branch = "scan: EINVAL, a flush without clearing";
        call.flags = below(2) != 0 ? THERMOCLINE_SCAN_FLUSH : THERMOCLINE_SCAN_PRUNE;
        break;
      case 3:
        branch = "scan: EINVAL, too many ranges";
        call.range_count =
            THERMOCLINE_SCAN_MAX_RANGES + 1 + static_cast<std::uint32_t>(below(1000));
        break;
      case 4:
        branch = "scan: EINVAL, an unaligned buffer";
        call.buffer += 1 + below(7);
        break;
      case 5:
        branch = "scan: EINVAL, a small buffer";
        call.buffer_size = below(THERMOCLINE_SCAN_MIN_BUFFER);
        break;
      case 6:
        branch = "scan: EINVAL, resume_page";
        call.resume_page = kEndPage + below(1ull << 40);
        break;
      case 7:
        branch = "scan: EINVAL, reserved";
        call.reserved[0] = 1ull << below(64);
        break;
      case 8:
        branch = "scan: EINVAL, reserved0";
        call.reserved0 = 1u << below(32);
        break;
      case 9:
        branch = "scan: EFAULT, the ranges";
        wanted = EFAULT;
        call.ranges = pointer(none_);
        break;
      case 10:
        branch = "scan: EINVAL, an empty range";
        ranges_[victim].count = 0;
        break;
      case 11:
        branch = "scan: EINVAL, ranges that overlap";
        ranges_.push_back({ranges_.back().first_page + ranges_.back().count - 1, 2});
        call.ranges = pointer(ranges_.data());
        call.range_count = static_cast<std::uint32_t>(ranges_.size());
        if (call.range_count > THERMOCLINE_SCAN_MAX_RANGES) return;
        break;
      case 12:
        branch = "scan: EINVAL, a range beyond the end";
        ranges_.back().first_page = kEndPage + below(1ull << 50);
        break;
      case 13:
        branch = "scan: EINVAL, a range that wraps";
        ranges_[victim].count = ~0ull - below(1000);
        break;
      case 14: {
        call.range_count = 0;
        call.resume_page = 0;
        const int error = control(fd, THERMOCLINE_IOC_SCAN, read_only(call));
        if (error == EFAULT) ++walks;
        if (error != ESRCH && !is_unfit(error)) expect("scan: EFAULT, the answer", error, EFAULT);
        return;
      }
      default: {
        branch = "scan: EFAULT, the buffer";
        call.buffer = pointer(none_);
        call.buffer_size = kPage;
        call.range_count = 0;
        call.resume_page = 0;
        const int error = control(fd, THERMOCLINE_IOC_SCAN, argument);
        if (error == EFAULT) ++walks;
        if (error != ESRCH && !is_unfit(error)) expect(branch, error, EFAULT);
        return;
      }
    }
    const int error = control(fd, THERMOCLINE_IOC_SCAN, argument);
    // Ranges are looked at when there is something to scan.
    if (error == ENOTCONN || error == EBUSY || error == ESRCH) return;
    expect(branch, error, wanted);
  }

  // ---- continuous mode

  thermocline_schedule some_schedule() {
    thermocline_schedule schedule{};
    // The last two are what the daemon asks for.
    static constexpr std::array<std::uint32_t, 6> kFlags{
        0,
        THERMOCLINE_SCAN_CLEAR,
        THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH,
        THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_SHARED,
        THERMOCLINE_SCAN_FLAGS_ALL,
        THERMOCLINE_SCAN_FLAGS_ALL | THERMOCLINE_SCHEDULE_PRUNE_FIRST};
    schedule.flags = kFlags[below(kFlags.size())] | (below(2) ? THERMOCLINE_SCHEDULE_ROUND : 0);
    schedule.windows = static_cast<std::uint32_t>(below(3));
    schedule.window_ns = schedule.windows == 0 ? 0 : 100'000 + below(1'000'000);
    schedule.period_ns = below(3) == 0 ? 0 : 1'000'000 + below(20'000'000);
    schedule.epoch = random_();
    schedule.budget_ppm = static_cast<std::uint32_t>(below(2) ? 0 : 1000 + below(900'000));
    schedule.nice = static_cast<std::int32_t>(below(20));
    if (below(2) != 0) {
      fill_ranges();
      schedule.ranges = pointer(ranges_.data());
      schedule.range_count = static_cast<std::uint32_t>(ranges_.size());
    }
    return schedule;
  }

  /// Breaks a schedule that is not for a live thread; which branch that is for.
  const char* spoil(thermocline_schedule& schedule) {
    switch (below(19)) {
      case 0:
        schedule.flags |= 1u << (18 + below(14));
        return "schedule: EINVAL, flags";
      case 1:
        schedule.flags = below(2) ? THERMOCLINE_SCAN_FLUSH : THERMOCLINE_SCAN_PRUNE;
        return "schedule: EINVAL, a flush without clearing";
      case 2:
        schedule.windows = 65 + static_cast<std::uint32_t>(below(1000));
        return "schedule: EINVAL, windows";
      case 3:
        schedule.windows = 1;
        schedule.window_ns = below(100'000);
        return "schedule: EINVAL, a short window";
      case 4:
        schedule.windows = 0;
        schedule.window_ns = 1 + below(1000);
        return "schedule: EINVAL, a window of no windows";
      case 5:
        schedule.period_ns = 1 + below(999'999);
        return "schedule: EINVAL, a short period";
      case 6:
        schedule.budget_ppm = 1'000'001;
        return "schedule: EINVAL, the budget";
      case 7:
        schedule.budget_ppm = 0;
        schedule.burst_ns = 1;
        return "schedule: EINVAL, a burst of no budget";
      case 8:
        schedule.nice = below(2) ? 20 : -1;
        return "schedule: EINVAL, nice";
      case 9:
        schedule.reserved[below(4)] = 1ull << below(64);
        return "schedule: EINVAL, reserved";
      case 10:
        schedule.reserved0 = 1u << below(32);
        return "schedule: EINVAL, reserved0";
      case 11:
        schedule.range_count = THERMOCLINE_SCAN_MAX_RANGES + 1 + static_cast<unsigned>(below(1000));
        return "schedule: EINVAL, too many ranges";
      case 12:
        schedule.windows = 1;
        schedule.window_ns = THERMOCLINE_SCHEDULE_MAX_NS + 1 + below(1ull << 60);
        return "schedule: EINVAL, a long window";
      case 13:
        schedule.period_ns = THERMOCLINE_SCHEDULE_MAX_NS + 1 + below(1ull << 60);
        return "schedule: EINVAL, a long period";
      case 14:
        schedule.budget_ppm =
            1 + static_cast<unsigned>(below(THERMOCLINE_SCHEDULE_MIN_BUDGET_PPM - 1));
        return "schedule: EINVAL, a small budget";
      case 15:
        schedule.budget_ppm = 1000;
        schedule.burst_ns = THERMOCLINE_SCHEDULE_MAX_NS + 1 + below(1ull << 60);
        return "schedule: EINVAL, a long burst";
      case 16:
        ranges_.assign({{1000, 10}, {1000 + below(10), 1}});
        schedule.ranges = pointer(ranges_.data());
        schedule.range_count = 2;
        return "schedule: EINVAL, ranges that overlap";
      case 17:
        schedule.flags &= ~THERMOCLINE_SCAN_PRUNE;
        schedule.flags |= THERMOCLINE_SCHEDULE_PRUNE_FIRST;
        return "schedule: EINVAL, a first pass pruned alone";
      default:
        schedule.ranges = pointer(none_);
        schedule.range_count = 1;
        return "schedule: EFAULT, the ranges";
    }
  }

  /// A whole life of a thread, on a file and a process that nobody else has.
  void whole_life() {
    const UniqueFd own = open_device();
    if (!own) return;
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) pause();
    }
    thermocline_attach request{};
    request.pid = child;
    request.start_ticks = start_ticks(child);
    request.asid = 1;
    thermocline_schedule schedule = some_schedule();
    schedule.range_count = 0;
    thermocline_start start{};
    start.schedule = schedule;
    start.ring_bytes = THERMOCLINE_RING_MIN_BYTES;
    thermocline_start again = start;
    if (control(own.get(), THERMOCLINE_IOC_ATTACH, &request) != 0 ||
        control(own.get(), THERMOCLINE_IOC_START, &start) != 0) {
      complain("a thread of our own can't be started: %s", std::strerror(errno));
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
      return;
    }
    expect("start: EBUSY, the thread runs", control(own.get(), THERMOCLINE_IOC_START, &again),
           EBUSY);
    if (control(own.get(), THERMOCLINE_IOC_CONFIGURE, &schedule) == 0)
      counters.met("configure");
    else
      complain("configure: %s", std::strerror(errno));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    if (below(2)) {
      pollfd wait{own.get(), 0, 0};  // POLLHUP comes unasked; the thread looks once a second
      if (poll(&wait, 1, 30'000) == 1)
        expect("configure: ESRCH, the process is gone",
               control(own.get(), THERMOCLINE_IOC_CONFIGURE, &schedule), ESRCH);
      else
        complain("nobody said that the process is gone");
    }
    if (below(2)) {
      if (control(own.get(), THERMOCLINE_IOC_STOP, nullptr) == 0)
        counters.met("stop");
      else
        complain("stop: %s", std::strerror(errno));
    }
  }

  void ring() {
    if (below(50) == 0) return whole_life();
    const int fd = file();
    switch (below(10)) {
      case 0:
      case 1: {
        thermocline_start request{};
        request.schedule = some_schedule();
        request.ring_bytes = THERMOCLINE_RING_MIN_BYTES << below(4);
        const int error = control(fd, THERMOCLINE_IOC_START, &request);
        if (error == 0)
          counters.met("start");
        else if (error == EBUSY)
          counters.met("start: EBUSY, the thread runs");
        else if (error == ESRCH)
          counters.met("start: ESRCH, the process is gone");
        else if (error == ENOTCONN)
          counters.met("start: ENOTCONN");
        else if (error != EBADF)
          complain("start: %s", std::strerror(error));
        use_mapping(fd, request.map_bytes);
        break;
      }
      case 2: {
        thermocline_start request{};
        request.schedule = some_schedule();
        request.ring_bytes = THERMOCLINE_RING_MIN_BYTES;
        const char* branch = "start: EINVAL, the size of the ring";
        int wanted = EINVAL;
        switch (below(6)) {
          case 0:
            request.ring_bytes = THERMOCLINE_RING_MIN_BYTES + kPage;
            break;
          case 3: {
            const int error = control(fd, THERMOCLINE_IOC_START, read_only(request));
            if (error != ESRCH && !is_unfit(error))
              expect("start: EFAULT, the answer", error, EFAULT);
            return;
          }
          case 4:
            branch = "start: EINVAL, map_bytes";
            request.map_bytes = 1ull << below(64);
            break;
          case 1:
            request.ring_bytes = THERMOCLINE_RING_MAX_BYTES * 2;
            break;
          case 2:
            branch = "start: EINVAL, reserved";
            request.reserved[below(4)] = 1ull << below(64);
            break;
          default:
            branch = spoil(request.schedule);
            wanted = std::strstr(branch, "EFAULT") != nullptr ? EFAULT : EINVAL;
            break;
        }
        expect(branch, control(fd, THERMOCLINE_IOC_START, &request), wanted);
        break;
      }
      case 3:
      case 4: {
        thermocline_schedule schedule = some_schedule();
        const char* const branch = spoil(schedule);
        expect(branch, control(fd, THERMOCLINE_IOC_CONFIGURE, &schedule),
               std::strstr(branch, "EFAULT") != nullptr ? EFAULT : EINVAL);
        break;
      }
      case 5: {
        thermocline_schedule schedule = some_schedule();
        const int error = control(fd, THERMOCLINE_IOC_CONFIGURE, &schedule);
        if (error == 0)
          counters.met("configure");
        else if (error == ENOTCONN)
          counters.met("configure: ENOTCONN");
        else if (error == ESRCH)
          counters.met("configure: ESRCH, the process is gone");
        else if (error != EBADF)
          complain("configure: %s", std::strerror(error));
        break;
      }
      case 6:
      case 7: {
        const int error = control(fd, THERMOCLINE_IOC_STOP, nullptr);
        if (error == 0)
          counters.met("stop");
        else if (error == ENOTCONN)
          counters.met("stop: ENOTCONN");
        else if (error != EBADF)
          complain("stop: %s", std::strerror(error));
        break;
      }
      case 8:
        expect("start: EFAULT", control(fd, THERMOCLINE_IOC_START, none_), EFAULT);
        expect("configure: EFAULT", control(fd, THERMOCLINE_IOC_CONFIGURE, none_), EFAULT);
        expect("stats: EFAULT", control(fd, THERMOCLINE_IOC_STATS, none_), EFAULT);
        break;
      default: {
        thermocline_stats stats{};
        if (const int error = control(fd, THERMOCLINE_IOC_STATS, &stats); error == 0)
          counters.met("stats");
        else if (error != EBADF)
          complain("stats: %s", std::strerror(error));
        if (mmap(nullptr, 3 * kPage, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED)
          complain("a ring of three pages was mapped");
        else
          counters.met(errno == EINVAL ? "mmap: EINVAL, another size" : "mmap: ENOTCONN, no ring");
        break;
      }
    }
  }

  /// Reads a ring and lies about how far it has read. Another thread may stop it meanwhile, or put
  /// another ring in its place.
  void use_mapping(int fd, std::uint64_t bytes) {
    if (bytes == 0) return;
    void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return;
    counters.met("mmap");
    // Another thread may have put another ring there, which is refused all the same.
    if (mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, 0) != MAP_FAILED)
      complain("a private mapping of a ring");
    else if (errno == EINVAL)
      counters.met("mmap: EINVAL, private");
    if (mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, kPage) != MAP_FAILED)
      complain("a mapping of a ring from its second page");
    else if (errno == EINVAL)
      counters.met("mmap: EINVAL, an offset");
    auto* const words = static_cast<volatile std::uint64_t*>(at);
    for (unsigned n = 0; n < 200; ++n) {
      words[below(kPage / 8)] = random_();
      (void)words[below(bytes / 8)];
      if (below(50) == 0) usleep(300);
    }
    char* const page = static_cast<char*>(at) + below(bytes / kPage) * kPage;
    if (madvise(page, kPage, MADV_DONTNEED) != 0 || pwrite(file_.get(), page, 1, 0) >= 0 ||
        errno != EFAULT)
      complain("a page of a ring that was thrown away: %s", std::strerror(errno));
    else
      counters.met("mmap: no page where one was thrown away");
    munmap(at, bytes);
  }

  void others() {
    thermocline_info info{};
    switch (below(4)) {
      case 0:
        if (const int error = control(file(), THERMOCLINE_IOC_INFO, &info); error == 0)
          counters.met("info");
        else if (error != EBADF)
          complain("info: %s", std::strerror(error));
        break;
      case 1:
        expect("info: EFAULT", control(file(), THERMOCLINE_IOC_INFO, none_), EFAULT);
        break;
      case 2: {
        const unsigned long request = _IOC(_IOC_READ | _IOC_WRITE, 0xb7, 0x70 + below(16), 64);
        expect("ENOTTY, no such request", control(file(), request, &info), ENOTTY);
        break;
      }
      default:
        without_privilege();
        break;
    }
  }

  static constexpr int kScanned = 4;  ///< beside the rest of a child's exit code

  /// A child that scans with a file of its parent's, and one that has no right to open its own.
  void without_privilege() {
    const int fd = file();
    const bool root = below(2) != 0;  // whom the device's owner is; then the module itself refuses
    const pid_t child = fork();
    if (child == 0) {
      std::vector<std::uint64_t> buffer(THERMOCLINE_SCAN_MIN_BUFFER / 8);
      thermocline_scan call = valid_scan(buffer);
      const int scanned = control(fd, THERMOCLINE_IOC_SCAN, &call) == 0 ? kScanned : 0;
      if (root ? !drop_capabilities() : setuid(65534) != 0) _exit(scanned | 2);
      const int own = open(THERMOCLINE_DEVICE, O_RDWR);
      const bool gone = errno == ENOENT || errno == ENODEV || errno == ENXIO;
      _exit(scanned | (own < 0 && (errno == EACCES || errno == EPERM) ? 0
                       : own < 0 && gone                              ? 3
                                                                      : 1));
    }
    int status = 0;
    waitpid(child, &status, 0);
    const int code = WEXITSTATUS(status) & ~kScanned;
    if (WIFEXITED(status) && code == 0)
      counters.met(root ? "open: EPERM, no privilege" : "open: refused to another user");
    else if (!WIFEXITED(status) || code != 3)
      complain("a child without privilege ended with %#x", status);
    if (WIFEXITED(status) && (WEXITSTATUS(status) & kScanned) != 0)
      counters.met("race: a child uses its parent's file");
  }

  static bool drop_capabilities() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    const std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
    return syscall(SYS_capset, &header, none.data()) == 0;
  }

  /// Two files that are attached to one process scan it at the same time.
  void two_attachments() {
    const UniqueFd one = open_device(), other = open_device();
    if (!one || !other) return;
    thermocline_attach request = valid_attach();
    if (control(one.get(), THERMOCLINE_IOC_ATTACH, &request) != 0 ||
        control(other.get(), THERMOCLINE_IOC_ATTACH, &request) != 0)
      return;  // the process is gone
    const std::uint32_t flags = some_scan().flags;
    thermocline_scan call = some_scan();
    using Clock = std::chrono::steady_clock;
    struct Timed {
      bool saw = false;
      int error = 0;
      Clock::time_point begin, end;
    };
    const auto timed = [](int fd, thermocline_scan& asked) {
      Timed result;
      result.begin = Clock::now();
      result.error = control(fd, THERMOCLINE_IOC_SCAN, &asked);
      result.end = Clock::now();
      result.saw = saw_something(asked);
      return result;
    };
    Timed theirs;
    std::thread beside([&] {
      std::vector<std::uint64_t> buffer(1 << 13);
      thermocline_scan mine = valid_scan(buffer);
      mine.flags = flags;
      theirs = timed(other.get(), mine);
    });
    const Timed own = timed(one.get(), call);
    beside.join();
    for (const Timed& each : {own, theirs}) {
      walks += each.error == 0 && each.saw;
      if (each.error != 0 && each.error != ESRCH)
        complain("a scan beside another: %s", std::strerror(each.error));
    }
    if (own.error == 0 && theirs.error == 0 && own.begin < theirs.end && theirs.begin < own.end)
      counters.met("race: two attachments scan one process");
  }

  /// Makes the nth allocation of this thread from now on fail; 0 for none. How many were left
  /// before.
  unsigned starve(unsigned nth) {
    std::array<char, 16> text{};
    unsigned left = 0;
    if (pread(starve_.get(), text.data(), text.size() - 1, 0) > 0)
      left = static_cast<unsigned>(std::strtoul(text.data(), nullptr, 10));
    const int size = std::snprintf(text.data(), text.size(), "%u", nth);
    if (pwrite(starve_.get(), text.data(), static_cast<std::size_t>(size), 0) != size)
      complain("can't write fail-nth: %s", std::strerror(errno));
    return left;
  }

  /// Makes the first allocation of a request fail, then the second, and so on until there is none
  /// left. A request that says so must have left all as it was.
  void without_memory() {
    thermocline_attach attach{};
    attach.pid = getpid();
    attach.start_ticks = start_ticks(getpid());
    attach.asid = 1;
    ranges_.assign({{1, 1}, {5, 1}});
    thermocline_start start{};
    start.schedule.ranges = pointer(ranges_.data());
    start.schedule.range_count = 2;
    start.ring_bytes = THERMOCLINE_RING_MIN_BYTES;
    buffer_.resize(THERMOCLINE_SCAN_MIN_BUFFER / 8);
    thermocline_scan scan = valid_scan(buffer_);
    scan.ranges = pointer(ranges_.data());
    scan.range_count = 2;

    static constexpr std::array<const char*, 6> kBranches{
        "open: ENOMEM",  "attach: ENOMEM",    "scan: ENOMEM, the ranges",
        "start: ENOMEM", "configure: ENOMEM", "mmap: ENOMEM"};
    const auto which = below(kBranches.size());
    bool starved = true;
    for (unsigned nth = 1; starved; ++nth) {
      UniqueFd own;
      thermocline_start started = start;
      if (which > 0) own = open_device();
      if (which > 0 && !own) return;
      if (which > 1) (void)control(own.get(), THERMOCLINE_IOC_ATTACH, &attach);
      if (which > 3) (void)control(own.get(), THERMOCLINE_IOC_START, &started);
      const auto request = [&]() -> int {
        switch (which) {
          case 0:
            own.reset(open(THERMOCLINE_DEVICE, O_RDWR | O_CLOEXEC));
            return own || errno == ENOENT || errno == ENODEV || errno == ENXIO ? 0 : errno;
          case 1:
            return control(own.get(), THERMOCLINE_IOC_ATTACH, &attach);
          case 2:
            return control(own.get(), THERMOCLINE_IOC_SCAN, &scan);
          case 3:
            return control(own.get(), THERMOCLINE_IOC_START, &started);
          case 4:
            return control(own.get(), THERMOCLINE_IOC_CONFIGURE, &started.schedule);
          default: {
            void* const at = mmap(nullptr, started.map_bytes, PROT_READ, MAP_SHARED, own.get(), 0);
            if (at == MAP_FAILED) return errno;
            munmap(at, started.map_bytes);
            return 0;
          }
        }
      };
      (void)starve(nth);
      const int error = request();
      starved = starve(0) == 0;
      if (error == ENOMEM && starved)
        counters.met(kBranches[which]);
      else if (error != 0 && !(error == EFAULT && starved))  // a page that a fork left shared
        complain("%s: got %d (%s) with allocation %u", kBranches[which], error,
                 std::strerror(error), nth);
      if (which == 3) started = start;  // whatever the kernel answered into it
      if (error != 0 && request() != 0) complain("%s: and it lasts", kBranches[which]);
    }
  }

  /// A page with the request, which the module can't answer into.
  template <class Request>
  void* read_only(const Request& request) {
    mprotect(page_, kPage, PROT_READ | PROT_WRITE);
    std::memcpy(page_, &request, sizeof(request));
    mprotect(page_, kPage, PROT_READ);
    return page_;
  }

  /// A child that scans without end is killed at some moment.
  void killed_in_a_scan() {
    struct Told {
      std::atomic<bool> inside, scanned, refused;
    };
    const int fd = file();
    if (fd < 0) return;
    void* const memory =
        mmap(nullptr, sizeof(Told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return complain("no memory to share with a child");
    Told& told = *new (memory) Told{};
    const pid_t child = fork();
    if (child == 0) {
      std::vector<std::uint64_t> buffer(1 << 13);
      for (;;) {
        thermocline_scan call = valid_scan(buffer);
        call.flags = THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH;
        told.inside = true;
        const int error = control(fd, THERMOCLINE_IOC_SCAN, &call);
        told.inside = false;
        (error == 0 ? told.scanned : told.refused) = true;
        if (error != 0) usleep(100);
      }
    }
    for (unsigned n = 0; n < 100 && !told.scanned && !told.refused; ++n) usleep(200);
    usleep(static_cast<useconds_t>(below(2000)));
    told.refused = false;
    usleep(static_cast<useconds_t>(below(200)));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    // It scanned, none of its last calls was refused, and it never came back from the last one.
    if (told.scanned && !told.refused && told.inside)
      counters.met("race: a caller is killed in its scan");
    munmap(memory, sizeof(Told));
  }

  Files& files_;
  const Targets& targets_;
  std::mt19937_64 random_;
  void* none_;
  void* page_;
  UniqueFd file_;
  UniqueFd starve_;  ///< none when allocations can't be made to fail
  std::vector<std::uint64_t> buffer_;
  std::vector<thermocline_range> ranges_;
};

// ------------------------------------------------------------------ the module

KernelModule module_under_test;

/// Tries at any time; now and then closes all files first, so that it can.
void unload_now_and_then(Files& files, std::mt19937& random) {
  if (const int error = KernelModule::unload(); error == 0) {
    counters.met("unload");  // nothing was open just then
    usleep(1000);            // time for others to miss it
    if (const int loaded = module_under_test.load(); loaded != 0)
      complain("the module can't be loaded again: %s", std::strerror(loaded));
  } else if (error == EWOULDBLOCK || error == EBUSY) {
    counters.met("unload: refused, in use");
  } else {
    complain("unloading: %s", std::strerror(error));
  }
  if (random() % 32 != 0) return;
  module_wanted = true;
  const std::unique_lock guard(module_lock);
  module_wanted = false;
  files.close_all();
  // Somebody opens it until it is gone, and beyond.
  std::atomic<bool> enough{false}, began{false}, opened{false};
  std::thread opener([&] {
    while (!enough) {
      const UniqueFd fd(open(THERMOCLINE_DEVICE, O_RDWR | O_CLOEXEC));
      if (fd)
        opened = true;
      else if (errno != ENOENT && errno != ENODEV && errno != ENXIO)
        complain("the device can't be opened: %s", std::strerror(errno));
      began = true;
    }
  });
  while (!began) usleep(100);
  const int error = KernelModule::unload();
  enough = true;
  opener.join();
  // A child that was killed may still be about to close its copy of a file.
  if (error == 0) {
    counters.met("unload");
    if (opened) counters.met("race: opened while the module is unloaded");
    const UniqueFd none(open(THERMOCLINE_DEVICE, O_RDWR | O_CLOEXEC));
    if (none) complain("there is a device without a module");
    if (const int loaded = module_under_test.load(); loaded != 0)
      complain("the module can't be loaded again: %s", std::strerror(loaded));
  } else if (error != EWOULDBLOCK && error != EBUSY) {
    complain("unloading: %s", std::strerror(error));
  }
}

int run(std::uint64_t wanted, unsigned seed) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::printf("%lu calls, seed %u\n", wanted, seed);
  if (const int error = module_under_test.load(); error != 0) {
    complain("the module can't be loaded: %s", std::strerror(error));
    return 1;
  }
  const bool can_starve = allow_starving();
  Files files;
  {
    Targets targets(seed);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; ++i)
      threads.emplace_back([&files, &targets, &stop, seed, can_starve, i] {
        Fuzzer fuzzer(files, targets, seed * 16 + i, can_starve);
        while (!stop) fuzzer.step();
      });
    std::mt19937 random(seed);
    std::uint64_t told = 0;
    // By calls, not by time: how often they are disturbed is the same on a slow machine.
    for (std::uint64_t next = 0; calls < wanted;) {
      usleep(1000);
      if (calls < next) continue;
      next = calls + kUndisturbed;
      targets.renew(random);
      unload_now_and_then(files, random);
      if (calls / 100000 != told) std::printf("%lu calls\n", 100000 * (told = calls / 100000));
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    files.close_all();
  }
  usleep(200000);
  if (const int error = KernelModule::unload(); error != 0)
    complain("the module can't be unloaded at the end: %s", std::strerror(error));

  std::printf("%lu calls, %lu of them reached the walk\n", calls.load(), walks.load());
  if (const unsigned missing = counters.print(can_starve); missing != 0)
    complain("%u branches never came", missing);
  if (walks * 2 < calls) complain("less than half of the calls reached the walk");
  if (const std::uint64_t trouble = kernel_trouble(); trouble != 0)
    complain("the kernel is tainted: %#lx", trouble);
  std::printf(failures == 0 ? "fuzz: all held\n" : "fuzz: FAILED\n");
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace thermocline::labtest

int main(int argc, char** argv) {
  using namespace thermocline::labtest;
  if (argc == 3 && std::strcmp(argv[1], "--target") == 0)
    be_target(static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10)));
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "usage: kmod_fuzz MODULE.ko [CALLS [SEED]]\n");
    return 2;
  }
  if (!module_under_test.read_file(argv[1])) {
    std::fprintf(stderr, "kmod_fuzz: can't read the module %s\n", argv[1]);
    return 2;
  }
  const char* soak = std::getenv("TC_SOAK");
  const bool is_soak = soak != nullptr && std::strcmp(soak, "1") == 0;
  const std::uint64_t calls = argc > 2  ? std::strtoull(argv[2], nullptr, 10)
                              : is_soak ? 1'000'000
                                        : 20'000;
  return run(calls, argc > 3 ? static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10)) : 1);
}
