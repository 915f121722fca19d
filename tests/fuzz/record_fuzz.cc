// SPDX-License-Identifier: Apache-2.0
// Bytes as records into the heat map: nothing read out of bounds, no arithmetic gone wrong (the
// sanitizers watch), and afterwards the map's own numbers add up.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "heat/heat_map.h"
#include "tracking/record.h"

namespace {

using namespace thermocline;

void require(bool holds) {
  if (!holds) std::abort();
}

/// Every number that the map keeps as it goes, against one that is counted afresh.
void check(const HeatMap& map) {
  const Occupancy all = map.occupancy();
  std::uint64_t on_tiers = 0;
  for (std::size_t t = 0; t < kMaxTiers; ++t) {
    std::uint64_t counted = 0;
    for (const PageCount n : map.histogram(TierId(static_cast<std::uint8_t>(t)), false))
      counted += n.get();
    require(counted == all.per_tier[t].get());
    on_tiers += counted;
  }
  std::uint64_t by_space = 0, by_bins = 0, nowhere = 0;
  for (const Asid asid : map.address_spaces()) {
    const Occupancy own = map.occupancy(asid);
    for (const PageCount n : own.per_tier) by_space += n.get();
    for (const HeatBin& bin : map.bins(asid, 16)) by_bins += bin.present.get();
  }
  require(by_space == on_tiers);
  for (const PageCount n : map.histogram(kNoTier, true)) nowhere += n.get();
  require(nowhere == 0);
  require(by_bins >= on_tiers && by_bins <= on_tiers + all.unobservable.get());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  HeatMap map;
  const TierId tiers[] = {TierId(0), TierId(1), kNoTier, TierId(2)};
  map.set_node_tiers(tiers);
  RecordReader reader(std::as_bytes(std::span(data, size)));
  Asid last;
  std::uint64_t records = 0;
  while (records++ < 64) {
    const auto record = reader.next();
    if (!record) break;
    // A few giant pages are enough to get everywhere; thousands only make a run slow.
    if (record->order == kOrder1G && record->count > 16) continue;
    const ApplyStats stats = map.apply(*record, record->sequence % 2 == 0);
    require(stats.pages <= record->pages());
    require(stats.accessed <= stats.pages);
    require(stats.accessed_fast <= stats.accessed);
    switch (record->epoch.get() % 8) {
      case 1:
        (void)map.age_and_select(PageCount(record->sequence));
        break;
      case 2:
        map.clear_range(record->asid, record->first, PageCount(record->sequence % 2000));
        break;
      case 3:
        map.moved(record->asid, record->first, TierId(1), false, 3);
        break;
      case 4:
        map.mark_stuck(record->asid, record->first);
        break;
      case 5:
        map.forget(last);
        break;
      default:
        break;
    }
    last = record->asid;
  }
  check(map);
  const Threshold edge = map.age_and_select(PageCount(1000));
  require(!edge.fits || edge.at_or_above <= PageCount(1000));
  std::uint64_t listed = 0;
  for (const PageRef& page : map.candidates(TierId(0), Heat(0), Heat(255), true, PageCount(600)))
    listed += page.order.pages().get();
  require(listed <= 600);
  return 0;
}
