// SPDX-License-Identifier: Apache-2.0
// Policy `auto`, the default: capacity-fitted hotness without a knob. Policy `heat` (heat.cc) is
// the plain form of it.
//
// The hot set is what fits the fast tier: its edge is the smallest heat such that all pages at or
// above it fit (View::threshold). Pages at the edge or hotter are promoted, hottest first; to make
// room the coldest pages are demoted, and no more than needed. A pair (promotion, demotion) must
// pay: the pages of a pair lie at least a band apart, so that pages at the edge don't bounce.
//
// How wide a band? Heat is a sample, so distances are measured in standard deviations of its noise
// (HeatRuler, heat/scale.h). Among many pages of one temperature the luckiest and the unluckiest
// are six deviations apart, and exchanging them is work for nothing. But a band as wide as that
// would be blind for epochs to a hot set that has just moved. So the crowd decides:
//   - When a fiftieth of the fast tier, a tenth or a quarter could be exchanged with pairs further
//     apart than luck puts that many (4.5, 3 and 1.9 deviations, a little more when the slow tier
//     is much larger and so has more lucky pages), the placement is off. Pairs are then exchanged
//     from the farthest on for as long as luck doesn't put that many as far apart; at least half a
//     deviation they are in any case.
//   - Else only pairs that are 6.8 deviations apart are exchanged: stragglers.
// The ruler takes windows for independent samples. Where they are not (a program that streams
// touches a whole range in one window and then leaves it), luck reaches further. So each exchange
// is judged by what came of it: the share of accesses that the fast tier serves should rise by what
// the heats promised. While it does not, distances count for less, down to one in kMostDoubt.
//
// And a move must repay itself: accesses are served sooner by what the tiers' latencies differ.
// Until the placement has to be another one, these add up to the CPU time of the moves at least.
// How long that is nobody knows; a minute, or as long again as the hot set has been what it is. How
// many accesses there are is seen of pages that are touched seldom only: a page that is touched in
// each window may have any number. So memory that is hardly used is left where it is.
//
// Where the host measures latency under load, and the faster tier answers later than the slower one
// for a while because too many want it, hot pages go down instead, until both answer alike
// (BalancedShare, policies/traffic.h).
//
// Every pair of neighbouring tiers is treated so, fastest pair first; the edge of a lower pair is
// that of all tiers above it together.
//
// Sources: capacity-fitted threshold from counts by hotness, and a warm set between hot and cold
// that is left where it is: MEMTIS (Lee et al., SOSP'23). Exchange of the hottest slow with the
// coldest fast page: Nimble (Yan et al., ASPLOS'19). Balance under load: Colloid (Vuppalapati,
// Agarwal, SOSP'24). The test for luck is ours.
#include <algorithm>
#include <array>
#include <bit>
#include <optional>

#include "heat/scale.h"
#include "policies/builtin.h"
#include "policies/options.h"
#include "policies/plan_builder.h"
#include "policies/traffic.h"
#include "policies/window_advice.h"

namespace thermocline {

namespace {

enum Rule : std::uint8_t { kRoom, kHotter, kMakeRoom, kOverfull, kLater, kComeBack };
constexpr std::array<std::string_view, 6> kRules = {
    "hot enough for the faster tier, which has room",
    "hotter than the page it replaces by more than the band",
    "coldest on its tier, makes room for a hotter page",
    "coldest on its tier, which holds more than its share",
    "hot, and the faster tier answers later because of its load",
    "coldest on its tier, makes room for a hot page that leaves the loaded tier",
};

/// Pages that are enough to tell; of more only as many are looked at.
constexpr std::uint64_t kSample = 4u << 20;
constexpr std::uint64_t kOne = 1;

/// A crowd: when one in so many pages of a tier can be exchanged with pairs `far` apart (hundredths
/// of a deviation), that is no luck. Of two equal crowds of one size the pages at the 98, 90 and
/// 75 % quantiles are 4.1, 2.6 and 1.4 deviations apart, and further by a quarter to a third for
/// every doubling of one of them. A large crowd tells sooner that a hot set has moved, a small one
/// finds a few pages in the wrong place.
struct Crowd {
  std::uint64_t one_in, far, per_doubling;
};
constexpr std::array<Crowd, 3> kCrowds = {{{50, 450, 25}, {10, 300, 30}, {4, 190, 35}}};
/// Of pages of one temperature, hundredths of a deviation by which the luckiest so many thousandths
/// are off at least.
struct Luck {
  std::uint64_t share;
  std::int64_t off;
};
constexpr std::array<Luck, 19> kLuck = {{{1, 309},
                                         {2, 288},
                                         {5, 258},
                                         {10, 233},
                                         {20, 205},
                                         {50, 164},
                                         {100, 128},
                                         {167, 97},
                                         {250, 67},
                                         {333, 43},
                                         {400, 25},
                                         {500, 0},
                                         {600, -25},
                                         {667, -43},
                                         {750, -67},
                                         {833, -97},
                                         {900, -128},
                                         {950, -164},
                                         {980, -205}}};
/// Heat scatters a little further than a settled one's ruler says.
constexpr std::int64_t kScatter = 30;
/// Colder pages are never promoted: touched in one window of 256.
constexpr unsigned kLeastHeat = 4;
/// Least distance of any pair.
constexpr std::uint64_t kBand = HeatRuler::kUnit / 2;
/// Distance of a single pair that is no luck.
constexpr std::uint64_t kSure = HeatRuler::kUnit * 68 / 10;
/// Decisions until heat has settled. At first it scatters further than a settled one: by so many
/// tenths while it is in the range of the long memory, and above.
constexpr std::uint64_t kSettling = 24;
constexpr std::uint64_t kUnsettled = 5, kUnsettledAbove = 7;
/// What exchanges promised and what came of it is forgotten by one part in so many a decision.
constexpr std::uint64_t kMemory = 16;
/// Distances count for one in so many at least.
constexpr std::uint64_t kMostDoubt = 3;
/// A placement lasts so long at least, for all that is known.
constexpr std::uint64_t kHorizonNs = 60'000'000'000;
/// By how much a slower tier answers later, where nobody knows latencies.
constexpr std::uint64_t kLaterNs = 100;
/// A tier is crowded when it answers later than the slower one by a fifth, at so many decisions in
/// a row and for so long: measurements scatter, and more decisions than one may hear of the same.
/// It is no longer when it answers sooner, at so many, and no traffic can be given back.
constexpr unsigned kCrowded = 3, kIdle = 4;
constexpr std::uint64_t kCrowdedNs = 5'000'000'000;
/// Who serves less than one part in so many of the traffic is not crowded by it.
constexpr std::uint64_t kNextToNothing = 8;
/// Latencies that differ by a twentieth are alike, and a bracket of a hundredth of the traffic is
/// as good as none (Colloid's delta and epsilon).
constexpr std::uint64_t kAlike = 20, kNarrow = kAllTraffic / 100;

using Histogram = std::array<PageCount, 256>;

/// Heats of the last of the first `pages` pairs, when the hottest of the slow tier are paired with
/// the coldest of the fast one; equal heats when there are not that many pages.
std::pair<unsigned, unsigned> pair_at(const Histogram& slow, const Histogram& fast,
                                      std::uint64_t pages) {
  unsigned hot = 255, cold = 0;
  for (std::uint64_t n = slow[hot].get(); n < pages; n += slow[hot].get())
    if (hot-- == 0) return {0, 0};
  for (std::uint64_t n = fast[cold].get(); n < pages; n += fast[cold].get())
    if (cold++ == 255) return {0, 0};
  return {hot, cold};
}

/// Accesses of a page in 1024 windows, as its heat tells: of p touched windows p / (1 - p), which
/// is near p where it is small and more than the -ln(1 - p) of accesses at random.
std::uint64_t accesses(unsigned heat) {
  const std::uint64_t share = touched_share(heat);
  return share * 1024 / (1025 - share);
}

/// By how much the luckiest of pages of one temperature are off, of which they are so many
/// thousandths.
std::int64_t luck(std::uint64_t share) {
  // Of a few pages any may be the luckiest.
  std::int64_t off = 340;
  for (const Luck& entry : kLuck)
    if (share >= entry.share) off = entry.off;
  return off;
}

class AutoPolicy final : public Policy {
 public:
  [[nodiscard]] std::string_view name() const override { return "auto"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return kRules; }
  [[nodiscard]] bool needs_loaded_latency() const override { return true; }

  [[nodiscard]] Plan decide(const View& view) override {
    if (view.feedback.windows != windows_) {
      windows_ = view.feedback.windows;
      ruler_ = HeatRuler(windows_);
    }
    if (view.feedback.changed) {
      decisions_ = 0;        // heat is unsettled again
      accessed_before_ = 0;  // what came of the last plan can't be told
      steady_ns_ = 0;
    }
    steady_ns_ += static_cast<std::uint64_t>(view.feedback.epoch.count());
    crowding_.resize(view.tiers.size() - 1);
    judge(view.feedback, view.tiers.front().used);
    PlanBuilder builder(view);
    PageCount above;
    for (std::size_t fast = 0; fast + 1 < view.tiers.size(); ++fast) {
      above += view.tiers[fast].capacity;
      balance(view, builder, fast, fast == 0 ? view.threshold : view.heat.select(above));
    }
    Plan plan = builder.take();
    plan.advice = advise_windows(view);
    ++decisions_;
    return plan;
  }

 private:
  /// Holds what the last plan promised against what the fast tier serves now.
  void judge(const Feedback& feedback, PageCount fast) {
    const std::uint64_t windows = std::max(feedback.windows, kOne);
    const std::uint64_t accessed = feedback.accessed_page_windows.get();
    const std::uint64_t served = feedback.accessed_page_windows_fast.get();
    const std::uint64_t applied = feedback.promoted.get();
    if (planned_ > 0 && accessed > 0 && accessed_before_ > 0) {
      const std::uint64_t promised = promised_ / 1024 * std::min(applied, planned_) / planned_;
      const std::uint64_t without = served_before_ * accessed / accessed_before_;
      const std::uint64_t gained = served > without ? (served - without) / windows : 0;
      promises_ += promised * kMemory;
      kept_ += std::min(gained, promised) * kMemory;
    }
    promises_ -= promises_ / kMemory;
    kept_ -= kept_ / kMemory;
    accessed_before_ = accessed;
    served_before_ = served;
    planned_ = promised_ = 0;
    // What is next to nothing beside the tier is no evidence.
    const std::uint64_t benefit = fast.get() * kMemory / 64 + 1;
    doubt_ = std::clamp(HeatRuler::kUnit * (promises_ + benefit) / (2 * kept_ + benefit),
                        HeatRuler::kUnit, kMostDoubt * HeatRuler::kUnit);
  }

  /// Standard deviations, in HeatRuler::kUnit, that heats lie apart, as far as that is believed.
  std::uint64_t distance(unsigned hot, unsigned cold) const {
    return ruler_.distance(hot, cold) * HeatRuler::kUnit / doubt_;
  }

  /// How far apart pairs of two tiers must be.
  std::uint64_t least_distance(const View& view, std::size_t fast) const {
    const std::uint64_t fast_pages = std::max<std::uint64_t>(view.tiers[fast].used.get(), 1);
    const std::uint64_t slow_pages = std::max<std::uint64_t>(view.tiers[fast + 1].used.get(), 1);
    const auto one_in = static_cast<unsigned>(
        std::clamp((fast_pages + slow_pages) / kSample, kOne, std::uint64_t{1024}));
    const Histogram slow = view.heat.histogram(view.tiers[fast + 1].id, true, one_in);
    const Histogram held = view.heat.histogram(view.tiers[fast].id, true, one_in);
    if (!placement_is_off(slow, held, fast_pages / one_in, slow_pages / one_in)) return kSure;
    // From pair to pair, as far as one heat goes on either side.
    std::uint64_t least = kSure, pairs = 0;
    unsigned hot = 255, cold = 0;
    for (std::uint64_t slow_left = slow[hot].get(), fast_left = held[cold].get(); hot > cold;) {
      const std::uint64_t run = std::min(slow_left, fast_left);
      pairs += run * one_in;
      const std::int64_t by_luck =
          luck(pairs * 1000 / fast_pages) + luck(pairs * 1000 / slow_pages) + kScatter;
      const std::uint64_t apart = distance(hot, cold);
      if (run > 0 && static_cast<std::int64_t>(apart * 100 / HeatRuler::kUnit) >= by_luck)
        least = std::min(least, apart);
      slow_left -= run, fast_left -= run;
      if (slow_left == 0) slow_left = slow[--hot].get();
      if (fast_left == 0) fast_left = held[++cold].get();
    }
    return least;
  }

  bool placement_is_off(const Histogram& slow, const Histogram& held, std::uint64_t fast_pages,
                        std::uint64_t slow_pages) const {
    const auto doublings = static_cast<std::uint64_t>(
        std::bit_width(std::max(slow_pages / std::max(fast_pages, kOne), kOne)) - 1);
    const std::uint64_t unsettled = kSettling - std::min(decisions_, kSettling);
    return std::any_of(kCrowds.begin(), kCrowds.end(), [&](const Crowd& crowd) {
      const auto [hot, cold] = pair_at(slow, held, std::max(fast_pages / crowd.one_in, kOne));
      const std::uint64_t far = (crowd.far + crowd.per_doubling * doublings) * HeatRuler::kUnit;
      return distance(hot, cold) * 100 >=
             far + far * (hot < kLongMemory ? kUnsettled : kUnsettledAbove) * unsettled /
                       (10 * kSettling);
    });
  }

  struct Crowding {
    unsigned later = 0;  ///< decisions in a row at which the faster tier answered much later
    std::uint64_t later_ns = 0;  ///< that they took
    unsigned idle = 0;  ///< at which it answered sooner and nothing was planned, or nobody knew
    std::optional<BalancedShare> balance;  ///< while the faster tier is crowded
  };

  /// Whether traffic decides where pages of the tiers at `fast` and below are, not room. Plans what
  /// follows.
  bool relieve_crowded(const View& view, PlanBuilder& builder, std::size_t fast) {
    const std::size_t slow = fast + 1;
    const std::uint64_t near = view.tiers[fast].loaded_latency_ns;
    const std::uint64_t far = view.tiers[slow].loaded_latency_ns;
    Crowding& crowding = crowding_[fast];
    if (near == 0 || far == 0) {
      if (crowding.balance && ++crowding.idle < kIdle) return true;  // told again soon, maybe
      crowding = {};
      return false;
    }
    const bool much_later = near > far + far / 5;
    crowding.later = much_later ? crowding.later + 1 : 0;
    crowding.later_ns =
        much_later ? crowding.later_ns + static_cast<std::uint64_t>(view.feedback.epoch.count())
                   : 0;
    if (crowding.later >= kCrowded && crowding.later_ns >= kCrowdedNs && !crowding.balance)
      crowding.balance.emplace();
    if (!crowding.balance) return false;
    const auto [all, share] = shared_traffic(view, fast);
    // Where both answer alike a page is served as soon on either.
    if (std::max(near, far) - std::min(near, far) < near / kAlike) {
      crowding.idle = 0;
      if (share >= kAllTraffic / kNextToNothing) return true;
      crowding = {};
      return false;
    }
    const bool sooner = near < far;
    const std::uint64_t target = crowding.balance->next(share, sooner, kNarrow);
    const std::uint64_t unit = all / kAllTraffic + 1;
    if (!sooner) {
      crowding.idle = 0;
      if (target < share)
        shift_traffic(view, builder, fast, slow, (share - target) * unit, ruler_, kBand,
                      {kLater, kComeBack});
      return true;
    }
    const bool planned = !crowding.balance->is_open() && target > share &&
                         shift_traffic(view, builder, slow, fast, (target - share) * unit, ruler_,
                                       kSure, {kHotter, kMakeRoom});
    crowding.idle = planned ? 0 : crowding.idle + 1;
    if (!crowding.balance->is_open() && crowding.idle < kIdle) return true;
    crowding = {};  // room decides again
    return false;
  }

  /// By how many accesses more in 1024 windows a page must be worth than one that goes down for it
  /// so that moving both repays itself.
  std::uint64_t least_gain(const View& view, std::size_t fast) const {
    // When idle: the load of now is not that of the next minute.
    const std::uint64_t near = view.tiers[fast].latency_ns;
    const std::uint64_t far = view.tiers[fast + 1].latency_ns;
    const std::uint64_t later = near == 0 || far <= near ? kLaterNs : far - near;
    const std::uint64_t windows =
        std::max(kHorizonNs, steady_ns_) /
        std::max<std::uint64_t>(static_cast<std::uint64_t>(view.feedback.window.count()), 1);
    const auto cost = 2 * static_cast<std::uint64_t>(view.feedback.page_move.count());
    return cost * 1024 / std::max<std::uint64_t>(windows * later, 1);
  }

  void balance(const View& view, PlanBuilder& builder, std::size_t fast, const Threshold& edge) {
    const std::size_t slow = fast + 1;
    const std::vector<PageRef> cold =
        view.heat.candidates(view.tiers[fast].id, Heat(0), Heat(255), false,
                             builder.budget() + PageCount(builder.plan().promotions.size()));
    std::size_t next = 0;
    builder.give_back(fast, cold, next, kOverfull);
    if (relieve_crowded(view, builder, fast)) return;

    // One below the edge: what fits the capacity only in part.
    const unsigned floor = std::max(edge.heat.get() > 0 ? edge.heat.get() - 1u : 0u, kLeastHeat);
    const std::vector<PageRef> hot =
        view.heat.candidates(view.tiers[slow].id, Heat(static_cast<std::uint8_t>(floor)), Heat(255),
                             true, builder.budget());
    if (hot.empty()) return;
    const std::uint64_t least = std::max(least_distance(view, fast), kBand);
    const std::uint64_t gain = least_gain(view, fast);
    const PageRef* hotter = nullptr;
    const auto pays = [&](const PageRef& colder) {
      const unsigned up = hotter->heat.get(), down = colder.heat.get();
      return up > down && distance(up, down) >= least && accesses(up) >= accesses(down) + gain;
    };
    const PageRef* coldest_promoted = nullptr;
    std::int64_t promoted_pages = 0;
    for (const PageRef& page : hot) {
      hotter = &page;
      if (2 * accesses(page.heat.get()) < gain) break;  // not even where there is room
      const std::size_t from = next;
      if (!builder.promote(page, fast, slow, cold, next, pays, kRoom, kHotter, kMakeRoom)) {
        if (page.order == kOrder4K) break;  // what follows is no hotter
        continue;
      }
      coldest_promoted = &page;
      promoted_pages += PlanBuilder::pages_of(page);
      if (fast > 0) continue;
      planned_ += page.order.pages().get();
      promised_ += traffic_of(page);
      for (std::size_t i = from; i < next; ++i)
        promised_ -= std::min(promised_, traffic_of(cold[i]));
    }
    if (fast > 0 || coldest_promoted == nullptr) return;
    hotter = coldest_promoted;
    for (; next < cold.size() && promoted_pages > 0 && pays(cold[next]); ++next) {
      const PageRef& page = cold[next];
      builder.plan().spares.push_back(
          {page.asid, page.vpn, page.order, page.tier, view.tiers[slow].id, page.heat, kMakeRoom});
      promoted_pages -= PlanBuilder::pages_of(page);
    }
  }

  std::uint64_t decisions_ = 0;
  std::uint64_t windows_ = 0;
  HeatRuler ruler_{1};
  std::uint64_t planned_ = 0;   ///< pages that the last plan promotes to the fastest tier
  std::uint64_t promised_ = 0;  ///< touches a window that it then serves more, times 1024
  std::uint64_t accessed_before_ = 0, served_before_ = 0;  ///< as the last decision saw them
  std::uint64_t promises_ = 0, kept_ = 0;                  ///< of late, times kMemory
  std::uint64_t doubt_ = HeatRuler::kUnit;
  std::uint64_t steady_ns_ = 0;     ///< since the hot set was another one
  std::vector<Crowding> crowding_;  ///< of each pair of neighbours
};

}  // namespace

PolicyFactory auto_policy() {
  PolicyFactory factory;
  factory.name = "auto";
  factory.summary = "fits the hottest pages to the fast tier; moves what luck doesn't explain";
  factory.source =
      "capacity-fitted threshold and warm set of MEMTIS (SOSP'23), exchange of Nimble "
      "(ASPLOS'19), balance under load of Colloid (SOSP'24); the test for luck is ours";
  factory.make = [](std::span<const PolicyOption> given,
                    std::uint64_t) -> Result<std::unique_ptr<Policy>> {
    TC_TRY(read_options("auto", given, {}));
    return std::make_unique<AutoPolicy>();
  };
  return factory;
}

}  // namespace thermocline
