// SPDX-License-Identifier: Apache-2.0
// A machine with one process, 42, whose page map a test keeps, and files of words by page frame.
#pragma once

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/system.h"

namespace thermocline {

inline constexpr std::uint64_t kPresent = std::uint64_t{1} << 63, kAlone = std::uint64_t{1} << 56,
                               kSoftDirty = std::uint64_t{1} << 55;

/// Three mappings, on one node or on two: memory block 0 is node 0's, block 1 node 1's.
class ProcMachine final : public System {
 public:
  Result<std::string> read_file(const std::string& path) const override {
    const auto at = files.find(path);
    if (at == files.end()) return fail_errno(ENOENT, "can't read " + path);
    return at->second;
  }
  Status write_file(const std::string& path, std::string_view text) override {
    written.push_back(path + "=" + std::string(text));
    return {};
  }
  Result<std::vector<std::string>> list_dir(const std::string& path) const override {
    if (path == "/sys/devices/system/node") return std::vector<std::string>{"node0", "node1"};
    if (path == "/sys/devices/system/node/node0") return std::vector<std::string>{"memory0"};
    if (path == "/sys/devices/system/node/node1") return std::vector<std::string>{"memory1"};
    return fail_errno(ENOENT, "can't list " + path);
  }
  bool exists(const std::string& path) const override { return path != absent; }
  Result<std::string> read_link_name(const std::string& p) const override {
    return fail_errno(ENOENT, "no " + p);
  }
  Nanoseconds now() const override { return time; }
  Nanoseconds process_cpu_time() const override { return {}; }
  Result<UniqueFd> open_device(const std::string& path, int) override {
    UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    opened_[fd.get()] = path;
    return fd;
  }
  Result<UniqueFd> pidfd_open(Pid) override { return open_device("pidfd", 0); }
  int ioctl(int, unsigned long, void*) override { return -ENOTTY; }
  long move_pages(Pid, std::span<void* const> pages, std::span<const int>, std::span<int> status,
                  int) override {
    for (std::size_t i = 0; i < pages.size(); ++i) status[i] = asked_node;
    return 0;
  }
  long pread(int fd, std::span<std::byte> into, std::uint64_t offset) const override {
    const std::string& path = opened_.at(fd);
    const auto file = words.find(path);
    for (std::size_t i = 0; i < into.size() / 8; ++i) {
      const std::uint64_t index = offset / 8 + i;
      std::uint64_t word = 0;
      if (file != words.end()) {
        const auto at = file->second.find(index);
        if (at != file->second.end()) word = at->second;
      } else {
        const auto at = pagemap.find(index);
        word = at != pagemap.end() ? at->second : others;
      }
      std::memcpy(into.data() + i * 8, &word, 8);
    }
    return static_cast<long>(into.size());
  }
  long pwrite(int fd, std::span<const std::byte> from, std::uint64_t offset) override {
    for (std::size_t i = 0; i < from.size() / 8; ++i) {
      std::uint64_t word = 0;
      std::memcpy(&word, from.data() + i * 8, 8);
      words[opened_.at(fd)][offset / 8 + i] |= word;  // as the kernel's bitmap of idle pages does
    }
    return static_cast<long>(from.size());
  }
  bool pidfd_exited(int) const override { return false; }

  std::map<std::string, std::string> files{
      {"/proc/42/stat", "42 (db) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 1000000 100\n"},
      {"/proc/42/maps",
       "10000000-10008000 rw-p 00000000 00:00 0\n"
       "20000000-20004000 rw-s 00000000 00:01 7 /dev/shm/x\n"
       "100000000000-180000000000 rw-p 00000000 00:00 0\n"},
      {"/proc/42/statm", "100 20 0 0 0 0 0\n"},
      {"/sys/devices/system/node/has_memory", "0\n"},
      {"/sys/devices/system/memory/block_size_bytes", "8000000\n"}};
  std::string absent;  ///< a path that isn't there
  std::map<std::uint64_t, std::uint64_t> pagemap;
  std::uint64_t others = kPresent | kSoftDirty | 1;  ///< entries that `pagemap` doesn't have
  std::map<std::string, std::map<std::uint64_t, std::uint64_t>> words;  ///< of other files
  int asked_node = 1;
  Nanoseconds time{1000};
  std::vector<std::string> written;

 private:
  std::map<int, std::string> opened_;
};

}  // namespace thermocline
