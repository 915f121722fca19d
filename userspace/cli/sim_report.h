// SPDX-License-Identifier: Apache-2.0
// What `thermocline sim` prints and draws, from the lines of its cases (emulation/sim/case.h).
// Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace thermocline::cli {

using SimLines = std::vector<nlohmann::ordered_json>;

/// A table, a row for each case; seeds are averaged.
[[nodiscard]] std::string sim_table(const SimLines& lines);
/// How each system did over all draws, beside the best single policy tuned for each and the oracle.
/// Keys are documented in thermocline-sim(1).
[[nodiscard]] nlohmann::ordered_json sim_summary(const SimLines& lines);
[[nodiscard]] std::string sim_summary_table(const nlohmann::ordered_json& summary);
/// A page that stands by itself: the table, and a chart of each workload. `command` made it.
[[nodiscard]] std::string sim_html(const SimLines& lines, const std::string& command);

}  // namespace thermocline::cli
