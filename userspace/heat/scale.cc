// SPDX-License-Identifier: Apache-2.0
#include "heat/scale.h"

namespace thermocline {

namespace {

constexpr std::uint64_t square_root(std::uint64_t n) {
  std::uint64_t root = 0;
  for (std::uint64_t bit = std::uint64_t{1} << 31; bit != 0; bit >>= 1)
    if ((root + bit) * (root + bit) <= n) root += bit;
  return root;
}

/// Variance of a decision's heat about its steady value, in 1/65536ths. The number of touched
/// windows n of W is binomial. Heat follows x' = b (x + n * kWindowSum / W) + const with b = 15/16
/// or 1/2, so its variance is b^2 / (1 - b^2) * (kWindowSum / W)^2 * W p (1 - p). A count of n is
/// as uncertain as one of n + 3/8 (Anscombe, Biometrika 35, 1948), which also keeps this above 0.
std::uint64_t variance(unsigned heat, std::uint64_t windows) {
  constexpr std::uint64_t kOne = 65536;
  constexpr std::uint64_t kSum = kWindowSum;
  if (heat < kLongMemory) {
    // b^2 / (1 - b^2) = 225/31; p = heat / (15 * kSum) and 1 - p is nearly 1. Three eighths of a
    // touch are worth 3/8 * kSum / W.
    return kOne * 225 * kSum / (31 * 15) * (8 * heat * windows + 3 * kSum) /
           (8 * windows * windows);
  }
  // b^2 / (1 - b^2) = 1/3: as much as a sample of 3 W windows. p = (heat - 60) / kSum.
  const std::uint64_t touched = 3 * windows * std::min(heat - 60u, kWindowSum) * 8 + 3 * kSum;
  const std::uint64_t all = 3 * windows * kSum * 8 + 6 * kSum;
  const std::uint64_t share = touched * 1024 / all;
  return kOne / 1024 * kSum * kSum * share * (1024 - share) / (3 * windows * 1024);
}

}  // namespace

HeatRuler::HeatRuler(std::uint64_t windows) {
  windows = std::max<std::uint64_t>(windows, 1);
  for (unsigned heat = 0; heat + 1 < position_.size(); ++heat) {
    const std::uint64_t deviation =
        std::max<std::uint64_t>(square_root(variance(std::min(heat, kAlwaysHot), windows)), 1);
    position_[heat + 1] = position_[heat] + 256 * kUnit / deviation;
  }
}

}  // namespace thermocline
