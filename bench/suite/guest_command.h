// SPDX-License-Identifier: Apache-2.0
// The guest that a benchmark's run happens in, as a command.
#pragma once

#include <string>
#include <vector>

#include "base/units.h"

namespace thermocline::suite {

/// Where the scripts of bench/suite/guest lie in a guest.
inline constexpr const char* kGuestScripts = "/lab/suite";

struct GuestShape {
  std::string thermocline;  ///< the program itself
  std::string kernel;       ///< as of `lab run`
  std::string timing;       ///< a preset or a file
  std::string mode;         ///< "reference": one CPU; "parallel": two
  Bytes fast, slow;         ///< sizes of the nodes, multiples of 1 MiB
  std::string append;       ///< more for the kernel's command line
  std::string scripts;      ///< folder on the host that goes to kGuestScripts
};

[[nodiscard]] std::string mib(Bytes size);
/// `thermocline lab run ...`, up to where more options or "--" may follow. Its root is on ramfs:
/// reclaim must not find the guest's programs and demote them, which would give the kernel's
/// systems more room than others have.
[[nodiscard]] std::vector<std::string> guest_command(const GuestShape& shape);

}  // namespace thermocline::suite
