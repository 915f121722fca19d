// SPDX-License-Identifier: Apache-2.0
// The temperature of every page, dense: one byte of heat and one byte of state per 4 KiB page, kept
// in 512-entry blocks (2 MiB of address space); a huge page is one entry. Blocks that hold no page
// are not there.
//
// Scale of heat. A window in which a page was touched adds `increment`; ageing halves the heat once
// an epoch. With W windows an epoch and increment 128 / W, a page touched in every window settles
// at 255 and one touched in one window of W at 255 / W: heat is touched-window frequency with a
// half-life of one epoch, and 255 = "in every window".
//
//   worked example, W = 8, increment 16: touched in 8, 8, 0, 0 windows of four epochs:
//   after each ageing and update: 128, 192, 96, 48.
//
// Not thread-safe; owned by the engine. Source of the ageing: the classic ageing of page
// replacement (Tanenbaum), in the frequency form that MEMTIS (SOSP'23) cools with.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/units.h"
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

inline constexpr std::size_t kBlockEntries = 512;

/// Where a page is: enough for a mover.
struct PageRef {
  Asid asid;
  Vpn vpn;
  PageOrder order;
  Heat heat;
  TierId tier;
};

/// How many pages (in 4 KiB pages, huge pages weigh 512) have heat >= h, for chosen h.
struct HeatCount {
  Heat at_least;
  PageCount pages;
};

/// The edge of the hot set for a capacity.
struct Threshold {
  /// Smallest heat such that the pages at or above it fit the capacity; 255 may still not fit, then
  /// `fits` is false.
  Heat heat;
  bool fits = true;
  PageCount at_or_above;  ///< pages with heat >= `heat`
  PageCount below_edge;   ///< pages with heat >= `heat` - 1: what does not fit any more
};

struct ApplyStats {
  PageCount pages;          ///< present pages in the record
  PageCount accessed;       ///< of these accessed (counted only if the record's heat was counted)
  PageCount accessed_fast;  ///< of these on tier 0
};

/// Pages of one address space, or of the whole map.
struct Occupancy {
  std::array<PageCount, kMaxTiers> per_tier{};
  PageCount unobservable;
};

/// One bin of an address × time picture.
struct HeatBin {
  Vpn first;
  PageCount span;  ///< address space covered
  PageCount present;
  PageCount fast;               ///< present pages on tier 0
  std::uint32_t heat_mean = 0;  ///< over present pages, 0..255
};

class HeatMap {
 public:
  struct Options {
    /// Heat that one touched window adds; see the scale above. 1..255.
    unsigned increment = 16;
  };
  HeatMap();
  explicit HeatMap(Options options);
  ~HeatMap();
  HeatMap(const HeatMap&) = delete;
  HeatMap& operator=(const HeatMap&) = delete;

  void set_increment(unsigned increment);
  /// Tier of each node, index = node number; nodes beyond it or kNoTier belong to no tier (their
  /// pages are unobservable to policies: present on no tier).
  void set_node_tiers(std::span<const TierId> tier_of_node);

  /// Take in one record. With `count_accessed` its accessed bits add heat (saturating); without,
  /// only presence, place and observability are taken over. An entry that is not present loses its
  /// heat. A 2 MiB entry over a block of 4 KiB entries (or the other way round) converts the block:
  /// 4 KiB entries inherit the huge page's heat, a huge page gets the maximum of its entries.
  ApplyStats apply(const RecordView& record, bool count_accessed);
  /// Drop what lies in [first, first + count) of an address space that was scanned as a whole but
  /// for which no record came: unmapped. Called by the engine with the gaps between records.
  void clear_range(Asid asid, Vpn first, PageCount count);
  /// Forget an address space (exit, exec, detached).
  void forget(Asid asid);

  /// Halve all heat, count down cooldowns and count pages above 8 thresholds in the same pass over
  /// memory; the edge for `capacity` is found from these counts (a second pass only when the edge
  /// left the bracket kept from the last epoch).
  Threshold age_and_select(PageCount capacity);
  /// As above without ageing.
  [[nodiscard]] Threshold select(PageCount capacity);
  /// Pages at or above each of up to 8 heats.
  [[nodiscard]] std::vector<HeatCount> count(std::span<const Heat> at_least) const;
  /// 256 counts by heat of present pages on a tier. A full pass; for people and tests.
  [[nodiscard]] std::array<PageCount, 256> histogram(TierId tier) const;

  /// Movable pages on `tier` with min <= heat <= max, hottest first when `hottest_first`, else
  /// coldest first, at most `limit` 4 KiB pages; equal heats in address order. Deterministic.
  [[nodiscard]] std::vector<PageRef> candidates(TierId tier, Heat min, Heat max, bool hottest_first,
                                                PageCount limit) const;

  /// After a move: the page is on `tier` now and rests for `cooldown` epochs (0..3).
  void moved(Asid asid, Vpn vpn, TierId tier, bool promotion, unsigned cooldown);
  /// Moving failed for good (pinned, explicit policy): no policy gets it again until a record finds
  /// it on another tier.
  void mark_stuck(Asid asid, Vpn vpn);
  [[nodiscard]] std::optional<std::pair<Heat, PageState>> look_up(Asid asid, Vpn vpn) const;

  [[nodiscard]] Occupancy occupancy() const;
  [[nodiscard]] Occupancy occupancy(Asid asid) const;
  [[nodiscard]] std::vector<Asid> address_spaces() const;
  /// At most `max_bins` bins over the blocks that exist, in address order; each spans whole blocks.
  [[nodiscard]] std::vector<HeatBin> bins(Asid asid, std::size_t max_bins) const;
  /// Bytes of memory that the map holds, all told.
  [[nodiscard]] Bytes memory() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace thermocline
