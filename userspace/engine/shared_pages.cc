// SPDX-License-Identifier: Apache-2.0
#include "engine/shared_pages.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace thermocline {

namespace {

/// Stands in a key for a file's device; no device has it.
constexpr std::uint64_t kForkedDevice = ~std::uint64_t{0};

constexpr BlockBits all_bits() {
  BlockBits bits{};
  for (std::uint64_t& word : bits) word = ~std::uint64_t{0};
  return bits;
}

BlockBits without(const BlockBits& a, const BlockBits& b) {
  return combine(a, b, kAndNot);
}
BlockBits both(const BlockBits& a, const BlockBits& b) {
  return combine(a, b, kAnd);
}
BlockBits either(const BlockBits& a, const BlockBits& b) {
  return combine(a, b, kOr);
}

std::uint64_t population(const BlockBits& bits) {
  std::uint64_t n = 0;
  for (const std::uint64_t word : bits) n += static_cast<std::uint64_t>(std::popcount(word));
  return n;
}

/// Nodes of the record's entries [from, from + count).
void slice_nodes(const RecordView& record, std::uint32_t from, std::uint32_t count,
                 std::vector<NodeRun>& out) {
  out.clear();
  std::uint32_t at = 0;
  for (std::uint32_t i = 0; i < record.node_run_count && at < from + count; ++i) {
    const NodeRun run = record.node_run(i);
    const std::uint32_t begin = std::max(at, from);
    const std::uint32_t end = std::min(at + run.count, from + count);
    if (begin < end) out.push_back({run.node, end - begin});
    at += run.count;
  }
}

/// A record like another one, of other entries.
RecordView written(const RecordView& like, Vpn first, PageOrder order,
                   std::span<const EntryObservation> entries, std::vector<std::byte>& bytes) {
  RecordHeader header;
  header.asid = like.asid;
  header.epoch = like.epoch;
  header.scan_time = like.scan_time;
  header.window = like.window;
  header.cleared = like.cleared;
  header.writes_only = like.writes_only;
  header.shared = like.shared;
  RecordWriter(bytes).append(header, like.sequence, first, order, entries);
  return *RecordReader(bytes).next();
}

EntryObservation entry_of(const RecordView& record, std::uint32_t entry,
                          std::optional<NodeId> node) {
  return {node, record.present.test(entry), record.observable.test(entry),
          record.accessed.test(entry), record.dirty.test(entry)};
}

}  // namespace

SharedPages::SharedPages(HeatMap& heat, HandOver on_hand_over)
    : heat_(heat), on_hand_over_(std::move(on_hand_over)), hint_(blocks_.end()) {}

// -------------------------------------------------------------------- who maps what

void SharedPages::set_mappings(const ProcessIdentity& process, std::span<const Mapping> mappings,
                               std::uint64_t ipc_space) {
  Member& member = members_[process.asid];
  member.start_ticks = process.start_ticks;
  member.pid = process.pid;
  member.regions.clear();
  member.anonymous.clear();
  for (const Mapping& mapping : mappings) {
    // Text is the page cache's, and as good as never written; private data may be copies.
    const bool text = mapping.executable && !mapping.writable;
    if ((mapping.file || mapping.sysv) && (mapping.shared || text)) {
      member.regions.push_back({{mapping.device, mapping.inode, mapping.name,
                                 mapping.sysv ? ipc_space : std::uint64_t{0}},
                                mapping.offset.get(),
                                mapping.first,
                                mapping.end - mapping.first,
                                mapping.shared ? Kind::kShared : Kind::kText});
    } else if (!mapping.file && !mapping.shared) {
      if (!member.anonymous.empty() && member.anonymous.back().second == mapping.first)
        member.anonymous.back().second = mapping.end;
      else
        member.anonymous.emplace_back(mapping.first, mapping.end);
    }
  }
  changed_ = true;
}

void SharedPages::leave(Asid asid) {
  const auto found = members_.find(asid);
  if (found == members_.end()) return;
  const auto& extents = found->second.extents;
  const bool home =
      std::any_of(extents.begin(), extents.end(), [](const Extent& e) { return e.home; });
  members_.erase(found);
  changed_ = true;
  if (!home) return;
  settle();
  late_ = true;
}

void SharedPages::set_forked(Asid fork, Asid ancestor, std::span<const ScanRange> ranges) {
  const auto found = members_.find(fork);
  if (found == members_.end()) return;
  std::vector<Region> forked;
  for (const ScanRange& range : ranges)
    forked.push_back({{kForkedDevice, ancestor.get(), 0, 0},
                      range.first.get(),
                      range.first,
                      range.count,
                      Kind::kForked});
  if (forked == found->second.forked) return;
  found->second.forked = std::move(forked);
  changed_ = true;
}

std::vector<ScanRange> SharedPages::common_anonymous(Asid a, Asid b) const {
  std::vector<ScanRange> result;
  const Member* one = find(a);
  const Member* other = find(b);
  if (one == nullptr || other == nullptr) return result;
  auto from = other->anonymous.begin();
  for (const auto& [first, end] : one->anonymous) {
    while (from != other->anonymous.end() && from->second <= first) ++from;
    for (auto it = from; it != other->anonymous.end() && it->first < end; ++it) {
      const Vpn begin = std::max(first, it->first);
      const PageCount count = std::min(end, it->second) - begin;
      if (count >= PageCount(kBlockEntries)) result.push_back({begin, count});
    }
  }
  return result;
}

void SharedPages::add_ancestors(std::vector<Owner>& owners) const {
  std::map<Asid, std::vector<Region>> by_ancestor;
  for (const auto& [asid, member] : members_)
    for (const Region& region : member.forked)
      by_ancestor[Asid(std::get<1>(region.key))].push_back(region);
  for (auto& [asid, regions] : by_ancestor) {
    const Member* ancestor = find(asid);
    if (ancestor == nullptr) continue;
    // Several forks may share the same with it.
    std::sort(regions.begin(), regions.end(),
              [](const Region& a, const Region& b) { return a.first < b.first; });
    std::vector<Region> united;
    for (const Region& region : regions) {
      const Vpn end = region.first + region.count;
      if (!united.empty() && region.first <= united.back().first + united.back().count)
        united.back().count = std::max(united.back().count, end - united.back().first);
      else
        united.push_back(region);
    }
    for (const Region& region : united)
      owners.push_back({asid, region, ancestor->start_ticks, ancestor->pid});
  }
}

std::vector<SharedPages::Segment> SharedPages::sweep(std::span<const Owner> owners) {
  std::vector<std::uint64_t> edges;
  for (const Owner& owner : owners) {
    edges.push_back(owner.region.offset);
    edges.push_back(owner.region.offset + owner.region.count.get());
  }
  std::sort(edges.begin(), edges.end());
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  std::vector<Segment> segments;
  std::vector<const Owner*> active;
  std::size_t next = 0;  // owners come by offset
  for (std::size_t e = 0; e + 1 < edges.size(); ++e) {
    const std::uint64_t offset = edges[e];
    std::erase_if(active, [&](const Owner* owner) {
      return owner->region.offset + owner->region.count.get() <= offset;
    });
    while (next < owners.size() && owners[next].region.offset <= offset)
      active.push_back(&owners[next++]);
    if (active.empty()) continue;
    std::sort(active.begin(), active.end(), [](const Owner* a, const Owner* b) {
      return std::tuple(a->start_ticks, a->pid, a->region.first) <
             std::tuple(b->start_ticks, b->pid, b->region.first);
    });
    Segment segment;
    segment.offset = offset;
    segment.count = PageCount(edges[e + 1] - offset);
    for (const Owner* owner : active) {
      segment.places.push_back(
          {owner->asid, owner->region.first + PageCount(offset - owner->region.offset)});
      segment.kind = std::min(segment.kind, owner->region.kind);
    }
    segments.push_back(std::move(segment));
  }
  return segments;
}

void SharedPages::hand_over(PagePlace from, PageCount count, PagePlace to) {
  heat_.hand_over(from.asid, from.vpn, count, to.asid, to.vpn);
  if (on_hand_over_) on_hand_over_(from.asid, from.vpn, count, to.asid, to.vpn);
}

void SharedPages::settle(const Segment& segment, std::span<const Segment> old) {
  const PagePlace home = segment.places.front();
  for (const Segment& before : old) {
    const std::uint64_t begin = std::max(before.offset, segment.offset);
    const std::uint64_t end =
        std::min(before.offset + before.count.get(), segment.offset + segment.count.get());
    if (begin >= end) continue;
    const PagePlace from{before.places.front().asid,
                         before.places.front().vpn + PageCount(begin - before.offset)};
    const PagePlace to{home.asid, home.vpn + PageCount(begin - segment.offset)};
    if (from != to) hand_over(from, PageCount(end - begin), to);
  }
  // What was private until now.
  for (std::size_t i = 1; i < segment.places.size(); ++i)
    hand_over(segment.places[i], segment.count, home);
}

void SharedPages::settle() {
  if (!std::exchange(changed_, false)) return;
  std::vector<Owner> owners;
  for (auto& [asid, member] : members_) {
    member.extents.clear();
    for (const auto* regions : {&member.regions, &member.forked})
      for (const Region& region : *regions)
        owners.push_back({asid, region, member.start_ticks, member.pid});
  }
  add_ancestors(owners);
  std::stable_sort(owners.begin(), owners.end(), [](const Owner& a, const Owner& b) {
    return std::tie(a.region.key, a.region.offset) < std::tie(b.region.key, b.region.offset);
  });
  const auto before = std::exchange(objects_, {});
  for (std::size_t i = 0; i < owners.size();) {
    std::size_t end = i + 1;
    while (end < owners.size() && owners[end].region.key == owners[i].region.key) ++end;
    const Key& key = owners[i].region.key;
    const auto was = before.find(key);
    if (end - i > 1 || was != before.end()) {
      const std::span<const Segment> old =
          was == before.end() ? std::span<const Segment>() : std::span(was->second);
      for (Segment& segment : sweep(std::span(owners).subspan(i, end - i))) {
        const auto same = std::find_if(old.begin(), old.end(), [&](const Segment& o) {
          return o.offset == segment.offset && o.count == segment.count &&
                 o.places.front() == segment.places.front();
        });
        if (same != old.end()) segment.fresh = same->fresh;
        if (same == old.end() || same->places != segment.places) settle(segment, old);
        if (segment.places.size() > 1) objects_[key].push_back(std::move(segment));
      }
    }
    i = end;
  }
  for (const auto& [key, segments] : objects_)
    for (const Segment& segment : segments)
      for (std::size_t i = 0; i < segment.places.size(); ++i)
        members_.at(segment.places[i].asid)
            .extents.push_back({segment.places[i].vpn, segment.count, &segment, i == 0});
  for (auto& [asid, member] : members_)
    std::sort(member.extents.begin(), member.extents.end(),
              [](const Extent& a, const Extent& b) { return a.first < b.first; });
}

const SharedPages::Member* SharedPages::find(Asid asid) const {
  const auto found = members_.find(asid);
  return found == members_.end() ? nullptr : &found->second;
}

const SharedPages::Extent* SharedPages::extent_at(const Member& member, Vpn vpn) {
  const auto found =
      std::upper_bound(member.extents.begin(), member.extents.end(), vpn,
                       [](Vpn at, const Extent& extent) { return at < extent.end(); });
  return found == member.extents.end() ? nullptr : &*found;
}

bool SharedPages::shares(Asid asid) const {
  const Member* member = find(asid);
  return member != nullptr &&
         std::any_of(member->extents.begin(), member->extents.end(),
                     [](const Extent& e) { return e.segment->kind == Kind::kShared; });
}

Owners SharedPages::owners(Asid asid, Vpn vpn) const {
  const Member* member = find(asid);
  if (member == nullptr) return Owners::kOne;
  const Extent* extent = extent_at(*member, vpn);
  if (extent != nullptr && extent->first <= vpn)
    return extent->segment->kind == Kind::kText ? Owners::kOne : Owners::kAll;
  const auto after = std::upper_bound(member->anonymous.begin(), member->anonymous.end(), vpn,
                                      [](Vpn at, const auto& range) { return at < range.second; });
  return after != member->anonymous.end() && after->first <= vpn ? Owners::kForks : Owners::kOne;
}

std::vector<PagePlace> SharedPages::others(PagePlace page) const {
  std::vector<PagePlace> result;
  const Member* member = find(page.asid);
  const Extent* extent = member == nullptr ? nullptr : extent_at(*member, page.vpn);
  if (extent == nullptr || extent->first > page.vpn) return result;
  for (const PagePlace& place : extent->segment->places)
    if (place.asid != page.asid || place.vpn != extent->first)
      result.push_back({place.asid, place.vpn + (page.vpn - extent->first)});
  const auto block = blocks_.find({page.asid, page.vpn.get() / kBlockEntries});
  if (block != blocks_.end())
    std::stable_partition(result.begin(), result.end(), [&](const PagePlace& place) {
      return place.asid == block->second.last_owner;
    });
  return result;
}

PageCount SharedPages::shared_pages(Asid asid) const {
  const Member* member = find(asid);
  if (member == nullptr) return PageCount(0);
  std::uint64_t pages = 0;
  for (const Extent& extent : member->extents) {
    const PagePlace& home = extent.segment->places.front();
    const std::uint64_t begin = home.vpn.get(), end = begin + extent.count.get();
    for (auto it = blocks_.lower_bound({home.asid, begin / kBlockEntries});
         it != blocks_.end() && it->first.first == home.asid; ++it) {
      const std::uint64_t base = it->first.second * kBlockEntries;
      if (base >= end) break;
      const std::uint64_t from = std::max(base, begin);
      const BlockBits part = range_bits(from - base, std::min(end, base + kBlockEntries) - from);
      pages += population(both(either(it->second.now, it->second.before), part));
    }
  }
  return PageCount(pages);
}

// -------------------------------------------------------------------- records

SharedPages::Seen SharedPages::apply(const RecordView& record, std::optional<unsigned> window) {
  Seen seen;
  seen.touched = !record.accessed.is_zeros();
  const Member* member = find(record.asid);
  const Vpn end = record.first + record.pages();
  const Extent* extent = member == nullptr ? nullptr : extent_at(*member, record.first);
  const bool is_private = extent == nullptr || extent->first >= end || record.order == kOrder1G;
  if (record.idle && !is_private) {
    apply_idle(*member, record, seen);
    return seen;
  }
  if (is_private) {
    apply_private(record, 0, record.count, window, seen);
    return seen;
  }
  const unsigned order = record.order.get();
  for (std::uint32_t entry = 0; entry < record.count;) {
    const Vpn at = record.first + PageCount(std::uint64_t{entry} << order);
    extent = extent_at(*member, at);
    const bool shared = extent != nullptr && extent->first <= at;
    const Vpn until =
        std::min(end, extent == nullptr ? end : (shared ? extent->end() : extent->first));
    const auto count = static_cast<std::uint32_t>((until - at).get() >> order);
    if (count == 0) {
      // A huge page that is shared in part only.
      apply_small(record, entry, window, seen);
      ++entry;
      continue;
    }
    if (shared)
      apply_shared(*extent, record, entry, count, window, seen);
    else
      apply_private(record, entry, count, window, seen);
    entry += count;
  }
  return seen;
}

void SharedPages::apply_private(const RecordView& record, std::uint32_t from, std::uint32_t count,
                                std::optional<unsigned> window, Seen& seen) {
  const bool counts = window.has_value();
  ApplyStats stats;
  if (count == record.count && !record.shared) {
    stats = heat_.apply(record, counts);
  } else {
    slice_nodes(record, from, count, nodes_);
    std::vector<EntryObservation> entries;
    std::uint32_t at = from;
    for (const NodeRun& run : nodes_)
      for (std::uint32_t i = 0; i < run.count; ++i, ++at) {
        entries.push_back(entry_of(record, at, run.node));
        // Others map it who are not looked at.
        if (record.shared) entries.back().observable = entries.back().accessed = false;
      }
    std::vector<std::byte> bytes;
    stats = heat_.apply(
        written(record, record.first + PageCount(std::uint64_t{from} << record.order.get()),
                record.order, entries, bytes),
        counts);
  }
  seen.stats.pages += stats.pages;
  seen.stats.accessed += stats.accessed;
  seen.stats.accessed_fast += stats.accessed_fast;
}

void SharedPages::apply_small(const RecordView& record, std::uint32_t entry,
                              std::optional<unsigned> window, Seen& seen) {
  slice_nodes(record, entry, 1, nodes_);
  const std::vector<EntryObservation> entries(kBlockEntries,
                                              entry_of(record, entry, nodes_.front().node));
  std::vector<std::byte> bytes;
  const Vpn first = record.first + PageCount(std::uint64_t{entry} << record.order.get());
  const Seen part = apply(written(record, first, kOrder4K, entries, bytes), window);
  seen.stats.pages += part.stats.pages;
  seen.stats.accessed += part.stats.accessed;
  seen.stats.accessed_fast += part.stats.accessed_fast;
}

void SharedPages::apply_idle(const Member& member, const RecordView& record, Seen& seen) {
  const Vpn end = record.first + record.pages();
  for (Vpn at = record.first; at < end;) {
    const Extent* extent = extent_at(member, at);
    const bool shared = extent != nullptr && extent->first <= at;
    const Vpn until =
        std::min(end, extent == nullptr ? end : (shared ? extent->end() : extent->first));
    if (!shared) {
      RecordView part = record;
      part.first = at;
      part.order = kOrder4K;
      part.count = static_cast<std::uint32_t>(
          std::min<std::uint64_t>((until - at).get(), std::uint32_t{1} << 31));
      seen.stats.pages += heat_.apply(part, false).pages;
      at = at + PageCount(part.count);
      continue;
    }
    // What this owner said before is as it was.
    const std::uint64_t begin = extent->home_of(at).get(), stop = begin + (until - at).get();
    const Asid home = extent->segment->places.front().asid;
    for (auto it = blocks_.lower_bound({home, begin / kBlockEntries});
         it != blocks_.end() && it->first.first == home; ++it) {
      const std::uint64_t base = it->first.second * kBlockEntries;
      if (base >= stop) break;
      const std::uint64_t from = std::max(base, begin);
      const BlockBits range = range_bits(from - base, std::min(stop, base + kBlockEntries) - from);
      Block& block = it->second;
      block.now = either(block.now, both(block.before, range));
      block.blind_now = either(block.blind_now, both(block.blind_before, range));
      if (extent->home) block.home_now = either(block.home_now, both(block.home_before, range));
    }
    at = until;
  }
}

void SharedPages::apply_shared(const Extent& extent, const RecordView& record, std::uint32_t from,
                               std::uint32_t count, std::optional<unsigned> window, Seen& seen) {
  const unsigned order = record.order.get();
  Part part;
  part.writes_only = record.writes_only;
  for (std::uint32_t entry = from; entry < from + count;) {
    const Vpn home = extent.home_of(record.first + PageCount(std::uint64_t{entry} << order));
    part.low = home.get() % kBlockEntries;
    part.block = Vpn(home.get() - part.low);
    std::uint32_t n = 1;
    if (order == 0) {
      n = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(kBlockEntries - part.low, from + count - entry));
      part.present = block_bits(record.present, entry, part.low, n);
      part.observable = block_bits(record.observable, entry, part.low, n);
      part.accessed = block_bits(record.accessed, entry, part.low, n);
      slice_nodes(record, entry, n, nodes_);
      part.nodes = nodes_;
      merge(extent, record.asid, part, window, seen);
    } else {
      // At home the block may begin within the page: then it is told as two parts of small ones.
      const bool aligned = part.low == 0;
      slice_nodes(record, entry, 1, nodes_);
      const auto tell = [&](std::uint64_t low, std::uint64_t n_pages) {
        const BlockBits range = range_bits(low, n_pages);
        part.low = low;
        part.present = record.present.test(entry) ? range : BlockBits{};
        part.observable = record.observable.test(entry) ? range : BlockBits{};
        part.accessed = record.accessed.test(entry) ? range : BlockBits{};
        const NodeRun nodes[] = {{nodes_.front().node, static_cast<std::uint32_t>(n_pages)}};
        part.nodes = nodes;
        part.huge = aligned;
        merge(extent, record.asid, part, window, seen);
      };
      const std::uint64_t first_part = kBlockEntries - part.low;
      tell(part.low, first_part);
      if (!aligned) {
        part.block = part.block + PageCount(kBlockEntries);
        tell(0, kBlockEntries - first_part);
      }
    }
    entry += n;
  }
}

SharedPages::Block* SharedPages::block_at(Asid asid, Vpn vpn, bool make) {
  const BlockKey key{asid, vpn.get() / kBlockEntries};
  if (hint_ != blocks_.end() && hint_->first != key) ++hint_;
  if (hint_ == blocks_.end() || hint_->first != key) {
    hint_ = blocks_.lower_bound(key);
    if (hint_ == blocks_.end() || hint_->first != key) {
      if (!make) return nullptr;
      hint_ = blocks_.emplace_hint(hint_, key, Block{});
    }
  }
  return &hint_->second;
}

void SharedPages::merge(const Extent& extent, Asid owner, const Part& part,
                        std::optional<unsigned> window, Seen& seen) {
  const Asid home = extent.segment->places.front().asid;
  Block* const found = block_at(home, part.block, any_set(part.present));
  if (found == nullptr) return;
  Block& block = *found;
  if (extent.home) block.home_now = either(block.home_now, part.present);
  block.now = either(block.now, part.present);
  // What was not written may have been read.
  const BlockBits observable =
      part.writes_only ? both(part.observable, part.accessed) : part.observable;
  block.blind_now = either(block.blind_now, without(part.present, observable));
  const BlockBits blind = either(block.blind_now, block.blind_before);
  const BlockBits at_home = either(block.home_now, block.home_before);

  BlockBits touched = both(part.accessed, observable);
  const auto order = heat_.order_at(home, part.block);
  const bool huge = part.huge ? extent.home || order != kOrder4K
                              : !extent.home && order == kOrder2M && any_set(at_home);
  if (huge && any_set(touched)) touched = all_bits();
  BlockSight sight;
  sight.asid = home;
  sight.block = part.block;
  sight.nodes = part.nodes;
  sight.low = part.low;
  sight.placed = extent.home ? part.present : without(part.present, at_home);
  if (!extent.home && any_set(sight.placed)) block.last_owner = owner;
  if (window) {
    if (block.accessed.size() <= *window) block.accessed.resize(*window + 1);
    BlockBits& accessed = block.accessed[*window];
    sight.touched = without(touched, accessed);
    accessed = either(accessed, touched);
    block.touched = either(block.touched, touched);
    // A touch is known, whoever can't tell of the page.
    sight.placed = either(sight.placed, both(both(touched, blind), part.present));
  }
  sight.blind = both(sight.placed, without(blind, block.touched));
  if (!any_set(sight.placed) && !any_set(sight.touched)) return;
  if (huge) {
    for (BlockBits* bits : {&sight.placed, &sight.blind, &sight.touched})
      (*bits)[0] = any_set(*bits) ? 1 : 0;
  }
  const ApplyStats stats = heat_.merge(sight, huge);
  seen.stats.accessed += stats.accessed;
  seen.stats.accessed_fast += stats.accessed_fast;
}

void SharedPages::clear_range(Asid asid, Vpn first, PageCount count) {
  const Member* member = find(asid);
  const Vpn end = first + count;
  while (first < end) {
    const Extent* extent = member == nullptr ? nullptr : extent_at(*member, first);
    const Vpn until = extent == nullptr ? end : std::min(end, std::max(first, extent->first));
    heat_.clear_range(asid, first, until - first);
    if (extent == nullptr || until == end) return;
    first = std::min(end, extent->end());
  }
}

// -------------------------------------------------------------------- the end of an epoch

PageCount SharedPages::sweep_out(Segment& segment, bool complete) {
  const PagePlace home = segment.places.front();
  const std::uint64_t begin = home.vpn.get(), end = begin + segment.count.get();
  std::uint64_t observable = 0;
  std::uint64_t at = begin;  // what lies before has been looked at
  const auto drop = [&](std::uint64_t from, std::uint64_t to) {
    if (from < to) heat_.clear_range(home.asid, Vpn(from), PageCount(to - from));
  };
  for (auto it = blocks_.lower_bound({home.asid, begin / kBlockEntries});
       it != blocks_.end() && it->first.first == home.asid; ++it) {
    const std::uint64_t base = it->first.second * kBlockEntries;
    if (base >= end) break;
    const Block& block = it->second;
    const std::uint64_t from = std::max(base, begin), to = std::min(end, base + kBlockEntries);
    const BlockBits range = range_bits(from - base, to - from);
    const BlockBits unknown = without(either(block.blind_now, block.blind_before), block.touched);
    observable += population(without(both(block.now, range), unknown));
    if (!complete) continue;
    if (segment.fresh) drop(at, from);
    const BlockBits gone =
        both(without(segment.fresh ? all_bits() : block.before, block.now), range);
    for (std::uint64_t page = from; any_set(gone) && page < to;) {
      std::uint64_t last = page;
      while (last < to && test(gone, last - base)) ++last;
      drop(page, last);
      page = last + 1;
    }
    at = to;
  }
  if (complete) {
    if (segment.fresh) drop(at, end);
    segment.fresh = false;
  }
  return PageCount(observable);
}

PageCount SharedPages::end_epoch(bool complete) {
  if (std::exchange(late_, false)) complete = false;
  PageCount observable;
  for (auto& [key, segments] : objects_)
    for (Segment& segment : segments) observable += sweep_out(segment, complete);
  for (auto it = blocks_.begin(); it != blocks_.end();) {
    Block& block = it->second;
    const auto roll = [&](BlockBits& now, BlockBits& before) {
      before = complete ? now : either(now, before);
      now = BlockBits{};
    };
    roll(block.now, block.before);
    roll(block.home_now, block.home_before);
    roll(block.blind_now, block.blind_before);
    block.touched = BlockBits{};
    block.accessed.clear();
    it = any_set(block.before) ? std::next(it) : blocks_.erase(it);
  }
  hint_ = blocks_.end();
  return observable;
}

}  // namespace thermocline
