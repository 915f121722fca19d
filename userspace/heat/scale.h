// SPDX-License-Identifier: Apache-2.0
// The scale of heat: what a touched window adds, how heat ages, and how far apart two heats must be
// to mean anything.
//
// Evidence. The windows of an epoch in which a page was touched add kWindowSum to its heat if they
// are all of them, a share of it otherwise.
//
// Ageing, once an epoch, after its windows and before the decision. A page that is touched in many
// windows tells in one epoch what it is; one that is touched in one window out of a hundred needs
// many epochs to tell. So memory is as long as evidence is thin:
//   aged(x) = min(x * 15/16, x / 2 + 30)
// Below 68 heat loses a sixteenth an epoch (a memory of 16 epochs), above it half of what it has
// over 60 (a half-life of one epoch). The sixteenth is taken with a dither that runs through
// 0..15 over the epochs, so that heat of a few units decays at its rate, too.
//
// Steady state, as seen at a decision, of a page touched in the share p of the windows:
//   p <= 1/16: 15 * 68 * p        (1 % of the windows: 10, 5 %: 51)
//   p >= 1/16: 60 + 68 * p        (10 %: 66, 25 %: 77, half: 94, all: 127)
//
// Sources: frequency that is halved with time is the cooling of MEMTIS (SOSP'23) and HeMem
// (SOSP'21); the memory that grows as evidence thins is ours.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace thermocline {

/// What touches in all windows of an epoch add to a page's heat.
inline constexpr unsigned kWindowSum = 68;
/// Heat of a page that is touched in every window, at a decision; ageing leaves no more.
inline constexpr unsigned kAlwaysHot = 127;
/// Heat of a page that is touched in one window of sixteen: memory is long below it.
inline constexpr unsigned kLongMemory = 64;
inline constexpr unsigned kDitherSteps = 16;

/// What a touch in window `index` of `windows` an epoch adds. Differs by at most one between the
/// windows, so that all of them add up to kWindowSum.
[[nodiscard]] constexpr unsigned window_heat(unsigned index, unsigned windows) {
  return kWindowSum * (index + 1) / windows - kWindowSum * index / windows;
}

/// Heat after an epoch's ageing; `dither` is 0..15.
[[nodiscard]] constexpr std::uint8_t aged(std::uint8_t heat, unsigned dither) {
  const unsigned slow = heat - (std::min(255u, heat + dither) >> 4);
  const unsigned fast = heat / 2u + 30u;
  return static_cast<std::uint8_t>(std::min({slow, fast, kAlwaysHot}));
}

/// The dither of an epoch: 0..15 in the order that spreads the steps evenly.
[[nodiscard]] constexpr unsigned dither_of(std::uint64_t epoch) {
  const auto n = static_cast<unsigned>(epoch % kDitherSteps);
  return (n & 1u) << 3 | (n & 2u) << 1 | (n & 4u) >> 1 | (n & 8u) >> 3;
}

/// Steady heat of a page that is touched in `share` / 1024 of the windows.
[[nodiscard]] constexpr unsigned steady_heat(unsigned share) {
  return std::min({15 * kWindowSum * share / 1024, 60 + kWindowSum * share / 1024, kAlwaysHot});
}

/// The other way round: windows out of 1024 in which a page of that steady heat is touched.
[[nodiscard]] constexpr unsigned touched_share(unsigned heat) {
  return heat < kLongMemory ? heat * 1024u / (15 * kWindowSum)
                            : std::min(1024u, (heat - 60u) * 1024u / kWindowSum);
}

/// How far heats are apart, in standard deviations of the noise that a sample of W windows an epoch
/// has. The noise differs along the scale, so the distance is summed up along it: the difference of
/// two positions. In integers, the same on every machine.
class HeatRuler {
 public:
  /// Positions per standard deviation.
  static constexpr std::uint64_t kUnit = 256;
  explicit HeatRuler(std::uint64_t windows);
  /// How far `hot` lies above `cold`, 0 when it doesn't.
  [[nodiscard]] std::uint64_t distance(unsigned hot, unsigned cold) const {
    return hot <= cold ? 0 : position_[std::min(hot, 255u)] - position_[std::min(cold, 255u)];
  }

 private:
  std::array<std::uint64_t, 256> position_{};
};

}  // namespace thermocline
