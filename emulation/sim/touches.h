// SPDX-License-Identifier: Apache-2.0
// Which pages of a window were touched, drawn from their rates: a counter-based generator, so that
// a page and a window give the same bit whenever and wherever they are asked. Vector forms give the
// same bits as the scalar one. Knows no machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace thermocline::sim {

/// Pages of a class are touched alike.
inline constexpr std::size_t kClasses = 256;
/// Chance of being touched in units of 2^-32, at most kAlways.
using Chances = std::array<std::uint32_t, kClasses>;
inline constexpr std::uint32_t kAlways = 0xffffffff;

/// A probability, 0..1, in these units.
[[nodiscard]] std::uint32_t chance_of(double probability);

/// What lots are drawn with: of a seed and a window.
struct LotKey {
  std::uint32_t a = 0, b = 0;
};
[[nodiscard]] LotKey lot_key(std::uint64_t seed, std::uint64_t window);

/// Bit i of words[w]: page first + 64 * w + i was touched, classes[64 * w + i] being its class. The
/// bits past `pages` of the last word are 0. `first` is a multiple of 4.
void draw_touches(const std::uint8_t* classes, std::uint32_t first, std::size_t pages, LotKey key,
                  const Chances& chances, std::uint64_t* words);

/// The same by the reference, for tests.
void draw_touches_scalar(const std::uint8_t* classes, std::uint32_t first, std::size_t pages,
                         LotKey key, const Chances& chances, std::uint64_t* words);

}  // namespace thermocline::sim
