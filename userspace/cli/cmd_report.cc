// SPDX-License-Identifier: Apache-2.0
// `thermocline report`: a picture of what the daemon saw and did, as one self-contained HTML file;
// and `thermocline report heat|wss|hot|phases`: what a recording shows.
#include <memory>
#include <nlohmann/json.hpp>

#include "base/output.h"
#include "base/system.h"
#include "cli/command.h"
#include "cli/report_html.h"
#include "cli/trace_report.h"
#include "trace/trace_reader.h"

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
  if (o.histories.empty() || o.out.empty())
    return fail(ErrorKind::kUsage,
                "--history and --out are required, or one of heat, wss, hot and phases with a "
                "trace; see thermocline report --help");
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

struct TraceOptions {
  std::string trace, out;
  bool json = false;
};

Result<int> report_trace(const TraceOptions& o, report::TraceView view) {
  const auto ends = [&](std::string_view ending) { return o.out.ends_with(ending); };
  if (!o.out.empty() && !ends(".svg") && !ends(".html") && !ends(".json"))
    return fail(ErrorKind::kUsage, "-o {}: its name must end in .svg, .html or .json", o.out);
  TC_ASSIGN(trace::Recording recording, trace::open_recording(o.trace));
  auto model = report::read_trace(recording, o.trace);
  if (!model) {
    Error error = model.error();
    if (error.message.find(o.trace) == std::string::npos)
      error.message = o.trace + ": " + error.message;
    return tl::make_unexpected(std::move(error));
  }
  if (o.out.empty()) {
    print_line(o.json ? json_text(report::trace_json(*model, view))
                      : report::trace_text(*model, view));
    return 0;
  }
  TC_TRY(write_whole(o.out, ends(".svg")    ? report::trace_svg(*model, view)
                            : ends(".html") ? report::trace_html(*model, view)
                                            : json_text(report::trace_json(*model, view)) + "\n"));
  print_line(o.out);
  return 0;
}

void add_trace_view(CLI::App& report, Context& context, const char* name, const char* help,
                    report::TraceView view) {
  auto options = std::make_shared<TraceOptions>();
  CLI::App* verb = report.add_subcommand(name, help);
  verb->add_option("trace", options->trace, "trace of thermocline record, or the daemon's [record]")
      ->type_name("FILE")
      ->required();
  verb->add_option("-o,--out", options->out, "write it there: .svg, .html or .json; default: text")
      ->type_name("FILE");
  verb->add_flag("--json", options->json, "print JSON with stable keys");
  verb->callback([&context, options, view] {
    context.action = [options, view] { return report_trace(*options, view); };
  });
}

}  // namespace

void register_report(CLI::App& app, Context& context) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* verb =
      app.add_subcommand("report", "draw what the daemon saw and did, or what a trace shows");
  verb->add_option("--history", options->histories,
                   "file that [history] of the daemon wrote; may be given again")
      ->type_name("FILE")
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
  verb->add_option("--out", options->out, "HTML file to write")->type_name("FILE");
  add_trace_view(*verb, context, "heat", "a trace's heat: address over time",
                 report::TraceView::kHeat);
  add_trace_view(*verb, context, "wss", "a trace's working set over time", report::TraceView::kWss);
  add_trace_view(*verb, context, "hot", "a trace's hot ranges, hottest first",
                 report::TraceView::kHot);
  add_trace_view(*verb, context, "phases", "when a trace changes what it touches",
                 report::TraceView::kPhases);
  // The callback of a verb runs after that of its own verb, which then has the last word.
  verb->callback([&context, options, verb] {
    if (verb->get_subcommands().empty())
      context.action = [options] { return make_report(*options); };
  });
}

}  // namespace thermocline::cli
