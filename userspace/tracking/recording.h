// SPDX-License-Identifier: Apache-2.0
// Access records that were kept, one after the other: which of them are of one pass over an address
// space.
#pragma once

#include <cstddef>
#include <map>
#include <span>

#include "base/result.h"
#include "tracking/record.h"

namespace thermocline {

/// Calls `take(record, number of its pass)` for every record; passes count from 0, over all address
/// spaces. Records of one address space come in address order within a pass, so going back, or
/// another epoch, is a new one. kCorrupt for bytes that are no records; a last record that is cut
/// off, as a killed writer leaves it, is not.
template <class Take>
Status for_each_record(std::span<const std::byte> bytes, Take take) {
  struct Position {
    std::size_t pass = 0;
    Epoch epoch;
    Vpn end;
  };
  std::map<Asid, Position> positions;
  std::size_t passes = 0;
  RecordReader reader(bytes);
  while (const auto record = reader.next()) {
    auto [it, is_new] = positions.try_emplace(record->asid);
    Position& position = it->second;
    if (is_new || record->epoch != position.epoch || record->first < position.end)
      position.pass = passes++;
    position.epoch = record->epoch;
    position.end = record->first + record->pages();
    take(*record, position.pass);
  }
  if (reader.error() && !reader.truncated()) return tl::make_unexpected(*reader.error());
  return {};
}

}  // namespace thermocline
