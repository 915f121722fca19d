// SPDX-License-Identifier: Apache-2.0
// Says what the lab has on this machine and what is missing, and what to do about each thing.
#pragma once

#include <string>
#include <vector>

namespace thermocline::lab {

struct Finding {
  std::string what;  ///< "QEMU", "kernel 6.12", ...: stable, also the JSON key
  bool good = false;
  bool needed = true;  ///< without it the lab doesn't work at all
  std::string detail;  ///< version or place when good, what to do otherwise
};

[[nodiscard]] std::vector<Finding> examine_lab();
/// True when everything that is needed is good.
[[nodiscard]] bool is_ready(const std::vector<Finding>& findings);

}  // namespace thermocline::lab
