// SPDX-License-Identifier: Apache-2.0
#include "heat/scale.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>
#include <set>
#include <vector>

namespace thermocline {
namespace {

TEST(HeatScale, WindowsOfAnEpochAddUp) {
  for (unsigned windows = 1; windows <= 64; ++windows) {
    unsigned sum = 0;
    for (unsigned w = 0; w < windows; ++w) {
      EXPECT_GE(window_heat(w, windows), kWindowSum / windows);
      EXPECT_LE(window_heat(w, windows), kWindowSum / windows + 1);
      sum += window_heat(w, windows);
    }
    EXPECT_EQ(sum, kWindowSum) << windows;
  }
}

TEST(HeatScale, SteadyHeatTellsTheShareOfWindows) {
  for (unsigned share = 0; share <= 1024; ++share)
    EXPECT_NEAR(touched_share(steady_heat(share)), share, 24) << share;
}

TEST(HeatScale, AgeingKeepsTheOrder) {
  for (unsigned dither = 0; dither < kDitherSteps; ++dither) {
    EXPECT_EQ(aged(0, dither), 0);
    for (unsigned heat = 1; heat <= 255; ++heat) {
      const auto now = static_cast<std::uint8_t>(heat), less = static_cast<std::uint8_t>(heat - 1);
      EXPECT_GE(aged(now, dither), aged(less, dither));
      EXPECT_LE(aged(now, dither), std::min(heat, kAlwaysHot));
    }
  }
}

TEST(HeatScale, TheDitherTakesEachStepOnce) {
  std::set<unsigned> steps;
  for (std::uint64_t epoch = 100; epoch < 100 + kDitherSteps; ++epoch)
    steps.insert(dither_of(epoch));
  EXPECT_EQ(steps.size(), kDitherSteps);
  EXPECT_EQ(*steps.rbegin(), kDitherSteps - 1);
}

struct Sample {
  double mean = 0, deviation = 0;
};

/// Heat at decisions of pages that are touched in the share p of the windows.
Sample sample(double p, unsigned windows, unsigned seed) {
  std::mt19937 rng(seed);
  std::bernoulli_distribution touched(p);
  constexpr std::uint64_t kPages = 400, kSettle = 100, kEpochs = 160;
  double sum = 0, squares = 0, n = 0;
  for (std::uint64_t page = 0; page < kPages; ++page) {
    std::uint8_t heat = 0;
    for (std::uint64_t epoch = 0; epoch < kEpochs; ++epoch) {
      for (unsigned w = 0; w < windows; ++w)
        if (touched(rng)) heat = static_cast<std::uint8_t>(heat + window_heat(w, windows));
      heat = aged(heat, dither_of(epoch));
      if (epoch < kSettle) continue;
      sum += heat;
      squares += heat * heat;
      ++n;
    }
  }
  const double mean = sum / n;
  return {mean, std::sqrt(std::max(squares / n - mean * mean, 0.0))};
}

TEST(HeatScale, SteadyHeatIsWhatPagesSettleAt) {
  for (const double p : {0.01, 0.03, 0.25, 0.5, 0.9, 1.0})
    EXPECT_NEAR(sample(p, 16, 1).mean, steady_heat(static_cast<unsigned>(p * 1024)), 4) << p;
}

TEST(HeatScale, TheRulerMeasuresInDeviations) {
  // Two deviations, one to each side, as pages really scatter; at the bend at 1/16 less exactly.
  for (const unsigned windows : {8u, 16u, 36u}) {
    for (const double p : {0.01, 0.03, 0.05, 0.15, 0.3, 0.5, 0.8}) {
      const Sample s = sample(p, windows, 2);
      const HeatRuler ruler(windows);
      const auto hot = static_cast<unsigned>(std::lround(s.mean + s.deviation));
      const auto cold = static_cast<unsigned>(std::lround(std::max(s.mean - s.deviation, 0.0)));
      const double deviations =
          static_cast<double>(ruler.distance(hot, cold)) / static_cast<double>(HeatRuler::kUnit);
      EXPECT_NEAR(deviations, 2.0, 0.7)
          << "p " << p << ", windows " << windows << ": " << s.mean << " +- " << s.deviation;
    }
  }
}

}  // namespace
}  // namespace thermocline
