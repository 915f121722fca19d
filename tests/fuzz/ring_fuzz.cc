// SPDX-License-Identifier: Apache-2.0
// Bytes as what stands in the module's ring, published in parts: whatever they are, the reader
// stays inside the mapping, takes out what it was given, and hands on whole frames in their order.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "tracking/record.h"
#include "tracking/ring_reader.h"

namespace {

using namespace thermocline;

constexpr std::size_t kPage = 4096;
constexpr std::uint64_t kData = THERMOCLINE_RING_MIN_BYTES;

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static std::vector<std::uint64_t> memory((kPage + 2 * kData) / sizeof(std::uint64_t));
  const std::span<std::byte> mapping = std::as_writable_bytes(std::span(memory));
  auto* header = reinterpret_cast<thermocline_ring_header*>(mapping.data());
  *header = {};
  // The first byte says whether the header is good; the second, in how many parts the rest comes.
  if (size < 2) return 0;
  header->data_offset = kPage;
  header->data_bytes = kData;
  if (data[0] == 0xff) std::memcpy(header, data, std::min(size, sizeof(*header)));
  auto reader = RingReader::open(mapping);
  if (!reader) return 0;
  require(header->data_offset == kPage && header->data_bytes == kData);
  *header = {};
  header->data_offset = kPage;
  header->data_bytes = kData;
  std::span<const std::uint8_t> rest(data + 2, size - 2);
  const std::size_t part = std::max<std::size_t>(1, rest.size() / (data[1] + std::size_t{1}));
  std::uint64_t handed_on = 0;
  while (!rest.empty()) {
    for (const std::uint8_t byte : rest.first(std::min({part, rest.size(), std::size_t{kData}}))) {
      const std::uint64_t at = header->produced++ % kData;
      mapping[kPage + at] = mapping[kPage + kData + at] = std::byte{byte};
    }
    rest = rest.subspan(std::min({part, rest.size(), std::size_t{kData}}));
    const Status drained = reader->drain(
        [&](std::span<const std::byte> bytes) {
          require(!bytes.empty() && bytes.size() % 8 == 0);
          handed_on += bytes.size();
          RecordReader records(bytes);
          while (records.next()) {
          }
        },
        [&](const thermocline_mark& mark) { handed_on += mark.size; });
    require(header->consumed == header->produced);
    require(handed_on <= header->produced);
    // Without an error, all of it was handed on.
    if (!drained) handed_on = header->produced;
    require(handed_on == header->produced);
  }
  return 0;
}
