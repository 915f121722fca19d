// SPDX-License-Identifier: Apache-2.0
#include "engine/lookout.h"

#include <algorithm>
#include <map>

#include "heat/scale.h"

namespace thermocline {

namespace {

/// The hottest pages from among which the sample is taken.
constexpr PageCount kHottest{16384};
/// Touched pages that a look should find, and pages looked at: enough of the former, or none.
constexpr std::uint64_t kWanted = 64, kLeast = 128, kMost = 2048;
/// So many must be touched in a look for less to mean something.
constexpr std::uint64_t kEnough = 24;

}  // namespace

void Lookout::clear() {
  parts_.clear();
  looks_ = touched_before_ = 0;
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
  const std::uint64_t pages = std::max(kLeast, kWanted * 1024 * hottest.size() / shares);
  if (pages > kMost) return;
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

bool Lookout::has_changed() {
  const std::uint64_t usual = looks_ == 0 ? 0 : touched_before_ / looks_;
  ++looks_;
  touched_before_ += touched_;
  if (usual < kEnough || touched_ * 5 >= usual * 3) return false;
  // Three standard deviations of a count.
  return (usual - touched_) * (usual - touched_) > 9 * usual;
}

}  // namespace thermocline
