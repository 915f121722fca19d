// SPDX-License-Identifier: Apache-2.0
// What could have been reached, by someone who knows all rates beforehand.
//
// *Best static placement*: the pages with the largest share of the accesses of the whole judged
// time, fastest tier first. That is the static placement with the best hit ratio (an exchange of
// any two pages doesn't raise it); it is run on the machine like any other placement.
//
// *Dynamic bound*: no policy that moves pages under the rate limit does better. Let x[p, k] be the
// share of phase k for which page p is on the fastest tier. With T_k seconds of phase k and the
// throughput X_k(h) at hit ratio h, a policy's accesses are at most
//   sum over k of T_k * X_k(h_k), less what moves cost at least; X_k(h) <= a_k + s_k * h,
// subject to the fast tier's capacity in each phase, and to the rate limit: x[p, k] can differ from
// x[p, k - 1] by no more than was moved in both phases. These limits are taken into the sum with
// prices >= 0 (Lagrangian relaxation; weak duality: whatever the prices, the relaxed maximum is no
// less than what is possible). Each page then stands by itself, and its best sequence of places is
// found by dynamic programming over the phases. Prices go step by step towards those with the least
// sum, and the least one met is the bound; it is compared with the best placement of each phase by
// itself, moves free, and the smaller one holds. What a sweep reads just after a promotion is
// granted on top, as far as the rate limit lets pages be promoted ahead of it.
//
// Both take sweeps for whole laps; where the judged time ends within one, a result may pass them by
// a trifle. Of footprints above kOraclePages with several phases, pages are sampled.
#pragma once

#include <cstdint>
#include <vector>

#include "emulation/sim/machine.h"
#include "emulation/sim/workload.h"
#include "emulation/sim/world.h"

namespace thermocline::sim {

inline constexpr std::uint64_t kOraclePages = std::uint64_t{1} << 23;

struct OracleQuestion {
  const Machine& machine;
  const Workload& workload;
  const Capacity& capacity;
  double from_s = 0, to_s = 0;  ///< the judged time
  double moves_per_second = 0;  ///< pages that the rate limit lets through
};

/// Tier of each page under the best static placement.
[[nodiscard]] std::vector<std::uint8_t> best_static_placement(const OracleQuestion& question);

struct DynamicBound {
  double hit_ratio = 0;
  AccessRate throughput = 0;
};
[[nodiscard]] DynamicBound dynamic_bound(const OracleQuestion& question);

/// Pages that are alike: how many, and their share of the accesses in each phase.
struct PageGroup {
  double pages = 0;
  std::vector<double> value;  ///< what one page adds while it is fast, by phase
};
/// An upper bound of: sum over groups and phases of value of the pages that are fast, less `cost`
/// for each page that changes between two phases, with at most `capacity` fast pages in each phase
/// and at most moves[k] changes between phase k - 1 and k (moves[0] is not used: the first
/// placement is free).
[[nodiscard]] double relaxed_best(const std::vector<PageGroup>& groups, double capacity,
                                  const std::vector<double>& moves, double cost);

/// The best that a placement can do when no more than prefix[t] of the accesses go to the tiers up
/// to t (of the last one: 1).
[[nodiscard]] AccessRate best_throughput(const Machine& machine, const std::vector<double>& prefix);

/// Share of the accesses that the `capacity` busiest pages get, by classes of a phase.
[[nodiscard]] double best_share(const Phase& phase,
                                const std::array<std::uint64_t, kClasses>& pages_of_class,
                                std::uint64_t capacity);

}  // namespace thermocline::sim
