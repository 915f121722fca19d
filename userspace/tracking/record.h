// SPDX-License-Identifier: Apache-2.0
// Access records: build them, and read them as untrusted input.
// The layout is kmod/uapi/thermocline.h; this file is the only one in user space that knows it.
// Trackers without the module write with RecordWriter; everything reads with RecordReader.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline {

/// One of a record's four bitmaps. Does not own its words; valid as long as the record's bytes.
class RecordMap {
 public:
  RecordMap() = default;
  static RecordMap zeros(std::uint32_t count) { return {count, 0, nullptr}; }
  static RecordMap ones(std::uint32_t count) { return {count, ~std::uint64_t{0}, nullptr}; }
  /// `words` points to ceil(count / 64) little-endian words, not necessarily aligned.
  static RecordMap bits(std::uint32_t count, const std::byte* words) { return {count, 0, words}; }

  /// 64 entries' bits; bits past the record's count are 0. w < words().
  [[nodiscard]] std::uint64_t word(std::uint32_t w) const {
    std::uint64_t value = fill_;
    if (words_ != nullptr) __builtin_memcpy(&value, words_ + std::size_t{w} * 8, 8);
    const std::uint32_t left = count_ - w * 64;
    return left >= 64 ? value : value & ((std::uint64_t{1} << left) - 1);
  }
  [[nodiscard]] std::uint32_t words() const { return (count_ + 63) / 64; }
  [[nodiscard]] bool test(std::uint32_t i) const { return ((word(i / 64) >> (i % 64)) & 1) != 0; }
  [[nodiscard]] std::uint32_t population() const;
  /// Stored as "all zeros": a reader may skip it.
  [[nodiscard]] bool is_zeros() const { return words_ == nullptr && fill_ == 0; }
  /// Stored as "all ones": a reader may skip it, too.
  [[nodiscard]] bool is_ones() const { return words_ == nullptr && fill_ != 0; }
  /// Copies out.size() words from word `first` on, whose 64 bits each are of entries.
  void copy_words(std::uint32_t first, std::span<std::uint64_t> out) const {
    if (words_ == nullptr)
      std::fill(out.begin(), out.end(), fill_);
    else
      __builtin_memcpy(out.data(), words_ + std::size_t{first} * 8, out.size_bytes());
  }

 private:
  RecordMap(std::uint32_t count, std::uint64_t fill, const std::byte* words)
      : count_(count), fill_(fill), words_(words) {}
  std::uint32_t count_ = 0;
  std::uint64_t fill_ = 0;
  const std::byte* words_ = nullptr;
};

/// Entries in a row on one node; node is nullopt for entries that are not present or not known.
struct NodeRun {
  std::optional<NodeId> node;
  std::uint32_t count = 0;
};

/// THERMOCLINE_NODE_NONE.
inline constexpr std::uint16_t kNoNode = 0xffff;

/// A validated record. Does not own its bytes.
struct RecordView {
  Asid asid;
  Epoch epoch;
  std::uint64_t sequence = 0;
  Nanoseconds scan_time{};  ///< CLOCK_MONOTONIC
  Nanoseconds window{};     ///< 0 = not known
  bool cleared = false;
  bool writes_only = false;
  /// Nothing of these pages was accessed in the window; nothing else was looked at. What is known
  /// of them stays: all maps are zeros, and there are no node runs.
  bool idle = false;
  /// Other processes map some of these pages, too; only what this one did with them is told.
  bool shared = false;
  Vpn first;
  std::uint32_t count = 0;  ///< entries of `order`
  PageOrder order;
  RecordMap present, observable, accessed, dirty;
  std::uint32_t node_run_count = 0;
  const std::byte* node_runs = nullptr;
  std::size_t size = 0;  ///< bytes that it takes

  /// i < node_run_count.
  [[nodiscard]] NodeRun node_run(std::uint32_t i) const {
    std::uint16_t raw[2];  // as thermocline_node_run
    __builtin_memcpy(raw, node_runs + std::size_t{i} * sizeof(raw), sizeof(raw));
    NodeRun run;
    if (raw[0] != kNoNode) run.node = NodeId(raw[0]);
    run.count = raw[1];
    return run;
  }
  [[nodiscard]] PageCount pages() const { return PageCount(std::uint64_t{count} << order.get()); }
};

/// Reads a sequence of records. Stops at the first byte that isn't one: error() then says which
/// offset and why (kCorrupt). Never reads past `bytes`, whatever they hold.
class RecordReader {
 public:
  explicit RecordReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  /// Next record, or nullopt at the end or at an error.
  [[nodiscard]] std::optional<RecordView> next();
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }
  /// Bytes consumed by whole, valid records. What is left may be the start of a record that was
  /// cut.
  [[nodiscard]] std::size_t offset() const { return offset_; }
  /// The error is only that the last record isn't complete (a stream may bring the rest).
  [[nodiscard]] bool truncated() const { return truncated_; }

 private:
  /// Reads the record at offset_ and goes past it; false: error() says why not.
  bool read(RecordView& view);
  bool refuse(std::string_view why);
  std::span<const std::byte> bytes_;
  std::size_t offset_ = 0;
  std::optional<Error> error_;
  bool truncated_ = false;
};

/// What a source knows of one entry when it builds a record.
struct EntryObservation {
  std::optional<NodeId> node;
  bool present = false;
  bool observable = false;
  bool accessed = false;
  bool dirty = false;
};

/// The entries of a record, one by one.
[[nodiscard]] std::vector<EntryObservation> entries_of(const RecordView& record);

/// Header fields common to the records of one scan.
struct RecordHeader {
  Asid asid;
  Epoch epoch;
  Nanoseconds scan_time{};
  Nanoseconds window{};
  bool cleared = false;
  bool writes_only = false;
  bool shared = false;
};

/// The four maps of a record as words, 64 entries each; bits past the count are 0. What is not
/// present has no other bit.
struct RecordMaps {
  std::span<const std::uint64_t> present, observable, accessed, dirty;
};

/// Builds records in the canonical form (uniform maps are not stored) into a byte vector.
class RecordWriter {
 public:
  explicit RecordWriter(std::vector<std::byte>& out) : out_(out) {}
  /// Appends one record. 1 <= entries.size() <= THERMOCLINE_RECORD_MAX_ENTRIES, first aligned.
  void append(const RecordHeader& header, std::uint64_t sequence, Vpn first, PageOrder order,
              std::span<const EntryObservation> entries);
  /// The same from maps; `runs` tell the nodes of all `count` entries.
  void append(const RecordHeader& header, std::uint64_t sequence, Vpn first, PageOrder order,
              std::uint32_t count, const RecordMaps& maps, std::span<const NodeRun> runs);
  /// Appends an idle record of `count` entries, 1..THERMOCLINE_RECORD_MAX_ENTRIES; first aligned.
  void append_idle(const RecordHeader& header, std::uint64_t sequence, Vpn first, PageOrder order,
                   std::uint32_t count);

 private:
  std::vector<std::byte>& out_;
};

}  // namespace thermocline
