// SPDX-License-Identifier: Apache-2.0
#include "emulation/numa_remote/judge.h"

#include <cpuid.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "base/text.h"
#include "emulation/timing/model.h"
#include "emulation/timing/published.h"

namespace thermocline::numa_remote {

namespace {

/// Less than this much slower is no slow tier.
constexpr double kSlower = 1.1;
/// Idle windows may be so far apart.
constexpr double kSteady = 0.15;

Axis axis(const char* what, const char* unit, double value, const timing::Published& published,
          bool at_least = false) {
  return {what, unit, published.source, value, published.low, published.high, at_least};
}

/// QEMU's translator signs itself where hypervisors do (leaf 0x40000000), unless told not to.
bool emulator_in_cpuid() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kHypervisor = 1u << 31;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kHypervisor) == 0) return false;
  __cpuid(0x40000000, a, b, c, d);
  std::array<char, 12> name;
  std::memcpy(name.data(), &b, 4);
  std::memcpy(name.data() + 4, &c, 4);
  std::memcpy(name.data() + 8, &d, 4);
  return std::string_view(name.data(), name.size()) == "TCGTCGTCGTCG";
}

/// Latency at the load nearest to half of what the node gives; nothing when that isn't known.
std::optional<double> half_load_ns(const NodeFigures& node) {
  if (!node.saturated || node.loaded.empty()) return std::nullopt;
  const double half = node.gb_per_s / 2;
  const auto nearest = std::min_element(
      node.loaded.begin(), node.loaded.end(), [half](const LoadPoint& x, const LoadPoint& y) {
        return std::abs(x.gb_per_s - half) < std::abs(y.gb_per_s - half);
      });
  return nearest->latency_ns;
}

/// The preset whose slow node is nearest: by latency, and by bandwidth where that is known.
void find_preset(const NodeFigures& slow, Judgement& out) {
  double best = 0;
  for (const std::string& name : timing::preset_names()) {
    const auto model = timing::load_model(name);
    const timing::NodeModel* node = model ? timing::model_of(*model, NodeId(1)) : nullptr;
    if (node == nullptr) continue;
    const double latency = least_ns(slow) / (static_cast<double>(node->latency.get()) / 1e3);
    const double bandwidth = slow.gb_per_s / (static_cast<double>(node->bandwidth.get()) / 1e3);
    const double distance =
        std::hypot(std::log(latency), slow.saturated ? std::log(bandwidth) : 0.0);
    if (!out.preset.empty() && distance >= best) continue;
    best = distance;
    out.preset = name;
    out.preset_latency = latency - 1;
    out.preset_bandwidth = slow.saturated ? std::optional(bandwidth - 1) : std::nullopt;
  }
}

}  // namespace

Label label_here(const System& system) {
  const auto cpus = system.read_file("/proc/cpuinfo");
  if (!emulator_in_cpuid() && !(cpus && cpus->find("QEMU TCG") != std::string::npos))
    return Label::kMeasured;
  return std::getenv("THERMOCLINE_TIMING") != nullptr ? Label::kModelled : Label::kEmulated;
}

double Axis::outside_by() const {
  if (value > high) return value / high - 1;
  return value < low && known() ? value / low - 1 : 0;
}

bool Axis::known() const {
  return !at_least || value >= low;
}

std::string Axis::value_text() const {
  return fmt::format("{}{:.{}f}{}", at_least ? ">= " : "", value, value < 10 ? 2 : 0, unit);
}

Judgement judge(const Figures& figures, Label label) {
  Judgement out;
  const double ratio = least_ns(figures.slow) / least_ns(figures.fast);
  out.axes = {axis("idle latency", " ns", least_ns(figures.slow), timing::kCxlLatencyNs),
              axis("latency over the fast node's", " times", ratio, timing::kCxlLatencyRatio),
              axis("bandwidth", " GB/s", figures.slow.gb_per_s, timing::kCxlGbPerS,
                   !figures.slow.saturated)};
  if (const auto half = half_load_ns(figures.slow)) {
    out.axes.push_back(axis("latency at half load over idle", " times",
                            *half / least_ns(figures.slow), timing::kCxlHalfLoadRatio));
    out.axes.back().judged = false;
  }
  find_preset(figures.slow, out);
  if (label == Label::kEmulated) {
    out.why =
        "Times in plain emulation mean nothing, so this node stands for nothing: give the "
        "guest a timing model (lab run --timing).";
    return out;
  }
  if (!figures.huge_pages) {
    out.why =
        "The kernel gave no huge pages, so latencies hold page walks, and nothing can be said: set "
        "/sys/kernel/mm/transparent_hugepage/enabled to madvise.";
    return out;
  }
  const double spread = std::max(figures.fast.spread, figures.slow.spread);
  if (spread > kSteady) {
    out.why = fmt::format(
        "Idle latency came out up to {:.0f} % apart, so nothing can be said: measure on a quiet "
        "machine, with a fixed clock.",
        100 * spread);
    return out;
  }
  if (ratio < kSlower) {
    out.why = fmt::format("Node {} is not slower than node {}: it can't stand for slow memory.",
                          figures.slow.node.get(), figures.fast.node.get());
    return out;
  }
  std::string outside;
  for (const Axis& a : out.axes)
    if (a.judged && a.outside_by() != 0)
      outside += fmt::format("{}{} ({}) is {:.0f} % {}", outside.empty() ? "" : ", ", a.what,
                             a.value_text(), std::abs(100 * a.outside_by()),
                             a.outside_by() > 0 ? "above the highest" : "below the lowest");
  out.stands_for = outside.empty() ? StandsFor::kCxl : StandsFor::kRemoteNuma;
  if (!outside.empty())
    out.why = fmt::format(
        "This is a remote socket, not CXL: its {} published of CXL devices. Call its results so.",
        outside);
  else
    out.why = fmt::format(
        "Node {} lies inside what was published about CXL devices{}.", figures.slow.node.get(),
        figures.slow.saturated ? "" : ", as far as these CPUs can tell: they don't saturate it");
  return out;
}

std::string_view to_string(StandsFor stands_for) {
  switch (stands_for) {
    case StandsFor::kCxl:
      return "cxl";
    case StandsFor::kRemoteNuma:
      return "remote-numa";
    case StandsFor::kNothing:
      break;
  }
  return "nothing";
}

std::string_view to_string(Label label) {
  switch (label) {
    case Label::kMeasured:
      return "measured";
    case Label::kModelled:
      return "modelled";
    case Label::kEmulated:
      break;
  }
  return "emulated";
}

}  // namespace thermocline::numa_remote
