// SPDX-License-Identifier: Apache-2.0
#include "tracking/ring_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

namespace thermocline {

namespace {

/// Copied at a time: stays in the second-level cache between the copy and its reading.
constexpr std::size_t kChunk = 128 * 1024;

/// What every frame begins with.
struct FrameHead {
  std::uint32_t magic;
  std::uint16_t version, header_size;
  std::uint32_t size, flags;
};
constexpr std::size_t kHeadBytes = sizeof(FrameHead);
static_assert(kHeadBytes == 16);
/// The largest record there can be, with room for what a later version may add to it.
constexpr std::uint32_t kLargestFrame = 64 * 1024;
static_assert(kLargestFrame < kChunk);

}  // namespace

RingReader::RingReader(std::span<std::byte> mapping, std::uint64_t data_bytes)
    : mapping_(mapping),
      data_bytes_(data_bytes),
      copy_(std::min<std::uint64_t>(kChunk, data_bytes)) {}

Result<RingReader> RingReader::open(std::span<std::byte> mapping) {
  thermocline_ring_header header{};
  if (mapping.size() < sizeof(header)) return fail(ErrorKind::kCorrupt, "the ring has no header");
  std::memcpy(&header, mapping.data(), sizeof(header));
  // The data, twice, is what follows the header page.
  if (!std::has_single_bit(header.data_bytes) || header.data_bytes < THERMOCLINE_RING_MIN_BYTES ||
      header.data_bytes > THERMOCLINE_RING_MAX_BYTES ||
      header.data_offset != mapping.size() - 2 * header.data_bytes ||
      header.data_offset < sizeof(header) || header.data_offset > mapping.size())
    return fail(ErrorKind::kCorrupt, "the ring's header doesn't describe its {} bytes",
                mapping.size());
  return RingReader(mapping, header.data_bytes);
}

std::uint64_t RingReader::load_produced() const {
  std::uint64_t produced = 0;
  const auto* at = reinterpret_cast<const std::uint64_t*>(
      mapping_.data() + offsetof(thermocline_ring_header, produced));
  __atomic_load(at, &produced, __ATOMIC_ACQUIRE);
  return produced;
}

void RingReader::store_consumed(std::uint64_t position) {
  consumed_ = position;
  auto* at = reinterpret_cast<std::uint64_t*>(mapping_.data() +
                                              offsetof(thermocline_ring_header, consumed));
  __atomic_store(at, &position, __ATOMIC_RELEASE);
}

Result<std::size_t> RingReader::hand_on(std::size_t bytes, const OnRecords& on_records,
                                        const OnMark& on_mark) const {
  const std::span<const std::byte> all = std::span(copy_).first(bytes);
  std::size_t at = 0, records_from = 0;
  const auto flush_records = [&] {
    if (at > records_from) on_records(all.subspan(records_from, at - records_from));
  };
  while (bytes - at >= kHeadBytes) {
    FrameHead head{};
    std::memcpy(&head, all.data() + at, sizeof(head));
    if (head.size < kHeadBytes || head.size % 8 != 0 || head.size > kLargestFrame) {
      flush_records();
      return fail(ErrorKind::kCorrupt, "the ring holds a frame of {} bytes", head.size);
    }
    if (head.size > bytes - at) break;
    if (head.magic == THERMOCLINE_MARK_MAGIC) {
      flush_records();
      thermocline_mark mark{};
      if (head.version != THERMOCLINE_MARK_VERSION || head.size < sizeof(mark))
        return fail(ErrorKind::kCorrupt, "the ring holds a mark of version {} with {} bytes",
                    head.version, head.size);
      std::memcpy(&mark, all.data() + at, sizeof(mark));
      on_mark(mark);
      records_from = at + head.size;
    }
    at += head.size;
  }
  flush_records();
  return at;
}

Status RingReader::drain(const OnRecords& on_records, const OnMark& on_mark) {
  const std::byte* data = mapping_.data() + (mapping_.size() - 2 * data_bytes_);
  const std::uint64_t produced = load_produced();
  if (produced - consumed_ > data_bytes_) {
    store_consumed(produced);
    return fail(ErrorKind::kCorrupt, "the ring's position is not a possible one");
  }
  while (consumed_ != produced) {
    const auto bytes =
        static_cast<std::size_t>(std::min<std::uint64_t>(copy_.size(), produced - consumed_));
    std::memcpy(copy_.data(), data + consumed_ % data_bytes_, bytes);
    const Result<std::size_t> whole = hand_on(bytes, on_records, on_mark);
    if (!whole || *whole == 0) {
      store_consumed(produced);
      if (!whole) return tl::make_unexpected(whole.error());
      return fail(ErrorKind::kCorrupt, "the ring ends in the middle of a frame");
    }
    store_consumed(consumed_ + *whole);
  }
  return {};
}

}  // namespace thermocline
