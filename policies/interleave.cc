// SPDX-License-Identifier: Apache-2.0
// Policy `interleave`: spreads traffic over the tiers in proportion to their bandwidth.
//
// For programs that are bound by bandwidth: tiers that work at once serve more than the fastest
// alone. Traffic is what accessed bits tell of it (policies/traffic.h). When the share of a tier is
// off by more than a band, the hottest pages are shifted, so that few moves do. Where the fast tier
// has no room for its share it gets as much as fits.
//
// It also advises weights for the kernel's weighted interleaving (Linux 6.9 and later), so that new
// pages of programs that ask for it are spread alike; the host sets them. Nothing is moved and
// nothing advised when the bandwidth of a tier is not known.
//
// Source: weighted interleave of Linux 6.9 (Price, Kim et al., 2024) and its tuning from HMAT
// bandwidth (Hahn, Price, 2025); page placement in proportion to bandwidth: BWAP (Gureya et al.,
// IPDPS'20).
#include <array>
#include <numeric>

#include "policies/builtin.h"
#include "policies/options.h"
#include "policies/plan_builder.h"
#include "policies/traffic.h"

namespace thermocline {

namespace {

struct InterleaveOptions {
  unsigned band_percent = 3;
};

enum Rule : std::uint8_t { kUp, kMakeRoom, kDown, kComeBack };
constexpr std::array<std::string_view, 4> kRules = {
    "the faster tier serves less than its share of the bandwidth",
    "coldest on its tier, makes room for a hot page",
    "the faster tier serves more than its share of the bandwidth",
    "coldest on its tier, makes room for a hot page that leaves the busier tier",
};

/// Pages that are exchanged lie so many deviations apart: luck is no reason.
constexpr std::uint64_t kApart = 5 * HeatRuler::kUnit;
/// Weight of the fastest tier: finer ratios would make runs of pages on one node longer.
constexpr std::uint64_t kTopWeight = 16;

class InterleavePolicy final : public Policy {
 public:
  InterleavePolicy(const InterleaveOptions& options, std::uint64_t) : options_(options) {}
  [[nodiscard]] std::string_view name() const override { return "interleave"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return kRules; }

  [[nodiscard]] Plan decide(const View& view) override {
    PlanBuilder builder(view);
    const bool known = std::all_of(view.tiers.begin(), view.tiers.end(),
                                   [](const TierView& t) { return t.bandwidth_mbps > 0; });
    if (!known || view.tiers.size() < 2) return builder.take();
    builder.plan().interleave = weights(view);

    std::uint64_t bandwidth = 0, traffic = 0;
    std::vector<std::uint64_t> served;
    for (std::size_t t = 0; t < view.tiers.size(); ++t) {
      served.push_back(traffic_of(view, t));
      bandwidth += view.tiers[t].bandwidth_mbps;
      traffic += served.back();
    }
    const HeatRuler ruler(std::max<std::uint64_t>(view.feedback.windows, 1));
    std::uint64_t above = 0, bandwidth_above = 0;
    for (std::size_t fast = 0; fast + 1 < view.tiers.size(); ++fast) {
      // Of all tiers down to this one.
      above += served[fast];
      bandwidth_above += view.tiers[fast].bandwidth_mbps;
      const std::uint64_t wanted = share(traffic, bandwidth_above, bandwidth);
      const std::uint64_t band = traffic / 100 * options_.band_percent;
      if (above + band < wanted)
        shift_traffic(view, builder, fast + 1, fast, wanted - above, ruler, kApart,
                      {kUp, kMakeRoom});
      else if (above > wanted + band)
        shift_traffic(view, builder, fast, fast + 1, above - wanted, ruler, kApart,
                      {kDown, kComeBack});
    }
    return builder.take();
  }

 private:
  /// traffic * part / whole without overflow.
  static std::uint64_t share(std::uint64_t traffic, std::uint64_t part, std::uint64_t whole) {
    return traffic / whole * part + traffic % whole * part / whole;
  }

  static InterleaveAdvice weights(const View& view) {
    std::uint64_t top = 0;
    for (const TierView& tier : view.tiers) top = std::max(top, tier.bandwidth_mbps);
    InterleaveAdvice advice;
    unsigned common = 0;
    for (const TierView& tier : view.tiers) {
      const std::uint64_t weight = (share(kTopWeight * 2, tier.bandwidth_mbps, top) + 1) / 2;
      advice.tier_weights.push_back(
          static_cast<std::uint8_t>(std::clamp<std::uint64_t>(weight, 1, 255)));
      common = std::gcd(common, unsigned{advice.tier_weights.back()});
    }
    for (std::uint8_t& weight : advice.tier_weights)
      weight = static_cast<std::uint8_t>(weight / common);
    return advice;
  }

  InterleaveOptions options_;
};

std::vector<NumberOption> known(InterleaveOptions& options) {
  return {
      {"band_percent", "a share of the traffic that is off by less is left alone",
       &options.band_percent, 1, 50},
  };
}

}  // namespace

PolicyFactory interleave_policy() {
  return policy_with_options<InterleavePolicy>(
      {"interleave", "spreads traffic over the tiers in proportion to their bandwidth",
       "weighted interleave of Linux 6.9; BWAP (IPDPS'20)"},
      known);
}

}  // namespace thermocline
