// SPDX-License-Identifier: Apache-2.0
#include "topology/locality.h"

#include <hwloc.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>

namespace thermocline {

namespace {

struct Destroy {
  void operator()(hwloc_topology* topology) const { hwloc_topology_destroy(topology); }
};
using Loaded = std::unique_ptr<hwloc_topology, Destroy>;

/// hwloc takes another root from the environment only. Captured trees are read by commands and
/// tests, which have one thread here; the daemon reads the real machine and never gets here.
class FsRoot {
 public:
  explicit FsRoot(const std::string& root) : set_(!root.empty()) {
    if (set_) ::setenv("HWLOC_FSROOT", root.c_str(), 1);
  }
  ~FsRoot() {
    if (set_) ::unsetenv("HWLOC_FSROOT");
  }
  FsRoot(const FsRoot&) = delete;
  FsRoot& operator=(const FsRoot&) = delete;

 private:
  bool set_;
};

Loaded load() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return nullptr;
  Loaded topology(raw);
  // Nodes and CPUs that a cgroup hides are shown as restricted, not left out.
  hwloc_topology_set_flags(raw, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  hwloc_topology_set_all_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_NONE);
  hwloc_topology_set_type_filter(raw, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL);
  if (hwloc_topology_load(raw) != 0) return nullptr;
  return topology;
}

/// CPUs of the nodes with CPUs that are nearest by distance: the best guess without HMAT.
std::vector<CpuId> nearest_cpus(const Node& node, const std::vector<Node>& nodes) {
  std::uint32_t best = std::numeric_limits<std::uint32_t>::max();
  std::vector<CpuId> cpus;
  for (const Node& other : nodes) {
    const auto distance = node.distance_to(other.id);
    if (other.cpus.empty() || !distance || *distance > best) continue;
    if (*distance < best) cpus.clear();
    best = *distance;
    cpus.insert(cpus.end(), other.cpus.begin(), other.cpus.end());
  }
  std::sort(cpus.begin(), cpus.end());
  return cpus;
}

}  // namespace

void add_locality(const System& system, std::vector<Node>& nodes) {
  const auto root = system.root();
  if (!root) return;
  // Without this folder hwloc prints a complaint of its own on stderr.
  if (!system.exists("/sys/devices/system/cpu")) return;
  const FsRoot fs_root(*root);
  const Loaded topology = load();
  if (!topology) return;
  for (Node& node : nodes) {
    if (!node.online) continue;
    const hwloc_obj_t object =
        hwloc_get_numanode_obj_by_os_index(topology.get(), static_cast<unsigned>(node.id.get()));
    if (object == nullptr) continue;
    // hwloc puts a node without CPUs beside its HMAT initiators; without HMAT it has no CPUs there.
    if (node.cpus.empty())
      for (int cpu = hwloc_bitmap_first(object->cpuset); cpu >= 0;
           cpu = hwloc_bitmap_next(object->cpuset, cpu))
        node.local_cpus.emplace_back(static_cast<std::uint32_t>(cpu));
    if (node.local_cpus.empty()) node.local_cpus = nearest_cpus(node, nodes);
    hwloc_obj_t package = nullptr;
    while ((package = hwloc_get_next_obj_by_type(topology.get(), HWLOC_OBJ_PACKAGE, package)) !=
           nullptr) {
      const bool shared = std::any_of(
          node.local_cpus.begin(), node.local_cpus.end(),
          [&](CpuId cpu) { return hwloc_bitmap_isset(package->cpuset, cpu.get()) != 0; });
      if (shared && package->os_index != HWLOC_UNKNOWN_INDEX)
        node.packages.push_back(package->os_index);
    }
    std::sort(node.packages.begin(), node.packages.end());
  }
}

}  // namespace thermocline
