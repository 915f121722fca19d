// SPDX-License-Identifier: Apache-2.0
// A stand-in for the hotness-monitoring unit of a CXL device: pages of the slow tier that the
// device itself counts as hot. Emulated: the list comes from a file that something else writes
// (hot_list.h).
#pragma once

#include "tracking/tracker.h"

namespace thermocline {

[[nodiscard]] TrackerFactory hmu_tracker_factory();

}  // namespace thermocline
