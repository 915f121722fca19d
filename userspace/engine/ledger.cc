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
  const bool applied = outcome == MoveOutcome::kMoved;
  if (applied) totals.applied += pages;

  const Key key{move.asid, move.vpn};
  if (applied) {
    const auto last = last_applied_.find(key);
    if (last != last_applied_.end()) {
      const LedgerEntry& before = ring_[last->second];
      if (before.direction != direction && epoch.get() - before.epoch.get() <= kRegretEpochs)
        totals_.regretted += pages;
    }
  }

  const LedgerEntry entry{move.asid, move.vpn, epoch,     move.order, move.heat,
                          move.from, move.to,  move.rule, outcome,    direction};
  if (ring_.size() < capacity_) {
    ring_.push_back(entry);
  } else {
    const LedgerEntry& old = ring_[next_];
    const auto index = last_applied_.find(Key{old.asid, old.vpn});
    if (index != last_applied_.end() && index->second == next_) last_applied_.erase(index);
    ring_[next_] = entry;
  }
  if (applied) last_applied_[key] = next_;
  next_ = (next_ + 1) % capacity_;
}

std::vector<LedgerEntry> Ledger::history(Asid asid, Vpn vpn) const {
  std::vector<LedgerEntry> found;
  const std::size_t oldest = ring_.size() < capacity_ ? 0 : next_;
  for (std::size_t i = 0; i < ring_.size(); ++i) {
    const LedgerEntry& entry = ring_[(oldest + i) % ring_.size()];
    if (entry.asid == asid && entry.vpn == vpn) found.push_back(entry);
  }
  return found;
}

}  // namespace thermocline
