// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/suite/updates.h"

#include <numeric>

namespace thermocline::workloads {

Result<std::unique_ptr<Workload>> make_updates(const Instance& instance,
                                               std::vector<UpdatePhase> phases) {
  TC_ASSIGN(const auto words, instance.memory.allocate<std::uint64_t>(
                                  pages_of_footprint(instance).get() * kWordsPerPage));
  return std::make_unique<Updates>(words, instance.seed, std::move(phases));
}

PageCount pages_of_footprint(const Instance& instance) {
  return pages_of(instance.footprint);
}

HotSet every_page_alike(PageCount pages) {
  HotSet set;
  set.cold.resize(pages.get());
  std::iota(set.cold.begin(), set.cold.end(), 0u);
  return set;
}

}  // namespace thermocline::workloads
