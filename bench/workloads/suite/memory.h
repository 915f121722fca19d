// SPDX-License-Identifier: Apache-2.0
// The memory of a run of `workload`: one anonymous mapping per structure, and the first touch of
// all of it. Never sets a memory policy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline::workloads {

class Memory {
 public:
  /// `huge_pages`: transparent huge pages are asked for, otherwise refused (madvise(2)).
  explicit Memory(bool huge_pages) : huge_pages_(huge_pages) {}
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /// Zeroed room for `count` values, of its own mapping (at a multiple of 2 MiB with huge pages).
  /// It lives as long as this object. kFailure when the kernel has none left.
  template <class T>
  [[nodiscard]] Result<std::span<T>> allocate(std::uint64_t count) {
    static_assert(std::is_trivially_copyable_v<T>);
    TC_ASSIGN(std::byte* const at, map(Bytes(count * sizeof(T))));
    return std::span<T>(reinterpret_cast<T*>(at), count);
  }

  /// Sum of the sizes of all structures, each a whole number of pages.
  [[nodiscard]] Bytes allocated() const;

  /// Every structure, in the order of allocation.
  [[nodiscard]] std::vector<std::span<std::byte>> structures() const;

  /// Touches every page of every structure once, in an order that only the seed decides: the pages
  /// (2 MiB with huge pages) of all structures, shuffled together. So whatever node the kernel
  /// fills first, it holds the same share of each structure, and of what will be hot and what cold.
  void touch(std::uint64_t seed);

 private:
  struct Region {
    std::byte* mapping;
    std::size_t mapped;
    std::byte* base;
    std::size_t size;
  };
  [[nodiscard]] Result<std::byte*> map(Bytes size);

  bool huge_pages_;
  std::vector<Region> regions_;
};

}  // namespace thermocline::workloads
