// SPDX-License-Identifier: Apache-2.0
// Reads the page tables of other processes as they lie in memory, without the module. What the bpf
// tracker is built on; tests hand in tables of their own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"

namespace thermocline {

/// One area of an address space (a line of /proc/PID/maps), as far as it matters here.
struct MemoryArea {
  Vpn first, end;  ///< pages [first, end)
  /// Huge pages of hugetlbfs, device memory, or page frames without a struct page: not for us.
  bool unscannable = false;
  bool file = false;    ///< maps a file or shared memory: other processes may touch the same pages
  bool placed = false;  ///< has a memory policy of its own
  bool locked = false;  ///< mlock()ed
};

inline constexpr std::size_t kTableEntries = 512;

/// A copy of one table page. Hints: it was read without a lock.
struct TablePage {
  Vpn first;           ///< first page that it maps
  bool upper = false;  ///< entries of 2 MiB (leaves among them are huge pages), else of 4 KiB
  std::span<const std::uint64_t, kTableEntries> entries;
};

/// Part of an address space. Valid until the next call.
struct TableRun {
  /// By rising address; an upper table comes before the tables below it. One of those that changed
  /// under each look is left out, although the upper table names it.
  std::vector<TablePage> pages;
  Vpn next;                 ///< go on from here
  bool second_mmu = false;  ///< may be used by a KVM guest or a device, which set no accessed bits
};

/// The page tables of one process.
class PageTables {
 public:
  virtual ~PageTables() = default;
  /// By rising address. kNotFound when the address space is gone, as for read().
  [[nodiscard]] virtual Result<std::vector<MemoryArea>> areas() = 0;
  /// Table pages of [from, to), or of the first part of it. Both are multiples of 2 MiB.
  [[nodiscard]] virtual Result<TableRun> read(Vpn from, Vpn to) = 0;
};

class PageTableReader {
 public:
  virtual ~PageTableReader() = default;
  /// The address space that a process has now. The caller sees to it that it stays the same one.
  [[nodiscard]] virtual Result<std::unique_ptr<PageTables>> open(Pid pid) = 0;
};

/// With BPF, on x86-64: needs CAP_BPF and CAP_PERFMON (or root) and a kernel with BTF, 6.1 or
/// later. `physical_end`: bytes of physical address space, to look for the direct map in.
/// kUnsupported when this program was built without BPF.
[[nodiscard]] Result<std::unique_ptr<PageTableReader>> make_bpf_page_table_reader(
    System& system, Bytes physical_end);

}  // namespace thermocline
