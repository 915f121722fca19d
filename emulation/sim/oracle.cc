// SPDX-License-Identifier: Apache-2.0
#include "emulation/sim/oracle.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "emulation/sim/spread.h"

namespace thermocline::sim {

namespace {

/// Traffic is dealt out to the tiers in so many parts.
constexpr int kParts = 256;
/// Throughput over the hit ratio is bounded on so many pieces.
constexpr int kPieces = 64;
/// Steps in which prices are lowered.
constexpr int kSteps = 120;
/// Pages of a full call to the mover: what a move costs at least is its share of one.
constexpr double kCallPages = 512;

/// A phase within the judged time.
struct Span {
  std::uint64_t number = 0;
  double seconds = 0;
};

std::vector<Span> spans_of(const OracleQuestion& q) {
  std::vector<Span> spans;
  for (std::uint64_t k = 0; q.workload.phase_start(k) < q.to_s; ++k) {
    const double from = std::max(q.from_s, q.workload.phase_start(k));
    const double to = std::min(q.to_s, q.workload.phase_start(k + 1));
    if (to > from) spans.push_back({k, to - from});
  }
  return spans;
}

/// What pages of each class get, and where a sweep adds to it.
double page_share(const Phase& phase, std::uint64_t page) {
  double share = phase.share[phase.classes[page]];
  for (const Sweep& sweep : phase.sweeps)
    if (page - sweep.first < sweep.count) share += sweep.weight / static_cast<double>(sweep.count);
  return share;
}

/// Pages [0, pages) or, of many, one in so many of them, always the same.
std::uint64_t sampled_one_in(std::uint64_t pages) {
  return (pages + kOraclePages - 1) / kOraclePages;
}

/// Marginal latency of one more access to a tier that has so much traffic.
double marginal(const MemoryTier& tier, double rate, double share) {
  constexpr double kStep = 1.0 / kParts;
  return ((share + kStep) * loaded_latency_ns(tier, rate * (share + kStep) * kLine) -
          share * loaded_latency_ns(tier, rate * share * kLine)) /
         kStep;
}

/// The traffic with the least mean latency at a rate. Of separable convex costs under limits on
/// prefixes, dealing out parts to the cheapest tier that may still have one is best.
Traffic cheapest_traffic(const Machine& machine, const std::vector<double>& prefix, double rate) {
  const std::size_t tiers = machine.tiers.size();
  Traffic traffic{};
  std::array<double, kMaxTiers> cost{};
  for (std::size_t t = 0; t < tiers; ++t) cost[t] = marginal(machine.tiers[t], rate, 0);
  for (int part = 0; part < kParts; ++part) {
    std::size_t best = tiers - 1;
    for (std::size_t t = 0; t < tiers; ++t) {
      double sum = 0;
      bool fits = true;
      for (std::size_t u = 0; u + 1 < tiers; ++u) {
        sum += traffic[u];
        if (u >= t && sum + 0.5 / kParts > prefix[u]) fits = false;
      }
      if (fits && cost[t] < cost[best]) best = t;
    }
    traffic[best] += 1.0 / kParts;
    cost[best] = marginal(machine.tiers[best], rate, traffic[best]);
  }
  return traffic;
}

/// The busiest pages as far as the tiers' capacities go.
std::vector<double> prefix_shares(const std::vector<std::pair<double, double>>& busiest,
                                  const Capacity& capacity) {
  std::vector<double> prefix;
  double room = 0, taken = 0, share = 0;
  std::size_t at = 0;
  double left = busiest.empty() ? 0 : busiest.front().second;
  for (std::size_t t = 0; t + 1 < capacity.size(); ++t) {
    room += static_cast<double>(capacity[t]);
    while (at < busiest.size() && taken < room) {
      const double n = std::min(left, room - taken);
      share += n * busiest[at].first;
      taken += n;
      left -= n;
      if (left <= 0 && ++at < busiest.size()) left = busiest[at].second;
    }
    prefix.push_back(std::min(share, 1.0));
  }
  prefix.push_back(1);
  return prefix;
}

}  // namespace

AccessRate best_throughput(const Machine& machine, const std::vector<double>& prefix) {
  // As fast as limits allow; that is best until a tier fills up.
  Traffic full{};
  double before = 0;
  for (std::size_t t = 0; t < prefix.size(); ++t) {
    full[t] = std::max(prefix[t] - before, 0.0);
    before = std::max(before, prefix[t]);
  }
  AccessRate best = throughput(machine, full);
  bool idle = true;
  for (std::size_t t = 0; t + 1 < prefix.size(); ++t)
    idle = idle && marginal(machine.tiers[t], best, full[t]) < machine.tiers[t + 1].latency_ns;
  if (idle) return best;
  AccessRate low = best, high = 0;
  {
    double sum = 0;
    for (const MemoryTier& tier : machine.tiers) sum += tier.bandwidth_gbps * 1e9 / 64;
    high = std::max(low, std::min(sum, machine.threads * 1e9 / std::max(machine.think_ns, 1e-3)));
  }
  constexpr int kHalvings = 24;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    const Traffic traffic = cheapest_traffic(machine, prefix, middle);
    const AccessRate rate = throughput(machine, traffic);
    best = std::max(best, rate);
    (rate >= middle ? low : high) = middle;
  }
  return best;
}

double best_share(const Phase& phase, const std::array<std::uint64_t, kClasses>& pages_of_class,
                  std::uint64_t capacity) {
  // Pages that are swept are taken to be spread over the classes as they come.
  std::array<std::size_t, kClasses> order{};
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return phase.share[a] > phase.share[b]; });
  double share = 0;
  std::uint64_t left = capacity;
  for (const std::size_t c : order) {
    const std::uint64_t n = std::min(left, pages_of_class[c]);
    share += static_cast<double>(n) * phase.share[c];
    left -= n;
  }
  return share;
}

std::vector<std::uint8_t> best_static_placement(const OracleQuestion& q) {
  const std::uint64_t pages = q.workload.pages;
  std::vector<float> value(pages, 0);
  Phase phase;
  for (const Span& span : spans_of(q)) {
    q.workload.fill(span.number, phase);
    for (std::uint64_t p = 0; p < pages; ++p)
      value[p] += static_cast<float>(page_share(phase, p) * span.seconds);
  }
  std::vector<std::uint32_t> order(pages);
  std::iota(order.begin(), order.end(), 0u);
  const auto busier = [&](std::uint32_t a, std::uint32_t b) {
    return value[a] > value[b] || (value[a] == value[b] && a < b);
  };
  std::vector<std::uint8_t> tiers(pages, static_cast<std::uint8_t>(q.capacity.size() - 1));
  std::uint64_t begin = 0;
  for (std::size_t t = 0; t + 1 < q.capacity.size() && begin < pages; ++t) {
    const std::uint64_t end = std::min(pages, begin + q.capacity[t]);
    if (end < pages)
      std::nth_element(order.begin() + static_cast<std::ptrdiff_t>(begin),
                       order.begin() + static_cast<std::ptrdiff_t>(end), order.end(), busier);
    for (std::uint64_t i = begin; i < end; ++i) tiers[order[i]] = static_cast<std::uint8_t>(t);
    begin = end;
  }
  return tiers;
}

double relaxed_best(const std::vector<PageGroup>& groups, double capacity,
                    const std::vector<double>& moves, double cost) {
  const std::size_t phases = moves.size();
  double most = 0;
  for (const PageGroup& group : groups)
    for (const double value : group.value) most = std::max(most, value);
  std::vector<double> room_price(phases, 0), move_price(phases, 0);
  double best = std::numeric_limits<double>::infinity();
  std::vector<double> fast(phases), changes(phases);
  std::vector<double> in(phases), out(phases);  // best value up to a phase, being fast or not
  std::vector<std::uint8_t> from_in(phases), from_out(phases);
  for (int step = 0; step < kSteps; ++step) {
    std::fill(fast.begin(), fast.end(), 0);
    std::fill(changes.begin(), changes.end(), 0);
    double sum = 0;
    for (std::size_t k = 0; k < phases; ++k)
      sum += room_price[k] * capacity + (k > 0 ? move_price[k] * moves[k] : 0);
    for (const PageGroup& group : groups) {
      for (std::size_t k = 0; k < phases; ++k) {
        const double gain = group.value[k] - room_price[k];
        if (k == 0) {
          in[0] = gain;
          out[0] = 0;
          continue;
        }
        const double move = cost + move_price[k];
        from_in[k] = in[k - 1] >= out[k - 1] - move ? 1 : 0;
        in[k] = gain + std::max(in[k - 1], out[k - 1] - move);
        from_out[k] = out[k - 1] >= in[k - 1] - move ? 0 : 1;
        out[k] = std::max(out[k - 1], in[k - 1] - move);
      }
      bool is_fast = in[phases - 1] > out[phases - 1];
      sum += group.pages * std::max(in[phases - 1], out[phases - 1]);
      for (std::size_t k = phases; k-- > 0;) {
        if (is_fast) fast[k] += group.pages;
        if (k == 0) break;
        const bool was = is_fast ? from_in[k] != 0 : from_out[k] != 0;
        if (was != is_fast) changes[k] += group.pages;
        is_fast = was;
      }
    }
    best = std::min(best, sum);
    // Subgradient: what is asked for too much becomes dearer.
    const double pace = most / (1 + step / 4.0);
    for (std::size_t k = 0; k < phases; ++k) {
      const double over = (fast[k] - capacity) / std::max(capacity, 1.0);
      room_price[k] = std::max(0.0, room_price[k] + 0.5 * pace * std::clamp(over, -1.0, 1.0));
      if (k == 0) continue;
      const double hurry = (changes[k] - moves[k]) / std::max(moves[k], 1.0);
      move_price[k] = std::max(0.0, move_price[k] + 0.5 * pace * std::clamp(hurry, -1.0, 1.0));
    }
  }
  return best;
}

DynamicBound dynamic_bound(const OracleQuestion& q) {
  const std::vector<Span> spans = spans_of(q);
  const std::size_t phases = spans.size();
  const std::uint64_t pages = q.workload.pages;
  const std::uint64_t one_in = phases > 1 ? sampled_one_in(pages) : 1;

  // Pages that have the same classes, and lie in the same sweeps, in all phases.
  std::vector<std::uint64_t> mark(pages / one_in + 1, 0);
  const auto sampled = [&](std::uint64_t i) {
    return one_in == 1 ? i : std::min(pages - 1, i * one_in + spread(i) % one_in);
  };
  const std::uint64_t samples = one_in == 1 ? pages : pages / one_in;
  std::vector<Phase> shares(phases);  // without their classes
  Phase phase;
  for (std::size_t k = 0; k < phases; ++k) {
    q.workload.fill(spans[k].number, phase);
    for (std::uint64_t i = 0; i < samples; ++i) {
      const std::uint64_t page = sampled(i);
      std::uint64_t key = phase.classes[page];
      for (const Sweep& sweep : phase.sweeps)
        key = key * 2 + (page - sweep.first < sweep.count ? 1 : 0);
      mark[i] = phases == 1 ? key : spread(mark[i] ^ (key + k * 65536));
    }
    shares[k].share = phase.share;
    shares[k].sweeps = phase.sweeps;
  }
  struct Member {
    double pages = 0;
    std::uint64_t example = 0;
  };
  std::unordered_map<std::uint64_t, Member> members;
  for (std::uint64_t i = 0; i < samples; ++i) {
    Member& member = members[mark[i]];
    if (member.pages == 0) member.example = sampled(i);
    member.pages += static_cast<double>(pages) / static_cast<double>(samples);
  }
  std::vector<Member> ordered;
  for (const auto& [key, member] : members) ordered.push_back(member);
  std::sort(ordered.begin(), ordered.end(),
            [](const Member& a, const Member& b) { return a.example < b.example; });
  std::vector<PageGroup> groups;
  for (const Member& member : ordered) groups.push_back({member.pages, {}});
  double total_s = 0;
  for (const Span& span : spans) total_s += span.seconds;

  // Each phase by itself, and what a group's page gets in it.
  DynamicBound free_moves, base;
  std::vector<double> slope(phases);
  std::vector<double> moves(phases);
  Traffic all_slow{};
  all_slow[q.machine.tiers.size() - 1] = 1;
  const AccessRate slowest = throughput(q.machine, all_slow);
  for (std::size_t k = 0; k < phases; ++k) {
    q.workload.fill(spans[k].number, phase);
    std::vector<std::pair<double, double>> busiest;
    for (std::size_t g = 0; g < ordered.size(); ++g) {
      const double share = page_share(phase, ordered[g].example);
      groups[g].value.push_back(share * spans[k].seconds);
      busiest.emplace_back(share, ordered[g].pages);
    }
    std::sort(busiest.rbegin(), busiest.rend());
    std::vector<double> prefix = prefix_shares(busiest, q.capacity);
    // Pages promoted ahead of a sweep, half of the moves: the other half makes room.
    double ahead = 0;
    for (const Sweep& sweep : phase.sweeps)
      ahead += std::min(sweep.weight, q.moves_per_second / 2 * sweep.lines / slowest);
    for (std::size_t t = 0; t + 1 < prefix.size(); ++t)
      prefix[t] = std::min(1.0, prefix[t] + ahead);
    const double hit = prefix[0];
    const AccessRate rate = best_throughput(q.machine, prefix);
    free_moves.hit_ratio += hit * spans[k].seconds / total_s;
    free_moves.throughput += rate * spans[k].seconds / total_s;
    // X(h) <= a + s * h: of each piece, its largest throughput less its smallest gain.
    const auto at = [&](double h) {
      std::vector<double> limited = prefix;
      limited[0] = std::min(h, hit);
      return best_throughput(q.machine, limited);
    };
    const AccessRate none = at(0);
    slope[k] = hit > 0 ? (rate - none) / hit : 0;
    double intercept = none;
    for (int piece = 0; piece < kPieces; ++piece) {
      const double low = hit * piece / kPieces, high = hit * (piece + 1) / kPieces;
      intercept = std::max(intercept, at(high) - slope[k] * low);
    }
    base.throughput += (intercept + slope[k] * ahead) * spans[k].seconds;
    base.hit_ratio += ahead * spans[k].seconds;
    // A page's share of two phases may change by moves in either of them.
    moves[k] = q.moves_per_second * (spans[k].seconds + (k > 0 ? spans[k - 1].seconds : 0));
  }
  if (phases < 2) return free_moves;

  const auto room = static_cast<double>(q.capacity[0]);
  const double hits = base.hit_ratio + relaxed_best(groups, room, moves, 0);
  for (std::size_t k = 0; k < phases; ++k)
    for (PageGroup& group : groups) group.value[k] *= slope[k];
  const double move_s = (q.machine.shootdown_us * q.machine.threads / kCallPages +
                         (q.machine.moving == Charge::kProgram ? q.machine.move_page_us : 0)) *
                        1e-6;
  const double accesses =
      base.throughput + relaxed_best(groups, room, moves, move_s * slowest / q.machine.threads);
  return {std::min(free_moves.hit_ratio, hits / total_s),
          std::min(free_moves.throughput, accesses / total_s)};
}

}  // namespace thermocline::sim
