// SPDX-License-Identifier: Apache-2.0
// What the tests of kmod_probe share: memory that is scanned, processes that own it, the device.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "device.h"

namespace thermocline::labtest {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kHuge = 2u << 20;
constexpr std::uint32_t kClear = THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH;
constexpr std::uint32_t kPrune = kClear | THERMOCLINE_SCAN_PRUNE;
constexpr int kMoveOwnPages = MPOL_MF_MOVE;
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

inline std::uint64_t vpn(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) / kPage;
}

/// Anonymous memory of its own 2 MiB areas, with unmapped 2 MiB before and after it.
class Region {
 public:
  explicit Region(std::uint64_t bytes, int advice = MADV_NOHUGEPAGE) : bytes_(bytes) {
    const std::uint64_t reserved = bytes + 3 * kHuge;
    base_ = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT_NE(base_, MAP_FAILED);
    const auto start = (reinterpret_cast<std::uintptr_t>(base_) + 2 * kHuge - 1) / kHuge * kHuge;
    data_ = reinterpret_cast<char*>(start);
    reserved_ = reserved;
    EXPECT_EQ(map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1), 0);
    EXPECT_EQ(madvise(data_, bytes_, advice), 0);
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() { munmap(base_, reserved_); }

  int map(int protection, int flags, int fd) {
    return mmap(data_, bytes_, protection, flags | MAP_FIXED, fd, 0) == data_ ? 0 : errno;
  }
  [[nodiscard]] char* data() const { return data_; }
  [[nodiscard]] std::uint64_t pages() const { return bytes_ / kPage; }
  [[nodiscard]] std::uint64_t first() const { return vpn(data_); }
  [[nodiscard]] std::vector<Range> range() const { return {{first(), pages()}}; }
  [[nodiscard]] char* page(std::uint64_t i) const { return data_ + i * kPage; }
  void write(std::uint64_t i) const { *static_cast<volatile char*>(page(i)) = 1; }
  void read(std::uint64_t i) const { (void)*static_cast<volatile char*>(page(i)); }
  void write_all() const {
    for (std::uint64_t i = 0; i < pages(); ++i) write(i);
  }

 private:
  std::uint64_t bytes_, reserved_ = 0;
  void* base_ = nullptr;
  char* data_ = nullptr;
};

inline std::set<std::uint64_t> random_pages(std::uint64_t count, std::uint64_t of, unsigned seed) {
  std::mt19937_64 random(seed);
  std::set<std::uint64_t> chosen;
  while (chosen.size() < count) chosen.insert(random() % of);
  return chosen;
}

/// Region-relative numbers of the entries for which `which` holds.
inline std::set<std::uint64_t> select(const Pass& pass, const Region& region,
                                      const std::function<bool(const Page&)>& which) {
  std::set<std::uint64_t> chosen;
  for (const auto& [first, page] : pass.pages)
    if (which(page)) chosen.insert(first - region.first());
  return chosen;
}
inline std::set<std::uint64_t> accessed(const Pass& pass, const Region& region) {
  return select(pass, region, [](const Page& p) { return p.accessed; });
}
inline std::set<std::uint64_t> dirty(const Pass& pass, const Region& region) {
  return select(pass, region, [](const Page& p) { return p.dirty; });
}

inline void expect_good(const Pass& pass) {
  EXPECT_EQ(pass.error, 0) << std::strerror(pass.error);
  EXPECT_EQ(pass.malformed, "");
}

inline std::uint64_t read_counter(const char* path, const std::string& name) {
  std::ifstream file(path);
  std::string word;
  std::uint64_t value = 0;
  while (file >> word)
    if ((word == name || word == name + ":") && file >> value) return value;
  ADD_FAILURE() << "no " << name << " in " << path;
  return 0;
}

/// /proc/PID/pagemap.
class Pagemap {
 public:
  explicit Pagemap(const std::string& pid)
      : fd_(open(("/proc/" + pid + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC)) {
    EXPECT_GE(fd_, 0) << std::strerror(errno);
  }
  Pagemap(const Pagemap&) = delete;
  Pagemap& operator=(const Pagemap&) = delete;
  ~Pagemap() { close(fd_); }
  /// The entries of as many pages as `entries` has room for.
  void read(std::uint64_t first_page, std::vector<std::uint64_t>& entries) const {
    EXPECT_EQ(pread(fd_, entries.data(), entries.size() * 8, static_cast<off_t>(first_page * 8)),
              static_cast<ssize_t>(entries.size() * 8));
  }

 private:
  int fd_;
};

/// A child process that runs `body` and then waits to be killed.
class Child {
 public:
  enum class Start { kWait, kDoNotWait };
  explicit Child(const std::function<void()>& body, Start start = Start::kWait) {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ == 0) {
      body();
      if (write(ends[1], "r", 1) != 1) _exit(3);
      for (;;) pause();
    }
    close(ends[1]);
    done_ = ends[0];
    if (start == Start::kWait) {
      EXPECT_TRUE(wait_ready());
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    end();
    close(done_);
  }
  void end() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  /// The body is done.
  [[nodiscard]] bool wait_ready() const {
    char c = 0;
    return read(done_, &c, 1) == 1;
  }

 private:
  pid_t pid_ = 0;
  int done_ = -1;
};

class Kmod : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(device_.opened()) << std::strerror(device_.error()); }
  void attach_to_self() { ASSERT_EQ(device_.attach(getpid()), 0); }
  Device device_;
};

}  // namespace thermocline::labtest
