// SPDX-License-Identifier: Apache-2.0
// The limits: what this machine can stream at best, on one core, over as many bytes as the heat
// plane of 100 M pages has.
#include <benchmark/benchmark.h>
#include <immintrin.h>

#include <cstring>

#include "bench/micro/machine.h"

namespace thermocline::bench {
namespace {

std::vector<std::uint8_t>& plane() {
  static std::vector<std::uint8_t> bytes(kPages, 1);
  return bytes;
}

__attribute__((target("avx2"))) std::uint64_t read_all(const std::uint8_t* p, std::size_t n) {
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (std::size_t i = 0; i + 128 <= n; i += 128) {
    const auto* v = reinterpret_cast<const __m256i*>(p + i);
    a = _mm256_xor_si256(a, _mm256_loadu_si256(v));
    b = _mm256_xor_si256(b, _mm256_loadu_si256(v + 1));
    c = _mm256_xor_si256(c, _mm256_loadu_si256(v + 2));
    d = _mm256_xor_si256(d, _mm256_loadu_si256(v + 3));
  }
  a = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
  return static_cast<std::uint64_t>(_mm256_extract_epi64(a, 0));
}

__attribute__((target("avx2"))) void rewrite_all(std::uint8_t* p, std::size_t n) {
  const __m256i flip = _mm256_set1_epi8(1);
  for (std::size_t i = 0; i + 64 <= n; i += 64) {
    auto* v = reinterpret_cast<__m256i*>(p + i);
    _mm256_storeu_si256(v, _mm256_xor_si256(_mm256_loadu_si256(v), flip));
    _mm256_storeu_si256(v + 1, _mm256_xor_si256(_mm256_loadu_si256(v + 1), flip));
  }
}

void report(benchmark::State& state, std::size_t bytes) {
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * bytes));
}

/// One byte a page read once: the limit of counting.
void LimitReadPlane(benchmark::State& state) {
  if (!__builtin_cpu_supports("avx2")) return state.SkipWithError("needs AVX2");
  for (auto _ : state) benchmark::DoNotOptimize(read_all(plane().data(), kPages));
  report(state, kPages);
}
BENCHMARK(LimitReadPlane)->Unit(benchmark::kMillisecond);

/// One byte a page read and written back: the limit of ageing and of taking in a window.
void LimitRewritePlane(benchmark::State& state) {
  if (!__builtin_cpu_supports("avx2")) return state.SkipWithError("needs AVX2");
  for (auto _ : state) {
    rewrite_all(plane().data(), kPages);
    benchmark::ClobberMemory();
  }
  report(state, kPages);
}
BENCHMARK(LimitRewritePlane)->Unit(benchmark::kMillisecond);

/// The records of a window copied: the limit of decoding them.
void LimitCopyRecords(benchmark::State& state) {
  const std::vector<std::byte>& records = window_records(10);
  std::vector<std::byte> copy(records.size());
  for (auto _ : state) {
    std::memcpy(copy.data(), records.data(), records.size());
    benchmark::ClobberMemory();
  }
  report(state, records.size());
}
BENCHMARK(LimitCopyRecords)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace thermocline::bench
