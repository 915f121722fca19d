// SPDX-License-Identifier: GPL-2.0
// The parts of the modelled machine that hold state but no time: a cache, a TLB, and the queue in
// front of a memory device. All integers: a run repeats to the bit on any host.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "emulation/timing/plugin/plan.h"

namespace timing_plugin {

inline constexpr unsigned kMaxVcpus = 64;

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
///
/// vCPUs are some time apart and come here out of order, so the device's time is kept in slots: a
/// line takes the first one with room, whoever came first. One that is behind neither waits for
/// another's future nor takes back what was promised to it.
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
    service_ps_ = std::min(kMostServicePs,
                           64 * 1'000'000 * kMillion / ((bandwidth_ - background) * share_ppm_));
    lines_per_bin_ = std::max<std::uint64_t>(
        1, kBinPs * (bandwidth_ * share_ppm_ / kMillion) / (64 * 1'000'000));
  }

  /// Picoseconds that a line waits which `vcpu` asks for at `now`, its own time.
  std::uint64_t wait(unsigned vcpu, std::uint64_t now) {
    const std::uint64_t load =
        std::min(background_load_ + lines_near(vcpu, now) * kOne / lines_per_bin_, kOne * 98 / 100);
    return queue_ps_ * load / (kOne - load) + slot_wait(now);
  }

 private:
  static constexpr std::uint64_t kOne = 1 << 16;
  static constexpr std::uint64_t kMillion = 1'000'000;
  static constexpr std::uint64_t kBinPs = 4'000'000;
  /// Others' bins that count as now: more than vCPUs are apart.
  static constexpr std::uint64_t kNear = 64;
  static constexpr std::uint64_t kSlotPs = 500'000;
  static constexpr std::uint64_t kSlots = 8192;  ///< 4 ms: more than vCPUs are apart, and a queue
  /// Of a line; models that ask for more are refused, but a mark may change the background.
  static constexpr std::uint64_t kMostServicePs = 5'000'000;

  /// What one vCPU asks for, in its own time.
  struct Demand {
    std::uint64_t bin = 0;
    std::uint64_t lines = 0;   ///< in the bin so far
    std::uint64_t before = 0;  ///< in the bin before it
  };

  /// What was used of a slot.
  struct Slot {
    std::uint64_t number = 0;
    std::uint32_t used_ps = 0;
    std::uint32_t skip = 1;  ///< when it is full: slots to the next that may have room
  };

  /// Slot `number`, which is not so long ago that later ones took its place.
  Slot& slot(std::uint64_t number) {
    Slot& s = slots_[number % kSlots];
    if (s.number < number) {
      s = {number, 0, 1};
      newest_ = std::max(newest_, number);
    }
    return s;
  }

  /// Lines in the last bin's length: of this vCPU what is left of the bin before and this one so
  /// far, of the others what they asked for in their last whole bin.
  std::uint64_t lines_near(unsigned vcpu, std::uint64_t now) {
    Demand& own = demands_[vcpu];
    const std::uint64_t bin = now / kBinPs;
    if (bin != own.bin) {
      own = {bin, 0, bin == own.bin + 1 ? own.lines : 0};
      others_[vcpu] = 0;
      vcpus_ = std::max(vcpus_, vcpu + 1);
      for (unsigned i = 0; i < vcpus_; ++i)
        if (i != vcpu && demands_[i].bin + kNear > bin) others_[vcpu] += demands_[i].before;
    }
    ++own.lines;
    return own.lines + own.before * (kBinPs - now % kBinPs) / kBinPs + others_[vcpu];
  }

  /// Takes the first room from `now` on. One that is further behind than the slots reach back takes
  /// the oldest ones known, and waits as if it were there: its lines cost the device's time, too.
  std::uint64_t slot_wait(std::uint64_t now) {
    const std::uint64_t oldest = newest_ >= kSlots ? newest_ - kSlots + 1 : 0;
    const std::uint64_t first = std::max(now / kSlotPs, oldest);
    const std::uint64_t end = first + kSlots;  // never around the ring
    std::uint64_t number = first;
    while (number < end && slot(number).used_ps >= kSlotPs) number += slot(number).skip;
    number = std::min(number, end - 1);
    // The next one to look from here need not go the same way.
    for (std::uint64_t n = first; n < number;) {
      Slot& s = slot(n);
      n += s.skip;
      s.skip = static_cast<std::uint32_t>(number - s.number);
    }
    const std::uint64_t turn = number * kSlotPs + slot(number).used_ps;
    // What doesn't fit goes on in the next slots.
    std::uint64_t left = service_ps_;
    for (std::uint64_t n = number; left != 0 && n < end; ++n) {
      Slot& s = slot(n);
      const std::uint64_t taken = std::min(left, kSlotPs - s.used_ps);
      s.used_ps += static_cast<std::uint32_t>(taken);
      left -= taken;
    }
    const std::uint64_t start = std::max(now, first * kSlotPs);
    return turn > start ? turn - start : 0;
  }

  std::uint64_t bandwidth_ = 1;
  std::uint64_t share_ppm_ = kMillion;
  std::uint64_t queue_ps_ = 0;
  std::uint64_t background_load_ = 0;
  std::uint64_t service_ps_ = 0;
  std::uint64_t lines_per_bin_ = 1;
  unsigned vcpus_ = 0;
  std::array<Demand, kMaxVcpus> demands_{};
  std::array<std::uint64_t, kMaxVcpus> others_{};
  std::uint64_t newest_ = 0;  ///< slot that anyone came to
  std::array<Slot, kSlots> slots_{};
};

}  // namespace timing_plugin
