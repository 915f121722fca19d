// SPDX-License-Identifier: Apache-2.0
// A summary as pages for people: one HTML file that needs nothing from elsewhere, and the Markdown
// of docs/results.md. Pure: the same summary and header give the same bytes.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "bench/suite/summary.h"

namespace thermocline::suite {

/// What the records don't tell.
struct ReportHeader {
  std::string command;       ///< that gives the table, or goes on with it
  std::string page_command;  ///< that gives the page again from the table; "" for none
  std::string machine;       ///< the host
  /// Name and value, in this order: kernel, QEMU, date ...
  std::vector<std::pair<std::string, std::string>> facts;
  std::string timing_model;  ///< its figures, a sentence or more
  /// System and the settings that it ran with.
  std::vector<std::pair<std::string, std::string>> settings;
  std::map<std::string, std::string> log_tails;  ///< by CellRecord::log
  /// Folder and beginning of a name, as in "pictures/results-"; Markdown then shows
  /// PREFIX + picture_name(), which the caller writes. "": no pictures.
  std::string picture_prefix;
};

[[nodiscard]] std::string report_html(const Summary& summary, const ReportHeader& header);
[[nodiscard]] std::string report_markdown(const Summary& summary, const ReportHeader& header);

/// Every system's slow-down against all-fast in every cell, with intervals, as an SVG that stands
/// by itself and follows the reader's light or dark colours. "" when there is nothing to show.
[[nodiscard]] std::string slowdown_chart_svg(const Table& table, Measure measure);
/// "cxl-asic-reference-6.12.svg"
[[nodiscard]] std::string picture_name(const Table& table);

/// The last lines of failed cells' logs, by CellRecord::log. `folder`: that of the store. Paths
/// that lead out of it are not followed; a log that can't be read says so.
[[nodiscard]] std::map<std::string, std::string> read_log_tails(const Summary& summary,
                                                                const std::string& folder);

}  // namespace thermocline::suite
