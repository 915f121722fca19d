// SPDX-License-Identifier: Apache-2.0
// A store of the benchmark suite from any bytes: what is accepted comes out as it went in.
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "bench/suite/cell_record.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline::suite;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto cells = parse_cells(text, "store");
  if (!cells) return 0;
  if (cells->whole_bytes > size) std::abort();
  for (const CellRecord& record : cells->records) {
    const std::string line = to_json(record).dump();
    const auto again = parse_line(line);
    if (!again || to_json(*again).dump() != line) std::abort();
  }
  return 0;
}
