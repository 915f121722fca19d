// SPDX-License-Identifier: Apache-2.0
// What a run leaves beside its records, for the pages that show them: where and with what it was
// made, and the settings of every system.
#pragma once

#include <string>
#include <vector>

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

/// A run that made cells, as the file keeps it.
struct RunFacts {
  std::string date;  ///< "2026-01-31", UTC; "" in files of builds that kept one run without it
  ReportHeader header;
};
[[nodiscard]] std::string facts_json(const std::vector<RunFacts>& runs);
/// kCorrupt when it isn't what facts_json() makes.
[[nodiscard]] Result<std::vector<RunFacts>> parse_facts(const std::string& text);

/// One more, unless there is one already that differs in nothing but the date.
void add_run(std::vector<RunFacts>& runs, const RunFacts& run);

/// For a page of all of them: every command, what is to be known of the last run, and where there
/// are several, a line each.
[[nodiscard]] ReportHeader header_of(const std::vector<RunFacts>& runs);

/// Comment at the head of a script, without its first line: what it sets and why.
[[nodiscard]] std::string head_comment(std::string_view script);

}  // namespace thermocline::suite
