// SPDX-License-Identifier: Apache-2.0
// Where the heat map's blocks of 4 KiB entries live: planes of heat and of state bytes, apart, so
// that ageing streams over heat alone. Knows no address space: a block is a slot number. Called by
// heat_map.cc only.
//
// Memory comes in chunks of 4096 blocks straight from the kernel and goes back when a chunk is
// empty: a followed process that exits gives its share back.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/units.h"
#include "heat/heat_map.h"

namespace thermocline {

/// Entries of a block by the low four bits of their state: tier (7 = none) and 8 = unobservable.
using StateCounts = std::array<std::uint16_t, 16>;

using Slot = std::uint32_t;

class BlockStore {
 public:
  static constexpr std::size_t kChunkSlots = 4096;

  /// One chunk; plain memory, laid out for streaming: the planes are 2 MiB each.
  struct Chunk {
    std::uint8_t heat[kChunkSlots][kBlockEntries];
    std::uint8_t state[kChunkSlots][kBlockEntries];
    StateCounts counts[kChunkSlots];
    /// No entry of the block is hotter than this; 0 also for free slots, so that they are skipped.
    std::uint8_t hottest[kChunkSlots];
    /// Some entry is cooling down.
    bool cooling[kChunkSlots];
    /// Some entry is unobservable: the block takes the careful way through ageing and counting.
    bool unobservable[kChunkSlots];
    /// Touches of the entries. Last, so that nobody pays for it unless it is kept.
    std::uint8_t touches[kChunkSlots][kBlockEntries];
  };

  BlockStore() = default;
  ~BlockStore();
  BlockStore(const BlockStore&) = delete;
  BlockStore& operator=(const BlockStore&) = delete;

  /// A block whose 512 entries are cold and not present. Throws std::bad_alloc.
  Slot allocate();
  void free(Slot slot);
  /// Whether the plane of touches is kept; all zero at first, and given back when not.
  void keep_touches(bool on);
  [[nodiscard]] bool keeps_touches() const { return keeps_touches_; }

  [[nodiscard]] Chunk& chunk_of(Slot slot) const { return *chunks_[slot / kChunkSlots].memory; }
  static std::size_t index_of(Slot slot) { return slot % kChunkSlots; }

  /// Calls visit(Chunk&, n) for every chunk; the blocks past the first n were never used.
  template <class Visit>
  void for_each_chunk(Visit visit) const {
    for (const Held& held : chunks_)
      if (held.memory != nullptr) visit(*held.memory, held.touched);
  }

  /// Bytes touched, at the granularity of blocks.
  [[nodiscard]] Bytes memory() const;

 private:
  struct Held {
    Chunk* memory = nullptr;  ///< nullptr: given back
    std::size_t touched = 0;  ///< slots ever used
    std::vector<std::uint16_t> free;
  };
  std::vector<Held> chunks_;
  /// Chunks before this one have no room.
  std::size_t first_with_room_ = 0;
  bool keeps_touches_ = false;
};

}  // namespace thermocline
