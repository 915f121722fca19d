// SPDX-License-Identifier: Apache-2.0
// `thermocline report`: a picture of what the daemon saw and did, as one self-contained HTML file.
#include <memory>

#include "base/output.h"
#include "base/system.h"
#include "cli/command.h"
#include "cli/report_html.h"

namespace thermocline::cli {

namespace {

struct ReportOptions {
  std::vector<std::string> histories, hotsets, tables;
  std::string out, title = "Thermocline report", note;
};

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
  std::vector<std::vector<report::History>> files;
  TC_TRY(read_all(*system, o.histories, report::parse_history, files));
  for (const auto& runs : files)
    model.histories.insert(model.histories.end(), runs.begin(), runs.end());
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
      ->type_name("FILE")
      ->required()
      ->allow_extra_args(false);
  verb->add_option("--hotset-json", options->hotsets,
                   "result of hotset --json, of a tracked process or of a run to compare with")
      ->type_name("FILE")
      ->allow_extra_args(false);
  verb->add_option("--table", options->tables,
                   "JSON file {\"title\", \"note\", \"columns\", \"rows\"} to show as a table")
      ->type_name("FILE")
      ->allow_extra_args(false);
  verb->add_option("--title", options->title, "title of the page")
      ->type_name("TEXT")
      ->capture_default_str();
  verb->add_option("--note", options->note, "text below the title")->type_name("TEXT");
  verb->add_option("--out", options->out, "HTML file to write")->type_name("FILE")->required();
  verb->callback(
      [&context, options] { context.action = [options] { return make_report(*options); }; });
}

}  // namespace thermocline::cli
