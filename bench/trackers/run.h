// SPDX-License-Identifier: Apache-2.0
// Runs trackers beside workloads, each pair in a guest of its own, and keeps what came out.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/suite/run.h"
#include "bench/trackers/plan.h"
#include "bench/trackers/row.h"

namespace thermocline::trackers {

/// Name of the results in the folder of a run, a line of JSON each.
inline constexpr const char* kRowsName = "trackers.jsonl";

struct RunSetting {
  TrackersOptions options;
  std::string out_dir;
  std::string thermocline;  ///< the program that guests are run with
  std::string version;      ///< of it
  unsigned jobs = 2;
  std::function<void(const std::string&)> say;  ///< a line for the user
};

/// The rows of `runs`, in their order; those that the folder holds are not run again, failed ones
/// are. A run that fails becomes a row with its reason, and the others go on; so does one whose
/// tracker doesn't work in the guest, which is then not run with other patterns. kUsage when the
/// folder can't be written; kCorrupt when what is there is no result.
[[nodiscard]] Result<std::vector<Row>> run_trackers(const std::vector<PlannedRun>& runs,
                                                    const RunSetting& setting);

/// The scripts that bench/suite's do not have.
[[nodiscard]] const std::vector<suite::Script>& scripts();

}  // namespace thermocline::trackers
