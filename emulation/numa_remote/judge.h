// SPDX-License-Identifier: Apache-2.0
// What the measured node may be called: CXL-like when it lies inside what was published about CXL
// devices, and a remote socket otherwise. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "emulation/numa_remote/measure.h"

namespace thermocline::numa_remote {

/// What the clock was worth when it was measured.
enum class Label {
  kMeasured,  ///< hardware
  kModelled,  ///< a guest under the timing model
  kEmulated,  ///< a guest in plain emulation: times mean nothing
};
/// Of the machine that this runs on: the emulator tells itself by CPUID, and THERMOCLINE_TIMING
/// counts there only.
[[nodiscard]] Label label_here(const System& system);

enum class StandsFor { kCxl, kRemoteNuma, kNothing };

struct Axis {
  std::string what, unit, source;
  double value = 0, low = 0, high = 0;
  bool at_least = false;  ///< the CPUs were the limit: the value may be higher
  bool judged = true;     ///< false: told, but one published card is too few to go by
  /// False when the CPUs drew less than the envelope's lower end and could draw no more.
  [[nodiscard]] bool known() const;
  /// ">= 5.22 GB/s"
  [[nodiscard]] std::string value_text() const;
  /// Relative distance from the envelope's nearer end: -0.1 is 10 % below it; 0 inside or unknown.
  [[nodiscard]] double outside_by() const;
};

struct Judgement {
  StandsFor stands_for = StandsFor::kNothing;
  std::string why;  ///< a sentence
  std::vector<Axis> axes;
  std::string preset;                      ///< the timing model's nearest one
  double preset_latency = 0;               ///< relative: 0.1 is 10 % slower than the preset
  std::optional<double> preset_bandwidth;  ///< relative; none when the CPUs were the limit
};

[[nodiscard]] Judgement judge(const Figures& figures, Label label);

[[nodiscard]] std::string_view to_string(StandsFor stands_for);
[[nodiscard]] std::string_view to_string(Label label);

}  // namespace thermocline::numa_remote
