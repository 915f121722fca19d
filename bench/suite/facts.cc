// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <tuple>

#include "base/text.h"
#include "bench/suite/run.h"
#include "emulation/lab/kernels.h"
#include "emulation/lab/runner.h"
#include "emulation/timing/model.h"

namespace thermocline::suite {

namespace {

using Json = nlohmann::ordered_json;

std::string processor(const System& system) {
  const Result<std::string> text = system.read_file("/proc/cpuinfo");
  std::string model = "processor unknown";
  for (const std::string_view line : split(text.value_or(""), '\n')) {
    if (line.starts_with("model name") && line.find(':') != std::string_view::npos)
      model = std::string(trim(line.substr(line.find(':') + 1)));
  }
  return fmt::format("{}, {} CPUs", printable(model), std::thread::hardware_concurrency());
}

std::string nanoseconds(timing::Picoseconds time) {
  return fmt::format("{:g} ns", static_cast<double>(time.get()) / 1000);
}

std::string model_text(const timing::Model& model) {
  std::string text = fmt::format("{}; {}.", model.name, model.source);
  for (const timing::NodeModel& node : model.nodes)
    text += fmt::format(
        " Node {}: {} idle{}, {:g} GB/s of which {:.0f} % are this guest's.",
        node.node ? std::to_string(node.node->get()) : "1 and others", nanoseconds(node.latency),
        node.latency_own ? ", " + nanoseconds(*node.latency_own) + " for its own CPUs"
                         : std::string(),
        static_cast<double>(node.bandwidth.get()) / 1000, 100 * node.share);
  text += fmt::format(" {} an instruction, last-level cache {}.", nanoseconds(model.instruction),
                      format_bytes(model.llc.size));
  return text;
}

/// Systems that a script sets up, or that need none, with what is to be known of them.
std::vector<std::pair<std::string, std::string>> settings() {
  std::vector<std::pair<std::string, std::string>> all;
  std::set<std::string> told;
  for (const SuiteSystem& system : suite_systems()) {
    if (!told.insert(system.script).second) continue;
    std::string text = system.about;
    for (const Script& script : scripts())
      if (script.name == system.script + ".sh") text = head_comment(script.text);
    all.emplace_back(system.script, text);
  }
  return all;
}

}  // namespace

std::string head_comment(std::string_view script) {
  std::string text;
  bool first = true;
  for (const std::string_view line : split(script, '\n')) {
    if (!line.starts_with("# ") || line.starts_with("# shellcheck")) break;
    if (!first) text += (text.empty() ? "" : " ") + std::string(line.substr(2));
    first = false;
  }
  return text;
}

Result<ReportHeader> gather_facts(const System& system, const std::string& command,
                                  const std::string& kernel, const std::string& timing,
                                  const std::string& version) {
  ReportHeader header;
  header.command = command;
  header.machine = processor(system);
  TC_ASSIGN(const lab::GuestKernel guest, lab::find_kernel(kernel));
  TC_ASSIGN(const std::string qemu, lab::qemu_version());
  TC_ASSIGN(const timing::Model model, timing::load_model(timing));
  header.facts = {{"Guest kernel", guest.release.empty() ? guest.name : guest.release},
                  {"QEMU", qemu},
                  {"Thermocline", version}};
  header.timing_model = model_text(model);
  header.settings = settings();
  return header;
}

std::string facts_json(const std::vector<RunFacts>& runs) {
  Json all = Json::array();
  for (const RunFacts& run : runs) {
    Json json{{"date", run.date},
              {"command", run.header.command},
              {"machine", run.header.machine},
              {"timing_model", run.header.timing_model}};
    json["facts"] = run.header.facts;
    json["settings"] = run.header.settings;
    all.push_back(std::move(json));
  }
  return Json{{"runs", all}}.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<std::vector<RunFacts>> parse_facts(const std::string& text) {
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  try {
    const Json json = Json::parse(text);
    // A single run stood by itself before there were lists of them.
    const Json all = json.contains("runs") ? json.at("runs") : Json::array({json});
    std::vector<RunFacts> runs;
    for (const Json& one : all) {
      RunFacts& run = runs.emplace_back();
      run.date = one.value("date", "");
      run.header.command = one.at("command").get<std::string>();
      run.header.machine = one.at("machine").get<std::string>();
      run.header.timing_model = one.at("timing_model").get<std::string>();
      run.header.facts = one.at("facts").get<Pairs>();
      run.header.settings = one.at("settings").get<Pairs>();
    }
    if (!runs.empty()) return runs;
    return fail(ErrorKind::kCorrupt, "these are no facts of a run: there is none");
  } catch (const Json::exception& e) {
    return fail(ErrorKind::kCorrupt, "these are no facts of a run: {}", e.what());
  }
}

void add_run(std::vector<RunFacts>& runs, const RunFacts& run) {
  const auto all = [](const RunFacts& r) {
    return std::tie(r.header.command, r.header.machine, r.header.timing_model, r.header.facts,
                    r.header.settings);
  };
  if (std::none_of(runs.begin(), runs.end(),
                   [&](const RunFacts& one) { return all(one) == all(run); }))
    runs.push_back(run);
}

ReportHeader header_of(const std::vector<RunFacts>& runs) {
  ReportHeader header = runs.back().header;
  if (runs.size() == 1) {
    if (!runs[0].date.empty()) header.facts.emplace_back("Begun", runs[0].date);
    return header;
  }
  header.command.clear();
  std::set<std::string> commands;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const RunFacts& run = runs[i];
    if (commands.insert(run.header.command).second)
      header.command += (i == 0 ? "" : "\n") + run.header.command;
    std::string text = run.date.empty() ? "" : run.date + "; ";
    text += run.header.machine;
    for (const auto& [name, value] : run.header.facts) text += fmt::format("; {} {}", name, value);
    header.facts.emplace_back(fmt::format("Run {}", i + 1), text + "; " + run.header.command);
  }
  return header;
}

}  // namespace thermocline::suite
