// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "base/text.h"
#include "bench/suite/plan.h"

namespace thermocline::suite {

namespace {

/// "1:8" -> 8; what is no ratio comes last.
double slow_for_fast(const std::string& ratio) {
  const auto parts = split(ratio, ':');
  if (parts.size() != 2) return 1e9;
  const auto fast = parse_u64(parts[0]);
  const auto slow = parse_u64(parts[1]);
  return fast && slow && *fast > 0 ? static_cast<double>(*slow) / static_cast<double>(*fast) : 1e9;
}

template <class Range>
bool one_of(std::string_view name, const Range& names) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

bool good(const CellRecord& record) {
  return record.done && record.verified.value_or(true);
}

template <class T>
std::optional<T> mean_of(std::span<const CellRecord* const> records,
                         std::optional<T> CellRecord::*member) {
  double sum = 0;
  std::size_t n = 0;
  for (const CellRecord* record : records)
    if (const std::optional<T>& value = record->*member) {
      if constexpr (std::is_same_v<T, Bytes>)
        sum += static_cast<double>(value->get());
      else
        sum += static_cast<double>(*value);
      ++n;
    }
  if (n == 0) return std::nullopt;
  const double mean = sum / static_cast<double>(n);
  if constexpr (std::is_same_v<T, Bytes>)
    return Bytes(static_cast<std::uint64_t>(std::llround(mean)));
  else
    return static_cast<T>(mean);
}

SystemFigures figures_of(std::string system, std::span<const CellRecord* const> records) {
  SystemFigures result;
  result.system = std::move(system);
  result.seeds = records.size();
  result.mean.key = records.front()->key;
  result.mean.policy = records.front()->policy;
  result.mean.done = true;
  for (const FigureKey& figure : figure_keys())
    result.mean.*figure.member = mean_of(records, figure.member);
  for (const auto member : {&CellRecord::promoted_bytes, &CellRecord::demoted_bytes,
                            &CellRecord::fast_bytes, &CellRecord::footprint_bytes})
    result.mean.*member = mean_of(records, member);
  for (const CellRecord* record : records) {
    result.log_ns[record->key.seed] = std::log(1e9 / *record->ops_per_s);
    const auto steady = record->steady_ops_per_s      ? record->steady_ops_per_s
                        : stands_still(result.system) ? record->ops_per_s
                                                      : std::nullopt;
    if (steady) result.steady_log_ns[record->key.seed] = std::log(1e9 / *steady);
  }
  // As the means of all ratios are taken.
  result.mean.ops_per_s = 1e9 / std::exp(mean(result.log_ns));
  if (!result.steady_log_ns.empty())
    result.mean.steady_ops_per_s = 1e9 / std::exp(mean(result.steady_log_ns));
  return result;
}

/// The times of all-fast for the seeds of `of`: its own of the same seed, its mean for any other.
BySeed all_fast_times(const BySeed& all_fast, const BySeed& of) {
  BySeed result;
  for (const auto& [seed, value] : of) {
    const auto own = all_fast.find(seed);
    result[seed] = own == all_fast.end() ? mean(all_fast) : own->second;
  }
  return result;
}

void add_slowdowns(Cell& cell) {
  const SystemFigures* all_fast = cell.find("all-fast");
  if (!all_fast) return;
  for (SystemFigures& figures : cell.systems) {
    figures.slowdown =
        ratio_over_seeds(figures.log_ns, all_fast_times(all_fast->log_ns, figures.log_ns));
    if (!figures.steady_log_ns.empty() && !all_fast->steady_log_ns.empty())
      figures.steady_slowdown = ratio_over_seeds(
          figures.steady_log_ns, all_fast_times(all_fast->steady_log_ns, figures.steady_log_ns));
  }
}

/// The fastest of `cell`'s systems that go by one of `names`, with or without a setting.
const SystemFigures* fastest(const Cell& cell, std::span<const std::string_view> names,
                             Measure measure) {
  const SystemFigures* best = nullptr;
  for (const SystemFigures& figures : cell.systems) {
    const std::string_view name = split(figures.system, '@').front();
    const BySeed& own = figures.times(measure);
    if (!one_of(name, names) || own.empty()) continue;
    if (best == nullptr || mean(own) < mean(best->times(measure))) best = &figures;
  }
  return best;
}

const SystemFigures* better_rival(const Cell& cell, Measure measure) {
  return fastest(cell, kRivals, measure);
}

std::optional<Versus> versus(const Cell& cell, std::string_view opponent, Measure measure) {
  const SystemFigures* ours = cell.find(kOurs);
  const SystemFigures* other = opponent == kBetterRival
                                   ? better_rival(cell, measure)
                                   : fastest(cell, std::span(&opponent, 1), measure);
  if (!ours || !other || ours->times(measure).empty()) return std::nullopt;
  return Versus{other->system, ratio_over_seeds(other->times(measure), ours->times(measure))};
}

/// (rival - ours) / (rival - oracle) of mean times; none where the oracle is not faster.
std::optional<double> gap_closed(const Cell& cell, Measure measure) {
  const SystemFigures* rival = better_rival(cell, measure);
  const SystemFigures* ours = cell.find(kOurs);
  const SystemFigures* oracle = cell.find("oracle-static");
  if (!rival || !ours || !oracle || ours->times(measure).empty() || oracle->times(measure).empty())
    return std::nullopt;
  const double rival_time = std::exp(mean(rival->times(measure)));
  const double gap = rival_time - std::exp(mean(oracle->times(measure)));
  if (gap <= 0) return std::nullopt;
  return (rival_time - std::exp(mean(ours->times(measure)))) / gap;
}

void compare(Cell& cell, std::string_view mode) {
  add_slowdowns(cell);
  for (const std::string_view opponent : kOpponents)
    cell.comparisons.push_back({std::string(opponent), versus(cell, opponent, Measure::kWhole),
                                versus(cell, opponent, Measure::kSteady)});
  const SystemFigures* ours = cell.find(kOurs);
  const SystemFigures* oracle = cell.find("oracle-static");
  const SystemFigures* rival = better_rival(cell, Measure::kWhole);
  if (oracle && rival) cell.oracle_gain = ratio_over_seeds(rival->log_ns, oracle->log_ns);
  cell.gap_closed = gap_closed(cell, Measure::kWhole);
  cell.steady_gap_closed = gap_closed(cell, Measure::kSteady);
  if (oracle) {
    if (ours && !ours->steady_log_ns.empty())
      cell.of_oracle = ratio_over_seeds(oracle->steady_log_ns, ours->steady_log_ns);
    const auto hits = steady_hits(*oracle);
    cell.hot_set_fits = hits && *hits >= kHotSetFits;
  }
  cell.cause = cause_of(cell, mode);
}

// --------------------------------------------------------------------------------------- goals --

std::string cell_name(const Cell& cell) {
  return cell.workload + " " + cell.ratio;
}

using Members = std::vector<const Cell*>;

bool is_worthwhile(const Cell& cell) {
  return cell.oracle_gain && cell.oracle_gain->value >= kWorthwhile;
}

/// Over the cells, of the first system's time ÷ the second's.
double geometric_mean(std::span<const std::vector<double>> means) {
  double sum = 0;
  for (const auto& row : means) sum += row[0] - row[1];
  return std::exp(sum / static_cast<double>(means.size()));
}

/// The cells in which there is something to compare; one row of times a cell, the other's and ours.
std::vector<Sample> samples_against(std::string_view opponent, Measure measure,
                                    const Members& cells) {
  std::vector<Sample> samples;
  for (const Cell* cell : cells)
    if (const auto& versus = cell->against(opponent).at(measure))
      samples.push_back(
          {cell->workload,
           {cell->find(versus->system)->times(measure), cell->find(kOurs)->times(measure)}});
  return samples;
}

std::string of_cells(std::size_t n, const Members& all) {
  return fmt::format("{} of {} core cells", n, all.size());
}

Goal better_rival_goal(std::string text, double wanted, bool above_one, const Members& core,
                       bool worthwhile_only) {
  Goal goal;
  goal.text = std::move(text);
  goal.wanted = wanted;
  Members cells;
  const Cell* worst = nullptr;
  for (const Cell* cell : core) {
    const auto& against = cell->against(kBetterRival).whole;
    if (!against || (worthwhile_only && !is_worthwhile(*cell))) continue;
    cells.push_back(cell);
    if (!worst || against->ratio.value < worst->against(kBetterRival).whole->ratio.value)
      worst = cell;
  }
  goal.figure = bootstrap(samples_against(kBetterRival, Measure::kWhole, cells), geometric_mean);
  goal.detail = of_cells(cells.size(), core);
  if (!goal.figure) return goal;
  goal.detail += fmt::format("; lowest {:.3f}, {}", worst->against(kBetterRival).whole->ratio.value,
                             cell_name(*worst));
  goal.met = goal.figure->value >= wanted;
  if (above_one) goal.met = *goal.met && goal.figure->interval && goal.figure->interval->low > 1;
  return goal;
}

/// Pooled: what of all cells' gaps is closed, each counted in units of its all-fast's time.
Goal gap_goal(std::string text, std::optional<double> wanted, Measure measure, const Members& core,
              bool worthwhile_only) {
  Goal goal;
  goal.text = std::move(text);
  goal.wanted = wanted;
  goal.percent = true;
  std::vector<Sample> samples;
  for (const Cell* cell : core) {
    const auto& closed = measure == Measure::kWhole ? cell->gap_closed : cell->steady_gap_closed;
    const SystemFigures* all_fast = cell->find("all-fast");
    if (!closed || !all_fast || all_fast->times(measure).empty()) continue;
    if (worthwhile_only && !is_worthwhile(*cell)) continue;
    Sample& sample = samples.emplace_back();
    sample.group = cell->workload;
    for (const SystemFigures* figures :
         {better_rival(*cell, measure), cell->find(kOurs), cell->find("oracle-static")}) {
      sample.logs.push_back(figures->times(measure));
      const BySeed unit = all_fast_times(all_fast->times(measure), sample.logs.back());
      for (auto& [seed, value] : sample.logs.back()) value -= unit.at(seed);
    }
  }
  goal.figure =
      bootstrap(samples, [](std::span<const std::vector<double>> means) -> std::optional<double> {
        double closed = 0, gap = 0;
        for (const auto& row : means) {
          closed += std::exp(row[0]) - std::exp(row[1]);
          gap += std::exp(row[0]) - std::exp(row[2]);
        }
        if (gap <= 0) return std::nullopt;
        return closed / gap;
      });
  goal.detail = of_cells(samples.size(), core) +
                (worthwhile_only ? "" : ", those in which the oracle is faster");
  if (goal.figure && wanted) goal.met = goal.figure->value >= *wanted;
  return goal;
}

/// The lowest of the cells' figures: a goal for every single one.
template <class Figure>
Goal every_cell_goal(std::string text, double wanted, const Members& cells, Figure figure_of) {
  Goal goal;
  goal.text = std::move(text);
  goal.wanted = wanted;
  const Cell* worst = nullptr;
  std::size_t n = 0, reached = 0;
  double logs = 0;
  for (const Cell* cell : cells) {
    const std::optional<Estimate> figure = figure_of(*cell);
    if (!figure) continue;
    ++n;
    reached += figure->value >= wanted ? 1 : 0;
    logs += std::log(figure->value);
    if (goal.figure && figure->value >= goal.figure->value) continue;
    goal.figure = figure;
    worst = cell;
  }
  if (!worst) {
    goal.detail = "no cell to say";
    return goal;
  }
  goal.met = reached == n;
  goal.detail = fmt::format("lowest of all: {}; {} of {} cells reach it; geometric mean {:.3f}",
                            cell_name(*worst), reached, n, std::exp(logs / static_cast<double>(n)));
  return goal;
}

std::vector<Score> scores_of(const Members& core) {
  std::vector<Score> scores;
  for (const std::string_view opponent : kOpponents)
    for (const Measure measure : {Measure::kWhole, Measure::kSteady}) {
      Score& score = scores.emplace_back();
      score.opponent = opponent;
      score.measure = measure;
      for (const Cell* cell : core) switch (verdict(cell->against(opponent).at(measure))) {
          case Verdict::kWin:
            ++score.wins;
            break;
          case Verdict::kTie:
            ++score.ties;
            break;
          case Verdict::kLoss:
            ++score.losses;
            break;
          case Verdict::kUnknown:
            ++score.unknown;
            break;
        }
      score.ratio = bootstrap(samples_against(opponent, measure, core), geometric_mean);
    }
  return scores;
}

std::vector<Goal> goals_of(const Members& core) {
  std::vector<Goal> goals;
  goals.push_back(better_rival_goal("better rival's time ÷ ours, geometric mean; interval above 1",
                                    1.10, true, core, false));
  goals.push_back(better_rival_goal(
      "the same where the oracle beats the better rival by 1.2 or more", 1.20, false, core, true));
  goals.push_back(gap_goal("gap from the better rival to the oracle closed, convergence counted",
                           0.60, Measure::kWhole, core, false));
  goals.push_back(gap_goal("the same in steady state", 0.80, Measure::kSteady, core, false));
  goals.push_back(gap_goal("closed, convergence counted, where the oracle is 1.2 or more better",
                           std::nullopt, Measure::kWhole, core, true));
  goals.push_back(gap_goal("the same in steady state", std::nullopt, Measure::kSteady, core, true));
  for (const auto& [ratio, wanted] : {std::pair("1:2", 0.95), std::pair("1:8", 0.90)})
    goals.push_back(every_cell_goal(
        fmt::format("oracle's time ÷ ours in steady state at {}, every cell whose hot set fits",
                    ratio),
        wanted, core, [ratio = ratio](const Cell& cell) {
          return cell.ratio == ratio && cell.hot_set_fits ? cell.of_oracle : std::nullopt;
        }));
  goals.push_back(every_cell_goal("first-touch's time ÷ ours, every cell", 0.98, core,
                                  [](const Cell& cell) -> std::optional<Estimate> {
                                    const auto& against = cell.against("first-touch").whole;
                                    if (!against) return std::nullopt;
                                    return against->ratio;
                                  }));
  return goals;
}

// -------------------------------------------------------------------------------------- tables --

using TableKey = std::tuple<std::string, std::string, std::string>;
TableKey table_of(const CellKey& key) {
  return {key.timing, key.mode, key.kernel};
}

/// Reference mode before parallel: it is the deterministic one.
bool comes_first(const Table& a, const Table& b) {
  return std::tuple(a.timing, a.mode != "reference", a.kernel) <
         std::tuple(b.timing, b.mode != "reference", b.kernel);
}

Table make_table(const TableKey& key, const std::vector<const CellRecord*>& records,
                 const std::vector<const CellKey*>& expected) {
  Table table;
  std::tie(table.timing, table.mode, table.kernel) = key;
  std::set<std::pair<std::string, std::string>> places;  // workload and ratio
  std::set<CellKey> present;
  std::map<std::string,
           std::map<std::string, std::map<std::string, std::vector<const CellRecord*>>>>
      done;  // by workload, ratio, system
  for (const CellRecord* record : records) {
    ++table.versions[record->version.empty() ? "unknown" : record->version];
    present.insert(record->key);
    if (record->key.ratio != "-") places.emplace(record->key.workload, record->key.ratio);
    if (good(*record))
      done[record->key.workload][record->key.ratio][record->key.system].push_back(record);
    else
      table.failed.push_back(
          {record->key,
           record->done ? "the workload's own check found a wrong result" : record->error,
           record->log});
  }
  for (const CellKey* cell : expected) {
    if (cell->ratio != "-") places.emplace(cell->workload, cell->ratio);
    if (!present.contains(*cell)) table.missing.push_back(*cell);
  }
  const auto in_order = [](const CellKey& a, const CellKey& b) {
    return std::tuple(a.workload, slow_for_fast(a.ratio), a.system, a.seed) <
           std::tuple(b.workload, slow_for_fast(b.ratio), b.system, b.seed);
  };
  std::sort(table.missing.begin(), table.missing.end(), in_order);
  std::sort(table.failed.begin(), table.failed.end(),
            [in_order](const Failure& a, const Failure& b) { return in_order(a.key, b.key); });

  for (const auto& [workload, ratio] : places) {
    Cell& cell = table.cells.emplace_back();
    cell.workload = workload;
    cell.ratio = ratio;
    cell.core = one_of(ratio, kCoreRatios);
    std::map<std::string, std::vector<const CellRecord*>> by_system = done[workload][ratio];
    // Bounds that have no ratio count for every one.
    for (const auto& [system, bounds] : done[workload]["-"]) by_system.try_emplace(system, bounds);
    for (auto& [system, of_system] : by_system) {
      std::sort(of_system.begin(), of_system.end(),
                [](const CellRecord* a, const CellRecord* b) { return a->key.seed < b->key.seed; });
      cell.systems.push_back(figures_of(system, of_system));
    }
    compare(cell, table.mode);
  }
  std::sort(table.cells.begin(), table.cells.end(), [](const Cell& a, const Cell& b) {
    return std::tuple(a.workload, slow_for_fast(a.ratio)) <
           std::tuple(b.workload, slow_for_fast(b.ratio));
  });
  Members core;
  for (const Cell& cell : table.cells)
    if (cell.core) core.push_back(&cell);
  table.scores = scores_of(core);
  table.goals = goals_of(core);
  return table;
}

}  // namespace

std::optional<double> steady_hits(const SystemFigures& figures) {
  const std::optional<double>& own = figures.mean.steady_fast_hit_ratio;
  return own || !stands_still(figures.system) ? own : figures.mean.fast_hit_ratio;
}

const SystemFigures* Cell::find(std::string_view system) const {
  const auto found = std::find_if(systems.begin(), systems.end(),
                                  [system](const auto& s) { return s.system == system; });
  return found == systems.end() ? nullptr : &*found;
}

const Comparison& Cell::against(std::string_view opponent) const {
  return *std::find_if(comparisons.begin(), comparisons.end(),
                       [opponent](const Comparison& c) { return c.opponent == opponent; });
}

Verdict verdict(const std::optional<Versus>& versus) {
  if (!versus) return Verdict::kUnknown;
  if (versus->ratio.value > kWinAbove) return Verdict::kWin;
  return versus->ratio.value < kLossBelow ? Verdict::kLoss : Verdict::kTie;
}

std::string_view to_text(Verdict verdict) {
  switch (verdict) {
    case Verdict::kWin:
      return "win";
    case Verdict::kTie:
      return "tie";
    case Verdict::kLoss:
      return "loss";
    case Verdict::kUnknown:
      break;
  }
  return "not known";
}

std::vector<CellKey> every_combination(const std::vector<CellRecord>& records) {
  struct Seen {
    std::set<std::string> workloads, ratios;
    std::map<std::string, std::set<std::uint64_t>> seeds;  // by system
    std::set<std::string> bounds;                          // systems without a ratio
  };
  std::map<TableKey, Seen> tables;
  for (const CellRecord& record : records) {
    Seen& seen = tables[table_of(record.key)];
    seen.workloads.insert(record.key.workload);
    if (record.key.ratio == "-")
      seen.bounds.insert(record.key.system);
    else
      seen.ratios.insert(record.key.ratio);
    seen.seeds[record.key.system].insert(record.key.seed);
  }
  std::vector<CellKey> keys;
  for (const auto& [key, seen] : tables) {
    const auto& [timing, mode, kernel] = key;
    for (const std::string& workload : seen.workloads)
      for (const auto& [system, seeds] : seen.seeds) {
        const std::set<std::string> ratios =
            seen.bounds.contains(system) ? std::set<std::string>{"-"} : seen.ratios;
        for (const std::string& ratio : ratios)
          for (const std::uint64_t seed : seeds)
            keys.push_back({workload, ratio, system, timing, mode, kernel, seed});
      }
  }
  return keys;
}

Summary summarize(const std::vector<CellRecord>& records, const std::vector<CellKey>& expected) {
  std::map<TableKey, std::pair<std::vector<const CellRecord*>, std::vector<const CellKey*>>> parts;
  for (const CellRecord& record : records) parts[table_of(record.key)].first.push_back(&record);
  for (const CellKey& key : expected) parts[table_of(key)].second.push_back(&key);
  Summary summary;
  for (const auto& [key, part] : parts)
    summary.tables.push_back(make_table(key, part.first, part.second));
  std::sort(summary.tables.begin(), summary.tables.end(), comes_first);
  return summary;
}

}  // namespace thermocline::suite
