// SPDX-License-Identifier: Apache-2.0
#include "cli/trace_report.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "cli/line_chart.h"
#include "cli/report_html.h"
#include "cli/table.h"
#include "draw/markup.h"
#include "emulation/replay/replay.h"
#include "tracking/recording.h"

namespace thermocline::report {

namespace {

constexpr std::size_t kColumns = 200;
/// Cells of a column, about; each band has one at least.
constexpr std::uint64_t kBins = 256;
constexpr std::size_t kMostBands = 128;
/// Pages are taken together in so many when it is found out where they are.
constexpr std::uint64_t kGranule = 16;
/// Stretches of addresses that are told apart while reading. More is no program's layout.
constexpr std::size_t kMostStretches = 2u << 20;
/// Stretches of time are alike when the angle between what they touch is small: its cosine.
constexpr double kSamePhase = 0.85, kSameKind = 0.93;
/// Stretches in a row that may differ without a new phase.
constexpr std::size_t kExceptions = 2;
/// Ranges with less of all touches are left out of the text.
constexpr double kLeastOfAll = 0.001;
/// A pause between passes that is no window, as of a recording that was continued later.
constexpr double kLongestPause_s = 60;
constexpr std::size_t kRowsOfText = 20;

double seconds(Nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

/// Addresses that were ever there.
class Stretches {
 public:
  /// False when there are too many.
  bool add(std::uint64_t first, std::uint64_t pages) {
    std::uint64_t from = first / kGranule * kGranule;
    std::uint64_t to = (first + pages + kGranule - 1) / kGranule * kGranule;
    auto after = stretches_.upper_bound(from);
    if (after != stretches_.begin()) {
      const auto before = std::prev(after);
      if (before->second >= to) return true;
      if (before->second >= from) {
        from = before->first;
        after = before;
      }
    }
    while (after != stretches_.end() && after->first <= to) {
      to = std::max(to, after->second);
      after = stretches_.erase(after);
    }
    stretches_[from] = to;
    return stretches_.size() <= kMostStretches;
  }
  [[nodiscard]] const std::map<std::uint64_t, std::uint64_t>& all() const { return stretches_; }

 private:
  std::map<std::uint64_t, std::uint64_t> stretches_;
};

/// A stretch of the picture's addresses, and its cells.
struct Band {
  std::uint64_t first = 0, end = 0;
  std::size_t bin = 0;  ///< number of its first cell
  std::size_t bins = 0;
  [[nodiscard]] std::uint64_t edge(std::size_t i) const { return first + (end - first) * i / bins; }
};

/// Joins what lies near each other until few enough bands are left.
std::vector<Band> bands_of(const Stretches& stretches) {
  std::uint64_t pages = 0;
  for (const auto& [first, end] : stretches.all()) pages += end - first;
  std::vector<Band> bands;
  for (std::uint64_t near = std::max<std::uint64_t>(pages / kBins, kGranule);; near *= 2) {
    bands.clear();
    for (const auto& [first, end] : stretches.all()) {
      if (!bands.empty() && first - bands.back().end <= near)
        bands.back().end = end;
      else
        bands.push_back({first, end, 0, 0});
    }
    if (bands.size() <= kMostBands) break;
  }
  std::uint64_t spanned = 0;
  for (const Band& band : bands) spanned += band.end - band.first;
  std::size_t next = 0;
  for (Band& band : bands) {
    band.bin = next;
    band.bins =
        std::max<std::size_t>(1, static_cast<std::size_t>((band.end - band.first) * kBins /
                                                          std::max<std::uint64_t>(spanned, 1)));
    next += band.bins;
  }
  return bands;
}

struct Cell {
  std::uint64_t present = 0, touched = 0;  ///< page-windows
};

/// The cells of one address space.
struct Grid {
  std::vector<Band> bands;
  std::vector<std::vector<Cell>> columns;
  std::uint64_t present = 0;

  template <class Add>
  void spread(std::size_t column, std::uint64_t first, std::uint64_t pages, Add add) {
    auto band = std::upper_bound(bands.begin(), bands.end(), first,
                                 [](std::uint64_t p, const Band& b) { return p < b.first; });
    if (band == bands.begin()) return;
    --band;
    auto& cells = columns[column];
    const std::uint64_t end = std::min(first + pages, band->end);
    const std::uint64_t length = band->end - band->first;
    while (first < end) {
      // The cell whose edges are around `first`.
      auto bin = static_cast<std::size_t>((first - band->first) * band->bins / length);
      while (bin + 1 < band->bins && band->edge(bin + 1) <= first) ++bin;
      const std::uint64_t to = std::min(end, std::max(band->edge(bin + 1), first + 1));
      add(cells[band->bin + bin], to - first);
      first = to;
    }
  }
};

/// Calls `run(first page, pages, touched)` for entries in a row that are there and alike.
template <class Run>
void for_each_run(const RecordView& record, Run run) {
  std::uint32_t from = 0;
  const auto state = [&](std::uint32_t i) {
    return record.present.test(i) ? (record.accessed.test(i) ? 2 : 1) : 0;
  };
  while (from < record.count) {
    const int kind = state(from);
    std::uint32_t to = from + 1;
    while (to < record.count && state(to) == kind) ++to;
    const unsigned order = record.order.get();
    if (kind != 0)
      run(record.first.get() + (std::uint64_t{from} << order), std::uint64_t{to - from} << order,
          kind == 2);
    from = to;
  }
}

/// When each pass was, in seconds since the first: pauses and clocks that went back are left out.
class Timeline {
 public:
  double at(Nanoseconds time, double window_s) {
    if (last_) {
      const double passed = seconds(time - *last_);
      now_ += passed >= 0 && passed < kLongestPause_s ? passed : window_s;
    }
    last_ = time;
    return now_;
  }

 private:
  std::optional<Nanoseconds> last_;
  double now_ = 0;
};

struct Pass {
  double time_s = 0;
  bool counts = false;
};

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  if (aa == 0 || bb == 0) return aa == bb ? 1 : 0;
  return ab / std::sqrt(aa * bb);
}

/// Pages of each cell that were touched in a window, by column.
std::vector<std::vector<double>> profiles(const std::map<Asid, Grid>& grids,
                                          const std::vector<std::size_t>& windows) {
  std::vector<std::vector<double>> result(windows.size());
  for (std::size_t c = 0; c < windows.size(); ++c)
    for (const auto& [asid, grid] : grids)
      for (const Cell& cell : grid.columns[c])
        result[c].push_back(static_cast<double>(cell.touched) / static_cast<double>(windows[c]));
  return result;
}

std::vector<Phase> find_phases(const std::vector<std::vector<double>>& columns,
                               const std::vector<WorkingSet>& times) {
  struct Found {
    std::size_t from = 0, to = 0;
    std::vector<double> sum;
  };
  std::vector<Found> found;
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const auto alike = [&](std::size_t other) {
      return cosine(columns[other], found.back().sum) >= kSamePhase;
    };
    // A short difference is an exception, a longer one a change.
    const auto changed = [&] {
      if (c + kExceptions >= columns.size()) return false;
      for (std::size_t next = c; next <= c + kExceptions; ++next)
        if (alike(next)) return false;
      return true;
    };
    if (found.empty() || changed()) found.push_back({c, c, std::vector<double>(columns[c].size())});
    Found& phase = found.back();
    phase.to = c + 1;
    for (std::size_t i = 0; i < columns[c].size(); ++i) phase.sum[i] += columns[c][i];
  }
  std::vector<Phase> phases;
  std::vector<const Found*> kinds;
  for (const Found& f : found) {
    const auto same = std::find_if(kinds.begin(), kinds.end(), [&](const Found* kind) {
      return cosine(kind->sum, f.sum) >= kSameKind;
    });
    Phase phase;
    phase.kind = static_cast<std::size_t>(same - kinds.begin());
    if (same == kinds.end()) kinds.push_back(&f);
    phase.from_s = times[f.from].time_s;
    phase.to_s = times[f.to - 1].time_s + times[f.to - 1].length_s;
    for (std::size_t c = f.from; c < f.to; ++c) phase.touched_pages += times[c].touched_pages;
    phase.touched_pages /= static_cast<double>(f.to - f.from);
    phases.push_back(phase);
  }
  return phases;
}

std::string mapping_at(const trace::ProcessInfo& process, Vpn page) {
  const auto after =
      std::upper_bound(process.mappings.begin(), process.mappings.end(), page,
                       [](Vpn p, const trace::NamedRange& r) { return p < r.first; });
  if (after == process.mappings.begin()) return "";
  const trace::NamedRange& range = *std::prev(after);
  return page < range.first + range.pages ? range.name : "";
}

void add_hot_ranges(const Grid& grid, const trace::ProcessInfo& process, double all,
                    std::vector<HotRange>& hot) {
  for (const Band& band : grid.bands) {
    struct Sum {
      std::uint64_t first = 0, end = 0, present = 0, touched = 0;
      std::string mapping;
      int level = 0;
    };
    std::vector<Sum> ranges;
    for (std::size_t b = 0; b < band.bins; ++b) {
      Sum cell;
      for (const auto& column : grid.columns) {
        cell.present += column[band.bin + b].present;
        cell.touched += column[band.bin + b].touched;
      }
      if (cell.touched == 0) continue;
      cell.first = band.edge(b);
      cell.end = band.edge(b + 1);
      cell.mapping = mapping_at(process, Vpn((cell.first + cell.end) / 2));
      cell.level = static_cast<int>(8 * cell.touched / cell.present);
      if (!ranges.empty() && ranges.back().end == cell.first && ranges.back().level == cell.level &&
          ranges.back().mapping == cell.mapping) {
        ranges.back().end = cell.end;
        ranges.back().present += cell.present;
        ranges.back().touched += cell.touched;
      } else {
        ranges.push_back(cell);
      }
    }
    for (const Sum& sum : ranges)
      hot.push_back({process.pid.get(), process.command, Vpn(sum.first),
                     PageCount(sum.end - sum.first),
                     static_cast<double>(sum.touched) / static_cast<double>(sum.present),
                     static_cast<double>(sum.touched) / std::max(all, 1.0), sum.mapping});
  }
}

Process drawn(const Grid& grid, const trace::ProcessInfo& info,
              const std::vector<WorkingSet>& times) {
  Process process;
  process.pid = info.pid.get();
  process.command = info.command;
  for (std::size_t c = 0; c < grid.columns.size(); ++c) {
    Column column{times[c].time_s, times[c].length_s, {}};
    for (const Band& band : grid.bands)
      for (std::size_t b = 0; b < band.bins; ++b) {
        const Cell& cell = grid.columns[c][band.bin + b];
        if (cell.present == 0) continue;
        column.bins.push_back({band.edge(b), band.edge(b + 1) - band.edge(b), cell.present,
                               cell.present,
                               kRecordedHeat * static_cast<double>(cell.touched) /
                                   static_cast<double>(cell.present)});
      }
    if (!column.bins.empty()) process.columns.push_back(std::move(column));
  }
  return process;
}

}  // namespace

Result<TraceReport> read_trace(trace::Recording& recording, const std::string& file) {
  TC_ASSIGN(const replay::Survey survey, replay::survey(*recording.source));
  TraceReport report;
  report.file = file;
  if (!recording.info.sessions.empty()) report.source = recording.info.sessions.front().source;
  report.windows = survey.windows;
  report.median_window = survey.median_window;
  const double window_s = seconds(survey.median_window);

  // Where and when anything was.
  std::map<Asid, Stretches> stretches;
  std::map<Asid, std::uint64_t> size;
  std::vector<Pass> passes;
  Timeline timeline;
  bool few = true;
  TC_TRY(for_each_record(*recording.source, [&](const RecordView& r, const RecordPlace& place) {
    if (place.pass == passes.size())
      passes.push_back({timeline.at(r.scan_time, window_s), survey.counts(r.cleared, r.window)});
    if (!passes[place.pass].counts || !few) return;
    for_each_run(r, [&](std::uint64_t first, std::uint64_t pages, bool) {
      size[r.asid] += pages;
      few = few && stretches[r.asid].add(first, pages);
    });
  }));
  if (!few)
    return fail(ErrorKind::kFailure,
                "the recording names pages in more than {} places: no program's memory looks so",
                kMostStretches);
  std::vector<std::pair<std::uint64_t, Asid>> largest;
  for (const auto& [asid, pages] : size) largest.emplace_back(pages, asid);
  std::sort(largest.rbegin(), largest.rend());
  report.more_processes = largest.size() > kMostDrawn ? largest.size() - kMostDrawn : 0;
  if (largest.size() > kMostDrawn) largest.resize(kMostDrawn);

  // A pass tells of the window before it.
  report.length_s = passes.back().time_s + window_s;
  double begin = std::numeric_limits<double>::max();
  for (const Pass& pass : passes)
    if (pass.counts) begin = std::min(begin, pass.time_s);
  const double span = std::max(passes.back().time_s - begin, 0.0);
  const std::size_t columns = std::clamp<std::size_t>(
      static_cast<std::size_t>(std::lround(span / std::max(window_s, 1e-9))) + 1, 1, kColumns);
  const auto column_of = [&](const Pass& pass) {
    return span <= 0
               ? 0
               : std::min(
                     columns - 1,
                     static_cast<std::size_t>(
                         (pass.time_s - begin) / span * static_cast<double>(columns - 1) + 0.5));
  };
  std::map<Asid, Grid> grids;
  for (const auto& [pages, asid] : largest) {
    Grid& grid = grids[asid];
    grid.bands = bands_of(stretches[asid]);
    const Band& last = grid.bands.back();
    grid.columns.assign(columns, std::vector<Cell>(last.bin + last.bins));
  }
  stretches.clear();

  // How much of it was touched.
  const double length = columns > 1 ? span / static_cast<double>(columns - 1) : window_s;
  report.working_set.resize(columns);
  for (std::size_t c = 0; c < columns; ++c) {
    report.working_set[c].time_s = begin + length * static_cast<double>(c);
    report.working_set[c].length_s = length;
  }
  double touched_in_all = 0;
  // Windows of a column: passes of the address space that has the most there.
  std::vector<std::map<Asid, std::size_t>> windows(columns);
  std::vector<std::size_t> seen(passes.size(), 0);
  TC_TRY(for_each_record(*recording.source, [&](const RecordView& r, const RecordPlace& place) {
    if (!passes[place.pass].counts) return;
    const std::size_t column = column_of(passes[place.pass]);
    if (seen[place.pass]++ == 0) ++windows[column][r.asid];
    const auto grid = grids.find(r.asid);
    WorkingSet& set = report.working_set[column];
    for_each_run(r, [&](std::uint64_t first, std::uint64_t pages, bool touched) {
      set.present_pages += static_cast<double>(pages);
      if (touched) set.touched_pages += static_cast<double>(pages);
      if (touched) touched_in_all += static_cast<double>(pages);
      if (grid == grids.end()) return;
      grid->second.spread(column, first, pages, [&](Cell& cell, std::uint64_t n) {
        cell.present += n;
        if (touched) cell.touched += n;
      });
    });
  }));
  // A stretch of time in which no pass fell belongs to the one before.
  std::vector<std::size_t> counts;
  std::size_t kept = 0;
  for (std::size_t c = 0; c < columns; ++c) {
    if (windows[c].empty()) {
      if (kept > 0) report.working_set[kept - 1].length_s += length;
      continue;
    }
    std::size_t most = 0;
    for (const auto& [asid, n] : windows[c]) most = std::max(most, n);
    counts.push_back(most);
    WorkingSet& set = report.working_set[kept] = report.working_set[c];
    set.present_pages /= static_cast<double>(most);
    set.touched_pages /= static_cast<double>(most);
    for (auto& [asid, grid] : grids)
      if (kept != c) grid.columns[kept] = std::move(grid.columns[c]);
    ++kept;
  }
  report.working_set.resize(kept);
  for (auto& [asid, grid] : grids) grid.columns.resize(kept);

  for (const auto& [pages, asid] : largest) {
    const auto known = recording.info.processes.find(asid);
    trace::ProcessInfo info;
    info.command = fmt::format("address space {:#x}", asid.get());
    if (known != recording.info.processes.end()) info = known->second;
    report.processes.push_back(drawn(grids[asid], info, report.working_set));
    add_hot_ranges(grids[asid], info, touched_in_all, report.hot);
  }
  const auto touches_of_a_page = [](const HotRange& h) {
    return h.of_all / static_cast<double>(h.pages.get());
  };
  std::stable_sort(report.hot.begin(), report.hot.end(), [&](const HotRange& a, const HotRange& b) {
    return touches_of_a_page(a) > touches_of_a_page(b);
  });
  report.phases = find_phases(profiles(grids, counts), report.working_set);
  return report;
}

namespace {

std::string size_of(double pages) {
  return format_bytes(bytes_of(PageCount(static_cast<std::uint64_t>(std::llround(pages)))));
}

std::string phase_name(std::size_t kind) {
  return kind < 26 ? std::string(1, static_cast<char>('A' + kind)) : std::to_string(kind);
}

std::string head_of(const TraceReport& r) {
  return fmt::format("{}: {} windows of {} (median){} in {:.3g} s", r.file, r.windows,
                     format_duration(r.median_window), r.source.empty() ? "" : " by " + r.source,
                     r.length_s);
}

Table hot_table(const TraceReport& r, std::size_t most, double least) {
  Table table;
  table.title = "Hot ranges";
  table.note =
      "Touched: share of the windows in which the pages were there. Of all: share of "
      "all page-windows that were touched.";
  table.columns = {"address", "size", "touched", "of all", "pid", "mapping"};
  for (const HotRange& h : r.hot) {
    if (table.rows.size() == most) break;
    if (h.of_all < least) continue;
    table.rows.push_back({fmt::format("{:x}", h.first.address()), format_bytes(bytes_of(h.pages)),
                          fmt::format("{:.1f} %", 100 * h.touched),
                          fmt::format("{:.1f} %", 100 * h.of_all), std::to_string(h.pid),
                          h.mapping.empty() ? "-" : h.mapping});
  }
  return table;
}

Table phase_table(const TraceReport& r) {
  Table table;
  table.title = "Phases";
  table.note =
      "Time in which the same addresses were touched alike; phases of one letter are alike.";
  table.columns = {"phase", "from", "to", "touched in a window"};
  for (const Phase& p : r.phases)
    table.rows.push_back({phase_name(p.kind), fmt::format("{:.3g} s", p.from_s),
                          fmt::format("{:.3g} s", p.to_s), size_of(p.touched_pages)});
  return table;
}

std::string text_of(const Table& table) {
  std::vector<cli::Column> columns;
  for (std::string name : table.columns) {
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return static_cast<char>(std::toupper(c)); });
    columns.push_back({name, false});
  }
  return cli::format_table(columns, table.rows, cli::kLineWidth);
}

std::string wss_svg(const TraceReport& r) {
  double most = 1;
  for (const WorkingSet& w : r.working_set) most = std::max(most, w.present_pages);
  const bool gib = most * kPageSize >= 2.0 * (1u << 30);
  const double unit = gib ? double{1u << 30} : double{1u << 20};
  cli::LineChart chart;
  chart.title = "Working set";
  chart.x_text = "seconds";
  chart.y_unit = gib ? " GiB" : " MiB";
  chart.x_most = r.length_s;
  chart.lines = {{"there", {}}, {"touched in a window", {}}};
  for (const WorkingSet& w : r.working_set) {
    const double at = w.time_s + w.length_s / 2;
    chart.lines[0].points.emplace_back(at, w.present_pages * kPageSize / unit);
    chart.lines[1].points.emplace_back(at, w.touched_pages * kPageSize / unit);
  }
  return cli::line_chart_svg(chart);
}

/// How the touches are shared out among the memory.
std::string hot_svg(const TraceReport& r) {
  cli::LineChart chart;
  chart.title = "How much of the memory gets how many of the touches";
  chart.x_text = "% of the memory, hottest first";
  chart.y_unit = " %";
  chart.x_most = 100;
  double pages = 0;
  for (const HotRange& h : r.hot) pages += static_cast<double>(h.pages.get());
  cli::LineChart::Line line{"touches (page-windows)", {{0, 0}}};
  double so_far = 0, touches = 0;
  for (const HotRange& h : r.hot) {
    so_far += static_cast<double>(h.pages.get());
    touches += h.of_all;
    line.points.emplace_back(100 * so_far / std::max(pages, 1.0), 100 * touches);
  }
  chart.lines = {line, {"if all were alike", {{0, 0}, {100, 100}}}};
  return cli::line_chart_svg(chart);
}

std::vector<Event> phase_events(const TraceReport& r) {
  std::vector<Event> events;
  for (const Phase& p : r.phases) events.push_back({p.from_s, "phase " + phase_name(p.kind)});
  return events;
}

std::string heat_svg(const TraceReport& r, std::size_t process, TraceView view) {
  const std::vector<Event> events =
      view == TraceView::kPhases ? phase_events(r) : std::vector<Event>();
  return heat_map_picture(r.processes[process], events);
}

}  // namespace

std::string trace_svg(const TraceReport& r, TraceView view) {
  switch (view) {
    case TraceView::kWss:
      return wss_svg(r);
    case TraceView::kHot:
      return hot_svg(r);
    case TraceView::kHeat:
    case TraceView::kPhases:
      break;
  }
  return r.processes.empty() ? "" : standalone(heat_svg(r, 0, view));
}

std::string trace_html(const TraceReport& r, TraceView view) {
  Model model;
  model.title = "Thermocline recording";
  model.note = head_of(r);
  if (view == TraceView::kHeat || view == TraceView::kPhases)
    for (std::size_t i = 0; i < r.processes.size(); ++i)
      model.pictures.push_back(
          {fmt::format("{} pid {}", r.processes[i].command, r.processes[i].pid),
           "Each cell is a stretch of addresses in a stretch of time; the brighter, the more of "
           "its windows each page was touched in.",
           heat_svg(r, i, view)});
  if (view == TraceView::kWss)
    model.pictures.push_back({"Working set", "All processes together.", wss_svg(r)});
  if (view == TraceView::kHot) {
    model.pictures.push_back({"Skew", "Of the addresses that were touched at all.", hot_svg(r)});
    model.tables.push_back(hot_table(r, 100, 0));
  }
  if (view == TraceView::kPhases) model.tables.push_back(phase_table(r));
  return to_html(model);
}

std::string trace_text(const TraceReport& r, TraceView view) {
  std::string text = head_of(r) + "\n\n";
  switch (view) {
    case TraceView::kHeat: {
      std::vector<std::vector<std::string>> rows;
      for (const Process& p : r.processes) {
        double heat = 0, present = 0;
        for (const Column& c : p.columns)
          for (const Bin& b : c.bins) {
            heat += b.heat * static_cast<double>(b.present);
            present += static_cast<double>(b.present);
          }
        rows.push_back(
            {std::to_string(p.pid), p.command,
             fmt::format("{:.2f} %", 100 * heat / kRecordedHeat / std::max(present, 1.0))});
      }
      return text + cli::format_table({{"PID"}, {"COMMAND"}, {"TOUCHED IN A WINDOW"}}, rows) +
             "\n\n-o FILE.svg, FILE.html or FILE.json has the map.";
    }
    case TraceView::kWss: {
      std::vector<double> touched;
      double present = 0;
      for (const WorkingSet& w : r.working_set) {
        touched.push_back(w.touched_pages);
        present = std::max(present, w.present_pages);
      }
      std::sort(touched.begin(), touched.end());
      const auto at = [&](double q) {
        return size_of(
            touched[static_cast<std::size_t>(q * static_cast<double>(touched.size() - 1))]);
      };
      return text + fmt::format(
                        "touched in a window: {} at least, {} median, {} in 95 % of the "
                        "time at most, {} at most\nthere: {} at most",
                        at(0), at(0.5), at(0.95), at(1), size_of(present));
    }
    case TraceView::kHot:
      return text + text_of(hot_table(r, kRowsOfText, kLeastOfAll));
    case TraceView::kPhases:
      break;
  }
  return text + text_of(phase_table(r));
}

nlohmann::ordered_json trace_json(const TraceReport& r, TraceView view) {
  using nlohmann::ordered_json;
  ordered_json out{{"label", "measured"},
                   {"file", r.file},
                   {"source", r.source},
                   {"windows", r.windows},
                   {"median_window_ns", r.median_window.count()},
                   {"length_s", r.length_s}};
  ordered_json list = ordered_json::array();
  switch (view) {
    case TraceView::kHeat:
      for (const Process& p : r.processes) {
        ordered_json columns = ordered_json::array();
        for (const Column& c : p.columns) {
          ordered_json bins = ordered_json::array();
          for (const Bin& b : c.bins)
            bins.push_back({{"first_page", b.first_page},
                            {"pages", b.pages},
                            {"present_page_windows", b.present},
                            {"touched_share", b.heat / kRecordedHeat}});
          columns.push_back(
              {{"time_s", c.time_s}, {"column_s", c.length_s}, {"bins", std::move(bins)}});
        }
        list.push_back({{"pid", p.pid}, {"command", p.command}, {"columns", std::move(columns)}});
      }
      out["processes"] = std::move(list);
      break;
    case TraceView::kWss:
      for (const WorkingSet& w : r.working_set)
        list.push_back({{"time_s", w.time_s},
                        {"present_pages", w.present_pages},
                        {"touched_pages", w.touched_pages}});
      out["working_set"] = std::move(list);
      break;
    case TraceView::kHot:
      for (const HotRange& h : r.hot)
        list.push_back({{"pid", h.pid},
                        {"command", h.command},
                        {"first_page", h.first.get()},
                        {"pages", h.pages.get()},
                        {"touched_share", h.touched},
                        {"share_of_touches", h.of_all},
                        {"mapping", h.mapping}});
      out["ranges"] = std::move(list);
      break;
    case TraceView::kPhases:
      for (const Phase& p : r.phases)
        list.push_back({{"phase", phase_name(p.kind)},
                        {"from_s", p.from_s},
                        {"to_s", p.to_s},
                        {"touched_pages", p.touched_pages}});
      out["phases"] = std::move(list);
      break;
  }
  return out;
}

}  // namespace thermocline::report
