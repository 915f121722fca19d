// SPDX-License-Identifier: Apache-2.0
// The oracle on any bytes: refused or judged, in bounded memory, and its shares are shares.
#include <cstdlib>
#include <span>

#include "cli/oracle.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline;
  oracle::Options options;
  options.largest_memory = Bytes(64u << 20);
  const auto bytes = std::as_bytes(std::span(data, size));
  MemoryRecords records({bytes.begin(), bytes.end()});
  const auto answer = oracle::best_static_placement(records, options);
  if (!answer) return 0;
  const auto is_share = [](double share) { return share >= 0 && share <= 1; };
  if (!is_share(answer->best_share()) || !is_share(answer->recorded_share()) ||
      !is_share(answer->mean_set_share()))
    std::abort();
  if (answer->best_page_windows > answer->accessed_page_windows) std::abort();
  return 0;
}
