// SPDX-License-Identifier: Apache-2.0
// Does the simulator order policies as the lab's guests do? Kendall's rank correlation and the
// differences of hit ratios, from cells of the suite and cases of the simulator. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace thermocline::cli {

/// What one policy got on one problem, of one seed.
struct PolicyRun {
  double throughput = 0;  ///< as a share of that with all memory fast
  double hit_ratio = 0;   ///< share of the misses that the fast tier served
};
/// By seed.
using PolicyRuns = std::map<std::uint64_t, PolicyRun>;

/// A workload at a ratio, in both.
struct Problem {
  std::string workload, ratio;
  std::string simulated;  ///< the simulator's workload, and the keys that were set
  std::map<std::string, PolicyRuns> lab, sim;
};

struct PolicyAgreement {
  std::string policy;
  double lab_throughput = 0, sim_throughput = 0;  ///< means over seeds, geometric
  double lab_hit_ratio = 0, sim_hit_ratio = 0;    ///< means over seeds
};

struct Agreement {
  std::string workload, ratio, simulated;
  std::vector<PolicyAgreement> policies;  ///< as the lab orders them, fastest first
  std::size_t pairs = 0;                  ///< that the lab tells apart
  std::size_t tied = 0;                   ///< that it doesn't: they count for nothing
  std::size_t same_order = 0, other_order = 0;
  /// (same - other) / pairs: Kendall's tau over the pairs that the lab tells apart; 1 without any.
  double tau = 1;
  double largest_hit_difference = 0;
};

/// Pairs of policies whose lab throughputs differ by less are ties, whatever their seeds.
inline constexpr double kLabTie = 0.01;
/// Of simulated throughputs; such a pair counts as in neither order.
inline constexpr double kSimTie = 0.001;

/// Of the policies that both have. With two seeds or more, a pair is also a tie when the 95 %
/// interval of its ratio over the seeds (Student's t) holds 1.
[[nodiscard]] Agreement agreement_of(const Problem& problem);

[[nodiscard]] std::string agreement_text(const std::vector<Agreement>& all);
[[nodiscard]] std::string agreement_markdown(const std::vector<Agreement>& all,
                                             const std::string& command);
/// Keys are documented in thermocline-bench(1).
[[nodiscard]] nlohmann::ordered_json agreement_json(const std::vector<Agreement>& all);

}  // namespace thermocline::cli
