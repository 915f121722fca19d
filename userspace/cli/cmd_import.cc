// SPDX-License-Identifier: Apache-2.0
// `thermocline import`: a trace of what another tool recorded as text.
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "trace/import.h"
#include "trace/trace_writer.h"

namespace thermocline::cli {

namespace {

struct ImportOptions {
  std::string file, format, out, window = "100ms";
};

Result<int> run(const ImportOptions& o) {
  trace::ImportOptions options;
  TC_ASSIGN(options.format, trace::parse_import_format(o.format));
  const auto window = parse_duration(o.window);
  if (!window || *window <= Nanoseconds(0))
    return fail(ErrorKind::kUsage, "--window {}: give a time such as 100ms", o.window);
  options.window = *window;
  std::ifstream file;
  if (o.file != "-") {
    file.open(o.file);
    if (!file) return fail_errno(errno, "can't read " + o.file);
  }
  std::istream& in = o.file == "-" ? std::cin : file;
  TC_ASSIGN(const auto writer, trace::TraceWriter::open(o.out, {}));
  trace::SessionInfo session;
  session.made_by = std::string("thermocline ") + THERMOCLINE_VERSION;
  session.source = fmt::format("import:{}", trace::to_string(options.format));
  session.grain = options.format == trace::ImportFormat::kDamon ? "region" : "sample";
  session.window = options.window;
  writer->info(to_json(session));
  const trace::ImportSink sink{
      [&](std::span<const std::byte> records) { writer->append(records); },
      [&](const trace::ProcessInfo& process) { writer->info(to_json(process)); }};
  const auto counts =
      trace::import_text(in, o.file == "-" ? "standard input" : o.file, options, sink);
  if (!counts) {
    ::unlink(o.out.c_str());  // it wasn't there before
    return tl::make_unexpected(counts.error());
  }
  writer->info(to_json(trace::EndInfo{"imported", counts->windows, writer->lost_records()}));
  TC_TRY(writer->finish());
  print_line(fmt::format("{}: {} lines, {} samples, {} passed over; {} windows, {} in {}", o.file,
                         counts->lines, counts->samples, counts->passed_over, counts->windows,
                         format_bytes(writer->size()), o.out));
  if (writer->lost_records() > 0)
    return fail(ErrorKind::kFailure, "the disk was too slow: {} records were lost",
                writer->lost_records());
  return 0;
}

}  // namespace

void register_import(CLI::App& app, Context& context) {
  auto options = std::make_shared<ImportOptions>();
  CLI::App* verb = app.add_subcommand("import", "make a trace of what another tool recorded");
  verb->add_option("file", options->file, "text to read; - is standard input")
      ->type_name("FILE")
      ->required();
  verb->add_option("--format", options->format, "time-address, perf (script) or damon (report raw)")
      ->type_name("FORMAT")
      ->required();
  verb->add_option("-o,--out", options->out, "trace to write (.tct)")
      ->type_name("FILE")
      ->required();
  verb->add_option("--window", options->window, "length of the windows; damon has its own")
      ->type_name("TIME")
      ->capture_default_str();
  verb->callback([&context, options] { context.action = [options] { return run(*options); }; });
}

}  // namespace thermocline::cli
