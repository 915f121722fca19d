// SPDX-License-Identifier: Apache-2.0
// A counting Bloom filter of bytes: how often each of very many things came, roughly, in memory
// that doesn't grow with them. Never tells too little; too much where things collide.
//
// Four counters a key, all in one line of 64 bytes, so that a key costs one cache miss. Only the
// smallest of the four are raised (conservative update), which keeps collisions small. Source:
// Fan et al., "Summary Cache" (SIGCOMM'98); the blocked form is Putze et al. (WEA'07).
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/units.h"

namespace thermocline {

class CountingSketch {
 public:
  /// Room for about `things` with few collisions: 16 counters for each, 128 KiB at least and
  /// 128 MiB at most.
  CountingSketch(std::uint64_t things, std::uint64_t seed)
      : seed_(seed),
        counters_(std::bit_ceil(std::clamp(things, std::uint64_t{1} << 13, std::uint64_t{1} << 23) *
                                16)) {}

  void add(std::uint64_t key, unsigned n) {
    const auto at = places(key);
    const unsigned sum = std::min(255u, count(at) + n);
    for (const std::size_t i : at)
      counters_[i] = static_cast<std::uint8_t>(std::max<unsigned>(counters_[i], sum));
  }
  [[nodiscard]] unsigned count(std::uint64_t key) const { return count(places(key)); }
  /// Cooling: what was counted so far counts half.
  void halve() {
    for (std::uint8_t& counter : counters_) counter = static_cast<std::uint8_t>(counter / 2);
  }
  [[nodiscard]] Bytes memory() const { return Bytes(counters_.size()); }

 private:
  static constexpr std::size_t kLine = 64;
  using Places = std::array<std::size_t, 4>;

  [[nodiscard]] Places places(std::uint64_t key) const {
    // splitmix64 (Steele et al., OOPSLA'14).
    std::uint64_t x = key + seed_ * 0xbf58476d1ce4e5b9 + 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    x ^= x >> 31;
    const std::size_t line = (x >> 24) % (counters_.size() / kLine) * kLine;
    return {line + x % 64, line + (x >> 6) % 64, line + (x >> 12) % 64, line + (x >> 18) % 64};
  }
  [[nodiscard]] unsigned count(const Places& at) const {
    unsigned least = 255;
    for (const std::size_t i : at) least = std::min<unsigned>(least, counters_[i]);
    return least;
  }

  std::uint64_t seed_;
  std::vector<std::uint8_t> counters_;
};

}  // namespace thermocline
