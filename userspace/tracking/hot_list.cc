// SPDX-License-Identifier: Apache-2.0
#include "tracking/hot_list.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/text.h"

namespace thermocline {

namespace {

/// Physical addresses have at most 52 bits.
constexpr std::uint64_t kEnd = std::uint64_t{1} << 52;

}  // namespace

std::vector<std::uint64_t> HotList::hot_frames() const {
  std::vector<std::uint64_t> result;
  for (const Unit& unit : hot) {
    const std::uint64_t frame = first_frame + unit.number * unit_size.get() / kPageSize;
    if (result.empty() || result.back() != frame) result.push_back(frame);
  }
  return result;
}

Result<HotList> parse_hot_list(std::string_view text) {
  std::size_t number = 0;
  const auto wrong = [&](std::string_view what) {
    return fail(ErrorKind::kCorrupt, "line {} of the hot list: {}", number, what);
  };
  constexpr std::array<std::string_view, 7> kKeys{
      "thermocline-hot-list", "epoch", "unit_bytes", "base", "units", "threshold", "overflow"};
  std::array<std::uint64_t, kKeys.size()> values{};
  const auto& [version, epoch, unit_bytes, base, units, threshold, overflow] = values;
  HotList list;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const auto fields = words(line);
    const std::size_t key = number++;
    const bool header = key < kKeys.size();
    if (fields.size() != (header ? 2u : 3u) || fields[0] != (header ? kKeys[key] : "hot"))
      return wrong(header ? fmt::format("wants \"{} NUMBER\"", kKeys[key])
                          : std::string("wants \"hot UNIT COUNT\""));
    const auto first = parse_u64(fields[1]);
    const auto second = header ? first : parse_u64(fields[2]);
    if (!first || !second) return wrong("that is not a number");
    if (header) {
      values[key] = *first;
      if (version != 1) return wrong("only version 1 is known");
      continue;
    }
    if (*first >= units) return wrong("the device has no such unit");
    if (*second < threshold) return wrong("a count below the threshold");
    list.hot.push_back({*first, *second});
  }
  if (number < kKeys.size()) return wrong("it ends before its header does");
  if (unit_bytes < 256 || unit_bytes > kPageSize || !std::has_single_bit(unit_bytes))
    return wrong("unit_bytes wants a power of two from 256 to 4096");
  if (base % kPageSize != 0 || base >= kEnd || units == 0 || units > (kEnd - base) / unit_bytes ||
      units * unit_bytes % kPageSize != 0)
    return wrong("base and units don't tell whole pages of memory");
  if (threshold == 0 || overflow > 1) return wrong("threshold wants 1 or more, overflow 0 or 1");
  list.epoch = epoch;
  list.unit_size = Bytes(unit_bytes);
  list.first_frame = base / kPageSize;
  list.frames = units * unit_bytes / kPageSize;
  list.threshold = threshold;
  list.overflow = overflow == 1;
  std::sort(list.hot.begin(), list.hot.end(),
            [](const HotList::Unit& a, const HotList::Unit& b) { return a.number < b.number; });
  if (std::adjacent_find(list.hot.begin(), list.hot.end(),
                         [](const HotList::Unit& a, const HotList::Unit& b) {
                           return a.number == b.number;
                         }) != list.hot.end())
    return wrong("a unit is listed twice");
  return list;
}

}  // namespace thermocline
