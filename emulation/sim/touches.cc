// SPDX-License-Identifier: Apache-2.0
#include "emulation/sim/touches.h"

#include <immintrin.h>

#include <algorithm>
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

#define TC_AVX512 __attribute__((target("avx512f,avx512bw")))

TC_AVX512 void draw_avx512(const std::uint8_t* classes, std::uint32_t first, std::size_t words,
                           LotKey key, const Chances& chances, std::uint64_t* out) {
  const __m512i key_a = _mm512_set1_epi32(static_cast<int>(key.a));
  const __m512i key_b = _mm512_set1_epi32(static_cast<int>(key.b));
  const __m512i mul_a = _mm512_set1_epi32(static_cast<int>(kFirst));
  const __m512i mul_b = _mm512_set1_epi32(static_cast<int>(kSecond));
  const __m512i always = _mm512_set1_epi32(-1);
  const __m512i step = _mm512_set1_epi32(16);
  __m512i page =
      _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first)),
                       _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  const auto* table = reinterpret_cast<const int*>(chances.data());
  // With a mask of all, as the plain forms warn in gcc 12.
  constexpr __mmask16 kAll = 0xffff;
  for (std::size_t w = 0; w < words; ++w) {
    std::uint64_t word = 0;
    for (unsigned quarter = 0; quarter < 4; ++quarter) {
      const __m128i bytes =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(classes + w * kWord + quarter * 16));
      const __m512i index = _mm512_maskz_cvtepu8_epi32(kAll, bytes);
      const __m512i chance =
          _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), kAll, index, table, 4);
      __m512i x = _mm512_xor_si512(page, key_a);
      x = _mm512_xor_si512(x, _mm512_maskz_srli_epi32(kAll, x, 16));
      x = _mm512_xor_si512(_mm512_mullo_epi32(x, mul_a), key_b);
      x = _mm512_xor_si512(x, _mm512_maskz_srli_epi32(kAll, x, 15));
      x = _mm512_mullo_epi32(x, mul_b);
      x = _mm512_xor_si512(x, _mm512_maskz_srli_epi32(kAll, x, 16));
      const std::uint64_t bits = static_cast<std::uint64_t>(
          _mm512_cmplt_epu32_mask(x, chance) | _mm512_cmpeq_epu32_mask(chance, always));
      word |= bits << (quarter * 16);
      page = _mm512_add_epi32(page, step);
    }
    out[w] = word;
  }
}

#define TC_AVX2 __attribute__((target("avx2")))

TC_AVX2 void draw_avx2(const std::uint8_t* classes, std::uint32_t first, std::size_t words,
                       LotKey key, const Chances& chances, std::uint64_t* out) {
  const __m256i key_a = _mm256_set1_epi32(static_cast<int>(key.a));
  const __m256i key_b = _mm256_set1_epi32(static_cast<int>(key.b));
  const __m256i mul_a = _mm256_set1_epi32(static_cast<int>(kFirst));
  const __m256i mul_b = _mm256_set1_epi32(static_cast<int>(kSecond));
  const __m256i always = _mm256_set1_epi32(-1);
  const __m256i flip = _mm256_set1_epi32(static_cast<int>(0x80000000u));
  const __m256i step = _mm256_set1_epi32(8);
  __m256i page = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first)),
                                  _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  const auto* table = reinterpret_cast<const int*>(chances.data());
  for (std::size_t w = 0; w < words; ++w) {
    std::uint64_t word = 0;
    for (unsigned eighth = 0; eighth < 8; ++eighth) {
      const __m128i bytes =
          _mm_loadl_epi64(reinterpret_cast<const __m128i*>(classes + w * kWord + eighth * 8));
      const __m256i chance = _mm256_i32gather_epi32(table, _mm256_cvtepu8_epi32(bytes), 4);
      __m256i x = _mm256_xor_si256(page, key_a);
      x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
      x = _mm256_xor_si256(_mm256_mullo_epi32(x, mul_a), key_b);
      x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 15));
      x = _mm256_mullo_epi32(x, mul_b);
      x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
      // AVX2 only compares signed words: both sides are moved by 2^31.
      const __m256i below =
          _mm256_cmpgt_epi32(_mm256_xor_si256(chance, flip), _mm256_xor_si256(x, flip));
      const __m256i hit = _mm256_or_si256(below, _mm256_cmpeq_epi32(chance, always));
      word |= static_cast<std::uint64_t>(
                  static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(hit))))
              << (eighth * 8);
      page = _mm256_add_epi32(page, step);
    }
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
    const std::uint32_t chance = chances[classes[i]];
    const bool touched =
        chance == kAlways || lot(first + static_cast<std::uint32_t>(i), key) < chance;
    words[i / kWord] |= std::uint64_t{touched} << (i % kWord);
  }
}

void draw_touches(const std::uint8_t* classes, std::uint32_t first, std::size_t pages, LotKey key,
                  const Chances& chances, std::uint64_t* words) {
  static const auto kBest = __builtin_cpu_supports("avx512bw") ? draw_avx512
                            : __builtin_cpu_supports("avx2")   ? draw_avx2
                                                               : nullptr;
  const std::size_t whole = kBest != nullptr ? pages / kWord : 0;
  if (whole > 0) kBest(classes, first, whole, key, chances, words);
  const std::size_t done = whole * kWord;
  if (done < pages)
    draw_touches_scalar(classes + done, first + static_cast<std::uint32_t>(done), pages - done, key,
                        chances, words + whole);
}

}  // namespace thermocline::sim
