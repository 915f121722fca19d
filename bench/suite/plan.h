// SPDX-License-Identifier: Apache-2.0
// What the suite can run, what was asked for, and the cells that follow from it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "bench/suite/cell_record.h"

namespace thermocline::suite {

/// A workload as the suite runs it: long enough for the tuned systems to settle, short enough for a
/// cell to take one to two minutes of a host core.
struct SuiteWorkload {
  std::string name;
  double seconds;                     ///< of guest time, measured part
  std::vector<std::string> settings;  ///< --set of `workload run`
  bool huge_pages = false;
  bool core = true;       ///< in the published table
  std::string program{};  ///< that must be carried into the guest; empty: none
  /// It does the same all the time, so that half the time tells what a placement that stays is
  /// worth.
  bool stationary = false;
  std::string runs{};  ///< the workload of `workload run` that it is, under a name of its own
  /// Share of the footprint that neither node has room for, so that the kernel swaps it. Not where
  /// one node has room for everything.
  double swapped = 0;
};

/// A tiering system, or a bound to compare with.
struct SuiteSystem {
  std::string name;    ///< "numab@tuned"
  std::string script;  ///< in bench/suite/guest, without ".sh"; or one that needs none
  std::string policy;  ///< second argument of the cell's script
  std::string about;
  bool once = false;    ///< the same at every ratio
  bool seeded = false;  ///< is run with every seed; others with the first only
  bool core = true;     ///< in the published table; others are run when they are asked for
};

[[nodiscard]] const std::vector<SuiteWorkload>& suite_workloads();
[[nodiscard]] const std::vector<SuiteSystem>& suite_systems();
/// Nothing moves in it, so the whole of a run is as steady as its end.
[[nodiscard]] bool stands_still(std::string_view system);

/// Fast to slow memory.
struct Ratio {
  unsigned fast = 1, slow = 1;
  [[nodiscard]] std::string text() const;
  /// What the fast node holds of a footprint, in whole pages.
  [[nodiscard]] Bytes fast_of(Bytes footprint) const;
};
/// kUsage unless it is "N:M", each 1 to 64.
[[nodiscard]] Result<Ratio> parse_ratio(std::string_view text);

struct SuiteOptions {
  std::vector<std::string> workloads;  ///< empty: the core
  std::vector<std::string> ratios{"1:2", "1:4", "1:8"};
  std::vector<std::string> systems;  ///< empty: the core
  std::string timing = "cxl-asic";
  std::string mode = "reference";
  std::string kernel = "6.12";
  unsigned seeds = 1;
  Bytes footprint{std::uint64_t{160} << 20};
  double length = 1;  ///< of the measured part, as a factor
};

struct PlannedCell {
  CellKey key;
  SuiteWorkload workload;
  SuiteSystem system;
  std::optional<Bytes> fast;  ///< what programs find free on the fast node; none: room for all
  /// What the key doesn't tell but the figures depend on, as 16 hexadecimal digits: footprint,
  /// length, how the workload is run, the texts of the timing model and of the scripts. The same
  /// from build to build while those are.
  std::string setting;
  std::string all_fast_setting;  ///< of the all-fast cell of the same workload and seed
  [[nodiscard]] bool swaps() const { return workload.swapped != 0 && !system.once; }
};

/// Every cell of the table in the order of running: seed by seed, so that a run that is cut short
/// has whole rows; what others need (all-fast) first. kUsage, in one sentence, for a name that
/// there is not, a ratio that leaves too little, a number that can't be. Reads the timing model.
[[nodiscard]] Result<std::vector<PlannedCell>> plan_cells(const SuiteOptions& options);

/// Further seeds of a rival's setting are run where it can be the best one: with seed 1 its whole
/// or its settled part was faster than, or so close to, that of each of the rival's other settings.
inline constexpr double kCloseWithSeed1 = 0.05;

/// Seed 1 of the same cell with the rival's other settings ("numab" for "numab@tuned"). Empty for
/// seed 1, and for systems of one setting.
[[nodiscard]] std::vector<CellKey> other_settings(const CellKey& key);
/// By how much another setting was faster as a whole, 0.12 for 12 %, when further seeds of this
/// one are not needed. None: they are, or it can't be told.
[[nodiscard]] std::optional<double> too_far_behind(const CellRecord& seed1,
                                                   const CellRecord& other);
/// `keys` without further seeds that are not needed.
[[nodiscard]] std::vector<CellKey> without_unneeded(const std::vector<CellKey>& keys,
                                                    const std::vector<CellRecord>& records);

/// Least fast memory that a guest can be given: below, the kernel's own lists and watermarks weigh
/// more than what is measured.
inline constexpr Bytes kLeastFast{std::uint64_t{8} << 20};

/// The timing model itself, of a preset or a file, so that results can tell which one they come
/// from.
[[nodiscard]] Result<std::string> timing_text(const std::string& timing);

}  // namespace thermocline::suite
