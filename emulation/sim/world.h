// SPDX-License-Identifier: Apache-2.0
// A program that runs on the modelled machine: where its pages are, what it accesses, how fast it
// gets on. Time goes by when its owner says so. Deterministic; the pages' bits come from a seed.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/units.h"
#include "emulation/sim/machine.h"
#include "emulation/sim/workload.h"

namespace thermocline::sim {

/// Where pages are when the program begins.
enum class Start : std::uint8_t {
  kFirstTouch,  ///< the fastest tier that has room, in the order of addresses, each tenant its
                ///< share
  kInterleave,  ///< over the tiers as their room is, page by page
  kFast,        ///< all in the fastest tier, which holds them
  kSlow,        ///< all in the slowest
};

/// Pages that each tier can hold; the last can hold all.
using Capacity = std::vector<std::uint64_t>;
/// a:b[:c...] of a footprint, fastest first; as many parts as tiers.
[[nodiscard]] Capacity capacity_of(const std::vector<unsigned>& ratio, std::uint64_t pages);

/// What has been done so far.
struct Progress {
  double seconds = 0;
  double accesses = 0;
  double fast = 0;     ///< of them, served by the fastest tier
  double stalled = 0;  ///< thread-seconds lost to tracking and moving
};

class World {
 public:
  /// `tiers`: where each page is at first. A tier that holds more than its capacity then gets that
  /// much.
  World(const Machine& machine, const Workload& workload, const Capacity& capacity,
        std::vector<std::uint8_t> tiers, std::uint64_t seed);

  [[nodiscard]] Nanoseconds now() const { return now_; }
  /// Lets the program run until then; calls at_change after each change of phase.
  void run_until(Nanoseconds time);
  std::function<void()> at_change;
  /// From now on, moves put so many bytes a second on each tier.
  void set_copying(double bytes_per_second) { copying_ = bytes_per_second; }
  /// The program's threads together lose so many seconds.
  void stall(double thread_seconds) { stall_ += thread_seconds; }

  [[nodiscard]] const Progress& progress() const { return progress_; }
  [[nodiscard]] const Workload& workload() const { return workload_; }
  [[nodiscard]] const Machine& machine() const { return machine_; }
  [[nodiscard]] const Phase& phase() const { return phase_; }
  [[nodiscard]] std::uint64_t phase_number() const { return phase_number_; }
  /// Share of the accesses by tier as pages lie now.
  [[nodiscard]] Traffic traffic() const;
  /// Share of the accesses that the fastest tier serves, without those of sweeps.
  [[nodiscard]] double settled_share() const;
  [[nodiscard]] AccessRate rate() const { return throughput(machine_, traffic(), copying_); }
  /// How late a tier answers now.
  [[nodiscard]] double loaded_latency_ns(std::size_t tier) const;
  /// Of all accesses, a page's, sweeps included.
  [[nodiscard]] double share(std::uint64_t page) const;

  [[nodiscard]] std::uint8_t tier(std::uint64_t page) const { return tiers_[page]; }
  [[nodiscard]] const std::uint8_t* tiers() const { return tiers_.data(); }
  /// All pages of the 512 from a multiple of 512 on are on one tier.
  [[nodiscard]] bool one_tier(std::uint64_t block) const;
  [[nodiscard]] std::uint64_t used(std::size_t tier) const { return used_[tier]; }
  [[nodiscard]] const Capacity& capacity() const { return capacity_; }
  void move(std::uint64_t page, std::uint8_t to);
  /// A number that is another one after a page of [first, end), at most 32,768 of them, was moved.
  [[nodiscard]] std::uint64_t moves_in(std::uint64_t first, std::uint64_t end) const {
    return moves_[first >> kMovesShift] + moves_[(end - 1) >> kMovesShift];
  }
  /// Pages of each class by tier.
  [[nodiscard]] const std::array<std::array<std::uint64_t, kClasses>, kMaxTiers>& held() const {
    return held_;
  }

  /// Ends the window of a tenant, at the time that it is, and begins the next one. touched() tells
  /// of the window that was ended last.
  void close_window(std::size_t tenant);
  /// What the tracker sees. Bit i of words[w] is page first + 64 * w + i of the workload, of that
  /// tenant; `first` is a multiple of 64 from its first page on. Bits past `pages` are 0. May be
  /// called from any thread.
  void touched(std::size_t tenant, std::uint64_t first, std::size_t pages,
               std::uint64_t* words) const;

 private:
  /// How far a sweep has come, in pages, since its phase began.
  using Swept = std::vector<double>;
  struct Window {
    std::uint64_t number = 0;
    double accesses_before = 0;  ///< of the whole program, when the open window began
    Swept swept_before;
    std::uint64_t phase = 0;
    // Of the window that was closed last, and of those before, youngest first, up to the delay.
    struct Closed {
      LotKey key;
      Chances chances{};
      std::vector<std::pair<double, double>> swept;
    };
    std::vector<Closed> closed;
  };

  void enter_phase(std::uint64_t number);
  /// Blocks that a sweep is in, and the pages that it has still to go there.
  struct Group {
    std::uint64_t first = 0, end = 0;
    double pages_left = 0;
  };
  [[nodiscard]] Group group_at(std::size_t sweep) const;
  /// Share of a group's pages that is on a tier.
  [[nodiscard]] double density(const Group& group, std::size_t tier) const;

  Machine machine_;
  Workload workload_;
  Capacity capacity_;
  std::uint64_t seed_;
  Nanoseconds now_{};
  Progress progress_;
  double copying_ = 0, stall_ = 0;

  Phase phase_;
  std::uint64_t phase_number_ = 0;
  Swept swept_;
  std::vector<std::uint64_t> group_pages_;  ///< by sweep
  std::vector<std::uint8_t> tiers_;
  static constexpr unsigned kMovesShift = 15;
  std::vector<std::uint64_t> moves_;  ///< by 32,768 pages
  std::array<std::uint64_t, kMaxTiers> used_{};
  std::array<std::array<std::uint64_t, kClasses>, kMaxTiers> held_{};
  /// Pages of each block of 512 by tier.
  std::array<std::vector<std::uint16_t>, kMaxTiers> in_block_;
  std::vector<Window> windows_;  ///< by tenant
};

/// Tier of each page at the start.
[[nodiscard]] std::vector<std::uint8_t> place_at_start(const Workload& workload,
                                                       const Capacity& capacity, Start start);

}  // namespace thermocline::sim
