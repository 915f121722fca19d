// SPDX-License-Identifier: Apache-2.0
// shared_set FAST-NODE SLOW-NODE PAGES: a segment of shared memory, all of it on the slow node at
// first, that eight processes map. A quarter of its pages is hot, each of them touched by one of
// the processes over and over; the first process, the oldest, maps the segment and never touches
// it. Runs until SIGTERM; then prints how many hot and cold pages are on the fast node.
#include <numaif.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr std::size_t kPage = 4096;
constexpr unsigned kProcesses = 8;

volatile sig_atomic_t stopped = 0;

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::exit(1);
}

bool is_hot(std::size_t page) {
  return page % 16 < 4;
}

void touch(volatile char* segment, std::size_t pages, unsigned process) {
  std::size_t number = 0;
  for (std::size_t page = 0; page < pages; ++page)
    if (is_hot(page) && number++ % (kProcesses - 1) + 1 == process)
      segment[page * kPage] = static_cast<char>(segment[page * kPage] + 1);
}

char* map(int file, std::size_t pages) {
  void* const at = mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (at == MAP_FAILED) give_up("mmap");
  return static_cast<char*>(at);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: shared_set FAST-NODE SLOW-NODE PAGES\n", stderr);
    return 2;
  }
  const int fast = std::atoi(argv[1]);
  const unsigned long slow_mask = 1ul << std::atoi(argv[2]);
  const auto pages = static_cast<std::size_t>(std::atoi(argv[3]));
  const int file = static_cast<int>(memfd_create("shared_set", 0));
  if (file < 0 || ftruncate(file, static_cast<off_t>(pages * kPage)) != 0) give_up("memfd");
  if (set_mempolicy(MPOL_BIND, &slow_mask, 64) != 0) give_up("set_mempolicy");
  char* segment = map(file, pages);
  std::memset(segment, 1, pages * kPage);
  if (set_mempolicy(MPOL_DEFAULT, nullptr, 0) != 0) give_up("set_mempolicy");
  munmap(segment, pages * kPage);

  std::signal(SIGTERM, [](int) { stopped = 1; });
  std::array<pid_t, kProcesses> children{};
  for (unsigned process = 1; process < kProcesses; ++process) {
    children[process] = fork();
    if (children[process] < 0) give_up("fork");
    if (children[process] != 0) continue;
    // At an address of its own.
    void* const other =
        mmap(nullptr, (process + 3) * 77 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (other == MAP_FAILED) give_up("mmap");
    segment = map(file, pages);
    // The last one reads everything once, so that cold pages are mapped by somebody.
    volatile char sum = 0;
    if (process == kProcesses - 1)
      for (std::size_t page = 0; page < pages; ++page)
        sum = static_cast<char>(sum + segment[page * kPage]);
    while (stopped == 0 && getppid() != 1) {
      touch(segment, pages, process);
      usleep(2000);
    }
    _exit(0);
  }
  segment = map(file, pages);
  std::puts("ready");
  std::fflush(stdout);
  while (stopped == 0) pause();
  for (const pid_t child : children)
    if (child > 0) kill(child, SIGTERM);
  while (wait(nullptr) > 0) {
  }
  std::size_t hot_fast = 0, cold_fast = 0, hot = 0;
  std::vector<void*> addresses(pages);
  std::vector<int> nodes(pages, -1);
  for (std::size_t page = 0; page < pages; ++page) {
    addresses[page] = segment + page * kPage;
    volatile char read = segment[page * kPage];
    (void)read;
  }
  if (move_pages(0, pages, addresses.data(), nullptr, nodes.data(), 0) != 0) give_up("move_pages");
  for (std::size_t page = 0; page < pages; ++page) {
    hot += is_hot(page);
    if (nodes[page] == fast) ++(is_hot(page) ? hot_fast : cold_fast);
  }
  std::printf("{\"hot\": %zu, \"hot_fast\": %zu, \"cold\": %zu, \"cold_fast\": %zu}\n", hot,
              hot_fast, pages - hot, cold_fast);
  return 0;
}
