// SPDX-License-Identifier: Apache-2.0
#include "topology/topology.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "topology/sysfs.h"

namespace thermocline {

std::string_view to_string(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kUnknown:
      return "unknown";
    case MemoryKind::kDram:
      return "dram";
    case MemoryKind::kHbm:
      return "hbm";
    case MemoryKind::kCxl:
      return "cxl";
    case MemoryKind::kPmem:
      return "pmem";
  }
  return "unknown";
}

std::string_view to_string(TierSource source) {
  switch (source) {
    case TierSource::kSingleNode:
      return "single_node";
    case TierSource::kNothing:
      return "nothing";
    case TierSource::kKernel:
      return "kernel";
    case TierSource::kHmat:
      return "hmat";
    case TierSource::kDistance:
      return "distance";
    case TierSource::kConfig:
      return "config";
    case TierSource::kStandIn:
      return "stand_in";
  }
  return "nothing";
}

std::optional<std::uint32_t> Node::distance_to(NodeId to) const {
  for (const Distance& distance : distances)
    if (distance.to == to) return distance.value;
  return std::nullopt;
}

const Node* Topology::find(NodeId id) const {
  const auto at =
      std::find_if(nodes.begin(), nodes.end(), [&](const Node& n) { return n.id == id; });
  return at == nodes.end() ? nullptr : &*at;
}

TierId Topology::tier_of(NodeId id) const {
  for (const Tier& tier : tiers)
    if (std::find(tier.nodes.begin(), tier.nodes.end(), id) != tier.nodes.end()) return tier.id;
  return kNoTier;
}

std::vector<NodeId> Topology::nearest(NodeId from, TierId in) const {
  const auto tier =
      std::find_if(tiers.begin(), tiers.end(), [&](const Tier& t) { return t.id == in; });
  if (tier == tiers.end()) return {};
  const Node* here = find(from);
  const auto names = [](const Node* node, NodeId initiator) {
    return node != nullptr && node->performance &&
           std::find(node->performance->initiators.begin(), node->performance->initiators.end(),
                     initiator) != node->performance->initiators.end();
  };
  // An expander's firmware names its socket as initiator; a page may go either way between them.
  const auto rank = [&](NodeId to) {
    const auto distance = here == nullptr ? std::nullopt : here->distance_to(to);
    const bool local = names(find(to), from) || names(here, to);
    return std::tuple(distance.value_or(std::numeric_limits<std::uint32_t>::max()), !local, to);
  };
  std::vector<NodeId> result = tier->nodes;
  std::sort(result.begin(), result.end(), [&](NodeId a, NodeId b) { return rank(a) < rank(b); });
  return result;
}

Status Topology::refresh_zones(const System& system) {
  return read_zones(system, nodes);
}

Status Topology::refresh_free(const System& system) {
  for (Node& node : nodes)
    if (node.usable()) TC_TRY(read_meminfo(system, node));
  for (Tier& tier : tiers) {
    tier.total = tier.free = Bytes();
    for (const NodeId id : tier.nodes) {
      const Node* node = find(id);
      tier.total += node->total;
      tier.free += node->free;
    }
  }
  return {};
}

}  // namespace thermocline
