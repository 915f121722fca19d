// SPDX-License-Identifier: Apache-2.0
// Taking records out of the module's ring, against its limit: copying as many bytes.
//
// The ring is filled once with the records of busy 4 KiB pages and read again and again, by setting
// its position back; so the bytes come from where they lie in the caches, as they do when a thread
// on another core has just written them, at best.
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "tracking/record.h"
#include "tracking/ring_reader.h"

namespace thermocline::bench {
namespace {

constexpr std::size_t kHeader = 4096;
constexpr std::uint64_t kData = 1 << 20;

/// A ring as the kernel would have it, full.
class FullRing {
 public:
  FullRing() : memory_((kHeader + 2 * kData) / 8) {
    std::vector<EntryObservation> pages(512);
    for (std::size_t i = 0; i < pages.size(); ++i)
      pages[i] = {NodeId(0), true, true, i % 3 == 0, i % 5 == 0};
    std::vector<std::byte> records;
    RecordHeader head;
    head.asid = Asid(1);
    for (std::uint64_t n = 0; records.size() < kData - 4096; ++n)
      RecordWriter(records).append(head, n, Vpn(n * 512), kOrder4K, pages);
    bytes_ = records.size();
    header()->data_offset = kHeader;
    header()->data_bytes = kData;
    for (const std::size_t half : {kHeader, kHeader + kData})
      std::memcpy(mapping().data() + half, records.data(), records.size());
  }
  thermocline_ring_header* header() {
    return reinterpret_cast<thermocline_ring_header*>(memory_.data());
  }
  std::span<std::byte> mapping() { return std::as_writable_bytes(std::span(memory_)); }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  /// A reader at the begin of a ring that holds everything.
  RingReader reader() {
    header()->consumed = 0;
    header()->produced = bytes_;
    return *RingReader::open(mapping());
  }

 private:
  std::vector<std::uint64_t> memory_;
  std::size_t bytes_ = 0;
};

void report(benchmark::State& state, const FullRing& ring) {
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * ring.bytes()));
}

void RingTakeFrames(benchmark::State& state) {
  FullRing ring;
  for (auto _ : state) {
    state.PauseTiming();
    RingReader reader = ring.reader();
    state.ResumeTiming();
    std::size_t seen = 0;
    const Status done = reader.drain([&](std::span<const std::byte> r) { seen += r.size(); },
                                     [](const thermocline_mark&) {});
    if (!done || seen != ring.bytes()) return state.SkipWithError("the ring was not read");
  }
  report(state, ring);
}
BENCHMARK(RingTakeFrames)->Unit(benchmark::kMicrosecond);

void RingTakeAndValidate(benchmark::State& state) {
  FullRing ring;
  for (auto _ : state) {
    state.PauseTiming();
    RingReader reader = ring.reader();
    state.ResumeTiming();
    std::uint64_t last = 0;
    const Status done = reader.drain(
        [&](std::span<const std::byte> bytes) {
          RecordReader records(bytes);
          while (const auto record = records.next()) last = record->sequence;
        },
        [](const thermocline_mark&) {});
    if (!done) return state.SkipWithError("the ring was not read");
    benchmark::DoNotOptimize(last);
  }
  report(state, ring);
}
BENCHMARK(RingTakeAndValidate)->Unit(benchmark::kMicrosecond);

/// The same bytes, in the reader's chunks, copied and nothing else.
void LimitCopyRing(benchmark::State& state) {
  FullRing ring;
  constexpr std::size_t kChunk = 128 * 1024;
  std::vector<std::byte> copy(kChunk);
  for (auto _ : state) {
    for (std::size_t at = 0; at < ring.bytes(); at += kChunk) {
      std::memcpy(copy.data(), ring.mapping().data() + kHeader + at,
                  std::min(kChunk, ring.bytes() - at));
      benchmark::ClobberMemory();
    }
  }
  report(state, ring);
}
BENCHMARK(LimitCopyRing)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace thermocline::bench
