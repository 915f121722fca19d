// SPDX-License-Identifier: Apache-2.0
#include "engine/lookout.h"

#include <algorithm>
#include <map>

#include "heat/scale.h"

namespace thermocline {

namespace {

/// The hottest pages from among which the sample is taken.
constexpr PageCount kHottest{16384};
/// Touched pages that a look should find, and pages looked at for it. Where so many don't suffice,
/// a look can still tell that more are touched.
constexpr std::uint64_t kWanted = 64, kLeast = 128, kMost = 512;
/// So many must be touched in a look for less, or for more, to mean something.
constexpr std::uint64_t kEnough = 24;
/// Standard deviations that are no chance.
constexpr std::uint64_t kDeviations = 3;

}  // namespace

void Lookout::clear() {
  parts_.clear();
  looks_ = sum_ = squares_ = 0;
}

void Lookout::choose(const HeatMap& heat, TierId tier) {
  clear();
  PageFilter filter;
  filter.unmovable = true;  // most of what is hot has just been promoted
  const std::vector<PageRef> hottest =
      heat.candidates(tier, Heat(1), Heat(255), true, kHottest, filter);
  std::uint64_t shares = 0;
  for (const PageRef& page : hottest) shares += touched_share(page.heat.get());
  if (shares == 0) return;
  // So many pages are touched kWanted times in a window, when heat tells the truth.
  const std::uint64_t pages = std::clamp(kWanted * 1024 * hottest.size() / shares, kLeast, kMost);
  const std::size_t step = std::max<std::size_t>(hottest.size() / pages, 1);
  std::map<Asid, std::vector<ScanRange>> parts;
  for (std::size_t i = step / 2; i < hottest.size(); i += step)
    parts[hottest[i].asid].push_back({hottest[i].vpn, hottest[i].order.pages()});
  for (auto& [asid, ranges] : parts) {
    std::sort(ranges.begin(), ranges.end(),
              [](const ScanRange& a, const ScanRange& b) { return a.first < b.first; });
    parts_.push_back({asid, std::move(ranges)});
  }
}

Lookout::Change Lookout::compare() {
  const std::uint64_t looks = looks_++;
  const std::uint64_t usual = looks == 0 ? 0 : sum_ / looks;
  // Where pages are touched in turn, looks differ by more than a count of independent ones.
  const std::uint64_t variance = looks == 0 ? 0 : squares_ / looks - usual * usual;
  sum_ += touched_;
  squares_ += touched_ * touched_;
  const auto [few, many] = std::minmax(usual, touched_);
  const std::uint64_t off = many - few;
  if (looks == 0 || many < kEnough || few * 5 >= many * 3 ||
      off * off <= kDeviations * kDeviations * std::max(many, variance))
    return Change::kNone;
  if (touched_ > usual) return Change::kMore;
  return few * 4 < many ? Change::kGone : Change::kLess;
}

}  // namespace thermocline
