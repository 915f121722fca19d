// SPDX-License-Identifier: Apache-2.0
#include "cli/emulate_report.h"

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/line_chart.h"
#include "cli/table.h"

namespace thermocline::cli {

namespace {

using numa_remote::Axis;
using numa_remote::LoadPoint;
using numa_remote::NodeFigures;

std::string percent(double share) {
  return fmt::format("{:+.0f} %", 100 * share);
}

std::string verdict(const Axis& axis) {
  if (!axis.judged) return percent(axis.value / axis.low - 1) + " of one card, not judged";
  if (!axis.known()) return "not known: too few CPUs to draw it all";
  return axis.outside_by() == 0 ? "inside" : "outside, " + percent(axis.outside_by());
}

std::string figures_table(const numa_remote::Figures& figures) {
  std::vector<std::vector<std::string>> rows;
  for (const NodeFigures* n : {&figures.fast, &figures.slow})
    rows.push_back({fmt::format("{}", n->node.get()), fmt::format("{:.1f} ns", n->idle_ns),
                    fmt::format("{}{:.1f} GB/s", n->saturated ? "" : ">= ", n->gb_per_s)});
  std::string out = format_table({{"NODE", true},
                                  {"IDLE LATENCY", true},
                                  {fmt::format("READS, {} CORES", figures.cpus), true}},
                                 rows);
  if (figures.fast.loaded.empty())
    return out + "\nLatency under load was not measured: one CPU can't load and measure.";
  std::vector<Column> columns;
  rows.assign(figures.fast.loaded.size(), {});
  for (const NodeFigures* n : {&figures.fast, &figures.slow}) {
    columns.push_back({fmt::format("NODE {} DRAWN", n->node.get()), true});
    columns.push_back({"LATENCY", true});
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].push_back(fmt::format("{:.2f} GB/s", n->loaded[i].gb_per_s));
      rows[i].push_back(fmt::format("{:.0f} ns", n->loaded[i].latency_ns));
    }
  }
  return out + "\n\nLatency while the other cores read:\n" + format_table(columns, rows);
}

std::string judgement_text(const EmulateReport& r, const numa_remote::Figures& figures,
                           const numa_remote::Judgement& judgement) {
  std::string out =
      fmt::format("\nSeen from these CPUs ({}; a chase over {}{}):\n{}\n", to_string(r.label),
                  format_bytes(figures.chased),
                  figures.huge_pages ? "" : " without huge pages: latencies hold page walks",
                  figures_table(figures));

  // Nothing is compared with what means nothing.
  if (r.label == numa_remote::Label::kEmulated) return out + "\n" + judgement.why + "\n";
  std::vector<std::vector<std::string>> rows;
  std::string sources;
  for (const Axis& axis : judgement.axes) {
    rows.push_back({axis.what, axis.value_text(),
                    axis.low == axis.high
                        ? fmt::format("{:g}{}", axis.low, axis.unit)
                        : fmt::format("{:g} to {:g}{}", axis.low, axis.high, axis.unit),
                    verdict(axis)});
    sources += (sources.empty() ? "" : "; ") + axis.source;
  }
  const std::string bandwidth =
      judgement.preset_bandwidth ? ", bandwidth " + percent(*judgement.preset_bandwidth) : "";
  out += fmt::format(
      "\n{}\nPublished: {}.\nNearest preset of the timing model: {} (latency {}{}).\n\n{}\n",
      format_table({{fmt::format("NODE {}", r.setting.slow.get())},
                    {"HERE", true},
                    {"CXL DEVICES", true},
                    {"VERDICT"}},
                   rows),
      sources, judgement.preset, percent(judgement.preset_latency), bandwidth, judgement.why);
  out +=
      "A socket has caches, prefetchers and a coherent link, which it shares with other traffic; a "
      "CXL device has none of\nthem: latency tails and the curve under load differ in any case.\n";
  return out;
}

void add_judgement(numa_remote::Label label, const numa_remote::Figures& figures,
                   const numa_remote::Judgement& judgement, nlohmann::ordered_json& out) {
  out["why"] = judgement.why;
  out["chased_bytes"] = figures.chased.get();
  out["huge_pages"] = figures.huge_pages;
  for (const NodeFigures* n : {&figures.fast, &figures.slow}) {
    nlohmann::ordered_json node = {
        {"node", n->node.get()},     {"idle_ns", n->idle_ns},
        {"spread", n->spread},       {"read_gb_per_s", n->gb_per_s},
        {"saturated", n->saturated}, {"loaded", nlohmann::ordered_json::array()}};
    for (const LoadPoint& point : n->loaded)
      node["loaded"].push_back({{"gb_per_s", point.gb_per_s}, {"latency_ns", point.latency_ns}});
    out["nodes"].push_back(std::move(node));
  }
  if (label == numa_remote::Label::kEmulated) return;
  for (const Axis& axis : judgement.axes)
    out["envelope"].push_back({{"what", axis.what},
                               {"value", axis.value},
                               {"low", axis.low},
                               {"high", axis.high},
                               {"known", axis.known()},
                               {"judged", axis.judged},
                               {"outside_by", axis.outside_by()},
                               {"source", axis.source}});
  out["nearest_preset"] = {{"name", judgement.preset}, {"latency", judgement.preset_latency}};
  if (judgement.preset_bandwidth) out["nearest_preset"]["bandwidth"] = *judgement.preset_bandwidth;
}

}  // namespace

std::string emulate_text(const EmulateReport& r) {
  std::vector<std::uint32_t> cpus;
  for (const CpuId cpu : r.setting.cpus) cpus.push_back(cpu.get());
  std::string out = fmt::format("Fast: node {}. Slow: node {}. The command runs on CPUs {}.\n",
                                r.setting.fast.get(), r.setting.slow.get(), format_list(cpus));
  if (r.limit)
    out += fmt::format(
        "Programs can fill {} of node {} (before: {}): {} were taken offline, {} are held in huge "
        "pages.\n",
        format_bytes(r.limit->left), r.setting.fast.get(), format_bytes(r.limit->before),
        format_bytes(r.limit->offlined), format_bytes(r.limit->held));
  out += r.judgement ? judgement_text(r, *r.figures, *r.judgement)
                     : "Nothing was measured, so nothing is said about how near this is to CXL.\n";
  for (const std::string& note : r.notes) out += "Note: " + note + ".\n";
  return out;
}

std::string emulate_svg(const EmulateReport& r) {
  LineChart chart;
  chart.title = fmt::format("Latency under load ({})", to_string(r.label));
  chart.x_text = "read by the other cores, GB/s";
  chart.y_unit = " ns";
  chart.band = {"idle latency of CXL devices", r.judgement->axes[0].low, r.judgement->axes[0].high};
  for (const NodeFigures* n : {&r.figures->fast, &r.figures->slow}) {
    chart.lines.push_back({fmt::format("node {}: {:.0f} ns idle", n->node.get(), n->idle_ns), {}});
    chart.lines.back().points.emplace_back(0, n->idle_ns);
    for (const LoadPoint& point : n->loaded)
      chart.lines.back().points.emplace_back(point.gb_per_s, point.latency_ns);
  }
  return line_chart_svg(chart);
}

nlohmann::ordered_json emulate_json(const EmulateReport& r) {
  nlohmann::ordered_json out;
  out["label"] = to_string(r.label);
  out["stands_for"] =
      to_string(r.judgement ? r.judgement->stands_for : numa_remote::StandsFor::kNothing);
  out["measured"] = r.judgement.has_value();
  out["fast_node"] = r.setting.fast.get();
  out["slow_node"] = r.setting.slow.get();
  for (const CpuId cpu : r.setting.cpus) out["cpus"].push_back(cpu.get());
  if (r.limit)
    out["fast_bytes"] = {{"before", r.limit->before.get()},
                         {"left", r.limit->left.get()},
                         {"offlined", r.limit->offlined.get()},
                         {"held", r.limit->held.get()}};
  if (r.judgement) add_judgement(r.label, *r.figures, *r.judgement, out);
  out["notes"] = r.notes;
  return out;
}

}  // namespace thermocline::cli
