// SPDX-License-Identifier: GPL-2.0
// The parts of the modelled machine that hold state but no time: a cache, a TLB, and the queue in
// front of a memory device. All integers: a run repeats to the bit on any host.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "emulation/timing/plugin/plan.h"

namespace timing_plugin {

/// A set-associative cache of physical lines, least recently used out first.
class Cache {
 public:
  struct Outcome {
    bool hit = false;
    bool wrote_back = false;   ///< a modified line had to go
    std::uint64_t victim = 0;  ///< that line
  };

  void shape(const CacheSpec& spec) {
    ways_ = static_cast<unsigned>(spec.ways);
    sets_ = spec.bytes / (spec.ways << kLineShift);
    lines_.assign(sets_ * ways_, 0);
  }

  /// Looks a line up and makes it the most recently used; a line that was not there takes the place
  /// of the oldest.
  Outcome access(std::uint64_t line, bool modify) {
    std::uint64_t* set = &lines_[(line & (sets_ - 1)) * ways_];
    const std::uint64_t wanted = (line + 1) << 1;  // + 1: zero is an empty place
    unsigned way = 0;
    while (way + 1 < ways_ && (set[way] & ~kModified) != wanted) ++way;
    Outcome out;
    const std::uint64_t found = set[way];
    out.hit = (found & ~kModified) == wanted;
    if (!out.hit && (found & kModified) != 0) {
      out.wrote_back = true;
      out.victim = (found >> 1) - 1;
    }
    std::memmove(set + 1, set, way * sizeof *set);
    set[0] = wanted | (out.hit ? found & kModified : 0) | (modify ? kModified : 0);
    return out;
  }

 private:
  static constexpr std::uint64_t kModified = 1;
  unsigned ways_ = 0;
  std::uint64_t sets_ = 0;
  std::vector<std::uint64_t> lines_;  ///< set by set, most recent first; low bit: modified
};

/// A TLB for 4 KiB and 2 MiB pages. User entries carry a generation, so that emptying costs
/// nothing.
class Tlb {
 public:
  void shape(std::uint64_t entries, std::uint64_t ways) {
    ways_ = static_cast<unsigned>(ways);
    sets_ = entries / ways;
    entries_.assign(entries, 0);
  }

  /// True when the translation was there; it is there afterwards.
  bool access(std::uint64_t address, bool huge) {
    std::uint64_t* set = &entries_[(page(address, huge) & (sets_ - 1)) * ways_];
    const std::uint64_t wanted = tag(address, huge);
    unsigned way = 0;
    while (way + 1 < ways_ && set[way] != wanted) ++way;
    const bool hit = set[way] == wanted;
    std::memmove(set + 1, set, way * sizeof *set);
    set[0] = wanted;
    return hit;
  }

  void invalidate(std::uint64_t address) {
    for (const bool huge : {false, true}) {
      std::uint64_t* set = &entries_[(page(address, huge) & (sets_ - 1)) * ways_];
      for (unsigned way = 0; way < ways_; ++way)
        if (set[way] == tag(address, huge)) set[way] = 0;
    }
  }
  void empty_user() { ++user_generation_; }
  void empty() { std::fill(entries_.begin(), entries_.end(), 0); }

 private:
  static bool is_kernel(std::uint64_t address) { return address >> 63 != 0; }
  static std::uint64_t page(std::uint64_t address, bool huge) {
    return address >> (huge ? kPageShift + 9 : kPageShift);
  }
  /// 36 bits of page number, kernel or user, size, and the generation of user entries above.
  [[nodiscard]] std::uint64_t tag(std::uint64_t address, bool huge) const {
    const std::uint64_t generation = is_kernel(address) ? 0 : user_generation_;
    return (page(address, huge) & ((std::uint64_t{1} << 36) - 1)) |
           std::uint64_t{is_kernel(address)} << 36 | std::uint64_t{huge} << 37 | generation << 38;
  }

  unsigned ways_ = 0;
  std::uint64_t sets_ = 0;
  std::uint64_t user_generation_ = 1;
  std::vector<std::uint64_t> entries_;  ///< set by set, most recent first; 0 is an empty place
};

/// The way to a memory device: a line waits for those before it, and for the load that others and
/// we put on the device (queue * load / (1 - load): the curve has its knee where load nears 1).
class DeviceQueue {
 public:
  void shape(const TierSpec& spec) {
    bandwidth_ = spec.bandwidth;
    share_ppm_ = spec.share_ppm;
    queue_ps_ = spec.queue_ps;
    set_background(spec.background);
  }

  /// MB/s that others take; never quite all of it.
  void set_background(std::uint64_t background) {
    const std::uint64_t most = bandwidth_ - bandwidth_ / 50;
    background = std::min(background, most);
    background_load_ = background * kOne / bandwidth_;
    // A line of ours keeps the device busy for the share that we have of what others leave.
    service_ps_ = 64 * 1'000'000 * kMillion / ((bandwidth_ - background) * share_ppm_);
    lines_per_bin_ = std::max<std::uint64_t>(
        1, kBinPs * (bandwidth_ * share_ppm_ / kMillion) / (64 * 1'000'000));
  }

  /// Picoseconds that a line which comes at `now` waits.
  std::uint64_t wait(std::uint64_t now) {
    const std::uint64_t bin = now / kBinPs;
    if (bin != bin_) {
      before_ = bin == bin_ + 1 ? lines_ : 0;
      lines_ = 0;
      bin_ = bin;
    }
    ++lines_;
    // Load of the last bin's length: what is left of the bin before, and this one so far.
    const std::uint64_t lines = lines_ + before_ * (kBinPs - now % kBinPs) / kBinPs;
    const std::uint64_t load =
        std::min(background_load_ + lines * kOne / lines_per_bin_, kOne * 98 / 100);
    std::uint64_t waited = queue_ps_ * load / (kOne - load);
    if (free_ps_ > now) {
      // vCPUs are a bounded time apart: what lies further ahead is not a queue.
      waited += std::min(free_ps_ - now, kMostWaitPs);
      free_ps_ = std::min(free_ps_, now + kMostWaitPs) + service_ps_;
    } else {
      free_ps_ = now + service_ps_;
    }
    return waited;
  }

 private:
  static constexpr std::uint64_t kOne = 1 << 16;
  static constexpr std::uint64_t kMillion = 1'000'000;
  static constexpr std::uint64_t kBinPs = 4'000'000;
  static constexpr std::uint64_t kMostWaitPs = 20'000'000;
  std::uint64_t bandwidth_ = 1;
  std::uint64_t share_ppm_ = kMillion;
  std::uint64_t queue_ps_ = 0;
  std::uint64_t background_load_ = 0;
  std::uint64_t service_ps_ = 0;
  std::uint64_t lines_per_bin_ = 1;
  std::uint64_t bin_ = 0;
  std::uint64_t lines_ = 0;
  std::uint64_t before_ = 0;
  std::uint64_t free_ps_ = 0;
};

}  // namespace timing_plugin
