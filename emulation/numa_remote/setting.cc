// SPDX-License-Identifier: Apache-2.0
#include "emulation/numa_remote/setting.h"

#include <algorithm>
#include <tuple>

#include "emulation/numa_remote/kernel_files.h"

namespace thermocline::numa_remote {

namespace {

/// The node that was asked for, if it is one of `nodes`.
Result<const Node*> asked(const char* option, NodeId id, const std::vector<const Node*>& nodes,
                          const char* which) {
  std::vector<NodeId> ids;
  for (const Node* node : nodes) {
    if (node->id == id) return node;
    ids.push_back(node->id);
  }
  return fail(ErrorKind::kUsage, "{} {}: the nodes {} here are {}", option, id.get(), which,
              list_of(ids));
}

}  // namespace

Result<Setting> choose(const Topology& topology, std::span<const CpuId> allowed,
                       std::optional<NodeId> slow, std::optional<NodeId> fast) {
  std::vector<const Node*> with_memory;
  std::vector<const Node*> with_both;
  for (const Node& node : topology.nodes) {
    if (!node.usable()) continue;
    with_memory.push_back(&node);
    if (!node.cpus.empty()) with_both.push_back(&node);
  }
  if (with_memory.size() < 2)
    return fail(
        ErrorKind::kUnsupported,
        "this machine has memory on one node only, so no other socket's can stand in for slow "
        "memory; works here: `thermocline lab run --timing cxl-asic -- CMD` (a guest whose clock "
        "follows a model of CXL memory), `thermocline lab calibrate --timing cxl-asic`, and "
        "`thermocline lab run --topology two-socket --smp 4 --timing cxl-asic --timing-mode "
        "parallel "
        "-- thermocline emulate numa-remote -- CMD`");

  const Node* fast_node = nullptr;
  if (fast) {
    TC_ASSIGN(fast_node, asked("--fast-node", *fast, with_both, "with CPUs and memory"));
  }
  const Node* slow_node = nullptr;
  if (slow) {
    TC_ASSIGN(slow_node, asked("--slow-node", *slow, with_memory, "with memory"));
  }
  if (fast_node == nullptr)
    for (const Node* node : with_both) {
      if (node == slow_node) continue;
      // Halves of one socket are near each other: the farthest is on another.
      if (fast_node == nullptr ||
          (slow_node != nullptr && node->distance_to(slow_node->id).value_or(0) >
                                       fast_node->distance_to(slow_node->id).value_or(0)))
        fast_node = node;
    }
  if (fast_node == nullptr)
    return fail(ErrorKind::kUsage,
                "no node but {} has both CPUs and memory, so nothing can be the fast tier",
                slow ? std::to_string(slow->get()) : "the slow one");
  if (slow_node == nullptr) {
    const auto rank = [&](const Node* node) {
      return std::make_tuple(!node->cpus.empty(), fast_node->distance_to(node->id).value_or(0),
                             node->id);
    };
    for (const Node* node : with_memory)
      if (node != fast_node && (slow_node == nullptr || rank(node) > rank(slow_node)))
        slow_node = node;
  }
  if (slow_node == fast_node)
    return fail(ErrorKind::kUsage, "node {} can't be both the fast and the slow one",
                fast_node->id.get());

  Setting out{fast_node->id, slow_node->id, {}, {}, {}};
  for (const CpuId cpu : fast_node->cpus)
    if (std::find(allowed.begin(), allowed.end(), cpu) != allowed.end()) out.cpus.push_back(cpu);
  if (out.cpus.empty())
    return fail(ErrorKind::kUsage,
                "this process may use none of the CPUs of node {}: start it with another affinity, "
                "or name another node with --fast-node",
                fast_node->id.get());
  for (const Node* node : with_memory)
    if (node != fast_node && node != slow_node) out.left_out.push_back(node->id);
  if (!out.left_out.empty())
    out.notes.push_back(fmt::format("memory of nodes {} is left out", list_of(out.left_out)));
  if (slow_node->cpus.empty())
    out.notes.push_back(
        fmt::format("node {} has no CPUs: it is slow memory by itself, not a stand-in for some",
                    slow_node->id.get()));
  return out;
}

}  // namespace thermocline::numa_remote
