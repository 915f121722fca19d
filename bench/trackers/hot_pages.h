// SPDX-License-Identifier: Apache-2.0
// Which pages count as hot for somebody who has room for so many. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace thermocline::trackers {

/// Pages that have a heat or more, of which there are as near to `room` as can be, and no more than
/// a twentieth above it; one that isn't told apart from too many others is not hot, and nor is one
/// of no heat.
///
/// Worked example: room 100, 90 pages of heat 60 and 12 of heat 59: 102 are hot. With 20 of heat
/// 59, 90 are; with 4 of them and 15 of heat 58, 94 are.
[[nodiscard]] inline std::vector<bool> hot_pages(std::span<const std::uint8_t> heat,
                                                 std::uint64_t room) {
  std::array<std::uint64_t, 256> of_heat{};
  for (const std::uint8_t h : heat) ++of_heat[h];
  unsigned edge = 256;
  std::uint64_t nearest = room, count = 0;
  for (unsigned h = 255; h > 0; --h) {
    count += of_heat[h];
    if (count > room + room / 20) break;
    const std::uint64_t away = count > room ? count - room : room - count;
    if (away >= nearest) continue;
    nearest = away;
    edge = h;
  }
  std::vector<bool> hot(heat.size());
  for (std::size_t i = 0; i < heat.size(); ++i) hot[i] = heat[i] >= edge;
  return hot;
}

}  // namespace thermocline::trackers
