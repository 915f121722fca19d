// SPDX-License-Identifier: Apache-2.0
// What was changed on the machine and how it was before, written down before each change, so that
// whoever comes after a sudden death can put it back. Kept in kStandInPath, on a file system that a
// restart of the machine empties, as it undoes the changes themselves.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "topology/stand_in.h"

namespace thermocline::numa_remote {

/// /sys/devices/system/memory/memoryN, to be online again in the zone where it was.
struct OfflinedBlock {
  unsigned number = 0;
  bool movable = false;

  friend bool operator==(const OfflinedBlock&, const OfflinedBlock&) = default;
};

/// 2 MiB pages that hold memory of the fast node back.
struct HeldPages {
  std::uint64_t before = 0;  ///< nr_hugepages of the node
  std::uint64_t added = 0;   ///< on top, or what was asked for

  friend bool operator==(const HeldPages&, const HeldPages&) = default;
};

struct Journal {
  StandIn who;
  std::vector<OfflinedBlock> blocks;
  std::optional<HeldPages> held;
  std::string group;             ///< folder of the command's cgroup; empty: none was made
  std::string group_back;        ///< folder of the cgroup that what is left in it goes to
  bool enabled_cpusets = false;  ///< in the root's cgroup.subtree_control
  /// vm.min_free_kbytes, which the kernel works out anew with every block.
  std::optional<std::uint64_t> min_free_kib;

  friend bool operator==(const Journal&, const Journal&) = default;
};

[[nodiscard]] std::string journal_text(const Journal& journal);
/// kCorrupt for anything that journal_text() doesn't write: what it names is going to be written
/// to.
[[nodiscard]] Result<Journal> parse_journal(const std::string& text);

inline constexpr const char* kMinFreePath = "/proc/sys/vm/min_free_kbytes";

/// The folder of node N's pool of 2 MiB pages, and of a memory block.
[[nodiscard]] std::string pool_path(NodeId node);
[[nodiscard]] std::string block_path(unsigned number);

/// Puts everything back, whatever part of it was done. Returns what could not be, a sentence each.
[[nodiscard]] std::vector<std::string> put_back(System& system, const Journal& journal);

}  // namespace thermocline::numa_remote
