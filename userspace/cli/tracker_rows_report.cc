// SPDX-License-Identifier: Apache-2.0
#include "cli/tracker_rows_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "cli/line_chart.h"
#include "cli/table.h"

namespace thermocline::cli {

namespace {

using trackers::Row;

std::string percent(const std::optional<double>& share) {
  return share ? fmt::format("{:.1f} %", 100 * *share) : "-";
}
std::string plain(const std::optional<double>& value, int digits) {
  return value ? fmt::format("{:.{}f}", *value, digits) : "-";
}
std::string budget(const Row& row) {
  return row.budget == 0 ? "-" : fmt::format("{:g} %", 100 * row.budget);
}

std::string seconds(const std::optional<double>& value, int digits) {
  return value ? fmt::format("{:.{}f} s", *value, digits) : "-";
}

bool has_figures(const Row& row) {
  return row.error.empty() && row.unsupported.empty();
}
/// Why a row has no figures; empty when it has.
std::string note(const Row& row) {
  if (!row.error.empty()) return "failed: " + row.error;
  return row.unsupported.empty() ? "" : "not there: " + row.unsupported;
}

/// What was measured, in the order of the columns.
std::vector<std::string> cells(const Row& row) {
  const trackers::Judgement& r = row.result;
  return {percent(r.recall),       percent(r.precision), plain(r.rank_correlation, 3),
          seconds(r.delay_s, 1),   percent(r.cpu_share), plain(r.instr_per_entry, 1),
          plain(r.ns_per_entry, 1)};
}

std::vector<std::string> patterns_of(const std::vector<Row>& rows) {
  std::vector<std::string> names;
  for (const Row& row : rows)
    if (std::find(names.begin(), names.end(), row.pattern) == names.end())
      names.push_back(row.pattern);
  return names;
}

std::set<double> budgets_of(const std::vector<Row>& rows, const std::string& tracker) {
  std::set<double> budgets;
  for (const Row& row : rows)
    if (row.tracker == tracker && row.budget != 0) budgets.insert(row.budget);
  return budgets;
}

/// Figures are told at the largest budget that a tracker was given.
bool has_largest_budget(const std::vector<Row>& rows, const Row& row) {
  const std::set<double> budgets = budgets_of(rows, row.tracker);
  return budgets.empty() || row.budget == *budgets.rbegin();
}

/// Empty when no run says anything about 64 GiB.
std::string scaled_table(const std::vector<Row>& rows) {
  std::string lines;
  for (const Row& row : rows) {
    const trackers::Judgement& r = row.result;
    if (!has_largest_budget(rows, row) || !r.epoch_64gib_s) continue;
    lines += fmt::format(
        "| {} | {} | {}, {} at {} | {} | {} | {} | {} | {} | {} | {} |\n", row.tracker, row.pattern,
        percent(r.recall), percent(r.precision), budget(row), percent(r.recall_64gib),
        percent(r.precision_64gib), plain(r.epoch_ns_per_page, 1),
        seconds(*r.epoch_64gib_s * trackers::kOnePercent, 2), seconds(r.epoch_64gib_s, 0),
        plain(r.delay_epochs, 0), seconds(r.delay_64gib_s, 0));
  }
  if (lines.empty()) return "";
  return fmt::format(
      "\n**64 GiB at 1 % of one core (scaled)**: {} pages of 4 KiB, each as dear an epoch as in "
      "the "
      "run.\n\nWhat an epoch finds does not hang on the budget, which decides only how long one "
      "takes: windows stay as short, as a large address space is watched section by section. So "
      "recall and precision are those of the run, after as many epochs, if pages are touched as "
      "often and the hot set stays for that long. \"-\": the tracker can't watch a section alone, "
      "its windows would be longer, and nothing carries over but the cost. A pass that finds the "
      "tables of 64 GiB in no cache may be dearer.\n\n| tracker | pattern | measured: recall, "
      "precision | scaled: recall | precision | ns a page and epoch | CPU time an epoch | an epoch "
      "takes | epochs until found | found after |\n|---|---|---|---|---|---|---|---|---|---|\n{}",
      trackers::k64GibPages, lines);
}

}  // namespace

std::string tracker_rows_table(const std::vector<Row>& rows) {
  std::vector<std::vector<std::string>> lines;
  for (const Row& row : rows) {
    std::vector<std::string> line{row.tracker, row.pattern, budget(row)};
    for (std::string& cell : cells(row)) line.push_back(std::move(cell));
    line.push_back(seconds(row.result.delay_64gib_s, 0));
    line.push_back(note(row));
    lines.push_back(std::move(line));
  }
  return format_table({{"TRACKER"},
                       {"PATTERN"},
                       {"BUDGET", true},
                       {"RECALL", true},
                       {"PRECISION", true},
                       {"RANK CORR.", true},
                       {"DELAY", true},
                       {"CPU", true},
                       {"INSTR/ENTRY", true},
                       {"NS/ENTRY", true},
                       {"64 GIB AT 1 %", true},
                       {""}},
                      lines);
}

std::vector<std::string> trackers_with_curve(const std::vector<Row>& rows) {
  std::vector<std::string> names;
  for (const Row& row : rows)
    if (row.unsupported.empty() &&
        std::find(names.begin(), names.end(), row.tracker) == names.end() &&
        budgets_of(rows, row.tracker).size() > 1)
      names.push_back(row.tracker);
  return names;
}

std::string tracker_curve_svg(const std::vector<Row>& rows, const std::string& tracker) {
  LineChart chart;
  chart.title = fmt::format("{}: how much of the hot set is found (modelled)", tracker);
  chart.x_text = "CPU budget, % of one processor";
  chart.y_unit = " %";
  for (const std::string& pattern : patterns_of(rows)) {
    LineChart::Line line{pattern, {}};
    for (const Row& row : rows)
      if (row.tracker == tracker && row.pattern == pattern && has_figures(row))
        line.points.emplace_back(100 * row.budget, 100 * row.result.recall.value_or(0));
    std::sort(line.points.begin(), line.points.end());
    if (!line.points.empty()) chart.lines.push_back(std::move(line));
  }
  return line_chart_svg(chart);
}

std::string tracker_rows_markdown(const std::vector<Row>& rows, const std::string& command,
                                  const std::string& pictures) {
  std::string out = fmt::format("All figures are modelled. Made by\n\n    {}\n", command);
  for (const std::string& pattern : patterns_of(rows)) {
    const auto about = std::find_if(trackers::patterns().begin(), trackers::patterns().end(),
                                    [&](const trackers::Pattern& p) { return p.name == pattern; });
    out += fmt::format("\n**{}**{}\n\n", pattern,
                       about == trackers::patterns().end() ? "" : ": " + about->about);
    out +=
        "| tracker | budget | recall | precision | rank correlation | delay | processor taken | "
        "instructions an entry | ns an entry |\n|---|---|---|---|---|---|---|---|---|\n";
    for (const Row& row : rows) {
      if (row.pattern != pattern || !has_largest_budget(rows, row)) continue;
      out += fmt::format("| {} | {} ", row.tracker, budget(row));
      if (has_figures(row))
        for (const std::string& cell : cells(row)) out += fmt::format("| {} ", cell);
      else
        out += fmt::format("| {} | | | | | | ", note(row));
      out += "|\n";
    }
  }
  out += scaled_table(rows);
  for (const std::string& tracker : trackers_with_curve(rows)) {
    out += fmt::format("\n**{}, by CPU budget**: recall (precision), processor taken\n\n| pattern ",
                       tracker);
    const std::set<double> budgets = budgets_of(rows, tracker);
    for (const double b : budgets) out += fmt::format("| {:g} % ", 100 * b);
    out += "|\n|---";
    for (std::size_t i = 0; i < budgets.size(); ++i) out += "|---";
    out += "|\n";
    for (const std::string& pattern : patterns_of(rows)) {
      std::map<double, std::string> by_budget;
      for (const Row& row : rows)
        if (row.tracker == tracker && row.pattern == pattern)
          by_budget[row.budget] =
              row.error.empty()
                  ? fmt::format("{} ({}), {}", percent(row.result.recall),
                                percent(row.result.precision), percent(row.result.cpu_share))
                  : "failed";
      if (by_budget.empty()) continue;
      out += fmt::format("| {} ", pattern);
      for (const double b : budgets)
        out += fmt::format("| {} ", by_budget.contains(b) ? by_budget[b] : "-");
      out += "|\n";
    }
    out += fmt::format("\n![{0}: recall by budget]({1}{0}.svg)\n", tracker, pictures);
  }
  return out;
}

}  // namespace thermocline::cli
