// SPDX-License-Identifier: Apache-2.0
#include "emulation/sim/machine.h"

#include <algorithm>

#include "emulation/timing/model.h"

namespace thermocline::sim {

namespace {

constexpr double kLine = 64;
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

AccessRate throughput(const Machine& machine, const Traffic& traffic, double copying) {
  // No tier serves more than its full load; below that, more accesses make each one longer.
  double low = 0, high = machine.threads * kGiga / std::max(machine.think_ns, 1e-3);
  for (std::size_t t = 0; t < machine.tiers.size(); ++t) {
    const double most =
        std::max(kFullLoad * machine.tiers[t].bandwidth_gbps * kGiga - copying, 0.0);
    if (traffic[t] > 0) high = std::min(high, most / (kLine * traffic[t]));
  }
  const auto wanted = [&](AccessRate rate) {
    double ns = machine.think_ns;
    for (std::size_t t = 0; t < machine.tiers.size(); ++t)
      if (traffic[t] > 0)
        ns += traffic[t] *
              loaded_latency_ns(machine.tiers[t], rate * traffic[t] * kLine + copying) /
              machine.mlp;
    return machine.threads * kGiga / ns;
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
