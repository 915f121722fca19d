// SPDX-License-Identifier: Apache-2.0
// What a report is made of: the daemon's history file, the results of hotset, and tables that a
// script measured. All are read as untrusted input. Knows nothing of pictures.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace thermocline::report {

/// A stretch of address space in one epoch.
struct Bin {
  std::uint64_t first_page = 0;
  std::uint64_t pages = 0;    ///< spanned
  std::uint64_t present = 0;  ///< of them
  std::uint64_t fast = 0;     ///< present ones on the fast tier
  double heat = 0;            ///< mean over the present ones, 0..255
};

/// One epoch of one process.
struct Column {
  double time_s = 0;  ///< CLOCK_MONOTONIC at which the epoch began
  double length_s = 0;
  std::vector<Bin> bins;  ///< by address
};

struct Process {
  int pid = 0;
  std::string command;
  std::vector<Column> columns;
};

/// What the daemon counted in one epoch, all processes together.
struct EpochTotals {
  double time_s = 0;
  double length_s = 0;
  std::uint64_t promoted_pages = 0;
  std::uint64_t demoted_pages = 0;
  std::uint64_t accessed_page_windows = 0;
  std::uint64_t accessed_page_windows_fast = 0;
};

/// One run of the daemon.
struct History {
  std::vector<EpochTotals> epochs;
  std::vector<Process> processes;
};

/// One look of hotset at where its hot pages live.
struct HotSample {
  double time_s = 0;  ///< since the start of its updates
  double fast_share = 0;
};

struct HotsetRun {
  int pid = 0;
  double start_s = 0;  ///< CLOCK_MONOTONIC
  std::vector<HotSample> samples;
  std::vector<double> moves_s;  ///< when the hot set moved, since the start
};

/// Something to mark in a picture of time.
struct Event {
  double time_s = 0;
  std::string text;
};

/// Heat of pages that were touched in every window of a recording; others' in proportion.
inline constexpr double kRecordedHeat = 127;

struct Picture {
  std::string title, note, svg;
};

struct Table {
  std::string title, note;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};

struct Model {
  std::string title, note;
  std::vector<History> histories;
  std::vector<HotsetRun> hotsets;
  std::vector<Picture> pictures;
  std::vector<Table> tables;
};

/// `text`: JSON lines. One History for each run of the daemon that appended to the file: a new one
/// begins where epochs are counted from the start again, or the machine's clock is. The last line
/// may be cut, as when the daemon was killed; any other line that is not an epoch is kCorrupt,
/// "NAME:LINE: why". No epoch at all is kCorrupt too.
[[nodiscard]] Result<std::vector<History>> parse_history(std::string_view text,
                                                         const std::string& name);
/// `text`: what `hotset --json` wrote, with --fast-node.
[[nodiscard]] Result<HotsetRun> parse_hotset(std::string_view text, const std::string& name);
/// `text`: {"title", "note", "columns": [...], "rows": [[...]]}, all of text.
[[nodiscard]] Result<Table> parse_table(std::string_view text, const std::string& name);

}  // namespace thermocline::report
