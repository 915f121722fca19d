// SPDX-License-Identifier: Apache-2.0
// Which pages of a region are hot in each phase of a workload. Pure and seeded: the same options
// give the same pages on every machine. Used by hotset; knows nothing of memory.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline::workloads {

enum class HotLayout {
  kScattered,   ///< every unit is as likely as any other
  kClustered,   ///< regions of 2 MiB differ in how many of their units are hot, from none to most
  kContiguous,  ///< one run of units, at a random place (it may wrap around the end)
};

struct HotSetOptions {
  PageCount pages;             ///< of the region
  PageCount unit{1};           ///< pages that turn hot together; divides `pages`
  double hot_fraction = 0.25;  ///< 0 < hot_fraction < 1; at most 0.5 when there are several phases
  HotLayout layout = HotLayout::kScattered;
  std::uint64_t seed = 1;
  unsigned phases = 1;
};

/// Page numbers within the region, from 0. Hot and cold together are all pages, each once.
struct HotSet {
  std::vector<std::uint32_t> hot;
  std::vector<std::uint32_t> cold;
};

/// One set a phase; no page is hot in two phases in a row. kUsage when the options don't allow it.
[[nodiscard]] Result<std::vector<HotSet>> choose_hot_sets(const HotSetOptions& options);

}  // namespace thermocline::workloads
