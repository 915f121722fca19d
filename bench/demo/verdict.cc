// SPDX-License-Identifier: Apache-2.0
#include "bench/demo/verdict.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/json_read.h"

namespace thermocline::demo {

namespace {

using nlohmann::json;

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

/// 1234567 -> "1,234,567".
std::string grouped(std::uint64_t number) {
  std::string text = std::to_string(number);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3)
    text.insert(static_cast<std::size_t>(at), 1, ',');
  return text;
}

double ratio(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

std::uint64_t counter(const json& status, const char* key) {
  return whole<std::uint64_t>(status.at("counters").at(key));
}

std::string scan_cost(const json& status) {
  return fmt::format("{:.1f} ns", ratio(static_cast<double>(counter(status, "scan_ns")),
                                        static_cast<double>(counter(status, "scan_entries"))));
}

double hot_share(const json& placement) {
  return placement.at("fast_share").get<double>();
}

/// Share of the accessed page-windows between two looks at the counters that were on the fast tier.
double share_between(const json& before, const json& after) {
  const auto delta = [&](const char* key) {
    return static_cast<double>(counter(after, key) - counter(before, key));
  };
  return ratio(delta("accessed_page_windows_fast"), delta("accessed_page_windows"));
}

void add_row(json& table, const std::string& what, const std::vector<std::string>& cells) {
  json row = json::array({what});
  for (const std::string& cell : cells) row.push_back(cell);
  table["rows"].push_back(std::move(row));
}

std::string speed(const json& run) {
  const double rate = run.at("operations_per_s").get<double>();
  return rate >= 1e6 ? fmt::format("{:.2f} M/s", rate / 1e6) : fmt::format("{:.0f} /s", rate);
}

void add_hotset(const Inputs& in, const Limits& limits, Verdict& verdict) {
  const json& last = in.hotset_with.at("phases").back();
  const double start = hot_share(in.hotset_with.at("start").at("hot"));
  const double end = hot_share(last.at("hot_at_end"));
  verdict.checks.push_back({end >= limits.hot_share,
                            fmt::format("hotset: {} of the hot pages ended on the fast node; at "
                                        "least {} wanted",
                                        percent(end), percent(limits.hot_share))});
  verdict.checks.push_back(
      {start <= limits.cold_start_share,
       fmt::format("hotset: {} of the hot pages were there at the start; at most {} wanted",
                   percent(start), percent(limits.cold_start_share))});

  // The fast node was full of its pages at the start, so those are the fast tier.
  const json& placed = in.hotset_with.at("start");
  const std::string node = std::to_string(whole<int>(in.hotset_with.at("fast_node")));
  std::uint64_t fast = 0;
  for (const char* side : {"hot", "cold"})
    fast += whole_or<std::uint64_t>(placed.at(side).at("pages_on_node"), node, 0);
  const double size =
      ratio(in.hotset_with.at("hot_pages").get<double>(), static_cast<double>(fast));
  verdict.checks.push_back(
      {size >= limits.least_hot_set && size <= limits.largest_hot_set,
       fmt::format("hotset: the hot set is {} of the fast tier; {} to {} wanted", percent(size),
                   percent(limits.least_hot_set), percent(limits.largest_hot_set))});
  verdict.checks.push_back(
      {in.hotset_with.at("verified").get<bool>() && in.hotset_without.at("verified").get<bool>(),
       "hotset: every word of its memory held what it should"});
}

/// How soon the hot set that moved was there, and how soon it had to be: within three epochs, or
/// twice the time that the rate limit allows for bringing it in and as much out.
void add_move(const Inputs& in, Verdict& verdict) {
  const json& engine = in.hotset_status.at("engine");
  const double epoch_s = engine.at("last_epoch_ns").get<double>() / 1e9;
  const double bytes = 2 * 4096.0 * in.hotset_with.at("hot_pages").get<double>();
  const double limit_s =
      std::max(3 * epoch_s, 2 * bytes / engine.at("rate_limit_bytes_per_s").get<double>());
  const json& phases = in.hotset_with.at("phases");
  for (std::size_t i = 1; i < phases.size(); ++i) {
    const json& reached = phases[i].at("reached_90_s");
    const bool passed = !reached.is_null() && reached.get<double>() <= limit_s;
    verdict.checks.push_back(
        {passed,
         fmt::format("hotset: 90 % of the hot set that moved was on the fast node {}; "
                     "within {:.1f} s wanted",
                     reached.is_null() ? std::string("never")
                                       : fmt::format("after {:.1f} s", reached.get<double>()),
                     limit_s)});
  }
}

void add_redis(const Inputs& in, const Limits& limits, Verdict& verdict) {
  const double best = in.oracle.at("best_static_share").get<double>();
  const double seen = share_between(in.redis_settled, in.redis_status);
  verdict.checks.push_back(
      {seen >= limits.best_static_share * best,
       fmt::format("redis: {} of the touched pages were found in DRAM, {} of the best static "
                   "placement's {}; at least {} wanted",
                   percent(seen), percent(ratio(seen, best)), percent(best),
                   percent(limits.best_static_share))});
  const double set = in.oracle.at("mean_set_share").get<double>();
  verdict.checks.push_back(
      {set > 0 && set < limits.largest_set_share,
       fmt::format("redis: a window finds {} of the pages set; under {} wanted", percent(set),
                   percent(limits.largest_set_share))});
}

json make_table(const Inputs& in) {
  json table{{"title", "What it did"},
             {"note",
              "Measured in a guest under software emulation. Placement and counts are real; the "
              "slow node is not slower than the fast one here, so operations per second show what "
              "tiering costs, not what it wins."},
             {"columns", {"", "hotset without", "hotset with", "redis without", "redis with"}},
             {"rows", json::array()}};
  const json& hot0 = in.hotset_without;
  const json& hot1 = in.hotset_with;
  const json& last0 = hot0.at("phases").back();
  const json& last1 = hot1.at("phases").back();
  const auto pages = [](const json& status, const char* key) {
    return grouped(counter(status, key));
  };
  add_row(table, "hot pages in DRAM, before",
          {percent(hot_share(hot0.at("start").at("hot"))),
           percent(hot_share(hot1.at("start").at("hot"))), "-", "-"});
  add_row(table, "hot pages in DRAM, after",
          {percent(hot_share(last0.at("hot_at_end"))), percent(hot_share(last1.at("hot_at_end"))),
           "-", "-"});
  add_row(table, "touched pages found in DRAM",
          {"-", "-", percent(in.oracle.at("recorded_share").get<double>()),
           percent(share_between(in.redis_settled, in.redis_status))});
  add_row(table, "the same, best static placement (modelled)",
          {"-", "-", "-", percent(in.oracle.at("best_static_share").get<double>())});
  add_row(table, "pages promoted",
          {"0", pages(in.hotset_status, "promoted_pages"), "0",
           pages(in.redis_status, "promoted_pages")});
  add_row(table, "pages demoted",
          {"0", pages(in.hotset_status, "demoted_pages"), "0",
           pages(in.redis_status, "demoted_pages")});
  add_row(table, "pages migrated, as the kernel counts",
          {"-", grouped(in.hotset_kernel_moves), "-", grouped(in.redis_kernel_moves)});
  const auto cpu = [](const json& status) {
    return percent(status.at("daemon").at("cpu_share").get<double>()) + " of a core";
  };
  add_row(table, "daemon CPU", {"-", cpu(in.hotset_status), "-", cpu(in.redis_status)});
  add_row(table, "scans",
          {"-", pages(in.hotset_status, "scan_calls"), "-", pages(in.redis_status, "scan_calls")});
  add_row(table, "scan cost a page-table entry",
          {"-", scan_cost(in.hotset_status), "-", scan_cost(in.redis_status)});
  add_row(table, "operations (emulated)",
          {speed(last0), speed(last1), speed(in.redis_without), speed(in.redis_with)});
  return table;
}

/// Columns on a screen that UTF-8 text takes; all we print is one column a character.
std::size_t screen_width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

bool Verdict::passed() const {
  return std::all_of(checks.begin(), checks.end(), [](const Check& c) { return c.passed; });
}

Result<Verdict> judge(const Inputs& inputs, const Limits& limits) {
  try {
    Verdict verdict;
    verdict.table = make_table(inputs);
    add_hotset(inputs, limits, verdict);
    add_move(inputs, verdict);
    add_redis(inputs, limits, verdict);
    return verdict;
  } catch (const json::exception& e) {
    return fail(ErrorKind::kCorrupt, "the demo's files don't hold what they should: {}", e.what());
  }
}

std::string table_text(const json& table) {
  std::vector<std::vector<std::string>> rows{table.at("columns").get<std::vector<std::string>>()};
  for (const json& row : table.at("rows")) rows.push_back(row.get<std::vector<std::string>>());
  std::vector<std::size_t> widths(rows.front().size());
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], screen_width(row[i]));
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::size_t blanks = widths[i] - screen_width(row[i]);
      if (i > 0) text.append(2 + blanks, ' ');
      text += row[i];
      if (i == 0) text.append(blanks, ' ');
    }
    text += '\n';
  }
  return text;
}

}  // namespace thermocline::demo
