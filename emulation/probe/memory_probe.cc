// SPDX-License-Identifier: Apache-2.0
#include "emulation/probe/memory_probe.h"

#include <numaif.h>
#include <sys/mman.h>

#include <cerrno>
#include <ctime>
#include <numeric>
#include <utility>
#include <vector>

namespace thermocline::probe {

namespace {

constexpr std::size_t kHuge = std::size_t{2} << 20;

}  // namespace

double now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

Result<NodeBuffer> NodeBuffer::map(Bytes size, NodeId node, int advice) {
  void* const base = ::mmap(nullptr, size.get() + kHuge, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return fail_errno(errno, "can't map memory");
  const auto at = (reinterpret_cast<std::uintptr_t>(base) + kHuge - 1) & ~(kHuge - 1);
  NodeBuffer buffer(base, reinterpret_cast<char*>(at), size.get());
  std::vector<unsigned long> mask(static_cast<std::size_t>(node.get()) / 64 + 1);
  mask.back() = 1UL << (node.get() % 64);
  if (::mbind(buffer.data_, size.get(), MPOL_BIND, mask.data(), mask.size() * 64 + 1, 0) != 0)
    return fail_errno(errno, fmt::format("can't bind memory to node {}", node.get()));
  ::madvise(buffer.data_, size.get(), advice);
  return buffer;
}

NodeBuffer::NodeBuffer(NodeBuffer&& o) noexcept
    : base_(std::exchange(o.base_, nullptr)), data_(o.data_), size_(o.size_) {}

NodeBuffer::~NodeBuffer() {
  if (base_ != nullptr) ::munmap(base_, size_ + kHuge);
}

void make_cycle(const NodeBuffer& buffer) {
  const std::size_t lines = buffer.lines();
  std::vector<std::uint32_t> order(lines);
  std::iota(order.begin(), order.end(), 0u);
  std::uint64_t state = 88172645463325252u;
  for (std::size_t i = lines - 1; i > 0; --i)
    std::swap(order[i], order[next_random(state) % (i + 1)]);
  for (std::size_t i = 0; i < lines; ++i)
    *reinterpret_cast<char**>(buffer.data() + kLine * order[i]) =
        buffer.data() + kLine * order[(i + 1) % lines];
}

double chase(char*& at, std::size_t hops) {
  const double begin = now_ns();
  char* p = at;
  for (std::size_t i = 0; i < hops; ++i) p = *reinterpret_cast<char* volatile*>(p);
  at = p;
  return (now_ns() - begin) / static_cast<double>(hops);
}

}  // namespace thermocline::probe
