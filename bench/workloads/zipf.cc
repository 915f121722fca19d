// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/zipf.h"

#include <algorithm>
#include <cmath>

namespace thermocline::workloads {

namespace {
/// (exp(x) - 1) / x, also near 0.
double expm1_over(double x) {
  return std::abs(x) > 1e-8 ? std::expm1(x) / x : 1 + x / 2;
}
/// ln(1 + x) / x, also near 0.
double log1p_over(double x) {
  return std::abs(x) > 1e-8 ? std::log1p(x) / x : 1 - x / 2;
}
}  // namespace

Result<Zipf> Zipf::make(std::uint64_t items, double theta) {
  if (items == 0 || items > (std::uint64_t{1} << 40))
    return fail(ErrorKind::kUsage, "a Zipf distribution needs 1 to 2^40 items, not {}", items);
  if (!(theta > 0.0 && theta <= 10.0))
    return fail(ErrorKind::kUsage, "Zipf's theta must be above 0 and at most 10, not {}", theta);
  return Zipf(items, theta);
}

// The paper's notation: h(x) = x^-theta on [1, n]; H is its integral. A uniform draw between
// H(1.5) - h(1) and H(n + 0.5) is inverted, rounded to the nearest whole rank, and accepted when it
// falls under the histogram of h.
Zipf::Zipf(std::uint64_t items, double theta) : items_(items), theta_(theta) {
  h_first_ = h_integral(1.5) - 1.0;
  h_last_ = h_integral(static_cast<double>(items) + 0.5);
  shortcut_ = 2.0 - h_integral_inverse(h_integral(2.5) - h(2.0));
}

double Zipf::h(double x) const {
  return std::exp(-theta_ * std::log(x));
}

double Zipf::h_integral(double x) const {
  const double log_x = std::log(x);
  return expm1_over((1.0 - theta_) * log_x) * log_x;
}

double Zipf::h_integral_inverse(double y) const {
  const double t = std::max(-1.0, y * (1.0 - theta_));
  return std::exp(log1p_over(t) * y);
}

std::uint64_t Zipf::draw(Random& random) const {
  const auto n = static_cast<double>(items_);
  for (;;) {
    const double u = h_last_ + random.unit() * (h_first_ - h_last_);
    const double x = h_integral_inverse(u);
    const double k = std::clamp(std::floor(x + 0.5), 1.0, n);
    if (k - x <= shortcut_ || u >= h_integral(k + 0.5) - h(k))
      return static_cast<std::uint64_t>(k) - 1;
  }
}

double Zipf::probability(std::uint64_t rank) const {
  double sum = 0;
  for (std::uint64_t k = items_; k >= 1; --k) sum += h(static_cast<double>(k));
  return h(static_cast<double>(rank + 1)) / sum;
}

}  // namespace thermocline::workloads
