// SPDX-License-Identifier: Apache-2.0
// Two sources as one, so that each tells what the other can't see. Of a page
//   accessed: either says so;
//   unknown: neither knows. That it was not written is no knowledge: it may have been read;
//   idle: everything else;
//   present and its node: as the first tells it, else as the second does.
// A page that one tells as a huge one and the other in parts is told as the huge one: accessed if
// any part is, and idle by the parts' word only if all of them are.
#pragma once

#include "tracking/record.h"
#include "tracking/tracker.h"

namespace thermocline {

/// Merges what two scans of one address space told. Both byte strings hold whole records by rising
/// address, as a tracker hands them out; kCorrupt when not. Appends to `out`, numbered from
/// `sequence` on.
[[nodiscard]] Status merge_records(std::span<const std::byte> a, std::span<const std::byte> b,
                                   const RecordHeader& header, std::uint64_t& sequence,
                                   ScanStats& stats, std::vector<std::byte>& out);

/// For tests: of any two.
[[nodiscard]] std::unique_ptr<Tracker> make_combine_tracker(System& system,
                                                            std::unique_ptr<Tracker> a,
                                                            std::unique_ptr<Tracker> b);

[[nodiscard]] TrackerFactory combine_tracker_factory();

}  // namespace thermocline
