// SPDX-License-Identifier: Apache-2.0
// The tracker that has the kernel note writes: soft-dirty bits, which /proc/PID/clear_refs clears
// and /proc/PID/pagemap tells. Every page told apart, no root for one's own processes; reads aren't
// seen.
#pragma once

#include "tracking/tracker.h"

namespace thermocline {

[[nodiscard]] TrackerFactory written_tracker_factory();

}  // namespace thermocline
