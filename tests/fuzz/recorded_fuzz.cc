// SPDX-License-Identifier: Apache-2.0
// A workload from any records: refused or played, in bounded memory, and its shares add up.
#include <cmath>
#include <cstdlib>
#include <span>

#include "emulation/sim/recorded.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline;
  const auto bytes = std::as_bytes(std::span(data, size));
  MemoryRecords records({bytes.begin(), bytes.end()});
  const auto recorded = sim::read_recorded(records, "x", Bytes(16u << 20));
  if (!recorded) return 0;
  const sim::Workload workload = (*recorded)->kind.make({}, 0, 1);
  sim::Phase phase;
  for (const std::uint64_t number : {std::uint64_t{0}, (*recorded)->phases / 2 + 1}) {
    workload.fill(number, phase);
    if (phase.classes.size() != (*recorded)->pages) std::abort();
    double sum = 0;
    for (const std::uint8_t c : phase.classes) sum += phase.share[c];
    if (!(std::abs(sum - 1) < 1e-6)) std::abort();
  }
  return 0;
}
