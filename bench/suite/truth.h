// SPDX-License-Identifier: Apache-2.0
// What a cell's ground truth (docs/emulation.md) says about the run between the marks "run" and
// "end": misses by tier over time, which pages were missed and where they lay, what the kernel was
// at. Pure but for reading the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"

namespace thermocline::suite {

struct Truth {
  struct Slice {
    std::uint64_t begin_ns = 0;  ///< since the mark "run"
    std::uint64_t end_ns = 0;
    std::uint64_t fast_misses = 0;  ///< lines fetched: loads, stores, prefetches
    std::uint64_t all_misses = 0;
    std::uint64_t latency_ns = 0;  ///< sum over all misses

    [[nodiscard]] double fast_share() const {
      return all_misses == 0 ? 0
                             : static_cast<double>(fast_misses) / static_cast<double>(all_misses);
    }
  };
  /// Samples of what the processors were at.
  struct Profile {
    std::uint64_t tracker = 0, policy = 0, mover = 0;
    std::uint64_t kernel = 0, user = 0, idle = 0;  ///< kernel includes the three above

    [[nodiscard]] std::uint64_t all() const { return kernel + user + idle; }
  };

  std::vector<Slice> slices;
  std::vector<std::uint64_t> phases_ns;  ///< where later phases begin, since "run"
  std::uint64_t end_ns = 0;              ///< of the run, since its start
  std::optional<Profile> profile;        ///< none: not asked for
  /// Of the address space with the most pages: page number and misses in the run, most first.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> pages;
  /// The same of the last phase alone, in no order.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> last_phase_pages;
  /// Between marks "scan" and "scanned", all pairs together, of everything that ran.
  std::uint64_t scan_instructions = 0;
  /// Seen by where pages were missed, so pages that are not missed between two moves don't show.
  std::uint64_t moves = 0;
  /// Of those: back to the tier that the page had left within kReturn before.
  std::uint64_t returns = 0;

  static constexpr std::uint64_t kReturnNs = 2'000'000'000;

  /// Share of misses that hit the fast node in [from_ns, to_ns), whole slices by their middle.
  [[nodiscard]] std::optional<double> fast_share(std::uint64_t from_ns, std::uint64_t to_ns) const;
};

/// kCorrupt with the line when it is no ground truth, or the marks are missing.
[[nodiscard]] Result<Truth> read_truth(const std::string& path, int fast_node);
/// The same of a text, for tests.
[[nodiscard]] Result<Truth> parse_truth(std::string_view text, int fast_node);

}  // namespace thermocline::suite
