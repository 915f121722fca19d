// SPDX-License-Identifier: Apache-2.0
// `thermocline`: parse the command line, run the verb, map errors to exit codes 0, 1, 2, 77.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "base/text.h"
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
    std::vector<std::string> verbs;
    for (const CLI::App* verb : app.get_subcommands(nullptr)) verbs.push_back(verb->get_name());
    const std::string word = argc > 1 ? argv[1] : "-";
    if (word.front() != '-' && std::find(verbs.begin(), verbs.end(), word) == verbs.end()) {
      const std::string near = nearest_word(word, verbs);
      fmt::print(stderr, "thermocline: unknown verb \"{}\"; {}\n", word,
                 near.empty() ? fmt::format("there are: {}", fmt::join(verbs, ", "))
                              : fmt::format("did you mean \"{}\"?", near));
      return static_cast<int>(ExitCode::kUsage);
    }
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
