// SPDX-License-Identifier: Apache-2.0
#include "cli/agreement.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "bench/suite/statistics.h"
#include "cli/table.h"

namespace thermocline::cli {

namespace {

suite::BySeed logs_of(const PolicyRuns& runs) {
  suite::BySeed logs;
  for (const auto& [seed, run] : runs) logs[seed] = std::log(run.throughput);
  return logs;
}

double mean_hits(const PolicyRuns& runs) {
  double sum = 0;
  for (const auto& [seed, run] : runs) sum += run.hit_ratio;
  return sum / static_cast<double>(runs.size());
}

bool lab_ties(const PolicyRuns& a, const PolicyRuns& b) {
  const auto ratio = suite::ratio_over_seeds(logs_of(a), logs_of(b));
  if (!ratio) return true;
  return std::abs(ratio->value - 1) < kLabTie ||
         (ratio->interval && ratio->interval->low <= 1 && ratio->interval->high >= 1);
}

std::vector<std::vector<std::string>> rows_of(const std::vector<Agreement>& all) {
  std::vector<std::vector<std::string>> rows;
  for (const Agreement& a : all)
    for (const PolicyAgreement& p : a.policies)
      rows.push_back({a.workload, a.ratio, p.policy, fmt::format("{:.1f}", 100 * p.lab_throughput),
                      fmt::format("{:.1f}", 100 * p.sim_throughput),
                      fmt::format("{:.1f}", 100 * p.lab_hit_ratio),
                      fmt::format("{:.1f}", 100 * p.sim_hit_ratio),
                      fmt::format("{:+.1f}", 100 * (p.sim_hit_ratio - p.lab_hit_ratio))});
  return rows;
}

std::vector<std::vector<std::string>> taus_of(const std::vector<Agreement>& all) {
  std::vector<std::vector<std::string>> rows;
  for (const Agreement& a : all)
    rows.push_back({a.workload, a.ratio, fmt::format("{:.2f}", a.tau), std::to_string(a.pairs),
                    std::to_string(a.other_order), std::to_string(a.tied),
                    fmt::format("{:.1f}", 100 * a.largest_hit_difference), a.simulated});
  return rows;
}

std::string markdown_table(const std::vector<std::string>& heads,
                           const std::vector<std::vector<std::string>>& rows) {
  std::string text = "|", line = "|";
  for (std::size_t i = 0; i < heads.size(); ++i) {
    text += " " + heads[i] + " |";
    line += i < 1 ? "---|" : "---:|";
  }
  text += "\n" + line + "\n";
  for (const auto& row : rows) {
    text += "|";
    for (const std::string& cell : row) text += " " + cell + " |";
    text += "\n";
  }
  return text;
}

}  // namespace

Agreement agreement_of(const Problem& problem) {
  Agreement a{problem.workload, problem.ratio, problem.simulated, {}, 0, 0, 0, 0, 1, 0};
  for (const auto& [policy, lab] : problem.lab) {
    const auto sim = problem.sim.find(policy);
    if (sim == problem.sim.end() || lab.empty() || sim->second.empty()) continue;
    a.policies.push_back({policy, suite::over_seeds(logs_of(lab)).value,
                          suite::over_seeds(logs_of(sim->second)).value, mean_hits(lab),
                          mean_hits(sim->second)});
    a.largest_hit_difference =
        std::max(a.largest_hit_difference,
                 std::abs(a.policies.back().sim_hit_ratio - a.policies.back().lab_hit_ratio));
  }
  std::stable_sort(a.policies.begin(), a.policies.end(), [](const auto& x, const auto& y) {
    return x.lab_throughput > y.lab_throughput;
  });
  for (std::size_t i = 0; i < a.policies.size(); ++i)
    for (std::size_t j = i + 1; j < a.policies.size(); ++j) {
      const PolicyAgreement &faster = a.policies[i], &slower = a.policies[j];
      if (lab_ties(problem.lab.at(faster.policy), problem.lab.at(slower.policy))) {
        ++a.tied;
        continue;
      }
      ++a.pairs;
      const double ratio = faster.sim_throughput / slower.sim_throughput;
      if (std::abs(ratio - 1) < kSimTie) continue;
      ++(ratio > 1 ? a.same_order : a.other_order);
    }
  if (a.pairs > 0)
    a.tau = (static_cast<double>(a.same_order) - static_cast<double>(a.other_order)) /
            static_cast<double>(a.pairs);
  return a;
}

std::string agreement_text(const std::vector<Agreement>& all) {
  return format_table({{"WORKLOAD"},
                       {"RATIO"},
                       {"POLICY"},
                       {"LAB %", true},
                       {"SIM %", true},
                       {"LAB HIT %", true},
                       {"SIM HIT %", true},
                       {"DIFFERENCE", true}},
                      rows_of(all)) +
         "\n\n" +
         format_table({{"WORKLOAD"},
                       {"RATIO"},
                       {"TAU", true},
                       {"PAIRS", true},
                       {"OTHER ORDER", true},
                       {"TIED", true},
                       {"HIT OFF BY", true},
                       {"SIMULATED AS"}},
                      taus_of(all)) +
         "\n\nThroughput as a share of that with all memory fast (modelled, both).";
}

std::string agreement_markdown(const std::vector<Agreement>& all, const std::string& command) {
  return fmt::format(
      "<!-- made by: {} -->\n\n{}\n{}", command,
      markdown_table({"workload", "ratio", "tau", "pairs", "in the other order", "tied in the lab",
                      "hit ratio off by, points", "simulated as"},
                     taus_of(all)),
      markdown_table({"workload", "ratio", "policy", "lab, % of all fast", "simulator",
                      "lab, hit ratio %", "simulator", "difference, points"},
                     rows_of(all)));
}

nlohmann::ordered_json agreement_json(const std::vector<Agreement>& all) {
  auto list = nlohmann::ordered_json::array();
  for (const Agreement& a : all) {
    nlohmann::ordered_json entry{{"workload", a.workload},
                                 {"ratio", a.ratio},
                                 {"simulated", a.simulated},
                                 {"tau", a.tau},
                                 {"pairs", a.pairs},
                                 {"same_order", a.same_order},
                                 {"other_order", a.other_order},
                                 {"tied", a.tied},
                                 {"largest_hit_difference", a.largest_hit_difference}};
    entry["policies"] = nlohmann::ordered_json::array();
    for (const PolicyAgreement& p : a.policies)
      entry["policies"].push_back({{"policy", p.policy},
                                   {"lab_throughput", p.lab_throughput},
                                   {"sim_throughput", p.sim_throughput},
                                   {"lab_hit_ratio", p.lab_hit_ratio},
                                   {"sim_hit_ratio", p.sim_hit_ratio}});
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace thermocline::cli
