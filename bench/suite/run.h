// SPDX-License-Identifier: Apache-2.0
// Runs cells side by side, each as a `thermocline lab run` of its own, and keeps their records.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/suite/cell.h"
#include "bench/suite/cell_record.h"
#include "bench/suite/plan.h"

namespace thermocline::suite {

struct RunSetting {
  SuiteOptions options;
  std::string out_dir;      ///< cells.jsonl, and folders with the cells' output and page counts
  std::string thermocline;  ///< the program that cells are run with
  std::string version;      ///< of it, for the records
  unsigned jobs = 2;
  bool again = false;      ///< run finished cells of other settings again
  bool all_seeds = false;  ///< also those that are not needed (too_far_behind())
  /// From asking cells to end until they are killed.
  std::chrono::milliseconds patience{30'000};
  /// What is written beside the records (kFactsName) when the run keeps its first one, or when
  /// there is nothing yet; given what is there, "" for nothing.
  std::function<Result<std::string>(const std::string&)> facts;
  /// A line for the user: what was done, what is left.
  std::function<void(const std::string&)> say;
};

struct RunOutcome {
  std::size_t done = 0;     ///< in this run
  std::size_t skipped = 0;  ///< were there already
  std::size_t failed = 0;
  std::size_t not_needed = 0;  ///< seeds of a rival's slower setting
  int signal = 0;              ///< that ended the run early, or 0
};

/// Name of the store in the folder of a run.
inline constexpr const char* kStoreName = "cells.jsonl";

/// kUsage, before any guest boots, when the folder can't be written, or has finished cells that
/// were run with another PlannedCell::setting and `again` isn't said. A cell that fails becomes a
/// record with its log and the run goes on; a program that can't be started ends it. SIGINT,
/// SIGTERM and SIGHUP end it, a second one at once; what is finished is in the store. No cell
/// outlives the run, not even one that is killed.
[[nodiscard]] Result<RunOutcome> run_cells(const std::vector<PlannedCell>& cells,
                                           const RunSetting& setting);

/// The scripts that set the systems up in a guest, as they are compiled in: name and text.
struct Script {
  std::string_view name, text;
};
[[nodiscard]] const std::vector<Script>& scripts();

}  // namespace thermocline::suite
