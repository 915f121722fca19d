// SPDX-License-Identifier: Apache-2.0
// timing_mark NAME: sets a mark for the timing model (emulation/timing/mark.h).
// timing_mark --text PURPOSE MODULE: tells a profile that a kernel module is a tracker, a policy or
// a mover.
// Without the model both do nothing.
#include "emulation/timing/mark.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

namespace {

/// A name that comes out of the model as it went in, and stays one word of the truth file.
bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= 8 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

/// The pages that hold a module's functions: no other module has text on them.
int tell_text(thermocline_timing_purpose purpose, const std::string& module) {
  constexpr unsigned long kPage = 4096;
  unsigned long first = ~0ul;
  unsigned long last = 0;
  std::ifstream symbols("/proc/kallsyms");
  const std::string owner = "[" + module + "]";
  for (std::string line; std::getline(symbols, line);) {
    if (!line.ends_with(owner)) continue;
    std::istringstream words(line);
    unsigned long address = 0;
    char type = 0;
    if (!(words >> std::hex >> address >> type) || (type != 't' && type != 'T')) continue;
    first = std::min(first, address);
    last = std::max(last, address);
  }
  if (last == 0) {
    std::fprintf(
        stderr,
        "timing_mark: no function of a module %s is in /proc/kallsyms; load it, and run as root\n",
        module.c_str());
    return 1;
  }
  first -= first % kPage;
  thermocline_timing_text(purpose, first, (last - first) / kPage + 1);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[1]) == "--text") {
    const std::string_view purpose = argv[2];
    if (purpose == "tracker") return tell_text(THERMOCLINE_TIMING_TRACKER, argv[3]);
    if (purpose == "policy") return tell_text(THERMOCLINE_TIMING_POLICY, argv[3]);
    if (purpose == "mover") return tell_text(THERMOCLINE_TIMING_MOVER, argv[3]);
  }
  if (argc != 2 || !is_name(argv[1])) {
    std::fputs(
        "timing_mark: a mark's name is one to eight letters, digits, dots, - or _: timing_mark "
        "begin; a module is a tracker, policy or mover: timing_mark --text tracker thermocline\n",
        stderr);
    return 2;
  }
  thermocline_timing_mark(argv[1]);
  return 0;
}
