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

/// In units of all-fast's time: of the seeds that both have; with none in common, of its mean.
BySeed in_units_of(const BySeed& all_fast, const BySeed& of) {
  std::vector<BySeed> common = over_common_seeds({of, all_fast});
  if (common[0].empty()) {
    common[0] = of;
    for (const auto& [seed, value] : of) common[1][seed] = mean(all_fast);
  }
  for (auto& [seed, value] : common[0]) value -= common[1].at(seed);
  return common[0];
}

void add_slowdowns(Cell& cell) {
  const SystemFigures* all_fast = cell.find("all-fast");
  if (!all_fast) return;
  for (SystemFigures& figures : cell.systems) {
    figures.slowdown = over_seeds(in_units_of(all_fast->log_ns, figures.log_ns));
    if (!figures.steady_log_ns.empty() && !all_fast->steady_log_ns.empty())
      figures.steady_slowdown =
          over_seeds(in_units_of(all_fast->steady_log_ns, figures.steady_log_ns));
  }
}

std::string_view family_of(const std::string& system) {
  return split(system, '@').front();
}

bool is_faster(const BySeed& a, const BySeed& b) {
  const std::vector<BySeed> common = over_common_seeds({a, b});
  return common[0].empty() ? mean(a) < mean(b) : mean(common[0]) < mean(common[1]);
}

/// The fastest of `cell`'s systems of that name, with or without a setting.
const SystemFigures* fastest(const Cell& cell, std::string_view name, Measure measure) {
  const SystemFigures* best = nullptr;
  for (const SystemFigures& figures : cell.systems) {
    if (family_of(figures.system) != name || figures.times(measure).empty()) continue;
    if (!best || is_faster(figures.times(measure), best->times(measure))) best = &figures;
  }
  return best;
}

/// The faster of the rivals, each with its better setting.
const SystemFigures* better_rival(const Cell& cell, Measure measure) {
  const SystemFigures* best = nullptr;
  for (const std::string_view name : kRivals) {
    const SystemFigures* rival = fastest(cell, name, measure);
    if (!rival) continue;
    if (!best || is_faster(rival->times(measure), best->times(measure))) best = rival;
  }
  return best;
}

std::optional<Versus> versus(const Cell& cell, std::string_view opponent, Measure measure) {
  const SystemFigures* ours = cell.find(kOurs);
  const SystemFigures* other =
      opponent == kBetterRival ? better_rival(cell, measure) : fastest(cell, opponent, measure);
  if (!ours || !other) return std::nullopt;
  const auto ratio = ratio_over_seeds(other->times(measure), ours->times(measure));
  if (!ratio) return std::nullopt;
  return Versus{other->system, *ratio};
}

/// Times of the better rival, ours and the oracle over the seeds that all three have; none: a
/// system or a common seed is missing.
std::optional<std::vector<BySeed>> gap_times(const Cell& cell, Measure measure) {
  const SystemFigures* rival = better_rival(cell, measure);
  const SystemFigures* ours = cell.find(kOurs);
  const SystemFigures* oracle = cell.find("oracle-static");
  if (!rival || !ours || !oracle) return std::nullopt;
  std::vector<BySeed> times =
      over_common_seeds({rival->times(measure), ours->times(measure), oracle->times(measure)});
  if (times[0].empty()) return std::nullopt;
  return times;
}

/// (rival - ours) / (rival - oracle) of mean times; none where the oracle is not faster.
std::optional<double> gap_closed(const Cell& cell, Measure measure) {
  const auto times = gap_times(cell, measure);
  if (!times) return std::nullopt;
  const double rival = std::exp(mean((*times)[0]));
  const double gap = rival - std::exp(mean((*times)[2]));
  if (gap <= 0) return std::nullopt;
  return (rival - std::exp(mean((*times)[1]))) / gap;
}

std::optional<Estimate> oracle_gain(const Cell& cell, Measure measure) {
  const SystemFigures* rival = better_rival(cell, measure);
  const SystemFigures* oracle = cell.find("oracle-static");
  if (!rival || !oracle) return std::nullopt;
  return ratio_over_seeds(rival->times(measure), oracle->times(measure));
}

void compare(Cell& cell, std::string_view mode) {
  add_slowdowns(cell);
  for (const std::string_view opponent : kOpponents)
    cell.comparisons.push_back({std::string(opponent), versus(cell, opponent, Measure::kWhole),
                                versus(cell, opponent, Measure::kSteady)});
  const SystemFigures* ours = cell.find(kOurs);
  const SystemFigures* oracle = cell.find("oracle-static");
  cell.oracle_gain = oracle_gain(cell, Measure::kWhole);
  cell.steady_oracle_gain = oracle_gain(cell, Measure::kSteady);
  cell.gap_closed = gap_closed(cell, Measure::kWhole);
  cell.steady_gap_closed = gap_closed(cell, Measure::kSteady);
  if (oracle) {
    if (ours) cell.of_oracle = ratio_over_seeds(oracle->steady_log_ns, ours->steady_log_ns);
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

/// The core cells that there are, and how many there should be.
struct Core {
  Members cells;
  const Coverage& coverage;
};

bool is_worthwhile(const Cell& cell, Measure measure) {
  const auto& gain = measure == Measure::kWhole ? cell.oracle_gain : cell.steady_oracle_gain;
  return gain && gain->value >= kWorthwhile;
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
          {cell->workload, over_common_seeds({cell->find(versus->system)->times(measure),
                                              cell->find(kOurs)->times(measure)})});
  return samples;
}

std::string of_cells(std::size_t n, const Core& core) {
  return fmt::format("{} of {} core cells", n, core.coverage.cells);
}

Goal better_rival_goal(std::string text, double wanted, bool above_one, const Core& core,
                       bool worthwhile_only) {
  Goal goal;
  goal.text = std::move(text);
  goal.wanted = wanted;
  Members cells;
  const Cell* worst = nullptr;
  for (const Cell* cell : core.cells) {
    const auto& against = cell->against(kBetterRival).whole;
    if (!against || (worthwhile_only && !is_worthwhile(*cell, Measure::kWhole))) continue;
    cells.push_back(cell);
    if (!worst || against->ratio.value < worst->against(kBetterRival).whole->ratio.value)
      worst = cell;
  }
  goal.figure = bootstrap(samples_against(kBetterRival, Measure::kWhole, cells), geometric_mean);
  goal.detail = of_cells(cells.size(), core);
  if (!goal.figure) return goal;
  goal.detail += fmt::format("; lowest {:.3f}, {}", worst->against(kBetterRival).whole->ratio.value,
                             cell_name(*worst));
  goal.reached = goal.figure->value >= wanted;
  if (above_one)
    goal.reached = *goal.reached && goal.figure->interval && goal.figure->interval->low > 1;
  return goal;
}

/// Pooled: what of all cells' gaps together is closed, each in units of its all-fast's time. A cell
/// where the rival is at or past the oracle counts like any other: what ours is slower there is
/// lost, and it makes the gap smaller.
Goal gap_goal(std::string text, std::optional<double> wanted, Measure measure, const Core& core,
              bool worthwhile_only) {
  Goal goal;
  goal.text = std::move(text);
  goal.wanted = wanted;
  goal.percent = true;
  std::vector<Sample> samples;
  std::size_t without_gap = 0;
  for (const Cell* cell : core.cells) {
    auto times = gap_times(*cell, measure);
    const SystemFigures* all_fast = cell->find("all-fast");
    if (!times || !all_fast || all_fast->times(measure).empty()) continue;
    if (worthwhile_only && !is_worthwhile(*cell, measure)) continue;
    for (BySeed& of_system : *times) of_system = in_units_of(all_fast->times(measure), of_system);
    without_gap += mean((*times)[0]) <= mean((*times)[2]) ? 1 : 0;
    samples.push_back({cell->workload, std::move(*times)});
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
  goal.detail = of_cells(samples.size(), core);
  if (without_gap > 0)
    goal.detail += fmt::format("; {} with the better rival at or past the oracle", without_gap);
  if (goal.figure && wanted) goal.reached = goal.figure->value >= *wanted;
  return goal;
}

/// The lowest of the cells' figures: a goal for every single one.
template <class Figure>
Goal every_cell_goal(std::string text, double wanted, const Core& core, Figure figure_of) {
  Goal goal;
  goal.text = std::move(text);
  goal.wanted = wanted;
  const Cell* worst = nullptr;
  std::size_t n = 0, reached = 0;
  double logs = 0;
  for (const Cell* cell : core.cells) {
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
  goal.reached = reached == n;
  goal.detail = fmt::format("lowest of all: {}; {} of {} cells reach it; geometric mean {:.3f}",
                            cell_name(*worst), reached, n, std::exp(logs / static_cast<double>(n)));
  return goal;
}

std::vector<Score> scores_of(const Core& core) {
  std::vector<Score> scores;
  for (const std::string_view opponent : kOpponents)
    for (const Measure measure : {Measure::kWhole, Measure::kSteady}) {
      Score& score = scores.emplace_back();
      score.opponent = opponent;
      score.measure = measure;
      for (const Cell* cell : core.cells) switch (verdict(cell->against(opponent).at(measure))) {
          case Verdict::kWin:
            ++score.wins;
            break;
          case Verdict::kUnclear:
            ++score.unclear;
            [[fallthrough]];
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
      score.ratio = bootstrap(samples_against(opponent, measure, core.cells), geometric_mean);
    }
  return scores;
}

std::vector<Goal> goals_of(const Core& core) {
  std::vector<Goal> goals;
  goals.push_back(better_rival_goal("better rival's time ÷ ours, geometric mean; interval above 1",
                                    1.10, true, core, false));
  goals.push_back(better_rival_goal(
      "the same where the oracle beats the better rival by 1.2 or more", 1.20, false, core, true));
  goals.push_back(
      gap_goal("gap from the better rival to the oracle closed, all pooled, convergence counted",
               0.60, Measure::kWhole, core, false));
  goals.push_back(gap_goal("the same in steady state", 0.80, Measure::kSteady, core, false));
  goals.push_back(gap_goal("closed, convergence counted, where the oracle is 1.2 or more better",
                           std::nullopt, Measure::kWhole, core, true));
  goals.push_back(gap_goal("closed in steady state, where it is 1.2 or more better then",
                           std::nullopt, Measure::kSteady, core, true));
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
  for (Goal& goal : goals) goal.final = core.coverage.whole;
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

bool is_core(const std::string& workload, const std::string& ratio) {
  const auto& all = suite_workloads();
  return one_of(ratio, kCoreRatios) && std::any_of(all.begin(), all.end(), [&](const auto& w) {
           return w.core && w.name == workload;
         });
}

bool is_complete(const Cell& cell) {
  const auto& all = suite_systems();
  return std::all_of(all.begin(), all.end(), [&cell](const SuiteSystem& system) {
    return !system.core || cell.find(system.name);
  });
}

Coverage coverage_of(const Table& table) {
  Coverage result;
  for (const std::string_view ratio : kCoreRatios) {
    const auto complete = static_cast<std::size_t>(std::count_if(
        table.cells.begin(), table.cells.end(),
        [ratio](const Cell& cell) { return cell.core && cell.complete && cell.ratio == ratio; }));
    result.by_ratio.emplace_back(ratio, complete);
    result.complete += complete;
  }
  for (const SuiteWorkload& workload : suite_workloads()) {
    if (!workload.core) continue;
    result.cells += std::size(kCoreRatios);
    if (std::none_of(table.cells.begin(), table.cells.end(), [&workload](const Cell& cell) {
          return cell.core && cell.workload == workload.name && !cell.systems.empty();
        }))
      result.absent.push_back(workload.name);
  }
  // Bounds that have no ratio are a part of every one.
  const auto touches_core = [](const CellKey& key) {
    return is_core(key.workload, key.ratio == "-" ? std::string(kCoreRatios[0]) : key.ratio);
  };
  result.whole = result.complete == result.cells &&
                 std::none_of(table.missing.begin(), table.missing.end(), touches_core) &&
                 std::none_of(table.failed.begin(), table.failed.end(),
                              [&](const Failure& f) { return touches_core(f.key); });
  return result;
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
    cell.core = is_core(workload, ratio);
    std::map<std::string, std::vector<const CellRecord*>> by_system = done[workload][ratio];
    // Bounds that have no ratio count for every one.
    for (const auto& [system, bounds] : done[workload]["-"]) by_system.try_emplace(system, bounds);
    for (auto& [system, of_system] : by_system) {
      std::sort(of_system.begin(), of_system.end(),
                [](const CellRecord* a, const CellRecord* b) { return a->key.seed < b->key.seed; });
      cell.systems.push_back(figures_of(system, of_system));
    }
    cell.complete = is_complete(cell);
    compare(cell, table.mode);
  }
  std::sort(table.cells.begin(), table.cells.end(), [](const Cell& a, const Cell& b) {
    return std::tuple(a.workload, slow_for_fast(a.ratio)) <
           std::tuple(b.workload, slow_for_fast(b.ratio));
  });
  table.core = coverage_of(table);
  Core core{{}, table.core};
  for (const Cell& cell : table.cells)
    if (cell.core) core.cells.push_back(&cell);
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
  const Estimate& ratio = versus->ratio;
  if (ratio.value >= kLossBelow && ratio.value <= kWinAbove) return Verdict::kTie;
  if (ratio.interval && ratio.interval->low <= 1 && ratio.interval->high >= 1)
    return Verdict::kUnclear;
  return ratio.value > 1 ? Verdict::kWin : Verdict::kLoss;
}

std::string_view to_text(Verdict verdict) {
  switch (verdict) {
    case Verdict::kWin:
      return "win";
    case Verdict::kTie:
      return "tie";
    case Verdict::kUnclear:
      return "not clear";
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
