// SPDX-License-Identifier: Apache-2.0
// smaps tells of each mapping how much is resident and how much of that was referenced, not which
// pages. Three answers follow:
//   nothing referenced        -> every page is idle
//   as much as is resident    -> every page was touched
//   anything between          -> some were, nobody knows which: all are present and unobservable.
// Calling the share in between "hot" would promote memory that nobody touches, calling it "cold"
// would demote the hot part; unknown pages stay where they are.
//
// The pages are listed (pagemap) before smaps is read. So a page that is called idle was there when
// nothing of its mapping had been referenced, and one that came later belongs to no record.
#include "tracking/refs_tracker.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "base/text.h"
#include "tracking/followed_process.h"
#include "tracking/present_pages.h"
#include "tracking/proc_maps.h"
#include "tracking/record.h"
#include "uapi/thermocline.h"

namespace thermocline {

namespace {

/// Pages of one record, and entries of one read of pagemap: 32 KiB of them.
constexpr std::uint64_t kRecordPages = 4096;
static_assert(kRecordPages <= THERMOCLINE_RECORD_MAX_ENTRIES);

enum class Verdict { kIdle, kTouched, kUnknown };

/// Pages of one mapping, present or not.
struct Stretch {
  Vpn first;
  std::vector<bool> present;
  std::vector<int> nodes;  ///< as move_pages(2) tells them; empty on a machine with one node
};
struct Listed {
  Mapping mapping;
  std::vector<Stretch> stretches;
  std::uint64_t present = 0;  ///< in the whole mapping
};

Verdict verdict_of(const MappingUse& use, std::uint64_t present) {
  // More pages than smaps counts: the zero page, or pages that went away since.
  if (use.unscannable || use.mapping.file || bytes_of(PageCount(present)) > use.resident)
    return Verdict::kUnknown;
  if (use.referenced.get() == 0) return Verdict::kIdle;
  return use.referenced == use.resident ? Verdict::kTouched : Verdict::kUnknown;
}

struct Attachment {
  FollowedProcess process;
  std::uint64_t sequence = 0;
};

class RefsTracker final : public Tracker {
 public:
  RefsTracker(System& system, std::optional<NodeId> only_node)
      : system_(system), only_node_(only_node) {}

  const std::string& name() const override {
    static const std::string kName = "refs";
    return kName;
  }

  Status attach(const ProcessIdentity& process) override {
    TC_ASSIGN(FollowedProcess followed, FollowedProcess::open(system_, process));
    attachments_.insert_or_assign(process.asid, Attachment{std::move(followed)});
    return {};
  }

  void detach(Asid asid) override { attachments_.erase(asid); }

  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override {
    const auto found = attachments_.find(request.asid);
    if (found == attachments_.end())
      return fail(ErrorKind::kNotFound, "address space {:#x} is not attached", request.asid.get());
    Attachment& attachment = found->second;
    const FollowedProcess& process = attachment.process;
    const Nanoseconds begin = system_.now();
    ScanStats stats;
    TC_TRY(process.check(system_));
    TC_ASSIGN(const auto mappings, read_and_parse(process, "maps", parse_maps));
    TC_ASSIGN(const auto listed, list_pages(process, mappings, request.ranges, stats));
    TC_ASSIGN(const auto uses, read_and_parse(process, "smaps", parse_smaps));
    // What was read is of this address space only if it is still there.
    TC_TRY(process.check(system_));
    tell(request, listed, uses, attachment, begin, stats, sink);
    if (request.clear) TC_TRY(system_.write_file(process.proc_path("clear_refs"), "1"));
    stats.elapsed = system_.now() - begin;
    return stats;
  }

 private:
  template <class T>
  Result<std::vector<T>> read_and_parse(const FollowedProcess& process, std::string_view file,
                                        Result<std::vector<T>> (*parse)(std::string_view)) const {
    const auto text = system_.read_file(process.proc_path(file));
    if (!text) {
      // Gone, whatever errno says about it.
      TC_TRY(process.check(system_));
      return tl::make_unexpected(text.error());
    }
    return parse(*text);
  }

  [[nodiscard]] Result<std::vector<Listed>> list_pages(const FollowedProcess& process,
                                                       std::span<const Mapping> mappings,
                                                       std::span<const ScanRange> ranges,
                                                       ScanStats& stats) const;
  void tell(const ScanRequest& request, std::span<const Listed> listed,
            std::span<const MappingUse> uses, Attachment& attachment, Nanoseconds now,
            ScanStats& stats, const RecordSink& sink) const;

  [[nodiscard]] Status look_up_nodes(const FollowedProcess& process, Stretch& stretch) const;

  System& system_;
  std::optional<NodeId> only_node_;
  std::map<Asid, Attachment> attachments_;
};

Status RefsTracker::look_up_nodes(const FollowedProcess& process, Stretch& stretch) const {
  if (only_node_) return {};
  std::vector<void*> pages;
  for (std::uint64_t i = 0; i < stretch.present.size(); ++i)
    if (stretch.present[i])
      pages.push_back(reinterpret_cast<void*>((stretch.first + PageCount(i)).address()));
  std::vector<int> told(pages.size(), -1);
  const long rc = system_.move_pages(process.identity().pid, pages, {}, told, 0);
  if (rc < 0)
    return fail_errno(static_cast<int>(-rc), fmt::format("can't ask where pages of process {} are",
                                                         process.identity().pid.get()));
  stretch.nodes.assign(stretch.present.size(), -1);
  std::size_t next = 0;
  for (std::size_t i = 0; i < stretch.present.size(); ++i)
    if (stretch.present[i]) stretch.nodes[i] = told[next++];
  return {};
}

/// Every page of a mapping is counted, as smaps tells of the whole; those in `ranges` are kept.
Result<std::vector<Listed>> RefsTracker::list_pages(const FollowedProcess& process,
                                                    std::span<const Mapping> mappings,
                                                    std::span<const ScanRange> ranges,
                                                    ScanStats& stats) const {
  const auto wanted = [&](Vpn page) {
    if (ranges.empty()) return true;
    const auto after =
        std::upper_bound(ranges.begin(), ranges.end(), page,
                         [](Vpn p, const ScanRange& range) { return p < range.first; });
    return after != ranges.begin() && page < std::prev(after)->first + std::prev(after)->count;
  };
  const auto overlaps = [&](const Mapping& m) {
    return ranges.empty() || std::any_of(ranges.begin(), ranges.end(), [&m](const ScanRange& r) {
             return r.first < m.end && m.first < r.first + r.count;
           });
  };
  std::vector<Listed> result;
  std::vector<std::uint64_t> entries(kRecordPages);
  const PageCount in_memory = pages_in_memory(system_, process);
  for (const Mapping& mapping : mappings) {
    if (!overlaps(mapping)) continue;
    if (set_aside(mapping, in_memory)) {
      stats.skipped += mapping.end - mapping.first;
      continue;
    }
    Listed listed{mapping, {}, 0};
    for (Vpn at = mapping.first; at < mapping.end;) {
      const std::uint64_t n = std::min(kRecordPages, (mapping.end - at).get());
      const auto bytes = std::as_writable_bytes(std::span(entries).first(n));
      const long got = system_.pread(process.pagemap(), bytes, at.get() * 8);
      if (got < 0)
        return fail_errno(static_cast<int>(-got), "can't read " + process.proc_path("pagemap"));
      const auto pages = static_cast<std::uint64_t>(got) / 8;
      if (pages == 0 || pages > n) break;  // gone; check() tells
      Stretch stretch{at, std::vector<bool>(pages), {}};
      bool any = false;
      for (std::uint64_t i = 0; i < pages; ++i) {
        if (!parse_pagemap(entries[i]).present) continue;
        ++listed.present;
        if (!wanted(at + PageCount(i))) continue;
        stretch.present[i] = any = true;
      }
      stats.entries += pages;
      if (any) {
        TC_TRY(look_up_nodes(process, stretch));
        listed.stretches.push_back(std::move(stretch));
      }
      at = at + PageCount(pages);
    }
    if (!listed.stretches.empty()) result.push_back(std::move(listed));
  }
  return result;
}

void RefsTracker::tell(const ScanRequest& request, std::span<const Listed> listed,
                       std::span<const MappingUse> uses, Attachment& attachment, Nanoseconds now,
                       ScanStats& stats, const RecordSink& sink) const {
  RecordHeader header;
  header.asid = request.asid;
  header.epoch = request.epoch;
  header.scan_time = now;
  header.window = request.window;
  header.cleared = request.clear;
  std::vector<std::byte> bytes;
  for (const Listed& area : listed) {
    // A mapping that changed in between is not known.
    const auto use =
        std::lower_bound(uses.begin(), uses.end(), area.mapping.first,
                         [](const MappingUse& u, Vpn first) { return u.mapping.first < first; });
    const bool same = use != uses.end() && use->mapping == area.mapping;
    if (same && use->unscannable) {
      stats.skipped += area.mapping.end - area.mapping.first;
      continue;
    }
    const Verdict verdict = same ? verdict_of(*use, area.present) : Verdict::kUnknown;
    for (const Stretch& stretch : area.stretches) {
      const auto first =
          static_cast<std::size_t>(std::find(stretch.present.begin(), stretch.present.end(), true) -
                                   stretch.present.begin());
      std::size_t end = stretch.present.size();
      while (!stretch.present[end - 1]) --end;
      std::vector<EntryObservation> entries(end - first);
      for (std::size_t i = 0; i < entries.size(); ++i) {
        entries[i].present = stretch.present[first + i];
        entries[i].observable = entries[i].present && verdict != Verdict::kUnknown;
        entries[i].accessed = entries[i].present && verdict == Verdict::kTouched;
        stats.accessed += entries[i].accessed;
        if (only_node_)
          entries[i].node = only_node_;
        else if (stretch.nodes[first + i] >= 0)
          entries[i].node = NodeId(stretch.nodes[first + i]);
      }
      RecordWriter(bytes).append(header, attachment.sequence++, stretch.first + PageCount(first),
                                 kOrder4K, entries);
      ++stats.records;
    }
    stats.bytes += bytes.size();
    if (!bytes.empty()) sink(bytes);
    bytes.clear();
  }
}

/// Ok when the kernel tells this user what the tracker needs, tried on this very process.
Status probe(System& system) {
  TC_ASSIGN(const std::string smaps, system.read_file("/proc/self/smaps"));
  if (smaps.find("\nReferenced:") == std::string::npos)
    return fail(ErrorKind::kUnsupported,
                "/proc/self/smaps tells nothing of references: this kernel was built without "
                "CONFIG_PROC_PAGE_MONITOR");
  TC_TRY(system.open_device("/proc/self/pagemap", O_RDONLY));
  if (!system.exists("/proc/self/clear_refs"))
    return fail(ErrorKind::kUnsupported, "this kernel has no /proc/PID/clear_refs");
  return {};
}

}  // namespace

TrackerFactory refs_tracker_factory() {
  TrackerFactory factory;
  factory.name = "refs";
  factory.summary = "which mappings were touched, from /proc/PID/clear_refs and smaps";
  factory.abilities.knows_nodes = true;
  factory.abilities.grain = TrackerAbilities::Grain::kMapping;
  factory.abilities.cost =
      ScanCost{std::chrono::milliseconds(23), std::chrono::milliseconds(10),
               "measured on a shared virtual machine (AMD EPYC, Zen 5, Linux 6.18) with 1 GiB of "
               "4 KiB pages on one node: tracker_measure refs 1024"};
  factory.abilities.privilege = "nothing for processes of the same user; else root";
  factory.abilities.cannot_see =
      "which pages of a mapping were touched: one that was touched in part is unknown, and so is "
      "memory of a file or shared; touches through translations that a CPU has cached, and between "
      "reading and clearing; huge pages are told as small ones";
  factory.probe = probe;
  factory.make = [](System& system,
                    const TrackerOptions& options) -> Result<std::unique_ptr<Tracker>> {
    if (options.flush)
      return fail(ErrorKind::kUsage,
                  "tracker.flush = true, but the tracker refs can't flush: leave it out");
    TC_TRY(probe(system));
    TC_ASSIGN(const std::string text, system.read_file("/sys/devices/system/node/has_memory"));
    TC_ASSIGN(const auto nodes, parse_list(trim(text)));
    std::optional<NodeId> only;
    if (nodes.size() == 1) only = NodeId(static_cast<std::int32_t>(nodes.front()));
    return std::make_unique<RefsTracker>(system, only);
  };
  return factory;
}

}  // namespace thermocline
