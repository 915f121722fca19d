// SPDX-License-Identifier: Apache-2.0
// What `thermocline emulate numa-remote` tells about the machine: text and JSON. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "emulation/numa_remote/judge.h"
#include "emulation/numa_remote/limit.h"

namespace thermocline::cli {

struct EmulateReport {
  numa_remote::Setting setting;
  numa_remote::Label label = numa_remote::Label::kMeasured;
  /// Of what was measured, if it was.
  std::optional<numa_remote::Figures> figures;
  std::optional<numa_remote::Judgement> judgement;
  std::optional<numa_remote::Limit> limit;  ///< when the fast tier was limited
  std::vector<std::string> notes;
};

[[nodiscard]] std::string emulate_text(const EmulateReport& report);
/// Latency under load of both nodes, beside the idle latencies of CXL devices. Only of what was
/// measured.
[[nodiscard]] std::string emulate_svg(const EmulateReport& report);
[[nodiscard]] nlohmann::ordered_json emulate_json(const EmulateReport& report);

}  // namespace thermocline::cli
