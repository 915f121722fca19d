// SPDX-License-Identifier: Apache-2.0
#include "tracking/damon_events.h"

#include <linux/perf_event.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>

#include "base/text.h"

namespace thermocline {

namespace {

/// In the order of DamonEventFormat::fields_.
constexpr std::array<std::string_view, 6> kNames{"target_id", "nr_regions",  "start",
                                                 "end",       "nr_accesses", "age"};
constexpr std::uint64_t kMaxAddress = std::uint64_t{1} << 57;
constexpr std::uint64_t kMaxEvent = 4096;

/// The number in "key:NUMBER" of a part of a line, such as "offset:8".
std::optional<std::uint64_t> number_of(std::string_view part, std::string_view key) {
  part = trim(part);
  if (!part.starts_with(key)) return std::nullopt;
  const auto number = parse_u64(part.substr(key.size()));
  return number ? std::optional(*number) : std::nullopt;
}

}  // namespace

// A line of the file:   field:unsigned long target_id;  offset:8;  size:8;  signed:0;
Result<DamonEventFormat> DamonEventFormat::parse(std::string_view text) {
  DamonEventFormat format;
  for (const std::string_view line : split(text, '\n')) {
    const auto parts = split(trim(line), ';');
    if (parts.size() < 3 || !parts[0].starts_with("field:")) continue;
    const auto declared = words(parts[0].substr(6));
    const auto at =
        declared.empty() ? kNames.end() : std::find(kNames.begin(), kNames.end(), declared.back());
    if (at == kNames.end()) continue;
    const auto offset = number_of(parts[1], "offset:"), size = number_of(parts[2], "size:");
    if (!offset || !size || (*size != 4 && *size != 8) || *offset > kMaxEvent - *size)
      return fail(ErrorKind::kCorrupt, "the tracepoint damon_aggregated has an odd field: {}",
                  printable(line));
    format.fields_[at - kNames.begin()] = {*offset, *size};
    format.bytes_ = std::max(format.bytes_, static_cast<std::size_t>(*offset + *size));
  }
  for (std::size_t i = 0; i < kFields; ++i)
    if (format.fields_[i].size == 0)
      return fail(ErrorKind::kCorrupt,
                  "the tracepoint damon_aggregated of this kernel has no field {}", kNames[i]);
  return format;
}

std::uint64_t DamonEventFormat::value(std::span<const std::byte> raw, std::size_t field) const {
  std::uint64_t value = 0;  // little-endian, as all that this runs on
  std::memcpy(&value, raw.data() + fields_[field].offset, fields_[field].size);
  return value;
}

std::optional<DamonRegion> DamonEventFormat::region(std::span<const std::byte> raw) const {
  if (raw.size() < bytes_) return std::nullopt;
  const std::uint64_t start = value(raw, 2), end = value(raw, 3);
  if (start >= end || end > kMaxAddress) return std::nullopt;
  DamonRegion region;
  region.target = value(raw, 0);
  region.regions = static_cast<std::uint32_t>(value(raw, 1));
  region.first = Vpn::of_address(start);
  region.end = Vpn::of_address(end);
  region.accesses = static_cast<std::uint32_t>(value(raw, 4));
  region.aggregations = static_cast<std::uint32_t>(value(raw, 5));
  if (region.first >= region.end) return std::nullopt;
  return region;
}

Result<PerfRing> PerfRing::open(std::span<std::byte> mapping) {
  if (mapping.size() < 2 * kPageSize || !std::has_single_bit(mapping.size() - kPageSize))
    return fail(ErrorKind::kCorrupt, "{} bytes are no ring of perf events", mapping.size());
  return PerfRing(mapping);
}

bool PerfRing::drain(const OnSample& on_sample) {
  auto* page = reinterpret_cast<perf_event_mmap_page*>(mapping_.data());
  const auto data = mapping_.subspan(kPageSize);
  const std::uint64_t head = std::atomic_ref(page->data_head).load(std::memory_order_acquire);
  bool lost = head - taken_ > data.size() || head % 8 != 0;
  while (!lost && taken_ < head) {
    const auto take = [&](std::byte* to, std::uint64_t at, std::size_t n) {
      if (n == 0) return;  // a record that is all header; `to` may be null then
      const std::size_t from = at % data.size(), first = std::min(n, data.size() - from);
      std::memcpy(to, data.data() + from, first);
      std::memcpy(to + first, data.data(), n - first);
    };
    perf_event_header header;
    take(reinterpret_cast<std::byte*>(&header), taken_, sizeof(header));
    if (header.size < sizeof(header) || header.size % 8 != 0 || header.size > head - taken_) {
      lost = true;
      break;
    }
    copy_.resize(header.size - sizeof(header));
    take(copy_.data(), taken_ + sizeof(header), copy_.size());
    taken_ += header.size;
    if (header.type == PERF_RECORD_LOST) lost = true;
    // PERF_SAMPLE_TIME and PERF_SAMPLE_RAW: the time, the number of bytes, the bytes.
    std::uint64_t time = 0;
    std::uint32_t bytes = 0;
    if (header.type != PERF_RECORD_SAMPLE || copy_.size() < sizeof(time) + sizeof(bytes)) {
      if (lost) break;
      continue;
    }
    std::memcpy(&time, copy_.data(), sizeof(time));
    std::memcpy(&bytes, copy_.data() + sizeof(time), sizeof(bytes));
    const auto raw = std::span<const std::byte>(copy_).subspan(sizeof(time) + sizeof(bytes));
    if (bytes <= raw.size())
      on_sample(Nanoseconds(static_cast<std::int64_t>(time)), raw.first(bytes));
  }
  // After a loss the rest is of no use: it would be taken for a whole aggregation.
  if (lost) taken_ = head;
  std::atomic_ref(page->data_tail).store(taken_, std::memory_order_release);
  return lost;
}

}  // namespace thermocline
