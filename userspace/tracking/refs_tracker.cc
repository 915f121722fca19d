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

#include <algorithm>

#include "tracking/proc_tracker.h"

namespace thermocline {

namespace {

enum class Verdict { kIdle, kTouched, kUnknown };

Verdict verdict_of(const MappingUse& use, std::uint64_t present) {
  // More pages than smaps counts: the zero page, or pages that went away since.
  if (use.unscannable || use.mapping.file || bytes_of(PageCount(present)) > use.resident)
    return Verdict::kUnknown;
  if (use.referenced.get() == 0) return Verdict::kIdle;
  return use.referenced == use.resident ? Verdict::kTouched : Verdict::kUnknown;
}

class RefsTracker final : public ProcTracker {
 public:
  RefsTracker(System& system, PresentPages pages) : ProcTracker(system, std::move(pages)) {}

  const std::string& name() const override {
    static const std::string kName = "refs";
    return kName;
  }

 private:
  Status look(Scan& scan) override {
    // Of whole mappings, as smaps tells of the whole.
    std::vector<ScanRange> whole;
    for (const Mapping& mapping : scan.mappings)
      if (overlaps(scan.request.ranges, mapping))
        whole.push_back({mapping.first, mapping.end - mapping.first});
    if (whole.empty()) return {};
    std::uint64_t sequence = 0;
    ScanStats listing;
    listed_.clear();
    TC_TRY(pages_.tell(
        scan.process, scan.mappings, whole, scan.header,
        [](const PageStretch&, std::span<Evidence> into) {
          std::fill(into.begin(), into.end(), Evidence::kIdle);
        },
        sequence, listing, listed_));
    scan.stats.entries = listing.entries;
    scan.stats.skipped = listing.skipped;
    TC_ASSIGN(const auto uses, read_uses(scan.process));
    RecordReader reader(listed_);
    std::vector<RecordView> records;
    auto next = reader.next();
    for (const Mapping& mapping : scan.mappings) {
      records.clear();
      std::uint64_t present = 0;
      for (; next && next->first < mapping.end; next = reader.next()) {
        present += next->present.population();
        records.push_back(*next);
      }
      if (!records.empty()) judge(scan, mapping, uses, present, records);
    }
    return {};
  }

  Status clear(const FollowedProcess& process) override {
    return system_.write_file(process.proc_path("clear_refs"), "1");
  }

  static bool overlaps(std::span<const ScanRange> ranges, const Mapping& mapping) {
    return ranges.empty() || std::any_of(ranges.begin(), ranges.end(), [&](const ScanRange& r) {
             return r.first < mapping.end && mapping.first < r.first + r.count;
           });
  }

  [[nodiscard]] Result<std::vector<MappingUse>> read_uses(const FollowedProcess& process) const {
    const auto text = system_.read_file(process.proc_path("smaps"));
    if (text) return parse_smaps(*text);
    // Gone, whatever errno says about it.
    TC_TRY(process.check(system_));
    return tl::make_unexpected(text.error());
  }

  /// Tells the pages of a mapping that were listed as idle for what they are.
  static void judge(Scan& scan, const Mapping& mapping, std::span<const MappingUse> uses,
                    std::uint64_t present, std::span<const RecordView> listed) {
    // A mapping that changed in between is not known.
    const auto use =
        std::lower_bound(uses.begin(), uses.end(), mapping.first,
                         [](const MappingUse& u, Vpn first) { return u.mapping.first < first; });
    const bool same = use != uses.end() && use->mapping == mapping;
    if (same && use->unscannable) {
      scan.stats.skipped += mapping.end - mapping.first;
      return;
    }
    const Verdict verdict = same ? verdict_of(*use, present) : Verdict::kUnknown;
    const ScanRange all{mapping.first, mapping.end - mapping.first};
    const auto ranges = scan.request.ranges.empty() ? std::span(&all, 1) : scan.request.ranges;
    for (const RecordView& record : listed) {
      std::vector<EntryObservation> entries = entries_of(record);
      for (EntryObservation& entry : entries) {
        entry.accessed = entry.present && verdict == Verdict::kTouched;
        entry.observable = entry.accessed || (entry.observable && verdict == Verdict::kIdle);
      }
      for (const ScanRange& range : ranges) tell_part(scan, range, record.first, entries);
    }
  }

  /// Those of the entries that are in a range.
  static void tell_part(Scan& scan, const ScanRange& range, Vpn first,
                        std::span<const EntryObservation> entries) {
    const Vpn from = std::max(first, range.first);
    const Vpn to = std::min(first + PageCount(entries.size()), range.first + range.count);
    if (from >= to) return;
    const auto part = entries.subspan((from - first).get(), (to - from).get());
    const auto is_present = [](const EntryObservation& e) { return e.present; };
    if (std::none_of(part.begin(), part.end(), is_present)) return;
    scan.stats.accessed += static_cast<std::uint64_t>(std::count_if(
        part.begin(), part.end(), [](const EntryObservation& e) { return e.accessed; }));
    const std::size_t before = scan.out.size();
    RecordWriter(scan.out).append(scan.header, scan.sequence++, from, kOrder4K, part);
    ++scan.stats.records;
    scan.stats.bytes += scan.out.size() - before;
  }

  std::vector<std::byte> listed_;  ///< kept from scan to scan
};

/// Ok when the kernel tells this user what the tracker needs, tried on this very process.
Status probe(System& system, const TrackerOptions& = {}) {
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
               "measured on a shared virtual machine (Intel Xeon, Linux 6.18) with 1 GiB of "
               "4 KiB pages on one node: tracker_measure refs 1024"};
  factory.abilities.privilege = "nothing for processes of the same user; else root";
  factory.abilities.cannot_see =
      "which pages of a mapping were touched: one that was touched in part is unknown, and so is "
      "memory of a file or shared; touches through translations that a CPU has cached, and between "
      "reading and clearing; huge pages are told as small ones";
  factory.probe = probe;
  factory.make = [](System& system,
                    const TrackerOptions& options) -> Result<std::unique_ptr<Tracker>> {
    if (options.flush == TrackerOptions::Flush::kOn)
      return fail(ErrorKind::kUsage,
                  "tracker.flush = true, but the tracker refs can't flush: leave it out");
    TC_TRY(probe(system));
    TC_ASSIGN(PresentPages pages, PresentPages::make(system));
    return std::make_unique<RefsTracker>(system, std::move(pages));
  };
  return factory;
}

}  // namespace thermocline
