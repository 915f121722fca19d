// SPDX-License-Identifier: Apache-2.0
// ballast: takes a NUMA node's free memory until programs can only take a given size of it, so that
// a test can choose how much fast memory there is. Its pages are bound to the node and locked:
// neither the kernel's demotion nor Thermocline moves them. Runs until it is stopped.
#include <numaif.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/text.h"
#include "bench/workloads/command_line.h"
#include "bench/workloads/common.h"

namespace thermocline::workloads {
namespace {

/// Value of "Node 0 MemFree: 123 kB" in the node's meminfo.
Result<Bytes> free_bytes(const System& system, int node) {
  const std::string path = fmt::format("/sys/devices/system/node/node{}/meminfo", node);
  TC_ASSIGN(const std::string text, system.read_file(path));
  for (const std::string_view line : split(text, '\n')) {
    const auto w = words(line);
    if (w.size() < 4 || w[2] != "MemFree:") continue;
    TC_ASSIGN(const std::uint64_t kib, parse_u64(w[3]));
    return Bytes(kib << 10);
  }
  return fail(ErrorKind::kFailure, "{} has no MemFree line", path);
}

/// Sum of the low watermarks of the node's zones: ordinary allocations leave that much alone and go
/// to another node instead. It can be much: a guest with huge pages on keeps 5 % of its memory.
Result<Bytes> low_watermark(const System& system, int node) {
  TC_ASSIGN(const std::string text, system.read_file("/proc/zoneinfo"));
  bool mine = false;
  std::uint64_t pages = 0;
  for (const std::string_view line : split(text, '\n')) {
    const auto w = words(line);
    if (w.size() >= 4 && w[0] == "Node")
      mine = w[1] == std::to_string(node) + ",";
    else if (mine && w.size() == 2 && w[0] == "low") {
      TC_ASSIGN(const std::uint64_t low, parse_u64(w[1]));
      pages += low;
    }
  }
  return bytes_of(PageCount(pages));
}

Result<int> run(int argc, char** argv) {
  CLI::App app{"ballast: fills a NUMA node until programs can take only --leave more bytes of it."};
  int node = 0;
  std::string leave_text;
  std::string ready_file;
  app.add_option("--node", node)->required();
  app.add_option(
         "--leave", leave_text,
         "bytes that programs can still take there, e.g. 48M: free memory above the low watermark")
      ->required();
  app.add_option("--ready-file", ready_file, "create this file when the node is filled");
  TC_ASSIGN(const bool go_on, understand(app, "ballast", argc, argv));
  if (!go_on) return 0;
  TC_ASSIGN(const Bytes leave, parse_bytes(leave_text));
  const std::unique_ptr<System> system = make_real_system();
  TC_TRY(check_node(*system, node));
  if (leave.get() == 0) return fail(ErrorKind::kUsage, "--leave must be more than 0");
  TC_ASSIGN(const Bytes floor, low_watermark(*system, node));
  const Bytes target = leave + floor;
  TC_ASSIGN(Bytes free, free_bytes(*system, node));
  if (free <= target)
    return fail(ErrorKind::kFailure,
                "node {} has {} free, of which the kernel keeps {}: less than the {} to leave",
                node, format_bytes(free), format_bytes(floor), format_bytes(leave));

  const std::size_t size = free.get();
  void* const memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return fail_errno(errno, "can't map " + format_bytes(free));
  ::madvise(memory, size, MADV_NOHUGEPAGE);
  std::array<unsigned long, 16> mask{};
  const auto bits = static_cast<unsigned>(8 * sizeof(unsigned long));
  if (static_cast<unsigned>(node) >= mask.size() * bits)
    return fail(ErrorKind::kUsage, "node {} is too large a number", node);
  mask[static_cast<unsigned>(node) / bits] = 1ul << (static_cast<unsigned>(node) % bits);
  if (::mbind(memory, size, MPOL_BIND, mask.data(), mask.size() * bits, MPOL_MF_STRICT) != 0)
    return fail_errno(errno, fmt::format("can't bind memory to node {}", node));

  // mlock() faults the pages in. Steps of 1/8 of what is left, then single pages' worth, so that
  // the counters of the kernel, which lag a little, are read often near the end.
  std::size_t taken = 0;
  while (free > target && taken < size && !stop_requested) {
    const std::uint64_t excess = (free - target).get();
    const std::size_t step = std::min<std::size_t>(
        size - taken, std::max<std::uint64_t>(excess / 8 / kPageSize, 16) * kPageSize);
    if (::mlock(static_cast<std::byte*>(memory) + taken, step) != 0)
      return fail_errno(errno, fmt::format("can't lock {} on node {}; run as root or raise "
                                           "RLIMIT_MEMLOCK",
                                           format_bytes(Bytes(taken + step)), node));
    taken += step;
    TC_ASSIGN(free, free_bytes(*system, node));
  }
  fmt::print("ballast: pid {}, {} locked on node {}, {} of it left for programs\n", ::getpid(),
             format_bytes(Bytes(taken)), node, format_bytes(free.minus_floor(floor)));
  std::fflush(stdout);
  TC_TRY(write_ready_file(ready_file));
  while (!stop_requested) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  return 0;
}

}  // namespace
}  // namespace thermocline::workloads

int main(int argc, char** argv) {
  thermocline::workloads::catch_stop_signals();
  return thermocline::workloads::run_program(
      "ballast", [&] { return thermocline::workloads::run(argc, argv); });
}
