// SPDX-License-Identifier: Apache-2.0
// A shuffled order of 0 to n - 1 that takes no memory: where to find the i-th is computed.
#pragma once

#include <bit>
#include <cstdint>

#include "bench/workloads/random.h"

namespace thermocline::workloads {

/// Of an odd number, modulo 2^64, by Newton's method: it is its own inverse in its last three bits,
/// and each step doubles how many are right.
[[nodiscard]] consteval std::uint64_t inverse_of(std::uint64_t odd) {
  std::uint64_t inverse = odd;
  for (int right = 3; right < 64; right *= 2) inverse *= 2 - odd * inverse;
  return inverse;
}

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
      i = (i * kA + add_) & mask_;
      i ^= i >> shift_;
      i = (i * kB + (add_ >> 32)) & mask_;
      i ^= i >> shift_;
      i = (i * kC) & mask_;
    } while (i >= count_);
    return i;
  }
  /// The i of which `at` is the result.
  [[nodiscard]] constexpr std::uint64_t inverse(std::uint64_t at) const {
    // The steps backwards. A shift by more than half of the bits undoes itself.
    do {
      at = (at * inverse_of(kC)) & mask_;
      at ^= at >> shift_;
      at = ((at - (add_ >> 32)) * inverse_of(kB)) & mask_;
      at ^= at >> shift_;
      at = ((at - add_) * inverse_of(kA)) & mask_;
    } while (at >= count_);
    return at;
  }

 private:
  static constexpr std::uint64_t kA = 0x9e3779b97f4a7c15, kB = 0xbf58476d1ce4e5b9,
                                 kC = 0x94d049bb133111eb;

  std::uint64_t count_;
  std::uint64_t mask_;
  unsigned shift_;
  std::uint64_t add_;
};

}  // namespace thermocline::workloads
