// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "bench/suite/summary.h"

namespace thermocline::suite {

namespace {

using Json = nlohmann::ordered_json;

Json to_json(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json to_json(const std::optional<Estimate>& estimate) {
  if (!estimate) return nullptr;
  Json out{{"value", estimate->value}, {"low", nullptr}, {"high", nullptr}, {"seeds", nullptr}};
  if (estimate->interval) {
    out["low"] = estimate->interval->low;
    out["high"] = estimate->interval->high;
  }
  if (estimate->seeds > 0) out["seeds"] = estimate->seeds;
  return out;
}

Json to_json(const std::optional<Versus>& versus) {
  if (!versus) return nullptr;
  return {{"system", versus->system},
          {"ratio", to_json(std::optional(versus->ratio))},
          {"verdict", to_text(verdict(versus))}};
}

Json key_json(const CellKey& key) {
  return {
      {"workload", key.workload}, {"ratio", key.ratio}, {"system", key.system}, {"seed", key.seed}};
}

Json to_json(const Cause& cause) {
  Json parts = Json::array();
  for (const Cause::Part& part : cause.parts)
    parts.push_back({{"part", part.name},
                     {"slowdown", part.instead.empty() ? Json(part.slowdown) : Json(nullptr)},
                     {"instead", part.instead.empty() ? Json(nullptr) : Json(part.instead)}});
  return {{"against", cause.against}, {"lost_to", cause.lost_to}, {"excess", cause.excess},
          {"parts", parts},           {"main", cause.main},       {"why", cause.why}};
}

Json to_json(const Cell& cell) {
  Json out{{"workload", cell.workload},
           {"ratio", cell.ratio},
           {"core", cell.core},
           {"complete", cell.complete},
           {"systems", Json::array()},
           {"against", Json::array()},
           {"oracle_gain", to_json(cell.oracle_gain)},
           {"steady_oracle_gain", to_json(cell.steady_oracle_gain)},
           {"gap_closed", to_json(cell.gap_closed)},
           {"steady_gap_closed", to_json(cell.steady_gap_closed)},
           {"of_oracle", to_json(cell.of_oracle)},
           {"hot_set_fits", cell.hot_set_fits},
           {"cause", cell.cause ? to_json(*cell.cause) : Json(nullptr)}};
  for (const SystemFigures& figures : cell.systems)
    out["systems"].push_back({{"system", figures.system},
                              {"seeds", figures.seeds},
                              {"slowdown", to_json(figures.slowdown)},
                              {"steady_slowdown", to_json(figures.steady_slowdown)}});
  for (const Comparison& comparison : cell.comparisons)
    out["against"].push_back({{"opponent", comparison.opponent},
                              {"whole", to_json(comparison.whole)},
                              {"steady", to_json(comparison.steady)}});
  return out;
}

Json to_json(const Table& table) {
  Json out{{"timing", table.timing},
           {"mode", table.mode},
           {"kernel", table.kernel},
           {"label", "modelled"},
           {"versions", table.versions},
           {"core",
            {{"cells", table.core.cells},
             {"complete", table.core.complete},
             {"absent", table.core.absent},
             {"whole", table.core.whole}}},
           {"goals", Json::array()},
           {"scores", Json::array()},
           {"cells", Json::array()},
           {"failed", Json::array()},
           {"missing", Json::array()}};
  const auto judged = [](const std::optional<bool>& reached, bool is_said) {
    return reached && is_said ? Json(*reached) : Json(nullptr);
  };
  for (const Goal& goal : table.goals)
    out["goals"].push_back({{"goal", goal.text},
                            {"wanted", to_json(goal.wanted)},
                            {"figure", to_json(goal.figure)},
                            {"met", judged(goal.reached, goal.final)},
                            {"so_far", judged(goal.reached, !goal.final)},
                            {"detail", goal.detail}});
  for (const Score& score : table.scores)
    out["scores"].push_back({{"opponent", score.opponent},
                             {"steady", score.measure == Measure::kSteady},
                             {"wins", score.wins},
                             {"ties", score.ties},
                             {"not_clear", score.unclear},
                             {"losses", score.losses},
                             {"unknown", score.unknown},
                             {"ratio", to_json(score.ratio)}});
  for (const Cell& cell : table.cells) out["cells"].push_back(to_json(cell));
  for (const Failure& failure : table.failed) {
    Json failed = key_json(failure.key);
    failed["error"] = failure.error;
    failed["log"] = failure.log;
    out["failed"].push_back(std::move(failed));
  }
  for (const CellKey& key : table.missing) out["missing"].push_back(key_json(key));
  return out;
}

}  // namespace

Json summary_json(const Summary& summary) {
  Json out{{"tables", Json::array()}};
  for (const Table& table : summary.tables) out["tables"].push_back(to_json(table));
  return out;
}

}  // namespace thermocline::suite
