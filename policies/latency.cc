// SPDX-License-Identifier: Apache-2.0
// Policy `latency`: balances the loaded latency of two tiers.
//
// As long as the fast tier answers sooner, hot pages go up; when it answers later than the slow
// one, because too many want it, hot pages go down, until both answer alike. How much traffic is
// to be shifted is found by bisection (BalancedShare, policies/traffic.h).
//
// Latency comes from View: measured by the host under load where it can measure both tiers
// (TierView::loaded_latency_ns), else nominal. With nominal latency the fast tier is always the
// faster one, and hot pages fill it: the policy then is one of capacity, as in the paper without
// contention.
//
// Source: Colloid (Vuppalapati, Agarwal, SOSP'24): algorithm 1, delta = 0.05, epsilon = 0.01.
#include <array>

#include "policies/builtin.h"
#include "policies/options.h"
#include "policies/plan_builder.h"
#include "policies/traffic.h"

namespace thermocline {

namespace {

struct LatencyOptions {
  unsigned delta_percent = 5;
  unsigned epsilon_permille = 10;
};

enum Rule : std::uint8_t { kSooner, kMakeRoom, kLater, kComeBack, kOverfull };
constexpr std::array<std::string_view, 5> kRules = {
    "hot, and the faster tier answers sooner",
    "coldest on its tier, makes room for a hot page",
    "hot, and the faster tier answers later because of its load",
    "coldest on its tier, makes room for a hot page that leaves the loaded tier",
    "coldest on its tier, which holds more than its share",
};

/// Pages that are exchanged lie so many deviations apart: luck is no reason.
constexpr std::uint64_t kApart = 5 * HeatRuler::kUnit;

class LatencyPolicy final : public Policy {
 public:
  LatencyPolicy(const LatencyOptions& options, std::uint64_t) : options_(options) {}
  [[nodiscard]] std::string_view name() const override { return "latency"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return kRules; }
  [[nodiscard]] bool needs_loaded_latency() const override { return true; }

  [[nodiscard]] Plan decide(const View& view) override {
    PlanBuilder builder(view);
    balances_.resize(view.tiers.size() - 1);
    for (std::size_t fast = 0; fast + 1 < view.tiers.size(); ++fast) {
      if (builder.room(fast) < 0) {
        std::size_t next = 0;
        builder.give_back(
            fast,
            view.heat.candidates(view.tiers[fast].id, Heat(0), Heat(255), false, builder.budget()),
            next, kOverfull);
      }
      balance(view, builder, fast);
    }
    return builder.take();
  }

 private:
  void balance(const View& view, PlanBuilder& builder, std::size_t fast) {
    const std::size_t slow = fast + 1;
    const auto [all, share] = shared_traffic(view, fast);
    if (all == 0) return;
    const TierView& first = view.tiers[fast];
    const TierView& second = view.tiers[slow];
    const bool measured = first.loaded_latency_ns != 0 && second.loaded_latency_ns != 0;
    std::uint64_t near = measured ? first.loaded_latency_ns : first.latency_ns;
    std::uint64_t far = measured ? second.loaded_latency_ns : second.latency_ns;
    // Of tiers of which nothing is known the first is the faster one.
    if (near == 0 || far == 0) near = 1, far = 2;
    const std::uint64_t apart = near > far ? near - far : far - near;
    if (apart * 100 < near * options_.delta_percent) return;

    const bool sooner = near < far;
    const std::uint64_t target =
        balances_[fast].next(share, sooner, kAllTraffic * options_.epsilon_permille / 1000);
    const HeatRuler ruler(std::max<std::uint64_t>(view.feedback.windows, 1));
    if (sooner && target > share) {
      shift_traffic(view, builder, slow, fast, (target - share) * (all / kAllTraffic + 1), ruler,
                    kApart, {kSooner, kMakeRoom});
    } else if (!sooner && target < share) {
      shift_traffic(view, builder, fast, slow, (share - target) * (all / kAllTraffic + 1), ruler,
                    kApart, {kLater, kComeBack});
    }
  }

  LatencyOptions options_;
  std::vector<BalancedShare> balances_;  ///< of each pair of neighbours
};

std::vector<NumberOption> known(LatencyOptions& options) {
  return {
      {"delta_percent", "latencies that differ by less are alike", &options.delta_percent, 0, 100},
      {"epsilon_permille", "the bisection ends when the bracket is narrower than this",
       &options.epsilon_permille, 1, 500},
  };
}

}  // namespace

PolicyFactory latency_policy() {
  return policy_with_options<LatencyPolicy>(
      {"latency", "shifts hot pages until both tiers answer alike under load", "Colloid (SOSP'24)"},
      known);
}

}  // namespace thermocline
