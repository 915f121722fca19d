// SPDX-License-Identifier: Apache-2.0
#include "bench/trackers/judge.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>
#include <vector>

#include "bench/trackers/plan.h"

namespace thermocline::trackers {

namespace {

constexpr double kReached = 0.9;

std::vector<double> ranks_of(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t end = i;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    const double rank = static_cast<double>(i + end - 1) / 2;
    for (; i < end; ++i) ranks[order[i]] = rank;
  }
  return ranks;
}

/// Misses of the last phase, by page of the watched regions.
std::vector<double> misses_of(const Watch& watch, const suite::Truth& truth) {
  std::unordered_map<std::uint64_t, std::uint64_t> misses(truth.last_phase_pages.begin(),
                                                          truth.last_phase_pages.end());
  std::vector<double> by_page;
  by_page.reserve(watch.pages());
  for (const Region& region : watch.regions)
    for (std::uint64_t page = region.first; page < region.first + region.pages; ++page) {
      const auto found = misses.find(page);
      by_page.push_back(found == misses.end() ? 0 : static_cast<double>(found->second));
    }
  return by_page;
}

std::vector<bool> hottest(const std::vector<double>& misses, std::uint64_t room) {
  std::vector<std::size_t> order(misses.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return misses[a] > misses[b]; });
  std::vector<bool> hot(misses.size());
  for (std::size_t i = 0; i < std::min<std::size_t>(room, order.size()); ++i)
    hot[order[i]] = misses[order[i]] > 0;
  return hot;
}

struct Overlap {
  double both = 0, held = 0, hot = 0;
  [[nodiscard]] double recall() const { return both / hot; }
};

Overlap overlap_of(const std::vector<bool>& held, const std::vector<bool>& hot) {
  Overlap o;
  for (std::size_t i = 0; i < hot.size(); ++i) {
    o.both += held[i] && hot[i];
    o.held += held[i];
    o.hot += hot[i];
  }
  return o;
}

/// What the run says of 64 GiB (judge.h). `epoch_cpu_ns`: CPU time of an epoch of the run.
void scale(const Watch& watch, double epoch_cpu_ns, Judgement& j) {
  if (watch.cost.entries == 0) return;
  j.epoch_ns_per_page = epoch_cpu_ns / static_cast<double>(watch.pages());
  j.epoch_64gib_s = *j.epoch_ns_per_page * static_cast<double>(k64GibPages) / 1e9 / kOnePercent;
  if (!watch.scans_ranges) return;
  j.recall_64gib = j.recall;
  j.precision_64gib = j.precision;
  if (j.delay_epochs) j.delay_64gib_s = *j.delay_epochs * *j.epoch_64gib_s;
}

}  // namespace

std::optional<double> rank_correlation(std::span<const double> a, std::span<const double> b) {
  const std::vector<double> ra = ranks_of(a), rb = ranks_of(b);
  const double mean = (static_cast<double>(a.size()) - 1) / 2;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < ra.size(); ++i) {
    ab += (ra[i] - mean) * (rb[i] - mean);
    aa += (ra[i] - mean) * (ra[i] - mean);
    bb += (rb[i] - mean) * (rb[i] - mean);
  }
  if (aa == 0 || bb == 0) return std::nullopt;
  return ab / std::sqrt(aa * bb);
}

Result<Judgement> judge(const Watch& watch, const suite::Truth& truth, std::uint64_t start_ns,
                        std::uint64_t room) {
  const std::vector<double> misses = misses_of(watch, truth);
  const std::vector<bool> hot = hottest(misses, room);
  if (std::find(hot.begin(), hot.end(), true) == hot.end())
    return fail(ErrorKind::kCorrupt,
                "the ground truth knows of no miss in the {} pages that were watched",
                watch.pages());
  const std::uint64_t phase = truth.phases_ns.empty() ? 0 : truth.phases_ns.back();
  const std::uint64_t settled = (phase + truth.end_ns) / 2;

  Judgement j;
  // What a look found is held for hot until the next one.
  double recall = 0, precision = 0, with_some = 0;
  bool found = false;
  std::uint64_t found_ns = 0;
  double epochs = 0, epochs_of_phase = 0, found_epochs = 0;  // looks in the run
  const Watch::Look *first = nullptr, *last = nullptr;
  for (std::size_t i = 0; i < watch.looks.size(); ++i) {
    const Watch::Look& look = watch.looks[i];
    if (look.at_ns > start_ns + truth.end_ns) break;
    const std::uint64_t next =
        i + 1 < watch.looks.size() ? watch.looks[i + 1].at_ns : ~std::uint64_t{0};
    const std::uint64_t from = std::max(look.at_ns, start_ns + settled);
    const std::uint64_t until = std::min(next, start_ns + truth.end_ns);
    if (look.at_ns >= start_ns) ++epochs;
    if (look.at_ns >= start_ns + phase) ++epochs_of_phase;
    if (!look.hot.empty() && (look.at_ns >= start_ns + phase || until > from)) {
      const Overlap o = overlap_of(look.hot, hot);
      const bool enough = o.recall() >= kReached;
      if (enough && !found) {
        found_ns = std::max(look.at_ns, start_ns + phase) - start_ns;
        found_epochs = epochs_of_phase;
      }
      found = enough;
      if (until > from) {
        const auto time = static_cast<double>(until - from);
        recall += time * o.recall();
        if (o.held != 0) {
          with_some += time;
          precision += time * o.both / o.held;
        }
      }
    }
    if (look.at_ns < start_ns) continue;
    if (first == nullptr) first = &look;
    last = &look;
  }
  const bool watched = watch.tracker != kNone;
  if (watched && truth.end_ns > settled)
    j.recall = recall / static_cast<double>(truth.end_ns - settled);
  if (with_some != 0) j.precision = precision / with_some;
  if (found) j.delay_s = static_cast<double>(found_ns - phase) / 1e9;
  if (found && watched) j.delay_epochs = found_epochs;
  if (first != nullptr && last->at_ns > first->at_ns) {
    const auto grown = [&](std::uint64_t Watch::Look::*field) {
      return static_cast<double>(last->*field) - static_cast<double>(first->*field);
    };
    const double time = grown(&Watch::Look::at_ns);
    j.cpu_share = std::clamp(
        (time - grown(&Watch::Look::target_cpu_ns) - grown(&Watch::Look::own_cpu_ns)) / time, 0.0,
        1.0);
    if (watched) scale(watch, grown(&Watch::Look::tracking_cpu_ns) / (epochs - 1), j);
  }
  if (!watch.heat.empty())
    j.rank_correlation =
        rank_correlation(std::vector<double>(watch.heat.begin(), watch.heat.end()), misses);
  if (watch.cost.entries != 0) {
    const auto entries = static_cast<double>(watch.cost.entries);
    j.ns_per_entry = static_cast<double>(watch.cost.cpu_ns) / entries;
    if (truth.scan_instructions != 0)
      j.instr_per_entry = static_cast<double>(truth.scan_instructions) / entries;
  }
  return j;
}

}  // namespace thermocline::trackers
