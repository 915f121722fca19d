// SPDX-License-Identifier: Apache-2.0
// Numbers that nothing else tells of, such as sums over a whole run, with a tally outside of them:
// what was written less what was overwritten. One that changed by itself is noticed, whether it was
// overwritten since or not.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

namespace thermocline::workloads {

class Tally {
 public:
  /// *Requires*: all are 0.
  explicit Tally(std::span<float> values) : values_(values) {}

  [[nodiscard]] float operator[](std::size_t i) const { return values_[i]; }
  void set(std::size_t i, float value) {
    sum_ += std::bit_cast<std::uint32_t>(value);
    sum_ -= std::bit_cast<std::uint32_t>(values_[i]);
    values_[i] = value;
  }
  [[nodiscard]] bool intact() const {
    std::uint64_t sum = 0;
    for (const float value : values_) sum += std::bit_cast<std::uint32_t>(value);
    return sum == sum_;
  }

 private:
  std::span<float> values_;
  std::uint64_t sum_ = 0;  ///< of all as bits
};

}  // namespace thermocline::workloads
