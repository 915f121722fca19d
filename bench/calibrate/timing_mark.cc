// SPDX-License-Identifier: Apache-2.0
// timing_mark NAME: sets a mark for the timing model (emulation/timing/mark.h); without the model
// it does nothing.
#include "emulation/timing/mark.h"

#include <algorithm>
#include <cstdio>
#include <string_view>

namespace {

/// A name that comes out of the model as it went in, and stays one word of the truth file.
bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= 8 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 || !is_name(argv[1])) {
    std::fputs(
        "timing_mark: a mark's name is one to eight letters, digits, dots, - or _: timing_mark "
        "begin\n",
        stderr);
    return 2;
  }
  thermocline_timing_mark(argv[1]);
  return 0;
}
