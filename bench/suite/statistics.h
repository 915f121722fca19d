// SPDX-License-Identifier: Apache-2.0
// The few statistics that the summary of a table needs. Pure and deterministic: the same input
// gives the same bits, resampling included.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace thermocline::suite {

struct Interval {
  double low = 0, high = 0;
};

/// A figure with its 95 % interval, where there is enough to tell one.
struct Estimate {
  double value = 0;
  std::optional<Interval> interval;
};

/// Natural logarithms of a system's times, by seed. Means over seeds are geometric throughout, so
/// that a ratio of means is the mean of ratios.
using BySeed = std::map<std::uint64_t, double>;

/// Of at least one value.
[[nodiscard]] double mean(const BySeed& values);

/// exp(mean(dividend) - mean(divisor)). Interval: Student's t of the differences seed by seed when
/// both have the same seeds; otherwise the two variances add up and the smaller number of seeds
/// says how far to trust them. A single seed is taken to vary as those of the other side; with one
/// seed on both there is no interval.
[[nodiscard]] Estimate ratio_over_seeds(const BySeed& dividend, const BySeed& divisor);

/// One cell of those that a statistic is taken over.
struct Sample {
  std::string group;         ///< cells of one group (a workload) resemble each other
  std::vector<BySeed> logs;  ///< one for each system in question, in the same order in all samples
};

/// From the means over seeds, a row a cell; none where it has no meaning.
using Statistic = std::function<std::optional<double>(std::span<const std::vector<double>>)>;

/// The statistic of all cells, and its interval by a nested bootstrap (percentiles of 10,000 draws,
/// mt19937_64 with a fixed seed): draws with replacement as many groups as there are, of each as
/// many cells as it has, of each cell as many seeds. Systems that have the same seeds as the first
/// one are drawn the same, the others by themselves. No interval for a single cell of single seeds.
[[nodiscard]] std::optional<Estimate> bootstrap(const std::vector<Sample>& samples,
                                                const Statistic& statistic);

}  // namespace thermocline::suite
