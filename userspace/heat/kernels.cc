// SPDX-License-Identifier: Apache-2.0
#include "heat/kernels.h"

#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "heat/heat_map.h"
#include "heat/scale.h"

namespace thermocline {

static_assert(kBlockWords * 64 == kBlockEntries);

namespace {

// ------------------------------------------------------------------ scalar, the reference

void count_scalar(const std::uint8_t* heat, std::size_t blocks, const Thresholds& thresholds,
                  ThresholdCounts& counts) {
  for (std::size_t i = 0; i < blocks * kBlockEntries; ++i)
    for (std::size_t t = 0; t < kThresholds; ++t) counts[t] += heat[i] >= thresholds[t] ? 1u : 0u;
}

void age_and_count_scalar(std::uint8_t* heat, std::size_t blocks, unsigned dither,
                          std::uint8_t* max, const Thresholds& thresholds,
                          ThresholdCounts& counts) {
  for (std::size_t b = 0; b < blocks; ++b) {
    std::uint8_t* block = heat + b * kBlockEntries;
    max[b] = 0;
    for (std::size_t i = 0; i < kBlockEntries; ++i) {
      block[i] = aged(block[i], dither);
      max[b] = std::max(max[b], block[i]);
    }
    count_scalar(block, 1, thresholds, counts);
  }
}

void add_scalar(std::uint8_t* heat, const BlockBits& bits, std::uint8_t increment) {
  for (std::size_t w = 0; w < kBlockWords; ++w) {
    for (std::uint64_t word = bits[w]; word != 0; word &= word - 1) {
      std::uint8_t& h = heat[w * 64 + static_cast<unsigned>(std::countr_zero(word))];
      h = static_cast<std::uint8_t>(std::min(255, h + increment));
    }
  }
}

unsigned population_scalar(const BlockBits& bits) {
  unsigned n = 0;
  for (const std::uint64_t word : bits) n += static_cast<unsigned>(std::popcount(word));
  return n;
}

BlockBits match_scalar(const std::uint8_t* heat, const std::uint8_t* state, std::uint8_t mask,
                       std::uint8_t value, std::uint8_t low, std::uint8_t high) {
  BlockBits bits{};
  for (std::size_t i = 0; i < kBlockEntries; ++i) {
    const bool hit = (state[i] & mask) == value && heat[i] >= low && heat[i] <= high;
    bits[i / 64] |= std::uint64_t{hit} << (i % 64);
  }
  return bits;
}

// ------------------------------------------------------------------ AVX2
// Counts are kept as bytes (a compare gives -1, which is subtracted) and widened before one can
// overflow: a group of 15 blocks is 240 vectors, so no byte passes 240. A group is gone through
// twice, with four thresholds each time: counters and thresholds then stay in the 16 registers,
// and the second time the group comes from the first-level cache.

#define TC_AVX2 __attribute__((target("avx2")))

constexpr std::size_t kAvx2Lanes = 32;
/// How far ahead to ask for memory, in bytes: the processor's own prefetch stops at each page.
constexpr std::size_t kPrefetch = 4096;
constexpr std::size_t kAvx2Group = 15;
constexpr std::size_t kAvx2Half = kThresholds / 2;

TC_AVX2 inline __m256i load(const std::uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

TC_AVX2 inline __m256i set1(unsigned byte) {
  return _mm256_set1_epi8(static_cast<char>(byte));
}

TC_AVX2 inline std::uint64_t sum_bytes(__m256i v) {
  const __m256i s = _mm256_sad_epu8(v, _mm256_setzero_si256());
  const __m128i t = _mm_add_epi64(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  return static_cast<std::uint64_t>(_mm_extract_epi64(t, 0)) +
         static_cast<std::uint64_t>(_mm_extract_epi64(t, 1));
}

TC_AVX2 inline std::uint8_t max_byte(__m256i v) {
  __m128i m = _mm_max_epu8(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  // The smallest 16-bit word of the complement holds the largest byte once odd and even are folded.
  m = _mm_max_epu8(m, _mm_srli_epi16(m, 8));
  m = _mm_andnot_si128(m, _mm_set1_epi16(0xff));
  return static_cast<std::uint8_t>(255 - (_mm_extract_epi16(_mm_minpos_epu16(m), 0) & 0xff));
}

/// Counts of four thresholds in a group; `flip` moves both sides of the signed compare.
template <std::size_t kAhead>
TC_AVX2 inline void count_half(const std::uint8_t* heat, std::size_t bytes, const __m256i* edge,
                               __m256i flip, std::uint64_t* counts) {
  const __m256i e0 = edge[0], e1 = edge[1], e2 = edge[2], e3 = edge[3];
  __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0;
  for (std::size_t i = 0; i < bytes; i += kAvx2Lanes) {
    if constexpr (kAhead > 0) __builtin_prefetch(heat + i + kAhead);
    const __m256i h = _mm256_xor_si256(load(heat + i), flip);
    s0 = _mm256_sub_epi8(s0, _mm256_cmpgt_epi8(h, e0));
    s1 = _mm256_sub_epi8(s1, _mm256_cmpgt_epi8(h, e1));
    s2 = _mm256_sub_epi8(s2, _mm256_cmpgt_epi8(h, e2));
    s3 = _mm256_sub_epi8(s3, _mm256_cmpgt_epi8(h, e3));
  }
  counts[0] += sum_bytes(s0);
  counts[1] += sum_bytes(s1);
  counts[2] += sum_bytes(s2);
  counts[3] += sum_bytes(s3);
}

TC_AVX2 void count_avx2(const std::uint8_t* heat, std::size_t blocks, const Thresholds& thresholds,
                        ThresholdCounts& counts) {
  // AVX2 only compares signed bytes: both sides are moved by 128.
  const __m256i flip = set1(0x80);
  __m256i edge[kThresholds];
  for (std::size_t t = 0; t < kThresholds; ++t) edge[t] = set1((thresholds[t] - 1u) ^ 0x80u);
  while (blocks > 0) {
    const std::size_t group = std::min(blocks, kAvx2Group);
    count_half<kPrefetch>(heat, group * kBlockEntries, edge, flip, counts.data());
    count_half<0>(heat, group * kBlockEntries, edge + kAvx2Half, flip, counts.data() + kAvx2Half);
    heat += group * kBlockEntries;
    blocks -= group;
  }
}

/// As aged() of scale.h.
TC_AVX2 inline __m256i aged_avx2(__m256i heat, __m256i dither) {
  const __m256i sixteenth =
      _mm256_and_si256(_mm256_srli_epi16(_mm256_adds_epu8(heat, dither), 4), set1(0x0f));
  const __m256i half = _mm256_and_si256(_mm256_srli_epi16(heat, 1), set1(0x7f));
  return _mm256_min_epu8(
      _mm256_min_epu8(_mm256_sub_epi8(heat, sixteenth), _mm256_add_epi8(half, set1(30))),
      set1(kAlwaysHot));
}

TC_AVX2 void age_and_count_avx2(std::uint8_t* heat, std::size_t blocks, unsigned dither,
                                std::uint8_t* max, const Thresholds& thresholds,
                                ThresholdCounts& counts) {
  static_assert(kAlwaysHot <= 127, "signed compares do");
  const __m256i dithers = set1(dither);
  __m256i edge[kThresholds];
  for (std::size_t t = 0; t < kThresholds; ++t)
    edge[t] = set1(std::min<unsigned>(thresholds[t] - 1u, 127u));
  const __m256i e0 = edge[0], e1 = edge[1], e2 = edge[2], e3 = edge[3];
  while (blocks > 0) {
    const std::size_t group = std::min(blocks, kAvx2Group);
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0;
    for (std::size_t b = 0; b < group; ++b) {
      std::uint8_t* block = heat + b * kBlockEntries;
      __m256i hottest = _mm256_setzero_si256();
      for (std::size_t i = 0; i < kBlockEntries; i += kAvx2Lanes) {
        __builtin_prefetch(block + i + kPrefetch, 1);
        const __m256i h = aged_avx2(load(block + i), dithers);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(block + i), h);
        hottest = _mm256_max_epu8(hottest, h);
        s0 = _mm256_sub_epi8(s0, _mm256_cmpgt_epi8(h, e0));
        s1 = _mm256_sub_epi8(s1, _mm256_cmpgt_epi8(h, e1));
        s2 = _mm256_sub_epi8(s2, _mm256_cmpgt_epi8(h, e2));
        s3 = _mm256_sub_epi8(s3, _mm256_cmpgt_epi8(h, e3));
      }
      *max++ = max_byte(hottest);
    }
    counts[0] += sum_bytes(s0);
    counts[1] += sum_bytes(s1);
    counts[2] += sum_bytes(s2);
    counts[3] += sum_bytes(s3);
    count_half<0>(heat, group * kBlockEntries, edge + kAvx2Half, _mm256_setzero_si256(),
                  counts.data() + kAvx2Half);
    heat += group * kBlockEntries;
    blocks -= group;
  }
}

TC_AVX2 void add_avx2(std::uint8_t* heat, const BlockBits& bits, std::uint8_t increment) {
  const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                          2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
  const __m256i step = set1(increment);
  for (std::size_t half = 0; half < 2 * kBlockWords; ++half) {
    const auto word = static_cast<std::uint32_t>(bits[half / 2] >> (half % 2 * 32));
    if (word == 0) continue;
    std::uint8_t* at = heat + half * kAvx2Lanes;
    __builtin_prefetch(at + kPrefetch, 1);
    const __m256i all = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(word)), spread);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(all, bit), bit);
    const __m256i h = _mm256_adds_epu8(load(at), _mm256_and_si256(set, step));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), h);
  }
}

/// Every processor with AVX2 has the instruction, too.
__attribute__((target("popcnt"))) unsigned population_popcnt(const BlockBits& bits) {
  unsigned n = 0;
  for (const std::uint64_t word : bits) n += static_cast<unsigned>(__builtin_popcountll(word));
  return n;
}

TC_AVX2 BlockBits match_avx2(const std::uint8_t* heat, const std::uint8_t* state, std::uint8_t mask,
                             std::uint8_t value, std::uint8_t low, std::uint8_t high) {
  const __m256i masks = set1(mask), values = set1(value), lows = set1(low), highs = set1(high);
  BlockBits bits{};
  for (std::size_t half = 0; half < 2 * kBlockWords; ++half) {
    const __m256i h = load(heat + half * kAvx2Lanes);
    const __m256i s = _mm256_and_si256(load(state + half * kAvx2Lanes), masks);
    const __m256i inside = _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_max_epu8(h, lows), h),
                                            _mm256_cmpeq_epi8(_mm256_min_epu8(h, highs), h));
    const __m256i hit = _mm256_and_si256(inside, _mm256_cmpeq_epi8(s, values));
    bits[half / 2] |= std::uint64_t{static_cast<std::uint32_t>(_mm256_movemask_epi8(hit))}
                      << (half % 2 * 32);
  }
  return bits;
}

// ------------------------------------------------------------------ AVX-512BW

#define TC_AVX512 __attribute__((target("avx512f,avx512bw")))

constexpr std::size_t kAvx512Lanes = 64;
constexpr std::size_t kAvx512Group = 31;  // 248 vectors

TC_AVX512 inline __m512i load512(const std::uint8_t* p) {
  return _mm512_loadu_si512(p);
}

TC_AVX512 inline __m512i set512(unsigned byte) {
  return _mm512_set1_epi8(static_cast<char>(byte));
}

// Through memory: the compiler's own reductions of 512-bit vectors warn in gcc 12.
struct alignas(64) Spilled {
  std::uint8_t bytes[kAvx512Lanes];
};

TC_AVX512 inline std::uint64_t sum_bytes512(__m512i v) {
  Spilled out;
  _mm512_store_si512(out.bytes, v);
  return sum_bytes(load(out.bytes)) + sum_bytes(load(out.bytes + kAvx2Lanes));
}

TC_AVX512 inline std::uint8_t max_byte512(__m512i v) {
  Spilled out;
  _mm512_store_si512(out.bytes, v);
  return max_byte(_mm256_max_epu8(load(out.bytes), load(out.bytes + kAvx2Lanes)));
}

TC_AVX512 void count_avx512(const std::uint8_t* heat, std::size_t blocks,
                            const Thresholds& thresholds, ThresholdCounts& counts) {
  const __m512i ones = set512(1);
  __m512i edge[kThresholds];
  for (std::size_t t = 0; t < kThresholds; ++t) edge[t] = set512(thresholds[t]);
  while (blocks > 0) {
    const std::size_t group = std::min(blocks, kAvx512Group);
    __m512i sum[kThresholds] = {};
    for (std::size_t i = 0; i < group * kBlockEntries; i += kAvx512Lanes) {
      __builtin_prefetch(heat + i + kPrefetch);
      const __m512i h = load512(heat + i);
#pragma GCC unroll 8
      for (std::size_t t = 0; t < kThresholds; ++t)
        sum[t] = _mm512_mask_add_epi8(sum[t], _mm512_cmpge_epu8_mask(h, edge[t]), sum[t], ones);
    }
    for (std::size_t t = 0; t < kThresholds; ++t) counts[t] += sum_bytes512(sum[t]);
    heat += group * kBlockEntries;
    blocks -= group;
  }
}

/// As aged() of scale.h.
TC_AVX512 inline __m512i aged_avx512(__m512i heat, __m512i dither) {
  const __m512i sixteenth =
      _mm512_and_si512(_mm512_srli_epi16(_mm512_adds_epu8(heat, dither), 4), set512(0x0f));
  const __m512i half = _mm512_and_si512(_mm512_srli_epi16(heat, 1), set512(0x7f));
  return _mm512_min_epu8(
      _mm512_min_epu8(_mm512_sub_epi8(heat, sixteenth), _mm512_add_epi8(half, set512(30))),
      set512(kAlwaysHot));
}

TC_AVX512 void age_and_count_avx512(std::uint8_t* heat, std::size_t blocks, unsigned dither,
                                    std::uint8_t* max, const Thresholds& thresholds,
                                    ThresholdCounts& counts) {
  const __m512i dithers = set512(dither), ones = set512(1);
  __m512i edge[kThresholds];
  for (std::size_t t = 0; t < kThresholds; ++t) edge[t] = set512(thresholds[t]);
  while (blocks > 0) {
    const std::size_t group = std::min(blocks, kAvx512Group);
    __m512i sum[kThresholds] = {};
    for (std::size_t b = 0; b < group; ++b) {
      __m512i hottest = _mm512_setzero_si512();
      for (std::size_t i = 0; i < kBlockEntries; i += kAvx512Lanes) {
        __builtin_prefetch(heat + i + kPrefetch, 1);
        const __m512i h = aged_avx512(load512(heat + i), dithers);
        _mm512_storeu_si512(heat + i, h);
        hottest = _mm512_max_epu8(hottest, h);
#pragma GCC unroll 8
        for (std::size_t t = 0; t < kThresholds; ++t)
          sum[t] = _mm512_mask_add_epi8(sum[t], _mm512_cmpge_epu8_mask(h, edge[t]), sum[t], ones);
      }
      *max++ = max_byte512(hottest);
      heat += kBlockEntries;
    }
    for (std::size_t t = 0; t < kThresholds; ++t) counts[t] += sum_bytes512(sum[t]);
    blocks -= group;
  }
}

TC_AVX512 void add_avx512(std::uint8_t* heat, const BlockBits& bits, std::uint8_t increment) {
  const __m512i step = set512(increment);
  for (std::size_t w = 0; w < kBlockWords; ++w) {
    if (bits[w] == 0) continue;
    std::uint8_t* at = heat + w * kAvx512Lanes;
    __builtin_prefetch(at + kPrefetch, 1);
    const __m512i h = load512(at);
    const __m512i sum = _mm512_adds_epu8(h, step);
    _mm512_storeu_si512(at, _mm512_mask_blend_epi8(bits[w], h, sum));
  }
}

TC_AVX512 BlockBits match_avx512(const std::uint8_t* heat, const std::uint8_t* state,
                                 std::uint8_t mask, std::uint8_t value, std::uint8_t low,
                                 std::uint8_t high) {
  const __m512i masks = set512(mask), values = set512(value);
  const __m512i lows = set512(low), highs = set512(high);
  BlockBits bits{};
  for (std::size_t w = 0; w < kBlockWords; ++w) {
    const __m512i h = load512(heat + w * kAvx512Lanes);
    const __m512i s = _mm512_and_si512(load512(state + w * kAvx512Lanes), masks);
    bits[w] = _mm512_cmpeq_epi8_mask(s, values) & _mm512_cmpge_epu8_mask(h, lows) &
              _mm512_cmple_epu8_mask(h, highs);
  }
  return bits;
}

std::vector<HeatKernels> find_supported() {
  std::vector<HeatKernels> found;
  found.push_back(
      {"scalar", age_and_count_scalar, count_scalar, add_scalar, population_scalar, match_scalar});
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt"))
    found.push_back(
        {"avx2", age_and_count_avx2, count_avx2, add_avx2, population_popcnt, match_avx2});
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
    found.push_back({"avx512", age_and_count_avx512, count_avx512, add_avx512, population_popcnt,
                     match_avx512});
  return found;
}

}  // namespace

std::span<const HeatKernels> supported_heat_kernels() {
  static const std::vector<HeatKernels> kernels = find_supported();
  return kernels;
}

}  // namespace thermocline
