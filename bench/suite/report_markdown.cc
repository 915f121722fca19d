// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "base/text.h"
#include "bench/suite/report.h"
#include "bench/suite/report_sections.h"
#include "draw/markup.h"

namespace thermocline::suite {

namespace {

using draw::put;

/// A text in a cell of a table: one line, no bars, nothing that is taken for HTML or emphasis.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("|<>*_`[]\\").find(c) != std::string_view::npos) out += '\\';
    out += c == '\n' || c == '\r' ? ' ' : c;
  }
  return out;
}

enum class Notes { kShown, kLeftOut };

std::string cell_text(const TextCell& cell, Notes notes) {
  const bool marked = cell.tone == Tone::kBad;
  std::string out = fmt::format("{0}{1}{0}", marked ? "**" : "", plain(cell.text));
  if (notes == Notes::kShown && !cell.note.empty()) put(out, " ({})", plain(cell.note));
  return out;
}

void put_section(std::string& out, const Section& section, Notes notes,
                 std::string_view nothing = "") {
  put(out, "\n### {}\n\n", plain(section.title));
  if (!section.note.empty()) put(out, "{}\n\n", plain(section.note));
  if (section.rows.empty()) {
    put(out, "{}\n", nothing);
    return;
  }
  out += '|';
  for (const TextColumn& column : section.columns) put(out, " {} |", plain(column.name));
  out += "\n|";
  for (const TextColumn& column : section.columns) out += column.right ? "---:|" : "---|";
  out += '\n';
  for (const auto& row : section.rows) {
    out += '|';
    for (const TextCell& cell : row) put(out, " {} |", cell_text(cell, notes));
    out += '\n';
  }
}

void put_code(std::string& out, std::string_view text) {
  for (const std::string_view line : split(trim(text), '\n')) put(out, "    {}\n", line);
}

void put_table(std::string& out, const Table& table, const ReportHeader& header) {
  put(out, "\n## {} (modelled)\n", plain(title_of(table)));
  for (const std::string& warning : warnings_of(table)) put(out, "\n**{}.**\n", plain(warning));
  put_section(out, goals_section(table), Notes::kShown);
  put_section(out, scores_section(table), Notes::kShown);
  if (!header.picture_prefix.empty())
    put(out, "\n![Slow-down against all-fast of every system in every cell]({}{})\n",
        header.picture_prefix, picture_name(table));
  put_section(out, verdicts_section(table), Notes::kShown, "There are no cells.");
  put_section(out, causes_section(table), Notes::kShown, "No cell is lost.");
  if (const Section evidence = evidence_section(table); !evidence.rows.empty())
    put_section(out, evidence, Notes::kShown);
  put_section(out, oracle_section(table), Notes::kLeftOut, "There are no cells.");
  for (const Measure measure : {Measure::kWhole, Measure::kSteady}) {
    Section section = slowdowns_section(table, measure);
    section.note = "Time an operation ÷ that of all-fast.";
    put_section(out, section, Notes::kLeftOut, "There are no cells.");
  }
  if (!table.failed.empty()) put_section(out, failed_section(table), Notes::kShown);
  if (!table.missing.empty()) put_section(out, missing_section(table), Notes::kShown);
}

}  // namespace

std::string report_markdown(const Summary& summary, const ReportHeader& header) {
  std::string out =
      "# Results\n\nThermocline beside the kernel's own tiering, in the same guest. All times are "
      "**modelled**: an emulated guest with a\ntiming model stands in for a machine with CXL "
      "memory. This page is written by a program; losses are in bold.\n";
  if (!header.command.empty()) {
    out += "\nThe table comes from\n\n";
    put_code(out, header.command);
  }
  if (!header.page_command.empty()) {
    out += "\nand this page from\n\n";
    put_code(out, header.page_command);
  }
  out += '\n';
  const auto entry = [&out](std::string_view name, const std::string& value) {
    if (!value.empty()) put(out, "- {}: {}\n", plain(name), plain(value));
  };
  entry("Machine", header.machine);
  for (const auto& [name, value] : header.facts) entry(name, value);
  entry("Timing model", header.timing_model);
  for (const Table& table : summary.tables) put_table(out, table, header);
  if (!header.settings.empty()) {
    Section settings{"settings", "Settings", "", {{"system", false}, {"settings", false}}, {}};
    for (const auto& [system, text] : header.settings) settings.rows.push_back({{system}, {text}});
    put_section(out, settings, Notes::kShown);
  }
  out += "\n## How the figures are made\n";
  for (const std::string& paragraph : method_paragraphs()) put(out, "\n{}\n", plain(paragraph));
  return out;
}

}  // namespace thermocline::suite
