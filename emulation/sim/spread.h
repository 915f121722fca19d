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

/// A permutation of 0..n-1, n at most 2^40: a Feistel network over the next power of two, walked
/// until it lands below n.
class Permutation {
 public:
  Permutation(std::uint64_t n, std::uint64_t seed) : n_(n) {
    const auto bits = static_cast<unsigned>(std::bit_width(n > 1 ? n - 1 : 1));
    low_bits_ = bits / 2;
    low_mask_ = (std::uint64_t{1} << low_bits_) - 1;
    high_mask_ = (std::uint64_t{1} << (bits - low_bits_)) - 1;
    for (std::uint64_t& key : keys_) key = spread(seed++ ^ 0x7065726d);
  }
  [[nodiscard]] std::uint64_t operator()(std::uint64_t x) const {
    do x = once(x);
    while (x >= n_);
    return x;
  }

 private:
  [[nodiscard]] std::uint64_t once(std::uint64_t x) const {
    std::uint64_t high = x >> low_bits_, low = x & low_mask_;
    for (std::size_t round = 0; round < 4; round += 2) {
      high ^= mixed(low ^ keys_[round]) & high_mask_;
      low ^= mixed(high ^ keys_[round + 1]) & low_mask_;
    }
    return high << low_bits_ | low;
  }
  static std::uint64_t mixed(std::uint64_t x) { return (x * 0x9e3779b97f4a7c15) >> 40; }

  std::uint64_t n_;
  unsigned low_bits_;
  std::uint64_t low_mask_, high_mask_;
  std::uint64_t keys_[4] = {};
};

}  // namespace thermocline::sim
