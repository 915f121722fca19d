// SPDX-License-Identifier: Apache-2.0
#include "topology/json.h"

#include <nlohmann/json.hpp>

#include "base/text.h"

namespace thermocline {

namespace {

using Json = nlohmann::ordered_json;

Json ids(const std::vector<NodeId>& nodes) {
  Json list = Json::array();
  for (const NodeId node : nodes) list.push_back(node.get());
  return list;
}

std::string cpu_list(const std::vector<CpuId>& cpus) {
  std::vector<std::uint32_t> numbers;
  for (const CpuId cpu : cpus) numbers.push_back(cpu.get());
  return format_list(numbers);
}

template <class T>
Json number_or_null(const std::optional<T>& value) {
  if (!value) return nullptr;
  if constexpr (requires { value->count(); }) {
    return value->count();
  } else {
    return value->get();
  }
}

Json node_json(const Topology& topology, const Node& node) {
  const TierId tier = topology.tier_of(node.id);
  const Performance p = node.performance.value_or(Performance{});
  Json distances = Json::object();
  for (const Distance& distance : node.distances)
    distances[std::to_string(distance.to.get())] = distance.value;
  return {
      {"id", node.id.get()},
      {"tier", tier == kNoTier ? Json(nullptr) : Json(tier.get())},
      {"online", node.online},
      {"has_memory", node.has_memory},
      {"allowed", node.allowed},
      {"kind", to_string(node.kind)},
      {"kind_why", node.kind_why},
      {"devices", node.devices},
      {"total_bytes", node.total.get()},
      {"free_bytes", node.free.get()},
      {"watermark_min_bytes", bytes_of(node.watermarks.min).get()},
      {"watermark_low_bytes", bytes_of(node.watermarks.low).get()},
      {"watermark_high_bytes", bytes_of(node.watermarks.high).get()},
      {"cpus", cpu_list(node.cpus)},
      {"local_cpus", cpu_list(node.local_cpus)},
      {"packages", node.packages},
      {"distances", std::move(distances)},
      {"read_latency_ns", number_or_null(p.read_latency)},
      {"write_latency_ns", number_or_null(p.write_latency)},
      {"read_bandwidth_mbps", number_or_null(p.read_bandwidth)},
      {"write_bandwidth_mbps", number_or_null(p.write_bandwidth)},
      {"performance_source", node.performance ? Json(p.source) : Json(nullptr)},
      {"initiators", ids(p.initiators)},
      {"kernel_tier", node.kernel_tier ? Json(*node.kernel_tier) : Json(nullptr)},
  };
}

}  // namespace

nlohmann::ordered_json to_json(const Topology& topology) {
  Json tiers = Json::array();
  for (const Tier& tier : topology.tiers)
    tiers.push_back({{"id", tier.id.get()},
                     {"name", tier.name},
                     {"nodes", ids(tier.nodes)},
                     {"total_bytes", tier.total.get()},
                     {"free_bytes", tier.free.get()}});
  Json nodes = Json::array();
  for (const Node& node : topology.nodes) nodes.push_back(node_json(topology, node));
  const Json whole = {{"tiers", std::move(tiers)},
                      {"source", to_string(topology.source)},
                      {"why", topology.why},
                      {"notes", topology.notes},
                      {"kernel_demotion_enabled",
                       topology.kernel_demotion ? Json(*topology.kernel_demotion) : Json(nullptr)},
                      {"nodes", std::move(nodes)}};
  // A cgroup may be called anything; JSON is UTF-8.
  return Json::parse(whole.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace thermocline
