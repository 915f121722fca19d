// SPDX-License-Identifier: Apache-2.0
#include "emulation/replay/virtual_tiers.h"

#include <algorithm>

namespace thermocline::replay {

VirtualTiers::Block& VirtualTiers::block_at(Asid asid, std::uint64_t number) {
  const Key key{asid, number};
  if (last_block_ == nullptr || key != last_) {
    last_block_ = &blocks_[key];
    last_ = key;
  }
  return *last_block_;
}

void VirtualTiers::put(std::uint8_t& where, std::size_t tier) {
  if (where != kAbsent) used_[where] -= PageCount(1);
  where = static_cast<std::uint8_t>(tier);
  used_[tier] += PageCount(1);
}

TierId VirtualTiers::settle(Asid asid, Vpn page, PageOrder order) {
  const std::uint64_t first = page.get();
  std::uint8_t& own = block_at(asid, first / kBlock).tier[first % kBlock];
  if (order == kOrder4K) {
    if (own == kAbsent) {
      std::size_t tier = 0;
      while (tier + 1 < capacity_.size() && room(tier) == PageCount(0)) ++tier;
      put(own, tier);
    }
    return TierId(own);
  }
  // A huge page: all of it on one tier, where its first part is if the rest fits there.
  std::vector<PageCount> parts(capacity_.size());
  const std::uint64_t end = first + order.pages().get();
  for (std::uint64_t p = first; p < end; ++p)
    if (const std::uint8_t tier = block_at(asid, p / kBlock).tier[p % kBlock]; tier != kAbsent)
      parts[tier] += PageCount(1);
  const auto fits = [&](std::size_t tier) { return room(tier) + parts[tier] >= order.pages(); };
  const std::uint8_t now = block_at(asid, first / kBlock).tier[first % kBlock];
  std::size_t tier = 0;
  if (now != kAbsent && fits(now))
    tier = now;
  else
    while (tier + 1 < capacity_.size() && !fits(tier)) ++tier;
  if (parts[tier] < order.pages())
    for (std::uint64_t p = first; p < end; ++p)
      put(block_at(asid, p / kBlock).tier[p % kBlock], tier);
  return TierId(static_cast<std::uint8_t>(tier));
}

void VirtualTiers::release(Asid asid, Vpn first, Vpn end) {
  if (first >= end) return;
  last_block_ = nullptr;
  auto it = blocks_.lower_bound({asid, first.get() / kBlock});
  while (it != blocks_.end() && it->first.first == asid && it->first.second * kBlock < end.get()) {
    const std::uint64_t base = it->first.second * kBlock;
    const std::uint64_t from = std::max(base, first.get()) - base;
    const std::uint64_t to = std::min(base + kBlock, end.get()) - base;
    for (std::uint64_t i = from; i < to; ++i) {
      std::uint8_t& where = it->second.tier[i];
      if (where != kAbsent) used_[where] -= PageCount(1);
      where = kAbsent;
    }
    it = to - from == kBlock ? blocks_.erase(it) : std::next(it);
  }
}

MoveOutcome VirtualTiers::move(Asid asid, Vpn page, PageOrder order, TierId to) {
  if (to.get() >= capacity_.size()) return MoveOutcome::kRefused;
  const auto found = blocks_.find({asid, page.get() / kBlock});
  if (found == blocks_.end() || found->second.tier[page.get() % kBlock] == kAbsent)
    return MoveOutcome::kGone;
  if (found->second.tier[page.get() % kBlock] == to.get()) return MoveOutcome::kMoved;
  if (room(to.get()) < order.pages()) return MoveOutcome::kNoMemory;
  for (std::uint64_t p = page.get(); p < page.get() + order.pages().get(); ++p)
    put(block_at(asid, p / kBlock).tier[p % kBlock], to.get());
  return MoveOutcome::kMoved;
}

std::vector<TierState> VirtualTiers::states() const {
  std::vector<TierState> states;
  for (std::size_t t = 0; t < capacity_.size(); ++t) {
    TierState state;
    state.id = TierId(static_cast<std::uint8_t>(t));
    state.nodes.push_back({NodeId(static_cast<std::int32_t>(t)), room(t), {}, {}, {}});
    states.push_back(std::move(state));
  }
  return states;
}

namespace {

class VirtualMover final : public Mover {
 public:
  explicit VirtualMover(VirtualTiers& tiers) : tiers_(tiers) {}
  void execute(std::span<const PageMove> moves, std::span<MoveOutcome> outcomes) override {
    for (std::size_t i = 0; i < moves.size(); ++i)
      outcomes[i] = tiers_.move(moves[i].asid, moves[i].vpn, moves[i].order,
                                TierId(static_cast<std::uint8_t>(moves[i].to.get())));
  }

 private:
  VirtualTiers& tiers_;
};

}  // namespace

std::unique_ptr<Mover> make_virtual_mover(VirtualTiers& tiers) {
  return std::make_unique<VirtualMover>(tiers);
}

}  // namespace thermocline::replay
