// SPDX-License-Identifier: Apache-2.0
// Any text as what another tool recorded: refused with its line, or made into records that a reader
// takes, by rising addresses. The first byte chooses the format.
#include <cstdlib>
#include <sstream>

#include "trace/import.h"
#include "tracking/record.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline;
  using namespace thermocline::trace;
  if (size == 0) return 0;
  ImportOptions options;
  options.format = data[0] % 3 == 0   ? ImportFormat::kTimeAddress
                   : data[0] % 3 == 1 ? ImportFormat::kPerf
                                      : ImportFormat::kDamon;
  options.max_windows = 50;
  options.max_pages = PageCount(1u << 20);
  std::istringstream in(std::string(reinterpret_cast<const char*>(data + 1), size - 1));
  const auto counts = import_text(in, "f", options,
                                  {[](std::span<const std::byte> bytes) {
                                     RecordReader reader(bytes);
                                     Vpn after{0};
                                     while (const auto record = reader.next()) {
                                       if (record->first < after) std::abort();
                                       after = record->first + record->pages();
                                     }
                                     if (reader.error()) std::abort();
                                   },
                                   [](const ProcessInfo& process) {
                                     if (process.asid == Asid{}) std::abort();
                                   }});
  if (!counts && counts.error().message.empty()) std::abort();
  return 0;
}
