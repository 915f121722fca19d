// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>

namespace thermocline::suite {

namespace {

constexpr std::size_t kDraws = 10'000;
constexpr std::uint64_t kSeed = 20'260'101;

/// Two-sided 95 % of Student's t. Beyond the table its last value, which is a little too wide.
double student_t(std::size_t degrees) {
  constexpr std::array<double, 10> kTable{12.706, 4.303, 3.182, 2.776, 2.571,
                                          2.447,  2.365, 2.306, 2.262, 2.228};
  return kTable[std::min(degrees, kTable.size()) - 1];
}

/// Of the mean of `values`, squared standard error.
double error_squared(const BySeed& values) {
  const double centre = mean(values);
  double sum = 0;
  for (const auto& [seed, value] : values) sum += (value - centre) * (value - centre);
  const auto n = static_cast<double>(values.size());
  return sum / (n - 1) / n;
}

/// Not std::uniform_int_distribution, which every library does in its own way.
class Dice {
 public:
  std::size_t below(std::size_t n) {
    return static_cast<std::size_t>(((engine_() >> 32) * n) >> 32);
  }

 private:
  std::mt19937_64 engine_{kSeed};
};

/// Values of every system, seed by seed in the same order.
using FlatCell = std::vector<std::vector<double>>;

FlatCell flat(const Sample& sample) {
  FlatCell cell;
  for (const BySeed& logs : sample.logs) {
    std::vector<double>& values = cell.emplace_back();
    for (const auto& [seed, value] : logs) values.push_back(value);
  }
  return cell;
}

std::vector<double> drawn_means(const FlatCell& cell, Dice& dice) {
  std::vector<double> means(cell.size(), 0);
  const std::size_t n = cell.front().size();
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t seed = dice.below(n);
    for (std::size_t s = 0; s < cell.size(); ++s)
      means[s] += cell[s][seed] / static_cast<double>(n);
  }
  return means;
}

}  // namespace

double mean(const BySeed& values) {
  double sum = 0;
  for (const auto& [seed, value] : values) sum += value;
  return sum / static_cast<double>(values.size());
}

Estimate over_seeds(const BySeed& logs) {
  const double centre = mean(logs);
  Estimate result{std::exp(centre), std::nullopt, logs.size()};
  if (logs.size() < 2) return result;
  const double half = student_t(logs.size() - 1) * std::sqrt(error_squared(logs));
  result.interval = Interval{std::exp(centre - half), std::exp(centre + half)};
  return result;
}

std::vector<BySeed> over_common_seeds(const std::vector<BySeed>& logs) {
  std::vector<BySeed> common(logs.size());
  for (const auto& [seed, value] : logs.front())
    if (std::all_of(logs.begin(), logs.end(),
                    [seed = seed](const BySeed& one) { return one.contains(seed); }))
      for (std::size_t i = 0; i < logs.size(); ++i) common[i][seed] = logs[i].at(seed);
  return common;
}

std::optional<Estimate> ratio_over_seeds(const BySeed& dividend, const BySeed& divisor) {
  std::vector<BySeed> common = over_common_seeds({dividend, divisor});
  if (common[0].empty()) return std::nullopt;
  for (auto& [seed, value] : common[0]) value -= common[1].at(seed);
  return over_seeds(common[0]);
}

std::optional<Estimate> bootstrap(const std::vector<Sample>& samples, const Statistic& statistic) {
  if (samples.empty()) return std::nullopt;
  std::vector<std::vector<double>> means;
  std::map<std::string, std::vector<FlatCell>> by_group;
  bool can_vary = samples.size() > 1;
  for (const Sample& sample : samples) {
    std::vector<double>& row = means.emplace_back();
    for (const BySeed& logs : sample.logs) {
      row.push_back(mean(logs));
      can_vary = can_vary || logs.size() > 1;
    }
    by_group[sample.group].push_back(flat(sample));
  }
  const std::optional<double> value = statistic(means);
  if (!value) return std::nullopt;
  Estimate result{*value, std::nullopt, 0};
  if (!can_vary) return result;

  std::vector<std::vector<FlatCell>> groups;
  groups.reserve(by_group.size());
  for (auto& [name, cells] : by_group) groups.push_back(std::move(cells));
  Dice dice;
  std::vector<double> values;
  values.reserve(kDraws);
  for (std::size_t draw = 0; draw < kDraws; ++draw) {
    means.clear();
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const std::vector<FlatCell>& group = groups[dice.below(groups.size())];
      for (std::size_t c = 0; c < group.size(); ++c)
        means.push_back(drawn_means(group[dice.below(group.size())], dice));
    }
    if (const auto drawn = statistic(means)) values.push_back(*drawn);
  }
  if (values.size() < kDraws - kDraws / 100) return result;
  std::sort(values.begin(), values.end());
  const auto at = [&values](double share) {
    return values[static_cast<std::size_t>(
        std::lround(share * static_cast<double>(values.size() - 1)))];
  };
  result.interval = Interval{at(0.025), at(0.975)};
  return result;
}

}  // namespace thermocline::suite
