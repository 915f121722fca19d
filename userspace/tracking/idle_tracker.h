// SPDX-License-Identifier: Apache-2.0
// The tracker by the kernel's idle page tracking: a bitmap by page frame in which pages are marked
// idle, and lose the mark when anybody touches them. Every page told apart, other processes' and
// KVM guests' touches seen. Debian's kernels are built without it.
#pragma once

#include "tracking/tracker.h"

namespace thermocline {

[[nodiscard]] TrackerFactory idle_tracker_factory();

}  // namespace thermocline
