// SPDX-License-Identifier: Apache-2.0
// Bytes as what tracker_watch writes in a guest, and as lines of kept results: what is taken over
// can be written and read again, and judged.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "bench/trackers/judge.h"
#include "bench/trackers/row.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace thermocline::trackers;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parse_rows(text);
  const auto watch = parse_watch(text);
  // What a small text can claim to be of is far more than what a guest has.
  if (!watch || watch->pages() > 1 << 20) return 0;
  const auto again = parse_watch(to_text(*watch));
  if (!again || again->looks.size() != watch->looks.size() || again->heat != watch->heat)
    std::abort();
  thermocline::suite::Truth truth;
  truth.end_ns = ~std::uint64_t{0} >> 1;
  for (const Region& region : watch->regions)
    if (region.pages != 0) truth.last_phase_pages.emplace_back(region.first, 1);
  (void)judge(*watch, truth, 0, 10);
  return 0;
}
