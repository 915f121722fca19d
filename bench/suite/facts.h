// SPDX-License-Identifier: Apache-2.0
// What a run leaves beside its records, for the pages that show them: where and with what it was
// made, and the settings of every system.
#pragma once

#include <string>

#include "base/result.h"
#include "base/system.h"
#include "bench/suite/report.h"

namespace thermocline::suite {

/// Name of the file in the folder of a run.
inline constexpr const char* kFactsName = "facts.json";

/// Of this machine and this run. `command` is what was typed, `timing` a preset or a file.
[[nodiscard]] Result<ReportHeader> gather_facts(const System& system, const std::string& command,
                                                const std::string& kernel,
                                                const std::string& timing,
                                                const std::string& version);

[[nodiscard]] std::string facts_json(const ReportHeader& header);
/// kCorrupt when it isn't what facts_json() makes.
[[nodiscard]] Result<ReportHeader> parse_facts(const std::string& text);

/// Comment at the head of a script, without its first line: what it sets and why.
[[nodiscard]] std::string head_comment(std::string_view script);

}  // namespace thermocline::suite
