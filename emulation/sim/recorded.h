// SPDX-License-Identifier: Apache-2.0
// A recording as a workload of the simulator: how often each page was touched in each stretch of
// time becomes its share of the accesses of a phase. Bits are drawn from these rates again, so that
// windows of any length, other trackers and other budgets can be tried on it.
//
// A page that was touched in k of n windows of w seconds has a rate of -ln(1 - k/n) / w: that of
// independent accesses which would leave it untouched as often. One that was touched in all of them
// counts as touched in n - 1/2. An accessed bit tells no more than that, so these are the least
// rates; lines that are read in a row within a window count once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "emulation/sim/machine.h"
#include "emulation/sim/workload.h"
#include "tracking/record_source.h"

namespace thermocline::sim {

struct Recorded {
  std::string name;         ///< of the file and what is in it: "trace:app.tct@1f00b3c2"
  WorkloadKind kind;        ///< without keys; make() plays the recording over and over
  std::uint64_t pages = 0;  ///< of 4 KiB that were there at some time
  std::size_t processes = 0, phases = 0;
  double seconds = 0;         ///< from the first window to the last
  AccessRate least_rate = 0;  ///< mean over that time

  Recorded() = default;
  Recorded(const Recorded&) = delete;  // `kind` and the workloads refer to it
  Recorded& operator=(const Recorded&) = delete;
};

/// Reads it twice. Windows of unknown length, or of more than three times the median, which are
/// pauses, count for nothing. kCorrupt for bytes that are no records; kFailure when there is no
/// window, no touch, too few or too many pages for the simulator, or more than `largest_memory` is
/// needed: a byte for each page and eight windows.
[[nodiscard]] Result<std::shared_ptr<const Recorded>> read_recorded(
    RecordSource& source, const std::string& file,
    Bytes largest_memory = Bytes(std::uint64_t{4} << 30));

/// Time that a thread computes between two misses so that the machine's threads together make so
/// many accesses a second with all memory in the fastest tier; 0 when it can't be as many.
[[nodiscard]] double think_ns_for(const Machine& machine, AccessRate rate);

}  // namespace thermocline::sim
