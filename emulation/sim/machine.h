// SPDX-License-Identifier: Apache-2.0
// The modelled machine: tiers with latency and bandwidth, the program's threads, what tracking and
// moving cost. Arithmetic only; nothing here knows pages, time or the engine. All that it gives is
// modelled.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline::sim {

/// Accesses (last-level cache misses) per second.
using AccessRate = double;

struct MemoryTier {
  double latency_ns = 0;      ///< idle
  double bandwidth_gbps = 0;  ///< 10^9 bytes a second
  double queue_ns = 0;        ///< mean wait of a line at half load; at load r: queue * r / (1 - r)
};

/// Whose CPU time tracking and moving take.
enum class Charge : std::uint8_t {
  kOther,    ///< a core that the program doesn't use
  kProgram,  ///< the program's cores: its threads stand still for as long
};

/// Defaults: measured or modelled figures of docs/performance.md and docs/emulation.md, said at
/// each.
struct Machine {
  /// Fastest first, 2 to kMaxTiers. Default: those of the timing model cxl-asic.
  std::vector<MemoryTier> tiers;

  // The program.
  double threads = 16;
  double think_ns = 100;  ///< of a thread between two misses
  double mlp = 4;         ///< misses that a thread has under way at a time, at least 1: the
                          ///< oldest must be back before another one is sent

  // The tracker. Errors: share of the touched pages that are seen; windows until a touch is told;
  // pages that are told as one (a power of two, 1..512).
  double seen = 1;
  std::uint64_t delay = 0;
  std::uint64_t grain = 1;
  /// A pass of the module, a page that was not accessed and one that was (docs/performance.md,
  /// "Scanner", 6.12: 3.3 and 13.8 ns, modelled).
  double scan_idle_ns = 3.3;
  double scan_accessed_ns = 13.8;
  /// What a pass takes of each of the program's threads: the TLB flush ("What a flush is worth":
  /// some 1 us a scan, modelled).
  double flush_us = 1;
  /// Taking in one page of one window, and deciding, a page (docs/performance.md, "Heat map and
  /// policy": 21.5 and 34 to 38 ms for 100 M pages, measured).
  double apply_ns = 0.22;
  double decide_ns = 0.36;

  // Moving.
  /// A page (docs/emulation.md, move_pages in batches of 1,024: 2.8 us there, 2.9 back, modelled;
  /// published: 1.2 us).
  double move_page_us = 2.8;
  /// A call: system call, isolating, draining the CPUs' lists. No figure of ours tells it apart
  /// from the pages' cost; 10 us keeps it below 1 % of a full batch.
  double move_call_us = 10;
  /// Of each of the program's threads, a call: its TLB flush. Linux 6.12 batches the flushes of a
  /// call; 6.1 makes one a page (lab: 35 us against 5.4 ms a call of 512 pages).
  double shootdown_us = 1;
  /// Share of the call for which each of its pages is unmapped, on average: Linux since 6.3 unmaps
  /// a batch as a whole, copies it page by page and then maps it again. A touch waits that long.
  double blocked = 0.5;

  Charge tracking = Charge::kOther;
  Charge moving = Charge::kOther;
};

/// A number of the machine that can be set or swept.
struct MachineKey {
  std::string_view name;
  std::string_view meaning;
  double least, most;
  double Machine::*number = nullptr;
  std::uint64_t Machine::*whole = nullptr;
  Charge Machine::*charge = nullptr;  ///< 0: another core, 1: the program
};
[[nodiscard]] std::span<const MachineKey> machine_keys();

/// Tiers as a timing model (emulation/timing) describes them: one for each of its entries, fastest
/// first. kUsage when there are fewer than two or more than kMaxTiers.
[[nodiscard]] Result<Machine> machine_of_timing_model(const std::string& name);

/// Shares of the accesses by tier; they add up to 1.
using Traffic = std::array<double, kMaxTiers>;

/// Bytes of an access.
inline constexpr double kLine = 64;

/// Latency of an access to a tier that serves so many bytes a second.
[[nodiscard]] double loaded_latency_ns(const MemoryTier& tier, double bytes_per_second);

/// What all threads together access, when accesses are spread so over the tiers: the rate at which
///   threads = rate * (think + stall / mlp)
/// where the stall is the loaded latency of the fastest tier, and what slower ones add to it.
/// Misses come back in their order, as from a processor's reorder buffer: a share q of slow ones
/// adds up to 1 - (1 - q)^mlp of what all of them would, far more than q. `copying`: bytes a second
/// that moves put on every tier.
[[nodiscard]] AccessRate throughput(const Machine& machine, const Traffic& traffic,
                                    double copying = 0);

/// Thread-seconds that a call of such a length keeps the program waiting for its pages, which are
/// accessed so often together: at most all threads for as long as it takes.
[[nodiscard]] double blocked_seconds(const Machine& machine, AccessRate rate, double call_s);

}  // namespace thermocline::sim
