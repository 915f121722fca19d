// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/suite/memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "base/text.h"
#include "bench/workloads/random.h"

namespace thermocline::workloads {

namespace {
constexpr std::size_t kHugePage = std::size_t{2} << 20;
}

Memory::~Memory() {
  for (const Region& region : regions_) ::munmap(region.mapping, region.mapped);
}

Result<std::byte*> Memory::map(Bytes size) {
  Region region{};
  region.size = (size.get() + kPageSize - 1) / kPageSize * kPageSize;
  region.mapped = region.size + (huge_pages_ ? kHugePage : 0);
  void* const p = ::mmap(nullptr, region.mapped, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    return fail_errno(errno, "can't map " + format_bytes(size) + "; choose a smaller --footprint");
  region.mapping = static_cast<std::byte*>(p);
  region.base = region.mapping;
  if (huge_pages_) {
    const auto at = (reinterpret_cast<std::uintptr_t>(p) + kHugePage - 1) & ~(kHugePage - 1);
    region.base = reinterpret_cast<std::byte*>(at);
  }
  regions_.push_back(region);
  if (::madvise(region.base, region.size, huge_pages_ ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0 &&
      huge_pages_)
    return fail(ErrorKind::kUnsupported,
                "this kernel gives no transparent huge pages ({}); leave --thp out",
                errno_text(errno));
  return region.base;
}

Bytes Memory::allocated() const {
  Bytes sum;
  for (const Region& region : regions_) sum += Bytes(region.size);
  return sum;
}

std::vector<std::span<std::byte>> Memory::structures() const {
  std::vector<std::span<std::byte>> all;
  for (const Region& region : regions_) all.emplace_back(region.base, region.size);
  return all;
}

void Memory::touch(std::uint64_t seed) {
  const std::size_t unit = huge_pages_ ? kHugePage : kPageSize;
  std::vector<std::byte*> units;
  for (const Region& region : regions_)
    for (std::size_t at = 0; at < region.size; at += unit) units.push_back(region.base + at);
  Random random(seed, 0x70756368);
  for (std::size_t i = units.size(); i > 1; --i) std::swap(units[i - 1], units[random.below(i)]);
  for (std::byte* const at : units) *static_cast<volatile std::byte*>(at) = std::byte{0};
}

}  // namespace thermocline::workloads
