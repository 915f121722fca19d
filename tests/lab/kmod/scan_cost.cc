// SPDX-License-Identifier: Apache-2.0
// Scans of its own memory by thermocline.ko and, to compare, reads of /proc/self/pagemap, each
// between the marks "begin" and "end" of the timing model (emulation/timing/mark.h), so that the
// instructions of each are known exactly. Prints a line a scan: "scan CASE UNITS ACCESSED".
// tests/lab/kmod-instructions.host makes the table of it.
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "device.h"
#include "emulation/timing/mark.h"

namespace {

using namespace thermocline::labtest;

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kHuge = 2 << 20;
/// A timer interrupt may fall into one scan; into all of them it does not.
constexpr int kRepeats = 3;

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::exit(1);
}

/// Whole 2 MiB areas of memory.
class Memory {
 public:
  Memory(std::uint64_t bytes, int advice, int file = -1) : bytes_(bytes) {
    void* const place =
        mmap(nullptr, bytes + kHuge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED) give_up("mmap");
    base_ = static_cast<char*>(place);
    data_ = base_ + (kHuge - reinterpret_cast<std::uintptr_t>(base_) % kHuge) % kHuge;
    const int kind = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    if (mmap(data_, bytes, PROT_READ | PROT_WRITE, kind | MAP_FIXED, file, 0) != data_ ||
        madvise(data_, bytes, advice) != 0)
      give_up("mmap");
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { munmap(base_, bytes_ + kHuge); }

  void touch(std::uint64_t step) const { touch_part(step, bytes_, bytes_); }
  /// Of every `period` bytes the first `part`.
  void touch_part(std::uint64_t step, std::uint64_t part, std::uint64_t period) const {
    for (std::uint64_t begin = 0; begin < bytes_; begin += period)
      for (std::uint64_t at = begin; at < std::min(bytes_, begin + part); at += step)
        *static_cast<volatile char*>(data_ + at) = 1;
  }
  /// To node 1, from node 0.
  void move_every_other_page() const {
    std::vector<void*> pages;
    for (std::uint64_t at = 0; at < bytes_; at += 2 * kPage) pages.push_back(data_ + at);
    const std::vector<int> node(pages.size(), 1);
    std::vector<int> status(pages.size(), -1);
    if (syscall(SYS_move_pages, 0, pages.size(), pages.data(), node.data(), status.data(),
                MPOL_MF_MOVE) != 0 ||
        status != node)
      give_up("move_pages");
  }
  [[nodiscard]] thermocline_range range() const {
    return {reinterpret_cast<std::uintptr_t>(data_) / kPage, bytes_ / kPage};
  }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  std::uint64_t bytes_;
  char* base_ = nullptr;
  char* data_ = nullptr;
};

/// Empties caches and TLBs of the model, and with its TLB the emulator's: a page that is touched
/// after this sets its bit again, and a scan finds nothing in a cache.
void forget_everything() {
  static const Memory other(16 << 20, MADV_NOHUGEPAGE);
  other.touch(64);
}

class Scanner {
 public:
  Scanner() : buffer_(1 << 17) {
    if (!device_.opened() || device_.attach(getpid()) != 0) give_up(THERMOCLINE_DEVICE);
  }
  /// One call; the marks are as near to it as can be.
  thermocline_scan scan(const Memory& memory, std::uint32_t flags) {
    const thermocline_range range = memory.range();
    thermocline_scan call = valid_scan(buffer_);
    call.flags = flags;
    call.range_count = 1;
    call.ranges = reinterpret_cast<std::uintptr_t>(&range);
    thermocline_timing_mark("begin");
    const int result = ioctl(device_.fd(), THERMOCLINE_IOC_SCAN, &call);
    thermocline_timing_mark("end");
    if (result != 0 || call.resume_page != 0) give_up("scan");
    return call;
  }

 private:
  Device device_;
  std::vector<std::uint64_t> buffer_;
};

/// What there is without the module: which pages are there, without accessed bits.
class Pagemap {
 public:
  Pagemap() : fd_(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) give_up("/proc/self/pagemap");
  }
  Pagemap(const Pagemap&) = delete;
  Pagemap& operator=(const Pagemap&) = delete;
  ~Pagemap() { close(fd_); }
  /// All of `memory` by one call.
  void read(const Memory& memory) {
    const thermocline_range range = memory.range();
    entries_.resize(range.count);
    const std::size_t bytes = range.count * sizeof(entries_[0]);
    thermocline_timing_mark("begin");
    const ssize_t result =
        pread(fd_, entries_.data(), bytes, static_cast<off_t>(range.first_page * 8));
    thermocline_timing_mark("end");
    if (result != static_cast<ssize_t>(bytes)) give_up("pagemap");
  }

 private:
  int fd_;
  std::vector<std::uint64_t> entries_;
};

}  // namespace

int main() {
  constexpr std::uint32_t kClear = THERMOCLINE_SCAN_CLEAR;
  constexpr std::uint32_t kFlush = THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH;
  Scanner scanner;
  Pagemap pagemap;
  // Every scan has its line; "-" stands for those that only prepare.
  const auto tell = [](const char* name, std::uint64_t units, const thermocline_scan& scan) {
    std::printf("scan %s %lu %llu\n", name, units, static_cast<unsigned long long>(scan.accessed));
  };
  const auto measure = [&](const char* name, const Memory& memory, std::uint64_t unit,
                           std::uint64_t touched, std::uint32_t flags) {
    for (int i = 0; i < kRepeats; ++i) {
      tell("-", 0, scanner.scan(memory, kClear));
      forget_everything();
      if (touched != 0) {
        memory.touch(touched);
        forget_everything();
      }
      tell(name, memory.bytes() / unit, scanner.scan(memory, flags));
    }
  };
  const auto measure_pagemap = [&](const char* name, const Memory& memory, std::uint64_t unit) {
    for (int i = 0; i < kRepeats; ++i) {
      forget_everything();
      pagemap.read(memory);
      std::printf("scan %s %lu 0\n", name, memory.bytes() / unit);
    }
  };

  for (const std::uint64_t bytes : {8u << 20, 32u << 20}) {
    const Memory small(bytes, MADV_NOHUGEPAGE);
    measure("untouched", small, kHuge, 0, kClear);
    small.touch(kHuge);
    measure("empty", small, kPage, 0, kClear);
    small.touch(kPage);
    forget_everything();
    tell("all_first", bytes / kPage, scanner.scan(small, kClear));
    measure("read", small, kPage, kPage, 0);
    measure("none", small, kPage, 0, kClear);
    measure("sparse", small, kPage, 64 * kPage, kClear);
    measure("half", small, kPage, 2 * kPage, kClear);
    for (int i = 0; i < kRepeats; ++i) {
      tell("-", 0, scanner.scan(small, kClear));
      small.touch_part(kPage, 7 * kPage, 8 * kPage);
      forget_everything();
      tell("most", bytes / kPage, scanner.scan(small, kClear));
    }
    measure("all", small, kPage, kPage, kClear);
    measure("all_flush", small, kPage, kPage, kFlush);
    measure_pagemap("pagemap", small, kPage);

    const int fd = memfd_create("scan_cost", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) give_up("memfd");
    const Memory file(bytes, MADV_NOHUGEPAGE, fd);
    file.touch(kPage);
    measure("file_none", file, kPage, 0, kClear);
    measure("file_all", file, kPage, kPage, kClear);
    const Memory other(bytes, MADV_NOHUGEPAGE, fd);
    other.touch(kPage);
    measure("file_shared", file, kPage, kPage, kClear);
    close(fd);

    const Memory huge(4 * bytes, MADV_HUGEPAGE);
    huge.touch(kHuge);
    measure("huge_none", huge, kHuge, 0, kClear);
    measure("huge_sparse", huge, kHuge, 4 * kHuge, kClear);
    measure("huge_all", huge, kHuge, kHuge, kClear);
    measure_pagemap("huge_pagemap", huge, kHuge);

    // A tenth of it hot: every tenth block of 2 MiB, all of it or one page of 64, or one page of
    // ten.
    const Memory tenth(5 * bytes, MADV_NOHUGEPAGE);
    tenth.touch(kPage);
    const auto measure_tenth = [&](const std::string& name, std::uint64_t step, std::uint64_t part,
                                   std::uint64_t period) {
      for (const bool prune : {false, true}) {
        const std::uint32_t flags = kFlush | (prune ? THERMOCLINE_SCAN_PRUNE : 0u);
        for (int i = 0; i < kRepeats + 2; ++i) {
          forget_everything();
          tenth.touch_part(step, part, period);
          forget_everything();
          // The first ones learn what is idle.
          tell(i < 2 ? "-" : (name + (prune ? "_pruned" : "_full")).c_str(), 5 * bytes / kPage,
               scanner.scan(tenth, flags));
        }
      }
    };
    measure_tenth("blocks", kPage, kHuge, 10 * kHuge);
    measure_tenth("thin_blocks", 64 * kPage, kHuge, 10 * kHuge);
    measure_tenth("scattered", 10 * kPage, 5 * bytes, 5 * bytes);
    tenth.touch(kPage);
    tell("-", 0, scanner.scan(tenth, kFlush));
    for (int i = 0; i < kRepeats + 2; ++i)
      tell(i < 2 ? "-" : "idle_pruned", 5 * bytes / kPage,
           scanner.scan(tenth, kFlush | THERMOCLINE_SCAN_PRUNE));

    // The most node runs that there can be. Last, as what is freed is then in no order any more.
    const Memory mixed(bytes, MADV_NOHUGEPAGE);
    mixed.touch(kPage);
    mixed.move_every_other_page();
    measure("mixed", mixed, kPage, 0, kClear);
  }
  return 0;
}
