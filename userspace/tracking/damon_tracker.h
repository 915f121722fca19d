// SPDX-License-Identifier: Apache-2.0
// The tracker that has the kernel's DAMON sample regions of the address space: cheap at any size,
// no module. Needs root, CONFIG_DAMON_VADDR and CONFIG_DAMON_SYSFS, and that nobody else uses them.
#pragma once

#include "tracking/tracker.h"

namespace thermocline {

[[nodiscard]] TrackerFactory damon_tracker_factory();

}  // namespace thermocline
