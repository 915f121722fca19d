// SPDX-License-Identifier: Apache-2.0
// The configuration parser on any text: accepted or refused with a place, never more; and what is
// accepted can be written and read again.
#include <cstdlib>
#include <string>

#include "control/config.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline;
  const auto config = parse_config(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
  if (!config) {
    if (config.error().kind != ErrorKind::kUsage || config.error().message.empty()) std::abort();
    return 0;
  }
  const std::string written = config_to_toml(*config);
  const auto again = parse_config(written, "written");
  if (!again || config_to_toml(*again) != written) std::abort();
  return 0;
}
