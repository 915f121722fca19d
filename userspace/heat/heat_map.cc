// SPDX-License-Identifier: Apache-2.0
// Layout: address space -> map of GiB -> 512 leaves, one per 2 MiB. A leaf is nothing, a 2 MiB page
// (its heat and state in the leaf itself) or a block of 4 KiB entries in the BlockStore.
#include "heat/heat_map.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>

#include "heat/block_bits.h"
#include "heat/block_store.h"
#include "heat/kernels.h"
#include "heat/scale.h"

namespace thermocline {

namespace {

constexpr unsigned kBlockShift = 9;
constexpr unsigned kGibShift = 18;
constexpr std::size_t kGibLeaves = 512;
constexpr auto kThresholdCount = static_cast<unsigned>(kThresholds);
constexpr std::uint64_t kBlockPages = 1u << kBlockShift;
constexpr std::uint64_t kGibPages = 1u << kGibShift;

// Fields of a state byte, see PageState.
constexpr unsigned kTierBits = 7;
constexpr unsigned kUnobservableBit = 8;
constexpr unsigned kPlaceBits = kTierBits | kUnobservableBit;
constexpr unsigned kCooldownBits = 0x30;
constexpr unsigned kCooldownOne = 0x10;
constexpr unsigned kPromotedBit = 0x40;
constexpr unsigned kStuckBit = 0x80;
constexpr unsigned kMovableMask = kPlaceBits | kCooldownBits | kStuckBit;
constexpr std::uint8_t kAbsent = kTierBits;
/// Present, but on a node of no tier: nobody may move it.
constexpr std::uint8_t kNowhere = kPlaceBits;

constexpr std::uint8_t byte(unsigned value) {
  return static_cast<std::uint8_t>(value);
}

/// What a record's observation `place` (low four bits) makes of an entry. A page that is found on
/// another tier than before is not stuck there any more.
constexpr std::uint8_t next_state(std::uint8_t old, std::uint8_t place) {
  const unsigned keep = (old & kTierBits) == (place & kTierBits)
                            ? kCooldownBits | kPromotedBit | kStuckBit
                            : kCooldownBits | kPromotedBit;
  return place == kAbsent ? kAbsent : byte((old & keep) | place);
}

/// What is left of an epoch's touches in the next one.
constexpr std::uint8_t older_touches(std::uint8_t touches) {
  return (touches & 127u) != 0 ? byte(128) : byte(0);
}

constexpr std::uint8_t cooled(std::uint8_t state) {
  return (state & kCooldownBits) != 0 ? byte(state - kCooldownOne) : state;
}

std::uint8_t add_saturating(std::uint8_t heat, unsigned increment) {
  return byte(std::min(255u, heat + increment));
}

/// A 2 MiB or 1 GiB page.
struct HugeEntry {
  std::uint8_t heat = 0;
  std::uint8_t state = kAbsent;
  std::uint8_t touches = 0;
  [[nodiscard]] std::uint8_t place() const { return state & kPlaceBits; }
  [[nodiscard]] bool observable() const { return (state & kUnobservableBit) == 0; }
};

/// 0 = nothing, top bit set = a 2 MiB page with touches, state and heat in the low bytes, else
/// slot + 1.
class Leaf {
 public:
  [[nodiscard]] bool empty() const { return raw_ == 0; }
  [[nodiscard]] bool is_huge() const { return (raw_ & kHuge) != 0; }
  [[nodiscard]] bool is_block() const { return raw_ != 0 && !is_huge(); }
  [[nodiscard]] Slot slot() const { return raw_ - 1; }
  [[nodiscard]] HugeEntry huge() const {
    return {byte(raw_ & 0xff), byte((raw_ >> 8) & 0xff), byte((raw_ >> 16) & 0xff)};
  }
  void set_block(Slot slot) { raw_ = slot + 1; }
  void set_huge(HugeEntry e) {
    raw_ = kHuge | static_cast<std::uint32_t>(e.touches << 16) |
           static_cast<std::uint32_t>(e.state << 8) | e.heat;
  }
  void clear() { raw_ = 0; }

 private:
  static constexpr std::uint32_t kHuge = 0x80000000u;
  std::uint32_t raw_ = 0;
};

using Leaves = std::array<Leaf, kGibLeaves>;

struct Gib {
  std::unique_ptr<Leaves> leaves;  ///< nullptr = none in use
  std::uint32_t used = 0;          ///< leaves that are not empty
  std::uint32_t huge = 0;          ///< of these 2 MiB pages
  bool is_page = false;            ///< a 1 GiB page, and no leaves
  HugeEntry page;
  [[nodiscard]] bool empty() const { return !is_page && used == 0; }
};

/// Pages by the low four bits of their state; [kAbsent] means nothing.
using Totals = std::array<std::uint64_t, 16>;

struct Space {
  std::map<std::uint64_t, Gib> gibs;
  Totals totals{};
};

Occupancy occupancy_of(const Totals& totals) {
  Occupancy result;
  for (std::size_t t = 0; t < kMaxTiers; ++t)
    result.per_tier[t] = PageCount(totals[t] + totals[t + kUnobservableBit]);
  for (std::size_t p = kUnobservableBit; p < totals.size(); ++p)
    result.unobservable += PageCount(totals[p]);
  return result;
}

std::uint64_t observable_of(const Totals& totals) {
  std::uint64_t pages = 0;
  for (std::size_t t = 0; t < kMaxTiers; ++t) pages += totals[t];
  return pages;
}

std::uint8_t place_of(std::optional<NodeId> node, const std::vector<TierId>& tier_of_node) {
  if (!node || node->get() < 0) return kNowhere;
  const auto index = static_cast<std::size_t>(node->get());
  return index < tier_of_node.size() && tier_of_node[index].get() < kMaxTiers
             ? tier_of_node[index].get()
             : kNowhere;
}

/// The low four bits of a block's states: tier and whether it can be observed.
using Places = std::array<std::uint8_t, kBlockEntries>;

/// Each state has its place. Eight at a time: it is asked of every block of many places or holes.
bool holds(const std::uint8_t* state, const Places& places) {
  constexpr std::uint64_t kEach = 0x0101010101010101 * kPlaceBits;
  std::uint64_t changed = 0;
  for (std::size_t e = 0; e < kBlockEntries; e += 8) {
    std::uint64_t now, then;
    std::memcpy(&now, state + e, 8);
    std::memcpy(&then, places.data() + e, 8);
    changed |= (now & kEach) ^ then;
  }
  return changed == 0;
}

/// Goes through a record's node runs as places: tier, or kNowhere for a node of no tier.
class PlaceCursor {
 public:
  PlaceCursor(const RecordView& record, const std::vector<TierId>& tier_of_node)
      : record_(record), tiers_(tier_of_node) {
    load();
  }
  [[nodiscard]] std::uint8_t place() const { return place_; }
  [[nodiscard]] std::uint32_t left() const { return left_; }
  /// n <= left().
  void advance(std::uint32_t n) {
    left_ -= n;
    if (left_ == 0 && ++run_ < record_.node_run_count) load();
  }

 private:
  void load() {
    const NodeRun run = record_.node_run(run_);
    left_ = run.count;
    place_ = place_of(run.node, tiers_);
  }
  const RecordView& record_;
  const std::vector<TierId>& tiers_;
  std::uint32_t run_ = 0;
  std::uint32_t left_ = 0;
  std::uint8_t place_ = kNowhere;
};

/// Nothing is left out by it within an address space: the usual case, which shall cost nothing.
bool asks_for_all(const PageFilter& filter) {
  for (unsigned raw = 0; raw < 256; ++raw)
    if (!filter.touches.contains(Touches(byte(raw)))) return false;
  return filter.first == PageFilter{}.first && filter.end == PageFilter{}.end;
}

/// Keeps the best `limit` pages of a stream in address order: what is worse than the worst of a
/// full list is not even looked at.
class BestPages {
 public:
  BestPages(bool hottest_first, Heat min, Heat max, PageCount limit)
      : hottest_first_(hottest_first), low_(min.get()), high_(max.get()), limit_(limit.get()) {}

  /// Heat range that is still of interest; empty when low() > high().
  [[nodiscard]] unsigned low() const { return low_; }
  [[nodiscard]] unsigned high() const { return high_; }
  [[nodiscard]] bool closed() const { return limit_ == 0 || low_ > high_; }
  [[nodiscard]] bool wants(std::uint8_t heat) const { return heat >= low_ && heat <= high_; }

  void add(const PageRef& page) {
    pages_.push_back(page);
    weight_ += page.order.pages().get();
    if (weight_ / 2 >= limit_) prune();
  }

  std::vector<PageRef> finish() {
    sort();
    std::uint64_t total = 0;
    std::size_t n = 0;
    while (n < pages_.size() && pages_[n].order.pages().get() <= limit_ - total)
      total += pages_[n++].order.pages().get();
    pages_.resize(n);
    return std::move(pages_);
  }

 private:
  /// Counting sort by heat, stable: equal heats stay in address order.
  void sort() {
    std::array<std::size_t, 256> at{};
    for (const PageRef& p : pages_) ++at[rank(p)];
    std::size_t next = 0;
    for (std::size_t& a : at) next += std::exchange(a, next);
    sorted_.resize(pages_.size());
    for (const PageRef& p : pages_) sorted_[at[rank(p)]++] = p;
    pages_.swap(sorted_);
  }

  /// Keep pages until the limit is reached; later ones must be strictly better than the last kept.
  void prune() {
    sort();
    std::uint64_t total = 0;
    std::size_t n = 0;
    while (n < pages_.size() && total < limit_) total += pages_[n++].order.pages().get();
    pages_.resize(n);
    weight_ = total;
    const unsigned worst = pages_.back().heat.get();
    if (hottest_first_) {
      low_ = worst + 1;
    } else if (worst > 0) {
      high_ = worst - 1;
    } else {
      low_ = high_ + 1;
    }
  }

  [[nodiscard]] std::size_t rank(const PageRef& p) const {
    return hottest_first_ ? 255u - p.heat.get() : p.heat.get();
  }

  bool hottest_first_;
  unsigned low_, high_;
  std::uint64_t limit_;
  std::uint64_t weight_ = 0;
  std::vector<PageRef> pages_, sorted_;
};

}  // namespace

struct HeatMap::Impl {
  using Chunk = BlockStore::Chunk;

  Options options;
  const HeatKernels* kernels;
  BlockStore store;
  std::map<Asid, Space> spaces;
  Totals totals{};
  std::vector<TierId> tier_of_node;
  /// Edge of the last epoch: where the next one is looked for first. 0 = none yet.
  unsigned last_edge = 0;
  std::uint64_t epochs_aged = 0;
  mutable std::uint64_t gone_through = 0;  ///< entries, by the queries of policies
  /// Touches are those of an epoch that has been decided on: the next evidence begins a new one.
  bool touches_told = false;

  explicit Impl(const Options& o)
      : options(o), kernels(o.kernels != nullptr ? o.kernels : &best_heat_kernels()) {}

  // ---------------------------------------------------------------- book-keeping

  void count_pages(Space& space, std::uint8_t place, std::uint64_t pages) {
    space.totals[place] += pages;
    totals[place] += pages;
  }
  void uncount_pages(Space& space, std::uint8_t place, std::uint64_t pages) {
    space.totals[place] -= pages;
    totals[place] -= pages;
  }

  /// After the states of a block changed.
  void recount(Space& space, Chunk& chunk, std::size_t i) {
    StateCounts counts{};
    for (const std::uint8_t state : chunk.state[i]) ++counts[state & kPlaceBits];
    bool unobservable = false;
    for (std::uint8_t place = 0; place < counts.size(); ++place) {
      uncount_pages(space, place, chunk.counts[i][place]);
      count_pages(space, place, counts[place]);
      if (place >= kUnobservableBit && counts[place] > 0) unobservable = true;
    }
    chunk.counts[i] = counts;
    chunk.unobservable[i] = unobservable;
  }

  Leaves& leaves_of(Gib& gib) {
    if (!gib.leaves) gib.leaves = std::make_unique<Leaves>();
    return *gib.leaves;
  }

  void set_huge(Space& space, Gib& gib, Leaf& leaf, HugeEntry entry) {
    if (leaf.empty()) ++gib.used;
    ++gib.huge;
    leaf.set_huge(entry);
    count_pages(space, entry.place(), kBlockPages);
  }

  /// Drop what a leaf holds.
  void drop(Space& space, Gib& gib, Leaf& leaf) {
    if (leaf.empty()) return;
    if (leaf.is_huge()) {
      uncount_pages(space, leaf.huge().place(), kBlockPages);
      --gib.huge;
    } else {
      const Chunk& chunk = store.chunk_of(leaf.slot());
      const StateCounts& counts = chunk.counts[BlockStore::index_of(leaf.slot())];
      for (std::uint8_t place = 0; place < counts.size(); ++place)
        uncount_pages(space, place, counts[place]);
      store.free(leaf.slot());
    }
    leaf.clear();
    --gib.used;
  }

  /// Drop what a GiB holds.
  void drop(Space& space, Gib& gib) {
    if (gib.is_page) {
      uncount_pages(space, gib.page.place(), kGibPages);
      gib.is_page = false;
    }
    for (std::size_t l = 0; l < kGibLeaves && gib.leaves; ++l) drop(space, gib, (*gib.leaves)[l]);
  }

  Slot new_block(Space& space, Gib& gib, Leaf& leaf) {
    const Slot slot = store.allocate();
    if (leaf.empty()) ++gib.used;
    leaf.set_block(slot);
    count_pages(space, kAbsent, kBlockPages);
    return slot;
  }

  // ---------------------------------------------------------------- conversions

  /// A 2 MiB page becomes 512 entries that inherit its heat.
  void split(Space& space, Gib& gib, Leaf& leaf) {
    const HugeEntry huge = leaf.huge();
    drop(space, gib, leaf);
    const Slot slot = new_block(space, gib, leaf);
    Chunk& chunk = store.chunk_of(slot);
    const std::size_t i = BlockStore::index_of(slot);
    std::memset(chunk.heat[i], huge.heat, kBlockEntries);
    std::memset(chunk.state[i], huge.state, kBlockEntries);
    if (store.keeps_touches()) std::memset(chunk.touches[i], huge.touches, kBlockEntries);
    chunk.hottest[i] = huge.heat;
    chunk.cooling[i] = (huge.state & kCooldownBits) != 0;
    recount(space, chunk, i);
  }

  /// A 1 GiB page becomes 512 pages of 2 MiB that inherit its heat.
  void split(Space& space, Gib& gib) {
    const HugeEntry page = gib.page;
    drop(space, gib);
    for (Leaf& leaf : leaves_of(gib)) set_huge(space, gib, leaf, page);
  }

  /// Heat and rest that a larger page takes over from what was in its place.
  void absorb(HugeEntry& into, const Leaf& leaf) const {
    if (leaf.empty()) return;
    std::uint8_t heat = 0;
    std::uint8_t cooldown = 0;
    if (leaf.is_huge()) {
      into.touches = std::max(into.touches, leaf.huge().touches);
      heat = leaf.huge().heat;
      cooldown = leaf.huge().state & kCooldownBits;
    } else {
      const Chunk& chunk = store.chunk_of(leaf.slot());
      const std::size_t i = BlockStore::index_of(leaf.slot());
      heat = *std::max_element(std::begin(chunk.heat[i]), std::end(chunk.heat[i]));
      if (store.keeps_touches())
        into.touches = std::max(into.touches, *std::max_element(std::begin(chunk.touches[i]),
                                                                std::end(chunk.touches[i])));
      for (const std::uint8_t state : chunk.state[i])
        cooldown = std::max(cooldown, byte(state & kCooldownBits));
    }
    into.heat = std::max(into.heat, heat);
    cooldown = std::max(cooldown, byte(into.state & kCooldownBits));
    into.state = byte((into.state & ~kCooldownBits) | cooldown);
  }

  // ---------------------------------------------------------------- records

  void apply_base(Space& space, const RecordView& record, bool count, ApplyStats& stats);
  void apply_huge(Space& space, const RecordView& record, bool count, ApplyStats& stats);
  ApplyStats merge(Space& space, const BlockSight& sight);
  ApplyStats merge_huge(Space& space, const BlockSight& sight);
  void adopt(Space& space, Vpn vpn, std::uint8_t heat, std::uint8_t state, std::uint8_t touches);
  /// Tier of a node, or kNowhere.
  [[nodiscard]] std::uint8_t place_of(std::optional<NodeId> node) const {
    return thermocline::place_of(node, tier_of_node);
  }
  /// Observable pages that are known in [first, first + count).
  [[nodiscard]] PageCount observable_pages(Asid asid, Vpn first, PageCount count) const;
  [[nodiscard]] Places places_of(Slot slot) const;
  void update_places(Space& space, Slot slot, const Places& places);

  /// Takes over one observation of a huge page; `pages` is its size.
  void observe(HugeEntry& entry, std::uint8_t place, bool accessed, bool count, ApplyStats& stats,
               std::uint64_t pages) const {
    entry.state = next_state(entry.state, place);
    if (!entry.observable()) return;
    stats.pages += PageCount(pages);
    if (!accessed) return;
    stats.accessed += PageCount(pages);
    if (place == 0) stats.accessed_fast += PageCount(pages);
    if (!count) return;
    entry.heat = add_saturating(entry.heat, options.window_heat);
    if (store.keeps_touches() && (entry.touches & 127u) < 127) ++entry.touches;
  }

  /// Adds evidence to entries of a block.
  void touch(Chunk& chunk, std::size_t i, const BlockBits& touched) const {
    kernels->add(chunk.heat[i], touched, byte(options.window_heat));
    chunk.hottest[i] = add_saturating(chunk.hottest[i], options.window_heat);
    // An epoch has 64 windows at most, so the count never reaches the bit of the epoch before.
    if (store.keeps_touches()) kernels->add(chunk.touches[i], touched, 1);
  }
  /// Before evidence is taken in.
  void expect_evidence() {
    if (std::exchange(touches_told, false)) grow_older();
  }
  void grow_older();

  // ---------------------------------------------------------------- passes

  void age_and_count(const Thresholds& thresholds, ThresholdCounts& counts);
  void count(const Thresholds& thresholds, ThresholdCounts& counts) const;

  /// Narrows the edge down by counting; starts from what `counts` of `thresholds` say already.
  [[nodiscard]] Threshold find_edge(PageCount capacity, const Thresholds& thresholds,
                                    const ThresholdCounts& counts) const;
  [[nodiscard]] Thresholds first_guess(unsigned top) const;

  /// Calls visit(vpn, order, const HugeEntry*, const Slot*) for every page and block of a space, in
  /// address order; exactly one of the pointers is set. Stops when visit returns false.
  template <class Visit>
  static bool for_each(const Space& space, Visit visit) {
    for (const auto& [number, gib] : space.gibs) {
      const Vpn base(number << kGibShift);
      if (gib.is_page && !visit(base, kOrder1G, &gib.page, nullptr)) return false;
      if (gib.used == 0) continue;
      for (std::size_t l = 0; l < kGibLeaves; ++l) {
        const Leaf leaf = (*gib.leaves)[l];
        if (leaf.empty()) continue;
        const Vpn vpn = base + PageCount(l << kBlockShift);
        if (leaf.is_huge()) {
          const HugeEntry huge = leaf.huge();
          if (!visit(vpn, kOrder2M, &huge, nullptr)) return false;
        } else {
          const Slot slot = leaf.slot();
          if (!visit(vpn, kOrder4K, nullptr, &slot)) return false;
        }
      }
    }
    return true;
  }

  /// Calls change_huge(HugeEntry&) or change_base(state&) for the page at `vpn`, if there is one.
  template <class Huge, class Base>
  void change_page(Asid asid, Vpn vpn, Huge change_huge, Base change_base);
};

// -------------------------------------------------------------------- records

Places HeatMap::Impl::places_of(Slot slot) const {
  const std::uint8_t* state = store.chunk_of(slot).state[BlockStore::index_of(slot)];
  Places places;
  for (std::size_t e = 0; e < kBlockEntries; ++e) places[e] = state[e] & kPlaceBits;
  return places;
}

void HeatMap::Impl::update_places(Space& space, Slot slot, const Places& places) {
  Chunk& chunk = store.chunk_of(slot);
  const std::size_t i = BlockStore::index_of(slot);
  std::uint8_t* state = chunk.state[i];
  std::uint8_t* heat = chunk.heat[i];
  if (holds(state, places)) return;
  for (std::size_t e = 0; e < kBlockEntries; ++e) {
    state[e] = next_state(state[e], places[e]);
    heat[e] = places[e] == kAbsent ? std::uint8_t{0} : heat[e];
  }
  if (store.keeps_touches())
    for (std::size_t e = 0; e < kBlockEntries; ++e)
      if (places[e] == kAbsent) chunk.touches[i][e] = 0;
  recount(space, chunk, i);
}

void HeatMap::Impl::apply_base(Space& space, const RecordView& record, bool count,
                               ApplyStats& stats) {
  PlaceCursor cursor(record, tier_of_node);
  std::uint64_t entry = 0;
  while (entry < record.count) {
    const std::uint64_t vpn = record.first.get() + entry;
    const std::uint64_t low = vpn % kBlockPages;
    const std::uint64_t n = std::min<std::uint64_t>(kBlockPages - low, record.count - entry);
    // Nearly always all pages of a block are there and can be observed.
    const bool all_present = n == kBlockPages && record.present.is_ones();
    const BlockBits present = block_bits(record.present, entry, low, n);
    bool all_observable = all_present && record.observable.is_ones() && !record.writes_only;
    BlockBits observable = block_bits(record.observable, entry, low, n);
    // What was not written may have been read.
    if (record.writes_only)
      observable = combine(observable, block_bits(record.accessed, entry, low, n), kAnd);
    const bool one_place = cursor.left() >= n && cursor.place() != kNowhere;

    Gib& gib = space.gibs[vpn >> kGibShift];
    if (gib.is_page) split(space, gib);
    Leaf& leaf = leaves_of(gib)[(vpn >> kBlockShift) % kGibLeaves];
    if (leaf.is_huge()) split(space, gib, leaf);
    if (leaf.empty() && any_set(present)) new_block(space, gib, leaf);

    BlockBits fast{};
    if (leaf.is_block() && one_place && all_observable &&
        store.chunk_of(leaf.slot()).counts[BlockStore::index_of(leaf.slot())][cursor.place()] ==
            kBlockPages) {
      // Nothing moved, appeared or went: the usual case.
      if (cursor.place() == 0) fast = present;
      cursor.advance(static_cast<std::uint32_t>(n));
    } else {
      Places places;
      if (n < kBlockPages && leaf.is_block()) places = places_of(leaf.slot());
      BlockBits nowhere{};
      for (std::uint64_t at = low; at < low + n;) {
        const auto step =
            static_cast<std::uint32_t>(std::min<std::uint64_t>(cursor.left(), low + n - at));
        const std::uint8_t place = cursor.place();
        // Where pages lie scattered, runs are short.
        if (step < 16) {
          for (std::uint64_t e = at; e < at + step; ++e) places[e] = place;
        } else {
          std::memset(places.data() + at, place, step);
        }
        if (place == 0 || place == kNowhere) set_range(place == 0 ? fast : nowhere, at, step);
        cursor.advance(step);
        at += step;
      }
      observable = combine(observable, nowhere, kAndNot);
      all_observable = all_observable && !any_set(nowhere);
      if (leaf.is_block()) {
        if (!all_observable) {
          // With the kernel that adds under a mask: + 8 marks what can't be observed, + 255 what
          // is not there (it saturates).
          const BlockBits covered = range_bits(low, n);
          const BlockBits blind = combine(combine(present, observable, kAndNot), nowhere, kAndNot);
          kernels->add(places.data(), blind, kUnobservableBit);
          kernels->add(places.data(), combine(covered, present, kAndNot), 255);
          for (std::uint8_t& place : places) place = place == 255 ? kAbsent : place;
        }
        update_places(space, leaf.slot(), places);
      }
    }

    stats.pages += PageCount(all_observable ? n : kernels->population(observable));
    if (!record.accessed.is_zeros()) {
      const BlockBits touched =
          combine(block_bits(record.accessed, entry, low, n), observable, kAnd);
      stats.accessed += PageCount(kernels->population(touched));
      stats.accessed_fast += PageCount(kernels->population(combine(touched, fast, kAnd)));
      if (count && leaf.is_block() && any_set(touched))
        touch(store.chunk_of(leaf.slot()), BlockStore::index_of(leaf.slot()), touched);
    }
    if (leaf.is_block() && !all_present &&
        store.chunk_of(leaf.slot()).counts[BlockStore::index_of(leaf.slot())][kAbsent] ==
            kBlockPages)
      drop(space, gib, leaf);
    if (gib.empty()) space.gibs.erase(vpn >> kGibShift);
    entry += n;
  }
}

void HeatMap::Impl::apply_huge(Space& space, const RecordView& record, bool count,
                               ApplyStats& stats) {
  PlaceCursor cursor(record, tier_of_node);
  const bool giant = record.order == kOrder1G;
  for (std::uint32_t e = 0; e < record.count; ++e, cursor.advance(1)) {
    const Vpn vpn = record.first + PageCount(std::uint64_t{e} << record.order.get());
    const std::uint64_t number = vpn.get() >> kGibShift;
    if (!record.present.test(e)) {
      const auto found = space.gibs.find(number);
      if (found == space.gibs.end()) continue;
      Gib& gib = found->second;
      if (gib.is_page) {
        if (giant) {
          drop(space, gib);
        } else {
          split(space, gib);
        }
      }
      if (!giant && gib.leaves) {
        Leaf& leaf = (*gib.leaves)[(vpn.get() >> kBlockShift) % kGibLeaves];
        if (leaf.is_huge()) drop(space, gib, leaf);
      }
      if (gib.empty()) space.gibs.erase(found);
      continue;
    }
    std::uint8_t place = cursor.place();
    const bool accessed = record.accessed.test(e);
    // What was not written may have been read.
    if (!record.observable.test(e) || (record.writes_only && !accessed)) place |= kUnobservableBit;
    Gib& gib = space.gibs[number];
    if (giant) {
      HugeEntry page;
      if (gib.is_page) {
        page = gib.page;
      } else if (gib.leaves) {
        for (const Leaf& leaf : *gib.leaves) absorb(page, leaf);
      }
      drop(space, gib);
      observe(page, place, accessed, count, stats, kGibPages);
      gib.page = page;
      gib.is_page = true;
      count_pages(space, page.place(), kGibPages);
    } else {
      if (gib.is_page) split(space, gib);
      Leaf& leaf = leaves_of(gib)[(vpn.get() >> kBlockShift) % kGibLeaves];
      HugeEntry huge;
      if (leaf.is_huge()) {
        huge = leaf.huge();
      } else {
        absorb(huge, leaf);
      }
      drop(space, gib, leaf);
      observe(huge, place, accessed, count, stats, kBlockPages);
      set_huge(space, gib, leaf, huge);
    }
  }
}

ApplyStats HeatMap::Impl::merge(Space& space, const BlockSight& sight) {
  ApplyStats stats;
  const std::uint64_t number = sight.block.get() >> kGibShift;
  Gib& gib = space.gibs[number];
  if (gib.is_page) split(space, gib);
  Leaf& leaf = leaves_of(gib)[(sight.block.get() >> kBlockShift) % kGibLeaves];
  if (leaf.is_huge()) split(space, gib, leaf);
  if (leaf.empty() && any_set(sight.placed)) new_block(space, gib, leaf);
  if (leaf.is_block()) {
    Chunk& chunk = store.chunk_of(leaf.slot());
    const std::size_t i = BlockStore::index_of(leaf.slot());
    Places places = places_of(leaf.slot());
    std::size_t e = sight.low;
    for (const NodeRun& run : sight.nodes) {
      const std::uint8_t place = place_of(run.node);
      for (const std::size_t end = std::min<std::size_t>(e + run.count, kBlockEntries); e < end;
           ++e) {
        if (!test(sight.placed, e)) continue;
        places[e] = test(sight.blind, e) ? byte(place | kUnobservableBit) : place;
      }
    }
    update_places(space, leaf.slot(), places);
    if (any_set(sight.touched)) {
      BlockBits touched{}, fast{};
      for (std::size_t at = 0; at < kBlockEntries; ++at) {
        if (!test(sight.touched, at) || places[at] >= kAbsent) continue;
        touched[at / 64] |= std::uint64_t{1} << (at % 64);
        if (places[at] == 0) fast[at / 64] |= std::uint64_t{1} << (at % 64);
      }
      stats.accessed = PageCount(kernels->population(touched));
      stats.accessed_fast = PageCount(kernels->population(fast));
      touch(chunk, i, touched);
    }
    if (chunk.counts[i][kAbsent] == kBlockPages) drop(space, gib, leaf);
  }
  if (gib.empty()) space.gibs.erase(number);
  return stats;
}

ApplyStats HeatMap::Impl::merge_huge(Space& space, const BlockSight& sight) {
  ApplyStats stats;
  const std::uint64_t number = sight.block.get() >> kGibShift;
  Gib& gib = space.gibs[number];
  if (gib.is_page) split(space, gib);
  Leaf& leaf = leaves_of(gib)[(sight.block.get() >> kBlockShift) % kGibLeaves];
  const bool placed = test(sight.placed, 0);
  if (placed || leaf.is_huge()) {
    HugeEntry huge;
    if (leaf.is_huge()) {
      huge = leaf.huge();
    } else {
      absorb(huge, leaf);
    }
    std::uint8_t place = huge.place();
    if (placed) {
      place = sight.nodes.empty() ? kNowhere : place_of(sight.nodes.front().node);
      if (test(sight.blind, 0)) place |= kUnobservableBit;
    }
    drop(space, gib, leaf);
    observe(huge, place, test(sight.touched, 0), true, stats, kBlockPages);
    set_huge(space, gib, leaf, huge);
  }
  if (gib.empty()) space.gibs.erase(number);
  stats.pages = PageCount(0);
  return stats;
}

/// Takes over a page of 4 KiB, or finds out that it is known.
void HeatMap::Impl::adopt(Space& space, Vpn vpn, std::uint8_t heat, std::uint8_t state,
                          std::uint8_t touches) {
  Gib& gib = space.gibs[vpn.get() >> kGibShift];
  if (gib.is_page) {
    gib.page.heat = std::max(gib.page.heat, heat);
    gib.page.touches = std::max(gib.page.touches, touches);
    return;
  }
  Leaf& leaf = leaves_of(gib)[(vpn.get() >> kBlockShift) % kGibLeaves];
  if (leaf.is_huge()) {
    HugeEntry huge = leaf.huge();
    huge.heat = std::max(huge.heat, heat);
    huge.touches = std::max(huge.touches, touches);
    leaf.set_huge(huge);
    return;
  }
  if (leaf.empty()) new_block(space, gib, leaf);
  Chunk& chunk = store.chunk_of(leaf.slot());
  const std::size_t i = BlockStore::index_of(leaf.slot());
  const std::size_t e = vpn.get() % kBlockPages;
  chunk.heat[i][e] = std::max(chunk.heat[i][e], heat);
  chunk.hottest[i] = std::max(chunk.hottest[i], heat);
  if (store.keeps_touches()) chunk.touches[i][e] = std::max(chunk.touches[i][e], touches);
  if (chunk.state[i][e] != kAbsent) return;
  chunk.state[i][e] = state;
  const std::uint8_t place = state & kPlaceBits;
  if ((state & kCooldownBits) != 0) chunk.cooling[i] = true;
  if (place >= kUnobservableBit) chunk.unobservable[i] = true;
  --chunk.counts[i][kAbsent];
  ++chunk.counts[i][place];
  uncount_pages(space, kAbsent, 1);
  count_pages(space, place, 1);
}

PageCount HeatMap::Impl::observable_pages(Asid asid, Vpn first, PageCount count) const {
  const auto found = spaces.find(asid);
  if (found == spaces.end()) return PageCount(0);
  const std::uint64_t begin = first.get();
  const std::uint64_t end = begin + count.get();
  const auto overlap = [&](std::uint64_t at, std::uint64_t n) {
    return std::min(end, at + n) - std::max(begin, at);
  };
  std::uint64_t pages = 0;
  const auto& gibs = found->second.gibs;
  for (auto it = gibs.lower_bound(begin >> kGibShift); it != gibs.end(); ++it) {
    const auto& [number, gib] = *it;
    const std::uint64_t base = number << kGibShift;
    if (base >= end) break;
    if (gib.is_page && gib.page.observable()) pages += overlap(base, kGibPages);
    if (gib.used == 0) continue;
    const std::uint64_t from = std::max(begin, base) & ~(kBlockPages - 1);
    for (std::uint64_t at = from; at < std::min(end, base + kGibPages); at += kBlockPages) {
      const Leaf leaf = (*gib.leaves)[(at >> kBlockShift) % kGibLeaves];
      if (leaf.is_huge()) {
        if (leaf.huge().observable()) pages += overlap(at, kBlockPages);
      } else if (leaf.is_block()) {
        const Chunk& chunk = store.chunk_of(leaf.slot());
        const std::size_t i = BlockStore::index_of(leaf.slot());
        if (overlap(at, kBlockPages) == kBlockPages) {
          for (std::size_t t = 0; t < kMaxTiers; ++t) pages += chunk.counts[i][t];
        } else {
          for (std::uint64_t e = std::max(begin, at); e < std::min(end, at + kBlockPages); ++e)
            pages += (chunk.state[i][e % kBlockPages] & kPlaceBits) < kMaxTiers ? 1u : 0u;
        }
      }
    }
  }
  return PageCount(pages);
}

// -------------------------------------------------------------------- passes

namespace {

void count_huge(const HugeEntry& entry, std::uint64_t pages, const Thresholds& thresholds,
                ThresholdCounts& counts) {
  if (!entry.observable()) return;
  for (std::size_t t = 0; t < kThresholds; ++t)
    if (entry.heat >= thresholds[t]) counts[t] += pages;
}

void age_huge(HugeEntry& entry, unsigned dither) {
  if (entry.observable()) entry.heat = aged(entry.heat, dither);
  entry.state = cooled(entry.state);
}

/// Heat of a block without that of its unobservable entries.
void observable_heat(const BlockStore::Chunk& chunk, std::size_t i, std::uint8_t* heat) {
  for (std::size_t e = 0; e < kBlockEntries; ++e)
    heat[e] = (chunk.state[i][e] & kUnobservableBit) != 0 ? std::uint8_t{0} : chunk.heat[i][e];
}

}  // namespace

void HeatMap::Impl::age_and_count(const Thresholds& thresholds, ThresholdCounts& counts) {
  const unsigned dither = dither_of(epochs_aged++);
  store.for_each_chunk([&](Chunk& chunk, std::size_t used) {
    for (std::size_t i = 0; i < used;) {
      std::size_t end = i;
      while (end < used && chunk.hottest[end] != 0 && !chunk.unobservable[end]) ++end;
      if (end > i) {
        kernels->age_and_count(chunk.heat[i], end - i, dither, &chunk.hottest[i], thresholds,
                               counts);
        i = end;
        continue;
      }
      if (chunk.hottest[i] != 0) {
        std::uint8_t older[kBlockEntries];
        observable_heat(chunk, i, older);
        kernels->age_and_count(older, 1, dither, &chunk.hottest[i], thresholds, counts);
        for (std::size_t e = 0; e < kBlockEntries; ++e) {
          if ((chunk.state[i][e] & kUnobservableBit) == 0) chunk.heat[i][e] = older[e];
          chunk.hottest[i] = std::max(chunk.hottest[i], chunk.heat[i][e]);
        }
      }
      ++i;
    }
    for (std::size_t i = 0; i < used; ++i) {
      if (!chunk.cooling[i]) continue;
      unsigned left = 0;
      for (std::uint8_t& state : chunk.state[i]) {
        state = cooled(state);
        left |= state & kCooldownBits;
      }
      chunk.cooling[i] = left != 0;
    }
  });
  for (auto& [asid, space] : spaces) {
    for (auto& [number, gib] : space.gibs) {
      if (gib.is_page) {
        age_huge(gib.page, dither);
        count_huge(gib.page, kGibPages, thresholds, counts);
      }
      if (gib.huge == 0) continue;
      for (Leaf& leaf : *gib.leaves) {
        if (!leaf.is_huge()) continue;
        HugeEntry huge = leaf.huge();
        age_huge(huge, dither);
        leaf.set_huge(huge);
        count_huge(huge, kBlockPages, thresholds, counts);
      }
    }
  }
}

void HeatMap::Impl::grow_older() {
  store.for_each_chunk([](Chunk& chunk, std::size_t used) {
    std::uint8_t* const touches = chunk.touches[0];
    for (std::size_t e = 0; e < used * kBlockEntries; ++e) touches[e] = older_touches(touches[e]);
  });
  for (auto& [asid, space] : spaces) {
    for (auto& [number, gib] : space.gibs) {
      gib.page.touches = older_touches(gib.page.touches);
      if (gib.huge == 0) continue;
      for (Leaf& leaf : *gib.leaves) {
        if (!leaf.is_huge()) continue;
        HugeEntry huge = leaf.huge();
        huge.touches = older_touches(huge.touches);
        leaf.set_huge(huge);
      }
    }
  }
}

void HeatMap::Impl::count(const Thresholds& thresholds, ThresholdCounts& counts) const {
  const std::uint8_t lowest = *std::min_element(thresholds.begin(), thresholds.end());
  store.for_each_chunk([&](Chunk& chunk, std::size_t used) {
    for (std::size_t i = 0; i < used;) {
      std::size_t end = i;
      while (end < used && chunk.hottest[end] >= lowest && !chunk.unobservable[end]) ++end;
      if (end > i) {
        kernels->count(chunk.heat[i], end - i, thresholds, counts);
        i = end;
        continue;
      }
      if (chunk.hottest[i] >= lowest) {
        std::uint8_t heat[kBlockEntries];
        observable_heat(chunk, i, heat);
        kernels->count(heat, 1, thresholds, counts);
      }
      ++i;
    }
  });
  for (const auto& [asid, space] : spaces) {
    for (const auto& [number, gib] : space.gibs) {
      if (gib.is_page) count_huge(gib.page, kGibPages, thresholds, counts);
      if (gib.huge == 0) continue;
      for (const Leaf& leaf : *gib.leaves)
        if (leaf.is_huge()) count_huge(leaf.huge(), kBlockPages, thresholds, counts);
    }
  }
}

/// Six heats in a row around the last edge, so that one pass settles it when it moved by at most 2;
/// the other two halve what lies below and above. `top` is one past the largest heat possible.
Thresholds HeatMap::Impl::first_guess(unsigned top) const {
  Thresholds guess{};
  if (last_edge == 0) {
    for (unsigned t = 0; t < kThresholdCount; ++t)
      guess[t] = byte(1 + t * (top - 1) / kThresholdCount);
    return guess;
  }
  const unsigned first = std::clamp(last_edge, 4u, top - 3u) - 3u;
  for (unsigned t = 0; t < 6; ++t) guess[t] = byte(first + t);
  guess[6] = byte(std::max(1u, first / 2));
  guess[7] = byte(std::min(255u, (first + 6 + top) / 2));
  return guess;
}

Threshold HeatMap::Impl::find_edge(PageCount capacity, const Thresholds& thresholds,
                                   const ThresholdCounts& counts) const {
  const std::uint64_t room = capacity.minus_floor(PageCount(totals[kUnobservableBit])).get();
  const std::uint64_t all = observable_of(totals);
  if (all <= room) return {Heat(0), true, PageCount(all), PageCount(all)};
  // Invariant: the pages at or above `low` don't fit, those at or above `high` do.
  unsigned low = 0, high = 256;
  std::uint64_t at_low = all, at_high = 0;
  const auto narrow = [&](const Thresholds& heats, const ThresholdCounts& found) {
    for (std::size_t t = 0; t < kThresholds; ++t) {
      if (found[t] > room) {
        if (heats[t] <= low) continue;
        low = heats[t];
        at_low = found[t];
      } else if (heats[t] < high) {
        high = heats[t];
        at_high = found[t];
      }
    }
  };
  narrow(thresholds, counts);
  while (high - low > 1 && low < 255) {
    Thresholds heats;
    for (unsigned t = 0; t < kThresholdCount; ++t)
      heats[t] = byte(std::clamp(low + (high - low) * (t + 1) / (kThresholdCount + 1), low + 1,
                                 std::min(high - 1, 255u)));
    ThresholdCounts found{};
    count(heats, found);
    narrow(heats, found);
  }
  if (high <= 255) return {Heat(byte(high)), true, PageCount(at_high), PageCount(at_low)};
  ThresholdCounts found{};
  Thresholds heats;
  heats.fill(254);
  count(heats, found);
  return {Heat(255), false, PageCount(at_low), PageCount(found[0])};
}

// -------------------------------------------------------------------- single pages

template <class Huge, class Base>
void HeatMap::Impl::change_page(Asid asid, Vpn vpn, Huge change_huge, Base change_base) {
  const auto found = spaces.find(asid);
  if (found == spaces.end()) return;
  Space& space = found->second;
  const auto at = space.gibs.find(vpn.get() >> kGibShift);
  if (at == space.gibs.end()) return;
  Gib& gib = at->second;
  if (gib.is_page) {
    uncount_pages(space, gib.page.place(), kGibPages);
    change_huge(gib.page);
    count_pages(space, gib.page.place(), kGibPages);
    return;
  }
  if (!gib.leaves) return;
  Leaf& leaf = (*gib.leaves)[(vpn.get() >> kBlockShift) % kGibLeaves];
  if (leaf.empty()) return;
  if (leaf.is_huge()) {
    HugeEntry huge = leaf.huge();
    uncount_pages(space, huge.place(), kBlockPages);
    change_huge(huge);
    leaf.set_huge(huge);
    count_pages(space, huge.place(), kBlockPages);
    return;
  }
  Chunk& chunk = store.chunk_of(leaf.slot());
  const std::size_t i = BlockStore::index_of(leaf.slot());
  std::uint8_t& state = chunk.state[i][vpn.get() % kBlockPages];
  if (state == kAbsent) return;
  const std::uint8_t before = state & kPlaceBits;
  change_base(state);
  const std::uint8_t after = state & kPlaceBits;
  if ((state & kCooldownBits) != 0) chunk.cooling[i] = true;
  --chunk.counts[i][before];
  ++chunk.counts[i][after];
  uncount_pages(space, before, 1);
  count_pages(space, after, 1);
}

// -------------------------------------------------------------------- the class

HeatMap::HeatMap() : HeatMap(Options{}) {}
HeatMap::HeatMap(Options options) : impl_(std::make_unique<Impl>(options)) {
  set_window_heat(options.window_heat);
}
HeatMap::~HeatMap() = default;

void HeatMap::set_window_heat(unsigned heat) {
  impl_->options.window_heat = std::min(heat, 255u);
}

void HeatMap::keep_touches(bool on) {
  if (impl_->store.keeps_touches() == on) return;
  impl_->touches_told = false;
  // Huge pages have theirs in the leaf: twice an epoch older is never.
  for (int epoch = 0; epoch < 2 && !on; ++epoch) impl_->grow_older();
  impl_->store.keep_touches(on);
}

void HeatMap::set_node_tiers(std::span<const TierId> tier_of_node) {
  impl_->tier_of_node.assign(tier_of_node.begin(), tier_of_node.end());
}

ApplyStats HeatMap::apply(const RecordView& record, bool count_accessed) {
  ApplyStats stats;
  if (record.idle) {
    stats.pages = impl_->observable_pages(record.asid, record.first, record.pages());
    return stats;
  }
  if (count_accessed) impl_->expect_evidence();
  Space& space = impl_->spaces[record.asid];
  if (record.order == kOrder4K) {
    impl_->apply_base(space, record, count_accessed, stats);
  } else {
    impl_->apply_huge(space, record, count_accessed, stats);
  }
  if (space.gibs.empty()) impl_->spaces.erase(record.asid);
  return stats;
}

ApplyStats HeatMap::merge(const BlockSight& sight, bool huge) {
  impl_->expect_evidence();
  Space& space = impl_->spaces[sight.asid];
  const ApplyStats stats = huge ? impl_->merge_huge(space, sight) : impl_->merge(space, sight);
  if (space.gibs.empty()) impl_->spaces.erase(sight.asid);
  return stats;
}

void HeatMap::hand_over(Asid from, Vpn first, PageCount count, Asid to, Vpn to_first) {
  const auto found = impl_->spaces.find(from);
  if (found == impl_->spaces.end() || count.get() == 0 || (from == to && first == to_first)) return;
  Space& source = found->second;
  Space& target = impl_->spaces[to];
  const std::uint64_t begin = first.get(), end = begin + count.get();
  const bool aligned = (to_first.get() - begin) % kBlockPages == 0;
  const auto there = [&](std::uint64_t vpn) { return Vpn(vpn - begin + to_first.get()); };
  for (auto it = source.gibs.lower_bound(begin >> kGibShift); it != source.gibs.end(); ++it) {
    Gib& gib = it->second;
    const std::uint64_t base = it->first << kGibShift;
    if (base >= end) break;
    if (gib.is_page) impl_->split(source, gib);
    const std::uint64_t from_block = std::max(begin, base) & ~(kBlockPages - 1);
    const std::uint64_t stop = std::min(end, base + kGibPages);
    for (std::uint64_t at = from_block; at < stop && gib.used > 0; at += kBlockPages) {
      Leaf& leaf = (*gib.leaves)[(at >> kBlockShift) % kGibLeaves];
      if (leaf.empty()) continue;
      if (leaf.is_huge()) {
        if (aligned && at >= begin && at + kBlockPages <= end) {
          Gib& new_gib = target.gibs[there(at).get() >> kGibShift];
          if (!new_gib.is_page) {
            Leaf& place = impl_->leaves_of(new_gib)[(there(at).get() >> kBlockShift) % kGibLeaves];
            if (place.empty()) {
              impl_->set_huge(target, new_gib, place, leaf.huge());
              continue;
            }
          }
        }
        impl_->split(source, gib, leaf);
      }
      const auto& chunk = impl_->store.chunk_of(leaf.slot());
      const std::size_t i = BlockStore::index_of(leaf.slot());
      for (std::uint64_t vpn = std::max(begin, at); vpn < std::min(end, at + kBlockPages); ++vpn) {
        const std::uint8_t state = chunk.state[i][vpn % kBlockPages];
        if (state != kAbsent)
          impl_->adopt(target, there(vpn), chunk.heat[i][vpn % kBlockPages], state,
                       chunk.touches[i][vpn % kBlockPages]);
      }
    }
  }
  if (target.gibs.empty()) impl_->spaces.erase(to);
  clear_range(from, first, count);
}

std::optional<PageOrder> HeatMap::order_at(Asid asid, Vpn vpn) const {
  const auto found = impl_->spaces.find(asid);
  if (found == impl_->spaces.end()) return std::nullopt;
  const auto at = found->second.gibs.find(vpn.get() >> kGibShift);
  if (at == found->second.gibs.end()) return std::nullopt;
  if (at->second.is_page) return kOrder1G;
  if (!at->second.leaves) return std::nullopt;
  const Leaf leaf = (*at->second.leaves)[(vpn.get() >> kBlockShift) % kGibLeaves];
  if (leaf.empty()) return std::nullopt;
  return leaf.is_huge() ? kOrder2M : kOrder4K;
}

void HeatMap::clear_range(Asid asid, Vpn first, PageCount count) {
  const auto found = impl_->spaces.find(asid);
  if (found == impl_->spaces.end() || count.get() == 0) return;
  Space& space = found->second;
  const std::uint64_t begin = first.get();
  const std::uint64_t end = begin + count.get();
  for (auto it = space.gibs.lower_bound(begin >> kGibShift); it != space.gibs.end();) {
    Gib& gib = it->second;
    const std::uint64_t base = it->first << kGibShift;
    if (base >= end) break;
    if (begin <= base && base + kGibPages <= end) {
      impl_->drop(space, gib);
      it = space.gibs.erase(it);
      continue;
    }
    if (gib.is_page) impl_->split(space, gib);
    const std::uint64_t from = std::max(begin, base);
    const std::uint64_t to = std::min(end, base + kGibPages);
    for (std::uint64_t at = from; at < to && gib.used > 0;) {
      const std::uint64_t low = at % kBlockPages;
      const std::uint64_t n = std::min(kBlockPages - low, to - at);
      Leaf& leaf = (*gib.leaves)[(at >> kBlockShift) % kGibLeaves];
      if (n == kBlockPages) {
        impl_->drop(space, gib, leaf);
      } else if (!leaf.empty()) {
        if (leaf.is_huge()) impl_->split(space, gib, leaf);
        Places places = impl_->places_of(leaf.slot());
        std::memset(places.data() + low, kAbsent, n);
        impl_->update_places(space, leaf.slot(), places);
        const auto& chunk = impl_->store.chunk_of(leaf.slot());
        if (chunk.counts[BlockStore::index_of(leaf.slot())][kAbsent] == kBlockPages)
          impl_->drop(space, gib, leaf);
      }
      at += n;
    }
    it = gib.empty() ? space.gibs.erase(it) : std::next(it);
  }
  if (space.gibs.empty()) impl_->spaces.erase(found);
}

void HeatMap::forget(Asid asid) {
  const auto found = impl_->spaces.find(asid);
  if (found == impl_->spaces.end()) return;
  for (auto& [number, gib] : found->second.gibs) impl_->drop(found->second, gib);
  impl_->spaces.erase(found);
}

Threshold HeatMap::age_and_select(PageCount capacity) {
  const Thresholds thresholds = impl_->first_guess(kAlwaysHot + 1);
  ThresholdCounts counts{};
  impl_->age_and_count(thresholds, counts);
  impl_->expect_evidence();  // an epoch without any
  impl_->touches_told = impl_->store.keeps_touches();
  const Threshold edge = impl_->find_edge(capacity, thresholds, counts);
  impl_->last_edge = edge.heat.get();
  return edge;
}

void HeatMap::fade(Asid asid) {
  constexpr unsigned kShift = 2;
  const auto found = impl_->spaces.find(asid);
  if (found == impl_->spaces.end()) return;
  const auto fade_huge = [](HugeEntry& page) {
    if (page.observable()) page.heat = static_cast<std::uint8_t>(page.heat >> kShift);
  };
  const auto fade_block = [this](Slot slot) {
    BlockStore::Chunk& chunk = impl_->store.chunk_of(slot);
    const std::size_t i = BlockStore::index_of(slot);
    if (chunk.hottest[i] == 0) return;
    std::uint8_t* const heat = chunk.heat[i];
    if (!chunk.unobservable[i]) {
      for (std::size_t e = 0; e < kBlockEntries; ++e)
        heat[e] = static_cast<std::uint8_t>(heat[e] >> kShift);
      chunk.hottest[i] = static_cast<std::uint8_t>(chunk.hottest[i] >> kShift);
      return;
    }
    for (std::size_t e = 0; e < kBlockEntries; ++e)
      if ((chunk.state[i][e] & kUnobservableBit) == 0)
        heat[e] = static_cast<std::uint8_t>(heat[e] >> kShift);
    chunk.hottest[i] = *std::max_element(heat, heat + kBlockEntries);
  };
  for (auto& [number, gib] : found->second.gibs) {
    if (gib.is_page) fade_huge(gib.page);
    if (gib.used == 0) continue;
    for (Leaf& leaf : *gib.leaves) {
      if (leaf.empty()) continue;
      if (!leaf.is_huge()) {
        fade_block(leaf.slot());
        continue;
      }
      HugeEntry huge = leaf.huge();
      fade_huge(huge);
      leaf.set_huge(huge);
    }
  }
}

Threshold HeatMap::select(PageCount capacity) const {
  const Thresholds thresholds = impl_->first_guess(256);
  ThresholdCounts counts{};
  impl_->count(thresholds, counts);
  return impl_->find_edge(capacity, thresholds, counts);
}

std::vector<HeatCount> HeatMap::count(std::span<const Heat> at_least) const {
  Thresholds thresholds;
  thresholds.fill(255);
  for (std::size_t t = 0; t < std::min(at_least.size(), kThresholds); ++t)
    thresholds[t] = std::max<std::uint8_t>(at_least[t].get(), 1);
  ThresholdCounts counts{};
  impl_->count(thresholds, counts);
  std::vector<HeatCount> result;
  for (std::size_t t = 0; t < std::min(at_least.size(), kThresholds); ++t) {
    const bool everything = at_least[t].get() == 0;
    result.push_back(
        {at_least[t], PageCount(everything ? observable_of(impl_->totals) : counts[t])});
  }
  return result;
}

std::array<PageCount, 256> HeatMap::histogram(TierId tier, bool movable_only, unsigned one_in,
                                              const std::set<Asid>* spaces) const {
  if (tier.get() >= kMaxTiers) return {};
  // Four tables in turn, so that neighbours of equal heat don't wait for each other's counter.
  std::array<std::array<std::uint64_t, 256>, 4> tables{};
  const std::uint8_t mask = movable_only ? byte(kMovableMask) : byte(kTierBits);
  for (const auto& [asid, space] : impl_->spaces) {
    if (spaces != nullptr && !spaces->contains(asid)) continue;
    Impl::for_each(space, [&](Vpn vpn, PageOrder order, const HugeEntry* huge, const Slot* slot) {
      // Multiplied, so that what repeats in the address space isn't hit or missed each time.
      constexpr std::uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;
      if (one_in > 1 && ((vpn.get() >> kBlockShift) * kGoldenRatio >> 32) % one_in != 0)
        return true;
      impl_->gone_through += huge != nullptr ? 1 : kBlockEntries;
      if (huge != nullptr) {
        if ((huge->state & mask) == tier.get()) tables[0][huge->heat] += order.pages().get();
        return true;
      }
      const auto& chunk = impl_->store.chunk_of(*slot);
      const std::size_t i = BlockStore::index_of(*slot);
      if (chunk.counts[i][tier.get()] + chunk.counts[i][tier.get() | kUnobservableBit] == 0)
        return true;
      const std::uint8_t* heat = chunk.heat[i];
      const BlockBits hits = impl_->kernels->match(heat, chunk.state[i], mask, tier.get(), 0, 255);
      for (std::size_t w = 0; w < kBlockWords; ++w) {
        std::uint64_t word = hits[w];
        if (word == ~std::uint64_t{0}) {
          for (std::size_t e = w * 64; e < w * 64 + 64; ++e) ++tables[e % 4][heat[e]];
          continue;
        }
        for (; word != 0; word &= word - 1)
          ++tables[0][heat[w * 64 + static_cast<unsigned>(std::countr_zero(word))]];
      }
      return true;
    });
  }
  std::array<PageCount, 256> bins{};
  for (const auto& table : tables)
    for (std::size_t h = 0; h < bins.size(); ++h) bins[h] += PageCount(table[h]);
  return bins;
}

std::vector<PageRef> HeatMap::candidates(TierId tier, Heat min, Heat max, bool hottest_first,
                                         PageCount limit, const PageFilter& filter) const {
  BestPages best(hottest_first, min, max, limit);
  if (tier.get() >= kMaxTiers || best.closed()) return {};
  const bool keeps = impl_->store.keeps_touches();
  const bool everything = asks_for_all(filter);
  const std::uint8_t mask = byte(filter.unmovable ? kPlaceBits : kMovableMask);
  for (const auto& [asid, space] : impl_->spaces) {
    if (filter.spaces != nullptr && !filter.spaces->contains(asid)) continue;
    const bool go_on = Impl::for_each(
        space, [&, id = asid](Vpn vpn, PageOrder order, const HugeEntry* huge, const Slot* slot) {
          if (!filter.meets(vpn, huge != nullptr ? order.pages() : PageCount(kBlockPages)))
            return true;
          impl_->gone_through += huge != nullptr ? 1 : kBlockEntries;
          if (huge != nullptr) {
            const Touches seen(huge->touches);
            if ((huge->state & mask) == tier.get() && best.wants(huge->heat) &&
                filter.touches.contains(seen))
              best.add({id, vpn, order, Heat(huge->heat), tier, seen});
            return !best.closed();
          }
          const auto& chunk = impl_->store.chunk_of(*slot);
          const std::size_t i = BlockStore::index_of(*slot);
          if (chunk.counts[i][tier.get()] == 0 || chunk.hottest[i] < best.low()) return true;
          const BlockBits hits = impl_->kernels->match(
              chunk.heat[i], chunk.state[i], mask, tier.get(), byte(best.low()), byte(best.high()));
          for (std::size_t w = 0; w < kBlockWords; ++w) {
            for (std::uint64_t word = hits[w]; word != 0; word &= word - 1) {
              const std::size_t e = w * 64 + static_cast<unsigned>(std::countr_zero(word));
              // The list may have filled up since the match.
              if (best.closed() || !best.wants(chunk.heat[i][e])) continue;
              const Touches seen(keeps ? chunk.touches[i][e] : std::uint8_t{0});
              if (everything ||
                  (filter.touches.contains(seen) && filter.meets(vpn + PageCount(e), PageCount(1))))
                best.add({id, vpn + PageCount(e), order, Heat(chunk.heat[i][e]), tier, seen});
            }
          }
          return !best.closed();
        });
    if (!go_on) break;
  }
  return best.finish();
}

void HeatMap::for_each(TierId tier, const PageFilter& filter,
                       const std::function<bool(const PageRef&)>& visit) const {
  if (tier.get() >= kMaxTiers) return;
  const bool keeps = impl_->store.keeps_touches();
  for (const auto& [asid, space] : impl_->spaces) {
    if (filter.spaces != nullptr && !filter.spaces->contains(asid)) continue;
    const bool go_on = Impl::for_each(
        space, [&, id = asid](Vpn vpn, PageOrder order, const HugeEntry* huge, const Slot* slot) {
          const auto tell = [&](Vpn at, std::uint8_t heat, Touches seen) {
            return !filter.touches.contains(seen) || !filter.meets(at, order.pages()) ||
                   visit({id, at, order, Heat(heat), tier, seen});
          };
          if (!filter.meets(vpn, huge != nullptr ? order.pages() : PageCount(kBlockPages)))
            return true;
          impl_->gone_through += huge != nullptr ? 1 : kBlockEntries;
          if (huge != nullptr)
            return (huge->state & kMovableMask) != tier.get() ||
                   tell(vpn, huge->heat, Touches(huge->touches));
          const auto& chunk = impl_->store.chunk_of(*slot);
          const std::size_t i = BlockStore::index_of(*slot);
          if (chunk.counts[i][tier.get()] == 0) return true;
          const BlockBits hits = impl_->kernels->match(chunk.heat[i], chunk.state[i],
                                                       byte(kMovableMask), tier.get(), 0, 255);
          for (std::size_t w = 0; w < kBlockWords; ++w) {
            for (std::uint64_t word = hits[w]; word != 0; word &= word - 1) {
              const std::size_t e = w * 64 + static_cast<unsigned>(std::countr_zero(word));
              if (!tell(vpn + PageCount(e), chunk.heat[i][e],
                        Touches(keeps ? chunk.touches[i][e] : std::uint8_t{0})))
                return false;
            }
          }
          return true;
        });
    if (!go_on) return;
  }
}

void HeatMap::moved(Asid asid, Vpn vpn, TierId tier, bool promotion, unsigned cooldown) {
  if (tier.get() >= kMaxTiers) return;
  const auto update = [&](std::uint8_t& state) {
    const unsigned rest = std::min(cooldown, 3u) * kCooldownOne;
    const unsigned place = tier.get() | (state & kUnobservableBit);
    state = byte(place | rest | (promotion ? kPromotedBit : 0));
  };
  impl_->change_page(
      asid, vpn, [&](HugeEntry& e) { update(e.state); }, update);
}

void HeatMap::rest(Asid asid, Vpn vpn, unsigned epochs) {
  const auto update = [&](std::uint8_t& state) {
    state = byte((state & ~kCooldownBits) | std::min(epochs, 3u) * kCooldownOne);
  };
  impl_->change_page(
      asid, vpn, [&](HugeEntry& e) { update(e.state); }, update);
}

void HeatMap::mark_stuck(Asid asid, Vpn vpn) {
  const auto update = [](std::uint8_t& state) { state |= kStuckBit; };
  impl_->change_page(
      asid, vpn, [&](HugeEntry& e) { update(e.state); }, update);
}

std::optional<std::pair<Heat, PageState>> HeatMap::look_up(Asid asid, Vpn vpn) const {
  const auto found = impl_->spaces.find(asid);
  if (found == impl_->spaces.end()) return std::nullopt;
  const auto at = found->second.gibs.find(vpn.get() >> kGibShift);
  if (at == found->second.gibs.end()) return std::nullopt;
  const Gib& gib = at->second;
  if (gib.is_page) return std::pair(Heat(gib.page.heat), PageState(gib.page.state));
  if (!gib.leaves) return std::nullopt;
  const Leaf leaf = (*gib.leaves)[(vpn.get() >> kBlockShift) % kGibLeaves];
  if (leaf.empty()) return std::nullopt;
  if (leaf.is_huge()) return std::pair(Heat(leaf.huge().heat), PageState(leaf.huge().state));
  const auto& chunk = impl_->store.chunk_of(leaf.slot());
  const std::size_t i = BlockStore::index_of(leaf.slot());
  const std::size_t e = vpn.get() % kBlockPages;
  if (chunk.state[i][e] == kAbsent) return std::nullopt;
  return std::pair(Heat(chunk.heat[i][e]), PageState(chunk.state[i][e]));
}

Occupancy HeatMap::occupancy() const {
  return occupancy_of(impl_->totals);
}

Occupancy HeatMap::occupancy(Asid asid) const {
  const auto found = impl_->spaces.find(asid);
  return found == impl_->spaces.end() ? Occupancy{} : occupancy_of(found->second.totals);
}

std::vector<Asid> HeatMap::address_spaces() const {
  std::vector<Asid> result;
  for (const auto& [asid, space] : impl_->spaces) result.push_back(asid);
  return result;
}

Vpn HeatMap::end(Asid asid) const {
  const auto found = impl_->spaces.find(asid);
  if (found == impl_->spaces.end() || found->second.gibs.empty()) return Vpn(0);
  return Vpn((found->second.gibs.rbegin()->first + 1) << kGibShift);
}

std::vector<Vpn> HeatMap::cuts(Asid asid, std::size_t parts) const {
  std::vector<Vpn> cuts;
  const auto found = impl_->spaces.find(asid);
  if (found == impl_->spaces.end() || parts < 2) return cuts;
  std::size_t blocks = 0;
  for (const auto& [number, gib] : found->second.gibs)
    blocks += gib.is_page ? kGibLeaves : gib.used;
  const std::size_t each = std::max<std::size_t>((blocks + parts - 1) / parts, 1);
  std::size_t before = 0, next = each;
  Impl::for_each(found->second, [&](Vpn vpn, PageOrder order, const HugeEntry*, const Slot*) {
    if (before >= next) {
      cuts.push_back(vpn);
      next = before + each;
    }
    before += std::max<std::uint64_t>(order.pages().get() / kBlockPages, 1);
    return true;
  });
  return cuts;
}

std::vector<HeatBin> HeatMap::bins(Asid asid, std::size_t max_bins) const {
  const auto found = impl_->spaces.find(asid);
  if (found == impl_->spaces.end() || max_bins == 0) return {};
  std::size_t blocks = 0;
  for (const auto& [number, gib] : found->second.gibs)
    blocks += gib.is_page ? kGibLeaves : gib.used;
  const std::size_t per_bin = (blocks + max_bins - 1) / max_bins;

  std::vector<HeatBin> bins;
  std::size_t in_bin = per_bin;  // full: the first block opens a bin
  std::uint64_t heat = 0;
  const auto close = [&] {
    if (!bins.empty() && bins.back().present.get() > 0)
      bins.back().heat_mean = static_cast<std::uint32_t>(heat / bins.back().present.get());
    heat = 0;
  };
  const auto add = [&](Vpn vpn, std::uint64_t present, std::uint64_t fast, std::uint64_t sum) {
    if (in_bin == per_bin) {
      close();
      bins.push_back({vpn, PageCount(0), PageCount(0), PageCount(0), 0});
      in_bin = 0;
    }
    ++in_bin;
    bins.back().span = vpn + PageCount(kBlockPages) - bins.back().first;
    bins.back().present += PageCount(present);
    bins.back().fast += PageCount(fast);
    heat += sum;
  };
  Impl::for_each(
      found->second, [&](Vpn vpn, PageOrder order, const HugeEntry* huge, const Slot* slot) {
        if (huge != nullptr) {
          const std::uint64_t fast = (huge->state & kTierBits) == 0 ? kBlockPages : 0;
          for (std::uint64_t at = 0; at < order.pages().get(); at += kBlockPages)
            add(vpn + PageCount(at), kBlockPages, fast, huge->heat * kBlockPages);
          return true;
        }
        const auto& chunk = impl_->store.chunk_of(*slot);
        const std::size_t i = BlockStore::index_of(*slot);
        const StateCounts& counts = chunk.counts[i];
        std::uint64_t sum = 0;
        for (const std::uint8_t h : chunk.heat[i]) sum += h;
        add(vpn, kBlockPages - counts[kAbsent], counts[0] + counts[kUnobservableBit], sum);
        return true;
      });
  close();
  return bins;
}

std::uint64_t HeatMap::entries_gone_through() const {
  return impl_->gone_through;
}

Bytes HeatMap::memory() const {
  Bytes bytes = impl_->store.memory() + Bytes(sizeof(Impl));
  constexpr std::size_t kTreeNode = 48;  // of a red-black tree, allocator's share included
  for (const auto& [asid, space] : impl_->spaces) {
    bytes += Bytes(sizeof(space) + kTreeNode);
    for (const auto& [number, gib] : space.gibs)
      bytes += Bytes(sizeof(gib) + kTreeNode + (gib.leaves ? sizeof(Leaves) : 0));
  }
  return bytes;
}

}  // namespace thermocline
