// SPDX-License-Identifier: Apache-2.0
// DAMON's settings in /sys/kernel/mm/damon/admin, which it has once for the whole machine. They are
// taken only while nobody else has any, and given back empty, as they were found.
//
// Whose they are stands in them: a scheme that matches no region carries a mark and the owner's
// process number and start time. So settings of a Thermocline that was killed are known as left
// behind, and the next one clears them away; those of one that runs are left alone, like anybody's.
#pragma once

#include <chrono>
#include <span>
#include <utility>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"

namespace thermocline {

class DamonControl {
 public:
  /// A page of each region is looked at in each sample; an aggregation adds up so many of them.
  static constexpr Nanoseconds kSample = std::chrono::milliseconds(10);
  static constexpr unsigned kSamples = 20;

  /// Ok when DAMON is there and free, or holds only what was left behind; else a sentence with what
  /// to do. Changes nothing.
  [[nodiscard]] static Status probe(System& system);
  /// One kdamond of its own, not running. Clears away what was left behind.
  [[nodiscard]] static Result<DamonControl> take(System& system);

  DamonControl(DamonControl&& o) noexcept : system_(std::exchange(o.system_, nullptr)) {}
  DamonControl& operator=(DamonControl&&) = delete;
  DamonControl(const DamonControl&) = delete;
  DamonControl& operator=(const DamonControl&) = delete;
  /// Stops it and gives the settings back.
  ~DamonControl();

  /// Watch these processes' address spaces, target i being processes[i], and no others; it starts
  /// anew. None = stop. Fails when one of them is gone; then nothing is watched.
  [[nodiscard]] Status watch(std::span<const Pid> processes);
  /// The kernel thread that watches.
  [[nodiscard]] Result<Pid> thread() const;

 private:
  explicit DamonControl(System& system) : system_(&system) {}
  [[nodiscard]] Status configure();
  System* system_;
};

}  // namespace thermocline
