// SPDX-License-Identifier: Apache-2.0
// Looks at a few hundred hot pages while the engine rests. A hot set that has moved elsewhere shows
// in that they are touched less, for the cost of a few hundred pages; what is hot now has to be
// found by an epoch.
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
  };

  /// Chooses pages of the tier to look at, spread over the hottest, and forgets what was seen of
  /// others. None when there is no evidence yet.
  void choose(const HeatMap& heat, TierId tier);
  void clear();
  /// One for each address space, in no order; empty: there is nothing to look at.
  [[nodiscard]] const std::vector<Part>& parts() const { return parts_; }

  /// kLess: less than 60 %; kGone: less than a quarter; kMore: more than 5/3.
  enum class Change : std::uint8_t { kNone, kLess, kGone, kMore };
  /// A look: records of the pages, then whether they are touched so much less, or more, than in the
  /// looks before that this is no chance. The first look never says so.
  void begin() { touched_ = 0; }
  void take(const RecordView& record) { touched_ += record.accessed.population(); }
  [[nodiscard]] Change compare();

 private:
  std::vector<Part> parts_;
  std::uint64_t touched_ = 0;                        ///< entries, in this look
  std::uint64_t looks_ = 0, sum_ = 0, squares_ = 0;  ///< of the looks before
};

}  // namespace thermocline
