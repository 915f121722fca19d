// SPDX-License-Identifier: Apache-2.0
// `thermocline`: parse the command line, run the verb, map errors to exit codes 0, 1, 2, 77.
#include <fmt/core.h>

#include <cstdio>

#include "cli/command.h"

namespace thermocline::cli {

void print_line(const std::string& text) {
  fmt::print("{}\n", text);
}

namespace {

int run(int argc, char** argv) {
  CLI::App app{"Thermocline: keeps hot pages in local DRAM and cold ones on CXL memory."};
  app.name("thermocline");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("thermocline ") + THERMOCLINE_VERSION);
  Context context;
  register_lab(app, context);
  register_oracle(app, context);
  register_report(app, context);
  register_tiers(app, context);
  register_daemon_verbs(app, context);

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    app.exit(e);
    return static_cast<int>(ExitCode::kUsage);
  }
  const Result<int> result = context.action();
  std::fflush(stdout);
  if (!result) {
    fmt::print(stderr, "thermocline: {}\n", result.error().message);
    return static_cast<int>(result.error().exit_code());
  }
  return *result;
}

}  // namespace
}  // namespace thermocline::cli

int main(int argc, char** argv) {
  return thermocline::cli::run(argc, argv);
}
