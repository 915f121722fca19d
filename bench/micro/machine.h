// SPDX-License-Identifier: Apache-2.0
// What every result needs beside it: the limits of this machine, and a load of 100 M pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "heat/heat_map.h"
#include "tracking/record.h"

namespace thermocline::bench {

/// 382 GiB in 4 KiB pages.
inline constexpr std::uint64_t kBlocks = 195313;
inline constexpr std::uint64_t kPages = kBlocks * kBlockEntries;

/// The records of one window over kPages pages as the module would write them, one a page table.
/// Three blocks in ten are on node 0, six on node 1, one is mixed in eight runs; in one block of
/// `active_of_ten` tenths a fifth of the pages, drawn at random, is accessed, in the others none.
[[nodiscard]] const std::vector<std::byte>& window_records(int active_of_ten);

/// Resident memory of this process now, in bytes.
[[nodiscard]] std::size_t resident_bytes();

}  // namespace thermocline::bench
