// SPDX-License-Identifier: Apache-2.0
#include "cli/report_model.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json_read.h"

namespace thermocline::report {

namespace {

using nlohmann::json;

/// A page number beyond this is no user address on any machine, and sums stay far from overflow.
constexpr std::uint64_t kMaxPage = std::uint64_t{1} << 52;

double finite(const json& value) {
  const double number = value.get<double>();
  if (!std::isfinite(number)) throw std::invalid_argument("a number is not finite");
  return number;
}

Bin parse_bin(const json& j) {
  Bin bin;
  bin.first_page = whole<std::uint64_t>(j.at("first_page"));
  bin.pages = whole<std::uint64_t>(j.at("pages"));
  bin.present = whole<std::uint64_t>(j.at("present"));
  bin.fast = whole<std::uint64_t>(j.at("fast"));
  bin.heat = finite(j.at("heat_mean"));
  if (bin.first_page > kMaxPage || bin.pages == 0 || bin.pages > kMaxPage)
    throw std::invalid_argument("a bin lies outside of the address space");
  if (bin.present > bin.pages || bin.fast > bin.present)
    throw std::invalid_argument("a bin holds more pages than it spans");
  return bin;
}

/// One line: adds to the last run, or begins the next one.
void parse_epoch(const json& j, std::vector<History>& runs, std::uint64_t& last_epoch) {
  EpochTotals totals;
  totals.time_s = finite(j.at("time_s"));
  totals.length_s = finite(j.at("epoch_s"));
  totals.promoted_pages = whole_or<std::uint64_t>(j, "promoted_pages", 0);
  totals.demoted_pages = whole_or<std::uint64_t>(j, "demoted_pages", 0);
  totals.accessed_page_windows = whole_or<std::uint64_t>(j, "accessed_page_windows", 0);
  totals.accessed_page_windows_fast = whole_or<std::uint64_t>(j, "accessed_page_windows_fast", 0);
  const auto epoch = whole<std::uint64_t>(j.at("epoch"));
  if (runs.empty() || epoch <= last_epoch || totals.time_s < runs.back().epochs.back().time_s)
    runs.emplace_back();
  last_epoch = epoch;
  History& history = runs.back();
  history.epochs.push_back(totals);
  for (const json& target : j.at("targets")) {
    Column column{totals.time_s, totals.length_s, {}};
    for (const json& bin : target.at("bins")) column.bins.push_back(parse_bin(bin));
    for (std::size_t i = 1; i < column.bins.size(); ++i)
      if (column.bins[i].first_page < column.bins[i - 1].first_page + column.bins[i - 1].pages)
        throw std::invalid_argument("bins overlap or are out of order");
    const int pid = whole<int>(target.at("pid"));
    auto process = std::find_if(history.processes.begin(), history.processes.end(),
                                [pid](const Process& p) { return p.pid == pid; });
    if (process == history.processes.end())
      process =
          history.processes.insert(process, {pid, target.at("command").get<std::string>(), {}});
    process->columns.push_back(std::move(column));
  }
}

/// Runs `parse` and turns what the JSON library or a check throws into an Error. `what` is what the
/// text should have been.
template <class Function>
Status guarded(const std::string& where, std::string_view what, Function parse) {
  try {
    parse();
    return {};
  } catch (const json::exception&) {
    return fail(ErrorKind::kCorrupt, "{} is not {}", where, what);
  } catch (const std::invalid_argument& e) {
    return fail(ErrorKind::kCorrupt, "{}: {}", where, e.what());
  }
}

}  // namespace

Result<std::vector<History>> parse_history(std::string_view text, const std::string& name) {
  std::vector<History> runs;
  std::uint64_t last_epoch = 0;
  std::size_t line_number = 0;
  while (!text.empty()) {
    const auto end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    const bool cut = end == std::string_view::npos;
    text.remove_prefix(cut ? text.size() : end + 1);
    ++line_number;
    if (line.empty()) continue;
    if (cut && line.front() == '{' && !json::accept(line)) break;
    TC_TRY(guarded(fmt::format("{}:{}", name, line_number),
                   "a line of a history: give the file that [history] of thermoclined.toml names",
                   [&] { parse_epoch(json::parse(line), runs, last_epoch); }));
  }
  if (runs.empty())
    return fail(ErrorKind::kCorrupt,
                "{} holds no epoch; let thermoclined run for longer with [history] file set", name);
  return runs;
}

Result<HotsetRun> parse_hotset(std::string_view text, const std::string& name) {
  HotsetRun run;
  TC_TRY(guarded(name, "a result of hotset --json", [&] {
    const json j = json::parse(text);
    if (j.value("program", "") != "hotset") throw std::invalid_argument("not a result of hotset");
    if (j.at("fast_node").is_null())
      throw std::invalid_argument("hotset ran without --fast-node, so it has no shares to show");
    run.pid = whole<int>(j.at("pid"));
    run.start_s = finite(j.at("start_monotonic_s"));
    for (const json& sample : j.at("samples"))
      run.samples.push_back({finite(sample.at("time_s")), finite(sample.at("fast_share"))});
    const json& phases = j.at("phases");
    for (std::size_t i = 1; i < phases.size(); ++i)
      run.moves_s.push_back(finite(phases[i].at("start_s")));
  }));
  return run;
}

Result<Table> parse_table(std::string_view text, const std::string& name) {
  Table table;
  TC_TRY(guarded(name, "a table: JSON with \"title\", \"columns\" and \"rows\"", [&] {
    const json j = json::parse(text);
    table.title = j.at("title").get<std::string>();
    table.note = j.value("note", "");
    table.columns = j.at("columns").get<std::vector<std::string>>();
    table.rows = j.at("rows").get<std::vector<std::vector<std::string>>>();
    for (const auto& row : table.rows)
      if (row.size() != table.columns.size())
        throw std::invalid_argument("a row has not as many cells as there are columns");
  }));
  return table;
}

}  // namespace thermocline::report
