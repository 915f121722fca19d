// SPDX-License-Identifier: Apache-2.0
// Zipf-distributed ranks: rank k (from 0) is drawn with a probability proportional to
// 1 / (k + 1)^theta. Rejection-inversion (Hörmann and Derflinger, 1996): exact for every theta > 0,
// no table, a little over one random number a draw.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "bench/workloads/random.h"

namespace thermocline::workloads {

class Zipf {
 public:
  /// 1 <= items <= 2^40, 0 < theta <= 10; kUsage otherwise.
  [[nodiscard]] static Result<Zipf> make(std::uint64_t items, double theta);

  /// 0 <= rank < items.
  [[nodiscard]] std::uint64_t draw(Random& random) const;
  /// Exact probability of a rank; costs O(items) for the normalisation, for tests and reports.
  [[nodiscard]] double probability(std::uint64_t rank) const;

 private:
  Zipf(std::uint64_t items, double theta);
  [[nodiscard]] double h(double x) const;
  [[nodiscard]] double h_integral(double x) const;
  [[nodiscard]] double h_integral_inverse(double y) const;

  std::uint64_t items_;
  double theta_;
  double h_first_;
  double h_last_;
  double shortcut_;
};

}  // namespace thermocline::workloads
