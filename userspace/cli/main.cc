// SPDX-License-Identifier: Apache-2.0
// `thermocline`: parse the command line, run the verb, map errors to exit codes 0, 1, 2, 77.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "base/output.h"
#include "base/text.h"
#include "cli/command.h"

namespace thermocline::cli {

void print_line(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fputc('\n', stdout);
}

namespace {

int complain(const Error& error) {
  fmt::print(stderr, "thermocline: {}\n", error.message);
  return static_cast<int>(error.exit_code());
}

/// What a verb throws is a mistake in it; the user gets a sentence all the same.
Result<int> act(const Context& context) {
  try {
    return context.action();
  } catch (const std::exception& e) {
    return fail(ErrorKind::kFailure, "this is a bug, please report it: {}", e.what());
  }
}

/// A command line that can't be understood, in one sentence.
Error usage_error(CLI::App& app, const CLI::ParseError& error, std::string_view word) {
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands(nullptr)) verbs.push_back(verb->get_name());
  if (!word.empty() && word.front() != '-' &&
      std::find(verbs.begin(), verbs.end(), word) == verbs.end()) {
    const std::string near = nearest_word(word, verbs);
    return {ErrorKind::kUsage,
            fmt::format("unknown verb \"{}\"; {}", word,
                        near.empty() ? fmt::format("there are: {}", fmt::join(verbs, ", "))
                                     : fmt::format("did you mean \"{}\"?", near)),
            0};
  }
  std::string command = "thermocline";
  for (const CLI::App* verb = &app; !verb->get_subcommands().empty();) {
    verb = verb->get_subcommands().front();
    command += " " + verb->get_name();
  }
  return {ErrorKind::kUsage, usage_sentence(error.what(), command), 0};
}

int run(int argc, char** argv) {
  CLI::App app{"Thermocline: keeps hot pages in local DRAM and cold ones on CXL memory."};
  app.name("thermocline");
  app.require_subcommand(1);
  app.set_help_flag("-h,--help", "show this");  // of every verb: they inherit it
  app.set_version_flag("--version", std::string("thermocline ") + THERMOCLINE_VERSION,
                       "show the version");
  Context context;
  register_emulate(app, context);
  register_lab(app, context);
  register_oracle(app, context);
  register_report(app, context);
  register_tiers(app, context);
  register_daemon_verbs(app, context);

  Result<int> result = 0;
  try {
    app.parse(argc, argv);
    result = act(context);
  } catch (const CLI::Success& e) {
    result = app.exit(e);
  } catch (const CLI::ParseError& e) {
    return complain(usage_error(app, e, argc > 1 ? argv[1] : ""));
  }
  if (Status printed = finish_stdout(); result && !printed) {
    const int code = complain(printed.error());
    return *result == 0 ? code : *result;
  }
  return result ? *result : complain(result.error());
}

}  // namespace
}  // namespace thermocline::cli

int main(int argc, char** argv) {
  return thermocline::cli::run(argc, argv);
}
