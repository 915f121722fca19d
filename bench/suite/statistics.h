// SPDX-License-Identifier: Apache-2.0
// The few statistics that the summary of a table needs. Pure and deterministic: the same input
// gives the same bits, resampling included.
#pragma once

#include <cstddef>
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
  std::size_t seeds = 0;  ///< that it is taken over; 0: over cells
};

/// Natural logarithms of a system's times, by seed. Means over seeds are geometric throughout, so
/// that a ratio of means is the mean of ratios.
using BySeed = std::map<std::uint64_t, double>;

/// Of at least one value.
[[nodiscard]] double mean(const BySeed& values);

/// exp(mean), of at least one value. Interval: Student's t over the seeds; none for a single one.
[[nodiscard]] Estimate over_seeds(const BySeed& logs);

/// Each without the seeds that not all of them have: a seed is a workload and a page layout of its
/// own, so systems are only compared where they had the same. All empty where they share none.
[[nodiscard]] std::vector<BySeed> over_common_seeds(const std::vector<BySeed>& logs);

/// over_seeds() of the differences, seed by seed, over the seeds that both have. None: no such.
[[nodiscard]] std::optional<Estimate> ratio_over_seeds(const BySeed& dividend,
                                                       const BySeed& divisor);

/// One cell of those that a statistic is taken over.
struct Sample {
  std::string group;         ///< cells of one group (a workload) resemble each other
  std::vector<BySeed> logs;  ///< one for each system in question, all with the same seeds
};

/// From the means over seeds, a row a cell; none where it has no meaning.
using Statistic = std::function<std::optional<double>(std::span<const std::vector<double>>)>;

/// The statistic of all cells, and its interval by a nested bootstrap (percentiles of 10,000 draws,
/// mt19937_64 with a fixed seed): draws with replacement as many groups as there are, of each as
/// many cells as it has, of each cell as many seeds, the same for all its systems. No interval for
/// a single cell of single seeds, nor where more than 1 % of the draws leave the statistic without
/// a meaning: those that are left would be a choice.
[[nodiscard]] std::optional<Estimate> bootstrap(const std::vector<Sample>& samples,
                                                const Statistic& statistic);

}  // namespace thermocline::suite
