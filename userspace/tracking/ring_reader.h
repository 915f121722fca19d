// SPDX-License-Identifier: Apache-2.0
// Reads the ring that thermocline.ko's thread publishes in (struct thermocline_ring_header).
// The mapping may be written by whoever shares it, so nothing in it is believed twice: the frames
// are copied out first, then looked at, and the bytes of records go to RecordReader like any
// others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "uapi/thermocline.h"

namespace thermocline {

class RingReader {
 public:
  /// Whole records in a row, not yet validated; valid in the call.
  using OnRecords = std::function<void(std::span<const std::byte>)>;
  using OnMark = std::function<void(const thermocline_mark&)>;

  /// `mapping` is what mmap(2) gave, and stays longer than the reader. kCorrupt when its header
  /// doesn't describe it.
  [[nodiscard]] static Result<RingReader> open(std::span<std::byte> mapping);

  /// Takes out what is there and hands it on in its order. kCorrupt when something isn't a frame;
  /// what is in the ring then is passed over, and the sequence numbers of later records tell the
  /// loss.
  [[nodiscard]] Status drain(const OnRecords& on_records, const OnMark& on_mark);

 private:
  RingReader(std::span<std::byte> mapping, std::uint64_t data_bytes);
  [[nodiscard]] std::uint64_t load_produced() const;
  void store_consumed(std::uint64_t position);
  /// Frames at the begin of copy_, which came from `position`; the bytes that were whole ones.
  Result<std::size_t> hand_on(std::size_t bytes, const OnRecords& on_records,
                              const OnMark& on_mark) const;

  std::span<std::byte> mapping_;
  std::uint64_t data_bytes_;
  std::uint64_t consumed_ = 0;
  std::vector<std::byte> copy_;
};

}  // namespace thermocline
