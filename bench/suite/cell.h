// SPDX-License-Identifier: Apache-2.0
// From a cell to the command that runs it in a guest, and from what that printed to its record.
// Pure but for reading the ground truth.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/suite/plan.h"
#include "bench/suite/truth.h"

namespace thermocline::suite {

/// A fast node on which programs find so much free memory and no more.
struct FastNode {
  Bytes size;      ///< a multiple of kNodeStep
  Bytes reserved;  ///< at its end, which the kernel is told at boot is no memory
};
/// Nodes begin and end where a section of the kernel's memory map does, as those of servers do: in
/// a section of two nodes, to ask for a page's node costs a cache miss.
inline constexpr Bytes kNodeStep{std::uint64_t{128} << 20};

/// Least size of a file of page counts. Every guest carries one of this size, in memory, so that
/// the oracle's has no less of it free.
inline constexpr Bytes kPageCountsSize{std::uint64_t{1} << 20};

/// Where the parts of a run are.
struct CellPlaces {
  std::string thermocline;  ///< the program itself
  std::string scripts;      ///< folder with bench/suite/guest
  std::string truth;        ///< file that the ground truth goes to
  std::string page_counts;  ///< of the same workload and seed: written by all-fast
  std::string carried;      ///< into the guest: page_counts for oracle-static, padding for others
  std::string program;      ///< that the workload drives; empty: none
};

/// `thermocline lab run ...`, to be pasted into a shell as well. `timing` is a preset or a file.
[[nodiscard]] std::vector<std::string> cell_command(const PlannedCell& cell,
                                                    const std::string& timing, Bytes footprint,
                                                    double length, const FastNode& node,
                                                    const CellPlaces& places);

/// The same guest without a workload: tells how much of a fast node is free.
[[nodiscard]] std::vector<std::string> probe_command(const PlannedCell& cell,
                                                     const std::string& timing, Bytes footprint,
                                                     const FastNode& node,
                                                     const CellPlaces& places);

/// The parts of a cell's output, by name.
using Sections = std::map<std::string, std::string>;
[[nodiscard]] Sections sections_of(std::string_view output);
/// kCorrupt when the output of a probe, or of a cell, does not tell it.
[[nodiscard]] Result<Bytes> fast_bytes_of(const Sections& sections);

/// A done cell's record; `key`, `wall_s` and `version` are the caller's. kCorrupt or kFailure says
/// in a sentence why the cell counts as failed: an output that is not whole, a wrong result of the
/// workload.
[[nodiscard]] Result<CellRecord> read_cell(const PlannedCell& cell, const Sections& sections,
                                           const Truth& truth);

/// Time from the last change of phase until the fast node's share of the misses is again, and
/// stays, nine tenths of what it was in the last half of the phase before; a single slice below
/// that is no end of it. 0: it never fell, as of systems that move nothing. None: there is no
/// change, or the share is not there at the end of the phase.
[[nodiscard]] std::optional<double> reconverge_s(const Truth& truth);

/// Parts of the run, in seconds since its start, in which systems count as settled: the last third,
/// or the last half of every phase.
[[nodiscard]] std::vector<std::pair<double, double>> steady_parts(
    double seconds, const std::vector<double>& phase_starts);

}  // namespace thermocline::suite
