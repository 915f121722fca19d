// SPDX-License-Identifier: Apache-2.0
// How fast this machine's time-stamp counter runs. Under emulation a guest's counter is the host's;
// on a busy host the guest's own calibration can be far off, and its clocks with it, so the lab
// tells it.
#pragma once

#include <cstdint>

#include "base/units.h"

namespace thermocline::lab {

/// Compares the counter with the clock from construction to khz().
class CounterMeter {
 public:
  CounterMeter() : first_(sample()) {}
  /// Kilohertz of the counter, good to some 10 ppm; waits until 20 ms have passed. 0 where there is
  /// no counter.
  [[nodiscard]] std::uint64_t khz() const;

 private:
  struct Sample {
    std::uint64_t counter = 0;
    Nanoseconds time{0};
  };
  [[nodiscard]] static Sample sample();

  Sample first_;
};

}  // namespace thermocline::lab
