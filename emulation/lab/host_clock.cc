// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/host_clock.h"

#include <chrono>
#include <thread>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace thermocline::lab {

CounterMeter::Sample CounterMeter::sample() {
  Sample best;
#if defined(__x86_64__)
  // The clock is read around the counter; the tightest of some tries had no interruption between.
  auto tightest = Nanoseconds::max();
  for (int i = 0; i < 20; ++i) {
    const auto before = std::chrono::steady_clock::now().time_since_epoch();
    const std::uint64_t counter = __rdtsc();
    const auto after = std::chrono::steady_clock::now().time_since_epoch();
    if (after - before >= tightest) continue;
    tightest = after - before;
    best = {counter, before + (after - before) / 2};
  }
#endif
  return best;
}

std::uint64_t CounterMeter::khz() const {
  if (first_.counter == 0) return 0;
  constexpr Nanoseconds kSpan = std::chrono::milliseconds(20);
  Sample last = sample();
  if (const Nanoseconds passed = last.time - first_.time; passed < kSpan) {
    std::this_thread::sleep_for(kSpan - passed);
    last = sample();
  }
  const auto nanoseconds = static_cast<double>((last.time - first_.time).count());
  return static_cast<std::uint64_t>(
      static_cast<double>(last.counter - first_.counter) / nanoseconds * 1e6 + 0.5);
}

}  // namespace thermocline::lab
