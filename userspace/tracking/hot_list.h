// SPDX-License-Identifier: Apache-2.0
// What a hotness-monitoring unit of a CXL device tells (CXL 3.2, CHMU): the units of its memory
// that were accessed most in an epoch, with counts. Here as a text that a stand-in writes:
//
//   thermocline-hot-list 1      the format, and its version
//   epoch 17                    of the device; another number is another list
//   unit_bytes 4096             256 to 4096, a power of two: what is counted together
//   base 4294967296             where the host sees the device's first byte, a multiple of a page
//   units 262144                that the device has
//   threshold 64                counts below it are not listed; at least 1
//   overflow 0                  1: there were more hot units than the list holds
//   hot 5 970                   unit, count: any number of these, each unit once
//
// The keys stand in this order. A device counts by its own addresses; the stand-in's are not
// interleaved, so one base is enough.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline {

struct HotList {
  struct Unit {
    std::uint64_t number = 0, count = 0;
  };
  std::uint64_t epoch = 0;
  Bytes unit_size;
  std::uint64_t first_frame = 0, frames = 0;  ///< page frames of the device, whole ones
  std::uint64_t threshold = 1;
  bool overflow = false;
  std::vector<Unit> hot;

  /// What isn't listed was not accessed at all.
  [[nodiscard]] bool complete() const { return threshold <= 1 && !overflow; }
  /// Page frames with a hot unit, sorted, each once.
  [[nodiscard]] std::vector<std::uint64_t> hot_frames() const;
};

/// kCorrupt, with the number of the line, for anything but such a text.
[[nodiscard]] Result<HotList> parse_hot_list(std::string_view text);

}  // namespace thermocline
