// SPDX-License-Identifier: Apache-2.0
// What the 512 entries of an x86-64 table page of 4 KiB entries say, as bitmaps.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tracking/page_table_reader.h"

namespace thermocline {

/// arch/x86/include/asm/pgtable_types.h
namespace pte {
inline constexpr std::uint64_t kPresent = 1u << 0, kWrite = 1u << 1, kAccessed = 1u << 5,
                               kDirty = 1u << 6, kLeaf = 1u << 7, kProtNone = 1u << 8,
                               kSpecial = 1u << 9;
/// Present for the program: mapped, or kept with PROT_NONE (NUMA hints, mprotect).
[[nodiscard]] constexpr bool present(std::uint64_t entry) {
  return (entry & (kPresent | kProtNone)) != 0;
}
/// Page frame of a present entry. Those of PROT_NONE are stored inverted (against L1TF).
[[nodiscard]] constexpr std::uint64_t pfn(std::uint64_t entry) {
  constexpr std::uint64_t kFrame = 0x000ffffffffff000;
  return (((entry & kPresent) == 0 ? ~entry : entry) & kFrame) >> kPageShift;
}
}  // namespace pte

using TableMap = std::array<std::uint64_t, kTableEntries / 64>;

struct TableBits {
  TableMap present{}, accessed{}, dirty{};  ///< of what is not present, only present counts
  TableMap special{};  ///< no page of its own behind it: the zero page, device memory
  TableMap near{};     ///< present to the CPU, with a page frame in [first, end)
};

/// By the fastest way that this processor has.
[[nodiscard]] TableBits read_table(std::span<const std::uint64_t, kTableEntries> entries,
                                   std::uint64_t first_pfn, std::uint64_t end_pfn);

/// The ways that work on this processor, slowest first; "scalar" is what tests hold the others
/// against.
struct TableReading {
  std::string_view name;
  TableBits (*read)(std::span<const std::uint64_t, kTableEntries>, std::uint64_t, std::uint64_t);
};
[[nodiscard]] std::vector<TableReading> table_readings();

}  // namespace thermocline
