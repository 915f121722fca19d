// SPDX-License-Identifier: Apache-2.0
// Bits for the 512 entries of a block of 2 MiB: bit i of word w is entry 64 * w + i.
// Plain functions; used where records become entries of the heat map.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "tracking/record.h"

namespace thermocline {

inline constexpr std::size_t kBlockEntries = 512;
inline constexpr std::size_t kBlockWords = kBlockEntries / 64;
using BlockBits = std::array<std::uint64_t, kBlockWords>;

/// The lowest n bits, all of them from 64 on.
constexpr std::uint64_t low_bits(std::uint64_t n) {
  return n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
}

/// Sets bits [low, low + n) of a block.
inline void set_range(BlockBits& bits, std::uint64_t low, std::uint64_t n) {
  for (const std::uint64_t end = low + n; low < end;) {
    const std::uint64_t in_word = std::min(end - low, 64 - low % 64);
    bits[low / 64] |= low_bits(in_word) << (low % 64);
    low += in_word;
  }
}

/// Bits [low, low + n) of a block.
inline BlockBits range_bits(std::uint64_t low, std::uint64_t n) {
  BlockBits bits{};
  set_range(bits, low, n);
  return bits;
}

/// The record's entries [entry, entry + n) as bits [low, low + n) of a block.
inline BlockBits block_bits(const RecordMap& map, std::uint64_t entry, std::uint64_t low,
                            std::uint64_t n) {
  BlockBits bits{};
  if (n == kBlockEntries && entry % 64 == 0) {
    map.copy_words(static_cast<std::uint32_t>(entry / 64), bits);
    return bits;
  }
  const std::uint32_t words = map.words();
  for (std::size_t w = low / 64; w <= (low + n - 1) / 64; ++w) {
    // Position in the record of this word's bit 0; before the record's start in the first word.
    const std::int64_t at =
        static_cast<std::int64_t>(entry + w * 64) - static_cast<std::int64_t>(low);
    std::uint64_t word = 0;
    if (at < 0) {
      word = map.word(0) << -at;
    } else {
      const auto i = static_cast<std::uint32_t>(at / 64);
      const auto shift = static_cast<unsigned>(at % 64);
      if (i < words) word = map.word(i) >> shift;
      if (shift != 0 && i + 1 < words) word |= map.word(i + 1) << (64 - shift);
    }
    bits[w] = word;
  }
  const BlockBits mask = range_bits(low, n);
  for (std::size_t w = 0; w < kBlockWords; ++w) bits[w] &= mask[w];
  return bits;
}

inline bool all_set(const BlockBits& bits) {
  std::uint64_t all = ~std::uint64_t{0};
  for (const std::uint64_t word : bits) all &= word;
  return all == ~std::uint64_t{0};
}

inline bool any_set(const BlockBits& bits) {
  std::uint64_t any = 0;
  for (const std::uint64_t word : bits) any |= word;
  return any != 0;
}

inline bool test(const BlockBits& bits, std::size_t entry) {
  return ((bits[entry / 64] >> (entry % 64)) & 1) != 0;
}

template <class F>
BlockBits combine(const BlockBits& a, const BlockBits& b, F f) {
  BlockBits out;
  for (std::size_t w = 0; w < kBlockWords; ++w) out[w] = f(a[w], b[w]);
  return out;
}

inline constexpr auto kAnd = [](std::uint64_t a, std::uint64_t b) { return a & b; };
inline constexpr auto kAndNot = [](std::uint64_t a, std::uint64_t b) { return a & ~b; };
inline constexpr auto kOr = [](std::uint64_t a, std::uint64_t b) { return a | b; };

}  // namespace thermocline
