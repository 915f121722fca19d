// SPDX-License-Identifier: Apache-2.0
#include "cli/sim_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "base/text.h"
#include "cli/line_chart.h"
#include "cli/table.h"
#include "draw/markup.h"

namespace thermocline::cli {

namespace {

using nlohmann::ordered_json;

std::string text_of(const ordered_json& line, const char* key) {
  return line.at(key).get<std::string>();
}

double number(const ordered_json& line, const char* key) {
  return line.at(key).is_number() ? line.at(key).get<double>() : 0;
}

std::string settings_text(const ordered_json& line) {
  std::string text;
  for (const auto& [key, value] : line.at("settings").items())
    text += fmt::format("{}{}={:.6g}", text.empty() ? "" : " ", key, value.get<double>());
  return text;
}

/// Lines that differ by their seed only.
struct Row {
  const ordered_json* first = nullptr;
  std::vector<const ordered_json*> seeds;
  [[nodiscard]] double mean(const char* key) const {
    double sum = 0;
    for (const ordered_json* line : seeds) sum += number(*line, key);
    return sum / static_cast<double>(seeds.size());
  }
  /// Of those that have one.
  [[nodiscard]] std::optional<double> known(const char* key) const {
    double sum = 0;
    std::size_t n = 0;
    for (const ordered_json* line : seeds) {
      if (!line->at(key).is_number()) continue;
      sum += number(*line, key);
      ++n;
    }
    return n == 0 ? std::nullopt : std::optional(sum / static_cast<double>(n));
  }
};

std::vector<Row> rows_of(const SimLines& lines) {
  std::vector<Row> rows;
  std::map<std::string, std::size_t> places;
  for (const ordered_json& line : lines) {
    const std::string draw = text_of(line, "draw");
    const std::string key =
        fmt::format("{}|{}|{}|{}|{}", draw, text_of(line, "workload"), text_of(line, "ratio"),
                    settings_text(line), text_of(line, "system"));
    const auto [place, fresh] = places.try_emplace(key, rows.size());
    if (fresh) rows.push_back({&line, {}});
    rows[place->second].seeds.push_back(&line);
  }
  return rows;
}

std::string percent(double share) {
  return fmt::format("{:.1f}", 100 * share);
}

bool moves(const ordered_json& line) {
  return number(line, "epochs") > 0;
}

struct Cells {
  std::vector<Column> columns;
  std::vector<std::vector<std::string>> rows;
};

Cells cells_of(const SimLines& lines) {
  const std::vector<Row> rows = rows_of(lines);
  const bool settings = std::any_of(
      rows.begin(), rows.end(), [](const Row& row) { return !row.first->at("settings").empty(); });
  Cells cells;
  cells.columns = {{"WORKLOAD"}, {"RATIO"}};
  if (settings) cells.columns.push_back({"SETTINGS"});
  for (const Column& column : std::vector<Column>{{"SYSTEM"},
                                                  {"HIT %", true},
                                                  {"M/s", true},
                                                  {"ALL-FAST %", true},
                                                  {"STATIC %", true},
                                                  {"BOUND %", true},
                                                  {"MOVED", true},
                                                  {"BACK %", true},
                                                  {"EPOCHS", true},
                                                  {"SECONDS", true},
                                                  {"CPU %", true}})
    cells.columns.push_back(column);
  for (const Row& row : rows) {
    std::vector<std::string> cell{text_of(*row.first, "workload"), text_of(*row.first, "ratio")};
    if (settings) cell.push_back(settings_text(*row.first));
    const bool engine = moves(*row.first);
    const auto epochs = row.known("reconverge_epochs"), seconds = row.known("reconverge_s");
    const bool never = engine && row.mean("changes") > 0 && row.mean("reconverged") == 0;
    cell.insert(
        cell.end(),
        {text_of(*row.first, "system"), percent(row.mean("hit_ratio")),
         fmt::format("{:.1f}", row.mean("throughput_per_s") / 1e6),
         percent(row.mean("of_all_fast")), percent(row.mean("throughput_of_static_oracle")),
         percent(row.mean("throughput_of_dynamic_bound")),
         engine ? format_bytes(Bytes(static_cast<std::uint64_t>(row.mean("promoted_bytes") +
                                                                row.mean("demoted_bytes"))))
                : "-",
         engine ? percent(row.mean("ping_pong_share")) : "-",
         never    ? "never"
         : epochs ? fmt::format("{:.1f}", *epochs)
                  : "-",
         never     ? "never"
         : seconds ? fmt::format("{:.1f}", *seconds)
                   : "-",
         engine ? percent(row.mean("tracking_cpu_share") + row.mean("moving_cpu_share")) : "-"});
    cells.rows.push_back(std::move(cell));
  }
  return cells;
}

/// The policy of a system, without its options.
std::string policy_of(const std::string& system) {
  return system.substr(0, system.find(':'));
}

bool is_stationary(const std::string& workload) {
  const std::string kind = policy_of(workload);
  return kind == "uniform" || kind == "zipf" || kind == "hotset" || kind == "graph" ||
         kind == "multi-tenant";
}

double geometric_mean(const std::vector<double>& of) {
  double sum = 0;
  for (const double x : of) sum += std::log(std::max(x, 1e-12));
  return of.empty() ? 0 : std::exp(sum / static_cast<double>(of.size()));
}

}  // namespace

std::string sim_table(const SimLines& lines) {
  const Cells cells = cells_of(lines);
  return format_table(cells.columns, cells.rows);
}

ordered_json sim_summary(const SimLines& lines) {
  // A problem's lines, by system.
  std::vector<std::string> systems, problems;
  std::map<std::string, std::map<std::string, const ordered_json*>> by_problem;
  for (const ordered_json& line : lines) {
    const std::string problem = text_of(line, "draw") + " " + text_of(line, "problem");
    const std::string system = text_of(line, "system");
    if (!by_problem.contains(problem)) problems.push_back(problem);
    if (std::find(systems.begin(), systems.end(), system) == systems.end())
      systems.push_back(system);
    by_problem[problem][system] = &line;
  }
  struct Tally {
    std::vector<double> of_tuned, hit, rate, bound_hit, bound_rate, of_static;
    double ping_pong = 0, worst = 0;
    std::string worst_problem;
  };
  std::map<std::string, Tally> tallies;
  for (const std::string& problem : problems) {
    const auto& entries = by_problem.at(problem);
    const auto still = entries.find("static");
    for (const auto& [system, line] : entries) {
      Tally& tally = tallies[system];
      const double rate = number(*line, "throughput_per_s");
      // The best of all other policies' settings.
      double best = 0;
      for (const auto& [other, of_other] : entries)
        if (policy_of(other) != policy_of(system) && moves(*of_other))
          best = std::max(best, number(*of_other, "throughput_per_s"));
      if (best > 0) {
        tally.of_tuned.push_back(rate / best);
        if (tally.worst_problem.empty() || rate / best < tally.worst) {
          tally.worst = rate / best;
          tally.worst_problem = text_of(*line, "workload") + " " + text_of(*line, "ratio");
        }
      }
      if (still != entries.end())
        tally.of_static.push_back(rate /
                                  std::max(number(*still->second, "throughput_per_s"), 1e-9));
      tally.hit.push_back(number(*line, "hit_ratio_of_static_oracle"));
      tally.rate.push_back(number(*line, "throughput_of_static_oracle"));
      tally.bound_hit.push_back(number(*line, "hit_ratio_of_dynamic_bound"));
      tally.bound_rate.push_back(number(*line, "throughput_of_dynamic_bound"));
      if (is_stationary(text_of(*line, "workload")))
        tally.ping_pong = std::max(tally.ping_pong, number(*line, "ping_pong_share"));
    }
  }
  ordered_json summary;
  summary["label"] = "modelled";
  summary["problems"] = problems.size();
  summary["systems"] = ordered_json::array();
  for (const std::string& system : systems) {
    const Tally& tally = tallies.at(system);
    ordered_json entry;
    entry["system"] = system;
    entry["of_best_tuned_other"] = tally.of_tuned.empty()
                                       ? ordered_json(nullptr)
                                       : ordered_json(geometric_mean(tally.of_tuned));
    entry["worst_of_best_tuned_other"] =
        tally.of_tuned.empty() ? ordered_json(nullptr) : ordered_json(tally.worst);
    entry["worst_problem"] = tally.worst_problem;
    entry["hit_ratio_of_static_oracle"] = geometric_mean(tally.hit);
    entry["throughput_of_static_oracle"] = geometric_mean(tally.rate);
    entry["hit_ratio_of_dynamic_bound"] = geometric_mean(tally.bound_hit);
    entry["throughput_of_dynamic_bound"] = geometric_mean(tally.bound_rate);
    entry["least_of_static"] =
        tally.of_static.empty()
            ? ordered_json(nullptr)
            : ordered_json(*std::min_element(tally.of_static.begin(), tally.of_static.end()));
    entry["most_ping_pong_share_stationary"] = tally.ping_pong;
    summary["systems"].push_back(std::move(entry));
  }
  return summary;
}

std::string sim_summary_table(const ordered_json& summary) {
  const auto cell = [](const ordered_json& value) {
    return value.is_number() ? percent(value.get<double>()) : "-";
  };
  std::vector<std::vector<std::string>> rows;
  for (const ordered_json& entry : summary.at("systems"))
    rows.push_back({entry.at("system").get<std::string>(), cell(entry.at("of_best_tuned_other")),
                    cell(entry.at("hit_ratio_of_static_oracle")),
                    cell(entry.at("throughput_of_static_oracle")),
                    cell(entry.at("hit_ratio_of_dynamic_bound")),
                    cell(entry.at("throughput_of_dynamic_bound")),
                    cell(entry.at("least_of_static")),
                    cell(entry.at("most_ping_pong_share_stationary")),
                    cell(entry.at("worst_of_best_tuned_other")),
                    entry.at("worst_problem").get<std::string>()});
  return format_table({{"SYSTEM"},
                       {"TUNED %", true},
                       {"STATIC HIT %", true},
                       {"STATIC %", true},
                       {"BOUND HIT %", true},
                       {"BOUND %", true},
                       {"LEAST %", true},
                       {"BACK %", true},
                       {"WORST %", true},
                       {"WHERE"}},
                      rows);
}

std::string sim_html(const SimLines& lines, const std::string& command) {
  std::string page =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>thermocline "
      "sim</title>\n<style>body{font-family:sans-serif;margin:2em}table{border-collapse:collapse;"
      "font-size:90%}td,th{padding:.2em .7em;border-bottom:1px solid "
      "#ddd;text-align:right}td:first-child,th:first-child{text-align:left}</style></head><body>\n"
      "<h1>Simulated placement</h1>\n";
  draw::put(page, "<p>All figures are <b>modelled</b>. Made by <code>{}</code></p>\n",
            draw::escaped(command));
  // Throughput over the slow tier's share of the ratio, a line for each system.
  std::vector<std::string> order;
  std::map<std::string, LineChart> charts;
  for (const Row& row : rows_of(lines)) {
    if (!text_of(*row.first, "draw").empty()) continue;
    std::string title = text_of(*row.first, "workload");
    if (const std::string settings = settings_text(*row.first); !settings.empty())
      title += ", " + settings;
    LineChart& chart = charts[title];
    if (chart.title.empty()) {
      order.push_back(title);
      chart.title = title;
      chart.x_text = "slow memory for each part of fast";
      chart.y_unit = " % of all-fast";
    }
    const std::vector<std::string_view> parts =
        split(row.first->at("ratio").get_ref<const std::string&>(), ':');
    double slow = 0;
    for (std::size_t i = 1; i < parts.size(); ++i)
      slow += static_cast<double>(parse_u64(parts[i]).value_or(0));
    const double fast =
        static_cast<double>(std::max<std::uint64_t>(parse_u64(parts.front()).value_or(1), 1));
    const std::string system = text_of(*row.first, "system");
    auto line = std::find_if(chart.lines.begin(), chart.lines.end(),
                             [&](const LineChart::Line& l) { return l.name == system; });
    if (line == chart.lines.end()) line = chart.lines.insert(line, {system, {}});
    line->points.emplace_back(slow / fast, 100 * row.mean("of_all_fast"));
  }
  for (const std::string& title : order) {
    LineChart& chart = charts.at(title);
    for (LineChart::Line& line : chart.lines) std::sort(line.points.begin(), line.points.end());
    if (!chart.lines.empty() && chart.lines.front().points.size() > 1)
      page += line_chart_svg(chart) + "\n";
  }
  const Cells cells = cells_of(lines);
  page += "<table><tr>";
  for (const Column& column : cells.columns)
    draw::put(page, "<th>{}</th>", draw::escaped(column.header));
  page += "</tr>\n";
  for (const auto& row : cells.rows) {
    page += "<tr>";
    for (const std::string& cell : row) draw::put(page, "<td>{}</td>", draw::escaped(cell));
    page += "</tr>\n";
  }
  page += "</table></body></html>\n";
  return page;
}

}  // namespace thermocline::cli
