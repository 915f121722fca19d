// SPDX-License-Identifier: GPL-2.0
// Takes over the guest's virtual clock: MONOTONIC, TSC, LAPIC timer and HPET all follow.
//
// The documented call (update_ns) has nothing to set under TCG: its accelerator installs no "set
// clock" operation. So the operations "get clock", "set clock" and "get ticks" of the accelerator
// object are replaced by ours. Where they lie is read off QEMU's own code when the plug-in loads,
// and everything that is relied upon is checked; the check decides, no version does.
#pragma once

#include <cstdint>
#include <string>

#include "emulation/timing/plugin/plan.h"

namespace timing_plugin {

/// Nanoseconds of guest time, asked for by any thread of QEMU.
using ClockFn = std::int64_t (*)();

class Clock {
 public:
  /// The part of the self-check that needs no guest; finds everything. False with a sentence;
  /// report mode goes on without what is missing then.
  bool prepare(Mode mode, std::string& error);
  /// The rest, in the first vCPU's thread before it runs: puts our operations in place and reads
  /// the clock back through QEMU. `get` is called from then on, `set` in parallel mode when QEMU's
  /// timers advance the clock. False with a sentence.
  bool take(ClockFn get, void (*set)(std::int64_t), std::string& error);

  /// Instructions and idle time as QEMU's instruction counter has them (reference mode); never to
  /// be called from a memory access.
  [[nodiscard]] std::int64_t counted() const { return icount_get_(); }
  [[nodiscard]] std::int64_t counted_raw() const { return icount_get_raw_(); }

  /// Makes QEMU look at its timers; in parallel mode those due at `now` run at once.
  void kick(std::int64_t now) const;

  /// Empties QEMU's own TLB of a vCPU, from that vCPU's thread; nothing where QEMU has no such
  /// call.
  void flush_emulator_tlb(unsigned vcpu) const {
    if (tlb_flush_ != nullptr && get_cpu_ != nullptr) tlb_flush_(get_cpu_(static_cast<int>(vcpu)));
  }

 private:
  Mode mode_ = Mode::kReport;
  const void* control_ = nullptr;
  void* (*get_accel_)() = nullptr;
  std::int64_t (*get_virtual_clock_)() = nullptr;
  void (*set_virtual_clock_)(std::int64_t) = nullptr;
  std::int64_t (*get_elapsed_ticks_)() = nullptr;
  std::int64_t (*icount_get_)() = nullptr;
  std::int64_t (*icount_get_raw_)() = nullptr;
  void (*tlb_flush_)(void*) = nullptr;
  void* (*get_cpu_)(int) = nullptr;
  std::size_t slots_ = 0;  ///< offset of the first of the three
};

}  // namespace timing_plugin
