// SPDX-License-Identifier: Apache-2.0
#include "tracking/forks.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <string>

#include "base/text.h"
#include "tracking/proc_maps.h"

namespace thermocline {

namespace {

/// Pages of a range that are looked at. Half of them is far from what chance makes of all or none.
constexpr std::uint64_t kSample = 32;

std::uint64_t frame_of(const System& system, int pagemap, Vpn page) {
  std::uint64_t entry = 0;
  const auto bytes = std::as_writable_bytes(std::span(&entry, 1));
  if (system.pread(pagemap, bytes, page.get() * sizeof(entry)) != sizeof(entry)) return 0;
  return parse_pagemap(entry).pfn;
}

/// Frame of the page that all reads of memory share that was never written; 0 = not to be known.
std::uint64_t zero_frame(const System& system, int own_pagemap) {
  void* const at = ::mmap(nullptr, kPageSize, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return 0;
  (void)*static_cast<const volatile char*>(at);
  const std::uint64_t frame =
      frame_of(system, own_pagemap, Vpn::of_address(reinterpret_cast<std::uint64_t>(at)));
  ::munmap(at, kPageSize);
  return frame;
}

}  // namespace

std::optional<Pid> parent_of_fork(const System& system, Pid pid) {
  const auto text = system.read_file(fmt::format("/proc/{}/stat", pid.get()));
  const auto close = text ? text->rfind(')') : std::string::npos;
  if (close == std::string::npos) return std::nullopt;
  // Fields 4 and 9 of proc(5).
  constexpr std::size_t kParent = 1, kFlags = 6;
  constexpr std::uint64_t kForkNoExec = 0x40;  // PF_FORKNOEXEC, include/linux/sched.h
  const auto fields = words(std::string_view(*text).substr(close + 1));
  if (fields.size() <= kFlags) return std::nullopt;
  const auto parent = parse_u64(fields[kParent]), flags = parse_u64(fields[kFlags]);
  if (!parent || !flags || *parent == 0 || *parent > INT32_MAX || (*flags & kForkNoExec) == 0)
    return std::nullopt;
  return Pid(static_cast<std::int32_t>(*parent));
}

std::vector<ScanRange> still_shared(System& system, Pid ancestor, Pid fork,
                                    std::span<const ScanRange> ranges, std::uint64_t seed) {
  std::vector<ScanRange> result;
  if (ranges.empty()) return result;
  const auto first = system.open_device(fmt::format("/proc/{}/pagemap", ancestor.get()), O_RDONLY);
  const auto second = system.open_device(fmt::format("/proc/{}/pagemap", fork.get()), O_RDONLY);
  if (!first || !second) return result;
  const auto own = system.open_device("/proc/self/pagemap", O_RDONLY);
  const std::uint64_t zero = own ? zero_frame(system, own->get()) : 0;
  for (const ScanRange& range : ranges) {
    std::uint64_t same = 0, all = 0;
    const std::uint64_t step = std::max<std::uint64_t>(range.count.get() / kSample, 1);
    for (std::uint64_t at = seed % step; at < range.count.get(); at += step) {
      const Vpn page = range.first + PageCount(at);
      const std::uint64_t frame = frame_of(system, first->get(), page);
      const std::uint64_t other = frame == 0 ? 0 : frame_of(system, second->get(), page);
      if (other == 0 || frame == zero || other == zero) continue;
      ++all;
      if (frame == other) ++same;
    }
    if (same > 0 && same * 2 >= all) result.push_back(range);
  }
  return result;
}

}  // namespace thermocline
