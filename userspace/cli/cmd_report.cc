// SPDX-License-Identifier: Apache-2.0
// `thermocline report`: a picture of what the daemon saw and did, as one self-contained HTML file.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#include "base/system.h"
#include "cli/command.h"
#include "cli/report_html.h"

namespace thermocline::cli {

namespace {

struct ReportOptions {
  std::vector<std::string> histories, hotsets, tables;
  std::string out, title = "Thermocline report", note;
};

/// Whole or not at all: a report that was cut looks like one that is right.
Status write_whole(const std::string& path, std::string_view text) {
  const std::string partial = path + ".part";
  std::FILE* const file = std::fopen(partial.c_str(), "we");
  if (file == nullptr) return fail_errno(errno, "can't write " + partial);
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  int error = errno;
  if (std::fclose(file) != 0 || !written) {
    if (written) error = errno;
    ::unlink(partial.c_str());
    return fail_errno(error, "can't write " + partial);
  }
  if (std::rename(partial.c_str(), path.c_str()) != 0) {
    error = errno;
    ::unlink(partial.c_str());
    return fail_errno(error, "can't write " + path);
  }
  return {};
}

/// Reads every file and appends what `parse` makes of it.
template <class T>
Status read_all(const System& system, const std::vector<std::string>& paths,
                Result<T> (*parse)(std::string_view, const std::string&), std::vector<T>& out) {
  for (const std::string& path : paths) {
    TC_ASSIGN(const std::string text, system.read_file(path));
    TC_ASSIGN(T value, parse(text, path));
    out.push_back(std::move(value));
  }
  return {};
}

Result<int> make_report(const ReportOptions& o) {
  const std::unique_ptr<System> system = make_real_system();
  report::Model model;
  model.title = o.title;
  model.note = o.note;
  TC_TRY(read_all(*system, o.histories, report::parse_history, model.histories));
  TC_TRY(read_all(*system, o.hotsets, report::parse_hotset, model.hotsets));
  TC_TRY(read_all(*system, o.tables, report::parse_table, model.tables));
  TC_TRY(write_whole(o.out, report::to_html(model)));
  print_line(o.out);
  return 0;
}

}  // namespace

void register_report(CLI::App& app, Context& context) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* verb = app.add_subcommand("report", "draw what the daemon saw and did, as HTML");
  verb->add_option("--history", options->histories,
                   "file that [history] of the daemon wrote; may be given again")
      ->required()
      ->allow_extra_args(false);
  verb->add_option("--hotset-json", options->hotsets,
                   "result of hotset --json, of a tracked process or of a run to compare with")
      ->allow_extra_args(false);
  verb->add_option("--table", options->tables,
                   "JSON file {\"title\", \"note\", \"columns\", \"rows\"} to show as a table")
      ->allow_extra_args(false);
  verb->add_option("--title", options->title)->capture_default_str();
  verb->add_option("--note", options->note, "text below the title");
  verb->add_option("--out", options->out, "HTML file to write")->required();
  verb->callback(
      [&context, options] { context.action = [options] { return make_report(*options); }; });
}

}  // namespace thermocline::cli
