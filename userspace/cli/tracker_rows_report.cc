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

std::vector<std::string> cells(const Row& row) {
  if (!row.error.empty()) return {"failed: " + row.error, "", "", "", "", "", "", ""};
  const trackers::Judgement& r = row.result;
  return {percent(r.recall),
          percent(r.precision),
          plain(r.rank_correlation, 3),
          r.delay_s ? fmt::format("{:.1f} s", *r.delay_s) : "-",
          r.delay_64gib_s ? fmt::format("{:.0f} s", *r.delay_64gib_s) : "-",
          percent(r.cpu_share),
          plain(r.instr_per_entry, 1),
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

}  // namespace

std::string tracker_rows_table(const std::vector<Row>& rows) {
  std::vector<std::vector<std::string>> lines;
  for (const Row& row : rows) {
    std::vector<std::string> line{row.tracker, row.pattern, budget(row)};
    for (std::string& cell : cells(row)) line.push_back(std::move(cell));
    lines.push_back(std::move(line));
  }
  return format_table({{"TRACKER"},
                       {"PATTERN"},
                       {"BUDGET", true},
                       {"RECALL", true},
                       {"PRECISION", true},
                       {"RANK CORR.", true},
                       {"DELAY", true},
                       {"64 GIB AT 1 %", true},
                       {"CPU", true},
                       {"INSTR/ENTRY", true},
                       {"NS/ENTRY", true}},
                      lines);
}

std::vector<std::string> trackers_with_curve(const std::vector<Row>& rows) {
  std::vector<std::string> names;
  for (const Row& row : rows)
    if (std::find(names.begin(), names.end(), row.tracker) == names.end() &&
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
      if (row.tracker == tracker && row.pattern == pattern && row.error.empty())
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
        "| tracker | budget | recall | precision | rank correlation | delay | delay for 64 GiB at "
        "1 % | processor taken | "
        "instructions an entry | ns an entry |\n|---|---|---|---|---|---|---|---|---|---|\n";
    for (const Row& row : rows) {
      if (row.pattern != pattern) continue;
      const std::set<double> budgets = budgets_of(rows, row.tracker);
      if (!budgets.empty() && row.budget != *budgets.rbegin()) continue;
      out += fmt::format("| {} | {} ", row.tracker, budget(row));
      for (const std::string& cell : cells(row)) out += fmt::format("| {} ", cell);
      out += "|\n";
    }
  }
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
