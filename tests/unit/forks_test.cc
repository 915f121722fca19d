// SPDX-License-Identifier: Apache-2.0
// What tells a fork's memory from memory that only has the same addresses.
#include "tracking/forks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include <cerrno>
#include <cstring>
#include <map>

namespace thermocline {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

/// Processes with a stat and a pagemap.
class Machine final : public System {
 public:
  Result<std::string> read_file(const std::string& p) const override {
    const auto found = files.find(p);
    if (found == files.end()) return fail(ErrorKind::kNotFound, "no {}", p);
    return found->second;
  }
  Result<std::vector<std::string>> list_dir(const std::string& p) const override {
    return fail(ErrorKind::kNotFound, "no {}", p);
  }
  bool exists(const std::string&) const override { return false; }
  Result<std::string> read_link_name(const std::string& p) const override {
    return fail(ErrorKind::kNotFound, "no {}", p);
  }
  Nanoseconds now() const override { return {}; }
  Nanoseconds process_cpu_time() const override { return {}; }
  Result<UniqueFd> open_device(const std::string& path, int) override {
    // Descriptors far beyond any real one, by process: closing them does nothing.
    for (const int pid : {1, 2})
      if (path == fmt::format("/proc/{}/pagemap", pid)) return UniqueFd((1 << 30) + pid);
    return fail(ErrorKind::kPermission, "no {}", path);
  }
  int ioctl(int, unsigned long, void*) override { return -ENOTTY; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -1;
  }
  long pread(int fd, std::span<std::byte> into, std::uint64_t offset) const override {
    const auto& frames = fd == (1 << 30) + 1 ? first : second;
    const auto found = frames.find(offset / 8);
    const std::uint64_t entry =
        found == frames.end() ? 0 : (std::uint64_t{1} << 63 | found->second);
    std::memcpy(into.data(), &entry, sizeof(entry));
    return static_cast<long>(into.size());
  }
  Result<UniqueFd> pidfd_open(Pid) override { return fail(ErrorKind::kNotFound, "none"); }
  bool pidfd_exited(int) const override { return false; }

  std::map<std::string, std::string> files;
  std::map<std::uint64_t, std::uint64_t> first, second;  // page -> frame
};

TEST(Forks, AForkThatHasNotExecedHasAParent) {
  Machine machine;
  machine.files["/proc/2/stat"] = "2 (a) b) c) S 1 2 2 0 -1 4194368 0 0";  // with 0x40
  machine.files["/proc/3/stat"] = "3 (a) S 1 2 2 0 -1 4194304 0 0";
  machine.files["/proc/4/stat"] = "4 (a) S 0 2 2 0 -1 64 0 0";
  machine.files["/proc/5/stat"] = "5 (a) S";
  machine.files["/proc/6/stat"] = "nonsense";
  EXPECT_EQ(parent_of_fork(machine, Pid(2)), Pid(1));
  for (const int pid : {3, 4, 5, 6, 7})
    EXPECT_EQ(parent_of_fork(machine, Pid(pid)), std::nullopt) << pid;
}

TEST(Forks, SameAddressesAreNotSameMemory) {
  Machine machine;
  const std::vector<ScanRange> ranges{{Vpn(1000), PageCount(1024)},
                                      {Vpn(5000), PageCount(1024)},
                                      {Vpn(9000), PageCount(1024)},
                                      {Vpn(20000), PageCount(1024)}};
  for (std::uint64_t i = 0; i < 1024; ++i) {
    machine.first[1000 + i] = machine.second[1000 + i] = 100 + i;
    machine.first[5000 + i] = 10000 + i;  // the child has mapped something else there
    machine.second[5000 + i] = 20000 + i;
    // A third was copied by now, and a part was never in memory.
    if (i >= 512) continue;
    machine.first[9000 + i] = 30000 + i;
    machine.second[9000 + i] = i % 3 == 0 ? 40000 + i : 30000 + i;
  }
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const auto shared = still_shared(machine, Pid(1), Pid(2), ranges, seed);
    ASSERT_THAT(shared, SizeIs(2)) << seed;
    EXPECT_EQ(shared[0].first, Vpn(1000));
    EXPECT_EQ(shared[1].first, Vpn(9000));
  }
  EXPECT_THAT(still_shared(machine, Pid(1), Pid(7), ranges, 0), IsEmpty()) << "may not be read";
}

TEST(Forks, TheZeroPageIsNobodysMemory) {
  // A few pages of it are written, by each for itself; of the others both only read.
  constexpr std::size_t kPages = 1024;
  void* const at = ::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(at, MAP_FAILED);
  ASSERT_EQ(::madvise(at, kPages * kPageSize, MADV_NOHUGEPAGE), 0);
  auto* const memory = static_cast<volatile char*>(at);
  const auto touch = [&] {
    for (std::size_t i = 0; i < kPages; ++i)
      if (i % 8 == 0)
        memory[i * kPageSize] = 1;
      else
        (void)memory[i * kPageSize];
  };
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    touch();
    (void)!::write(ready[1], "r", 1);
    for (;;) ::pause();
  }
  touch();
  char word = 0;
  ASSERT_EQ(::read(ready[0], &word, 1), 1);
  const auto system = make_real_system();
  const std::vector<ScanRange> ranges{
      {Vpn::of_address(reinterpret_cast<std::uint64_t>(at)), PageCount(kPages)}};
  for (std::uint64_t seed = 0; seed < 8; ++seed)
    EXPECT_THAT(still_shared(*system, Pid(::getpid()), Pid(child), ranges, seed), IsEmpty());
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::munmap(at, kPages * kPageSize);
}

}  // namespace
}  // namespace thermocline
