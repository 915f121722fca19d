// SPDX-License-Identifier: Apache-2.0
// Every move and what became of it: totals by direction and reason, and a bounded history from
// which regret (a page moved back soon) is found. Memory is bounded by the capacity given at the
// start.
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

/// One move that was tried.
struct LedgerEntry {
  Asid asid;
  Vpn vpn;
  Epoch epoch;
  PageOrder order;
  Heat heat;
  TierId from, to;
  std::uint8_t rule = 0;
  MoveOutcome outcome = MoveOutcome::kMoved;
  Direction direction = Direction::kPromotion;
};

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
  /// What is remembered of a page, oldest first.
  [[nodiscard]] std::vector<LedgerEntry> history(Asid asid, Vpn vpn) const;

 private:
  struct Key {
    Asid asid;
    Vpn vpn;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };

  std::size_t capacity_;
  std::size_t next_ = 0;  ///< ring position that is written next
  std::vector<LedgerEntry> ring_;
  std::unordered_map<Key, std::size_t, KeyHash> last_applied_;  ///< page -> its last applied entry
  LedgerTotals totals_;
};

}  // namespace thermocline
