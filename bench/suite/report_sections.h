// SPDX-License-Identifier: Apache-2.0
// The tables that both pages show, as text that is not yet escaped. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/suite/summary.h"

namespace thermocline::suite {

enum class Tone { kPlain, kGood, kBad, kDim };

struct TextCell {
  std::string text;
  std::string note = {};  ///< behind it, smaller: an interval, a setting
  Tone tone = Tone::kPlain;
  std::optional<double> sort = {};  ///< what rows are sorted by; none: the text
};

struct TextColumn {
  std::string name;
  bool right = true;  ///< numbers
};

struct Section {
  std::string id, title, note;
  std::vector<TextColumn> columns;
  std::vector<std::vector<TextCell>> rows;
};

/// "1.203", and "1.120 to 1.290"; both "" for none.
[[nodiscard]] TextCell estimate_cell(const std::optional<Estimate>& estimate, bool percent = false);

/// Systems of the table in the order of the report: ours, the rivals, the bounds.
[[nodiscard]] std::vector<std::string> systems_of(const Table& table);

[[nodiscard]] Section goals_section(const Table& table);
[[nodiscard]] Section scores_section(const Table& table);
[[nodiscard]] Section verdicts_section(const Table& table);
[[nodiscard]] Section oracle_section(const Table& table);
[[nodiscard]] Section causes_section(const Table& table);
[[nodiscard]] Section evidence_section(const Table& table);
[[nodiscard]] Section slowdowns_section(const Table& table, Measure measure);
[[nodiscard]] Section cells_section(const Table& table);
[[nodiscard]] Section failed_section(const Table& table);
[[nodiscard]] Section missing_section(const Table& table);

/// "cxl-asic, reference mode, Linux 6.12"
[[nodiscard]] std::string title_of(const Table& table);
/// What a reader must know before any figure: failed and missing cells, several versions.
[[nodiscard]] std::vector<std::string> warnings_of(const Table& table);
/// How the figures are made, a paragraph each.
[[nodiscard]] std::vector<std::string> method_paragraphs();

}  // namespace thermocline::suite
