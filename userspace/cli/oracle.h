// SPDX-License-Identifier: Apache-2.0
// The best that a placement which never changes could have done, computed afterwards from access
// records. It knows the whole recording, so no policy that has to find out can be held to more.
//
// The measure is the page-window: one page found accessed in one window. A placement of N pages
// catches the page-windows of its pages; the best one holds the N pages with the most of them.
// Worked example: page A accessed in 8 of 8 windows, B in 5, C in 1, and room for one page: the
// best share is 8 / 14 = 57.1 %.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "tracking/record_source.h"

namespace thermocline::oracle {

/// One pass over one address space.
struct Window {
  Asid asid;
  Epoch epoch;
  Nanoseconds scan_time{};
  Nanoseconds length{};  ///< 0 = not known
  PageCount present, accessed, fast_accessed, fast;
};

struct Options {
  /// Pages that the placement may hold; nullopt: as many as were on the fast node, on average.
  std::optional<PageCount> fast_pages = std::nullopt;
  NodeId fast_node{0};
  /// Windows that are longer than this many times the median are left out: they are the pauses
  /// between epochs, not evidence. 0 keeps all.
  double longest_window = 3.0;
  /// Also tell how a placement that is best for what came before would have done in the last part
  /// of the recording, of this length. 0: don't.
  Nanoseconds judge_last{0};
  /// For the counters of pages: a few bytes of a file can claim terabytes.
  Bytes largest_memory{std::uint64_t{2} << 30};
};

/// A placement that was learned from the first part of a recording, judged on the last part. Of
/// learned pages with equal counts that fit only in part, the same part of each is taken.
struct Learned {
  std::size_t windows = 0;          ///< judged
  PageCount accessed_page_windows;  ///< in these
  PageCount best_page_windows;      ///< of these, by the placement that knows them beforehand
  double learned_page_windows = 0;  ///< of these, by the one that was learned
  [[nodiscard]] double best_share() const;
  [[nodiscard]] double learned_share() const;
};

struct Answer {
  std::vector<Window> windows;       ///< that count
  std::size_t windows_left_out = 0;  ///< of unknown length, not clearing, or too long
  PageCount fast_pages;              ///< the capacity that was used
  PageCount pages;                   ///< present, in the window that saw the most
  PageCount accessed_page_windows;
  PageCount accessed_page_windows_fast;  ///< on the fast node when they were recorded
  PageCount best_page_windows;           ///< that the best static placement would have caught
  std::optional<Learned> learned;        ///< with Options::judge_last
  [[nodiscard]] double best_share() const;
  [[nodiscard]] double recorded_share() const;
  /// Mean over the windows of the share of present pages that were set.
  [[nodiscard]] double mean_set_share() const;
  [[nodiscard]] Nanoseconds median_window() const;
};

/// Untrusted bytes: kCorrupt with the offset when they aren't records. A last record that was cut
/// is dropped. kFailure when there is no window to judge by, or more pages than fit the memory.
[[nodiscard]] Result<Answer> best_static_placement(RecordSource& records, const Options& options);

/// What --json prints; the keys are in the man page.
[[nodiscard]] nlohmann::ordered_json to_json(const Answer& answer);

}  // namespace thermocline::oracle
