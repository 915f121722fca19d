// SPDX-License-Identifier: Apache-2.0
// What a table of cells says: slow-downs, Thermocline beside its rivals and bounds, the goals, the
// lost cells and why they are lost. Pure: the same records give the same bits. Every time is
// modelled; "time" is time an operation, "whole" counts convergence in, "steady" doesn't.
#pragma once

#include <cstddef>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/suite/cell_record.h"
#include "bench/suite/statistics.h"

namespace thermocline::suite {

/// The system that the goals are about.
inline constexpr std::string_view kOurs = "thermocline:auto";
/// What the others are; each has the settings NAME (kernel defaults) and NAME@SETTING, one or more.
inline constexpr std::string_view kRivals[] = {"numab", "damos"};
inline constexpr std::string_view kBetterRival = "better rival";
/// Whom ours is put beside, in this order.
inline constexpr std::string_view kOpponents[] = {kBetterRival, "numab", "damos", "first-touch",
                                                  "interleave"};
inline constexpr std::string_view kCoreRatios[] = {"1:2", "1:4", "1:8"};
/// Other's time ÷ ours above the first is a win, below the second a loss, unless several seeds
/// leave open which of the two is faster.
inline constexpr double kWinAbove = 1.02, kLossBelow = 0.98;
/// From here on the oracle shows that there is something to win.
inline constexpr double kWorthwhile = 1.2;
/// The hot set fits when the best static placement serves this share of the misses from the fast
/// node.
inline constexpr double kHotSetFits = 0.8;

/// Convergence counted in, or without it.
enum class Measure { kWhole, kSteady };

/// One system in a cell of the table, over its seeds.
struct SystemFigures {
  std::string system;
  std::size_t seeds = 0;
  CellRecord mean;  ///< of each figure, over the seeds that have it: arithmetic, of ops geometric
  BySeed log_ns, steady_log_ns;  ///< of an operation
  /// Time ÷ time of all-fast, over the seeds that both have; with none in common, ÷ its mean.
  std::optional<Estimate> slowdown;
  std::optional<Estimate> steady_slowdown;

  [[nodiscard]] const BySeed& times(Measure measure) const {
    return measure == Measure::kWhole ? log_ns : steady_log_ns;
  }
  [[nodiscard]] const std::optional<Estimate>& slow(Measure measure) const {
    return measure == Measure::kWhole ? slowdown : steady_slowdown;
  }
};

/// Of a system that stands still, without a steady figure of its own, the whole one.
[[nodiscard]] std::optional<double> steady_hits(const SystemFigures& figures);

/// The other's time ÷ ours, over the seeds that both have; above 1 we are faster.
struct Versus {
  std::string system;  ///< with the setting that counts: the faster one
  Estimate ratio;
};

/// kUnclear: a tie, as there are several seeds and the interval includes 1.
enum class Verdict { kWin, kTie, kUnclear, kLoss, kUnknown };
[[nodiscard]] Verdict verdict(const std::optional<Versus>& versus);
[[nodiscard]] std::string_view to_text(Verdict verdict);

struct Comparison {
  std::string opponent;
  /// The better setting (and rival) counts, for each measure by itself: by the mean over the seeds
  /// that the two have in common, or over those that each has when there are none.
  std::optional<Versus> whole, steady;

  [[nodiscard]] const std::optional<Versus>& at(Measure measure) const {
    return measure == Measure::kWhole ? whole : steady;
  }
};

/// Time that ours takes longer than the other, in units of all-fast's time, part by part.
struct Cause {
  std::string against;  ///< the fastest of the opponents that won
  Estimate ratio;       ///< its time ÷ ours
  std::vector<std::string> lost_to;
  struct Part {
    std::string name;
    double slowdown = 0;
    std::string instead = {};  ///< what to say for a figure that can't be told and counts as 0
  };
  double excess = 0;        ///< our slow-down - its slow-down; the sum of the parts
  std::vector<Part> parts;  ///< empty where figures are missing
  std::string main;         ///< name of the largest part that is ours
  std::string why;          ///< the numbers that say so
};

/// A workload at a ratio.
struct Cell {
  std::string workload, ratio;
  bool core = false;      ///< both the workload and the ratio are of the core
  bool complete = false;  ///< every system of the catalogue has finished at least a seed of it
  std::vector<SystemFigures> systems;   ///< by name; those with at least one seed done
  std::vector<Comparison> comparisons;  ///< one for each of kOpponents
  std::optional<Estimate> oracle_gain, steady_oracle_gain;  ///< better rival's time ÷ oracle's
  /// Of the gap better rival → oracle; none where the oracle is not faster.
  std::optional<double> gap_closed, steady_gap_closed;
  std::optional<Estimate> of_oracle;  ///< oracle's time ÷ ours, steady
  bool hot_set_fits = false;
  std::optional<Cause> cause;  ///< of a lost cell

  [[nodiscard]] const SystemFigures* find(std::string_view system) const;
  [[nodiscard]] const Comparison& against(std::string_view opponent) const;
};

/// How much of the core has run: its workloads of the catalogue at kCoreRatios.
struct Coverage {
  std::size_t cells = 0;                                      ///< that the core has
  std::size_t complete = 0;                                   ///< of them, Cell::complete
  std::vector<std::pair<std::string, std::size_t>> by_ratio;  ///< of the complete ones
  std::vector<std::string> absent;  ///< core workloads without any finished cell
  /// All are complete and no seed of theirs failed or is missing. Until then nothing that is said
  /// of the core is final.
  bool whole = false;
};

/// The core cells against one opponent.
struct Score {
  std::string opponent;
  Measure measure = Measure::kWhole;
  std::size_t wins = 0, ties = 0, losses = 0, unknown = 0;
  std::size_t unclear = 0;        ///< of the ties
  std::optional<Estimate> ratio;  ///< its time ÷ ours, geometric mean
};

struct Goal {
  std::string text;
  std::optional<double> wanted;  ///< at least; none: told for the reader, not a goal
  bool percent = false;          ///< how to print it
  std::optional<Estimate> figure;
  std::optional<bool> reached;  ///< none: there are no cells to say, or no goal
  bool final = false;           ///< Coverage::whole; otherwise `reached` holds so far
  std::string detail;           ///< of which cells, which is the worst
};

struct Failure {
  CellKey key;
  std::string error, log;
};

/// One timing model, mode and kernel: what may be compared.
struct Table {
  std::string timing, mode, kernel;
  std::vector<Cell> cells;  ///< by workload and ratio
  Coverage core;
  std::vector<Score> scores;  ///< for each of kOpponents, whole and steady
  std::vector<Goal> goals;    ///< of the core cells
  std::vector<Failure> failed;
  std::vector<CellKey> missing;
  std::map<std::string, std::size_t> versions;  ///< how many records each one made
};

struct Summary {
  std::vector<Table> tables;
};

/// Why a lost cell is lost; none for other cells.
[[nodiscard]] std::optional<Cause> cause_of(const Cell& cell, std::string_view mode);

/// Every workload at every ratio with every system that occur in `records`, for each timing model,
/// mode and kernel, with all seeds that a system has anywhere; all-fast and all-slow once ("-").
[[nodiscard]] std::vector<CellKey> every_combination(const std::vector<CellRecord>& records);

/// `expected`: the cells that should be there; which of them are not is said. A done record with a
/// wrong result ("verified": false) is a failed one.
[[nodiscard]] Summary summarize(const std::vector<CellRecord>& records,
                                const std::vector<CellKey>& expected);

/// All of it under stable keys; an estimate is {value, low, high, seeds}, null where there is none.
[[nodiscard]] nlohmann::ordered_json summary_json(const Summary& summary);

}  // namespace thermocline::suite
