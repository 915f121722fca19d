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

/// What a read command prints. Whether it arrived is looked at once, when the verb is done.
void print_line(const std::string& text);

/// JSON as --json prints it. Names of processes and files may hold any bytes: what is not UTF-8 is
/// replaced.
template <class Json>
std::string json_text(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

/// What built this program, to tell results of two builds apart: "0.1.0-615e1eb".
[[nodiscard]] std::string build_version();

/// For options that name a NUMA node.
[[nodiscard]] CLI::Validator node_number();

// One function a verb, called once by main.cc.
void register_bench(CLI::App& app, Context& context);
void register_bench_trackers(CLI::App& bench, Context& context);   // called by the one above
void register_bench_agreement(CLI::App& bench, Context& context);  // as well
void register_doctor(CLI::App& app, Context& context);
void register_drain(CLI::App& app, Context& context);
void register_emulate(CLI::App& app, Context& context);
void register_import(CLI::App& app, Context& context);
void register_lab(CLI::App& app, Context& context);
void register_migrate(CLI::App& app, Context& context);
void register_oracle(CLI::App& app, Context& context);
void register_record(CLI::App& app, Context& context);
void register_replay(CLI::App& app, Context& context);
void register_report(CLI::App& app, Context& context);
void register_sim(CLI::App& app, Context& context);
void register_tiers(CLI::App& app, Context& context);
void register_trackers(CLI::App& app, Context& context);
void register_daemon_verbs(CLI::App& app, Context& context);  // status, config, policies, …

}  // namespace thermocline::cli
