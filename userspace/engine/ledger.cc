// SPDX-License-Identifier: Apache-2.0
#include "engine/ledger.h"

#include <algorithm>

namespace thermocline {

std::size_t Ledger::KeyHash::operator()(const Key& key) const {
  // Fibonacci hashing; page numbers of one address space are dense, their product spreads them.
  const std::uint64_t mixed = (key.vpn.get() ^ (key.asid.get() << 7)) * 0x9e3779b97f4a7c15ull;
  return static_cast<std::size_t>(mixed ^ (mixed >> 32));
}

Ledger::Ledger(std::size_t capacity) : capacity_(std::max<std::size_t>(capacity, 1)) {}

void Ledger::record(const Move& move, Direction direction, Epoch epoch, MoveOutcome outcome) {
  const PageCount pages = move.order.pages();
  MoveTotals& totals = direction == Direction::kPromotion ? totals_.promotions : totals_.demotions;
  totals.tried += pages;
  totals.by_outcome[static_cast<std::size_t>(outcome)] += pages;
  if (outcome != MoveOutcome::kMoved) return;
  totals.applied += pages;

  const Key page{move.asid, move.vpn};
  if (const auto last = last_.find(page); last != last_.end()) {
    const Applied& before = ring_[last->second];
    if (before.direction != direction && epoch.get() - before.epoch.get() <= kRegretEpochs)
      totals_.regretted += pages;
  }
  const Applied entry{page, epoch, direction};
  if (ring_.size() < capacity_) {
    ring_.push_back(entry);
  } else {
    const auto oldest = last_.find(ring_[next_].page);
    if (oldest != last_.end() && oldest->second == next_) last_.erase(oldest);
    ring_[next_] = entry;
  }
  last_[page] = next_;
  next_ = (next_ + 1) % capacity_;
}

}  // namespace thermocline
