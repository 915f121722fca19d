// SPDX-License-Identifier: Apache-2.0
// What became of the moves: totals by direction and reason, and the last applied ones, from which
// regret (a page moved back soon) is found. Memory is bounded by the capacity given at the start.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/units.h"
#include "mover/mover.h"
#include "policies/policy.h"

namespace thermocline {

enum class Direction : std::uint8_t { kPromotion, kDemotion };

/// Totals since the start, in 4 KiB pages. tried = applied + the failures.
struct MoveTotals {
  PageCount tried, applied;
  std::array<PageCount, kMoveOutcomes> by_outcome{};
};

struct LedgerTotals {
  MoveTotals promotions, demotions;
  PageCount regretted;  ///< moved back within kRegretEpochs of the move
  PageCount abandoned;  ///< planned, but the epoch ended before their turn came
};

class Ledger {
 public:
  /// A move that is undone within so many epochs is regretted.
  static constexpr std::uint64_t kRegretEpochs = 8;

  /// The default holds what the default rate limit moves in kRegretEpochs default epochs.
  explicit Ledger(std::size_t capacity = 1u << 20);
  void record(const Move& move, Direction direction, Epoch epoch, MoveOutcome outcome);
  void abandon(PageCount pages) { totals_.abandoned += pages; }
  [[nodiscard]] const LedgerTotals& totals() const { return totals_; }

 private:
  struct Key {
    Asid asid;
    Vpn vpn;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };
  struct Applied {
    Key page;
    Epoch epoch;
    Direction direction;
  };

  std::size_t capacity_;
  std::size_t next_ = 0;  ///< ring position that is written next
  std::vector<Applied> ring_;
  std::unordered_map<Key, std::size_t, KeyHash> last_;  ///< page -> its last entry in the ring
  LedgerTotals totals_;
};

}  // namespace thermocline
