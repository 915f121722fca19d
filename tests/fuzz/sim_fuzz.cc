// SPDX-License-Identifier: Apache-2.0
// A store of simulated cases from any bytes: what is accepted can be told about.
#include <cstdlib>
#include <string_view>

#include "cli/sim_report.h"
#include "emulation/sim/sweep.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline;
  const auto stored = sim::parse_cases({reinterpret_cast<const char*>(data), size}, "store");
  if (!stored) return 0;
  if (stored->whole_bytes > size) std::abort();
  (void)cli::sim_table(stored->lines);
  (void)cli::sim_summary_table(cli::sim_summary(stored->lines));
  (void)cli::sim_html(stored->lines, "x");
  return 0;
}
