// SPDX-License-Identifier: Apache-2.0
// Patterns that mislead tiering in a known way: a huge page that is hot for a few of its 4 KiB
// pages (the skew that MEMTIS, SOSP 2023, splits huge pages for), a scan that makes everything look
// recently used before a loop over little (the classic weakness of LRU: Megiddo and Modha, ARC,
// FAST 2003), and a change from one pattern to quite another.
#include <algorithm>
#include <numeric>

#include "bench/workloads/suite/families.h"
#include "bench/workloads/suite/updates.h"

namespace thermocline::workloads {

namespace {

constexpr std::uint32_t kPagesPerHuge = 512;

Result<std::unique_ptr<Workload>> sparse_huge(const Instance& instance) {
  const auto pages = static_cast<std::uint32_t>(pages_of_footprint(instance).get());
  const auto hot_pages = static_cast<std::uint32_t>(instance["hot_pages"]);
  Random random(instance.seed, 2);
  HotSet set;
  for (std::uint32_t first = 0; first < pages; first += kPagesPerHuge) {
    const std::uint32_t count = std::min(kPagesPerHuge, pages - first);
    std::vector<std::uint32_t> order(count);
    std::iota(order.begin(), order.end(), first);
    for (std::uint32_t i = 0; i < count; ++i) {
      std::swap(order[i], order[i + random.below(count - i)]);
      (i < hot_pages ? set.hot : set.cold).push_back(order[i]);
    }
  }
  // The tail may be all hot; the other huge pages always leave cold ones.
  return make_updates(instance, {{"steady", std::move(set), instance["hot_share"]}});
}

/// A run of `share` of the pages, at a random place.
HotSet run_of_pages(const Instance& instance, double share) {
  const auto pages = static_cast<std::uint32_t>(pages_of_footprint(instance).get());
  const auto count = std::max(1u, static_cast<std::uint32_t>(share * pages));
  const auto start = static_cast<std::uint32_t>(Random(instance.seed, 3).below(pages - count + 1));
  HotSet set;
  set.hot.resize(count);
  std::iota(set.hot.begin(), set.hot.end(), start);
  return set;
}

UpdatePhase scan(const Instance& instance) {
  return {"scan", run_of_pages(instance, 1.0), 0, true};
}
UpdatePhase loop(const Instance& instance) {
  return {"loop", run_of_pages(instance, instance["loop_fraction"]), 0, true};
}

Result<std::unique_ptr<Workload>> scan_then_loop(const Instance& instance) {
  return make_updates(instance, {scan(instance), loop(instance)});
}

Result<std::unique_ptr<Workload>> phase_change(const Instance& instance) {
  TC_ASSIGN(std::vector<HotSet> sets, choose_hot_sets({.pages = pages_of_footprint(instance),
                                                       .hot_fraction = instance["hot_fraction"],
                                                       .layout = HotLayout::kScattered,
                                                       .seed = instance.seed,
                                                       .phases = 2}));
  std::vector<UpdatePhase> phases;
  phases.push_back({"hot-a", std::move(sets[0]), 0.9});
  phases.push_back(scan(instance));
  phases.push_back({"hot-b", std::move(sets[1]), 0.9});
  phases.push_back({"uniform", every_page_alike(pages_of_footprint(instance))});
  phases.push_back(loop(instance));
  return make_updates(instance, std::move(phases));
}

const Setting kLoopFraction{"loop_fraction", 0.1, 0.001, 1, "share of the memory in the loop"};

}  // namespace

std::vector<WorkloadSpec> pattern_workloads() {
  return {
      {"sparse-huge",
       "updates a random word, mostly of a few 4 KiB pages of each 2 MiB",
       "MEMTIS, SOSP 2023, section 3",
       256,
       {{"hot_pages", 8, 1, 256, "hot pages in each 2 MiB"},
        {"hot_share", 0.9, 0, 1, "share of the updates that go to hot pages"}},
       sparse_huge},
      {"scan-then-loop",
       "updates every cache line in turn: of all memory, then of a small part",
       "ARC, FAST 2003",
       256,
       {kLoopFraction},
       scan_then_loop},
      {"phase-change",
       "updates words: of a hot set, all in turn, of another, uniform, of a loop",
       "HeMem, SOSP 2021, with more patterns",
       256,
       {{"hot_fraction", 0.1, 0.001, 0.5, "share of the pages that are hot"}, kLoopFraction},
       phase_change},
  };
}

}  // namespace thermocline::workloads
