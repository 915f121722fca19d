// SPDX-License-Identifier: Apache-2.0
// What a recording shows without playing it: heat over address and time, the working set, hot
// ranges, phases. Built by reading the recording twice, in memory that its size bounds; drawn by
// report_html and line_chart. Pure but for reading the source.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "cli/report_model.h"
#include "trace/trace_reader.h"

namespace thermocline::report {

/// A stretch of time; mean over its windows, all processes together.
struct WorkingSet {
  double time_s = 0, length_s = 0;  ///< since the begin of the recording
  double present_pages = 0, touched_pages = 0;
};

struct HotRange {
  int pid = 0;
  std::string command;
  Vpn first;
  PageCount pages;      ///< of address space
  double touched = 0;   ///< share of its pages' windows in which they were touched
  double of_all = 0;    ///< share of all touches
  std::string mapping;  ///< what is mapped there; "" = nothing with a name, or not known
};

/// Time in which the same addresses were touched alike.
struct Phase {
  double from_s = 0, to_s = 0;
  std::size_t kind = 0;  ///< from 0; phases of one kind are alike
  double touched_pages = 0;
};

struct TraceReport {
  std::string file, source;
  std::size_t windows = 0;
  Nanoseconds median_window{};
  double length_s = 0;
  std::vector<Process>
      processes;  ///< the largest, at most kMostDrawn; heat as kRecordedHeat has it
  std::size_t more_processes = 0;  ///< that are only in the working set
  std::vector<WorkingSet> working_set;
  std::vector<HotRange> hot;  ///< most touches a page first
  std::vector<Phase> phases;  ///< by time
};

inline constexpr std::size_t kMostDrawn = 8;

/// kCorrupt, kUsage and kFailure as for replay::survey().
[[nodiscard]] Result<TraceReport> read_trace(trace::Recording& recording, const std::string& file);

enum class TraceView { kHeat, kWss, kHot, kPhases };

[[nodiscard]] nlohmann::ordered_json trace_json(const TraceReport& report, TraceView view);
[[nodiscard]] std::string trace_text(const TraceReport& report, TraceView view);
/// One SVG file; of several processes the largest.
[[nodiscard]] std::string trace_svg(const TraceReport& report, TraceView view);
/// A page with pictures of all processes, and tables.
[[nodiscard]] std::string trace_html(const TraceReport& report, TraceView view);

}  // namespace thermocline::report
