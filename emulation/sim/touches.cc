// SPDX-License-Identifier: Apache-2.0
#include "emulation/sim/touches.h"

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

#include "emulation/sim/spread.h"

namespace thermocline::sim {

namespace {

// A mix of 32 bits with two multiplications; constants of the search by C. Wellons ("Prospecting
// for Hash Functions", 2018; public domain). The second half of the key comes in between, so that
// two windows are not the same lots in another order.
constexpr std::uint32_t kFirst = 0x7feb352d, kSecond = 0x846ca68b;

constexpr std::uint32_t lot(std::uint32_t page, LotKey key) {
  std::uint32_t x = page ^ key.a;
  x ^= x >> 16;
  x *= kFirst;
  x ^= key.b;
  x ^= x >> 15;
  x *= kSecond;
  return x ^ (x >> 16);
}

constexpr std::size_t kWord = 64;

/// Four pages share a lot, a byte each: it decides unless it is the chance's own first byte. Then,
/// once in 256 times, a second lot decides by the rest of the chance.
constexpr bool settled_by_second(std::uint32_t page, LotKey key, std::uint32_t chance) {
  return chance == kAlways || lot(page, {key.b, key.a}) < chance << 8;
}

constexpr bool drawn(std::uint32_t page, LotKey key, std::uint32_t chance) {
  const std::uint32_t first = lot(page / 4, key) >> (page % 4 * 8) & 0xff, edge = chance >> 24;
  return first != edge ? first < edge : settled_by_second(page, key, chance);
}

/// The first bytes of the chances, and which sixteenths of the table are not all 0.
struct Edges {
  alignas(64) std::uint8_t of[kClasses];
  std::uint16_t used = 0;

  explicit Edges(const Chances& chances) {
    for (std::size_t c = 0; c < kClasses; ++c) {
      of[c] = static_cast<std::uint8_t>(chances[c] >> 24);
      if (of[c] != 0) used = static_cast<std::uint16_t>(used | 1u << (c / 16));
    }
  }
};

/// Settles the pages whose bit is in `ties`.
std::uint64_t settle(std::uint64_t ties, const std::uint8_t* classes, std::uint32_t first,
                     LotKey key, const Chances& chances) {
  std::uint64_t bits = 0;
  for (; ties != 0; ties &= ties - 1) {
    const auto i = static_cast<std::uint32_t>(std::countr_zero(ties));
    bits |= std::uint64_t{settled_by_second(first + i, key, chances[classes[i]])} << i;
  }
  return bits;
}

#define TC_VBMI __attribute__((target("avx512f,avx512bw,avx512vbmi")))

TC_VBMI void draw_avx512(const std::uint8_t* classes, std::uint32_t first, std::size_t words,
                         LotKey key, const Chances& chances, std::uint64_t* out) {
  // With a mask of all, as the plain forms warn in gcc 12.
  constexpr __mmask16 kAll = 0xffff;
  const Edges edges(chances);
  const __m512i table0 = _mm512_load_si512(edges.of), table1 = _mm512_load_si512(edges.of + 64);
  const __m512i table2 = _mm512_load_si512(edges.of + 128),
                table3 = _mm512_load_si512(edges.of + 192);
  const __m512i key_a = _mm512_set1_epi32(static_cast<int>(key.a));
  const __m512i key_b = _mm512_set1_epi32(static_cast<int>(key.b));
  const __m512i mul_a = _mm512_set1_epi32(static_cast<int>(kFirst));
  const __m512i mul_b = _mm512_set1_epi32(static_cast<int>(kSecond));
  const __m512i step = _mm512_set1_epi32(16);
  __m512i four =
      _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first / 4)),
                       _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  for (std::size_t w = 0; w < words; ++w) {
    __m512i x = _mm512_xor_si512(four, key_a);
    x = _mm512_xor_si512(x, _mm512_maskz_srli_epi32(kAll, x, 16));
    x = _mm512_xor_si512(_mm512_mullo_epi32(x, mul_a), key_b);
    x = _mm512_xor_si512(x, _mm512_maskz_srli_epi32(kAll, x, 15));
    x = _mm512_mullo_epi32(x, mul_b);
    x = _mm512_xor_si512(x, _mm512_maskz_srli_epi32(kAll, x, 16));
    four = _mm512_add_epi32(four, step);
    const __m512i cls = _mm512_loadu_si512(classes + w * kWord);
    const __m512i edge = _mm512_mask_blend_epi8(_mm512_movepi8_mask(cls),
                                                _mm512_permutex2var_epi8(table0, cls, table1),
                                                _mm512_permutex2var_epi8(table2, cls, table3));
    std::uint64_t word = _mm512_cmplt_epu8_mask(x, edge);
    const std::uint64_t ties = _mm512_cmpeq_epi8_mask(x, edge);
    if (ties != 0)
      word |= settle(ties, classes + w * kWord, first + static_cast<std::uint32_t>(w * kWord), key,
                     chances);
    out[w] = word;
  }
}

#define TC_AVX2 __attribute__((target("avx2")))

TC_AVX2 void draw_avx2(const std::uint8_t* classes, std::uint32_t first, std::size_t words,
                       LotKey key, const Chances& chances, std::uint64_t* out) {
  const Edges edges(chances);
  const __m256i key_a = _mm256_set1_epi32(static_cast<int>(key.a));
  const __m256i key_b = _mm256_set1_epi32(static_cast<int>(key.b));
  const __m256i mul_a = _mm256_set1_epi32(static_cast<int>(kFirst));
  const __m256i mul_b = _mm256_set1_epi32(static_cast<int>(kSecond));
  const __m256i low = _mm256_set1_epi8(0x0f);
  const __m256i step = _mm256_set1_epi32(8);
  __m256i four = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first / 4)),
                                  _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  for (std::size_t w = 0; w < words; ++w) {
    std::uint64_t word = 0, ties = 0;
    for (unsigned half = 0; half < 2; ++half) {
      __m256i x = _mm256_xor_si256(four, key_a);
      x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
      x = _mm256_xor_si256(_mm256_mullo_epi32(x, mul_a), key_b);
      x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 15));
      x = _mm256_mullo_epi32(x, mul_b);
      x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
      four = _mm256_add_epi32(four, step);
      const __m256i cls =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(classes + w * kWord + half * 32));
      const __m256i sixteenth = _mm256_and_si256(_mm256_srli_epi16(cls, 4), low);
      __m256i edge = _mm256_setzero_si256();
      for (unsigned used = edges.used; used != 0; used &= used - 1) {
        const int t = std::countr_zero(used);
        const __m256i mine = _mm256_cmpeq_epi8(sixteenth, _mm256_set1_epi8(static_cast<char>(t)));
        const __m256i table = _mm256_broadcastsi128_si256(
            _mm_load_si128(reinterpret_cast<const __m128i*>(edges.of + t * 16)));
        const __m256i found = _mm256_shuffle_epi8(table, _mm256_and_si256(cls, low));
        edge = _mm256_or_si256(edge, _mm256_and_si256(mine, found));
      }
      const __m256i tie = _mm256_cmpeq_epi8(x, edge);
      // x < edge: neither equal, nor the larger of both.
      const __m256i above = _mm256_cmpeq_epi8(_mm256_max_epu8(x, edge), x);
      word |= std::uint64_t{~static_cast<std::uint32_t>(_mm256_movemask_epi8(above))}
              << (half * 32);
      ties |= std::uint64_t{static_cast<std::uint32_t>(_mm256_movemask_epi8(tie))} << (half * 32);
    }
    if (ties != 0)
      word |= settle(ties, classes + w * kWord, first + static_cast<std::uint32_t>(w * kWord), key,
                     chances);
    out[w] = word;
  }
}

}  // namespace

std::uint32_t chance_of(double probability) {
  if (!(probability > 0)) return 0;
  if (probability >= 1) return kAlways;
  return static_cast<std::uint32_t>(std::min(probability * 4294967296.0, double{kAlways}));
}

LotKey lot_key(std::uint64_t seed, std::uint64_t window) {
  const std::uint64_t key = spread(spread(seed) ^ window);
  return {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
}

void draw_touches_scalar(const std::uint8_t* classes, std::uint32_t first, std::size_t pages,
                         LotKey key, const Chances& chances, std::uint64_t* words) {
  std::memset(words, 0, (pages + kWord - 1) / kWord * sizeof(*words));
  for (std::size_t i = 0; i < pages; ++i) {
    const bool touched = drawn(first + static_cast<std::uint32_t>(i), key, chances[classes[i]]);
    words[i / kWord] |= std::uint64_t{touched} << (i % kWord);
  }
}

void draw_touches(const std::uint8_t* classes, std::uint32_t first, std::size_t pages, LotKey key,
                  const Chances& chances, std::uint64_t* words) {
  assert(first % 4 == 0);
  static const auto kBest = __builtin_cpu_supports("avx512vbmi") ? draw_avx512
                            : __builtin_cpu_supports("avx2")     ? draw_avx2
                                                                 : nullptr;
  const std::size_t whole = kBest != nullptr ? pages / kWord : 0;
  if (whole > 0) kBest(classes, first, whole, key, chances, words);
  const std::size_t done = whole * kWord;
  if (done < pages)
    draw_touches_scalar(classes + done, first + static_cast<std::uint32_t>(done), pages - done, key,
                        chances, words + whole);
}

}  // namespace thermocline::sim
