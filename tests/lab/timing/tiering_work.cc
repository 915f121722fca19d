// SPDX-License-Identifier: Apache-2.0
// tiering_work PHASE NUMBER...: makes the kernel do one kind of work at a time, between marks
// (emulation/timing/mark.h) that have the phase's name.
//   moves ROUNDS      moves 1024 pages from node to node
//   hints MS          reads pages of node 1 for so long while the kernel's NUMA balancing promotes
//   faults ROUNDS     maps, touches and unmaps 256 pages, and asks the system this and that
#include <fcntl.h>
#include <numaif.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "emulation/timing/mark.h"

namespace {

constexpr std::size_t kPage = 4096;

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::exit(1);
}

/// Pages filled on a node, with no policy left that would keep them there.
char* pages_on(unsigned long node, std::size_t pages) {
  void* const memory =
      ::mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) give_up("mmap");
  const unsigned long mask = 1ul << node;
  if (::mbind(memory, pages * kPage, MPOL_BIND, &mask, 8 * sizeof mask, 0) != 0) give_up("mbind");
  std::memset(memory, 1, pages * kPage);
  if (::mbind(memory, pages * kPage, MPOL_DEFAULT, nullptr, 0, 0) != 0) give_up("mbind");
  return static_cast<char*>(memory);
}

void moves(unsigned long rounds) {
  constexpr std::size_t kPages = 1024;
  char* const memory = pages_on(0, kPages);
  std::vector<void*> addresses(kPages);
  for (std::size_t i = 0; i < kPages; ++i) addresses[i] = memory + i * kPage;
  std::vector<int> status(kPages);
  thermocline_timing_mark("moves");
  for (unsigned long round = 0; round < rounds; ++round) {
    const std::vector<int> target(kPages, round % 2 == 0 ? 1 : 0);
    if (::move_pages(0, kPages, addresses.data(), target.data(), status.data(), MPOL_MF_MOVE) != 0)
      give_up("move_pages");
  }
  thermocline_timing_mark("end");
  ::munmap(memory, kPages * kPage);
}

void set_numa_balancing(const char* mode) {
  const int fd = ::open("/proc/sys/kernel/numa_balancing", O_WRONLY | O_CLOEXEC);
  if (fd < 0 || ::write(fd, mode, 1) != 1) give_up("numa_balancing");
  ::close(fd);
}

double now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

void hints(unsigned long milliseconds) {
  constexpr std::size_t kPages = 2048;
  char* const memory = pages_on(1, kPages);
  set_numa_balancing("2");
  thermocline_timing_mark("hints");
  const double end = now() + static_cast<double>(milliseconds) / 1e3;
  while (now() < end)
    for (std::size_t i = 0; i < kPages; ++i)
      static_cast<void>(*static_cast<volatile char*>(memory + i * kPage));
  thermocline_timing_mark("end");
  set_numa_balancing("0");
  ::munmap(memory, kPages * kPage);
}

void faults(unsigned long rounds) {
  constexpr std::size_t kPages = 256;
  std::array<char, 4096> buffer{};
  thermocline_timing_mark("faults");
  for (unsigned long round = 0; round < rounds; ++round) {
    char* const memory = static_cast<char*>(::mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE,
                                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (std::size_t i = 0; i < kPages; ++i) memory[i * kPage] = 1;
    ::munmap(memory, kPages * kPage);
    const int fd = ::open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || ::read(fd, buffer.data(), buffer.size()) <= 0) give_up("/proc/self/status");
    ::close(fd);
    for (int i = 0; i < 100; ++i) ::syscall(SYS_getppid);
  }
  thermocline_timing_mark("end");
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view phase = argv[i];
    const unsigned long number = std::strtoul(argv[i + 1], nullptr, 10);
    if (phase == "moves")
      moves(number);
    else if (phase == "hints")
      hints(number);
    else if (phase == "faults")
      faults(number);
    else
      return 2;
    std::printf("%s %.9f\n", argv[i], now());
  }
  return 0;
}
