// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/facts.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <thread>

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

std::string facts_json(const ReportHeader& header) {
  Json json{{"command", header.command},
            {"machine", header.machine},
            {"timing_model", header.timing_model}};
  json["facts"] = header.facts;
  json["settings"] = header.settings;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<ReportHeader> parse_facts(const std::string& text) {
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  try {
    const Json json = Json::parse(text);
    ReportHeader header;
    header.command = json.at("command").get<std::string>();
    header.machine = json.at("machine").get<std::string>();
    header.timing_model = json.at("timing_model").get<std::string>();
    header.facts = json.at("facts").get<Pairs>();
    header.settings = json.at("settings").get<Pairs>();
    return header;
  } catch (const Json::exception& e) {
    return fail(ErrorKind::kCorrupt, "these are no facts of a run: {}", e.what());
  }
}

}  // namespace thermocline::suite
