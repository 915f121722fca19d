// SPDX-License-Identifier: Apache-2.0
// Access records that were kept, wherever they lie: a file of plain records, or a trace
// (trace/trace_reader.h). Read by the tracker `replay`, by reports and by the oracle. The bytes are
// untrusted.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"

namespace thermocline {

/// Records in pieces that are read one by one, so that memory is bounded by the largest piece.
class RecordSource {
 public:
  virtual ~RecordSource() = default;
  [[nodiscard]] virtual std::size_t pieces() const = 0;
  /// Whole records, in the order in which they were made; of the last piece the last one may be cut
  /// off. Valid until the next call. kCorrupt for bytes that were changed since they were written.
  [[nodiscard]] virtual Result<std::span<const std::byte>> piece(std::size_t number) = 0;
};

/// Records in memory, as one piece.
class MemoryRecords final : public RecordSource {
 public:
  explicit MemoryRecords(std::vector<std::byte> records) : records_(std::move(records)) {}
  [[nodiscard]] std::size_t pieces() const override { return 1; }
  [[nodiscard]] Result<std::span<const std::byte>> piece(std::size_t) override {
    return std::span<const std::byte>(records_);
  }

 private:
  std::vector<std::byte> records_;
};

}  // namespace thermocline
