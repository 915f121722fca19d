// SPDX-License-Identifier: Apache-2.0
// Random updates of 8-byte words. GUPS is RandomAccess of the HPC Challenge (Luszczek et al.,
// 2005); the hot set of 90 % of the updates in 10 % of the memory, and one that moves at once, are
// how HeMem (Raybuck et al., SOSP 2021) and those after it judge tiering.
#include <algorithm>

#include "bench/workloads/suite/families.h"
#include "bench/workloads/suite/updates.h"

namespace thermocline::workloads {

namespace {

Setting hot_fraction(double value, double max) {
  return {"hot_fraction", value, 0.001, max, "share of the pages that are hot"};
}
const Setting kHotUnit{"hot_unit", 1, 1, 512, "4 KiB pages that are hot or cold together"};
const Setting kHotShare{"hot_share", 0.9, 0, 1, "share of the updates that go to hot pages"};

Result<std::unique_ptr<Workload>> uniform(const Instance& instance) {
  return make_updates(instance, {{"steady", every_page_alike(pages_of_footprint(instance))}});
}

Result<std::unique_ptr<Workload>> with_hot_sets(const Instance& instance, unsigned phases) {
  // Whole units; what is left over at the end is cold.
  const std::uint64_t pages = pages_of_footprint(instance).get();
  const std::uint64_t unit = instance.settings.contains(kHotUnit.key)
                                 ? static_cast<std::uint64_t>(instance[kHotUnit.key])
                                 : 1;
  const double least = static_cast<double>(unit) / static_cast<double>(pages / unit * unit);
  double hot_fraction = instance["hot_fraction"];
  if (unit > 1) hot_fraction = std::clamp(hot_fraction, least, 1 - least);
  TC_ASSIGN(std::vector<HotSet> sets, choose_hot_sets({.pages = PageCount(pages / unit * unit),
                                                       .unit = PageCount(unit),
                                                       .hot_fraction = hot_fraction,
                                                       .layout = HotLayout::kScattered,
                                                       .seed = instance.seed,
                                                       .phases = phases}));
  for (HotSet& set : sets)
    for (std::uint64_t page = pages / unit * unit; page < pages; ++page)
      set.cold.push_back(static_cast<std::uint32_t>(page));
  std::vector<UpdatePhase> list;
  for (HotSet& set : sets)
    list.push_back({phases == 1 ? "steady" : fmt::format("set-{}", list.size()), std::move(set),
                    instance["hot_share"]});
  return make_updates(instance, std::move(list));
}

}  // namespace

std::vector<WorkloadSpec> gups_workloads() {
  return {
      {"gups-uniform",
       "updates a random 8-byte word of all",
       "HPC Challenge RandomAccess",
       256,
       {},
       uniform},
      {"gups-hot",
       "updates a random word, mostly of hot pages that lie anywhere",
       "HeMem, SOSP 2021, section 5.1",
       256,
       {hot_fraction(0.1, 0.99), kHotShare, kHotUnit},
       [](const Instance& instance) { return with_hot_sets(instance, 1); }},
      {"gups-moving",
       "as gups-hot; the hot set moves to other pages all at once",
       "HeMem, SOSP 2021, section 5.1",
       256,
       {hot_fraction(0.1, 0.5),
        kHotShare,
        {"phases", 3, 2, 100, "hot sets, each for the same part of the run"}},
       [](const Instance& instance) {
         return with_hot_sets(instance, static_cast<unsigned>(instance["phases"]));
       }},
      {"hot-larger",
       "as gups-hot; the hot set is meant to be larger than the fast tier",
       "the case where moving pages can cost more than it gains",
       256,
       {hot_fraction(0.6, 0.99), kHotShare},
       [](const Instance& instance) { return with_hot_sets(instance, 1); }},
  };
}

}  // namespace thermocline::workloads
