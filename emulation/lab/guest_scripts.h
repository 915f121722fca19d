// SPDX-License-Identifier: Apache-2.0
// The shell scripts of a guest (emulation/lab/guest), compiled in by CMake.
#pragma once

#include <string_view>
#include <vector>

namespace thermocline::lab {

struct GuestScript {
  std::string_view name;
  std::string_view text;
};

[[nodiscard]] const std::vector<GuestScript>& guest_scripts();

}  // namespace thermocline::lab
