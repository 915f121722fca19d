// SPDX-License-Identifier: Apache-2.0
// A trace file (.tct), byte by byte: docs/trace-format.md in C++. Internal to this layer.
//
//   header │ frame │ frame │ … │ index frame │ end mark
//
// All numbers are little-endian. A frame is a head and zstd-compressed content: what is told of the
// recording (JSON), records (kmod/uapi/thermocline.h), or the index. Checksums are XXH64, seed 0.
// The index and the end mark are there when a recording ended in order; without them the frames are
// found by walking from head to head.
#pragma once

#include <xxhash.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thermocline::trace {

static_assert(std::endian::native == std::endian::little,
              "traces are little-endian and read in place");

/// The first byte is no ASCII, so no text file begins so; the line ends show when a transfer
/// rewrote them.
inline constexpr unsigned char kMagic[8] = {0x89, 'T', 'C', 'T', '\r', '\n', 0x1a, '\n'};
inline constexpr std::uint32_t kByteOrder = 0x01020304;
inline constexpr std::uint16_t kVersion = 1;
inline constexpr std::uint32_t kFrameMagic = 0x46544354;  // "TCTF"
inline constexpr std::uint32_t kEndMagic = 0x45544354;    // "TCTE"

struct FileHeader {
  unsigned char magic[8];
  std::uint32_t byte_order;
  std::uint16_t version;
  std::uint16_t header_size;
  std::uint32_t flags;           ///< 0
  std::uint32_t record_version;  ///< THERMOCLINE_RECORD_VERSION
  std::uint64_t created_ns;      ///< CLOCK_REALTIME
  std::uint64_t reserved[3];     ///< 0
  std::uint64_t checksum;        ///< of the bytes before it
};
static_assert(sizeof(FileHeader) == 64);

enum class FrameKind : std::uint16_t { kInfo = 1, kRecords = 2, kIndex = 3 };

struct FrameHead {
  std::uint32_t magic;
  std::uint16_t kind;  ///< FrameKind; a reader passes over kinds that it doesn't know
  std::uint16_t head_size;
  std::uint32_t stored_size;   ///< bytes behind the head
  std::uint32_t content_size;  ///< of these, decompressed
  std::uint32_t records;       ///< records in it; index: entries; else 0
  std::uint32_t flags;         ///< 0
  std::int64_t first_ns;       ///< scan_ns of its first record and
  std::int64_t last_ns;        ///< of its last one; 0 when it holds none
  std::uint64_t checksum;      ///< of the stored bytes, its seed that of the head before it
};
static_assert(sizeof(FrameHead) == 48);

[[nodiscard]] inline std::uint64_t frame_checksum(const FrameHead& head,
                                                  std::span<const std::byte> stored) {
  return XXH64(stored.data(), stored.size(), XXH64(&head, offsetof(FrameHead, checksum), 0));
}

struct IndexEntry {
  std::uint64_t offset;  ///< of the frame's head
  std::uint32_t stored_size;
  std::uint32_t content_size;
  std::uint32_t records;
  std::uint16_t kind;
  std::uint16_t reserved;  ///< 0
  std::int64_t first_ns;
  std::int64_t last_ns;
};
static_assert(sizeof(IndexEntry) == 40);

struct EndMark {
  std::uint32_t magic;
  std::uint32_t size;  ///< of this
  std::uint64_t index_offset;
  std::uint64_t checksum;  ///< of the bytes before it
};
static_assert(sizeof(EndMark) == 24);

/// Of a frame, decompressed: a reader needs no more memory than this and its compressed form.
inline constexpr std::uint32_t kMaxContent = 4u << 20;
inline constexpr std::uint32_t kMaxInfo = 1u << 20;
/// Of an index. It can't have more entries than the file has room for frames, either.
inline constexpr std::uint32_t kMaxIndex = 256u << 20;

}  // namespace thermocline::trace
