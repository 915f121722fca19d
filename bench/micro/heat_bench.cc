// SPDX-License-Identifier: Apache-2.0
// Records, heat map and policy over 100 M pages. Compare with Limit* of the same run.
#include <benchmark/benchmark.h>

#include <array>
#include <ctime>
#include <memory>
#include <string>
#include <utility>

#include "bench/micro/machine.h"
#include "heat/heat_map.h"
#include "heat/kernels.h"
#include "policies/policy.h"

namespace thermocline::bench {
namespace {

void take_window(HeatMap& map, int active_of_ten) {
  RecordReader reader(window_records(active_of_ten));
  while (const auto record = reader.next()) map.apply(*record, true);
}

/// A map that has seen four windows, one for each kind of benchmark at a time: memory is short.
HeatMap& warm_map(const HeatKernels& kernels, int active_of_ten) {
  static std::unique_ptr<HeatMap> map;
  static std::pair<std::string, int> what;
  const std::pair<std::string, int> wanted(kernels.name, active_of_ten);
  if (what == wanted) return *map;
  map.reset();
  map = std::make_unique<HeatMap>(HeatMap::Options{.window_heat = 32, .kernels = &kernels});
  const TierId tiers[] = {TierId(0), TierId(1)};
  map->set_node_tiers(tiers);
  for (int w = 0; w < 4; ++w) take_window(*map, active_of_ten);
  what = wanted;
  return *map;
}

const HeatKernels* kernels_of(benchmark::State& state) {
  const auto all = supported_heat_kernels();
  const auto index = static_cast<std::size_t>(state.range(0));
  if (index < all.size()) {
    state.SetLabel(std::string(all[index].name));
    return &all[index];
  }
  state.SkipWithError("this processor doesn't have it");
  return nullptr;
}

void per_page(benchmark::State& state) {
  state.counters["pages"] = static_cast<double>(kPages);
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * kPages));
}

/// Seconds of CPU that this thread has used: other work on the machine doesn't count, beyond what
/// it takes from caches and memory.
double cpu_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

template <class F>
void timed(benchmark::State& state, F f) {
  const double begin = cpu_seconds();
  f();
  state.SetIterationTime(cpu_seconds() - begin);
}

void DecodeRecords(benchmark::State& state) {
  const std::vector<std::byte>& records = window_records(10);
  for (auto _ : state) {
    RecordReader reader(records);
    std::uint64_t n = 0;
    while (const auto record = reader.next()) n += record->count;
    if (n != kPages) state.SkipWithError("records lost");
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * records.size()));
  per_page(state);
}
BENCHMARK(DecodeRecords)->Unit(benchmark::kMillisecond);

/// One window of 100 M pages, decoded and taken in; a fifth of the pages accessed.
void ApplyWindow(benchmark::State& state) {
  const HeatKernels* kernels = kernels_of(state);
  if (kernels == nullptr) return;
  HeatMap& map = warm_map(*kernels, 10);
  for (auto _ : state) take_window(map, 10);
  per_page(state);
}
BENCHMARK(ApplyWindow)->DenseRange(0, 2)->Unit(benchmark::kMillisecond);

enum Capacity { kSteady, kJumping };

void age_and_select(benchmark::State& state, int active_of_ten, Capacity capacity) {
  const HeatKernels* kernels = kernels_of(state);
  if (kernels == nullptr) return;
  HeatMap& map = warm_map(*kernels, active_of_ten);
  std::uint64_t share = 30;
  (void)map.age_and_select(PageCount(kPages / 100 * share));
  for (auto _ : state) {
    take_window(map, active_of_ten);  // so that there is heat to age; not timed
    if (capacity == kJumping) share = share == 5 ? 60 : 5;
    timed(state,
          [&] { benchmark::DoNotOptimize(map.age_and_select(PageCount(kPages / 100 * share))); });
  }
  per_page(state);
}

/// The edge of the hot set is where it was: one pass.
void AgeAndSelect(benchmark::State& state) {
  age_and_select(state, 10, kSteady);
}
BENCHMARK(AgeAndSelect)->DenseRange(0, 2)->UseManualTime()->Unit(benchmark::kMillisecond);

/// The capacity jumps between 5 % and 60 % of the pages: the bracket is missed every time.
void AgeAndSelectMissed(benchmark::State& state) {
  age_and_select(state, 10, kJumping);
}
BENCHMARK(AgeAndSelectMissed)->DenseRange(0, 2)->UseManualTime()->Unit(benchmark::kMillisecond);

/// Nine blocks in ten have been cold for long and are skipped.
void AgeAndSelectMostlyCold(benchmark::State& state) {
  age_and_select(state, 1, kSteady);
}
BENCHMARK(AgeAndSelectMostlyCold)->DenseRange(0, 2)->UseManualTime()->Unit(benchmark::kMillisecond);

/// All heat is quartered: what was hot isn't any more.
void Fade(benchmark::State& state) {
  HeatMap& map = warm_map(best_heat_kernels(), 10);
  const Asid asid = map.address_spaces().front();
  for (auto _ : state) {
    take_window(map, 10);
    const double begin = cpu_seconds();
    map.fade(asid);
    state.SetIterationTime(cpu_seconds() - begin);
  }
  per_page(state);
}
BENCHMARK(Fade)->UseManualTime()->Unit(benchmark::kMillisecond);

/// The hottest 128 Ki pages of the slow tier, and the coldest of the fast one.
void CandidatesHottest(benchmark::State& state) {
  const HeatMap& map = warm_map(best_heat_kernels(), 10);
  for (auto _ : state)
    benchmark::DoNotOptimize(
        map.candidates(TierId(1), Heat(32), Heat(255), true, PageCount(1u << 17)));
  per_page(state);
}
BENCHMARK(CandidatesHottest)->Unit(benchmark::kMillisecond);

void CandidatesColdest(benchmark::State& state) {
  const HeatMap& map = warm_map(best_heat_kernels(), 10);
  for (auto _ : state)
    benchmark::DoNotOptimize(
        map.candidates(TierId(0), Heat(0), Heat(255), false, PageCount(1u << 17)));
  per_page(state);
}
BENCHMARK(CandidatesColdest)->Unit(benchmark::kMillisecond);

void Histogram(benchmark::State& state) {
  const HeatMap& map = warm_map(best_heat_kernels(), 10);
  for (auto _ : state) benchmark::DoNotOptimize(map.histogram(TierId(1), true));
  per_page(state);
}
BENCHMARK(Histogram)->Unit(benchmark::kMillisecond);

/// A whole decision of policy auto, lists and test for luck included, after ageing.
void DecideAuto(benchmark::State& state) {
  HeatMap& map = warm_map(best_heat_kernels(), 10);
  PolicyRegistry registry;
  register_builtin_policies(registry);
  const auto policy = std::move(*registry.make("auto", {}, 1));
  std::array<TierView, 2> tiers{};
  const Occupancy held = map.occupancy();
  for (std::size_t t = 0; t < tiers.size(); ++t) {
    tiers[t].id = TierId(static_cast<std::uint8_t>(t));
    tiers[t].used = tiers[t].capacity = held.per_tier[t];
  }
  Feedback feedback{};
  feedback.windows = 8;
  const View view{Epoch(1), map,
                  tiers,    map.age_and_select(tiers[0].capacity),
                  feedback, Budget{PageCount(1u << 17)}};
  for (auto _ : state) benchmark::DoNotOptimize(policy->decide(view));
  per_page(state);
  take_window(map, 10);
}
BENCHMARK(DecideAuto)->Unit(benchmark::kMillisecond);

/// Resident memory that 100 M pages cost, and what the map itself says.
void MemoryOf100MPages(benchmark::State& state) {
  (void)warm_map(best_heat_kernels(), -1);  // free the other one
  const std::vector<std::byte>& records = window_records(10);
  for (auto _ : state) {
    const std::size_t before = resident_bytes();
    HeatMap map;
    const TierId tiers[] = {TierId(0), TierId(1)};
    map.set_node_tiers(tiers);
    RecordReader reader(records);
    while (const auto record = reader.next()) map.apply(*record, true);
    state.counters["resident_MB"] = static_cast<double>(resident_bytes() - before) / 1e6;
    state.counters["map_MB"] = static_cast<double>(map.memory().get()) / 1e6;
    state.counters["bytes_per_page"] =
        static_cast<double>(map.memory().get()) / static_cast<double>(kPages);
  }
}
BENCHMARK(MemoryOf100MPages)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace thermocline::bench
