// SPDX-License-Identifier: Apache-2.0
#include "topology/latency_probe.h"

#include <numaif.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>

#ifdef __x86_64__
#include <emmintrin.h>
#endif

namespace thermocline {

namespace {

constexpr std::size_t kLine = 64;
/// Every other line: processors fetch lines in pairs.
constexpr std::size_t kStep = 2 * kLine;
constexpr std::size_t kLoads = kPageSize / kStep;
constexpr std::size_t kRounds = 9;

/// Where the page at an address lies now; -1 = nobody can tell.
int node_of(const std::byte* page) {
  int node = -1;
  return ::get_mempolicy(&node, nullptr, 0, const_cast<std::byte*>(page),
                         MPOL_F_NODE | MPOL_F_ADDR) == 0
             ? node
             : -1;
}

#ifdef __x86_64__
Nanoseconds median_of(std::span<Nanoseconds> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}
#endif

}  // namespace

Result<LatencyProbe> LatencyProbe::open(NodeId node) {
#ifdef __x86_64__
  constexpr int kMostNodes = 1024;
  if (node.get() < 0 || node.get() >= kMostNodes)
    return fail(ErrorKind::kUnsupported, "node {} is none that can be measured", node.get());
  void* memory =
      ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return fail_errno(errno, "can't take a page to measure latency");
  SharedMapping page({static_cast<std::byte*>(memory), kPageSize});
  std::array<unsigned long, kMostNodes / 64> nodes{};
  nodes[static_cast<std::size_t>(node.get()) / 64] |= 1ul << (node.get() % 64);
  // Binding only tells whether there is such a node: on a full one a bound page would have the
  // kernel kill somebody to make room.
  const auto ask = [&](int policy) {
    return ::mbind(memory, kPageSize, policy, nodes.data(), kMostNodes, 0) == 0;
  };
  if (!ask(MPOL_BIND) || !ask(MPOL_PREFERRED))
    return fail(ErrorKind::kUnsupported, "can't take a page of node {}: its latency stays nominal",
                node.get());
  // A ring through the lines in an order that no prefetcher expects: 13 and the count of lines have
  // no common divisor.
  static_assert(kLoads % 13 != 0);
  auto* const bytes = page.bytes().data();
  for (std::size_t i = 0; i < kLoads; ++i) {
    void* next = bytes + (i + 13) % kLoads * kStep;
    *reinterpret_cast<void**>(bytes + i * kStep) = next;
  }
  if (node_of(bytes) != node.get())
    return fail(ErrorKind::kNotFound, "node {} has no page to spare to measure its latency",
                node.get());
  // The kernel demotes even pages with a policy, but not locked ones.
  (void)::mlock(memory, kPageSize);
  return LatencyProbe(std::move(page), node);
#else
  (void)node;
  return fail(ErrorKind::kUnsupported, "latency can't be measured on this processor");
#endif
}

bool LatencyProbe::in_place() const {
  return node_of(page_.bytes().data()) == node_.get();
}

Nanoseconds LatencyProbe::measure(const System& system) {
#ifdef __x86_64__
  if (!in_place()) return Nanoseconds{};
  std::byte* const bytes = page_.bytes().data();
  std::array<Nanoseconds, kRounds> rounds;
  for (Nanoseconds& round : rounds) {
    for (std::size_t i = 0; i < kLoads; ++i) _mm_clflush(bytes + i * kStep);
    _mm_mfence();
    const void* volatile at = bytes;
    const Nanoseconds begun = system.now();
    for (std::size_t i = 0; i < kLoads; ++i) at = *static_cast<void* const*>(const_cast<void*>(at));
    round = (system.now() - begun) / static_cast<int>(kLoads);
  }
  last_[measured_++ % kKept] = median_of(rounds);
  if (measured_ < kEnough) return Nanoseconds{};
  auto known = last_;
  return median_of(std::span(known).first(std::min(measured_, kKept)));
#else
  (void)system;
  return Nanoseconds{};
#endif
}

}  // namespace thermocline
