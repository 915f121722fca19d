// SPDX-License-Identifier: Apache-2.0
// The tracker that asks thermocline.ko: sees every read and write of every mapped page, clears as
// it reads. Needs the module and CAP_SYS_ADMIN.
#pragma once

#include "tracking/tracker.h"

namespace thermocline {

[[nodiscard]] TrackerFactory kmod_tracker_factory();

}  // namespace thermocline
