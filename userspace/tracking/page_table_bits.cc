// SPDX-License-Identifier: Apache-2.0
#include "tracking/page_table_bits.h"

#include <immintrin.h>

namespace thermocline {

namespace {

TableBits read_table_scalar(std::span<const std::uint64_t, kTableEntries> entries,
                            std::uint64_t first_pfn, std::uint64_t end_pfn) {
  TableBits bits;
  for (std::size_t i = 0; i < kTableEntries; ++i) {
    const std::uint64_t entry = entries[i];
    const std::size_t w = i / 64, shift = i % 64;
    const auto set = [w, shift](TableMap& map, bool value) {
      map[w] |= std::uint64_t{value} << shift;
    };
    const std::uint64_t pfn = pte::pfn(entry);
    set(bits.present, pte::present(entry));
    set(bits.accessed, (entry & pte::kAccessed) != 0);
    set(bits.dirty, (entry & pte::kDirty) != 0);
    set(bits.special, (entry & pte::kSpecial) != 0);
    set(bits.near, (entry & pte::kPresent) != 0 && pfn >= first_pfn && pfn < end_pfn);
  }
  return bits;
}

/// Bit `b` of four entries.
template <int b>
__attribute__((target("avx2"))) inline std::uint64_t bit_of(__m256i entries) {
  return static_cast<std::uint64_t>(
      _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_slli_epi64(entries, 63 - b))));
}

__attribute__((target("avx2"))) TableBits read_table_avx2(
    std::span<const std::uint64_t, kTableEntries> entries, std::uint64_t first_pfn,
    std::uint64_t end_pfn) {
  TableBits bits;
  const __m256i frame = _mm256_set1_epi64x(0x000ffffffffff000);
  // Physical addresses are far from the sign bit, so signed comparisons do.
  const __m256i first = _mm256_set1_epi64x(static_cast<long long>(first_pfn << kPageShift));
  const __m256i end = _mm256_set1_epi64x(static_cast<long long>(end_pfn << kPageShift));
  for (std::size_t w = 0; w < kTableEntries / 64; ++w) {
    std::uint64_t present = 0, accessed = 0, dirty = 0, special = 0, near = 0;
#pragma GCC unroll 4
    for (unsigned i = 0; i < 64; i += 4) {
      const __m256i e =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(entries.data() + w * 64 + i));
      const std::uint64_t mapped = bit_of<0>(e);
      const __m256i at = _mm256_and_si256(e, frame);
      const __m256i inside =
          _mm256_andnot_si256(_mm256_cmpgt_epi64(first, at), _mm256_cmpgt_epi64(end, at));
      present |= (mapped | bit_of<8>(e)) << i;
      accessed |= bit_of<5>(e) << i;
      dirty |= bit_of<6>(e) << i;
      special |= bit_of<9>(e) << i;
      near |= (mapped & bit_of<63>(inside)) << i;
    }
    bits.present[w] = present;
    bits.accessed[w] = accessed;
    bits.dirty[w] = dirty;
    bits.special[w] = special;
    bits.near[w] = near;
  }
  return bits;
}

__attribute__((target("avx512f"))) TableBits read_table_avx512(
    std::span<const std::uint64_t, kTableEntries> entries, std::uint64_t first_pfn,
    std::uint64_t end_pfn) {
  TableBits bits;
  const __m512i frame = _mm512_set1_epi64(0x000ffffffffff000);
  const __m512i first = _mm512_set1_epi64(static_cast<long long>(first_pfn << kPageShift));
  const __m512i end = _mm512_set1_epi64(static_cast<long long>(end_pfn << kPageShift));
  const __m512i mapped = _mm512_set1_epi64(pte::kPresent);
  const __m512i present = _mm512_set1_epi64(pte::kPresent | pte::kProtNone);
  const __m512i accessed = _mm512_set1_epi64(pte::kAccessed);
  const __m512i dirty = _mm512_set1_epi64(pte::kDirty);
  const __m512i special = _mm512_set1_epi64(pte::kSpecial);
  for (std::size_t w = 0; w < kTableEntries / 64; ++w) {
    std::uint64_t p = 0, a = 0, d = 0, s = 0, n = 0;
#pragma GCC unroll 8
    for (unsigned i = 0; i < 64; i += 8) {
      const __m512i e = _mm512_loadu_si512(entries.data() + w * 64 + i);
      const __m512i at = _mm512_and_si512(e, frame);
      const __mmask8 inside =
          _mm512_mask_cmplt_epu64_mask(_mm512_cmple_epu64_mask(first, at), at, end);
      p |= std::uint64_t{_mm512_test_epi64_mask(e, present)} << i;
      a |= std::uint64_t{_mm512_test_epi64_mask(e, accessed)} << i;
      d |= std::uint64_t{_mm512_test_epi64_mask(e, dirty)} << i;
      s |= std::uint64_t{_mm512_test_epi64_mask(e, special)} << i;
      n |= std::uint64_t{_mm512_mask_test_epi64_mask(inside, e, mapped)} << i;
    }
    bits.present[w] = p;
    bits.accessed[w] = a;
    bits.dirty[w] = d;
    bits.special[w] = s;
    bits.near[w] = n;
  }
  return bits;
}

}  // namespace

std::vector<TableReading> table_readings() {
  std::vector<TableReading> readings{{"scalar", read_table_scalar}};
  if (__builtin_cpu_supports("avx2") != 0) readings.push_back({"avx2", read_table_avx2});
  if (__builtin_cpu_supports("avx512f") != 0) readings.push_back({"avx512", read_table_avx512});
  return readings;
}

TableBits read_table(std::span<const std::uint64_t, kTableEntries> entries, std::uint64_t first_pfn,
                     std::uint64_t end_pfn) {
  static const auto kBest = table_readings().back().read;
  return kBest(entries, first_pfn, end_pfn);
}

}  // namespace thermocline
