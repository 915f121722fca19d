// SPDX-License-Identifier: Apache-2.0
// Pages that several targets map, or one target in several places: one heat, counted once.
//
// Memory that is mapped more than once is kept in the heat map in one place only, its *home*: the
// mapping of the process that has lived longest (a server's first process rather than a worker).
// Records pass through here on their way to the heat map. What is private goes on as it is; what is
// shared is translated to its home, and merged:
//
//   touched      by any of the owners in a window is touched in that window, once, although their
//                windows may be watched one after the other (each window's touched pages are kept)
//   there        when any of the owners has it; an owner that doesn't map a page says nothing of
//   it.
//                What no owner had in a whole epoch is gone
//   observable   when every owner that has it says so (unknown is not cold), or one has touched it
//   node         as the home's process says, and as any other one says of what that doesn't have
//   size         as the home's process says
//
// When the home's process unmaps the memory or exits, the next one becomes home and the heat moves
// there. Owned by the engine, on whose thread all is called.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "base/units.h"
#include "heat/block_bits.h"
#include "heat/heat_map.h"
#include "mover/mover.h"
#include "tracking/proc_maps.h"
#include "tracking/process.h"
#include "tracking/record.h"
#include "tracking/tracker.h"

namespace thermocline {

class SharedPages {
 public:
  /// Pages that are kept in another place from now on.
  using HandOver =
      std::function<void(Asid from, Vpn first, PageCount count, Asid to, Vpn to_first)>;

  SharedPages(HeatMap& heat, HandOver on_hand_over);

  /// What a target maps now, all of it. `ipc_space` tells IPC name spaces apart.
  void set_mappings(const ProcessIdentity& process, std::span<const Mapping> mappings,
                    std::uint64_t ipc_space);
  /// Anonymous memory that `fork` still shares with its ancestor, at the same addresses; none:
  /// empty.
  void set_forked(Asid fork, Asid ancestor, std::span<const ScanRange> ranges);
  /// Anonymous memory that both have at the same addresses, in pieces of 2 MiB and more.
  [[nodiscard]] std::vector<ScanRange> common_anonymous(Asid a, Asid b) const;
  /// An address space is going: what it was the home of is handed over. Call it before
  /// HeatMap::forget().
  void leave(Asid asid);
  /// After the calls above: finds what is shared now, and where its home is.
  void settle();

  /// A mapping with MAP_SHARED is merged with those of other targets.
  [[nodiscard]] bool shares(Asid asid) const;

  struct Seen {
    ApplyStats stats;      ///< of shared pages: what was touched first by this owner in the window
    bool touched = false;  ///< by this process, anything
  };
  /// Takes in one record, as HeatMap::apply(). `window`: number within the epoch of the window that
  /// it closes, 0..63; none: its accessed bits don't count.
  Seen apply(const RecordView& record, std::optional<unsigned> window);
  /// As HeatMap::clear_range(), but for what is shared: this owner doesn't have it, others may.
  void clear_range(Asid asid, Vpn first, PageCount count);
  /// Before the decision. `complete`: all targets have been scanned as a whole at least once since
  /// the last call, so what nobody had is gone. The result is how many shared pages could be
  /// observed.
  PageCount end_epoch(bool complete);

  /// Who may map a page that is kept here.
  [[nodiscard]] Owners owners(Asid asid, Vpn vpn) const;
  /// Where else a page that is kept here may be mapped, the one first that had it last.
  [[nodiscard]] std::vector<PagePlace> others(PagePlace page) const;
  /// Pages in memory that this target maps together with others (or twice), wherever they are
  /// counted.
  [[nodiscard]] PageCount shared_pages(Asid asid) const;

 private:
  /// What two mappings of the same memory have in common.
  using Key = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t>;

  enum class Kind : std::uint8_t {
    kText,    ///< of a program or library, which anybody may map
    kForked,  ///< anonymous, since a fork
    kShared,  ///< MAP_SHARED
  };

  /// A mapping that may be of the same memory as another one.
  struct Region {
    Key key;
    std::uint64_t offset = 0;
    Vpn first;
    PageCount count;
    Kind kind = Kind::kText;
    bool operator==(const Region&) const = default;
  };

  /// Pages of a file that the same processes map, two places or more.
  struct Segment {
    std::uint64_t offset = 0;
    PageCount count;
    std::vector<PagePlace> places;  ///< of its first page; the home first
    Kind kind = Kind::kShared;      ///< the least of theirs
    bool fresh = true;  ///< what the heat map knows may not be there any more, nobody has said so
  };

  /// Shared memory as one process maps it.
  struct Extent {
    Vpn first;
    PageCount count;
    const Segment* segment = nullptr;
    bool home = false;
    [[nodiscard]] Vpn end() const { return first + count; }
    [[nodiscard]] Vpn home_of(Vpn vpn) const { return segment->places.front().vpn + (vpn - first); }
  };

  struct Member {
    std::uint64_t start_ticks = 0;
    Pid pid;
    std::vector<Region> regions;
    std::vector<Region> forked;                  ///< shared with an ancestor
    std::vector<Extent> extents;                 ///< by address
    std::vector<std::pair<Vpn, Vpn>> anonymous;  ///< private memory of no file, by address
  };

  /// What the owners said of a block of 2 MiB at its home.
  struct Block {
    BlockBits now{}, before{};            ///< somebody has them; in this epoch, in the one before
    BlockBits home_now{}, home_before{};  ///< the home's process has them
    BlockBits blind_now{}, blind_before{};
    BlockBits touched{};              ///< in a window of this epoch
    std::vector<BlockBits> accessed;  ///< by window
    Asid last_owner;                  ///< that had a page which the home's process has not
  };
  using BlockKey = std::pair<Asid, std::uint64_t>;
  using Blocks = std::map<BlockKey, Block>;

  /// A part of a record, as bits of a block at home.
  struct Part {
    Vpn block;
    std::size_t low = 0;
    BlockBits present{}, observable{}, accessed{};
    std::span<const NodeRun> nodes;  ///< from `low` on
    bool huge = false;               ///< one page of 2 MiB
    bool writes_only = false;
  };

  struct Owner {
    Asid asid;
    Region region;
    std::uint64_t start_ticks = 0;
    Pid pid;
  };

  /// The ancestors' sides of what their forks share with them.
  void add_ancestors(std::vector<Owner>& owners) const;

  [[nodiscard]] const Member* find(Asid asid) const;
  /// The extent that holds a page or is the first behind it; nullptr: none.
  static const Extent* extent_at(const Member& member, Vpn vpn);
  /// Segments of one file, single ones too.
  static std::vector<Segment> sweep(std::span<const Owner> owners);
  void settle(const Segment& segment, std::span<const Segment> old);
  void hand_over(PagePlace from, PageCount count, PagePlace to);

  void apply_private(const RecordView& record, std::uint32_t from, std::uint32_t count,
                     std::optional<unsigned> window, Seen& seen);
  void apply_shared(const Extent& extent, const RecordView& record, std::uint32_t from,
                    std::uint32_t count, std::optional<unsigned> window, Seen& seen);
  void apply_idle(const Member& member, const RecordView& record, Seen& seen);
  void apply_small(const RecordView& record, std::uint32_t entry, std::optional<unsigned> window,
                   Seen& seen);
  void merge(const Extent& extent, Asid owner, const Part& part, std::optional<unsigned> window,
             Seen& seen);
  /// The block, nullptr if there is none and none is wanted.
  Block* block_at(Asid asid, Vpn vpn, bool make);
  PageCount sweep_out(Segment& segment, bool complete);

  HeatMap& heat_;
  HandOver on_hand_over_;
  std::map<Asid, Member> members_;
  std::map<Key, std::vector<Segment>> objects_;
  Blocks blocks_;
  Blocks::iterator hint_;  ///< records come by address
  bool changed_ = false;
  bool late_ = false;  ///< a home changed in this epoch, and with it went what was told before
  std::vector<NodeRun> nodes_;
};

}  // namespace thermocline
