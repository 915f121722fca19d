// SPDX-License-Identifier: Apache-2.0
// Measuring the memory of one NUMA node by the machine's own clock: a buffer that lies there, and a
// pointer chase through it. Used inside guests under the timing model and on real machines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"
#include "base/units.h"

namespace thermocline::probe {

inline constexpr std::size_t kLine = 64;

/// CLOCK_MONOTONIC in nanoseconds.
[[nodiscard]] double now_ns();

/// xorshift64; `state` must not be 0.
[[nodiscard]] inline std::uint64_t next_random(std::uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

/// Memory on one node, in huge pages where the machine gives them, so that a chase sees the memory
/// and not the page walk. Not touched yet.
class NodeBuffer {
 public:
  /// `advice`: MADV_HUGEPAGE or MADV_NOHUGEPAGE.
  [[nodiscard]] static Result<NodeBuffer> map(Bytes size, NodeId node, int advice);
  NodeBuffer(NodeBuffer&& o) noexcept;
  NodeBuffer& operator=(NodeBuffer&&) = delete;
  ~NodeBuffer();
  [[nodiscard]] char* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t lines() const { return size_ / kLine; }

 private:
  NodeBuffer(void* base, char* data, std::size_t size) : base_(base), data_(data), size_(size) {}
  void* base_;
  char* data_;
  std::size_t size_;
};

/// Makes every line of the buffer point to the next one of one random cycle; touches all of it.
void make_cycle(const NodeBuffer& buffer);

/// Follows `hops` pointers from `at`; nanoseconds a hop.
double chase(char*& at, std::size_t hops);

}  // namespace thermocline::probe
