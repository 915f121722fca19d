// SPDX-License-Identifier: Apache-2.0
// timing_mark NAME: sets a mark for the timing model (emulation/timing/mark.h); without the model
// it does nothing.
#include "emulation/timing/mark.h"

#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 2 || argv[1][0] == '\0') {
    std::fputs("timing_mark: give the mark a name of up to eight letters\n", stderr);
    return 2;
  }
  thermocline_timing_mark(argv[1]);
  return 0;
}
