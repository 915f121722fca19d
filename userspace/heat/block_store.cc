// SPDX-License-Identifier: Apache-2.0
#include "heat/block_store.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

namespace thermocline {

namespace {

constexpr std::size_t kTouchesOffset = offsetof(BlockStore::Chunk, touches);
constexpr std::size_t kBytesPerSlot = kTouchesOffset / BlockStore::kChunkSlots;
static_assert(kTouchesOffset % kPageSize == 0, "the plane is given back by itself");
constexpr std::size_t kHugePage = std::size_t{2} << 20;

/// Zeroed memory for a chunk, aligned so that its planes can be huge pages.
void* map_chunk() {
  constexpr std::size_t kSlack = kHugePage;
  void* memory = ::mmap(nullptr, sizeof(BlockStore::Chunk) + kSlack, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  auto* const begin = static_cast<std::byte*>(memory);
  const std::size_t before =
      (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
  std::byte* const chunk = begin + before;
  std::byte* const end = chunk + sizeof(BlockStore::Chunk);
  if (before > 0) ::munmap(begin, before);
  if (before < kSlack) ::munmap(end, kSlack - before);
  return chunk;
}

}  // namespace

BlockStore::~BlockStore() {
  for (const Held& held : chunks_)
    if (held.memory != nullptr) ::munmap(held.memory, sizeof(Chunk));
}

Slot BlockStore::allocate() {
  const auto has_room = [](const Held& held) {
    return held.memory == nullptr || !held.free.empty() || held.touched < kChunkSlots;
  };
  while (first_with_room_ < chunks_.size() && !has_room(chunks_[first_with_room_]))
    ++first_with_room_;
  if (first_with_room_ == chunks_.size()) chunks_.emplace_back();
  Held& held = chunks_[first_with_room_];
  if (held.memory == nullptr) {
    held.memory = static_cast<Chunk*>(map_chunk());
    // Streaming over 4 KiB pages pays for a TLB miss every eight blocks. The first chunk does
    // without: a small target shall not cost 4 MiB.
    if (first_with_room_ > 0)
      ::madvise(held.memory, sizeof(held.memory->heat) + sizeof(held.memory->state), MADV_HUGEPAGE);
  }
  std::size_t index = held.touched;
  if (held.free.empty()) {
    ++held.touched;
  } else {
    index = held.free.back();
    held.free.pop_back();
  }
  Chunk& chunk = *held.memory;
  std::memset(chunk.heat[index], 0, kBlockEntries);
  std::memset(chunk.state[index], PageState().raw(), kBlockEntries);
  chunk.counts[index] = {};
  chunk.counts[index][kNoTier.get()] = kBlockEntries;
  chunk.hottest[index] = 0;
  chunk.cooling[index] = false;
  chunk.unobservable[index] = false;
  if (keeps_touches_) std::memset(chunk.touches[index], 0, kBlockEntries);
  return static_cast<Slot>(first_with_room_ * kChunkSlots + index);
}

void BlockStore::free(Slot slot) {
  const std::size_t number = slot / kChunkSlots;
  Held& held = chunks_[number];
  held.memory->hottest[index_of(slot)] = 0;
  held.memory->cooling[index_of(slot)] = false;
  held.free.push_back(static_cast<std::uint16_t>(index_of(slot)));
  first_with_room_ = std::min(first_with_room_, number);
  if (held.free.size() < held.touched) return;
  ::munmap(held.memory, sizeof(Chunk));
  held = Held{};
}

void BlockStore::keep_touches(bool on) {
  keeps_touches_ = on;
  if (on) return;
  for (const Held& held : chunks_)
    if (held.memory != nullptr)
      ::madvise(held.memory->touches, sizeof(held.memory->touches), MADV_DONTNEED);
}

Bytes BlockStore::memory() const {
  const std::size_t per_slot = kBytesPerSlot + (keeps_touches_ ? kBlockEntries : 0);
  std::size_t bytes = chunks_.capacity() * sizeof(Held);
  for (const Held& held : chunks_)
    bytes += held.touched * per_slot + held.free.capacity() * sizeof(std::uint16_t);
  return Bytes(bytes);
}

}  // namespace thermocline
