// SPDX-License-Identifier: Apache-2.0
// Numbers that look random but follow from others: hashes and permutations. Pure.
#pragma once

#include <bit>
#include <cstdint>

namespace thermocline::sim {

/// splitmix64 (Steele, Lea, Flood 2014): a step of it spreads any number over 64 bits.
[[nodiscard]] constexpr std::uint64_t spread(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// A stream of such numbers.
class Lots {
 public:
  explicit Lots(std::uint64_t seed) : state_(spread(seed)) {}
  std::uint64_t next() { return spread(state_++); }
  /// 0 <= x < 1.
  double share() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  /// 0 <= x < n, n > 0; uneven by n / 2^64.
  std::uint64_t below(std::uint64_t n) { return next() % n; }

 private:
  std::uint64_t state_;
};

/// A permutation of 0..n-1, n at most 2^40: a Feistel network over the next even power of two,
/// walked until it lands below n.
class Permutation {
 public:
  Permutation(std::uint64_t n, std::uint64_t seed)
      : n_(n), half_((static_cast<unsigned>(std::bit_width(n > 1 ? n - 1 : 1)) + 1) / 2) {
    for (std::uint64_t& key : keys_) key = spread(seed++ ^ 0x7065726d);
  }
  [[nodiscard]] std::uint64_t operator()(std::uint64_t x) const {
    do x = once(x);
    while (x >= n_);
    return x;
  }

 private:
  [[nodiscard]] std::uint64_t once(std::uint64_t x) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_) - 1;
    std::uint64_t left = x >> half_, right = x & mask;
    for (const std::uint64_t key : keys_) {
      const std::uint64_t mixed = ((right ^ key) * 0x9e3779b97f4a7c15) >> (64 - half_);
      const std::uint64_t next = left ^ (mixed & mask);
      left = right;
      right = next;
    }
    return left << half_ | right;
  }

  std::uint64_t n_;
  unsigned half_;
  std::uint64_t keys_[4] = {};
};

}  // namespace thermocline::sim
