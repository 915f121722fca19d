// SPDX-License-Identifier: Apache-2.0
// `thermocline`: parse the command line, run the verb, map errors to exit codes 0, 1, 2, 77.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <limits>
#include <span>
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

CLI::Validator node_number() {
  const auto check = [](const std::string& text) {
    const auto number = parse_u64(text);
    return number && *number <= std::numeric_limits<std::int32_t>::max()
               ? std::string()
               : fmt::format("wants a node's number, not '{}'", text);
  };
  return {check, ""};
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

/// Name of an option as typed, "--svg" of "--svg=x"; "" for anything else.
std::string option_name(std::string_view word) {
  if (word.size() < 2 || word.front() != '-' || word == "--") return "";
  return std::string(word.substr(0, word.find('=')));
}

std::string hint(std::string_view word, const std::vector<std::string>& known) {
  const std::string near = nearest_word(word, known);
  return near.empty() ? "" : fmt::format("did you mean \"{}\"?", near);
}

/// What CLI11 has no name for: it blames the word after an unknown option, and names no unknown
/// verb. `command` becomes the verb that was meant. Empty: nothing of the kind.
std::string unknown_word(const CLI::App& app, std::span<char* const> words, std::string& command) {
  const CLI::App* verb = &app;
  for (std::size_t i = 0; i < words.size() && std::string_view(words[i]) != "--"; ++i) {
    const std::string word = words[i];
    if (const std::string name = option_name(word); !name.empty()) {
      if (const CLI::Option* option = verb->get_option_no_throw(name); option != nullptr) {
        if (option->get_items_expected_max() > 0 && name == word) ++i;  // its value
        continue;
      }
      std::vector<std::string> known;
      for (const CLI::Option* option : verb->get_options())
        for (const std::string& long_name : option->get_lnames()) known.push_back("--" + long_name);
      const std::string near = hint(name, known);
      return fmt::format("unknown option {}; {}", name,
                         near.empty() ? fmt::format("see {} --help", command) : near);
    }
    std::vector<std::string> verbs;
    for (const CLI::App* more : verb->get_subcommands(nullptr)) verbs.push_back(more->get_name());
    if (verbs.empty()) continue;  // an argument
    if (std::find(verbs.begin(), verbs.end(), word) == verbs.end()) {
      const std::string near = hint(word, verbs);
      return fmt::format(
          "unknown verb \"{}\"{}; {}", word, verb == &app ? "" : fmt::format(" of {}", command),
          near.empty() ? fmt::format("there are: {}", fmt::join(verbs, ", ")) : near);
    }
    verb = verb->get_subcommand(word);
    command += " " + word;
  }
  return "";
}

/// A command line that can't be understood, in one sentence.
Error usage_error(CLI::App& app, const CLI::ParseError& error, std::span<char* const> words) {
  std::string command = "thermocline";
  const std::string unknown = unknown_word(app, words, command);
  if (!unknown.empty()) return {ErrorKind::kUsage, unknown, 0};
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
  register_bench(app, context);
  register_doctor(app, context);
  register_drain(app, context);
  register_emulate(app, context);
  register_import(app, context);
  register_lab(app, context);
  register_migrate(app, context);
  register_oracle(app, context);
  register_record(app, context);
  register_replay(app, context);
  register_report(app, context);
  register_sim(app, context);
  register_tiers(app, context);
  register_trackers(app, context);
  register_daemon_verbs(app, context);

  Result<int> result = 0;
  try {
    app.parse(argc, argv);
    result = act(context);
  } catch (const CLI::Success& e) {
    result = app.exit(e);
  } catch (const CLI::ParseError& e) {
    return complain(
        usage_error(app, e, std::span(argv, static_cast<std::size_t>(argc)).subspan(1)));
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
