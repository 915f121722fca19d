// SPDX-License-Identifier: Apache-2.0
#include "topology/tiers.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <utility>

#include "base/text.h"

namespace thermocline {

namespace {

// mm/memory-tiers.c: memory as good as DRAM is in the middle of a chunk of 128; a tier is a chunk.
constexpr std::uint64_t kDramDistance = 4 * 128 + 64;
constexpr std::uint64_t kTierChunk = 128;

/// Nodes by ascending rank: one group a tier.
using Groups = std::map<std::uint64_t, std::vector<NodeId>>;

std::string list(const std::vector<NodeId>& nodes) {
  std::vector<std::uint32_t> numbers;
  for (const NodeId node : nodes) numbers.push_back(static_cast<std::uint32_t>(node.get()));
  return format_list(numbers);
}

std::string nodes_text(const std::vector<NodeId>& nodes) {
  return (nodes.size() == 1 ? "node " : "nodes ") + list(nodes);
}

std::vector<const Node*> usable_nodes(const Topology& topology) {
  std::vector<const Node*> result;
  for (const Node& node : topology.nodes)
    if (node.usable()) result.push_back(&node);
  return result;
}

/// Nothing when a usable node is in no kernel tier, or there are no kernel tiers.
std::optional<Groups> by_kernel(const std::vector<const Node*>& nodes) {
  Groups groups;
  for (const Node* node : nodes) {
    if (!node->kernel_tier) return std::nullopt;
    groups[*node->kernel_tier].push_back(node->id);
  }
  return groups;
}

/// Speed of the nodes that have CPUs, which is what "as good as DRAM" means here.
std::optional<Performance> dram_performance(const std::vector<const Node*>& nodes) {
  std::uint64_t count = 0, read_ns = 0, write_ns = 0, read_mbps = 0, write_mbps = 0;
  bool bandwidth = true;
  for (const Node* node : nodes) {
    if (node->cpus.empty() || !node->performance) continue;
    const Performance& p = *node->performance;
    ++count;
    read_ns += static_cast<std::uint64_t>(p.read_latency->count());
    write_ns += static_cast<std::uint64_t>(p.write_latency.value_or(*p.read_latency).count());
    bandwidth = bandwidth && p.read_bandwidth && p.write_bandwidth;
    if (!bandwidth) continue;
    read_mbps += p.read_bandwidth->get();
    write_mbps += p.write_bandwidth->get();
  }
  if (count == 0) return std::nullopt;
  Performance mean;
  mean.read_latency = Nanoseconds(read_ns / count);
  mean.write_latency = Nanoseconds(write_ns / count);
  if (bandwidth) {
    mean.read_bandwidth = MegabytesPerSecond(read_mbps / count);
    mean.write_bandwidth = MegabytesPerSecond(write_mbps / count);
  }
  return mean;
}

/// Nothing unless every usable node has figures.
std::optional<Groups> by_hmat(const std::vector<const Node*>& nodes) {
  const auto dram = dram_performance(nodes);
  if (!dram) return std::nullopt;
  Groups groups;
  for (const Node* node : nodes) {
    if (!node->performance) return std::nullopt;
    const auto distance = abstract_distance(*node->performance, *dram);
    if (!distance) return std::nullopt;
    groups[*distance / kTierChunk].push_back(node->id);
  }
  return groups;
}

/// Nodes with CPUs first, then those without by their distance from the nearest one with.
Groups by_distance(const Topology& topology, const std::vector<const Node*>& nodes) {
  Groups groups;
  for (const Node* node : nodes) {
    std::uint32_t rank = node->cpus.empty() ? std::numeric_limits<std::uint32_t>::max() : 0;
    if (node->cpus.empty())
      for (const Distance& distance : node->distances)
        if (const Node* other = topology.find(distance.to);
            other != nullptr && !other->cpus.empty())
          rank = std::min(rank, distance.value);
    groups[rank].push_back(node->id);
  }
  return groups;
}

std::string figures(const Node& node) {
  const Performance& p = *node.performance;
  std::string text = fmt::format("node {} {} ns", node.id.get(), p.read_latency->count());
  if (p.read_bandwidth) text += fmt::format(" and {} MB/s", p.read_bandwidth->get());
  return text;
}

std::string default_name(std::size_t at, std::size_t count) {
  if (at == 0) return "fast";
  if (at + 1 == count) return "slow";
  return count == 3 ? "middle" : fmt::format("middle{}", at);
}

void add_tier(Topology& topology, std::string name, std::vector<NodeId> nodes) {
  Tier tier;
  tier.id = TierId(static_cast<std::uint8_t>(topology.tiers.size()));
  tier.name = std::move(name);
  std::sort(nodes.begin(), nodes.end());
  tier.nodes = std::move(nodes);
  for (const NodeId id : tier.nodes) {
    tier.total += topology.find(id)->total;
    tier.free += topology.find(id)->free;
  }
  topology.tiers.push_back(std::move(tier));
}

void use_groups(Topology& topology, const Groups& groups) {
  std::vector<std::vector<NodeId>> tiers;
  for (const auto& [rank, nodes] : groups) {
    if (tiers.size() < kMaxTiers) {
      tiers.push_back(nodes);
    } else {
      tiers.back().insert(tiers.back().end(), nodes.begin(), nodes.end());
    }
  }
  if (groups.size() > kMaxTiers)
    topology.notes.push_back(
        fmt::format("{} classes of memory were found; the slowest {} share the last of {} tiers",
                    groups.size(), groups.size() - kMaxTiers + 1, kMaxTiers));
  for (std::size_t i = 0; i < tiers.size(); ++i)
    add_tier(topology, default_name(i, tiers.size()), std::move(tiers[i]));
}

Status use_declarations(Topology& topology, std::span<const TierDeclaration> declared) {
  if (declared.size() > kMaxTiers)
    return fail(ErrorKind::kUsage, "{} tiers are declared, but there can be {} at most",
                declared.size(), kMaxTiers);
  std::map<NodeId, std::string> seen;
  std::vector<std::string> names;
  for (const TierDeclaration& tier : declared) {
    if (tier.name.empty()) return fail(ErrorKind::kUsage, "a declared tier has no name");
    if (std::find(names.begin(), names.end(), tier.name) != names.end())
      return fail(ErrorKind::kUsage, "two declared tiers are called \"{}\"", tier.name);
    names.push_back(tier.name);
    if (tier.nodes.empty())
      return fail(ErrorKind::kUsage, "the declared tier \"{}\" has no nodes", tier.name);
    for (const NodeId id : tier.nodes) {
      const Node* node = topology.find(id);
      const auto refuse = [&](std::string_view what) {
        return fail(ErrorKind::kUsage, "tier \"{}\" names node {}, {}", tier.name, id.get(), what);
      };
      if (node == nullptr)
        return refuse("which this machine doesn't have; see `thermocline tiers`");
      if (!node->online) return refuse("which is offline");
      if (!node->has_memory) return refuse("which has no memory");
      if (!node->allowed) return refuse("which the cpuset of this process doesn't allow");
      const auto [at, fresh] = seen.emplace(id, tier.name);
      if (!fresh) return refuse(fmt::format("which tier \"{}\" has already", at->second));
    }
  }
  for (const TierDeclaration& tier : declared) add_tier(topology, tier.name, tier.nodes);
  std::vector<NodeId> left_out;
  for (const Node* node : usable_nodes(topology))
    if (!seen.contains(node->id)) left_out.push_back(node->id);
  if (!left_out.empty())
    topology.notes.push_back(
        fmt::format("{} is in no declared tier and is left alone", nodes_text(left_out)));
  topology.source = TierSource::kConfig;
  topology.why = "The configuration declares the tiers.";
  return {};
}

/// False, with a note, when this process may not use both of the nodes.
bool use_stand_in(Topology& topology, const StandIn& stand_in) {
  const auto usable = [&](NodeId id) {
    const Node* node = topology.find(id);
    return node != nullptr && node->usable();
  };
  if (!usable(stand_in.fast) || !usable(stand_in.slow)) {
    topology.notes.push_back(
        fmt::format("node {} stands in for slow memory beside node {} (thermocline emulate "
                    "numa-remote), but this process can't use both",
                    stand_in.slow.get(), stand_in.fast.get()));
    return false;
  }
  add_tier(topology, default_name(0, 2), {stand_in.fast});
  add_tier(topology, default_name(1, 2), {stand_in.slow});
  std::vector<NodeId> left_out;
  for (const Node* node : usable_nodes(topology))
    if (topology.tier_of(node->id) == kNoTier) left_out.push_back(node->id);
  if (!left_out.empty())
    topology.notes.push_back(
        fmt::format("{} is in neither tier and is left alone", nodes_text(left_out)));
  topology.source = TierSource::kStandIn;
  topology.why =
      fmt::format("Node {} stands in for slow memory while `thermocline emulate numa-remote` runs.",
                  stand_in.slow.get());
  return true;
}

/// "memory_tier4: node 0; memory_tier93: node 1"
std::string kernel_tiers_text(const Groups& groups) {
  std::string text;
  for (const auto& [number, nodes] : groups)
    text += fmt::format("{}memory_tier{}: {}", text.empty() ? "" : "; ", number, nodes_text(nodes));
  return text;
}

/// Warns of kernel tiers that hold memory of speeds that the kernel's own formula would part.
void note_mixed_tiers(Topology& topology, const std::vector<const Node*>& nodes) {
  const auto dram = dram_performance(nodes);
  if (!dram) return;
  std::map<std::uint32_t, const Node*> first;
  for (const Node* node : nodes) {
    if (!node->performance) continue;
    const auto [at, fresh] = first.emplace(*node->kernel_tier, node);
    if (fresh) continue;
    const auto a = abstract_distance(*at->second->performance, *dram);
    const auto b = abstract_distance(*node->performance, *dram);
    if (a && b && *a / kTierChunk != *b / kTierChunk)
      topology.notes.push_back(fmt::format(
          "the kernel has nodes {} and {} in one tier, but HMAT says {} and {}: declare "
          "the tiers in the configuration to part them",
          at->second->id.get(), node->id.get(), figures(*at->second), figures(*node)));
  }
}

/// What to tell about the kernel when its tiers were of no use.
std::string kernel_failed(const std::vector<const Node*>& nodes,
                          const std::optional<Groups>& kernel) {
  if (kernel)
    return fmt::format("the kernel has all of them in one memory tier (memory_tier{})",
                       kernel->begin()->first);
  const bool none = std::none_of(nodes.begin(), nodes.end(),
                                 [](const Node* node) { return node->kernel_tier.has_value(); });
  return none ? "the kernel has no memory tiers"
              : "some of them are in no memory tier of the kernel";
}

}  // namespace

std::optional<std::uint64_t> abstract_distance(const Performance& memory, const Performance& dram) {
  if (!memory.read_latency || !dram.read_latency) return std::nullopt;
  const auto latency = [](const Performance& p) {
    const auto read = static_cast<std::uint64_t>(p.read_latency->count());
    return read + (p.write_latency ? static_cast<std::uint64_t>(p.write_latency->count()) : read);
  };
  const auto bandwidth = [](const Performance& p) -> std::uint64_t {
    if (!p.read_bandwidth || !p.write_bandwidth) return 0;
    return p.read_bandwidth->get() + p.write_bandwidth->get();
  };
  if (latency(dram) == 0) return std::nullopt;
  // Divided step by step, as the kernel does: its integers round down twice. discover() lets no
  // figure pass that could overflow here.
  std::uint64_t distance = kDramDistance * latency(memory) / latency(dram);
  if (bandwidth(memory) != 0 && bandwidth(dram) != 0)
    distance = distance * bandwidth(dram) / bandwidth(memory);
  return distance;
}

Status order_tiers(Topology& topology, std::span<const TierDeclaration> declared,
                   const std::optional<StandIn>& stand_in) {
  const auto nodes = usable_nodes(topology);
  if (nodes.empty())
    return fail(
        ErrorKind::kFailure,
        "no NUMA node has memory that this process may use; look at cpuset.mems of its cgroup");
  if (!declared.empty()) return use_declarations(topology, declared);
  if (stand_in && use_stand_in(topology, *stand_in)) return {};
  if (nodes.size() == 1) {
    topology.source = TierSource::kSingleNode;
    topology.why =
        fmt::format("Only node {} has memory{}: one tier, and nowhere to move pages to.",
                    nodes[0]->id.get(), topology.nodes.size() > 1 ? " that may be used" : "");
    use_groups(topology, {{0, {nodes[0]->id}}});
    return {};
  }

  const auto kernel = by_kernel(nodes);
  if (kernel && kernel->size() > 1) {
    topology.source = TierSource::kKernel;
    topology.why = fmt::format("The kernel parts the nodes into {} memory tiers ({}).",
                               kernel->size(), kernel_tiers_text(*kernel));
    note_mixed_tiers(topology, nodes);
    use_groups(topology, *kernel);
    return {};
  }

  std::vector<NodeId> ids;
  for (const Node* node : nodes) ids.push_back(node->id);
  const std::string about_kernel = kernel_failed(nodes, kernel);
  const auto hmat = by_hmat(nodes);
  if (hmat && hmat->size() > 1) {
    std::string text;
    for (const Node* node : nodes) text += (text.empty() ? "" : ", ") + figures(*node);
    topology.source = TierSource::kHmat;
    topology.why = fmt::format("For {} {}, but firmware (HMAT) declares {}.", nodes_text(ids),
                               about_kernel, text);
    use_groups(topology, *hmat);
    return {};
  }

  const std::string about_hmat =
      hmat ? "HMAT declares them alike"
      : std::any_of(nodes.begin(), nodes.end(),
                    [](const Node* node) { return node->performance.has_value(); })
          ? "HMAT declares nothing for some of them"
          : "HMAT declares nothing";
  const Groups groups = by_distance(topology, nodes);
  if (groups.size() > 1) {
    std::vector<NodeId> without;
    for (const Node* node : nodes)
      if (node->cpus.empty()) without.push_back(node->id);
    topology.source = TierSource::kDistance;
    topology.why = fmt::format(
        "For {} {} and {}; {} without CPUs is taken as slower, by distance. If it isn't, declare "
        "the "
        "tiers in the configuration.",
        nodes_text(ids), about_kernel, about_hmat, nodes_text(without));
  } else {
    topology.source = TierSource::kNothing;
    topology.why = fmt::format(
        "For {} {}, {} and all are alike in having CPUs: one tier. If some are slower, declare the "
        "tiers in the configuration.",
        nodes_text(ids), about_kernel, about_hmat);
  }
  use_groups(topology, groups);
  return {};
}

}  // namespace thermocline
