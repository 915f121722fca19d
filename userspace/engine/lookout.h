// SPDX-License-Identifier: Apache-2.0
// Looks at a few hundred hot pages while the engine rests. A hot set that has moved elsewhere shows
// in that they are touched less, a program that has become busy in that they are touched more, for
// the cost of a few hundred pages; what is hot now has to be found by an epoch.
#pragma once

#include <cstdint>
#include <vector>

#include "base/units.h"
#include "heat/heat_map.h"
#include "tracking/record.h"
#include "tracking/tracker.h"

namespace thermocline {

class Lookout {
 public:
  /// Pages of an address space, in ranges as a tracker takes them.
  struct Part {
    Asid asid;
    std::vector<ScanRange> ranges;
    std::uint64_t touched = 0;   ///< entries, in this look
    std::uint64_t sum = 0;       ///< of the looks before
    std::uint64_t expected = 0;  ///< that heat expects in a look, in 1024ths
  };
  enum class Change : std::uint8_t { kNone, kLess, kMore };

  /// Chooses pages of the tier to look at, spread over the hottest, in windows of that length, and
  /// forgets what was seen of others, but for how well heat foretold it. None when there is no
  /// evidence yet.
  void choose(const HeatMap& heat, TierId tier, Nanoseconds window);
  void clear();
  /// One for each address space, by its number; empty: there is nothing to look at.
  [[nodiscard]] const std::vector<Part>& parts() const { return parts_; }

  /// A look: records of the pages, then whether they are touched so much less (three fifths), or
  /// more (five thirds), than in the looks before that this is no chance. A first look can only say
  /// kLess: less than two fifths of what heat expects, as right as it was when other pages were
  /// looked at. So a change that came just before the pages were chosen shows.
  void begin();
  void take(const RecordView& record);
  /// Some pages can't be looked at now: this look says nothing, and the next is a first one.
  void miss() { missed_ = true; }
  [[nodiscard]] Change compare();
  /// After it has said kLess: address spaces whose pages are touched less than a quarter as much.
  [[nodiscard]] const std::vector<Asid>& gone() const { return gone_; }

 private:
  /// Of touches that looks have found.
  [[nodiscard]] std::uint64_t variance() const;
  /// Touches that a first look should find in an address space; 0: nobody knows.
  [[nodiscard]] std::uint64_t foretold(const Part& part) const;

  std::vector<Part> parts_;
  std::vector<Asid> gone_;
  bool missed_ = false;
  Nanoseconds window_{};
  std::uint64_t looks_ = 0, sum_ = 0, squares_ = 0;  ///< of the looks before
  /// Of all looks at the pages before these.
  struct {
    std::vector<Part> parts;
    Nanoseconds window{};
    std::uint64_t looks = 0;
    std::uint64_t variance = 0;  ///< of what one look found
  } before_;
};

}  // namespace thermocline
