// SPDX-License-Identifier: Apache-2.0
// timing_probe NODE:MB_PER_S:BACKGROUND_MB_PER_S...: measures the memory of nodes with the guest's
// own clock, as any program would: a pointer chase, random updates, streams, and the chase again
// while others load the device from 0 to 95 % of its bandwidth (an order to the timing model,
// emulation/timing/mark.h); then what the kernel's own work costs. Prints JSON; `thermocline lab
// calibrate` reads it.
#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/text.h"
#include "emulation/probe/memory_probe.h"
#include "emulation/timing/mark.h"

namespace {

using thermocline::Bytes;
using thermocline::NodeId;
using thermocline::probe::chase;
using thermocline::probe::make_cycle;
using thermocline::probe::next_random;
using thermocline::probe::NodeBuffer;
using thermocline::probe::now_ns;

constexpr std::size_t kMiB = std::size_t{1} << 20;
/// Hops after which nothing modified is left in the caches, whose write-backs would be load.
constexpr std::size_t kWarmHops = 40'000;

nlohmann::json measure_node(int node, unsigned long bandwidth_mb, unsigned long background_mb,
                            std::size_t size, std::size_t hops, const NodeBuffer& buffer) {
  nlohmann::json out;
  out["node"] = node;
  make_cycle(buffer);
  char* at = buffer.data();
  chase(at, kWarmHops);
  out["chase_ns"] = chase(at, hops);
  nlohmann::json sweep = nlohmann::json::array();
  for (const unsigned percent : {0u, 10u, 20u, 30u, 40u, 50u, 60u, 70u, 75u, 80u, 85u, 90u, 95u}) {
    thermocline_timing_background(static_cast<unsigned>(node), bandwidth_mb * percent / 100);
    chase(at, hops / 20);
    sweep.push_back({{"load_percent", percent}, {"chase_ns", chase(at, hops / 5)}});
  }
  thermocline_timing_background(static_cast<unsigned>(node), background_mb);
  out["sweep"] = std::move(sweep);

  auto* const words = reinterpret_cast<std::uint64_t*>(buffer.data());
  const std::size_t count = size / sizeof(std::uint64_t);
  std::uint64_t state = 1;
  double begin = now_ns();
  for (std::size_t i = 0; i < hops; ++i) {
    const std::uint64_t random = next_random(state);
    words[random % count] ^= random;
  }
  out["update_ns"] = (now_ns() - begin) / static_cast<double>(hops);
  begin = now_ns();
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < count / 2; ++i) sum += words[i];
  out["read_gb_per_s"] = static_cast<double>(size / 2) / (now_ns() - begin);
  // Three arrays; 24 bytes an element, as STREAM counts.
  auto* const a = reinterpret_cast<double*>(buffer.data());
  const std::size_t part = count / 3;
  begin = now_ns();
  for (std::size_t i = 0; i < part; ++i) a[i] = a[part + i] + 3.0 * a[2 * part + i];
  out["triad_gb_per_s"] = static_cast<double>(part * 24) / (now_ns() - begin);
  out["checksum"] = sum & 0xff;
  return out;
}

/// Costs of the kernel that decisions hang on.
nlohmann::json measure_kernel(int fast, int slow) {
  nlohmann::json out;
  constexpr int kCalls = 20'000;
  double begin = now_ns();
  for (int i = 0; i < kCalls; ++i) ::syscall(SYS_getppid);
  out["system_call_ns"] = (now_ns() - begin) / kCalls;
  constexpr std::size_t kPages = 4096;
  auto buffer = NodeBuffer::map(Bytes(kPages * 4096), NodeId(fast), MADV_NOHUGEPAGE);
  if (!buffer) return out;
  begin = now_ns();
  for (std::size_t i = 0; i < kPages; ++i) buffer->data()[i * 4096] = 1;
  out["page_fault_ns"] = (now_ns() - begin) / kPages;
  if (slow >= 0) {
    constexpr std::size_t kMoved = 1024;
    std::vector<void*> pages(kMoved);
    for (std::size_t i = 0; i < kMoved; ++i) pages[i] = buffer->data() + i * 4096;
    std::vector<int> status(kMoved);
    for (const int target : {slow, fast}) {
      const std::vector<int> nodes(kMoved, target);
      begin = now_ns();
      ::syscall(SYS_move_pages, 0, kMoved, pages.data(), nodes.data(), status.data(), 4);
      out[target == slow ? "move_to_slow_ns" : "move_to_fast_ns"] =
          (now_ns() - begin) / static_cast<double>(kMoved);
      for (const int node : status)
        if (node != target) out["pages_not_moved"] = true;
    }
  }
  return out;
}

constexpr std::size_t kSize = 32 * kMiB;

int only_chase(int node, std::size_t hops, std::uint64_t start_s) {
  auto buffer = NodeBuffer::map(Bytes(kSize), NodeId(node), MADV_HUGEPAGE);
  if (!buffer) {
    fmt::print(stderr, "timing_probe: {}\n", buffer.error().message);
    return 1;
  }
  make_cycle(*buffer);
  char* at = buffer->data();
  const timespec start{static_cast<std::time_t>(start_s), 0};
  ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &start, nullptr);
  chase(at, kWarmHops);
  thermocline_timing_mark("begin");
  const double ns = chase(at, hops);
  thermocline_timing_mark("end");
  fmt::print("node {} chase {:.2f} ns\n", node, ns);
  return 0;
}

int spin(int node, std::size_t size, std::uint64_t milliseconds) {
  auto buffer = NodeBuffer::map(Bytes(size), NodeId(node), MADV_NOHUGEPAGE);
  if (!buffer) {
    fmt::print(stderr, "timing_probe: {}\n", buffer.error().message);
    return 1;
  }
  std::fill(buffer->data(), buffer->data() + size, '\1');
  fmt::print("ready\n");
  std::fflush(stdout);
  const double end = now_ns() + static_cast<double>(milliseconds) * 1e6;
  while (now_ns() < end)
    for (std::size_t at = 0; at < size; at += 4096)
      static_cast<void>(*static_cast<volatile char*>(buffer->data() + at));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr std::size_t kHops = 60'000;
  const auto number = [&](int i) {
    return i < argc ? thermocline::parse_u64(argv[i]).value_or(0) : 0;
  };
  const std::string_view verb = argc > 1 ? argv[1] : "";
  if (verb == "chase" && (argc == 4 || argc == 5) && number(3) > 0)
    return only_chase(static_cast<int>(number(2)), number(3), number(4));
  if (verb == "spin" && argc == 5 && number(3) > 0)
    return spin(static_cast<int>(number(2)), number(3) * kMiB, number(4));
  nlohmann::json out;
  out["nodes"] = nlohmann::json::array();
  int first = -1;
  int last = -1;
  for (int i = 1; i < argc; ++i) {
    const auto parts = thermocline::split(argv[i], ':');
    const auto part = [&](std::size_t n) {
      return thermocline::parse_u64(n < parts.size() ? parts[n] : "");
    };
    const auto node = part(0), bandwidth = part(1), background = part(2);
    if (parts.size() != 3 || !node || *node > 63 || !bandwidth || !background) {
      fmt::print(stderr, "timing_probe: wants NODE:MB_PER_S:BACKGROUND_MB_PER_S, not '{}'\n",
                 argv[i]);
      return 2;
    }
    if (first < 0) first = static_cast<int>(*node);
    last = static_cast<int>(*node);
    auto buffer = NodeBuffer::map(Bytes(kSize), NodeId(last), MADV_HUGEPAGE);
    if (!buffer) {
      fmt::print(stderr, "timing_probe: {}\n", buffer.error().message);
      return 1;
    }
    out["nodes"].push_back(measure_node(last, *bandwidth, *background, kSize, kHops, *buffer));
  }
  if (first < 0) {
    fmt::print(stderr, "timing_probe: name the nodes to measure\n");
    return 2;
  }
  out["kernel"] = measure_kernel(first, last == first ? -1 : last);
  fmt::print("{}\n", out.dump());
  return 0;
}
