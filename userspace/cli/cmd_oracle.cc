// SPDX-License-Identifier: Apache-2.0
// `thermocline oracle`: what the best static placement would have caught of a recording, so that a
// policy's share can be told against what was possible.
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "cli/oracle.h"
#include "trace/trace_reader.h"

namespace thermocline::cli {

namespace {

struct OracleOptions {
  std::string records;
  std::optional<std::uint64_t> fast_pages;
  int fast_node = 0;
  double longest_window = 3.0;
  std::string judge_last;
  bool json = false;
};

std::string to_text(const oracle::Answer& a) {
  std::string text = fmt::format(
      "windows    {} of {} (median), {} left out\n"
      "pages      {}, of which {:.1f} % were set in a window (mean)\n"
      "recorded   {:.2f} % of the accessed page-windows were on the fast node (measured)\n"
      "best       {:.2f} % would be with the best static {} there (modelled)",
      a.windows.size(), format_duration(a.median_window()), a.windows_left_out, a.pages.get(),
      100 * a.mean_set_share(), 100 * a.recorded_share(), 100 * a.best_share(),
      format_bytes(bytes_of(a.fast_pages)));
  if (a.learned)
    text += fmt::format(
        "\nlearned    {:.2f} % of the last {} windows', by the static placement that is best for "
        "those before, {:.2f} % by the one that is best for them (modelled)",
        100 * a.learned->learned_share(), a.learned->windows, 100 * a.learned->best_share());
  return text;
}

Result<int> consult(const OracleOptions& o) {
  oracle::Options options;
  if (o.fast_pages) options.fast_pages = PageCount(*o.fast_pages);
  options.fast_node = NodeId(o.fast_node);
  options.longest_window = o.longest_window;
  if (!o.judge_last.empty()) {
    const auto last = parse_duration(o.judge_last);
    if (!last || last->count() <= 0)
      return fail(ErrorKind::kUsage, "--judge-last {}: give a time such as 20s", o.judge_last);
    options.judge_last = *last;
  }
  TC_ASSIGN(const trace::Recording recording, trace::open_recording(o.records));
  auto answer = oracle::best_static_placement(*recording.source, options);
  if (!answer) return fail(answer.error().kind, "{}: {}", o.records, answer.error().message);
  print_line(o.json ? json_text(oracle::to_json(*answer)) : to_text(*answer));
  return 0;
}

}  // namespace

void register_oracle(CLI::App& app, Context& context) {
  auto options = std::make_shared<OracleOptions>();
  CLI::App* verb = app.add_subcommand(
      "oracle", "what the best static placement would have caught of recorded accesses");
  verb->add_option("--records", options->records,
                   "trace of thermocline record, or file that [record] of the daemon wrote")
      ->type_name("FILE")
      ->required();
  verb->add_option("--fast-pages", options->fast_pages,
                   "4 KiB pages that the placement may hold (default: as many as were on the fast "
                   "node)")
      ->type_name("N");
  verb->add_option("--fast-node", options->fast_node, "node of the fast tier")
      ->type_name("NODE")
      ->capture_default_str();
  verb->add_option("--longest-window", options->longest_window,
                   "leave out windows longer than this many times the median; 0: none")
      ->type_name("TIMES")
      ->capture_default_str();
  verb->add_option("--judge-last", options->judge_last,
                   "also judge, on the last TIME of the records (20s), the placement that is best "
                   "for what came before")
      ->type_name("TIME");
  verb->add_flag("--json", options->json, "print JSON with stable keys");
  verb->callback([&context, options] { context.action = [options] { return consult(*options); }; });
}

}  // namespace thermocline::cli
