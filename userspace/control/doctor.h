// SPDX-License-Identifier: Apache-2.0
// Says what stands between this machine and managed memory, and what to do about each thing.
// Reads only; runs without privileges, and then says what they would change.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "tracking/tracker.h"

namespace thermocline {

enum class Severity : std::uint8_t {
  kOk,       ///< as it should be
  kNote,     ///< works, but costs accuracy or speed, or works against Thermocline
  kProblem,  ///< pages can't be tracked or moved with it
};
/// "ok", "note", "problem": also the words of the JSON.
[[nodiscard]] std::string_view to_string(Severity severity);

struct Finding {
  std::string what;  ///< "NUMA balancing", "tracker kmod", ...: stable, also the JSON key
  Severity severity = Severity::kOk;
  std::string state;   ///< how it is, half a sentence
  std::string advice;  ///< one line, what to do; empty when there is nothing to do
};

/// Everything that is looked at, in an order for reading: what decides whether it works at all
/// first. `trackers` are probed by opening what they need. A file of the kernel's that isn't there
/// or may not be read is a state, never an error.
[[nodiscard]] std::vector<Finding> examine_machine(System& system,
                                                   std::span<const TrackerFactory> trackers);

/// Nothing is a problem.
[[nodiscard]] bool is_ready(std::span<const Finding> findings);

}  // namespace thermocline
