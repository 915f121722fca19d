// SPDX-License-Identifier: Apache-2.0
// cross_nodes FIRST SECOND: saves and restores processor registers in a block that begins on node
// FIRST and ends on node SECOND, and takes a signal on such a stack. Exit status 0: the bytes are
// the same as in ordinary memory. QEMU 10.0 crashes here when SECOND is CXL memory and it isn't
// mended (emulation/lab/emulator_fault.h).
#include <immintrin.h>
#include <numaif.h>
#include <sys/mman.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kSaved = 512;  ///< bytes of an FXSAVE area

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::exit(1);
}

/// Pages on the two nodes in turn: FIRST, SECOND, FIRST, ...
std::byte* alternating_pages(std::size_t pages, const std::array<unsigned long, 2>& nodes) {
  void* const memory =
      mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) give_up("mmap");
  auto* const bytes = static_cast<std::byte*>(memory);
  for (std::size_t n = 0; n < pages; ++n) {
    const unsigned long mask = 1ul << nodes[n % 2];
    if (mbind(bytes + n * kPage, kPage, MPOL_BIND, &mask, 8 * sizeof mask, 0) != 0)
      give_up("mbind");
    bytes[n * kPage] = std::byte{1};
  }
  return bytes;
}

__attribute__((target("fxsr"))) bool registers_survive(std::byte* pages) {
  alignas(16) static std::array<std::byte, kSaved> ordinary;
  _fxsave64(ordinary.data());
  std::byte* const across = pages + kPage - kSaved / 2;
  _fxsave64(across);
  _fxrstor64(across);
  // Bytes from 416 on belong to software.
  return std::memcmp(across, ordinary.data(), 416) == 0;
}

volatile std::sig_atomic_t signals_taken = 0;

/// The kernel saves all registers on the signal's stack, some 2.5 KiB, and restores them from it.
bool signal_survives(std::byte* pages) {
  stack_t stack{};
  stack.ss_sp = pages;
  stack.ss_size = 7 * kPage + kPage / 4;  // its top lies in a page of SECOND
  if (sigaltstack(&stack, nullptr) != 0) give_up("sigaltstack");
  struct sigaction action {};
  action.sa_flags = SA_ONSTACK;
  action.sa_handler = [](int) { signals_taken = signals_taken + 1; };
  if (sigaction(SIGUSR1, &action, nullptr) != 0) give_up("sigaction");
  for (int i = 0; i < 100; ++i) std::raise(SIGUSR1);
  return signals_taken == 100;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: cross_nodes FIRST SECOND\n", stderr);
    return 2;
  }
  const std::array<unsigned long, 2> nodes = {std::strtoul(argv[1], nullptr, 10),
                                              std::strtoul(argv[2], nullptr, 10)};
  std::byte* const pages = alternating_pages(8, nodes);
  if (!registers_survive(pages)) {
    std::puts("FXSAVE across two pages gave other bytes than in one");
    return 1;
  }
  if (!signal_survives(pages)) {
    std::printf("%d of 100 signals were taken\n", static_cast<int>(signals_taken));
    return 1;
  }
  return 0;
}
