// SPDX-License-Identifier: Apache-2.0
// The loop without a machine: pages with a probability of being touched in a window, the synthetic
// tracker, the heat map, a policy, and moves that succeed. Ages, cools down and limits moves as the
// engine does.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "heat/heat_map.h"
#include "heat/scale.h"
#include "policies/policy.h"
#include "tracking/record.h"
#include "tracking/synthetic_tracker.h"

namespace thermocline {

class LoopSim {
 public:
  static constexpr Asid kAsid{9};
  static constexpr std::uint64_t kFirst = 512 * 1000;

  struct Epoch {
    Plan plan;
    Threshold threshold;
    std::size_t promoted = 0, demoted = 0;
  };

  /// All pages start on tier `place[i]`; tiers hold `capacity` pages. The last tier holds the rest.
  LoopSim(std::vector<std::uint8_t> place, std::vector<std::size_t> capacity, std::uint32_t seed)
      : touch(place.size(), 0.0), place_(std::move(place)), capacity_(std::move(capacity)) {
    SyntheticLoad load;
    load.pages = PageCount(size());
    load.first = Vpn(kFirst);
    load.seed = seed;
    load.chance = [this](std::uint64_t page, std::uint64_t) { return touch[page]; };
    load.node_of = [this](std::uint64_t page) { return NodeId(place_[page]); };
    tracker_ = make_synthetic_tracker(std::move(load));
    ProcessIdentity process;
    process.asid = kAsid;
    (void)tracker_->attach(process);
    capacity_.push_back(place_.size());
    std::vector<TierId> tiers;
    for (std::size_t t = 0; t < capacity_.size(); ++t)
      tiers.push_back(TierId(static_cast<std::uint8_t>(t)));
    heat_.set_node_tiers(tiers);
  }

  LoopSim(const LoopSim&) = delete;
  LoopSim& operator=(const LoopSim&) = delete;

  Epoch run(Policy& policy) {
    heat_.keep_touches(policy.needs_touches());
    PageCount present, accessed, accessed_fast;
    for (unsigned w = 0; w < windows; ++w) {
      heat_.set_window_heat(window_heat(w, windows));
      const ApplyStats stats = window();
      present += stats.pages;
      accessed += stats.accessed;
      accessed_fast += stats.accessed_fast;
    }
    std::vector<TierView> tiers;
    const Occupancy held = heat_.occupancy();
    for (std::size_t t = 0; t < capacity_.size(); ++t) {
      TierView tier{};
      tier.id = TierId(static_cast<std::uint8_t>(t));
      tier.capacity = PageCount(capacity_[t]);
      tier.used = held.per_tier[t];
      tier.free = tier.capacity.minus_floor(tier.used);
      if (t < bandwidth_mbps.size()) tier.bandwidth_mbps = bandwidth_mbps[t];
      if (loaded_latency_ns) tier.loaded_latency_ns = loaded_latency_ns(t);
      tiers.push_back(tier);
    }
    Epoch epoch;
    epoch.threshold = heat_.age_and_select(tiers[0].capacity);
    ++epoch_;
    Feedback feedback{};
    feedback.windows = windows;
    feedback.window = window_length;
    feedback.epoch =
        std::max<Nanoseconds>(window_length * static_cast<int>(windows), std::chrono::seconds(2));
    feedback.page_move = page_move;
    feedback.present_page_windows = present;
    feedback.accessed_page_windows = accessed;
    feedback.accessed_page_windows_fast = accessed_fast;
    const View view{
        thermocline::Epoch(epoch_), heat_, tiers, epoch.threshold, feedback, Budget{budget}};
    epoch.plan = policy.decide(view);
    for (const Move& move : epoch.plan.demotions) execute(move, false);
    for (const Move& move : epoch.plan.promotions) execute(move, true);
    epoch.promoted = epoch.plan.promotions.size();
    epoch.demoted = epoch.plan.demotions.size();
    return epoch;
  }

  [[nodiscard]] std::uint8_t place(std::size_t page) const { return place_[page]; }
  [[nodiscard]] std::size_t size() const { return place_.size(); }
  static std::size_t index(const Move& move) {
    return static_cast<std::size_t>(move.vpn.get() - kFirst);
  }
  [[nodiscard]] std::size_t on_tier(std::uint8_t tier) const {
    return static_cast<std::size_t>(std::count(place_.begin(), place_.end(), tier));
  }
  [[nodiscard]] const HeatMap& heat() const { return heat_; }

  unsigned windows = 8;
  PageCount budget{1u << 30};
  unsigned cooldown = 3;
  std::vector<std::uint64_t> bandwidth_mbps;
  /// Of a tier now; not set: nobody measures it.
  std::function<std::uint64_t(std::size_t tier)> loaded_latency_ns;
  Nanoseconds window_length{}, page_move{};
  /// Probability that a page is touched in a window.
  std::vector<double> touch;

 private:
  ApplyStats window() {
    ScanRequest request;
    request.asid = kAsid;
    ApplyStats total;
    const auto scanned = tracker_->scan(request, [&](std::span<const std::byte> bytes) {
      RecordReader reader(bytes);
      while (const auto record = reader.next()) {
        const ApplyStats stats = heat_.apply(*record, true);
        total.pages += stats.pages;
        total.accessed += stats.accessed;
        total.accessed_fast += stats.accessed_fast;
      }
    });
    if (!scanned) throw std::logic_error(scanned.error().message);
    return total;
  }

  void execute(const Move& move, bool promotion) {
    place_[index(move)] = move.to.get();
    heat_.moved(move.asid, move.vpn, move.to, promotion, cooldown);
  }

  std::vector<std::uint8_t> place_;
  std::vector<std::size_t> capacity_;
  std::unique_ptr<Tracker> tracker_;
  HeatMap heat_;
  std::uint64_t epoch_ = 0;
};

}  // namespace thermocline
