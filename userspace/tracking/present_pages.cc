// SPDX-License-Identifier: Apache-2.0
#include "tracking/present_pages.h"

#include <fcntl.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "uapi/thermocline.h"

namespace thermocline {

namespace {

/// Pages of one record, and entries of one read of pagemap: 32 KiB of them.
constexpr std::uint64_t kRecordPages = 4096;
static_assert(kRecordPages <= THERMOCLINE_RECORD_MAX_ENTRIES);

constexpr PageCount kListable = pages_of(16_GiB);

}  // namespace

bool set_aside(const Mapping& mapping, PageCount in_memory) {
  const PageCount size = mapping.end - mapping.first;
  return size > kListable && size.get() / 64 > in_memory.get();
}

PageCount pages_in_memory(const System& system, const FollowedProcess& process) {
  const auto text = system.read_file(process.proc_path("statm"));
  const auto fields = text ? words(*text) : std::vector<std::string_view>();
  return PageCount(fields.size() > 1 ? parse_u64(fields[1]).value_or(0) : 0);
}

Result<std::vector<Mapping>> read_mappings(const System& system, const FollowedProcess& process) {
  const auto text = system.read_file(process.proc_path("maps"));
  if (!text) {
    TC_TRY(process.check(system));
    return tl::make_unexpected(text.error());
  }
  return parse_maps(*text);
}

Result<OwnPage> look_at_own_page(System& system) {
  alignas(kPageSize) static std::array<volatile char, kPageSize> page;
  page[0] = 1;
  TC_ASSIGN(const UniqueFd pagemap, system.open_device("/proc/self/pagemap", O_RDONLY));
  const Vpn vpn = Vpn::of_address(reinterpret_cast<std::uintptr_t>(page.data()));
  std::uint64_t raw = 0;
  const long n = system.pread(pagemap.get(), std::as_writable_bytes(std::span(&raw, 1)),
                              vpn.get() * sizeof(raw));
  if (n < 0) return fail_errno(static_cast<int>(-n), "can't read /proc/self/pagemap");
  return OwnPage{vpn, parse_pagemap(n == sizeof(raw) ? raw : 0)};
}

Status require_page_frames(System& system) {
  TC_ASSIGN(const OwnPage own, look_at_own_page(system));
  if (own.entry.pfn != 0) return {};
  return fail(ErrorKind::kPermission,
              "/proc/self/pagemap tells no page frames: run as root, or with CAP_SYS_ADMIN");
}

Result<PresentPages> PresentPages::make(System& system) {
  TC_ASSIGN(const std::string text, system.read_file("/sys/devices/system/node/has_memory"));
  TC_ASSIGN(const auto list, parse_list(trim(text)));
  if (list.size() == 1)
    return PresentPages(system, NodeId(static_cast<std::int32_t>(list.front())), std::nullopt);
  auto nodes = NodeMap::read(system);
  if (!nodes) return PresentPages(system, std::nullopt, std::nullopt);
  return PresentPages(system, std::nullopt, std::move(*nodes));
}

Status PresentPages::tell(const FollowedProcess& process, std::span<const Mapping> mappings,
                          std::span<const ScanRange> ranges, const RecordHeader& header,
                          const Judge& judge, std::uint64_t& sequence, ScanStats& stats,
                          std::vector<std::byte>& out) {
  const PageCount in_memory = pages_in_memory(system_, process);
  const ScanRange whole{Vpn(0), PageCount(std::uint64_t{1} << 52)};
  if (ranges.empty()) ranges = std::span(&whole, 1);
  auto range = ranges.begin();
  for (const Mapping& mapping : mappings) {
    while (range != ranges.end() && range->first + range->count <= mapping.first) ++range;
    if (range == ranges.end()) break;
    if (mapping.end <= range->first) continue;
    if (set_aside(mapping, in_memory)) {
      stats.skipped += mapping.end - mapping.first;
      continue;
    }
    for (auto part = range; part != ranges.end() && part->first < mapping.end; ++part)
      TC_TRY(tell_range(process, mapping, std::max(mapping.first, part->first),
                        std::min(mapping.end, part->first + part->count), header, judge, sequence,
                        stats, out));
  }
  return {};
}

Status PresentPages::tell_range(const FollowedProcess& process, const Mapping& mapping, Vpn from,
                                Vpn to, const RecordHeader& header, const Judge& judge,
                                std::uint64_t& sequence, ScanStats& stats,
                                std::vector<std::byte>& out) {
  std::vector<EntryObservation> told;
  while (from < to) {
    raw_.resize(std::min(kRecordPages, (to - from).get()));
    const long got = system_.pread(process.pagemap(), std::as_writable_bytes(std::span(raw_)),
                                   from.get() * sizeof(std::uint64_t));
    if (got < 0)
      return fail_errno(static_cast<int>(-got), "can't read " + process.proc_path("pagemap"));
    const std::size_t n = static_cast<std::size_t>(got) / sizeof(std::uint64_t);
    if (n == 0 || n > raw_.size()) return {};  // gone: the caller's check tells
    stats.entries += n;
    entries_.resize(n);
    std::transform(raw_.begin(), raw_.begin() + static_cast<std::ptrdiff_t>(n), entries_.begin(),
                   parse_pagemap);
    const auto is_present = [](const PagemapEntry& e) { return e.present; };
    const auto begin = std::find_if(entries_.begin(), entries_.end(), is_present);
    const auto end = std::find_if(entries_.rbegin(), entries_.rend(), is_present).base();
    const Vpn next = from + PageCount(n);
    if (begin != entries_.end()) {
      const PageStretch stretch{
          from + PageCount(static_cast<std::uint64_t>(begin - entries_.begin())), {begin, end}};
      evidence_.assign(stretch.entries.size(), Evidence::kUnknown);
      judge(stretch, evidence_);
      told.assign(stretch.entries.size(), {});
      for (std::size_t i = 0; i < told.size(); ++i) {
        const PagemapEntry& entry = stretch.entries[i];
        const bool alone = !mapping.file && !mapping.shared && entry.exclusive;
        told[i].present = entry.present;
        told[i].accessed = entry.present && evidence_[i] == Evidence::kTouched;
        told[i].observable =
            told[i].accessed || (entry.present && ((alone && evidence_[i] == Evidence::kIdle) ||
                                                   evidence_[i] == Evidence::kIdleToAll));
        stats.accessed += told[i].accessed;
      }
      TC_TRY(look_up_nodes(process, stretch, told));
      const std::size_t before = out.size();
      RecordWriter(out).append(header, sequence++, stretch.first, kOrder4K, told);
      ++stats.records;
      stats.bytes += out.size() - before;
    }
    from = next;
  }
  return {};
}

Status PresentPages::look_up_nodes(const FollowedProcess& process, const PageStretch& stretch,
                                   std::span<EntryObservation> into) const {
  std::vector<void*> unknown;
  std::vector<std::size_t> index;
  for (std::size_t i = 0; i < into.size(); ++i) {
    if (!into[i].present) continue;
    if (only_node_) {
      into[i].node = only_node_;
    } else if (nodes_ && stretch.entries[i].pfn != 0) {
      const NodeMap::Range* range = nodes_->find(stretch.entries[i].pfn);
      if (range != nullptr) into[i].node = range->node;
    } else {
      unknown.push_back(reinterpret_cast<void*>((stretch.first + PageCount(i)).address()));
      index.push_back(i);
    }
  }
  if (unknown.empty()) return {};
  std::vector<int> told(unknown.size(), -1);
  const long rc = system_.move_pages(process.identity().pid, unknown, {}, told, 0);
  if (rc < 0) {
    TC_TRY(process.check(system_));
    return fail_errno(static_cast<int>(-rc), fmt::format("can't ask where pages of process {} are",
                                                         process.identity().pid.get()));
  }
  for (std::size_t i = 0; i < index.size(); ++i)
    if (told[i] >= 0) into[index[i]].node = NodeId(told[i]);
  return {};
}

}  // namespace thermocline
