// SPDX-License-Identifier: Apache-2.0
#include "emulation/sim/machine.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "emulation/sim/spread.h"
#include "emulation/timing/model.h"

namespace thermocline::sim {

namespace {

/// A device's queue grows without bound as its load nears 1; the timing model stops here, too.
constexpr double kFullLoad = 0.98;
constexpr double kGiga = 1e9;

constexpr double kNoEnd = 1e12;
constexpr MachineKey kKeys[] = {
    {"threads", "threads of the program", 1, 4096, &Machine::threads},
    {"think", "ns that a thread computes between two cache misses", 0, 1e6, &Machine::think_ns},
    {"mlp", "misses that a thread has under way at a time", 1, 64, &Machine::mlp},
    {"tracker_seen", "share of the touched pages that the tracker sees", 0, 1, &Machine::seen},
    {"tracker_delay", "windows until the tracker tells a touch", 0, 64, nullptr, &Machine::delay},
    {"tracker_grain", "pages that the tracker tells as one, a power of two", 1, 512, nullptr,
     &Machine::grain},
    {"scan_idle", "ns of CPU to look at a page that was not accessed", 0, kNoEnd,
     &Machine::scan_idle_ns},
    {"scan_accessed", "ns of CPU to look at one that was", 0, kNoEnd, &Machine::scan_accessed_ns},
    {"flush", "us that a pass takes of each thread of the program", 0, kNoEnd, &Machine::flush_us},
    {"apply", "ns of CPU to take in a page of a window", 0, kNoEnd, &Machine::apply_ns},
    {"decide", "ns of CPU a page to decide", 0, kNoEnd, &Machine::decide_ns},
    {"move_page", "us to move a page", 0.001, kNoEnd, &Machine::move_page_us},
    {"move_call", "us of a call that moves pages, whatever their number", 0, kNoEnd,
     &Machine::move_call_us},
    {"shootdown", "us that such a call takes of each thread of the program", 0, kNoEnd,
     &Machine::shootdown_us},
    {"blocked", "share of a call for which its pages are unmapped", 0, 1, &Machine::blocked},
    {"charge_tracking", "1: tracking takes the program's own CPU time, 0: another core's", 0, 1,
     nullptr, nullptr, &Machine::tracking},
    {"charge_moving", "the same of moving pages", 0, 1, nullptr, nullptr, &Machine::moving},
};

}  // namespace

std::span<const MachineKey> machine_keys() {
  return kKeys;
}

Result<Machine> machine_of_timing_model(const std::string& name) {
  TC_ASSIGN(const timing::Model model, timing::load_model(name));
  Machine machine;
  for (const timing::NodeModel& node : model.nodes)
    machine.tiers.push_back({static_cast<double>(node.latency.get()) / 1000,
                             static_cast<double>(node.bandwidth.get()) / 1000,
                             static_cast<double>(node.queue.get()) / 1000});
  if (machine.tiers.size() < 2 || machine.tiers.size() > kMaxTiers)
    return fail(ErrorKind::kUsage,
                "the timing model {} has {} kinds of memory; a simulated machine has 2 to {} tiers",
                name, machine.tiers.size(), kMaxTiers);
  std::stable_sort(
      machine.tiers.begin(), machine.tiers.end(),
      [](const MemoryTier& a, const MemoryTier& b) { return a.latency_ns < b.latency_ns; });
  return machine;
}

double loaded_latency_ns(const MemoryTier& tier, double bytes_per_second) {
  const double load = std::min(bytes_per_second / (tier.bandwidth_gbps * kGiga), kFullLoad);
  return tier.latency_ns + tier.queue_ns * load / (1 - load);
}

namespace {

/// How far the slower ones of two latencies hold a reorder window up: from 0, when none of the
/// misses is slow, to 1, when all are. Misses come back in their order: a slow one keeps those
/// behind it waiting, fast or not, so a few cost far more than their share. Found by playing it.
class Window {
 public:
  Window(double misses, double slow_to_fast) : one_by_one_(misses <= 1) {
    if (one_by_one_) return;
    std::array<double, kPoints> time{};
    for (std::size_t i = 0; i < kPoints; ++i) time[i] = play(misses, slow_to_fast, share_at(i));
    for (std::size_t i = 0; i < kPoints; ++i)
      held_up_[i] = std::clamp((time[i] - time[0]) / (time[kPoints - 1] - time[0]),
                               i > 0 ? held_up_[i - 1] : 0.0, 1.0);
  }
  [[nodiscard]] double held_up(double share) const {
    if (one_by_one_) return share;
    const double at = std::sqrt(std::clamp(share, 0.0, 1.0)) * (kPoints - 1);
    const auto below = std::min(static_cast<std::size_t>(at), kPoints - 2);
    const double part = at - static_cast<double>(below);
    return held_up_[below] * (1 - part) + held_up_[below + 1] * part;
  }

 private:
  static constexpr std::size_t kPoints = 49;
  static double share_at(std::size_t i) {
    const double part = static_cast<double>(i) / (kPoints - 1);
    return part * part;
  }
  /// Time of so many misses, each of which is slow with a chance of `share`: one is sent when the
  /// one `misses` before it is back, and is back when all before it are. The same lots for all.
  static double play(double misses, double slow, double share) {
    constexpr std::size_t kMisses = 1 << 15;
    std::vector<double> back(kMisses);
    Lots lots(1);
    const auto whole = static_cast<std::size_t>(misses);
    double sent = 0, last = 0;
    for (std::size_t i = 0; i < kMisses; ++i) {
      // Of windows of 6.3 misses, three in ten hold seven.
      const std::size_t window =
          whole + (lots.share() < misses - static_cast<double>(whole) ? 1 : 0);
      if (i >= window) sent = std::max(sent, back[i - window]);
      last = back[i] = std::max(last, sent + (lots.share() < share ? slow : 1.0));
    }
    return last;
  }

  bool one_by_one_;
  std::array<double, kPoints> held_up_{};
};

const Window& window_of(const Machine& machine) {
  struct Kept {
    double mlp = 0, ratio = 0;
    std::optional<Window> window;
  };
  thread_local Kept kept;
  const double ratio =
      std::max(machine.tiers.back().latency_ns / machine.tiers.front().latency_ns, 1.01);
  if (kept.mlp != machine.mlp || kept.ratio != ratio)
    kept = {machine.mlp, ratio, Window(machine.mlp, ratio)};
  return *kept.window;
}

}  // namespace

AccessRate throughput(const Machine& machine, const Traffic& traffic, double copying) {
  // No tier serves more than its full load; below that, more accesses make each one longer.
  double low = 0, high = machine.threads * kGiga / std::max(machine.think_ns, 1e-3);
  for (std::size_t t = 0; t < machine.tiers.size(); ++t) {
    const double most =
        std::max(kFullLoad * machine.tiers[t].bandwidth_gbps * kGiga - copying, 0.0);
    if (traffic[t] > 0) high = std::min(high, most / (kLine * traffic[t]));
  }
  const Window& window = window_of(machine);
  const auto wanted = [&](AccessRate rate) {
    // By loaded latency, slowest first.
    std::array<std::pair<double, double>, kMaxTiers> used;
    std::size_t n = 0;
    for (std::size_t t = 0; t < machine.tiers.size(); ++t) {
      if (traffic[t] <= 0) continue;
      const std::pair tier(loaded_latency_ns(machine.tiers[t], rate * traffic[t] * kLine + copying),
                           traffic[t]);
      std::size_t at = n++;
      for (; at > 0 && used[at - 1] < tier; --at) used[at] = used[at - 1];
      used[at] = tier;
    }
    double stall = n > 0 ? used[n - 1].first : 0, slower = 0;
    for (std::size_t i = 0; i + 1 < n; ++i) {
      slower += used[i].second;
      stall += (used[i].first - used[i + 1].first) * window.held_up(slower);
    }
    return machine.threads * kGiga / (machine.think_ns + stall / machine.mlp);
  };
  if (wanted(high) >= high) return high;
  constexpr int kHalvings = 48;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (wanted(middle) >= middle ? low : high) = middle;
  }
  return low;
}

double blocked_seconds(const Machine& machine, AccessRate rate, double call_s) {
  if (call_s <= 0) return 0;
  const double unmapped_s = machine.blocked * call_s;
  // Whoever comes in that time waits for what is left of it, half of it on average. A thread that
  // waits doesn't come to another page.
  const double one_by_one = rate * unmapped_s * unmapped_s / 2;
  const double most = machine.threads * call_s;
  return most * -std::expm1(-one_by_one / most);
}

}  // namespace thermocline::sim
