// SPDX-License-Identifier: Apache-2.0
// The records of a source that knows something of addresses, but not which pages are there: lists
// the present pages of a process (/proc/PID/pagemap) with their nodes, and asks the source about
// each.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "tracking/followed_process.h"
#include "tracking/node_map.h"
#include "tracking/proc_maps.h"
#include "tracking/record.h"
#include "tracking/tracker.h"

namespace thermocline {

/// Pages in a row of one mapping, present or not.
struct PageStretch {
  Vpn first;
  std::span<const PagemapEntry> entries;
};

/// What a source knows of a page in the window.
enum class Evidence : std::uint8_t {
  kUnknown,
  kIdle,       ///< this process left it alone
  kIdleToAll,  ///< nobody touched it
  kTouched,
};

/// Says of each page of a stretch what is known of it; all are kUnknown before. What it says of
/// pages that are not present is not used.
using Judge = std::function<void(const PageStretch&, std::span<Evidence>)>;

/// A mapping larger than this, and 64 times larger than all that its process has in memory, is an
/// address range set aside: to list its pages, nearly all absent, would take seconds.
[[nodiscard]] bool set_aside(const Mapping& mapping, PageCount in_memory);
/// Pages in memory, by /proc/PID/statm; 0 = not known.
[[nodiscard]] PageCount pages_in_memory(const System& system, const FollowedProcess& process);
/// The process's mappings. kNotFound when it is gone, whatever errno says about it.
[[nodiscard]] Result<std::vector<Mapping>> read_mappings(const System& system,
                                                         const FollowedProcess& process);

/// A page of this very process that was just written, and what its page map says of it: to find out
/// what the kernel tells this user.
struct OwnPage {
  Vpn page;
  PagemapEntry entry;
};
[[nodiscard]] Result<OwnPage> look_at_own_page(System& system);
/// Ok when page frames are told; kPermission when not.
[[nodiscard]] Status require_page_frames(System& system);

class PresentPages {
 public:
  [[nodiscard]] static Result<PresentPages> make(System& system);

  /// Appends the records of the pages in `ranges` (sorted; empty = all) to `out`, numbered from
  /// `sequence` on, and adds up what it did. Of memory that others may use too (shared, of a file,
  /// not this process's alone) only touches count: what this process left alone, another may have
  /// touched.
  [[nodiscard]] Status tell(const FollowedProcess& process, std::span<const Mapping> mappings,
                            std::span<const ScanRange> ranges, const RecordHeader& header,
                            const Judge& judge, std::uint64_t& sequence, ScanStats& stats,
                            std::vector<std::byte>& out);

 private:
  PresentPages(System& system, std::optional<NodeId> only_node, std::optional<NodeMap> nodes)
      : system_(system), only_node_(only_node), nodes_(std::move(nodes)) {}
  [[nodiscard]] Status tell_range(const FollowedProcess& process, const Mapping& mapping, Vpn from,
                                  Vpn to, const RecordHeader& header, const Judge& judge,
                                  std::uint64_t& sequence, ScanStats& stats,
                                  std::vector<std::byte>& out);
  [[nodiscard]] Status look_up_nodes(const FollowedProcess& process, const PageStretch& stretch,
                                     std::span<EntryObservation> into) const;

  System& system_;
  std::optional<NodeId> only_node_;  ///< of a machine with one node
  std::optional<NodeMap> nodes_;    ///< nullopt: nodes of page frames are not known, ask for pages'
  std::vector<std::uint64_t> raw_;  ///< kept from call to call, as the next ones are
  std::vector<PagemapEntry> entries_;
  std::vector<Evidence> evidence_;
};

}  // namespace thermocline
