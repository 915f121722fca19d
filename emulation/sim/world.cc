// SPDX-License-Identifier: Apache-2.0
#include "emulation/sim/world.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "emulation/sim/spread.h"

namespace thermocline::sim {

namespace {

constexpr std::uint64_t kBlock = 512;
/// A sweep is followed by groups of blocks that take it this long, at its fastest.
constexpr double kSweepStep = 0.002;

double seconds_of(Nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

Nanoseconds nanoseconds_of(double seconds) {
  return Nanoseconds(std::llround(std::min(seconds, 9e9) * 1e9));
}

}  // namespace

Capacity capacity_of(const std::vector<unsigned>& ratio, std::uint64_t pages) {
  const std::uint64_t sum = std::accumulate(ratio.begin(), ratio.end(), std::uint64_t{0});
  Capacity capacity;
  for (const unsigned part : ratio) capacity.push_back(pages * part / sum);
  capacity.back() = pages;
  return capacity;
}

std::vector<std::uint8_t> place_at_start(const Workload& workload, const Capacity& capacity,
                                         Start start) {
  std::vector<std::uint8_t> tiers(workload.pages);
  const std::size_t last = capacity.size() - 1;
  for (const Tenant& tenant : workload.tenants) {
    const std::uint64_t end = tenant.first + tenant.pages;
    if (start == Start::kFast || start == Start::kSlow) {
      std::fill(tiers.begin() + static_cast<std::ptrdiff_t>(tenant.first),
                tiers.begin() + static_cast<std::ptrdiff_t>(end),
                start == Start::kFast ? std::uint8_t{0} : static_cast<std::uint8_t>(last));
      continue;
    }
    // Ends of the tiers' ranges if the tenant's pages were dealt out by address.
    std::vector<std::uint64_t> ends;
    std::uint64_t sum = 0;
    for (std::size_t t = 0; t < last; ++t) {
      sum += capacity[t];
      ends.push_back(std::min<std::uint64_t>(
          static_cast<std::uint64_t>(static_cast<double>(sum) * static_cast<double>(tenant.pages) /
                                     static_cast<double>(workload.pages)),
          tenant.pages));
    }
    ends.push_back(tenant.pages);
    auto step = static_cast<std::uint64_t>(0.618 * static_cast<double>(tenant.pages)) | 1;
    while (std::gcd(step, tenant.pages) != 1) step += 2;
    for (std::uint64_t i = 0; i < tenant.pages; ++i) {
      std::uint64_t at = i;
      // Interleaved: steps of a golden section go to every place once, and spread any share evenly.
      if (start == Start::kInterleave) at = i * step % tenant.pages;
      std::uint8_t tier = 0;
      while (at >= ends[tier]) ++tier;
      tiers[tenant.first + i] = tier;
    }
  }
  return tiers;
}

World::World(const Machine& machine, const Workload& workload, const Capacity& capacity,
             std::vector<std::uint8_t> tiers, std::uint64_t seed)
    : machine_(machine),
      workload_(workload),
      capacity_(capacity),
      seed_(seed),
      tiers_(std::move(tiers)),
      windows_(workload.tenants.size()) {
  moves_.assign((workload_.pages >> kMovesShift) + 1, 0);
  for (auto& blocks : in_block_) blocks.assign((workload_.pages + kBlock - 1) / kBlock, 0);
  for (std::uint64_t page = 0; page < workload_.pages; ++page) {
    ++used_[tiers_[page]];
    ++in_block_[tiers_[page]][page / kBlock];
  }
  for (std::size_t t = 0; t < capacity_.size(); ++t)
    capacity_[t] = std::max(capacity_[t], used_[t]);
  enter_phase(0);
  for (Window& window : windows_) window.swept_before = swept_;
}

void World::enter_phase(std::uint64_t number) {
  phase_number_ = number;
  workload_.fill(number, phase_);
  for (auto& of_tier : held_) of_tier.fill(0);
  for (std::uint64_t page = 0; page < workload_.pages; ++page)
    ++held_[tiers_[page]][phase_.classes[page]];
  swept_.resize(phase_.sweeps.size(), 0);
  Traffic all_fast{1};
  const AccessRate fastest = throughput(machine_, all_fast);
  group_pages_.clear();
  for (const Sweep& sweep : phase_.sweeps)
    group_pages_.push_back(
        kBlock * std::bit_ceil(static_cast<std::uint64_t>(1 + kSweepStep * fastest * sweep.weight /
                                                                  sweep.lines / kBlock)));
}

World::Group World::group_at(std::size_t sweep) const {
  const Sweep& of = phase_.sweeps[sweep];
  const auto at =
      static_cast<std::uint64_t>(std::fmod(swept_[sweep], static_cast<double>(of.count)));
  const std::uint64_t page = of.first + at, size = group_pages_[sweep];
  const std::uint64_t begin = page / size * size;
  const std::uint64_t end = std::min(begin + size, of.first + of.count);
  return {std::max(begin, of.first) / kBlock, (end - 1) / kBlock + 1,
          static_cast<double>(end - of.first) -
              std::fmod(swept_[sweep], static_cast<double>(of.count))};
}

double World::density(const Group& group, std::size_t tier) const {
  std::uint64_t on_tier = 0;
  for (std::uint64_t block = group.first; block < group.end; ++block)
    on_tier += in_block_[tier][block];
  const std::uint64_t pages = std::min(group.end * kBlock, workload_.pages) - group.first * kBlock;
  return static_cast<double>(on_tier) / static_cast<double>(pages);
}

double World::loaded_latency_ns(std::size_t tier) const {
  return sim::loaded_latency_ns(machine_.tiers[tier], rate() * traffic()[tier] * kLine + copying_);
}

double World::settled_share() const {
  double share = 0;
  for (std::size_t c = 0; c < kClasses; ++c)
    share += phase_.share[c] * static_cast<double>(held_[0][c]);
  return share;
}

Traffic World::traffic() const {
  Traffic traffic{};
  double sum = 0;
  for (std::size_t i = 0; i < phase_.sweeps.size(); ++i) {
    const Group group = group_at(i);
    for (std::size_t t = 0; t < machine_.tiers.size(); ++t)
      traffic[t] += phase_.sweeps[i].weight * density(group, t);
  }
  for (std::size_t t = 0; t < machine_.tiers.size(); ++t) {
    for (std::size_t c = 0; c < kClasses; ++c)
      traffic[t] += phase_.share[c] * static_cast<double>(held_[t][c]);
    sum += traffic[t];
  }
  for (double& share : traffic) share /= sum;
  return traffic;
}

double World::share(std::uint64_t page) const {
  double share = phase_.share[phase_.classes[page]];
  for (const Sweep& sweep : phase_.sweeps)
    if (page - sweep.first < sweep.count) share += sweep.weight / static_cast<double>(sweep.count);
  return share;
}

void World::run_until(Nanoseconds time) {
  while (now_ < time) {
    const Nanoseconds change = nanoseconds_of(workload_.phase_start(phase_number_ + 1));
    if (now_ >= change) {
      enter_phase(phase_number_ + 1);
      if (at_change) at_change();
      continue;
    }
    const Nanoseconds until = std::min(time, change);
    const Traffic share = traffic();
    const AccessRate rate = throughput(machine_, share, copying_);
    double step = seconds_of(until - now_);
    // A sweep that comes to the end of its group sees other tiers from there on.
    for (std::size_t i = 0; i < phase_.sweeps.size(); ++i) {
      const Sweep& sweep = phase_.sweeps[i];
      if (sweep.weight > 0)
        step =
            std::min(step, (group_at(i).pages_left + 0.01) * sweep.lines / (rate * sweep.weight));
    }
    const double lost = std::min(stall_, machine_.threads * step);
    stall_ -= lost;
    const double accesses = rate * (step - lost / machine_.threads);
    progress_.accesses += accesses;
    progress_.fast += accesses * share[0];
    progress_.stalled += lost;
    for (std::size_t i = 0; i < swept_.size(); ++i)
      swept_[i] += accesses * phase_.sweeps[i].weight / phase_.sweeps[i].lines;
    now_ = std::min(until, now_ + std::max(nanoseconds_of(step), Nanoseconds(1)));
    progress_.seconds = seconds_of(now_);
  }
}

bool World::one_tier(std::uint64_t block) const {
  const std::uint64_t pages = std::min(kBlock, workload_.pages - block * kBlock);
  return in_block_[tiers_[block * kBlock]][block] == pages;
}

void World::move(std::uint64_t page, std::uint8_t to) {
  const std::uint8_t from = tiers_[page];
  const std::uint8_t cls = phase_.classes[page];
  ++moves_[page >> kMovesShift];
  --used_[from], ++used_[to];
  --held_[from][cls], ++held_[to][cls];
  --in_block_[from][page / kBlock], ++in_block_[to][page / kBlock];
  tiers_[page] = to;
}

void World::close_window(std::size_t tenant) {
  Window& window = windows_[tenant];
  Window::Closed closed;
  closed.key = lot_key(spread(seed_ + tenant), window.number++);
  const double accesses = progress_.accesses - window.accesses_before;
  for (std::size_t c = 0; c < kClasses; ++c)
    closed.chances[c] = chance_of(-std::expm1(-accesses * phase_.share[c]) * machine_.seen);
  // Where sweeps are new, the window saw what they have done so far.
  if (window.phase != phase_number_ && window.swept_before.size() != swept_.size())
    window.swept_before.assign(swept_.size(), 0);
  for (std::size_t i = 0; i < swept_.size(); ++i)
    closed.swept.emplace_back(window.swept_before[i], swept_[i]);
  window.accesses_before = progress_.accesses;
  window.swept_before = swept_;
  window.phase = phase_number_;
  window.closed.insert(window.closed.begin(), std::move(closed));
  if (window.closed.size() > machine_.delay + 1) window.closed.pop_back();
}

void World::touched(std::size_t tenant, std::uint64_t first, std::size_t pages,
                    std::uint64_t* words) const {
  const Window& window = windows_[tenant];
  const std::size_t count = (pages + 63) / 64;
  if (window.closed.size() <= machine_.delay) {
    std::fill_n(words, count, 0);
    return;
  }
  const Window::Closed& told = window.closed.back();
  // Lots go by the page of the tenant.
  const std::uint64_t base = workload_.tenants[tenant].first;
  draw_touches(phase_.classes.data() + first, static_cast<std::uint32_t>(first - base), pages,
               told.key, told.chances, words);
  const std::uint64_t end = first + pages;
  Chances passing{};
  passing[0] = chance_of(machine_.seen);
  const auto set = [&](std::uint64_t from, std::uint64_t to) {
    from = std::max(from, first), to = std::min(to, end);
    for (std::uint64_t page = from; page < to;) {
      const std::uint64_t bit = (page - first) % 64;
      const std::uint64_t n = std::min(64 - bit, to - page);
      std::uint64_t bits = ~std::uint64_t{0};
      // Of what passes by, too, a tracker misses some.
      if (machine_.seen < 1) {
        constexpr std::array<std::uint8_t, 64> kAlike{};
        draw_touches(kAlike.data(), static_cast<std::uint32_t>(page - bit - base), 64,
                     {told.key.b, told.key.a}, passing, &bits);
      }
      if (n < 64) bits &= ((std::uint64_t{1} << n) - 1) << bit;
      words[(page - first) / 64] |= bits;
      page += n;
    }
  };
  for (std::size_t i = 0; i < std::min(told.swept.size(), phase_.sweeps.size()); ++i) {
    const Sweep& sweep = phase_.sweeps[i];
    const auto [from, to] = told.swept[i];
    const auto from_page = static_cast<std::uint64_t>(from),
               to_page = static_cast<std::uint64_t>(to);
    if (to_page - from_page >= sweep.count) {
      set(sweep.first, sweep.first + sweep.count);
    } else {
      const std::uint64_t a = from_page % sweep.count, b = to_page % sweep.count;
      if (a <= b) {
        set(sweep.first + a, sweep.first + b);
      } else {
        set(sweep.first + a, sweep.first + sweep.count);
        set(sweep.first, sweep.first + b);
      }
    }
  }
  if (machine_.grain <= 1) return;
  // All pages of a granule are told as touched when one of them is.
  const std::uint64_t grain = machine_.grain;
  if (grain >= 64) {
    const std::size_t step = grain / 64;
    for (std::size_t w = 0; w < count; w += step) {
      const std::size_t stop = std::min(count, w + step);
      const bool any = std::any_of(words + w, words + stop, [](std::uint64_t x) { return x != 0; });
      std::fill(words + w, words + stop, any ? ~std::uint64_t{0} : 0);
    }
  } else {
    for (std::size_t w = 0; w < count; ++w) {
      const std::uint64_t low = (std::uint64_t{1} << grain) - 1;
      for (unsigned bit = 0; bit < 64; bit += static_cast<unsigned>(grain))
        if ((words[w] >> bit & low) != 0) words[w] |= low << bit;
    }
  }
  if (pages % 64 != 0) words[count - 1] &= (std::uint64_t{1} << (pages % 64)) - 1;
}

}  // namespace thermocline::sim
