// SPDX-License-Identifier: Apache-2.0
// A mapping like the module's, which a test writes as the kernel would, or not.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tracking/record.h"
#include "uapi/thermocline.h"

namespace thermocline {

class FakeRing {
 public:
  static constexpr std::size_t kPage = 4096;

  explicit FakeRing(std::uint64_t data_bytes = THERMOCLINE_RING_MIN_BYTES)
      : data_bytes_(data_bytes),
        bytes_(kPage + 2 * data_bytes),
        memory_(
            ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    header()->data_offset = kPage;
    header()->data_bytes = data_bytes;
  }
  FakeRing(const FakeRing&) = delete;
  FakeRing& operator=(const FakeRing&) = delete;
  ~FakeRing() {
    if (memory_ != nullptr) ::munmap(memory_, bytes_);
  }

  [[nodiscard]] std::uint64_t data_bytes() const { return data_bytes_; }
  thermocline_ring_header* header() { return static_cast<thermocline_ring_header*>(memory_); }
  std::span<std::byte> mapping() { return {static_cast<std::byte*>(memory_), bytes_}; }
  /// Whoever takes it unmaps it.
  std::span<std::byte> release() {
    const std::span<std::byte> all = mapping();
    memory_ = nullptr;
    return all;
  }

 private:
  std::uint64_t data_bytes_;
  std::size_t bytes_;
  void* memory_;
};

/// As the kernel's two mappings of the same pages: what is written is in both halves.
inline void produce(std::span<std::byte> mapping, std::span<const std::byte> bytes) {
  auto* header = reinterpret_cast<thermocline_ring_header*>(mapping.data());
  for (const std::byte b : bytes) {
    const std::uint64_t at = header->produced++ % header->data_bytes;
    mapping[header->data_offset + at] = b;
    mapping[header->data_offset + header->data_bytes + at] = b;
  }
}

/// One of 4 KiB pages, all present on node 0; those of an odd number are accessed.
inline std::vector<std::byte> record_of(Asid asid, std::uint64_t sequence,
                                        std::size_t entries = 512) {
  std::vector<std::byte> bytes;
  std::vector<EntryObservation> pages(entries, {NodeId(0), true, true, sequence % 2 != 0, false});
  RecordHeader head;
  head.asid = asid;
  RecordWriter(bytes).append(head, sequence, Vpn(sequence * 512), kOrder4K, pages);
  return bytes;
}

inline thermocline_mark mark_of(std::uint32_t pass, std::uint32_t windows = 0) {
  thermocline_mark mark{};
  mark.magic = THERMOCLINE_MARK_MAGIC;
  mark.version = THERMOCLINE_MARK_VERSION;
  mark.header_size = sizeof(mark);
  mark.size = sizeof(mark);
  mark.pass = pass;
  mark.windows = windows;
  return mark;
}

}  // namespace thermocline
