// SPDX-License-Identifier: Apache-2.0
// The temperature of every page, dense: one byte of heat and one byte of state per 4 KiB page, kept
// in 512-entry blocks (2 MiB of address space); a huge page is one entry. Blocks that hold no page
// are not there.
//
// What heat means, and how it ages, is told in heat/scale.h: 127 = touched in every window, with a
// memory that is the longer the more seldom a page is touched. The ageing pass runs once an epoch,
// after the epoch's windows and before the decision: evidence first, ageing and counting in one
// pass over memory, then decide. For policies that ask for it a third byte tells in how many
// windows of the epoch the page was touched, and whether it was in the epoch before.
//
//   worked example, 4 windows an epoch: touched in 4, 4, 0, 0 windows of four epochs:
//   64, 96, 78, 69 after each ageing pass; touched in 1, 0, 0, 0: 16, 15, 14, 13.
//
// Not thread-safe; owned by the engine.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "heat/block_bits.h"
#include "tracking/record.h"

namespace thermocline {

/// State byte of an entry: bits 0-2 tier (7 = not present), 3 unobservable, 4-5 cooldown, 6 last
/// move was a promotion, 7 stuck (moving it failed for good).
class PageState {
 public:
  constexpr PageState() = default;
  constexpr explicit PageState(std::uint8_t raw) : raw_(raw) {}
  [[nodiscard]] constexpr std::uint8_t raw() const { return raw_; }
  [[nodiscard]] constexpr TierId tier() const { return TierId(raw_ & 7u); }
  [[nodiscard]] constexpr bool present() const { return (raw_ & 7u) != 7u; }
  [[nodiscard]] constexpr bool unobservable() const { return (raw_ & 8u) != 0; }
  /// Epochs for which the page may not be moved again (the ping-pong guard), 0..3.
  [[nodiscard]] constexpr unsigned cooldown() const { return (raw_ >> 4) & 3u; }
  [[nodiscard]] constexpr bool promoted() const { return (raw_ & 64u) != 0; }
  [[nodiscard]] constexpr bool stuck() const { return (raw_ & 128u) != 0; }
  /// A policy may move it: present, observable, not cooling down, not stuck.
  [[nodiscard]] constexpr bool movable() const {
    return present() && (raw_ & (8u | 0x30u | 128u)) == 0;
  }

 private:
  std::uint8_t raw_ = 7;
};

/// When a page was touched lately; kept only while HeatMap::keep_touches() is on, else all 0.
class Touches {
 public:
  constexpr Touches() = default;
  constexpr explicit Touches(std::uint8_t raw) : raw_(raw) {}
  [[nodiscard]] constexpr std::uint8_t raw() const { return raw_; }
  /// Windows of this epoch in which it was touched, 0..127.
  [[nodiscard]] constexpr unsigned windows() const { return raw_ & 127u; }
  /// It was touched in the epoch before.
  [[nodiscard]] constexpr bool before() const { return (raw_ & 128u) != 0; }

 private:
  std::uint8_t raw_ = 0;
};

/// Touches that are asked for.
class TouchSet {
 public:
  /// All.
  TouchSet() { of_.set(); }
  /// Those of which `asked(Touches)` is true.
  template <class Asked>
  explicit TouchSet(Asked asked) {
    for (unsigned raw = 0; raw < of_.size(); ++raw)
      of_[raw] = asked(Touches(static_cast<std::uint8_t>(raw)));
  }
  [[nodiscard]] bool contains(Touches touches) const { return of_[touches.raw()]; }

 private:
  std::bitset<256> of_;
};

/// Where a page is: enough for a mover.
struct PageRef {
  Asid asid;
  Vpn vpn;
  PageOrder order;
  Heat heat;
  TierId tier;
  Touches touches{};
};

/// What to look for among pages.
struct PageFilter {
  TouchSet touches{};
  /// Only pages of these address spaces; nullptr = of all.
  const std::set<Asid>* spaces = nullptr;
  /// Only pages that lie, as a whole or in part, in [first, end).
  Vpn first{0}, end{~std::uint64_t{0}};
  /// Of candidates() also those that a policy may not move just now (cooldown), or ever (stuck).
  bool unmovable = false;
  [[nodiscard]] bool meets(Vpn page, PageCount pages) const {
    return page < end && page + pages > first;
  }
};

/// How many pages (in 4 KiB pages, huge pages weigh 512) have heat >= h, for chosen h.
struct HeatCount {
  Heat at_least;
  PageCount pages;
};

/// The edge of the hot set for a capacity.
struct Threshold {
  /// Smallest heat such that the pages at or above it fit the capacity; 0 when all pages fit. 255
  /// may still not fit, then `fits` is false (not after ageing: 128 always fits).
  Heat heat;
  bool fits = true;
  PageCount at_or_above;  ///< pages with heat >= `heat`
  PageCount below_edge;   ///< pages with heat >= `heat` - 1: what does not fit any more
};

struct ApplyStats {
  PageCount pages;          ///< present and observable pages in the record
  PageCount accessed;       ///< of these accessed, whether or not their heat was counted
  PageCount accessed_fast;  ///< of these on tier 0
};

/// What one of several owners of shared pages tells of a block of 2 MiB of them, or of a part of
/// it.
struct BlockSight {
  Asid asid;                       ///< under which the pages are kept, wherever the owner maps them
  Vpn block;                       ///< first page of the block
  BlockBits placed{};              ///< pages that are there, on the nodes of `nodes`
  BlockBits blind{};               ///< of `placed`: can't be observed
  BlockBits touched{};             ///< known pages whose heat rises
  std::span<const NodeRun> nodes;  ///< of the entries from `low` on
  std::size_t low = 0;
};

/// Pages of one address space, or of the whole map.
struct Occupancy {
  std::array<PageCount, kMaxTiers> per_tier{};  ///< unobservable pages included
  PageCount unobservable;  ///< those a policy must leave alone, on whatever tier or none
};

/// One bin of an address × time picture.
struct HeatBin {
  Vpn first;
  PageCount span;  ///< address space covered
  PageCount present;
  PageCount fast;               ///< present pages on tier 0
  std::uint32_t heat_mean = 0;  ///< over present pages; 127 = in every window, right after ageing
};

struct HeatKernels;

class HeatMap {
 public:
  struct Options {
    /// Heat that a touch adds at first, see set_window_heat.
    unsigned window_heat = 16;
    /// Vector kernels to use; nullptr = the best that this processor runs.
    const HeatKernels* kernels = nullptr;
  };
  HeatMap();
  explicit HeatMap(Options options);
  ~HeatMap();
  HeatMap(const HeatMap&) = delete;
  HeatMap& operator=(const HeatMap&) = delete;

  /// Heat that a touch in the window to come adds (window_heat of scale.h), at most 255.
  void set_window_heat(unsigned heat);
  /// Keep for every page when it was touched lately, at one byte more for each; off at first, and
  /// nothing is known when it has just been switched on.
  void keep_touches(bool on);
  /// Tier of each node, index = node number; nodes beyond it or kNoTier belong to no tier (their
  /// pages are unobservable to policies: present on no tier).
  void set_node_tiers(std::span<const TierId> tier_of_node);

  /// Take in one record. With `count_accessed` its accessed bits add heat (saturating); without,
  /// only presence, place and observability are taken over. An entry that is not present loses its
  /// heat; an unobservable one keeps what it has (unknown is not cold).
  ///
  /// A block has entries of one size. A present 2 MiB entry over 4 KiB entries takes their maximum
  /// heat; a 4 KiB record that overlaps a 2 MiB entry splits it into 4 KiB entries that inherit its
  /// heat, and so on for 1 GiB. A 2 MiB or 1 GiB entry that is not present says only that there is
  /// no page of that size: smaller entries beneath it stay. Of an idle record nothing is taken over
  /// but that the pages that are known there were observed and not touched: they age like others.
  ApplyStats apply(const RecordView& record, bool count_accessed);
  /// Take in a part of what is known of shared pages. Pages in none of its maps stay as they are:
  /// this owner doesn't have them, others may. With `huge` the block is one page of 2 MiB, of which
  /// entry 0 of each map tells; without, a 2 MiB entry splits as in apply(). Pages that aren't
  /// there don't get heat. The result counts what was touched only.
  ApplyStats merge(const BlockSight& sight, bool huge);
  /// Pages [first, first + count) of one address space are from now on kept as those of another
  /// (or of the same), from `to_first` on, with heat and state. What is known in that place already
  /// stays, with the larger heat of both.
  void hand_over(Asid from, Vpn first, PageCount count, Asid to, Vpn to_first);
  /// Size of the entries in the block of 2 MiB around a page; nullopt: none.
  [[nodiscard]] std::optional<PageOrder> order_at(Asid asid, Vpn vpn) const;
  /// Drop what lies in [first, first + count) of an address space that was scanned as a whole but
  /// for which no record came: unmapped. Called by the engine with the gaps between records.
  void clear_range(Asid asid, Vpn first, PageCount count);
  /// Forget an address space (exit, exec, detached).
  void forget(Asid asid);

  /// Age all heat, count down cooldowns and count pages above 8 thresholds in the same pass over
  /// memory; the edge for `capacity` is found from these counts (a second pass only when the edge
  /// left the bracket kept from the last epoch). The result is exact. Unobservable pages don't age
  /// and don't count; those on tier 0 stay there, so they are taken off `capacity` first.
  Threshold age_and_select(PageCount capacity);
  /// What was hot isn't any more: quarters the heat of an address space, where it may age, so that
  /// new evidence outweighs it.
  void fade(Asid asid);
  /// As age_and_select() without ageing: one to three counting passes.
  [[nodiscard]] Threshold select(PageCount capacity) const;
  /// Observable pages at or above each of up to 8 heats.
  [[nodiscard]] std::vector<HeatCount> count(std::span<const Heat> at_least) const;
  /// 256 counts by heat of the pages on a tier: all that are present, or those a policy may move. A
  /// pass over heat and state, of a sample of one in `one_in` blocks of 2 MiB, always the same.
  /// Of the address spaces in `spaces` only, unless that is nullptr.
  [[nodiscard]] std::array<PageCount, 256> histogram(TierId tier, bool movable_only,
                                                     unsigned one_in = 1,
                                                     const std::set<Asid>* spaces = nullptr) const;
  /// Movable pages on `tier` with min <= heat <= max, hottest first when `hottest_first`, else
  /// coldest first; equal heats in order of address space and address. The list ends before the
  /// first page that would take it past `limit` 4 KiB pages. Deterministic. One pass; memory is
  /// bounded by `limit`, not by what matches.
  [[nodiscard]] std::vector<PageRef> candidates(TierId tier, Heat min, Heat max, bool hottest_first,
                                                PageCount limit,
                                                const PageFilter& filter = PageFilter()) const;
  /// Calls visit for every movable page on `tier`, in order of address space and address, until it
  /// returns false.
  void for_each(TierId tier, const PageFilter& filter,
                const std::function<bool(const PageRef&)>& visit) const;

  /// After a move: the page is on `tier` now and rests for `cooldown` epochs (0..3).
  void moved(Asid asid, Vpn vpn, TierId tier, bool promotion, unsigned cooldown);
  /// Moving failed, but may not another time: no policy gets the page for so many epochs (0..3).
  void rest(Asid asid, Vpn vpn, unsigned epochs);
  /// Moving failed for good: no policy gets it again until a record finds
  /// it on another tier.
  void mark_stuck(Asid asid, Vpn vpn);
  [[nodiscard]] std::optional<std::pair<Heat, PageState>> look_up(Asid asid, Vpn vpn) const;

  [[nodiscard]] Occupancy occupancy() const;
  [[nodiscard]] Occupancy occupancy(Asid asid) const;
  [[nodiscard]] std::vector<Asid> address_spaces() const;
  /// Nothing that is known of an address space lies there or behind; a multiple of 1 GiB.
  [[nodiscard]] Vpn end(Asid asid) const;
  /// Up to `parts` - 1 addresses that cut an address space into parts of about as many blocks of
  /// 2 MiB that hold pages; no page lies on both sides of one.
  [[nodiscard]] std::vector<Vpn> cuts(Asid asid, std::size_t parts) const;
  /// At most `max_bins` bins over the blocks that exist, in address order; each holds the same
  /// number of blocks (the last one maybe fewer) and spans from its first to its last.
  [[nodiscard]] std::vector<HeatBin> bins(Asid asid, std::size_t max_bins) const;
  /// Entries that candidates(), for_each() and histogram() have gone through since the start: what
  /// decisions cost, in a unit that no clock disturbs.
  [[nodiscard]] std::uint64_t entries_gone_through() const;
  /// Bytes of memory that the map holds, all told.
  [[nodiscard]] Bytes memory() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace thermocline
