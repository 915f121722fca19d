// SPDX-License-Identifier: Apache-2.0
// Tells trouble in a kernel's log from ordinary lines, and in its taint flags. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace thermocline::lab {

/// True for a line that reports a bug: WARNING, BUG, Oops, general protection fault, panic, soft or
/// hard lock-up, RCU stall, hung task, sanitizer or lockdep report.
[[nodiscard]] bool is_trouble(std::string_view line);
/// The lines of a log for which is_trouble() holds.
[[nodiscard]] std::vector<std::string> trouble_in(std::string_view log);

/// What the taint flags (/proc/sys/kernel/tainted) say about bugs: "warning", "oops", ...; empty
/// when they only tell harmless things such as an out-of-tree or unsigned module.
[[nodiscard]] std::string taint_trouble(std::uint64_t flags);

/// What to show of a log when something went wrong: at most `lines` lines, from a few before the
/// first trouble on, or the last ones when there is none.
[[nodiscard]] std::string_view telling_part(std::string_view log, std::size_t lines);

/// The last `lines` lines of a text.
[[nodiscard]] std::string_view last_lines(std::string_view text, std::size_t lines);

}  // namespace thermocline::lab
