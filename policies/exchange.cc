// SPDX-License-Identifier: Apache-2.0
// Policy `exchange`: one for one.
//
// The hottest page of the slow tier changes places with the coldest of the fast one, then the
// second with the second, as long as the first was touched in some windows more: the anti-thrash
// threshold. What the fast tier holds neither grows nor shrinks, even when it has room; how much an
// epoch may move is bounded as well. When no pair is far enough apart it has converged, and rests.
//
// Source: intel/memory-optimizer (2018-2023): exchange of as many hot as cold pages,
// anti_thrash_threshold = 2 references, one_period_migration_size = 256 MiB.
#include <array>

#include "heat/scale.h"
#include "policies/builtin.h"
#include "policies/options.h"
#include "policies/plan_builder.h"

namespace thermocline {

namespace {

struct ExchangeOptions {
  unsigned anti_thrash = 2;
  unsigned most_mib = 256;
};

enum Rule : std::uint8_t { kHotter, kColder, kOverfull };
constexpr std::array<std::string_view, 3> kRules = {
    "touched in more windows than the page it changes places with",
    "touched in fewer windows than the page it changes places with",
    "coldest on its tier, which holds more than its share",
};

class ExchangePolicy final : public Policy {
 public:
  ExchangePolicy(const ExchangeOptions& options, std::uint64_t) : options_(options) {}
  [[nodiscard]] std::string_view name() const override { return "exchange"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return kRules; }

  [[nodiscard]] Plan decide(const View& view) override {
    PlanBuilder builder(view);
    const std::uint64_t windows = std::max<std::uint64_t>(view.feedback.windows, 1);
    const std::uint64_t apart = options_.anti_thrash * kWindowSum / windows;
    const auto most =
        static_cast<std::size_t>(pages_of(Bytes(std::uint64_t{options_.most_mib} << 20)).get());
    const PageCount limit(std::min<std::uint64_t>(builder.budget().get() / 2, most));
    for (std::size_t fast = 0; fast + 1 < view.tiers.size(); ++fast) {
      const auto hot =
          view.heat.candidates(view.tiers[fast + 1].id, Heat(1), Heat(255), true, limit);
      auto cold = view.heat.candidates(view.tiers[fast].id, Heat(0), Heat(255), false, limit);
      std::size_t given_back = 0;
      builder.give_back(fast, cold, given_back, kOverfull);
      cold.erase(cold.begin(), cold.begin() + static_cast<std::ptrdiff_t>(given_back));
      for (const PageOrder order : {kOrder4K, kOrder2M, kOrder1G})
        pair_up(builder, of_size(hot, order), of_size(cold, order), fast, apart);
    }
    return builder.take();
  }

 private:
  static std::vector<PageRef> of_size(const std::vector<PageRef>& pages, PageOrder order) {
    std::vector<PageRef> result;
    for (const PageRef& page : pages)
      if (page.order == order) result.push_back(page);
    return result;
  }

  static void pair_up(PlanBuilder& builder, const std::vector<PageRef>& hot,
                      const std::vector<PageRef>& cold, std::size_t fast, std::uint64_t apart) {
    for (std::size_t i = 0; i < std::min(hot.size(), cold.size()); ++i) {
      const unsigned above = hot[i].heat.get(), below = cold[i].heat.get();
      if (above <= below || above - below < apart) return;
      if (!builder.exchange(hot[i], cold[i], fast, fast + 1, kHotter, kColder)) return;
    }
  }

  ExchangeOptions options_;
};

std::vector<NumberOption> known(ExchangeOptions& options) {
  return {
      {"anti_thrash",
       "windows of an epoch in which the hotter page must have been touched more often",
       &options.anti_thrash, 0, 64},
      {"most_mib", "MiB that change places in an epoch, at most", &options.most_mib, 1, 1u << 20},
  };
}

}  // namespace

PolicyFactory exchange_policy() {
  return policy_with_options<ExchangePolicy>(
      {"exchange", "the hottest slow page changes places with the coldest fast one, one for one",
       "intel/memory-optimizer"},
      known);
}

}  // namespace thermocline
