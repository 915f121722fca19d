// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/report_sections.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "base/text.h"
#include "bench/suite/plan.h"

namespace thermocline::suite {

namespace {

std::string share_text(const std::optional<double>& value) {
  return value ? fmt::format("{:.1f} %", 100 * *value) : "";
}

TextCell figure(const std::optional<double>& value, std::string text) {
  return {value ? std::move(text) : "–", {}, value ? Tone::kPlain : Tone::kDim, value};
}

TextCell number(const std::optional<double>& value, int digits) {
  return figure(value, value ? fmt::format("{:.{}f}", *value, digits) : "");
}

TextCell share(const std::optional<double>& value) {
  return figure(value, share_text(value));
}

TextCell bytes(const std::optional<Bytes>& value) {
  if (!value) return {"–", {}, Tone::kDim};
  return {format_bytes(*value), {}, Tone::kPlain, static_cast<double>(value->get())};
}

/// Never "-0.000".
std::string signed_text(double value) {
  return std::abs(value) < 0.0005 ? "0.000" : fmt::format("{:+.3f}", value);
}

TextCell word(std::string text) {
  return {std::move(text)};
}

Tone tone_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kWin:
      return Tone::kGood;
    case Verdict::kLoss:
      return Tone::kBad;
    case Verdict::kTie:
    case Verdict::kUnclear:
      return Tone::kPlain;
    case Verdict::kUnknown:
      break;
  }
  return Tone::kDim;
}

/// Why there is nothing to compare.
std::string why_unknown(const Table& table, const Cell& cell, const std::string& opponent) {
  const bool we_ran = cell.find(kOurs) != nullptr;
  const auto named = [&](const std::string& system) {
    const std::string name(split(system, '@').front());
    if (!we_ran) return system == kOurs;
    return name == opponent ||
           (opponent == kBetterRival &&
            std::find(std::begin(kRivals), std::end(kRivals), name) != std::end(kRivals));
  };
  const bool failed =
      std::any_of(table.failed.begin(), table.failed.end(), [&](const Failure& failure) {
        return failure.key.workload == cell.workload && failure.key.ratio == cell.ratio &&
               named(failure.key.system);
      });
  const bool it_ran = std::any_of(cell.systems.begin(), cell.systems.end(),
                                  [&](const SystemFigures& f) { return named(f.system); });
  if (we_ran && it_ran) return "no seed in common";
  return fmt::format("{} {}", we_ran ? opponent : "ours", failed ? "failed" : "has not run");
}

TextCell versus_cell(const Table& table, const Cell& cell, const Comparison& comparison) {
  const Verdict judged = verdict(comparison.whole);
  if (judged == Verdict::kUnknown)
    return {"–", why_unknown(table, cell, comparison.opponent), Tone::kDim};
  TextCell result = estimate_cell(comparison.whole->ratio);
  result.tone = tone_of(judged);
  result.text = fmt::format("{} {}", to_text(judged), result.text);
  if (comparison.whole->system != comparison.opponent)
    result.note = comparison.whole->system + (result.note.empty() ? "" : ", ") + result.note;
  return result;
}

/// "at 1:2 3 of 14, at 1:4 ..."
std::string by_ratio_text(const Coverage& core) {
  std::vector<std::string> parts;
  for (const auto& [ratio, complete] : core.by_ratio)
    parts.push_back(
        fmt::format("at {} {} of {}", ratio, complete, core.cells / core.by_ratio.size()));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string_view measure_text(Measure measure) {
  return measure == Measure::kWhole ? "convergence counted" : "steady state";
}

std::string goal_figure(double value, bool percent) {
  return percent ? fmt::format("{:.0f} %", 100 * value) : fmt::format("{:.2f}", value);
}

}  // namespace

TextCell estimate_cell(const std::optional<Estimate>& estimate, bool percent) {
  if (!estimate) return {"–", {}, Tone::kDim};
  const auto text = [percent](double value) {
    return percent ? fmt::format("{:.1f} %", 100 * value) : fmt::format("{:.3f}", value);
  };
  TextCell cell{text(estimate->value), {}, Tone::kPlain, estimate->value};
  if (estimate->interval)
    cell.note =
        fmt::format("{} to {}", text(estimate->interval->low), text(estimate->interval->high));
  if (estimate->seeds == 1) cell.note = "one seed";
  if (estimate->seeds > 1) cell.note += fmt::format(", {} seeds", estimate->seeds);
  return cell;
}

std::vector<std::string> systems_of(const Table& table) {
  std::set<std::string> names;
  for (const Cell& cell : table.cells)
    for (const SystemFigures& figures : cell.systems) names.insert(figures.system);
  std::vector<std::string> systems(names.begin(), names.end());
  // "numab@tuned" comes behind "numab", a name that isn't listed at the end.
  const auto place = [](const std::string& system) {
    static const std::vector<std::string> kOrder{
        "numab", "damos", "first-touch", "interleave", "oracle-static", "all-fast", "all-slow"};
    const bool others = !system.starts_with("thermocline:");
    return std::tuple(
        others, system != kOurs,
        std::find(kOrder.begin(), kOrder.end(), split(system, '@').front()) - kOrder.begin(),
        system);
  };
  std::sort(systems.begin(), systems.end(),
            [&place](const std::string& a, const std::string& b) { return place(a) < place(b); });
  return systems;
}

std::string title_of(const Table& table) {
  return fmt::format("{}, {} mode, Linux {}", table.timing, table.mode, table.kernel);
}

std::vector<std::string> warnings_of(const Table& table) {
  std::vector<std::string> warnings;
  if (table.core.complete < table.core.cells)
    warnings.push_back(
        fmt::format("Of {} core cells, {} have run with every system ({}): what is said of "
                    "the core holds so far, for those that have run",
                    table.core.cells, table.core.complete, by_ratio_text(table.core)));
  else if (!table.core.whole)
    warnings.push_back(
        "Some seeds of core cells failed or are missing: what is said of the core "
        "holds so far");
  if (!table.core.absent.empty())
    warnings.push_back(fmt::format("Core workloads that have no finished cell yet: {}",
                                   fmt::join(table.core.absent, ", ")));
  if (!table.failed.empty())
    warnings.push_back(
        fmt::format("Cells that failed: {}; they are listed below", table.failed.size()));
  if (!table.missing.empty())
    warnings.push_back(
        fmt::format("Cells that have not run: {}; they are listed below", table.missing.size()));
  if (table.versions.size() > 1) {
    std::vector<std::string> versions;
    for (const auto& [version, records] : table.versions)
      versions.push_back(fmt::format("{} (cells: {})", version, records));
    warnings.push_back(fmt::format("The cells come from {} versions of Thermocline: {}",
                                   versions.size(), fmt::join(versions, ", ")));
  }
  return warnings;
}

Section goals_section(const Table& table) {
  Section section{"goals",
                  "Goals",
                  fmt::format("Over the core: {} cells, of its workloads at the ratios 1:2, 1:4 "
                              "and 1:8. A verdict is final when all of them have run with every "
                              "system. A ratio above 1 says that Thermocline is faster. Behind a "
                              "figure stands its 95 % interval.",
                              table.core.cells),
                  {{"goal", false}, {"wanted"}, {"figure"}, {"verdict", false}, {"cells", false}},
                  {}};
  for (const Goal& goal : table.goals) {
    TextCell judged{"", {}, Tone::kDim};
    if (goal.reached)
      judged = {fmt::format("{}{}", goal.final ? "" : "so far: ", *goal.reached ? "met" : "missed"),
                {},
                !*goal.reached ? Tone::kBad
                : goal.final   ? Tone::kGood
                               : Tone::kPlain};
    else if (goal.wanted)
      judged.text = "not known";
    section.rows.push_back({word(goal.text),
                            word(goal.wanted ? "≥ " + goal_figure(*goal.wanted, goal.percent) : ""),
                            estimate_cell(goal.figure, goal.percent), judged, word(goal.detail)});
  }
  return section;
}

Section scores_section(const Table& table) {
  Section section{"scores",
                  "Wins and losses",
                  "Of the core cells that have run. A win: the other takes more than 1.02 of our "
                  "time; a loss: less than 0.98. With several seeds whose interval includes 1 it "
                  "is not clear, and a tie; with one seed the figure decides. Of each opponent "
                  "the better setting counts in every cell.",
                  {{"against", false},
                   {"measure", false},
                   {"wins"},
                   {"ties"},
                   {"losses"},
                   {"no figure"},
                   {"its time ÷ ours, geometric mean"}},
                  {}};
  for (const Score& score : table.scores) {
    const auto count = [](std::size_t n, Tone tone) {
      return TextCell{std::to_string(n), {}, n > 0 ? tone : Tone::kDim, static_cast<double>(n)};
    };
    TextCell ties = count(score.ties, Tone::kPlain);
    if (score.unclear > 0) ties.note = fmt::format("{} not clear", score.unclear);
    section.rows.push_back({word(score.opponent), word(std::string(measure_text(score.measure))),
                            count(score.wins, Tone::kGood), std::move(ties),
                            count(score.losses, Tone::kBad), count(score.unknown, Tone::kPlain),
                            estimate_cell(score.ratio)});
  }
  return section;
}

Section verdicts_section(const Table& table) {
  Section section{"verdicts",
                  "Every cell against every opponent",
                  "The other's time ÷ ours, convergence counted, over the seeds that both have; "
                  "behind it, the setting that was better, the 95 % interval and how many seeds. "
                  "First-touch, interleave, the oracle and the bounds have one seed.",
                  {{"workload", false}, {"ratio"}},
                  {}};
  for (const std::string_view opponent : kOpponents)
    section.columns.push_back({std::string(opponent), false});
  section.columns.push_back({"steady: better rival", false});
  for (const Cell& cell : table.cells) {
    auto& row = section.rows.emplace_back();
    row = {word(cell.workload), word(cell.ratio)};
    if (!cell.core) row[1].note = "not core";
    for (const Comparison& comparison : cell.comparisons)
      row.push_back(versus_cell(table, cell, comparison));
    const auto& steady = cell.against(kBetterRival).steady;
    TextCell last = steady ? estimate_cell(steady->ratio) : TextCell{"–", {}, Tone::kDim};
    if (steady) {
      last.note = fmt::format("{}, {}", steady->system, last.note);
      last.tone = tone_of(verdict(steady));
      last.text = fmt::format("{} {}", to_text(verdict(steady)), last.text);
    }
    row.push_back(std::move(last));
  }
  return section;
}

Section oracle_section(const Table& table) {
  Section section{
      "oracle",
      "Beside the best static placement",
      "How much there is to win in a cell, and how much of it we win. A cell without a gap has no "
      "share of it; in the goals it counts with the others.",
      {{"workload", false},
       {"ratio"},
       {"better rival's time ÷ oracle's"},
       {"steady"},
       {"gap closed"},
       {"steady"},
       {"oracle's time ÷ ours, steady"},
       {"steady hits, oracle"},
       {"ours"},
       {"hot set fits", false}},
      {}};
  for (const Cell& cell : table.cells) {
    const SystemFigures* oracle = cell.find("oracle-static");
    const SystemFigures* ours = cell.find(kOurs);
    section.rows.push_back({word(cell.workload), word(cell.ratio), estimate_cell(cell.oracle_gain),
                            estimate_cell(cell.steady_oracle_gain), share(cell.gap_closed),
                            share(cell.steady_gap_closed), estimate_cell(cell.of_oracle),
                            share(oracle ? steady_hits(*oracle) : std::nullopt),
                            share(ours ? steady_hits(*ours) : std::nullopt),
                            word(cell.hot_set_fits ? "yes" : "no")});
  }
  return section;
}

Section causes_section(const Table& table) {
  Section section{
      "causes",
      "Lost cells and why",
      "Every cell that is lost to the better rival, to first-touch or to interleave. Parts are in "
      "units of all-fast's time and add up to what we take longer than the fastest of them: our "
      "CPU shares times our time (reference mode, where they take it from the program), less its "
      "own; the difference of the steady hit ratios times what all misses cost; late, which "
      "steady state does not show; the rest is unexplained. Where the daemon's own accounts exceed "
      "the overhead that was sampled, they disagree and there is no figure for other work.",
      {{"workload", false},
       {"ratio"},
       {"its time ÷ ours"},
       {"against", false},
       {"main cause", false}},
      {}};
  const std::vector<std::string> parts{"scan",        "decide", "move",         "other work",
                                       "wrong pages", "late",   "its own work", "unexplained"};
  for (const std::string& part : parts) section.columns.push_back({part});
  for (const Cell& cell : table.cells) {
    if (!cell.cause) continue;
    const Cause& cause = *cell.cause;
    TextCell ratio = estimate_cell(cause.ratio);
    ratio.tone = Tone::kBad;
    auto& row = section.rows.emplace_back();
    row = {word(cell.workload), word(cell.ratio), std::move(ratio), word(cause.against),
           word(cause.main.empty() ? "not known" : cause.main)};
    if (cause.lost_to.size() > 1)
      row[3].note = fmt::format("lost to {}", fmt::join(cause.lost_to, ", "));
    for (const std::string& name : parts) {
      const auto part = std::find_if(cause.parts.begin(), cause.parts.end(),
                                     [&name](const auto& p) { return p.name == name; });
      if (part == cause.parts.end())
        row.push_back({"–", {}, Tone::kDim});
      else if (!part->instead.empty())
        row.push_back({part->instead, {}, Tone::kDim});
      else
        row.push_back({signed_text(part->slowdown),
                       {},
                       name == cause.main ? Tone::kBad : Tone::kPlain,
                       part->slowdown});
    }
  }
  return section;
}

Section evidence_section(const Table& table) {
  Section section{"evidence",
                  "The numbers behind the causes",
                  "",
                  {{"workload", false}, {"ratio"}, {"main cause", false}, {"numbers", false}},
                  {}};
  for (const Cell& cell : table.cells)
    if (cell.cause)
      section.rows.push_back({word(cell.workload), word(cell.ratio),
                              word(cell.cause->main.empty() ? "not known" : cell.cause->main),
                              word(cell.cause->why)});
  return section;
}

Section slowdowns_section(const Table& table, Measure measure) {
  Section section{
      measure == Measure::kWhole ? "slowdowns" : "steady-slowdowns",
      fmt::format("Slow-down against all-fast, {}", measure_text(measure)),
      "Time an operation ÷ that of all-fast over the seeds that both have; behind it, the "
      "95 % interval and how many seeds.",
      {{"workload", false}, {"ratio"}, {"share that is fast"}},
      {}};
  std::vector<std::string> systems = systems_of(table);
  std::erase(systems, "all-fast");
  for (const std::string& system : systems) section.columns.push_back({system});
  for (const Cell& cell : table.cells) {
    auto& row = section.rows.emplace_back();
    const SystemFigures* ours = cell.find(kOurs);
    row = {word(cell.workload), word(cell.ratio),
           share(ours ? ours->mean.fast_share : std::nullopt)};
    for (const std::string& system : systems) {
      const SystemFigures* figures = cell.find(system);
      row.push_back(estimate_cell(figures ? figures->slow(measure) : std::nullopt));
    }
  }
  return section;
}

Section cells_section(const Table& table) {
  Section section{"cells",
                  "All figures",
                  "Means over seeds. Times, throughput and CPU shares are modelled; hit ratios are "
                  "counted by the model for every last-level miss.",
                  {{"workload", false},  {"ratio"},           {"system", false}, {"seeds"},
                   {"operations/s"},     {"slow-down"},       {"steady"},        {"ns an access"},
                   {"p50 ns"},           {"p99 ns"},          {"fast hits"},     {"steady"},
                   {"promoted"},         {"demoted"},         {"ping-pong"},     {"tracker CPU"},
                   {"policy CPU"},       {"mover CPU"},       {"overhead CPU"},  {"re-converge s"},
                   {"free fast memory"}, {"of the footprint"}},
                  {}};
  const std::vector<std::string> systems = systems_of(table);
  for (const Cell& cell : table.cells)
    for (const std::string& system : systems) {
      const SystemFigures* figures = cell.find(system);
      if (!figures) continue;
      const CellRecord& mean = figures->mean;
      const auto value = [](const std::optional<Estimate>& estimate) {
        return number(estimate ? std::optional(estimate->value) : std::nullopt, 3);
      };
      section.rows.push_back({word(cell.workload),
                              word(cell.ratio),
                              word(system),
                              number(static_cast<double>(figures->seeds), 0),
                              number(mean.ops_per_s, 0),
                              value(figures->slowdown),
                              value(figures->steady_slowdown),
                              number(mean.ns_per_access, 1),
                              number(mean.p50_ns, 0),
                              number(mean.p99_ns, 0),
                              share(mean.fast_hit_ratio),
                              share(mean.steady_fast_hit_ratio),
                              bytes(mean.promoted_bytes),
                              bytes(mean.demoted_bytes),
                              share(mean.ping_pong_share),
                              share(mean.tracker_cpu_share),
                              share(mean.policy_cpu_share),
                              share(mean.mover_cpu_share),
                              share(mean.overhead_cpu_share),
                              number(mean.reconverge_s, 2),
                              bytes(mean.fast_bytes),
                              share(mean.fast_share)});
    }
  return section;
}

Section failed_section(const Table& table) {
  Section section{
      "failed", "Failed cells", "", {{"cell", false}, {"why", false}, {"log", false}}, {}};
  for (const Failure& failure : table.failed)
    section.rows.push_back(
        {word(fmt::format("{} {} {}, seed {}", failure.key.workload, failure.key.ratio,
                          failure.key.system, failure.key.seed)),
         word(failure.error), word(failure.log)});
  return section;
}

Section missing_section(const Table& table) {
  Section section{"missing",
                  "Cells that have not run",
                  "",
                  {{"workload", false}, {"ratio"}, {"system", false}, {"seeds", false}},
                  {}};
  // One row for all seeds of a cell.
  for (const CellKey& key : table.missing) {
    const bool same = !section.rows.empty() && section.rows.back()[0].text == key.workload &&
                      section.rows.back()[1].text == key.ratio &&
                      section.rows.back()[2].text == key.system;
    if (same)
      section.rows.back()[3].text += fmt::format(", {}", key.seed);
    else
      section.rows.push_back(
          {word(key.workload), word(key.ratio), word(key.system), word(std::to_string(key.seed))});
  }
  return section;
}

std::vector<std::string> method_paragraphs() {
  return {
      "Every time here is modelled: an unmodified Linux kernel runs in an emulated guest whose "
      "clock follows a model of caches and memory. The work of tracking, deciding and moving, "
      "ours and the rivals', runs in the same guest. In reference mode one vCPU does it all; "
      "in parallel mode helpers and kernel threads may use a vCPU of their own. A slow-down is "
      "time an operation ÷ that of all-fast over the seeds that both have, or ÷ its mean when "
      "they have none in common; means over seeds and cells are geometric. Steady state is the "
      "last third of the "
      "measured part, or the last half of each phase; in it, systems that move nothing stand "
      "for their whole run when they have no figure of their own.",
      fmt::format(
          "Two systems are compared over the seeds that both have, seed by seed: a seed changes "
          "the "
          "workload, the page layout and the start phase. Systems that move nothing have seed 1 "
          "only. Rivals run at kernel defaults and tuned; the setting, and the rival, that is "
          "faster by its mean over the seeds in common counts in each cell and for each measure. A "
          "setting that is more than {:.0f} % slower than another in seed 1, as a whole and "
          "settled, "
          "need not run the other seeds. The choice is kept fixed when intervals are taken. An "
          "interval of one cell "
          "is Student's t over the seeds; with one seed there is none. An interval over cells is a "
          "nested bootstrap: 10,000 draws of workloads, of their cells and of the cells' seeds, "
          "with replacement, from a fixed seed of the generator; its percentiles 2.5 and 97.5. It "
          "says how far the figure hangs on these workloads and seeds, not how other workloads "
          "would do.",
          100 * kCloseWithSeed1),
      fmt::format(
          "The gap is the better rival's time less that of the best static placement (by exact "
          "page counts), in units of all-fast's time. What is closed of it is pooled: the sum over "
          "the cells of the rival's time less ours ÷ the sum of the gaps, cells without a gap "
          "included; a policy that adapts may close more than all of it. A hot set fits where that "
          "placement serves at least "
          "{:.0f} % of the misses from the fast node.",
          100 * kHotSetFits)};
}

}  // namespace thermocline::suite
