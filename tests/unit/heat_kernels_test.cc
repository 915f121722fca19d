// SPDX-License-Identifier: Apache-2.0
// Every vector form against the scalar one, on data that hits the edges.
#include "heat/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "heat/heat_map.h"
#include "heat/scale.h"

namespace thermocline {
namespace {

using Plane = std::vector<std::uint8_t>;

Plane random_plane(std::mt19937& rng, std::size_t blocks) {
  Plane plane(blocks * kBlockEntries);
  // Now and then a plane of one value, so that counters that could overflow do.
  const bool uniform = rng() % 4 == 0;
  const auto value = static_cast<std::uint8_t>(rng());
  for (auto& b : plane) b = uniform ? value : static_cast<std::uint8_t>(rng());
  return plane;
}

Thresholds random_thresholds(std::mt19937& rng) {
  Thresholds thresholds;
  for (auto& t : thresholds) t = static_cast<std::uint8_t>(1 + rng() % 255);
  if (rng() % 2 == 0) thresholds[0] = 1;
  if (rng() % 2 == 0) thresholds[1] = 255;
  if (rng() % 2 == 0) thresholds[2] = 128;
  return thresholds;
}

class HeatKernelsTest : public testing::TestWithParam<HeatKernels> {
 protected:
  const HeatKernels& scalar_ = supported_heat_kernels().front();
  std::mt19937 rng_{7};
};

TEST_P(HeatKernelsTest, AgeAndCount) {
  for (int round = 0; round < 60; ++round) {
    const std::size_t blocks = rng_() % 70;
    Plane expected = random_plane(rng_, blocks), actual = expected;
    std::vector<std::uint8_t> expected_max(blocks), actual_max(blocks);
    const Thresholds thresholds = random_thresholds(rng_);
    ThresholdCounts expected_counts{5}, actual_counts{5};
    const unsigned dither = rng_() % kDitherSteps;
    scalar_.age_and_count(expected.data(), blocks, dither, expected_max.data(), thresholds,
                          expected_counts);
    GetParam().age_and_count(actual.data(), blocks, dither, actual_max.data(), thresholds,
                             actual_counts);
    ASSERT_EQ(actual, expected);
    ASSERT_EQ(actual_max, expected_max);
    ASSERT_EQ(actual_counts, expected_counts);
  }
}

TEST_P(HeatKernelsTest, Count) {
  for (int round = 0; round < 60; ++round) {
    const std::size_t blocks = rng_() % 70;
    const Plane heat = random_plane(rng_, blocks);
    const Thresholds thresholds = random_thresholds(rng_);
    ThresholdCounts expected{9}, actual{9};
    scalar_.count(heat.data(), blocks, thresholds, expected);
    GetParam().count(heat.data(), blocks, thresholds, actual);
    ASSERT_EQ(actual, expected);
  }
}

TEST_P(HeatKernelsTest, Add) {
  for (int round = 0; round < 200; ++round) {
    Plane expected = random_plane(rng_, 1), actual = expected;
    BlockBits bits;
    for (auto& word : bits) {
      word = (std::uint64_t{rng_()} << 32) | rng_();
      if (rng_() % 3 == 0) word = 0;
      if (rng_() % 3 == 0) word = ~std::uint64_t{0};
    }
    const auto increment = static_cast<std::uint8_t>(rng_());
    scalar_.add(expected.data(), bits, increment);
    GetParam().add(actual.data(), bits, increment);
    ASSERT_EQ(actual, expected);
  }
}

TEST_P(HeatKernelsTest, Population) {
  EXPECT_EQ(GetParam().population(BlockBits{}), 0u);
  BlockBits bits;
  bits.fill(~std::uint64_t{0});
  EXPECT_EQ(GetParam().population(bits), 512u);
  bits[3] = 5;
  EXPECT_EQ(GetParam().population(bits), 450u);
}

TEST_P(HeatKernelsTest, Match) {
  for (int round = 0; round < 200; ++round) {
    const Plane heat = random_plane(rng_, 1), state = random_plane(rng_, 1);
    const auto mask = static_cast<std::uint8_t>(rng_() & 0x0f);
    const auto value = static_cast<std::uint8_t>(rng_() & mask);
    auto low = static_cast<std::uint8_t>(rng_()), high = static_cast<std::uint8_t>(rng_());
    if (rng_() % 2 == 0 && low > high) std::swap(low, high);
    EXPECT_EQ(GetParam().match(heat.data(), state.data(), mask, value, low, high),
              scalar_.match(heat.data(), state.data(), mask, value, low, high));
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, HeatKernelsTest,
                         testing::ValuesIn(supported_heat_kernels().begin(),
                                           supported_heat_kernels().end()),
                         [](const auto& form) { return std::string(form.param.name); });

}  // namespace
}  // namespace thermocline
