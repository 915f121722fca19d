// SPDX-License-Identifier: Apache-2.0
// The tracker that asks /proc only: clear_refs and "Referenced" of smaps. Works for one's own
// processes without root; tells a mapping as a whole.
#pragma once

#include "tracking/tracker.h"

namespace thermocline {

[[nodiscard]] TrackerFactory refs_tracker_factory();

}  // namespace thermocline
