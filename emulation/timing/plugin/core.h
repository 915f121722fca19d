// SPDX-License-Identifier: GPL-2.0
// One vCPU as the model sees it: a filter that stands for its first-level cache, and the time that
// it waits for memory.
//
// Time is that of an interval model (Genbrugge, Eyerman, Eeckhout: Interval Simulation, HPCA 2010):
// instructions cost a fixed time; a load that misses does not stop the core at once, but when
// `window` instructions have passed it, or when `in_flight` misses are out. So independent misses
// overlap and nothing has to be said about the workload. A load whose address lies just behind a
// value that an outstanding load brings has to wait for it: a pointer chase pays every miss in
// full.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "emulation/timing/plugin/memory.h"
#include "emulation/timing/plugin/plan.h"

namespace timing_plugin {

/// What translated code counts by itself, in QEMU's memory.
struct Words {
  std::uint64_t since;   ///< instructions since `Core::base_instructions`; large: look in
  std::uint64_t kernel;  ///< instructions of the kernel, of all
};

/// The first-level cache: 512 lines of 64 bytes, found by virtual address. Direct-mapped under a
/// hashed index (plain low bits let arrays that lie a power of two apart evict each other).
class Filter {
 public:
  static constexpr unsigned kLines = 512;

  /// A line as the filter knows it: user lines of other address spaces differ.
  [[nodiscard]] std::uint64_t key(std::uint64_t address) const {
    const std::uint64_t line = address >> kLineShift;
    return (static_cast<std::int64_t>(address) < 0 ? line : line + salt_) << 1;
  }
  static unsigned index(std::uint64_t address) {
    return static_cast<unsigned>((address >> kLineShift) * 0x9e3779b97f4a7c15u >> 55);
  }
  [[nodiscard]] bool may_read(std::uint64_t address) const {
    return (entries_[index(address)] | 1) == (key(address) | 1);
  }
  [[nodiscard]] bool may_write(std::uint64_t address) const {
    return entries_[index(address)] == (key(address) | 1);
  }
  void insert(std::uint64_t address, bool modified) {
    entries_[index(address)] = key(address) | std::uint64_t{modified};
  }
  void set_address_space(std::uint64_t number) { salt_ = (number % 0xfff1) << 42; }
  void forget_page(std::uint64_t address) {
    const std::uint64_t page = address >> kPageShift << kPageShift;
    for (std::uint64_t line = 0; line < 1u << (kPageShift - kLineShift); ++line) {
      const std::uint64_t at = page + (line << kLineShift);
      if (may_read(at)) entries_[index(at)] = 0;
    }
  }

 private:
  std::uint64_t salt_ = 0;
  std::array<std::uint64_t, kLines> entries_{};
};

/// Misses that have not come back, and the time that waiting for them costs.
class Window {
 public:
  void shape(const Plan& plan) {
    ps_per_instruction_ = plan.ps_per_instruction;
    window_ = plan.window;
    in_flight_ = static_cast<unsigned>(plan.in_flight);
  }

  [[nodiscard]] std::uint64_t stalled_ps() const { return stalled_ps_; }
  [[nodiscard]] std::uint64_t now(std::uint64_t instructions) const {
    return instructions * ps_per_instruction_ + stalled_ps_;
  }

  /// A load of `value` from a line that may be on its way: then it waits with it. True while the
  /// line should not be taken for present.
  bool join(std::uint64_t line, std::uint64_t value, std::uint64_t instructions) {
    for (unsigned i = 0; i < count_; ++i) {
      Miss& miss = misses_[i];
      if (miss.line != line || miss.complete <= now(instructions)) continue;
      if (miss.values < kValues) miss.value[miss.values++] = value;
      return miss.values < kValues;
    }
    return false;
  }

  /// When a miss that the core comes to after `instructions` can start. Waits until there is room.
  std::uint64_t start(std::uint64_t address, std::uint64_t instructions) {
    retire(instructions);
    if (count_ == in_flight_) {
      unsigned first = 0;
      for (unsigned i = 1; i < count_; ++i)
        if (misses_[i].complete < misses_[first].complete) first = i;
      wait_until(misses_[first].complete, now(instructions));
      misses_[first] = misses_[--count_];
    }
    std::uint64_t start = now(instructions);
    for (unsigned i = 0; i < count_; ++i)
      for (unsigned v = 0; v < misses_[i].values; ++v)
        if (address - misses_[i].value[v] + kBefore < kBefore + kBehind)
          start = std::max(start, misses_[i].complete);
    return start;
  }

  void add_load(std::uint64_t line, std::uint64_t value, std::uint64_t complete,
                std::uint64_t instructions) {
    Miss& miss = misses_[count_++];
    miss = {line, complete, instructions, true, 1, {value}};
  }
  /// Stores wait in the store buffer: only the number of misses at a time holds them.
  void add_store(std::uint64_t line, std::uint64_t complete, std::uint64_t instructions) {
    misses_[count_++] = {line, complete, instructions, false, 0, {}};
  }

  /// An instruction that waits for all loads before it (lfence, rdtsc).
  void drain(std::uint64_t instructions) {
    for (unsigned i = 0; i < count_; ++i)
      if (misses_[i].load) wait_until(misses_[i].complete, now(instructions));
    forget_done(instructions);
  }

  /// Waiting of another kind.
  void stall(std::uint64_t ps) { stalled_ps_ += ps; }

 private:
  static constexpr unsigned kValues = 4;
  static constexpr std::uint64_t kBefore = 128;   ///< container_of() looks before the pointer
  static constexpr std::uint64_t kBehind = 4096;  ///< a member of what it points to

  struct Miss {
    std::uint64_t line = 0;
    std::uint64_t complete = 0;
    std::uint64_t instructions = 0;
    bool load = false;
    unsigned values = 0;
    std::array<std::uint64_t, kValues> value{};
  };

  void wait_until(std::uint64_t time, std::uint64_t now) {
    if (time > now) stalled_ps_ += time - now;
  }

  /// Loads that more than `window` instructions have passed are back: the core waited for them
  /// then.
  void retire(std::uint64_t instructions) {
    for (unsigned i = 0; i < count_; ++i) {
      const Miss& miss = misses_[i];
      if (!miss.load || instructions < miss.instructions + window_) continue;
      wait_until(miss.complete, now(miss.instructions + window_));
    }
    forget_done(instructions);
  }

  void forget_done(std::uint64_t instructions) {
    const std::uint64_t time = now(instructions);
    for (unsigned i = 0; i < count_;) {
      if (misses_[i].complete <= time)
        misses_[i] = misses_[--count_];
      else
        ++i;
    }
  }

  std::uint64_t ps_per_instruction_ = 0;
  std::uint64_t window_ = 0;
  unsigned in_flight_ = 1;
  std::uint64_t stalled_ps_ = 0;
  unsigned count_ = 0;
  std::array<Miss, kMaxInFlight> misses_{};
};

}  // namespace timing_plugin
