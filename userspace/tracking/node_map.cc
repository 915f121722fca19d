// SPDX-License-Identifier: Apache-2.0
#include "tracking/node_map.h"

#include <algorithm>
#include <limits>

#include "base/text.h"

namespace thermocline {

namespace {

constexpr std::string_view kNodes = "/sys/devices/system/node";
/// Page frames have at most 40 bits (52-bit physical addresses): a larger number is not one.
constexpr std::uint64_t kMaxPfn = std::uint64_t{1} << 40;

std::optional<std::uint64_t> number_after(std::string_view text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return std::nullopt;
  const auto number = parse_u64(text.substr(prefix.size()));
  return number ? std::optional(*number) : std::nullopt;
}

std::optional<NodeId> node_number(std::uint64_t number) {
  if (number > std::numeric_limits<std::int16_t>::max()) return std::nullopt;
  return NodeId(static_cast<std::int32_t>(number));
}

std::vector<NodeMap::Range> from_memory_blocks(const System& system) {
  std::vector<NodeMap::Range> ranges;
  const auto size_text = system.read_file("/sys/devices/system/memory/block_size_bytes");
  const auto nodes = system.list_dir(std::string(kNodes));
  if (!size_text || !nodes) return ranges;
  const auto bytes = parse_u64(trim(*size_text), 16);
  if (!bytes || *bytes < kPageSize || *bytes / kPageSize > kMaxPfn) return ranges;
  const std::uint64_t pages = *bytes / kPageSize;
  for (const std::string& name : *nodes) {
    const auto number = number_after(name, "node");
    const auto node = number ? node_number(*number) : std::nullopt;
    const auto entries = system.list_dir(fmt::format("{}/{}", kNodes, name));
    if (!node || !entries) continue;
    for (const std::string& entry : *entries)
      if (const auto block = number_after(entry, "memory"); block && *block < kMaxPfn / pages)
        ranges.push_back({*block * pages, (*block + 1) * pages, *node});
  }
  return ranges;
}

std::vector<NodeMap::Range> from_zones(const System& system) {
  std::vector<NodeMap::Range> ranges;
  const auto text = system.read_file("/proc/zoneinfo");
  if (!text) return ranges;
  std::optional<NodeId> node;
  std::uint64_t spanned = 0;
  for (const std::string_view line : split(*text, '\n')) {
    const auto parts = words(line);
    if (parts.size() == 4 && parts[0] == "Node" && parts[2] == "zone") {
      const auto number = parse_u64(parts[1].substr(0, parts[1].find(',')));
      node = number ? node_number(*number) : std::nullopt;
      spanned = 0;
    } else if (parts.size() == 2 && parts[0] == "spanned") {
      spanned = parse_u64(parts[1]).value_or(0);
    } else if (parts.size() == 2 && parts[0] == "start_pfn:") {
      const std::uint64_t first = parse_u64(parts[1]).value_or(kMaxPfn);
      if (node && spanned > 0 && first < kMaxPfn && spanned <= kMaxPfn - first)
        ranges.push_back({first, first + spanned, *node});
    }
  }
  return ranges;
}

}  // namespace

Result<NodeMap> NodeMap::read(const System& system) {
  std::vector<Range> ranges = from_memory_blocks(system);
  if (ranges.empty()) ranges = from_zones(system);
  if (ranges.empty())
    return fail(ErrorKind::kUnsupported,
                "neither {}/nodeN/memoryN nor /proc/zoneinfo tells which memory belongs to which "
                "node",
                kNodes);
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.first < b.first; });
  NodeMap map;
  for (const Range& range : ranges) {
    if (!map.ranges_.empty()) {
      Range& last = map.ranges_.back();
      if (range.first < last.end && range.node != last.node)
        return fail(ErrorKind::kUnsupported,
                    "the memory of nodes {} and {} overlaps, so pages can't be told apart",
                    last.node.get(), range.node.get());
      if (range.first <= last.end && range.node == last.node) {
        last.end = std::max(last.end, range.end);
        continue;
      }
    }
    map.ranges_.push_back(range);
  }
  return map;
}

const NodeMap::Range* NodeMap::find(std::uint64_t pfn) const {
  const auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), pfn,
                       [](std::uint64_t p, const Range& range) { return p < range.first; });
  if (after == ranges_.begin()) return nullptr;
  const Range& range = *std::prev(after);
  return pfn < range.end ? &range : nullptr;
}

}  // namespace thermocline
