// SPDX-License-Identifier: Apache-2.0
// Macroscopic cross-sections of Monte Carlo particle transport, after XSBench (Tramm et al., PHYSOR
// 2014) with its unionised energy grid: a binary search for a random energy, then for each nuclide
// of a random material two neighbouring points of that nuclide's grid, interpolated. 68 nuclides
// and the sizes and odds of the 12 materials are those of its small Hoogenboom-Martin core; which
// nuclides a material has follows from the seed. The footprint decides the points of a nuclide.
#include <algorithm>
#include <array>
#include <cstring>

#include "bench/workloads/random.h"
#include "bench/workloads/suite/families.h"

namespace thermocline::workloads {

namespace {

constexpr std::uint32_t kNuclides = 68;
constexpr std::array<unsigned, 12> kMaterialSize{34, 5, 4, 4, 27, 21, 21, 21, 21, 21, 9, 9};
constexpr std::array<double, 12> kMaterialOdds{0.140, 0.052, 0.275, 0.134, 0.154, 0.064,
                                               0.066, 0.055, 0.008, 0.015, 0.025, 0.013};

struct Point {
  double energy;
  std::array<double, 5> sections;  ///< total, elastic, absorption, fission, nu-fission
};
/// Of the unionised grid: for each nuclide the last of its points that is not above the energy.
using Row = std::array<std::uint32_t, kNuclides>;

class XsBench final : public Workload {
 public:
  XsBench(std::span<Point> points, std::span<double> energies, std::span<Row> rows,
          std::uint64_t seed)
      : points_(points),
        energies_(energies),
        rows_(rows),
        per_nuclide_(static_cast<std::uint32_t>(points.size() / kNuclides)),
        seed_(seed),
        random_(seed, 7) {
    Random choice(seed, 8);
    for (std::size_t m = 0; m < kMaterialSize.size(); ++m) {
      std::array<std::uint32_t, kNuclides> order;
      for (std::uint32_t n = 0; n < kNuclides; ++n) order[n] = n;
      for (std::uint32_t i = 0; i < kMaterialSize[m]; ++i) {
        std::swap(order[i], order[i + choice.below(kNuclides - i)]);
        materials_[m].push_back({order[i], choice.unit()});
      }
    }
  }

  void fill() override {
    for (std::uint64_t i = 0; i < points_.size(); ++i) {
      points_[i] = point(i);
      energies_[i] = points_[i].energy;
    }
    std::sort(energies_.begin(), energies_.end());
    Row row{};
    for (std::uint64_t i = 0; i < rows_.size(); ++i) {
      advance(row, energies_[i]);
      rows_[i] = row;
    }
  }

  void run(unsigned /*phase*/, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) look_up();
  }

  [[nodiscard]] std::uint64_t checksum() const override { return sum_; }

  Status verify(std::uint64_t operations) override {
    if (look_ups_ != operations)
      return fail(ErrorKind::kFailure, "{} look-ups were made instead of {}", look_ups_,
                  operations);
    for (std::uint64_t i = 0; i < points_.size(); ++i) {
      const Point wanted = point(i);
      if (points_[i].energy != wanted.energy || points_[i].sections != wanted.sections)
        return fail(ErrorKind::kFailure, "point {} of nuclide {} has changed", i % per_nuclide_,
                    i / per_nuclide_);
    }
    Row row{};
    for (std::uint64_t i = 0; i < rows_.size(); ++i) {
      advance(row, energies_[i]);
      if ((i > 0 && energies_[i] < energies_[i - 1]) || rows_[i] != row)
        return fail(ErrorKind::kFailure, "row {} of the unionised grid is wrong", i);
    }
    return {};
  }

 private:
  struct Part {
    std::uint32_t nuclide;
    double density;
  };

  /// Point i of all nuclides' grids, one behind the other. Energies rise within a nuclide: each has
  /// its own part of 0 to 1.
  [[nodiscard]] Point point(std::uint64_t i) const {
    Random random(seed_, 16 + i);
    Point p{};
    p.energy = (static_cast<double>(i % per_nuclide_) + random.unit()) / per_nuclide_;
    for (double& section : p.sections) section = random.unit();
    return p;
  }

  /// Moves each nuclide on to its last point not above `energy`; the last but one at most, as two
  /// are interpolated.
  void advance(Row& row, double energy) const {
    for (std::uint32_t n = 0; n < kNuclides; ++n) {
      const Point* const grid = &points_[std::uint64_t{n} * per_nuclide_];
      while (row[n] + 2 < per_nuclide_ && grid[row[n] + 1].energy <= energy) ++row[n];
    }
  }

  void look_up() {
    const double energy = random_.unit();
    double dice = random_.unit();
    std::size_t material = 0;
    while (material + 1 < kMaterialOdds.size() && dice >= kMaterialOdds[material])
      dice -= kMaterialOdds[material++];
    const auto above = std::upper_bound(energies_.begin(), energies_.end(), energy);
    const Row& row = rows_[static_cast<std::size_t>(
        above == energies_.begin() ? 0 : above - energies_.begin() - 1)];
    std::array<double, 5> sections{};
    for (const Part& part : materials_[material]) {
      const Point* const low =
          &points_[std::uint64_t{part.nuclide} * per_nuclide_ + row[part.nuclide]];
      const Point* const high = low + 1;
      const double share = (high->energy - energy) / (high->energy - low->energy);
      for (std::size_t k = 0; k < sections.size(); ++k)
        sections[k] +=
            part.density * (high->sections[k] - share * (high->sections[k] - low->sections[k]));
    }
    for (const double section : sections) {
      std::uint64_t bits;
      std::memcpy(&bits, &section, sizeof bits);
      sum_ = mix64(sum_ ^ bits);
    }
    ++look_ups_;
  }

  std::span<Point> points_;
  std::span<double> energies_;
  std::span<Row> rows_;
  std::uint32_t per_nuclide_;
  std::uint64_t seed_;
  Random random_;
  std::array<std::vector<Part>, 12> materials_;
  std::uint64_t look_ups_ = 0;
  std::uint64_t sum_ = 0;
};

Result<std::unique_ptr<Workload>> xsbench(const Instance& instance) {
  const std::uint64_t per_nuclide =
      instance.footprint.get() / (kNuclides * (sizeof(Point) + sizeof(double) + sizeof(Row)));
  const std::uint64_t all = per_nuclide * kNuclides;
  TC_ASSIGN(const auto points, instance.memory.allocate<Point>(all));
  TC_ASSIGN(const auto energies, instance.memory.allocate<double>(all));
  TC_ASSIGN(const auto rows, instance.memory.allocate<Row>(all));
  return std::make_unique<XsBench>(points, energies, rows, instance.seed);
}

}  // namespace

std::vector<WorkloadSpec> xsbench_workloads() {
  return {{"xsbench",
           "cross-sections of a random material at a random energy",
           "XSBench, PHYSOR 2014, unionised grid",
           16,
           {},
           xsbench}};
}

}  // namespace thermocline::workloads
