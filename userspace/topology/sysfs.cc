// SPDX-License-Identifier: Apache-2.0
#include "topology/sysfs.h"

#include <algorithm>

#include "base/text.h"

namespace thermocline {

namespace {

// MAX_NUMNODES of the largest x86-64 configuration.
constexpr std::uint32_t kMostNodes = 1024;
// No machine has more memory in one node; keeps every sum far from overflow.
constexpr std::uint64_t kMostKilobytes = std::uint64_t{1} << 42;

tl::unexpected<Error> corrupt(const std::string& path, std::string_view detail) {
  return fail(ErrorKind::kCorrupt, "{} is not as the kernel writes it: {}", path, detail);
}

/// The number after `key` in a line such as "Node 0 MemTotal:   917016 kB".
std::optional<Bytes> kilobytes(std::string_view line, std::string_view key) {
  const auto parts = words(line);
  const std::size_t n = parts.size();
  if (n < 3 || parts[n - 3] != key || parts[n - 1] != "kB") return std::nullopt;
  const auto value = parse_u64(parts[n - 2]);
  if (!value || *value > kMostKilobytes) return std::nullopt;
  return Bytes(*value << 10);
}

}  // namespace

Result<std::optional<std::string>> read_optional(const System& system, const std::string& path) {
  auto text = system.read_file(path);
  if (text) return std::string(trim(*text));
  if (text.error().kind == ErrorKind::kNotFound || text.error().kind == ErrorKind::kPermission)
    return std::nullopt;
  return tl::make_unexpected(std::move(text).error());
}

std::vector<Numbered> list_numbered(const System& system, const std::string& dir,
                                    std::string_view prefix) {
  std::vector<Numbered> result;
  for (std::string& name : list_names(system, dir, prefix)) {
    const auto number = parse_u64(std::string_view(name).substr(prefix.size()));
    if (number && *number <= std::numeric_limits<std::uint32_t>::max())
      result.push_back({static_cast<std::uint32_t>(*number), std::move(name)});
  }
  std::sort(result.begin(), result.end(),
            [](const Numbered& a, const Numbered& b) { return a.number < b.number; });
  return result;
}

std::vector<std::string> list_names(const System& system, const std::string& dir,
                                    std::string_view prefix) {
  auto names = system.list_dir(dir);
  if (!names) return {};
  std::erase_if(*names, [&](const std::string& name) { return !name.starts_with(prefix); });
  return std::move(*names);
}

Result<std::vector<NodeId>> read_nodes(const System& system, const std::string& path) {
  TC_ASSIGN(const std::string text, system.read_file(path));
  const auto list = parse_list(text);
  if (!list) return corrupt(path, list.error().message);
  if (!list->empty() && list->back() >= kMostNodes)
    return corrupt(path,
                   fmt::format("node {} is beyond the largest, {}", list->back(), kMostNodes - 1));
  std::vector<NodeId> nodes;
  for (const std::uint32_t node : *list) nodes.emplace_back(static_cast<std::int32_t>(node));
  return nodes;
}

Result<std::optional<std::uint64_t>> read_number(const System& system, const std::string& path) {
  TC_ASSIGN(const auto text, read_optional(system, path));
  if (!text) return std::nullopt;
  const bool hex = text->starts_with("0x");
  const auto number = hex ? parse_u64(std::string_view(*text).substr(2), 16) : parse_u64(*text);
  if (!number) return corrupt(path, number.error().message);
  return *number;
}

Status read_meminfo(const System& system, Node& node) {
  const std::string path = fmt::format("{}/node{}/meminfo", kNodeDir, node.id.get());
  TC_ASSIGN(const std::string text, system.read_file(path));
  std::optional<Bytes> total, free;
  for (const std::string_view line : split(text, '\n')) {
    if (!total) total = kilobytes(line, "MemTotal:");
    if (!free) free = kilobytes(line, "MemFree:");
  }
  if (!total || !free) return corrupt(path, "it has no MemTotal and MemFree in kB");
  node.total = *total;
  node.free = *free;
  return {};
}

Result<std::optional<Bytes>> read_total_memory(const System& system) {
  TC_ASSIGN(const auto text, read_optional(system, "/proc/meminfo"));
  if (text)
    for (const std::string_view line : split(*text, '\n'))
      if (const auto total = kilobytes(line, "MemTotal:")) return total;
  return std::nullopt;
}

Status read_zones(const System& system, std::span<Node> nodes) {
  const std::string path = "/proc/zoneinfo";
  TC_ASSIGN(const auto text, read_optional(system, path));
  if (!text) return {};
  for (Node& n : nodes) {
    n.watermarks = {};
    n.cpu_lists = {};
    n.reserved = {};
  }
  Node* node = nullptr;
  PageCount zone_free;
  for (const std::string_view line : split(*text, '\n')) {
    const auto parts = words(line);
    if (parts.size() == 3 && parts[0] == "pages" && parts[1] == "free") {
      const auto pages = parse_u64(parts[2]);
      if (!pages || *pages > kMostKilobytes) return corrupt(path, line);
      zone_free = PageCount(*pages);
      continue;
    }
    if (node != nullptr && parts.size() >= 2 && parts[0] == "protection:") {
      // "(0, 445, 445)": what a request for that zone or a higher one leaves alone here.
      std::string_view last = parts.back();
      if (last.ends_with(')')) last.remove_suffix(1);
      if (last.starts_with('(')) last.remove_prefix(1);
      const auto pages = parse_u64(last);
      if (!pages || *pages > kMostKilobytes) return corrupt(path, line);
      node->reserved += std::min(zone_free, PageCount(*pages));
      continue;
    }
    if (parts.size() == 4 && parts[0] == "Node" && parts[2] == "zone") {
      const auto number = parse_u64(parts[1].substr(0, parts[1].find(',')));
      if (!number) return corrupt(path, line);
      const auto at = std::find_if(nodes.begin(), nodes.end(), [&](const Node& n) {
        return static_cast<std::uint64_t>(n.id.get()) == *number;
      });
      node = at == nodes.end() ? nullptr : &*at;
      continue;
    }
    if (node == nullptr || parts.size() != 2) continue;
    PageCount* const sum = parts[0] == "min"      ? &node->watermarks.min
                           : parts[0] == "low"    ? &node->watermarks.low
                           : parts[0] == "high"   ? &node->watermarks.high
                           : parts[0] == "count:" ? &node->cpu_lists
                                                  : nullptr;
    if (sum == nullptr) continue;
    const auto pages = parse_u64(parts[1]);
    if (!pages || *pages > kMostKilobytes) return corrupt(path, line);
    *sum += PageCount(*pages);
  }
  return {};
}

}  // namespace thermocline
