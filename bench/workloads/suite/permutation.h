// SPDX-License-Identifier: Apache-2.0
// A shuffled order of 0 to n - 1 that takes no memory: where to find the i-th is computed.
#pragma once

#include <bit>
#include <cstdint>

#include "bench/workloads/random.h"

namespace thermocline::workloads {

class Permutation {
 public:
  /// *Requires*: 1 <= count <= 2^32.
  constexpr Permutation(std::uint64_t count, std::uint64_t seed)
      : count_(count),
        mask_(std::bit_ceil(count) - 1),
        shift_(static_cast<unsigned>(std::bit_width(mask_)) / 2 + 1),
        add_(mix64(seed)) {}

  /// *Requires*: i < count. Another result for each i, below count as well.
  [[nodiscard]] constexpr std::uint64_t operator()(std::uint64_t i) const {
    // Each step permutes the numbers below a power of two: odd factors and sums carry low bits
    // up, shifts bring high bits down. What leaves the range goes round again until it is back;
    // that ends, as the cycle it is on began inside.
    do {
      i = (i * 0x9e3779b97f4a7c15 + add_) & mask_;
      i ^= i >> shift_;
      i = (i * 0xbf58476d1ce4e5b9 + (add_ >> 32)) & mask_;
      i ^= i >> shift_;
      i = (i * 0x94d049bb133111eb) & mask_;
    } while (i >= count_);
    return i;
  }

 private:
  std::uint64_t count_;
  std::uint64_t mask_;
  unsigned shift_;
  std::uint64_t add_;
};

}  // namespace thermocline::workloads
