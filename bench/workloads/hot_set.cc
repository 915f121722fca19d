// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/hot_set.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "bench/workloads/random.h"

namespace thermocline::workloads {

namespace {

/// Order in which units turn hot in one phase; units that were hot before are left out.
std::vector<std::uint32_t> rank_units(const HotSetOptions& o, std::uint32_t units, unsigned phase,
                                      const std::vector<bool>& hot_before) {
  std::vector<std::uint32_t> order;
  order.reserve(units);
  for (std::uint32_t u = 0; u < units; ++u)
    if (!hot_before[u]) order.push_back(u);

  Random random(o.seed, phase);
  if (o.layout == HotLayout::kContiguous) {
    // Later phases begin right behind the run of the phase before.
    auto start = static_cast<std::uint32_t>(random.below(units));
    const auto follows_a_run = [&] {
      return !hot_before[start] && hot_before[(start + units - 1) % units];
    };
    if (std::find(hot_before.begin(), hot_before.end(), true) != hot_before.end())
      while (!follows_a_run()) start = (start + 1) % units;
    const auto pivot = std::lower_bound(order.begin(), order.end(), start);
    std::rotate(order.begin(), pivot, order.end());
    return order;
  }

  // Weighted sampling without replacement (Efraimidis and Spirakis, 2006): the unit with the
  // smallest -ln(u) / weight comes first. Scattered is the case of equal weights.
  constexpr std::uint64_t kClusterPages = 512;
  const std::uint32_t units_per_cluster =
      static_cast<std::uint32_t>(std::max<std::uint64_t>(1, kClusterPages / o.unit.get()));
  std::vector<double> weight(units / units_per_cluster + 1, 1.0);
  if (o.layout == HotLayout::kClustered)
    for (double& w : weight) w = std::exp(6.0 * random.unit() - 3.0);
  std::vector<double> key(units);
  for (std::uint32_t u = 0; u < units; ++u)
    key[u] = -std::log(1.0 - random.unit()) / weight[u / units_per_cluster];
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return key[a] != key[b] ? key[a] < key[b] : a < b;
  });
  return order;
}

}  // namespace

Result<std::vector<HotSet>> choose_hot_sets(const HotSetOptions& o) {
  const std::uint64_t unit = o.unit.get();
  if (unit == 0 || o.pages.get() == 0 || o.pages.get() % unit != 0)
    return fail(ErrorKind::kUsage, "the footprint must be a multiple of the hot unit, {} pages",
                unit);
  if (o.pages.get() > std::numeric_limits<std::uint32_t>::max())
    return fail(ErrorKind::kUsage, "a footprint of {} pages is too large", o.pages.get());
  if (!(o.hot_fraction > 0.0 && o.hot_fraction < 1.0))
    return fail(ErrorKind::kUsage, "the hot fraction must lie between 0 and 1, not be {}",
                o.hot_fraction);
  const auto units = static_cast<std::uint32_t>(o.pages.get() / unit);
  const auto hot_units = static_cast<std::uint32_t>(std::lround(o.hot_fraction * units));
  if (hot_units == 0 || hot_units == units)
    return fail(ErrorKind::kUsage,
                "a hot fraction of {} of {} units leaves no hot or no cold pages", o.hot_fraction,
                units);
  if (o.phases > 1 && std::uint64_t{hot_units} * 2 > units)
    return fail(ErrorKind::kUsage,
                "a hot set that moves to other pages can be at most half of the footprint, not {}",
                o.hot_fraction);

  std::vector<HotSet> sets;
  std::vector<bool> hot_now(units, false);
  for (unsigned phase = 0; phase < o.phases; ++phase) {
    const std::vector<std::uint32_t> order = rank_units(o, units, phase, hot_now);
    hot_now.assign(units, false);
    for (std::uint32_t i = 0; i < hot_units; ++i) hot_now[order[i]] = true;
    HotSet set;
    set.hot.reserve(hot_units * unit);
    set.cold.reserve((units - hot_units) * unit);
    for (std::uint32_t u = 0; u < units; ++u) {
      std::vector<std::uint32_t>& side = hot_now[u] ? set.hot : set.cold;
      for (std::uint64_t p = 0; p < unit; ++p)
        side.push_back(static_cast<std::uint32_t>(u * unit + p));
    }
    sets.push_back(std::move(set));
  }
  return sets;
}

}  // namespace thermocline::workloads
