// SPDX-License-Identifier: Apache-2.0
// Latencies in a fixed amount of memory: a histogram whose bins grow with the value, in the manner
// of HdrHistogram (Tene, 2012). 16 bins for each doubling: a value is told to within 6.25 %.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace thermocline::workloads {

class LatencyHistogram {
 public:
  void add(std::uint64_t ns) {
    ++bins_[bin_of(ns)];
    ++count_;
  }
  void merge(const LatencyHistogram& other) {
    for (std::size_t i = 0; i < bins_.size(); ++i) bins_[i] += other.bins_[i];
    count_ += other.count_;
  }
  [[nodiscard]] std::uint64_t count() const { return count_; }

  /// Middle of the bin below whose upper edge `share` (0 to 1) of all values lie; 0 without values.
  [[nodiscard]] std::uint64_t quantile(double share) const {
    const double wanted = std::max(1.0, std::ceil(share * static_cast<double>(count_)));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < bins_.size(); ++i) {
      seen += bins_[i];
      if (count_ > 0 && static_cast<double>(seen) >= wanted) return middle_of(i);
    }
    return 0;
  }

 private:
  static constexpr unsigned kBits = 4;
  static constexpr std::uint64_t kLinear = 2u << kBits;  ///< below, each value has its own bin

  /// Worked example: 100 is 0b1100100; its upper five bits are 0b11001 = 25 and two were cut, so it
  /// falls into bin 2 * 16 + 25 = 57, which holds 100 to 103.
  static std::size_t bin_of(std::uint64_t ns) {
    if (ns < kLinear) return ns;
    const auto cut = static_cast<unsigned>(std::bit_width(ns)) - kBits - 1;
    return (std::size_t{cut} << kBits) + (ns >> cut);
  }
  static std::uint64_t middle_of(std::size_t bin) {
    if (bin < kLinear) return bin;
    const auto cut = static_cast<unsigned>((bin >> kBits) - 1);
    const std::uint64_t first = (bin - (std::size_t{cut} << kBits)) << cut;
    return first + ((std::uint64_t{1} << cut) - 1) / 2;
  }

  std::array<std::uint64_t, (64 - kBits + 1) << kBits> bins_{};
  std::uint64_t count_ = 0;
};

}  // namespace thermocline::workloads
