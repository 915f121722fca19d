// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/guest_command.h"

#include <fmt/format.h>

namespace thermocline::suite {

std::string mib(Bytes size) {
  return fmt::format("{}M", size.get() >> 20);
}

std::vector<std::string> guest_command(const GuestShape& shape) {
  std::string append = "rootfstype=ramfs";
  if (!shape.append.empty()) append += " " + shape.append;
  return {shape.thermocline,
          "lab",
          "run",
          "--kernel",
          shape.kernel,
          "--timing",
          shape.timing,
          "--timing-mode",
          shape.mode,
          "--smp",
          shape.mode == "reference" ? "1" : "2",
          "--fast",
          mib(shape.fast),
          "--slow",
          mib(shape.slow),
          "--append",
          append,
          "--timeout",
          "1800",
          "--with",
          fmt::format("{}:{}", shape.scripts, kGuestScripts)};
}

}  // namespace thermocline::suite
