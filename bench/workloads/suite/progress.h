// SPDX-License-Identifier: Apache-2.0
// How far a thread of a run was at each full period: operations at t = period, 2 periods, and so
// on, told from clock readings that the run takes anyway. Between two readings operations are taken
// to pass evenly, so the points of several threads fall together and can be added.
#pragma once

#include <cstdint>
#include <vector>

namespace thermocline::workloads {

class Progress {
 public:
  /// Forgets everything; `period_ns` 0: nothing is kept.
  void start(std::uint64_t now_ns, std::uint64_t period_ns) {
    *this = {};
    period_ns_ = period_ns;
    last_ns_ = now_ns;
    next_ns_ = now_ns + period_ns;
  }
  /// It is `now_ns`, not before the last reading, and `more` operations were done since.
  ///
  /// Worked example: readings at 0.8 s (100 operations) and 1.4 s (160) with a period of 1 s give
  /// 120 operations at 1 s.
  void reading(std::uint64_t now_ns, std::uint64_t more) {
    for (; period_ns_ != 0 && next_ns_ <= now_ns; next_ns_ += period_ns_) {
      const double share = now_ns == last_ns_ ? 1.0
                                              : static_cast<double>(next_ns_ - last_ns_) /
                                                    static_cast<double>(now_ns - last_ns_);
      points_.push_back(done_ + static_cast<std::uint64_t>(share * static_cast<double>(more)));
    }
    last_ns_ = now_ns;
    done_ += more;
  }
  [[nodiscard]] const std::vector<std::uint64_t>& points() const { return points_; }
  [[nodiscard]] std::uint64_t operations() const { return done_; }

 private:
  std::uint64_t period_ns_ = 0;
  std::uint64_t last_ns_ = 0;
  std::uint64_t next_ns_ = 0;
  std::uint64_t done_ = 0;
  std::vector<std::uint64_t> points_;  ///< at each full period
};

/// Operations of all threads at each full period of the longest-lasting one; a thread that has
/// ended counts with all it did.
[[nodiscard]] inline std::vector<std::uint64_t> sum_of(const std::vector<const Progress*>& all) {
  std::vector<std::uint64_t> sum;
  for (const Progress* const one : all)
    if (one->points().size() > sum.size()) sum.resize(one->points().size());
  for (const Progress* const one : all)
    for (std::size_t i = 0; i < sum.size(); ++i)
      sum[i] += i < one->points().size() ? one->points()[i] : one->operations();
  return sum;
}

}  // namespace thermocline::workloads
