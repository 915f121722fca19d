// SPDX-License-Identifier: Apache-2.0
// Reads /proc/PID/maps, smaps and pagemap. All three hold what another user's process wanted to be
// there (names with any bytes in them), so they are read as untrusted input.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline {

/// A line of /proc/PID/maps.
struct Mapping {
  Vpn first, end;  ///< pages [first, end)
  bool shared = false;
  bool file = false;  ///< of a file or shared memory: has an inode
  bool writable = false, executable = false;
  PageCount offset;  ///< of `first` in the file
  /// Which file that is; 0 = none. `name` is a hash of its name: numbers alone don't tell files
  /// apart where several kinds share a device (memfd and System V) or volumes share one (btrfs).
  std::uint64_t device = 0, inode = 0, name = 0;
  bool sysv = false;  ///< memory of shmget(2): `inode` is an id of the process's IPC name space
  bool operator==(const Mapping&) const = default;
};

/// What smaps adds. Sums over the pages that are mapped now; swap doesn't count.
struct MappingUse {
  Mapping mapping;
  Bytes resident, referenced;
  bool unscannable = false;  ///< VmFlags ht, pf, io or mm: hugetlbfs, devices
};

/// One entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
struct PagemapEntry {
  bool present = false;
  bool soft_dirty = false;  ///< written since clear_refs "4", or of a mapping made since
  bool exclusive = false;   ///< this process maps it, nobody else; false for the zero page too
  std::uint64_t pfn = 0;    ///< 0 for users who may not know
};

/// By rising address. kCorrupt, with the line's number, for anything but lines as the kernel writes
/// them: bad numbers, no or overlapping pages, addresses beyond 57 bits.
[[nodiscard]] Result<std::vector<Mapping>> parse_maps(std::string_view text);
/// As parse_maps(). Keys that aren't known are skipped; kCorrupt when Rss or Referenced is missing,
/// or is more than the mapping can hold.
[[nodiscard]] Result<std::vector<MappingUse>> parse_smaps(std::string_view text);
[[nodiscard]] PagemapEntry parse_pagemap(std::uint64_t entry);

}  // namespace thermocline
