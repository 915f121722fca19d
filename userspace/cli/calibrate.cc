// SPDX-License-Identifier: Apache-2.0
#include "cli/calibrate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "cli/line_chart.h"
#include "cli/table.h"
#include "emulation/timing/published.h"

namespace thermocline::cli {

namespace {

/// What was published about the kernel's work, nanoseconds.
struct KernelCost {
  const char* key;
  const char* what;
  double low_ns, high_ns;
  const char* source;
};
constexpr const char* kMoveSource =
    "3.3 GB/s: Zen 3, v7.1-rc1, linux-kernel 2026-05-08; 0.75 GB/s: Barcelona, Linux 2.6.30";
constexpr std::array<KernelCost, 4> kKernelCosts = {{
    {"system_call_ns", "system call (getppid)", 70, 90,
     "mitigations off, as here (350 to 450 ns with them): blog.i0.pm, 2023"},
    {"page_fault_ns", "first touch of a 4 KiB page", 580, 1010,
     "0.58 us least, 1.01 us median: Core i7 of 2021, Linux 6.6 (ddumbying.vercel.app)"},
    {"move_to_slow_ns", "move_pages, a 4 KiB page to the slow node", 1200, 5500, kMoveSource},
    {"move_to_fast_ns", "move_pages, a 4 KiB page to the fast node", 1200, 5500, kMoveSource},
}};

std::string published(double ns) {
  std::vector<std::string> names;
  for (const timing::PublishedLatency& e : timing::kPublishedLatencies)
    if (ns >= e.low_ns && ns <= e.high_ns)
      names.push_back(fmt::format("{} {:.0f} to {:.0f} ns", e.what, e.low_ns, e.high_ns));
  return names.empty() ? "outside all of them" : fmt::format("{}", fmt::join(names, "; "));
}

/// What the guest can draw from a node: its share of what others leave.
double most_gb_per_s(const timing::NodeModel& node) {
  return static_cast<double>((node.bandwidth.get() - node.background.get())) / 1e3 * node.share;
}

}  // namespace

double Calibration::Node::model_ns() const {
  // The probe runs on CPU 0, which is on node 0. Others' load makes every line wait.
  const double load =
      static_cast<double>(model->background.get()) / static_cast<double>(model->bandwidth.get());
  return (static_cast<double>(timing::latency_between(*model, NodeId(node), NodeId(0)).get()) +
          static_cast<double>(model->queue.get()) * load / (1 - load)) /
         1000;
}

bool Calibration::Node::rises() const {
  return !flat() && std::is_sorted(sweep.begin(), sweep.end(), [](const auto& a, const auto& b) {
    return a.chase_ns < b.chase_ns;
  });
}

bool Calibration::Node::flat() const {
  const auto [least, most] =
      std::minmax_element(sweep.begin(), sweep.end(),
                          [](const auto& a, const auto& b) { return a.chase_ns < b.chase_ns; });
  return sweep.empty() || most->chase_ns <= 1.01 * least->chase_ns;
}

std::optional<unsigned> Calibration::Node::knee_percent() const {
  for (const SweepPoint& point : sweep)
    if (point.chase_ns >= 1.5 * sweep.front().chase_ns) return point.load_percent;
  return std::nullopt;
}

Result<Calibration> read_calibration(const std::string& probe, const timing::Model& model,
                                     timing::Mode mode, const std::string& kernel) {
  const auto bad = [] {
    return fail(ErrorKind::kCorrupt, "the probe's output is not what it should be");
  };
  const nlohmann::json json = nlohmann::json::parse(probe, nullptr, false);
  if (!json.is_object() || !json.contains("nodes") || !json["nodes"].is_array() ||
      !json.contains("kernel") || !json["kernel"].is_object())
    return bad();
  Calibration out{model.name, std::string(timing::mode_name(mode)), kernel, {}, json["kernel"]};
  for (const nlohmann::json& node : json["nodes"]) {
    for (const char* key : {"node", "chase_ns", "update_ns", "read_gb_per_s", "triad_gb_per_s"})
      if (!node.contains(key) || !node[key].is_number()) return bad();
    Calibration::Node n;
    n.node = node["node"].get<int>();
    n.model = timing::model_of(model, NodeId(n.node));
    if (n.model == nullptr || !node.contains("sweep") || !node["sweep"].is_array()) return bad();
    n.chase_ns = node["chase_ns"].get<double>();
    n.update_ns = node["update_ns"].get<double>();
    n.read_gb_per_s = node["read_gb_per_s"].get<double>();
    n.triad_gb_per_s = node["triad_gb_per_s"].get<double>();
    for (const nlohmann::json& point : node["sweep"]) {
      if (!point.is_object() || !point.value("load_percent", nlohmann::json()).is_number() ||
          !point.value("chase_ns", nlohmann::json()).is_number())
        return bad();
      n.sweep.push_back({point["load_percent"].get<unsigned>(), point["chase_ns"].get<double>()});
    }
    out.nodes.push_back(std::move(n));
  }
  return out;
}

std::string calibration_text(const Calibration& c, const timing::Model& model) {
  std::string out = fmt::format(
      "model {} ({} mode, guest kernel {}); measured by the guest's own clock, times modelled\n",
      c.model, c.mode, c.kernel);
  if (!model.source.empty()) out += fmt::format("source: {}\n", model.source);
  std::vector<std::vector<std::string>> rows;
  for (const Calibration::Node& n : c.nodes) {
    const double most = most_gb_per_s(*n.model);
    const std::uint64_t others = n.model->background.get() * 100 / n.model->bandwidth.get();
    rows.push_back({fmt::format("{}", n.node),
                    others == 0 ? "pointer chase, idle"
                                : fmt::format("pointer chase, {} % taken by others", others),
                    fmt::format("{:.1f} ns", n.chase_ns), fmt::format("{:.1f} ns", n.model_ns()),
                    fmt::format("{:+.1f} %", 100 * n.error()), published(n.chase_ns)});
    rows.push_back({"", "random updates", fmt::format("{:.1f} ns", n.update_ns),
                    fmt::format("about {:.1f} ns", n.model_ns() / model.in_flight), "", ""});
    rows.push_back({"", "stream read, one CPU", fmt::format("{:.2f} GB/s", n.read_gb_per_s),
                    fmt::format("<= {:.1f} GB/s", most), "", ""});
    rows.push_back({"", "stream triad, one CPU", fmt::format("{:.2f} GB/s", n.triad_gb_per_s),
                    fmt::format("<= {:.1f} GB/s", most), "", ""});
  }
  out += "\n" + format_table({{"node"},
                              {"what"},
                              {"measured", true},
                              {"model", true},
                              {"error", true},
                              {"published idle latencies around it"}},
                             rows);
  out += "\n\nLatency of a chase while others load the device (ns):\n";
  std::vector<Column> columns{{"load %", true}};
  for (const Calibration::Node& n : c.nodes)
    columns.push_back({fmt::format("node {}", n.node), true});
  rows.clear();
  for (std::size_t i = 0; !c.nodes.empty() && i < c.nodes[0].sweep.size(); ++i) {
    rows.push_back({fmt::format("{}", c.nodes[0].sweep[i].load_percent)});
    for (const Calibration::Node& n : c.nodes)
      rows.back().push_back(i < n.sweep.size() ? fmt::format("{:.1f}", n.sweep[i].chase_ns) : "");
  }
  out += format_table(columns, rows) + "\n";
  for (const Calibration::Node& n : c.nodes) {
    const auto knee = n.knee_percent();
    out += fmt::format("node {}: {}; {}\n", n.node,
                       n.flat()    ? "flat: load changes nothing (queue = 0)"
                       : n.rises() ? "rises with load throughout"
                                   : "DOES NOT RISE with load throughout",
                       knee ? fmt::format("1.5 times the idle latency from {} % load", *knee)
                            : std::string("no knee up to 95 % load"));
  }
  out += "\nThe kernel's own work (cost-benefit decisions hang on it):\n";
  rows.clear();
  for (const KernelCost& cost : kKernelCosts)
    if (c.kernel_ns.contains(cost.key))
      rows.push_back(
          {cost.what, fmt::format("{:.2f} us", c.kernel_ns[cost.key].get<double>() / 1e3),
           fmt::format("{:.2f} to {:.2f} us", cost.low_ns / 1e3, cost.high_ns / 1e3), cost.source});
  out += format_table({{"what"}, {"measured", true}, {"published", true}, {"source"}}, rows);
  out +=
      "\n\nModelled: caches, stream prefetching, TLB and page walks, latency by node, overlap of "
      "independent misses, bandwidth and load.\nNot modelled: branch prediction, instruction "
      "fetch, DMA, "
      "latency tails, coherence between sockets.";
  return out;
}

nlohmann::ordered_json calibration_json(const Calibration& c, const timing::Model& model) {
  nlohmann::ordered_json out;
  out["model"] = c.model;
  out["source"] = model.source;
  out["mode"] = c.mode;
  out["guest_kernel"] = c.kernel;
  out["label"] = "modelled";
  out["nodes"] = nlohmann::ordered_json::array();
  for (const Calibration::Node& n : c.nodes) {
    nlohmann::ordered_json node;
    node["node"] = n.node;
    node["background_gb_per_s"] = static_cast<double>(n.model->background.get()) / 1e3;
    node["chase_ns"] = n.chase_ns;
    node["model_ns"] = n.model_ns();
    node["error"] = n.error();
    node["update_ns"] = n.update_ns;
    node["read_gb_per_s"] = n.read_gb_per_s;
    node["triad_gb_per_s"] = n.triad_gb_per_s;
    node["rises_with_load"] = n.rises();
    const auto knee = n.knee_percent();
    node["knee_percent"] = knee ? nlohmann::ordered_json(*knee) : nlohmann::ordered_json();
    for (const Calibration::SweepPoint& point : n.sweep)
      node["sweep"].push_back({{"load_percent", point.load_percent}, {"chase_ns", point.chase_ns}});
    out["nodes"].push_back(std::move(node));
  }
  nlohmann::ordered_json published_kernel = nlohmann::ordered_json::object();
  for (const KernelCost& cost : kKernelCosts)
    if (c.kernel_ns.contains(cost.key)) {
      out["kernel"][cost.key] = c.kernel_ns[cost.key];
      published_kernel[cost.key] = {
          {"low_ns", cost.low_ns}, {"high_ns", cost.high_ns}, {"source", cost.source}};
    }
  auto& latencies = out["published"]["idle_latency"] = nlohmann::ordered_json::array();
  for (const timing::PublishedLatency& e : timing::kPublishedLatencies)
    latencies.push_back(
        {{"what", e.what}, {"low_ns", e.low_ns}, {"high_ns", e.high_ns}, {"source", e.source}});
  out["published"]["kernel"] = std::move(published_kernel);
  return out;
}

std::string calibration_svg(const Calibration& c) {
  LineChart chart;
  chart.title = "Modelled latency under load: " + c.model;
  chart.x_text = "load on the device, % of its bandwidth";
  chart.y_unit = " ns";
  chart.x_most = 100;
  for (const Calibration::Node& node : c.nodes) {
    chart.lines.push_back({fmt::format("node {}: {:.0f} ns idle", node.node, node.chase_ns), {}});
    for (const auto& point : node.sweep)
      chart.lines.back().points.emplace_back(point.load_percent, point.chase_ns);
  }
  return line_chart_svg(chart);
}

}  // namespace thermocline::cli
