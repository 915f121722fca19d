// SPDX-License-Identifier: Apache-2.0
// Any bytes as the ring of a tracepoint and as the "format" file that describes its events: read
// without leaving either, and what is called a region is one.
#include <linux/perf_event.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "tracking/damon_events.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline;
  constexpr std::string_view kFormat =
      "field:unsigned long target_id; offset:8; size:8; signed:0;\n"
      "field:unsigned int nr_regions; offset:16; size:4; signed:0;\n"
      "field:unsigned long start; offset:24; size:8; signed:0;\n"
      "field:unsigned long end; offset:32; size:8; signed:0;\n"
      "field:unsigned int nr_accesses; offset:40; size:4; signed:0;\n"
      "field:unsigned int age; offset:44; size:4; signed:0;\n";
  const auto own = DamonEventFormat::parse({reinterpret_cast<const char*>(data), size});
  const auto format = own ? own : DamonEventFormat::parse(kFormat);
  if (!format) std::abort();

  std::vector<std::uint64_t> words(2 * kPageSize / 8);
  const auto mapping = std::as_writable_bytes(std::span(words));
  auto ring = PerfRing::open(mapping);
  if (!ring) std::abort();
  std::uint64_t head = 0;
  if (size >= sizeof(head)) std::memcpy(&head, data, sizeof(head));
  if (size > sizeof(head))
    std::memcpy(mapping.data() + kPageSize, data + sizeof(head),
                std::min<std::size_t>(size - sizeof(head), kPageSize));
  for (int i = 0; i < 2; ++i) {
    reinterpret_cast<perf_event_mmap_page*>(mapping.data())->data_head =
        i == 0 ? head % 8192 : head;
    (void)ring->drain([&](Nanoseconds, std::span<const std::byte> raw) {
      const auto region = format->region(raw);
      if (region && region->first >= region->end) std::abort();
    });
  }
  return 0;
}
