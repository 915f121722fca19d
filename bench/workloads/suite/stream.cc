// SPDX-License-Identifier: Apache-2.0
// STREAM (McCalpin, 1995): copy, scale, add and triad over three arrays, in turn. With the factor
// sqrt(2) - 1 a round of the four leaves a as it was (2 q + q^2 = 1), so values never grow; and as
// every element of a block sees the same operations, one scalar follows what a block must hold.
#include <array>
#include <cstring>

#include "bench/workloads/random.h"
#include "bench/workloads/suite/families.h"

namespace thermocline::workloads {

namespace {

constexpr std::uint64_t kBlock = kPageSize / sizeof(double);
constexpr double kFactor = 0.41421356237309503;

class Stream final : public Workload {
 public:
  Stream(std::array<std::span<double>, 3> arrays, std::uint64_t seed)
      : a_(arrays[0]), b_(arrays[1]), c_(arrays[2]), seed_(seed), blocks_(a_.size() / kBlock) {}

  void fill() override {
    for (std::uint64_t block = 0; block < blocks_; ++block)
      for (std::uint64_t i = block * kBlock; i < (block + 1) * kBlock; ++i) {
        a_[i] = start(block);
        b_[i] = 2.0;
        c_[i] = 0.0;
      }
  }

  void run(unsigned /*phase*/, std::uint64_t count) override {
    for (std::uint64_t n = 0; n < count; ++n) {
      step(kernel_, &a_[block_ * kBlock], &b_[block_ * kBlock], &c_[block_ * kBlock], kBlock);
      if (++block_ < blocks_) continue;
      block_ = 0;
      kernel_ = (kernel_ + 1) % 4;
      kernels_done_ += 1;
    }
  }

  [[nodiscard]] std::uint64_t checksum() const override {
    std::uint64_t sum = 0;
    for (std::uint64_t block = 0; block < blocks_; ++block)
      for (const double value : {a_[block * kBlock], b_[block * kBlock], c_[block * kBlock]}) {
        std::uint64_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        sum = mix64(sum ^ bits);
      }
    return sum;
  }

  Status verify(std::uint64_t operations) override {
    if (kernels_done_ * blocks_ + block_ != operations)
      return fail(ErrorKind::kFailure, "{} blocks were processed instead of {}",
                  kernels_done_ * blocks_ + block_, operations);
    for (std::uint64_t block = 0; block < blocks_; ++block) {
      double a = start(block), b = 2.0, c = 0.0;
      const std::uint64_t kernels = kernels_done_ + (block < block_ ? 1 : 0);
      for (std::uint64_t k = 0; k < kernels; ++k) step(static_cast<unsigned>(k % 4), &a, &b, &c, 1);
      for (std::uint64_t i = block * kBlock; i < (block + 1) * kBlock; ++i)
        if (a_[i] != a || b_[i] != b || c_[i] != c)
          return fail(ErrorKind::kFailure, "element {} is not what {} kernels give", i, kernels);
    }
    return {};
  }

 private:
  static void step(unsigned kernel, double* a, double* b, double* c, std::uint64_t count) {
    switch (kernel) {
      case 0:
        for (std::uint64_t i = 0; i < count; ++i) c[i] = a[i];
        break;
      case 1:
        for (std::uint64_t i = 0; i < count; ++i) b[i] = kFactor * c[i];
        break;
      case 2:
        for (std::uint64_t i = 0; i < count; ++i) c[i] = a[i] + b[i];
        break;
      default:
        for (std::uint64_t i = 0; i < count; ++i) a[i] = b[i] + kFactor * c[i];
    }
  }
  [[nodiscard]] double start(std::uint64_t block) const {
    return 1.0 + Random(seed_, block).unit();
  }

  std::span<double> a_, b_, c_;
  std::uint64_t seed_;
  std::uint64_t blocks_;
  std::uint64_t block_ = 0;
  std::uint64_t kernels_done_ = 0;
  unsigned kernel_ = 0;
};

Result<std::unique_ptr<Workload>> stream(const Instance& instance) {
  const std::uint64_t elements = pages_of(instance.footprint).get() / 3 * kBlock;
  std::array<std::span<double>, 3> arrays;
  for (auto& array : arrays) {
    TC_ASSIGN(array, instance.memory.allocate<double>(elements));
  }
  return std::make_unique<Stream>(arrays, instance.seed);
}

}  // namespace

std::vector<WorkloadSpec> stream_workloads() {
  return {{"stream",
           "one kernel (copy, scale, add or triad) on 4 KiB of each of its arrays",
           "STREAM, McCalpin 1995",
           16,
           {},
           stream}};
}

}  // namespace thermocline::workloads
