// SPDX-License-Identifier: Apache-2.0
// Access records that were kept, one after the other: which of them are of one pass over an address
// space.
#pragma once

#include <cstddef>
#include <map>
#include <span>

#include "base/result.h"
#include "tracking/record.h"
#include "tracking/record_source.h"

namespace thermocline {

/// Numbers the passes, from 0 over all address spaces. Records of one address space come in address
/// order within a pass, so going back, or another epoch, is a new one.
class PassNumbers {
 public:
  [[nodiscard]] std::size_t of(const RecordView& record) {
    auto [it, is_new] = positions_.try_emplace(record.asid);
    Position& position = it->second;
    if (is_new || record.epoch != position.epoch || record.first < position.end)
      position.pass = passes_++;
    position.epoch = record.epoch;
    position.end = record.first + record.pages();
    return position.pass;
  }

 private:
  struct Position {
    std::size_t pass = 0;
    Epoch epoch;
    Vpn end;
  };
  std::map<Asid, Position> positions_;
  std::size_t passes_ = 0;
};

/// Where a record stands.
struct RecordPlace {
  std::size_t pass = 0;   ///< number of its pass
  std::size_t piece = 0;  ///< of the source
  std::size_t offset = 0;
};

/// Calls `take(record, place)` for every record. kCorrupt for bytes that are no records; a last
/// record that is cut off, as a killed writer leaves it, is not.
template <class Take>
Status for_each_record(RecordSource& source, Take take) {
  PassNumbers numbers;
  for (std::size_t piece = 0; piece < source.pieces(); ++piece) {
    TC_ASSIGN(const auto bytes, source.piece(piece));
    RecordReader reader(bytes);
    for (std::size_t offset = 0; const auto record = reader.next(); offset = reader.offset())
      take(*record, RecordPlace{numbers.of(*record), piece, offset});
    const bool last = piece + 1 == source.pieces();
    if (reader.error() && !(last && reader.truncated()))
      return tl::make_unexpected(*reader.error());
  }
  return {};
}

}  // namespace thermocline
