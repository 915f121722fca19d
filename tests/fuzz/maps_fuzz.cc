// SPDX-License-Identifier: Apache-2.0
// Text as /proc/PID/maps and as smaps: nothing read out of bounds, and what is taken for mappings
// could be some: rising, not empty, within what a process can address, with no more in use than
// fits.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "tracking/proc_maps.h"

namespace {

using namespace thermocline;

void require(bool holds) {
  if (!holds) std::abort();
}

void check(const Mapping& mapping, Vpn& after) {
  require(mapping.first >= after);
  require(mapping.first < mapping.end);
  require(mapping.end.get() <= std::uint64_t{1} << (57 - kPageShift));
  after = mapping.end;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto maps = parse_maps(text)) {
    Vpn after(0);
    for (const Mapping& mapping : *maps) check(mapping, after);
  }
  if (const auto smaps = parse_smaps(text)) {
    Vpn after(0);
    for (const MappingUse& use : *smaps) {
      check(use.mapping, after);
      const Bytes all = bytes_of(use.mapping.end - use.mapping.first);
      require(use.resident <= all && use.referenced <= all);
    }
  }
  return 0;
}
