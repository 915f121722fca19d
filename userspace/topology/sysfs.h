// SPDX-License-Identifier: Apache-2.0
// Reads and checks single files of /sys and /proc. Whatever a file holds, the answer is a value or
// an Error that names the file. Internal to this layer.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "topology/topology.h"

namespace thermocline {

inline constexpr std::string_view kNodeDir = "/sys/devices/system/node";

/// Trimmed content, or nothing when the file isn't there or may not be read by this user.
[[nodiscard]] Result<std::optional<std::string>> read_optional(const System& system,
                                                               const std::string& path);
/// Names in a directory that are `prefix` + a number, by number; none when there is no directory.
struct Numbered {
  std::uint32_t number = 0;
  std::string name;
};
[[nodiscard]] std::vector<Numbered> list_numbered(const System& system, const std::string& dir,
                                                  std::string_view prefix);
/// Names that begin with `prefix`; none when there is no directory.
[[nodiscard]] std::vector<std::string> list_names(const System& system, const std::string& dir,
                                                  std::string_view prefix);

/// A kernel list ("0-3,8") of nodes; fails with kCorrupt, or as read_file() does.
[[nodiscard]] Result<std::vector<NodeId>> read_nodes(const System& system, const std::string& path);
/// A whole number, decimal or 0x...; nothing when the file isn't there.
[[nodiscard]] Result<std::optional<std::uint64_t>> read_number(const System& system,
                                                               const std::string& path);

/// Fills total and free from nodeN/meminfo.
[[nodiscard]] Status read_meminfo(const System& system, Node& node);
/// MemTotal of /proc/meminfo; nothing when it isn't told.
[[nodiscard]] Result<std::optional<Bytes>> read_total_memory(const System& system);
/// Sums min, low, high, lowmem reserve and the pages on the CPUs' own lists of /proc/zoneinfo over
/// the zones of each of `nodes`.
[[nodiscard]] Status read_zones(const System& system, std::span<Node> nodes);

}  // namespace thermocline
