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

/// The stream prefetcher of the second-level cache: two lines in a row within a 4 KiB page start a
/// stream, which then runs `depth` lines ahead of the program, never beyond its page.
class Prefetcher {
 public:
  void shape(std::uint64_t depth) { depth_ = depth; }

  /// Lines after `line` to bring now: [first, last], none when first > last.
  struct Lines {
    std::uint64_t first = 1;
    std::uint64_t last = 0;
  };
  Lines follow(std::uint64_t line) {
    if (depth_ == 0) return {};
    const std::uint64_t page = line >> kLinesShift;
    Stream& s = streams_[page * 0x9e3779b97f4a7c15u >> 60];
    if (s.page != page || line > s.next + kGap || line + kGap < s.next) {
      s = {page, line + 1, line, 0};
      return {};
    }
    if (line < s.next) return {};
    s.next = line + 1;
    if (++s.run < kRun) return {};
    const Lines lines{std::max(s.issued, line) + 1,
                      std::min(line + depth_, (page << kLinesShift) + (1u << kLinesShift) - 1)};
    s.issued = std::max(s.issued, lines.last);
    return lines;
  }
  void arrives(std::uint64_t line, std::uint64_t time) {
    arrivals_[line % kArrivals] = {line, time};
  }
  /// When a line that was prefetched is there; 0: long ago.
  [[nodiscard]] std::uint64_t arrival(std::uint64_t line) const {
    const Arrival& a = arrivals_[line % kArrivals];
    return a.line == line ? a.time : 0;
  }

 private:
  static constexpr unsigned kLinesShift = kPageShift - kLineShift;
  static constexpr unsigned kRun = 2;
  static constexpr std::uint64_t kGap = 2;  ///< lines that a stream may skip
  static constexpr std::size_t kArrivals = 256;
  struct Stream {
    std::uint64_t page = ~std::uint64_t{0};
    std::uint64_t next = 0;
    std::uint64_t issued = 0;
    unsigned run = 0;
  };
  struct Arrival {
    std::uint64_t line = 0;
    std::uint64_t time = 0;
  };
  std::uint64_t depth_ = 0;
  std::array<Stream, 16> streams_{};
  std::array<Arrival, kArrivals> arrivals_{};
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

  /// True when a miss that is remembered brings this line.
  [[nodiscard]] bool brings(std::uint64_t line) {
    for (joining_ = 0; joining_ < count_; ++joining_)
      if (lines_[joining_] == line) return true;
    return false;
  }
  /// After brings(): a load of the line waits with it, and what it reads, `value()`, comes with it.
  /// False when the line is there by now or enough is known.
  template <class Value>
  bool join(Value value, std::uint64_t instructions) {
    Miss& miss = misses_[joining_];
    if (!miss.load || miss.values == kValues || complete_[joining_] <= now(instructions))
      return false;
    miss.value[miss.values++] = value();
    return miss.values < kValues;
  }

  /// When a miss that the core comes to after `instructions` can start. Waits until there is room.
  std::uint64_t start(std::uint64_t address, std::uint64_t instructions) {
    retire(instructions);
    if (count_ == in_flight_) {
      const unsigned first = static_cast<unsigned>(
          std::min_element(complete_.begin(), complete_.begin() + count_) - complete_.begin());
      wait_until(complete_[first], now(instructions));
      forget(first);
    }
    std::uint64_t start = now(instructions);
    for (unsigned i = 0; i < count_; ++i)
      for (unsigned v = 0; v < misses_[i].values; ++v)
        if (address - misses_[i].value[v] + kBefore < kBefore + kBehind)
          start = std::max(start, complete_[i]);
    return start;
  }

  void add_load(std::uint64_t line, std::uint64_t value, std::uint64_t complete,
                std::uint64_t instructions) {
    misses_[count_] = {instructions, true, 1, {value}};
    oldest_load_ = std::min(oldest_load_, instructions);
    add(line, complete);
  }
  /// Stores wait in the store buffer: only the number of misses at a time holds them.
  void add_store(std::uint64_t line, std::uint64_t complete, std::uint64_t instructions) {
    misses_[count_] = {instructions, false, 0, {}};
    add(line, complete);
  }

  /// An instruction that waits for all loads before it (lfence, rdtsc).
  void drain(std::uint64_t instructions) {
    for (unsigned i = 0; i < count_; ++i)
      if (misses_[i].load) wait_until(complete_[i], now(instructions));
    forget_done(instructions);
  }

  /// Waiting of another kind.
  void stall(std::uint64_t ps) { stalled_ps_ += ps; }

 private:
  static constexpr unsigned kValues = 3;
  static constexpr std::uint64_t kBefore = 128;       ///< container_of() looks before the pointer
  static constexpr std::uint64_t kLongest = 1 << 16;  ///< more than any window
  static constexpr std::uint64_t kBehind = 4096;      ///< a member of what it points to

  struct Miss {
    std::uint64_t instructions = 0;
    bool load = false;
    unsigned values = 0;
    std::array<std::uint64_t, kValues> value{};
  };

  void wait_until(std::uint64_t time, std::uint64_t now) {
    if (time > now) stalled_ps_ += time - now;
  }

  void add(std::uint64_t line, std::uint64_t complete) {
    lines_[count_] = line;
    complete_[count_++] = complete;
    earliest_ = std::min(earliest_, complete);
  }

  void forget(unsigned i) {
    --count_;
    lines_[i] = lines_[count_];
    complete_[i] = complete_[count_];
    misses_[i] = misses_[count_];
  }

  /// Loads that more than `window` instructions have passed are back: the core waited for them
  /// then.
  void retire(std::uint64_t instructions) {
    if (instructions >= oldest_load_ + window_ && count_ != 0) {
      oldest_load_ = instructions;
      for (unsigned i = 0; i < count_; ++i) {
        const Miss& miss = misses_[i];
        if (!miss.load) continue;
        if (instructions >= miss.instructions + window_)
          wait_until(complete_[i], now(miss.instructions + window_));
        else
          oldest_load_ = std::min(oldest_load_, miss.instructions);
      }
    }
    if (earliest_ <= now(instructions)) forget_done(instructions);
  }

  void forget_done(std::uint64_t instructions) {
    const std::uint64_t time = now(instructions);
    earliest_ = ~std::uint64_t{0};
    for (unsigned i = 0; i < count_;) {
      if (complete_[i] <= time) {
        forget(i);
      } else {
        earliest_ = std::min(earliest_, complete_[i]);
        ++i;
      }
    }
    if (count_ == 0) oldest_load_ = ~std::uint64_t{0} - kLongest;
  }

  std::uint64_t ps_per_instruction_ = 0;
  std::uint64_t window_ = 0;
  unsigned in_flight_ = 1;
  std::uint64_t stalled_ps_ = 0;
  unsigned count_ = 0;
  unsigned joining_ = 0;
  std::uint64_t earliest_ = ~std::uint64_t{0};                ///< no complete_ is before
  std::uint64_t oldest_load_ = ~std::uint64_t{0} - kLongest;  ///< no load's instructions are before
  // What is looked through most often stands together.
  std::array<std::uint64_t, kMaxInFlight> lines_{};
  std::array<std::uint64_t, kMaxInFlight> complete_{};
  std::array<Miss, kMaxInFlight> misses_{};
};

}  // namespace timing_plugin
