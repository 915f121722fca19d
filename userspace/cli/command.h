// SPDX-License-Identifier: Apache-2.0
// What every verb of `thermocline` shares: each cmd_*.cc adds its subcommands to the CLI11 app and
// stores the action to run; main() parses, runs it, prints an Error and turns it into an exit code.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <functional>
#include <string>

#include "base/result.h"

namespace thermocline::cli {

/// Set by the verb that was chosen; returns the exit code (a guest's, for `lab run`).
struct Context {
  std::function<Result<int>()> action;
};

/// Text that a read command prints: what `text` says, or `json` with --json.
void print_line(const std::string& text);

// One function a verb, called once by main.cc.
void register_lab(CLI::App& app, Context& context);
void register_oracle(CLI::App& app, Context& context);
void register_report(CLI::App& app, Context& context);
void register_tiers(CLI::App& app, Context& context);
void register_daemon_verbs(CLI::App& app, Context& context);  // status, config, policies, …

}  // namespace thermocline::cli
