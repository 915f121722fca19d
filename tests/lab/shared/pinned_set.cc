// SPDX-License-Identifier: Apache-2.0
// pinned_set NODE PAGES PINNED: private memory on a node, of which nothing is touched again but a
// few pages. The first PINNED pages are registered as buffers of an io_uring, which holds them for
// as long as that lives. Says "ready", and runs until it is killed.
#include <liburing.h>
#include <numaif.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

int main(int argc, char** argv) {
  constexpr std::size_t kPage = 4096;
  if (argc != 4) {
    std::fputs("usage: pinned_set NODE PAGES PINNED\n", stderr);
    return 2;
  }
  const unsigned long mask = 1ul << std::atoi(argv[1]);
  const auto pages = static_cast<std::size_t>(std::atoi(argv[2]));
  const auto pinned = static_cast<std::size_t>(std::atoi(argv[3]));
  if (set_mempolicy(MPOL_BIND, &mask, 64) != 0) return std::perror("set_mempolicy"), 1;
  void* const at =
      mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return std::perror("mmap"), 1;
  auto* const memory = static_cast<volatile char*>(at);
  std::memset(at, 1, pages * kPage);
  if (set_mempolicy(MPOL_DEFAULT, nullptr, 0) != 0) return std::perror("set_mempolicy"), 1;
  io_uring ring{};
  if (io_uring_queue_init(4, &ring, 0) != 0) return std::fputs("no io_uring\n", stderr), 1;
  const iovec buffer{at, pinned * kPage};
  if (const int rc = io_uring_register_buffers(&ring, &buffer, 1); rc != 0) {
    std::fprintf(stderr, "registering buffers: %s\n", std::strerror(-rc));
    return 1;
  }
  std::puts("ready");
  std::fflush(stdout);
  for (;;) {
    for (std::size_t page = pages - 256; page < pages; ++page)
      memory[page * kPage] = static_cast<char>(memory[page * kPage] + 1);
    usleep(2000);
  }
}
