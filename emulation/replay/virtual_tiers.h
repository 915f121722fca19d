// SPDX-License-Identifier: Apache-2.0
// Memory tiers that are only counted: which page of a recording lies on which tier, placed by first
// touch and moved by a mover that always can while there is room. Tier t is node t.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/units.h"
#include "engine/engine.h"
#include "mover/mover.h"

namespace thermocline::replay {

class VirtualTiers {
 public:
  /// Fastest first, 1 to kMaxTiers. The last one takes what fits nowhere else.
  explicit VirtualTiers(std::vector<PageCount> capacity)
      : capacity_(std::move(capacity)), used_(capacity_.size()) {}

  /// Where a page that is there lies. One that wasn't goes to the fastest tier that has room; a
  /// huge one whose parts lie on several tiers comes together where it fits.
  TierId settle(Asid asid, Vpn page, PageOrder order);
  /// Pages [first, end) are not there any more.
  void release(Asid asid, Vpn first, Vpn end);
  MoveOutcome move(Asid asid, Vpn page, PageOrder order, TierId to);

  [[nodiscard]] std::vector<TierState> states() const;
  [[nodiscard]] PageCount used(TierId tier) const { return used_[tier.get()]; }

 private:
  static constexpr std::uint64_t kBlock = 512;
  static constexpr std::uint8_t kAbsent = 255;
  struct Block {
    std::array<std::uint8_t, kBlock> tier;
    Block() { tier.fill(kAbsent); }
  };
  using Key = std::pair<Asid, std::uint64_t>;

  Block& block_at(Asid asid, std::uint64_t number);
  [[nodiscard]] PageCount room(std::size_t tier) const {
    return capacity_[tier].minus_floor(used_[tier]);
  }
  void put(std::uint8_t& where, std::size_t tier);

  std::vector<PageCount> capacity_, used_;
  std::map<Key, Block> blocks_;
  Key last_{};  ///< pages come in order: the block that was asked for last
  Block* last_block_ = nullptr;
};

/// Moves pages between them.
[[nodiscard]] std::unique_ptr<Mover> make_virtual_mover(VirtualTiers& tiers);

}  // namespace thermocline::replay
