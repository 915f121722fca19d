// SPDX-License-Identifier: Apache-2.0
// Reads the machine, file by file. What the facts mean for the order of tiers is in tiers.cc.
#include <algorithm>
#include <utility>

#include "base/text.h"
#include "topology/locality.h"
#include "topology/stand_in.h"
#include "topology/sysfs.h"
#include "topology/tiers.h"
#include "topology/topology.h"

namespace thermocline {

namespace {

// No memory is that slow or that fast; 576 * 2 * 10^7 * 2 * 10^8 (see abstract_distance()) fits 64
// bits.
constexpr std::uint64_t kMostNanoseconds = 10'000'000;
constexpr std::uint64_t kMostMegabytes = 100'000'000;

bool contains(const std::vector<NodeId>& nodes, NodeId node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

std::string node_dir(NodeId node) {
  return fmt::format("{}/node{}", kNodeDir, node.get());
}

Status check_is_a_machine(const System& system) {
  if (system.exists(fmt::format("{}/online", kNodeDir))) return {};
  if (system.exists("/sys/devices/system"))
    return fail(ErrorKind::kUnsupported,
                "{} is missing: this kernel was built without NUMA support, which tiering needs",
                kNodeDir);
  const std::string root = system.root().value_or("");
  return fail(ErrorKind::kNotFound, "there is no {}{}: {}", root, kNodeDir,
              root.empty() ? "mount sysfs on /sys"
                           : "give --sysroot a folder that holds a captured /sys and /proc");
}

Status read_cpus(const System& system, Node& node) {
  const std::string path = node_dir(node.id) + "/cpulist";
  TC_ASSIGN(const auto text, read_optional(system, path));
  if (!text) return {};
  const auto list = parse_list(*text);
  if (!list) return fail(ErrorKind::kCorrupt, "{}: {}", path, list.error().message);
  for (const std::uint32_t cpu : *list) node.cpus.emplace_back(cpu);
  node.local_cpus = node.cpus;
  return {};
}

/// The kernel prints one number for each online node, in their order.
Status read_distances(const System& system, const std::vector<NodeId>& online, Node& node) {
  const std::string path = node_dir(node.id) + "/distance";
  TC_ASSIGN(const std::string text, system.read_file(path));
  const auto row = words(text);
  if (row.size() != online.size())
    return fail(ErrorKind::kCorrupt,
                "{} has {} numbers for {} online nodes; run again if memory was just plugged", path,
                row.size(), online.size());
  for (std::size_t i = 0; i < row.size(); ++i) {
    const auto value = parse_u64(row[i]);
    if (!value || *value == 0 || *value > 255)
      return fail(ErrorKind::kCorrupt, "{}: \"{}\" is not a distance from 1 to 255", path, row[i]);
    node.distances.push_back({online[i], static_cast<std::uint32_t>(*value)});
  }
  return {};
}

/// A class of initiators of nodeN; nothing when firmware declares no read latency for it.
Result<std::optional<Performance>> read_performance(const System& system, NodeId node,
                                                    const std::string& access_class) {
  const std::string dir = fmt::format("{}/{}/initiators", node_dir(node), access_class);
  Performance p;
  p.source = access_class;
  const auto latency = [&](const char* name, std::optional<Nanoseconds>& field) -> Status {
    TC_ASSIGN(const auto value, read_number(system, dir + "/" + name));
    if (!value || *value == 0) return {};  // 0: the kernel has no figure
    if (*value > kMostNanoseconds)
      return fail(ErrorKind::kCorrupt, "{}/{}: {} ns is no latency of memory", dir, name, *value);
    field = Nanoseconds(*value);
    return {};
  };
  const auto bandwidth = [&](const char* name, std::optional<MegabytesPerSecond>& field) -> Status {
    TC_ASSIGN(const auto value, read_number(system, dir + "/" + name));
    if (!value || *value == 0) return {};
    if (*value > kMostMegabytes)
      return fail(ErrorKind::kCorrupt, "{}/{}: {} MB/s is no bandwidth of memory", dir, name,
                  *value);
    field = MegabytesPerSecond(*value);
    return {};
  };
  TC_TRY(latency("read_latency", p.read_latency));
  TC_TRY(latency("write_latency", p.write_latency));
  TC_TRY(bandwidth("read_bandwidth", p.read_bandwidth));
  TC_TRY(bandwidth("write_bandwidth", p.write_bandwidth));
  for (const Numbered& initiator : list_numbered(system, dir, "node"))
    p.initiators.emplace_back(static_cast<std::int32_t>(initiator.number));
  if (!p.read_latency) return std::nullopt;
  return p;
}

Status read_node(const System& system, const std::vector<NodeId>& online, Node& node) {
  TC_TRY(read_cpus(system, node));
  TC_TRY(read_distances(system, online, node));
  TC_TRY(read_meminfo(system, node));
  // access1 counts CPUs only; access0 may be a GPU or NIC that sits nearer.
  TC_ASSIGN(node.performance, read_performance(system, node.id, "access1"));
  if (!node.performance) {
    TC_ASSIGN(node.performance, read_performance(system, node.id, "access0"));
  }
  return {};
}

Status read_kernel_tiers(const System& system, Topology& topology) {
  const std::string dir = "/sys/devices/virtual/memory_tiering";
  for (const Numbered& tier : list_numbered(system, dir, "memory_tier")) {
    const std::string path = fmt::format("{}/{}/nodelist", dir, tier.name);
    auto members = read_nodes(system, path);
    if (!members && members.error().kind == ErrorKind::kNotFound) continue;  // just dissolved
    if (!members) return tl::make_unexpected(std::move(members).error());
    for (Node& node : topology.nodes)
      if (contains(*members, node.id)) node.kernel_tier = tier.number;
  }
  return {};
}

void set_kind(Node& node, MemoryKind kind, std::string why) {
  node.kind = kind;
  node.kind_why = std::move(why);
}

struct DaxDevice {
  std::string name;
  NodeId target;
  bool used_as_memory = false;  ///< bound to the kmem driver
};

Result<std::vector<DaxDevice>> read_dax(const System& system) {
  std::vector<DaxDevice> result;
  const std::string dir = "/sys/bus/dax/devices";
  for (const std::string& name : list_names(system, dir, "dax")) {
    const std::string path = fmt::format("{}/{}/target_node", dir, name);
    TC_ASSIGN(const auto text, read_optional(system, path));
    if (!text || *text == "-1") continue;
    const auto node = parse_u64(*text);
    if (!node || *node > 1023)
      return fail(ErrorKind::kCorrupt, "{}: \"{}\" is not a node", path, *text);
    const auto driver = system.read_link_name(fmt::format("{}/{}/driver", dir, name));
    result.push_back({name, NodeId(static_cast<std::int32_t>(*node)), driver && *driver == "kmem"});
  }
  return result;
}

/// CXL regions: their DAX device names the node or, when firmware brought the region up as plain
/// memory, the memory block at its start does.
Status find_cxl(const System& system, const std::vector<DaxDevice>& dax, Topology& topology) {
  const std::string dir = "/sys/bus/cxl/devices";
  TC_ASSIGN(const auto block_text,
            read_optional(system, "/sys/devices/system/memory/block_size_bytes"));
  const auto block_size = block_text ? parse_u64(*block_text, 16).value_or(0) : 0;
  for (const Numbered& region : list_numbered(system, dir, "region")) {
    const std::string region_dir = fmt::format("{}/{}", dir, region.name);
    TC_ASSIGN(const auto start, read_number(system, region_dir + "/resource"));
    const std::string dax_dir = fmt::format("{}/dax_{}", region_dir, region.name);
    for (Node& node : topology.nodes) {
      for (const DaxDevice& d : dax) {
        if (d.target != node.id || !d.used_as_memory) continue;
        if (!system.exists(fmt::format("{}/{}", dax_dir, d.name))) continue;
        set_kind(node, MemoryKind::kCxl, fmt::format("{} of CXL {}", d.name, region.name));
        node.devices.push_back(region.name);
        node.devices.push_back(d.name);
      }
      if (node.kind != MemoryKind::kUnknown || !start || block_size == 0) continue;
      const auto block = fmt::format("{}/memory{}", node_dir(node.id), *start / block_size);
      if (!system.exists(block)) continue;
      set_kind(node, MemoryKind::kCxl, fmt::format("holds the memory of CXL {}", region.name));
      node.devices.push_back(region.name);
    }
  }
  return {};
}

/// Persistent memory used as plain memory: an NVDIMM, or persistent CXL memory behind an nvdimm
/// bus.
Status find_pmem(const System& system, const std::vector<DaxDevice>& dax, Topology& topology) {
  const std::string dir = "/sys/bus/nd/devices";
  for (const Numbered& bus : list_numbered(system, dir, "ndbus")) {
    const std::string bus_dir = fmt::format("{}/{}", dir, bus.name);
    TC_ASSIGN(const auto provider, read_optional(system, bus_dir + "/provider"));
    const bool cxl = provider && *provider == "CXL";
    for (const Numbered& region : list_numbered(system, bus_dir, "region")) {
      for (const DaxDevice& d : dax) {
        if (!d.used_as_memory ||
            !system.exists(fmt::format("{}/{}/{}", bus_dir, region.name, d.name)))
          continue;
        for (Node& node : topology.nodes) {
          if (node.id != d.target || node.kind != MemoryKind::kUnknown) continue;
          set_kind(node, cxl ? MemoryKind::kCxl : MemoryKind::kPmem,
                   fmt::format("{} of {}", d.name, cxl ? "persistent CXL memory" : "an NVDIMM"));
          node.devices.push_back(d.name);
        }
      }
    }
  }
  return {};
}

/// What no device tells is inferred, and kind_why says so.
void infer_kinds(const std::vector<DaxDevice>& dax, Topology& topology) {
  const Node* dram = nullptr;
  for (Node& node : topology.nodes) {
    if (node.kind != MemoryKind::kUnknown || !node.online || !node.has_memory) continue;
    if (node.cpus.empty()) continue;
    set_kind(node, MemoryKind::kDram, "has CPUs");
    if (dram == nullptr && node.performance) dram = &node;
  }
  for (Node& node : topology.nodes) {
    if (node.kind != MemoryKind::kUnknown || !node.online || !node.has_memory) continue;
    node.kind_why = "no CPUs, and no device tells what it is";
    for (const DaxDevice& d : dax) {
      if (d.target != node.id || !d.used_as_memory) continue;
      node.kind_why = fmt::format("{}, which is of no CXL region and no NVDIMM", d.name);
      node.devices.push_back(d.name);
    }
    if (dram == nullptr || !node.performance) continue;
    const auto own = node.performance->read_bandwidth;
    const auto other = dram->performance->read_bandwidth;
    // Stacked memory is the only kind that has more bandwidth than the DIMMs beside it.
    if (own && other && own->get() >= other->get() * 3 / 2)
      set_kind(node, MemoryKind::kHbm,
               fmt::format("inferred: no CPUs, {} MB/s against {} MB/s of node {}", own->get(),
                           other->get(), dram->id.get()));
  }
}

/// A kernel or a container may show one of the two wrongly: then sizes here are not to be trusted.
Status compare_total(const System& system, Topology& topology) {
  TC_ASSIGN(const auto total, read_total_memory(system));
  if (!total) return {};
  Bytes sum;
  for (const Node& node : topology.nodes) sum += node.total;
  const std::uint64_t off = sum > *total ? sum.get() - total->get() : total->get() - sum.get();
  if (off > total->get() / 20)
    topology.notes.push_back(
        fmt::format("the nodes have {} together, but /proc/meminfo says {}: one of them is wrong",
                    format_bytes(sum), format_bytes(*total)));
  return {};
}

Status read_allowed(const System& system, Topology& topology) {
  TC_ASSIGN(const auto allowed, system.allowed_nodes());
  std::vector<std::uint32_t> restricted;
  for (Node& node : topology.nodes) {
    node.allowed = contains(allowed, node.id);
    if (node.online && node.has_memory && !node.allowed)
      restricted.push_back(static_cast<std::uint32_t>(node.id.get()));
  }
  if (restricted.empty()) return {};
  std::string group;
  TC_ASSIGN(const auto membership, read_optional(system, "/proc/self/cgroup"));
  const std::string lines = membership.value_or("");
  for (const std::string_view line : split(lines, '\n')) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const auto names = split(controllers, ',');
    if (controllers.empty() || std::find(names.begin(), names.end(), "cpuset") != names.end())
      group = fmt::format(" of cgroup {}", line.substr(second + 1));
  }
  topology.notes.push_back(fmt::format("the cpuset{} keeps this process off {} {}: not used", group,
                                       restricted.size() == 1 ? "node" : "nodes",
                                       format_list(restricted)));
  return {};
}

}  // namespace

Result<Topology> discover(const System& system, std::span<const TierDeclaration> declared) {
  TC_TRY(check_is_a_machine(system));
  const std::string dir(kNodeDir);
  TC_ASSIGN(const auto online, read_nodes(system, dir + "/online"));
  TC_ASSIGN(const auto with_memory, read_nodes(system, dir + "/has_memory"));
  // "possible" counts the nodes that memory may yet be plugged into.
  TC_ASSIGN(auto possible, read_nodes(system, dir + "/possible"));
  possible.insert(possible.end(), online.begin(), online.end());
  std::sort(possible.begin(), possible.end());
  possible.erase(std::unique(possible.begin(), possible.end()), possible.end());

  Topology topology;
  for (const NodeId id : possible) {
    Node node;
    node.id = id;
    node.online = contains(online, id);
    node.has_memory = node.online && contains(with_memory, id);
    if (node.online) TC_TRY(read_node(system, online, node));
    topology.nodes.push_back(std::move(node));
  }
  TC_TRY(read_zones(system, topology.nodes));
  TC_TRY(compare_total(system, topology));
  TC_TRY(read_allowed(system, topology));
  TC_TRY(read_kernel_tiers(system, topology));
  TC_ASSIGN(const auto dax, read_dax(system));
  TC_TRY(find_cxl(system, dax, topology));
  TC_TRY(find_pmem(system, dax, topology));
  infer_kinds(dax, topology);
  add_locality(system, topology.nodes);

  TC_ASSIGN(const auto demotion, read_optional(system, "/sys/kernel/mm/numa/demotion_enabled"));
  if (demotion) topology.kernel_demotion = *demotion == "true" || *demotion == "1";
  if (topology.kernel_demotion.value_or(false))
    topology.notes.push_back(
        "the kernel demotes pages by itself too (/sys/kernel/mm/numa/demotion_enabled is on)");

  const auto stand_in = read_stand_in(system);
  if (!stand_in) topology.notes.push_back(stand_in.error().message);
  TC_TRY(order_tiers(topology, declared, stand_in.value_or(std::nullopt)));
  return topology;
}

}  // namespace thermocline
