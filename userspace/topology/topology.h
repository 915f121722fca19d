// SPDX-License-Identifier: Apache-2.0
// What memory this machine has and how fast it is: NUMA nodes, and the tiers they form.
//
// discover() reads sysfs and /proc through System, asks hwloc for packages and local CPUs, and puts
// the nodes that may be used into ordered tiers. What is found wins in this order:
//   1. a declaration (the configuration), checked against the machine;
//   2. a node that stands in for slow memory (`thermocline emulate numa-remote`);
//   3. the kernel's memory tiers, when they part the usable nodes;
//   4. HMAT latency and bandwidth, by the formula that kernels from 6.7 on use themselves;
//   5. nodes without CPUs, by distance from the nearest node with CPUs.
// Topology::why says which it was and why the ones before it didn't do.
//
// Called by the daemon, the CLI and the benchmarks. Never writes to the machine.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"

namespace thermocline {

/// CPU as the kernel numbers it.
using CpuId = Id<struct CpuIdTag, std::uint32_t>;
/// Bandwidth in MB/s as firmware (HMAT, CDAT) declares it and the kernel passes it on.
using MegabytesPerSecond = Quantity<struct MegabytesPerSecondTag>;

/// What a node's memory is made of. Firmware rarely says; Node::kind_why tells how it was known.
enum class MemoryKind : std::uint8_t { kUnknown, kDram, kHbm, kCxl, kPmem };
[[nodiscard]] std::string_view to_string(MemoryKind kind);

/// Speed of a node's memory from its nearest initiator. Declared by firmware, never measured.
struct Performance {
  std::optional<Nanoseconds> read_latency, write_latency;
  std::optional<MegabytesPerSecond> read_bandwidth, write_bandwidth;
  std::string source;              ///< "access1" (nearest CPU) or "access0" (nearest initiator)
  std::vector<NodeId> initiators;  ///< the nodes these figures hold for, ascending
};

/// Free pages below which the kernel reclaims, summed over the node's zones (/proc/zoneinfo).
/// kswapd starts below `low` and works until `high`; allocations stall below `min`.
struct Watermarks {
  PageCount min, low, high;
};

struct Distance {
  NodeId to;
  std::uint32_t value = 0;  ///< SLIT: 10 is local, 20 twice as far; no unit
};

struct Node {
  NodeId id;
  bool online = false;
  bool has_memory = false;
  bool allowed = false;           ///< the cpuset of this process lets it use the node
  std::vector<CpuId> cpus;        ///< of the node itself, ascending; empty for CXL memory
  std::vector<CpuId> local_cpus;  ///< nearest to the memory (hwloc); = cpus when there are any
  std::vector<std::uint32_t> packages;  ///< physical packages of local_cpus (hwloc), ascending
  Bytes total, free;
  std::vector<Distance> distances;  ///< to each online node, ascending by node
  std::optional<Performance> performance;
  std::optional<std::uint32_t> kernel_tier;  ///< N of the kernel's memory_tierN
  MemoryKind kind = MemoryKind::kUnknown;
  std::string kind_why;              ///< half a sentence: "has CPUs", "memory of dax0.0 in region0"
  std::vector<std::string> devices;  ///< CXL regions and DAX devices behind it: "region0", "dax0.0"
  Watermarks watermarks;
  /// Free pages that CPUs hold on lists of their own. Not in `free`, but an allocation gets them;
  /// what is freed, demoted pages too, goes there first.
  PageCount cpu_lists;
  /// Part of `free` that ordinary memory never comes from: low zones keep it for devices that reach
  /// no further (lowmem_reserve_ratio). Megabytes, which count on a small node only.
  PageCount reserved;

  /// Has memory that this process may use: only such nodes are in a tier.
  [[nodiscard]] bool usable() const { return online && has_memory && allowed; }
  [[nodiscard]] std::optional<std::uint32_t> distance_to(NodeId to) const;
};

/// How the order of the tiers was found.
enum class TierSource : std::uint8_t {
  kSingleNode,
  kNothing,
  kKernel,
  kHmat,
  kDistance,
  kConfig,
  kStandIn
};
[[nodiscard]] std::string_view to_string(TierSource source);

struct Tier {
  TierId id;
  std::string name;           ///< declared, or "fast", "slow"; three: "fast", "middle", "slow"
  std::vector<NodeId> nodes;  ///< ascending; at least one
  Bytes total, free;
};

/// A tier declared in the configuration; the first one declared is the fastest.
struct TierDeclaration {
  std::string name;
  std::vector<NodeId> nodes;
};

struct Topology {
  std::vector<Node> nodes;  ///< every possible node, ascending, offline ones too
  std::vector<Tier> tiers;  ///< fastest first, at least one
  TierSource source = TierSource::kNothing;
  std::string why;                      ///< one or two sentences for a person
  std::vector<std::string> notes;       ///< things to know: restricted nodes, doubtful kernel tiers
  std::optional<bool> kernel_demotion;  ///< /sys/kernel/mm/numa/demotion_enabled

  [[nodiscard]] const Node* find(NodeId id) const;
  /// kNoTier for a node in no tier.
  [[nodiscard]] TierId tier_of(NodeId id) const;
  /// Nodes of tier `in`, nearest to `from` first (distance, then who the firmware says is local,
  /// then number): where a mover should take a page of `from` to. Empty for an unknown tier.
  [[nodiscard]] std::vector<NodeId> nearest(NodeId from, TierId in) const;
  /// Re-reads size and free memory of the usable nodes (one small file each) and sums the tiers.
  /// Fails with kNotFound when a node has gone: discover() again.
  [[nodiscard]] Status refresh_free(const System& system);
  /// Re-reads watermarks and cpu_lists: one file, some lines for each CPU and zone.
  [[nodiscard]] Status refresh_zones(const System& system);
};

/// Fails with kUnsupported (no NUMA in this kernel), kNotFound (no sysfs there), kCorrupt (a file
/// that doesn't follow its format, named), kFailure (no usable memory), or kUsage for a declaration
/// that names an unknown, offline, restricted or memory-less node, a node twice, or two tiers
/// alike.
[[nodiscard]] Result<Topology> discover(const System& system,
                                        std::span<const TierDeclaration> declared = {});

}  // namespace thermocline
