// SPDX-License-Identifier: Apache-2.0
#include "tracking/bpf_tracker.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "tracking/attachments.h"
#include "tracking/followed_process.h"
#include "tracking/page_table_bits.h"
#include "tracking/present_pages.h"
#include "tracking/record.h"

#ifndef MADV_COLD
#define MADV_COLD 20
#endif

namespace thermocline {

namespace {

constexpr std::uint64_t kBlock = kTableEntries;  // 4 KiB pages of a table page
/// Records are handed on in parts of about this size: they stay in the cache, and calls don't
/// count.
constexpr std::size_t kFlushBytes = 256 * 1024;
/// One call of MADV_COLD holds the target's mmap lock for this much at most: 1 to 2 ms.
constexpr PageCount kColdRange = pages_of(64_MiB);
/// And takes this much in all, below the kernel's limit of 2 GiB less a page.
constexpr PageCount kColdCall = pages_of(1_GiB);
constexpr std::size_t kColdRanges = 512;
/// clear_refs takes 45 to 70 ns a page, and the target's faults and mmap calls wait for it: 10 ms.
constexpr std::uint64_t kClearRefsEntries = 160'000;

/// Sets the bits [low, high) of a map.
void set_bits(TableMap& map, std::uint64_t low, std::uint64_t high) {
  for (std::uint64_t w = low / 64; w < map.size() && w * 64 < high; ++w) {
    const std::uint64_t from = std::max(low, w * 64) - w * 64;
    const std::uint64_t to = std::min(high, w * 64 + 64) - w * 64;
    const std::uint64_t ones =
        to - from == 64 ? ~std::uint64_t{0} : ((std::uint64_t{1} << (to - from)) - 1) << from;
    map[w] |= ones;
  }
}

/// `count` bits of a map from bit `from` on, moved down to bit 0.
TableMap shifted(const TableMap& map, std::uint64_t from, std::uint64_t count) {
  TableMap out{};
  const std::uint64_t words = from / 64, bits = from % 64;
  for (std::uint64_t w = 0; w < (count + 63) / 64; ++w) {
    out[w] = map[w + words] >> bits;
    if (bits != 0 && w + words + 1 < map.size()) out[w] |= map[w + words + 1] << (64 - bits);
  }
  if (count % 64 != 0) out[count / 64] &= (std::uint64_t{1} << (count % 64)) - 1;
  return out;
}

std::uint64_t population(const TableMap& map) {
  std::uint64_t n = 0;
  for (const std::uint64_t w : map) n += static_cast<std::uint64_t>(std::popcount(w));
  return n;
}

struct Attachment {
  FollowedProcess process;
  std::unique_ptr<PageTables> tables;
  std::uint64_t sequence = 0;
  std::uint64_t present = 0;  ///< entries that the last whole pass found
};

/// One scan of one address space.
class Pass {
 public:
  Pass(const ScanRequest& request, const RecordSink& sink, Attachment& attachment, bool cold,
       const NodeMap& nodes, std::vector<MemoryArea> areas, std::vector<std::byte>& buffer,
       Nanoseconds now)
      : sink_(sink),
        attachment_(attachment),
        cold_(cold),
        nodes_(nodes),
        areas_(std::move(areas)),
        header_(header_of(request, now)),
        bytes_(buffer) {
    bytes_.clear();
  }

  /// What follows is of this range only; a huge page that lies in it in part is told whole.
  void begin_range(Vpn first, Vpn end) {
    first_ = first;
    end_ = end;
  }
  /// Tells the tables of [from, run.next), and takes down what there is to clear.
  void tell(Vpn from, const TableRun& run);
  void flush();

  [[nodiscard]] ScanStats& stats() { return stats_; }
  [[nodiscard]] std::uint64_t present() const { return present_; }
  /// Blocks with an accessed page, within areas that MADV_COLD takes; taken over by the caller.
  std::vector<ScanRange> to_clear;

 private:
  void tell_table(const TablePage& table);
  void tell_leaves(const TablePage& upper, std::uint64_t from, std::uint64_t to);
  /// Of a table that could not be read: its pages are there, and nobody knows more. Untold they
  /// would look unmapped, and lose the heat they have.
  void tell_unknown(Vpn block);
  void look_up_nodes(const TablePage& table, TableMap& known);
  [[nodiscard]] std::optional<NodeId> node_of(std::uint64_t pfn);
  void add_run(std::optional<NodeId> node, std::uint64_t count);
  void add_runs(const TableMap& known, std::uint64_t from, std::uint64_t to);
  void clear_later(Vpn first, Vpn end);
  [[nodiscard]] bool can_tell(const MemoryArea& area) const {
    // What MADV_COLD leaves alone looks touched forever, so it tells nothing.
    return !area.placed && !(cold_ && (area.locked || area.file));
  }
  [[nodiscard]] const MemoryArea* area_of(Vpn page) const {
    const auto after = std::upper_bound(areas_.begin(), areas_.end(), page,
                                        [](Vpn p, const MemoryArea& a) { return p < a.end; });
    return after != areas_.end() && after->first <= page ? &*after : nullptr;
  }
  void append(Vpn first, PageOrder order, std::uint32_t count, const RecordMaps& maps) {
    RecordWriter(bytes_).append(header_, attachment_.sequence++, first, order, count, maps, runs_);
    done_with_record();
  }
  void done_with_record() {
    ++stats_.records;
    if (bytes_.size() >= kFlushBytes) flush();
  }

  const RecordSink& sink_;
  Attachment& attachment_;
  const bool cold_;
  const NodeMap& nodes_;
  std::vector<MemoryArea> areas_;
  RecordHeader header_;
  ScanStats stats_;
  std::uint64_t present_ = 0;
  Vpn first_, end_;
  Vpn told_until_;  ///< end of the last huge page told: two ranges may lie in the same one
  bool second_mmu_ = false;
  NodeMap::Range near_{0, 0, NodeId(0)};  ///< where the last page was: the next one mostly is too
  std::vector<NodeRun> runs_;
  std::array<std::optional<NodeId>, kTableEntries> page_nodes_;  ///< of the table under way
  std::vector<std::byte>& bytes_;
};

void Pass::flush() {
  if (bytes_.empty()) return;
  stats_.bytes += bytes_.size();
  sink_(bytes_);
  bytes_.clear();
}

void Pass::tell(Vpn from, const TableRun& run) {
  second_mmu_ = run.second_mmu;
  const TablePage* upper = nullptr;
  std::uint64_t next_entry = 0;
  const auto finish_upper = [&](Vpn until) {
    if (upper == nullptr) return;
    const std::uint64_t to =
        std::min<std::uint64_t>(kTableEntries, (until - upper->first).get() / kBlock);
    tell_leaves(*upper, next_entry, to);
    next_entry = std::max(next_entry, to);
  };
  for (const TablePage& table : run.pages) {
    if (table.upper) {
      finish_upper(table.first);
      upper = &table;
      next_entry = from > table.first ? (from - table.first).get() / kBlock : 0;
    } else {
      finish_upper(table.first);
      next_entry += 1;
      tell_table(table);
    }
  }
  finish_upper(run.next);
}

void Pass::tell_table(const TablePage& table) {
  const std::uint64_t low = first_ > table.first ? (first_ - table.first).get() : 0;
  const std::uint64_t high =
      end_ > table.first ? std::min<std::uint64_t>(kBlock, (end_ - table.first).get()) : 0;
  if (low >= high) return;
  stats_.entries += high - low;
  TableBits bits = read_table(table.entries, near_.first, near_.end);

  // What is mapped in areas that were made after they were listed is present, and unknown.
  TableMap told{}, observable{};
  set_bits(told, low, high);
  auto area = std::upper_bound(areas_.begin(), areas_.end(), table.first,
                               [](Vpn p, const MemoryArea& a) { return p < a.end; });
  for (; area != areas_.end() && area->first < table.first + PageCount(kBlock); ++area) {
    const std::uint64_t begin =
        std::max(low, area->first > table.first ? (area->first - table.first).get() : 0);
    const std::uint64_t end = std::min(high, (area->end - table.first).get());
    if (begin >= end) continue;
    TableMap here{};
    set_bits(here, begin, end);
    if (area->unscannable) {
      for (std::size_t w = 0; w < here.size(); ++w) told[w] &= ~here[w];
      stats_.skipped += PageCount(end - begin);
      continue;
    }
    if (!can_tell(*area)) continue;
    // Others may have touched what this process did not.
    const bool hidden = area->file || second_mmu_;
    std::uint64_t touched = 0;
    for (std::size_t w = 0; w < here.size(); ++w) {
      touched |= here[w] & bits.present[w] & bits.accessed[w];
      observable[w] |= hidden ? here[w] & bits.accessed[w] : here[w];
    }
    if (touched != 0) clear_later(table.first + PageCount(begin), table.first + PageCount(end));
  }

  TableMap known{};
  bool all_near = true;
  for (std::size_t w = 0; w < told.size(); ++w) {
    bits.present[w] &= told[w];
    known[w] = bits.present[w] & ~bits.special[w];
    all_near = all_near && (known[w] & ~bits.near[w]) == 0;
  }
  // Most often all pages are on the node of the last ones.
  if (!all_near) look_up_nodes(table, known);

  std::uint64_t first = kBlock, last = 0;
  for (std::uint64_t w = 0; w < known.size(); ++w) {
    observable[w] &= known[w];
    bits.accessed[w] &= observable[w];
    bits.dirty[w] &= bits.present[w];
    if (bits.present[w] == 0) continue;
    if (first == kBlock)
      first = w * 64 + static_cast<std::uint64_t>(std::countr_zero(bits.present[w]));
    last = w * 64 + 63 - static_cast<std::uint64_t>(std::countl_zero(bits.present[w]));
  }
  if (first == kBlock) return;
  const std::uint64_t count = last - first + 1;
  stats_.accessed += population(bits.accessed);
  present_ += population(bits.present);

  runs_.clear();
  if (all_near) {
    add_runs(known, first, last + 1);
  } else {
    for (std::uint64_t i = first; i <= last; ++i) add_run(page_nodes_[i], 1);
  }
  const std::size_t words = (count + 63) / 64;
  const std::array<TableMap, 4> maps{
      shifted(bits.present, first, count), shifted(observable, first, count),
      shifted(bits.accessed, first, count), shifted(bits.dirty, first, count)};
  const auto part = [&](std::size_t i) { return std::span(maps[i]).first(words); };
  append(table.first + PageCount(first), kOrder4K, static_cast<std::uint32_t>(count),
         {part(0), part(1), part(2), part(3)});
}

/// A page frame outside all nodes' memory is a device's, or the entry was no entry: it is left
/// unknown.
void Pass::look_up_nodes(const TablePage& table, TableMap& known) {
  for (std::uint64_t i = 0; i < kTableEntries; ++i) {
    page_nodes_[i].reset();
    if (((known[i / 64] >> (i % 64)) & 1) == 0) continue;
    page_nodes_[i] = node_of(pte::pfn(table.entries[i]));
    if (!page_nodes_[i]) known[i / 64] &= ~(std::uint64_t{1} << (i % 64));
  }
}

std::optional<NodeId> Pass::node_of(std::uint64_t pfn) {
  if (pfn < near_.first || pfn >= near_.end) {
    const NodeMap::Range* range = nodes_.find(pfn);
    if (range == nullptr) return std::nullopt;
    near_ = *range;
  }
  return near_.node;
}

void Pass::add_run(std::optional<NodeId> node, std::uint64_t count) {
  if (!runs_.empty() && runs_.back().node == node)
    runs_.back().count += static_cast<std::uint32_t>(count);
  else
    runs_.push_back({node, static_cast<std::uint32_t>(count)});
}

/// Entries [from, to): on the near node where the map says so, else on none.
void Pass::add_runs(const TableMap& known, std::uint64_t from, std::uint64_t to) {
  while (from < to) {
    const std::uint64_t rest = known[from / 64] >> (from % 64);
    const bool here = (rest & 1) != 0;
    const auto same =
        static_cast<std::uint64_t>(here ? std::countr_one(rest) : std::countr_zero(rest));
    const std::uint64_t next = std::min({from + same, (from / 64 + 1) * 64, to});
    add_run(here ? std::optional(near_.node) : std::nullopt, next - from);
    from = next;
  }
}

/// Huge pages among the entries [from, to) of an upper table, and tables that could not be read.
void Pass::tell_leaves(const TablePage& upper, std::uint64_t from, std::uint64_t to) {
  std::vector<EntryObservation> entries;
  Vpn start;
  const auto tell_them = [&] {
    if (!entries.empty()) {
      RecordWriter(bytes_).append(header_, attachment_.sequence++, start, kOrder2M, entries);
      done_with_record();
    }
    entries.clear();
  };
  for (std::uint64_t i = from; i < to; ++i) {
    const std::uint64_t raw = upper.entries[i];
    const Vpn first = upper.first + PageCount(i * kBlock);
    if (pte::present(raw) && (raw & pte::kLeaf) == 0) {
      tell_them();
      tell_unknown(first);
      continue;
    }
    const bool leaf = (raw & pte::kLeaf) != 0 && pte::present(raw);
    const MemoryArea* area = leaf ? area_of(first) : nullptr;
    const bool skip = area != nullptr && area->unscannable;
    if (skip) stats_.skipped += PageCount(kBlock);
    if (!leaf || skip || first + PageCount(kBlock) <= first_ || first >= end_ ||
        first < told_until_) {
      tell_them();
      continue;
    }
    told_until_ = first + PageCount(kBlock);
    ++stats_.entries;
    EntryObservation entry;
    entry.present = true;
    entry.dirty = (raw & pte::kDirty) != 0;
    // The huge zero page is read-only and clean; so is a page that a fork shares and nobody wrote.
    const bool zero = (raw & (pte::kWrite | pte::kDirty)) == 0 && (area == nullptr || !area->file);
    if (!zero) entry.node = node_of(pte::pfn(raw));
    if (entry.node && area != nullptr && can_tell(*area)) {
      entry.accessed = (raw & pte::kAccessed) != 0;
      entry.observable = entry.accessed || !(area->file || second_mmu_);
      if (entry.accessed) {
        ++stats_.accessed;
        clear_later(first, first + PageCount(kBlock));
      }
    }
    if (entries.empty()) start = first;
    entries.push_back(entry);
    ++present_;
  }
  tell_them();
}

void Pass::tell_unknown(Vpn block) {
  const Vpn from = std::max(block, first_), to = std::min(block + PageCount(kBlock), end_);
  const MemoryArea* area = area_of(block);
  if (from >= to || (area != nullptr && area->unscannable)) return;
  EntryObservation entry;
  entry.present = true;
  const std::vector<EntryObservation> entries((to - from).get(), entry);
  RecordWriter(bytes_).append(header_, attachment_.sequence++, from, kOrder4K, entries);
  done_with_record();
}

void Pass::clear_later(Vpn first, Vpn end) {
  if (!header_.cleared || !cold_) return;
  if (!to_clear.empty()) {
    ScanRange& last = to_clear.back();
    if (last.first + last.count == first && last.count < kColdRange) {
      last.count += end - first;
      return;
    }
  }
  to_clear.push_back({first, end - first});
}

class BpfTracker final : public Tracker {
 public:
  BpfTracker(System& system, const TrackerOptions& options, NodeMap nodes,
             std::unique_ptr<PageTableReader> reader)
      : system_(system), options_(options), nodes_(std::move(nodes)), reader_(std::move(reader)) {}

  const std::string& name() const override {
    static const std::string kName = "bpf";
    return kName;
  }

  Status attach(const ProcessIdentity& process) override {
    TC_ASSIGN(FollowedProcess followed, FollowedProcess::open(system_, process));
    TC_ASSIGN(auto tables, reader_->open(process.pid));
    // What the reader saw was of the process that is held only if that is still the same.
    TC_TRY(followed.check(system_));
    attachments_.put(process.asid, Attachment{std::move(followed), std::move(tables)});
    return {};
  }

  void detach(Asid asid) override { attachments_.erase(asid); }

  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override {
    TC_ASSIGN(Attachment * found, attachments_.find(request.asid));
    Attachment& attachment = *found;
    const Nanoseconds begin = system_.now();
    TC_TRY(attachment.process.check(system_));
    TC_ASSIGN(auto areas, attachment.tables->areas());
    const bool cold =
        options_.flush == TrackerOptions::Flush::kOn ||
        options_.clear == TrackerOptions::Clear::kCold ||
        (options_.clear == TrackerOptions::Clear::kAuto && attachment.present > kClearRefsEntries);
    std::vector<ScanRange> whole;
    if (request.ranges.empty())
      whole.push_back({areas.front().first, areas.back().end - areas.front().first});
    Pass pass(request, sink, attachment, cold, nodes_, std::move(areas), buffer_, begin);
    for (const ScanRange& range :
         request.ranges.empty() ? std::span<const ScanRange>(whole) : request.ranges) {
      const Vpn end = range.first + range.count;
      const Vpn to((end.get() + kBlock - 1) / kBlock * kBlock);
      Vpn at(range.first.get() / kBlock * kBlock);
      pass.begin_range(range.first, end);
      while (at < to) {
        TC_ASSIGN(const TableRun run, attachment.tables->read(at, to));
        pass.tell(at, run);
        at = run.next;
        // At once: a touch between the reading and the clearing is lost.
        TC_TRY(make_cold(attachment, pass.to_clear));
        pass.to_clear.clear();
      }
    }
    pass.flush();
    if (request.ranges.empty()) attachment.present = pass.present();
    if (request.clear && !cold && pass.stats().accessed > 0)
      TC_TRY(system_.write_file(attachment.process.proc_path("clear_refs"), "1"));
    pass.stats().elapsed = system_.now() - begin;
    return pass.stats();
  }

 private:
  /// Ranges that are no longer mapped, or are now of a kind that the kernel doesn't take, are left.
  [[nodiscard]] Status make_cold(const Attachment& attachment,
                                 std::span<const ScanRange> ranges) const;

  System& system_;
  TrackerOptions options_;
  NodeMap nodes_;
  std::unique_ptr<PageTableReader> reader_;
  Attachments<Attachment> attachments_;
  std::vector<std::byte> buffer_;  ///< of records; kept, as fresh memory costs a fault a page
};

Status BpfTracker::make_cold(const Attachment& attachment,
                             std::span<const ScanRange> ranges) const {
  std::vector<AddressRange> call;
  while (!ranges.empty()) {
    call.clear();
    PageCount pages;
    for (const ScanRange& range : ranges) {
      if (call.size() == kColdRanges || (!call.empty() && pages + range.count > kColdCall)) break;
      call.push_back({range.first.address(), bytes_of(range.count)});
      pages += range.count;
    }
    const long rc = system_.process_madvise(attachment.process.pidfd(), call, MADV_COLD);
    if (rc == -EINTR) continue;
    if (rc < 0 && rc != -EINVAL && rc != -ENOMEM)
      return fail_errno(static_cast<int>(-rc),
                        "can't clear accessed bits of " + attachment.process.proc_path(""));
    // The ranges before the one that failed were done.
    std::uint64_t done = rc > 0 ? static_cast<std::uint64_t>(rc) : 0;
    std::size_t n = 0;
    while (n < call.size() && done >= call[n].length.get()) done -= call[n++].length.get();
    ranges = ranges.subspan(n < call.size() ? n + 1 : n);
  }
  return {};
}

struct Parts {
  NodeMap nodes;
  std::unique_ptr<PageTableReader> reader;
};

/// Reads the entry of a page of this very process through the BPF programs, and asks the kernel
/// whether that is where the page lies.
Status check_on_self(System& system, PageTableReader& reader) {
  TC_TRY(require_page_frames(system));
  TC_ASSIGN(const OwnPage own, look_at_own_page(system));
  const Vpn vpn = own.page;
  TC_ASSIGN(const auto tables, reader.open(Pid(::getpid())));
  const Vpn block(vpn.get() / kBlock * kBlock);
  TC_ASSIGN(const TableRun run, tables->read(block, block + PageCount(kBlock)));
  for (const TablePage& table : run.pages) {
    const std::uint64_t entry = table.entries[(table.upper ? (vpn - table.first).get() / kBlock
                                                           : (vpn - table.first).get())];
    if (table.upper && (entry & pte::kLeaf) == 0) continue;
    const std::uint64_t within = table.upper ? vpn.get() % kBlock : 0;
    if (pte::pfn(entry) + within == own.entry.pfn) return {};
  }
  return fail(ErrorKind::kUnsupported,
              "page tables read with BPF don't agree with /proc/self/pagemap on this kernel");
}

Result<Parts> open_parts(System& system) {
  TC_ASSIGN(NodeMap nodes, NodeMap::read(system));
  TC_ASSIGN(auto reader, make_bpf_page_table_reader(system, Bytes(nodes.end() << kPageShift)));
  TC_TRY(check_on_self(system, *reader));
  return Parts{std::move(nodes), std::move(reader)};
}

}  // namespace

std::unique_ptr<Tracker> make_bpf_tracker(System& system, const TrackerOptions& options,
                                          NodeMap nodes, std::unique_ptr<PageTableReader> reader) {
  return std::make_unique<BpfTracker>(system, options, std::move(nodes), std::move(reader));
}

TrackerFactory bpf_tracker_factory() {
  TrackerFactory factory;
  factory.name = "bpf";
  factory.summary =
      "accessed bits, read from the page tables by a BPF program; the kernel is asked to clear "
      "them";
  factory.abilities.knows_nodes = true;
  factory.abilities.cost =
      ScanCost{std::chrono::microseconds(580), std::chrono::milliseconds(9),
               "measured on a shared virtual machine (Intel Xeon, Linux 6.18) with 1 GiB of 4 KiB "
               "pages, a tenth of them touched; an idle one (AMD EPYC, Zen 5) reads in 370 us: "
               "tracker_measure bpf 1024, docs/trackers.md"};
  factory.abilities.privilege = "root; a kernel with BTF, 6.1 or later; not locked down";
  factory.abilities.cannot_see =
      "what others did to memory that is shared or of a file, and what a second MMU touches: there "
      "only touches count, and nothing is cold; hugetlbfs; a process whose main thread has ended; "
      "read() or write() of files that are "
      "not mapped; touches between reading and clearing, about a millisecond";
  factory.probe = [](System& system, const TrackerOptions&) -> Status {
    TC_TRY(open_parts(system));
    return {};
  };
  factory.make = [](System& system,
                    const TrackerOptions& options) -> Result<std::unique_ptr<Tracker>> {
    TC_ASSIGN(Parts parts, open_parts(system));
    return make_bpf_tracker(system, options, std::move(parts.nodes), std::move(parts.reader));
  };
  return factory;
}

}  // namespace thermocline
