// SPDX-License-Identifier: Apache-2.0
// Any bytes as a recording: played to its end, it tells every record that a reader finds in it; and
// two of its passes can be merged, whatever they are of.
#include <cstdlib>
#include <span>

#include "tracking/combine_tracker.h"
#include "tracking/record.h"
#include "tracking/replay_tracker.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline;
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto tracker = ReplayTracker::open(
      std::make_unique<MemoryRecords>(std::vector<std::byte>(bytes.begin(), bytes.end())));
  RecordReader reader(bytes);
  std::uint64_t there = 0, told = 0;
  while (reader.next()) ++there;
  if (!tracker) return 0;
  std::vector<std::byte> before;
  for (const Asid asid : (*tracker)->address_spaces()) {
    ProcessIdentity process;
    process.asid = asid;
    if (!(*tracker)->attach(process)) std::abort();
    ScanRequest request;
    request.asid = asid;
    for (;;) {
      const bool more = (*tracker)->next_pass(asid).has_value();
      std::vector<std::byte> pass;
      const auto stats = (*tracker)->scan(request, [&](std::span<const std::byte> records) {
        pass.insert(pass.end(), records.begin(), records.end());
      });
      if (stats.has_value() != more) std::abort();
      if (!stats) break;
      if (stats->records == 0 || stats->bytes != pass.size()) std::abort();
      told += stats->records;
      RecordHeader header;
      header.asid = asid;
      std::uint64_t sequence = 0;
      ScanStats merged;
      std::vector<std::byte> out;
      if (!merge_records(before, pass, header, sequence, merged, out)) std::abort();
      RecordReader result(out);
      while (result.next()) {
      }
      if (result.error()) std::abort();
      before = std::move(pass);
    }
  }
  if (told != there) std::abort();
  return 0;
}
