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
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "base/text.h"
#include "emulation/timing/mark.h"

namespace {

using thermocline::fail_errno;
using thermocline::Result;

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kHuge = 2 * kMiB;
constexpr std::size_t kLine = 64;
constexpr int kBind = 2;  // MPOL_BIND
/// Hops after which nothing modified is left in the caches, whose write-backs would be load.
constexpr std::size_t kWarmHops = 40'000;

double now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

std::uint64_t next_random(std::uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

/// Memory on one node, in huge pages where the guest gives them, so that the chase sees the memory
/// and not the page walk.
class Buffer {
 public:
  static Result<Buffer> map(std::size_t size, int node, int advice) {
    void* const p = ::mmap(nullptr, size + kHuge, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return fail_errno(errno, "can't map memory");
    const auto at = (reinterpret_cast<std::uintptr_t>(p) + kHuge - 1) & ~(kHuge - 1);
    Buffer buffer(p, size, reinterpret_cast<char*>(at));
    const unsigned long mask = 1UL << node;
    if (::syscall(SYS_mbind, buffer.data_, size, kBind, &mask, 64UL, 0UL) != 0)
      return fail_errno(errno, fmt::format("can't bind memory to node {}", node));
    ::madvise(buffer.data_, size, advice);
    return buffer;
  }
  void release() { ::munmap(base_, size_ + kHuge); }
  [[nodiscard]] char* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  Buffer(void* base, std::size_t size, char* data) : base_(base), size_(size), data_(data) {}
  void* base_;
  std::size_t size_;
  char* data_;
};

/// Every line points to the next one of one random cycle.
void make_cycle(const Buffer& buffer) {
  const std::size_t lines = buffer.size() / kLine;
  std::vector<std::uint32_t> order(lines);
  std::iota(order.begin(), order.end(), 0u);
  std::uint64_t state = 88172645463325252u;
  for (std::size_t i = lines - 1; i > 0; --i)
    std::swap(order[i], order[next_random(state) % (i + 1)]);
  for (std::size_t i = 0; i < lines; ++i)
    *reinterpret_cast<char**>(buffer.data() + kLine * order[i]) =
        buffer.data() + kLine * order[(i + 1) % lines];
}

/// Nanoseconds a hop.
double chase(char*& at, std::size_t hops) {
  const double begin = now_ns();
  for (std::size_t i = 0; i < hops; ++i) at = *reinterpret_cast<char* volatile*>(at);
  return (now_ns() - begin) / static_cast<double>(hops);
}

nlohmann::json measure_node(int node, unsigned long bandwidth_mb, unsigned long background_mb,
                            std::size_t size, std::size_t hops, Buffer& buffer) {
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
  auto buffer = Buffer::map(kPages * 4096, fast, MADV_NOHUGEPAGE);
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
  buffer->release();
  return out;
}

constexpr std::size_t kSize = 32 * kMiB;

int only_chase(int node, std::size_t hops, std::uint64_t start_s) {
  auto buffer = Buffer::map(kSize, node, MADV_HUGEPAGE);
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
  auto buffer = Buffer::map(size, node, MADV_NOHUGEPAGE);
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
    auto buffer = Buffer::map(kSize, last, MADV_HUGEPAGE);
    if (!buffer) {
      fmt::print(stderr, "timing_probe: {}\n", buffer.error().message);
      return 1;
    }
    out["nodes"].push_back(measure_node(last, *bandwidth, *background, kSize, kHops, *buffer));
    buffer->release();
  }
  if (first < 0) {
    fmt::print(stderr, "timing_probe: name the nodes to measure\n");
    return 2;
  }
  out["kernel"] = measure_kernel(first, last == first ? -1 : last);
  fmt::print("{}\n", out.dump());
  return 0;
}
