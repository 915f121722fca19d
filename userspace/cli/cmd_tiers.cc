// SPDX-License-Identifier: Apache-2.0
// `thermocline tiers`: the memory of this machine, or of a captured one, in order of speed.
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "cli/table.h"
#include "control/config.h"
#include "topology/json.h"
#include "topology/topology.h"

namespace thermocline::cli {

namespace {

struct Options {
  bool json = false;
  std::string sysroot;
  std::string config;
};

std::string cpus_text(const Node& node) {
  std::vector<std::uint32_t> numbers;
  for (const CpuId cpu : node.cpus) numbers.push_back(cpu.get());
  return numbers.empty() ? "-" : format_list(numbers);
}

/// "20 from 0": how far from the nearest node with CPUs, for a node without.
std::string distance_text(const Topology& topology, const Node& node) {
  const Distance* best = nullptr;
  for (const Distance& distance : node.distances) {
    const Node* other = topology.find(distance.to);
    if (other == nullptr || other->cpus.empty()) continue;
    if (best == nullptr || distance.value < best->value) best = &distance;
  }
  if (best == nullptr) return "-";
  return best->to == node.id ? std::to_string(best->value)
                             : fmt::format("{} from {}", best->value, best->to.get());
}

std::string state_text(const Node& node) {
  if (!node.has_memory) return "no memory";
  if (!node.allowed) return "restricted by cpuset";
  return node.kind_why;
}

std::vector<std::string> row(const Topology& topology, const Node& node, const Tier* tier) {
  const Performance p = node.performance.value_or(Performance{});
  return {tier == nullptr ? "-" : std::to_string(tier->id.get()),
          tier == nullptr ? "-" : tier->name,
          std::to_string(node.id.get()),
          format_bytes(node.total),
          format_bytes(node.free),
          cpus_text(node),
          p.read_latency ? fmt::format("{} ns", p.read_latency->count()) : "-",
          p.read_bandwidth ? fmt::format("{} MB/s", p.read_bandwidth->get()) : "-",
          distance_text(topology, node),
          std::string(to_string(node.kind)),
          state_text(node)};
}

std::string to_text(const Topology& topology) {
  std::vector<std::vector<std::string>> rows;
  bool declared = false;
  for (const Tier& tier : topology.tiers)
    for (const NodeId id : tier.nodes) rows.push_back(row(topology, *topology.find(id), &tier));
  std::vector<std::uint32_t> offline;
  for (const Node& node : topology.nodes) {
    declared = declared || node.performance.has_value();
    if (!node.online) {
      offline.push_back(static_cast<std::uint32_t>(node.id.get()));
    } else if (topology.tier_of(node.id) == kNoTier) {
      rows.push_back(row(topology, node, nullptr));
    }
  }
  std::string text = format_table({{"TIER", true},
                                   {"NAME"},
                                   {"NODE", true},
                                   {"SIZE", true},
                                   {"FREE", true},
                                   {"CPUS"},
                                   {"LATENCY", true},
                                   {"BANDWIDTH", true},
                                   {"DISTANCE"},
                                   {"KIND"},
                                   {"BECAUSE"}},
                                  rows);
  text += "\n\n" + topology.why;
  if (declared) text += "\nLatency and bandwidth of reads are declared by firmware, not measured.";
  if (!offline.empty())
    text += fmt::format("\nOffline: {} {}.", offline.size() == 1 ? "node" : "nodes",
                        format_list(offline));
  for (const std::string& note : topology.notes) text += fmt::format("\nNote: {}.", note);
  return text;
}

Result<int> run(const Options& options) {
  std::vector<TierDeclaration> declared;
  if (!options.config.empty()) {
    TC_ASSIGN(Config config, load_config(options.config));
    declared = std::move(config.tiers);
  }
  const auto system = make_real_system(options.sysroot);
  auto topology = discover(*system, declared);
  if (!topology) {
    Error error = std::move(topology).error();
    if (!declared.empty() && error.kind == ErrorKind::kUsage)
      error.message = options.config + ": " + error.message;
    return tl::make_unexpected(std::move(error));
  }
  print_line(options.json ? json_text(to_json(*topology)) : to_text(*topology));
  return 0;
}

}  // namespace

void register_tiers(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("tiers", "the machine's memory in order of speed");
  const auto options = std::make_shared<Options>();
  command->add_flag("--json", options->json, "print JSON with stable keys");
  command
      ->add_option("--sysroot", options->sysroot, "read a captured /sys and /proc in this folder")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory.description(""));
  command
      ->add_option("--config", options->config,
                   "order by the [[tier]]s of this configuration, if it has any")
      ->type_name("FILE");
  command->callback([options, &context] { context.action = [options] { return run(*options); }; });
}

}  // namespace thermocline::cli
