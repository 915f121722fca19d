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
/// So many of an address space must have been touched for it to be gone.
constexpr std::uint64_t kEnoughOfOne = 8;
/// Standard deviations that are no chance.
constexpr std::uint64_t kDeviations = 3;

}  // namespace

void Lookout::clear() {
  if (looks_ > 0) before_ = {std::move(parts_), window_, looks_, variance()};
  parts_.clear();
  missed_ = false;
  looks_ = sum_ = squares_ = 0;
}

void Lookout::choose(const HeatMap& heat, TierId tier, Nanoseconds window) {
  clear();
  window_ = window;
  PageFilter filter;
  filter.unmovable = true;  // most of what is hot has just been promoted
  const std::vector<PageRef> hottest =
      heat.candidates(tier, Heat(1), Heat(255), true, kHottest, filter);
  std::uint64_t shares = 0;
  for (const PageRef& page : hottest) shares += touched_share(page.heat.get());
  if (shares == 0) return;
  // So many pages are touched kWanted times in a window, when heat tells the truth.
  const std::uint64_t pages = std::clamp(kWanted * 1024 * hottest.size() / shares, kLeast, kMost);
  const std::size_t step = (hottest.size() + pages - 1) / pages;
  std::map<Asid, Part> parts;
  for (std::size_t i = step / 2; i < hottest.size(); i += step) {
    Part& part = parts[hottest[i].asid];
    part.asid = hottest[i].asid;
    part.ranges.push_back({hottest[i].vpn, hottest[i].order.pages()});
    part.expected += touched_share(hottest[i].heat.get());
  }
  for (auto& [asid, part] : parts) {
    std::sort(part.ranges.begin(), part.ranges.end(),
              [](const ScanRange& a, const ScanRange& b) { return a.first < b.first; });
    parts_.push_back(std::move(part));
  }
}

std::uint64_t Lookout::variance() const {
  return (squares_ * looks_ - sum_ * sum_) / (looks_ * looks_);
}

std::uint64_t Lookout::foretold(const Part& part) const {
  const auto same = std::lower_bound(before_.parts.begin(), before_.parts.end(), part.asid,
                                     [](const Part& one, Asid asid) { return one.asid < asid; });
  if (same == before_.parts.end() || same->asid != part.asid || same->expected == 0) return 0;
  const std::uint64_t usual = part.expected * same->sum / (same->expected * before_.looks);
  // In a window half as long at least half as many pages are touched.
  return window_ < before_.window ? usual * static_cast<std::uint64_t>(window_.count()) /
                                        static_cast<std::uint64_t>(before_.window.count())
                                  : usual;
}

void Lookout::begin() {
  missed_ = false;
  for (Part& part : parts_) part.touched = 0;
}

void Lookout::take(const RecordView& record) {
  const auto part = std::lower_bound(parts_.begin(), parts_.end(), record.asid,
                                     [](const Part& one, Asid asid) { return one.asid < asid; });
  if (part != parts_.end() && part->asid == record.asid)
    part->touched += record.accessed.population();
}

Lookout::Change Lookout::compare() {
  gone_.clear();
  if (missed_) {
    for (Part& part : parts_) part.sum = 0;
    looks_ = sum_ = squares_ = 0;
    return Change::kNone;
  }
  std::uint64_t touched = 0, should = 0, did = 0;
  for (const Part& part : parts_) {
    touched += part.touched;
    if (looks_ > 0) continue;
    const std::uint64_t usual = foretold(part);
    should += usual;
    if (usual > 0) did += part.touched;
  }
  Change change = Change::kNone;
  if (looks_ > 0) {
    const std::uint64_t usual = sum_ / looks_;
    // Where pages are touched in turn, looks differ by more than a count of independent ones.
    const auto [few, many] = std::minmax(usual, touched);
    const std::uint64_t off = many - few;
    if (many >= kEnough && few * 5 < many * 3 &&
        off * off > kDeviations * kDeviations * std::max(many, variance()))
      change = touched > usual ? Change::kMore : Change::kLess;
  } else if (should >= kEnough && did * 5 < should * 2 &&
             (should - did) * (should - did) > kDeviations * kDeviations * before_.variance) {
    change = Change::kLess;
  }
  for (Part& part : parts_) {
    const std::uint64_t usual = looks_ == 0 ? foretold(part) : part.sum / looks_;
    if (change == Change::kLess && usual >= kEnoughOfOne && part.touched * 4 < usual)
      gone_.push_back(part.asid);
    part.sum += part.touched;
  }
  ++looks_;
  sum_ += touched;
  squares_ += touched * touched;
  return change;
}

}  // namespace thermocline
