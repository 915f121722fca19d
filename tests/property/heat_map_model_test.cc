// SPDX-License-Identifier: Apache-2.0
// The heat map against a simple map of pages, under random records and calls.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "heat/heat_map.h"
#include "heat/kernels.h"
#include "heat/scale.h"
#include "tracking/record.h"

namespace thermocline {
namespace {

constexpr unsigned kIncrement = 19;

/// What the header of the heat map says, page by page.
class Model {
 public:
  struct Page {
    unsigned order = 0, heat = 0, place = 7, cooldown = 0, touches = 0;
    bool promoted = false, stuck = false;
    [[nodiscard]] bool observable() const { return place < 7; }
    [[nodiscard]] bool movable() const { return observable() && cooldown == 0 && !stuck; }
    [[nodiscard]] std::uint64_t size() const { return std::uint64_t{1} << order; }
  };
  using Key = std::pair<std::uint64_t, std::uint64_t>;  // address space, first page

  Key covering(std::uint64_t asid, std::uint64_t vpn) const {
    for (const unsigned order : {0u, 9u, 18u}) {
      const Key key{asid, vpn & ~((std::uint64_t{1} << order) - 1)};
      const auto it = pages.find(key);
      if (it != pages.end() && it->second.order == order) return key;
    }
    return {0, 0};
  }

  /// Split what covers the page until no page there is larger than `order`.
  void split_to(std::uint64_t asid, std::uint64_t vpn, unsigned order) {
    for (;;) {
      const auto it = pages.find(covering(asid, vpn));
      if (it == pages.end() || it->second.order <= order) return;
      Page part = it->second;
      const std::uint64_t first = it->first.second;
      part.order -= 9;
      pages.erase(it);
      for (std::uint64_t i = 0; i < 512; ++i) pages[{asid, first + i * part.size()}] = part;
    }
  }

  void see(std::uint64_t asid, std::uint64_t vpn, unsigned order, const EntryObservation& seen,
           bool count) {
    split_to(asid, vpn, order);
    if (!seen.present) {
      const auto it = pages.find({asid, vpn});
      if (it != pages.end() && it->second.order == order) pages.erase(it);
      return;
    }
    Page page;
    page.order = order;
    const auto same = pages.find({asid, vpn});
    if (same != pages.end() && same->second.order == order) {
      page = same->second;
    } else if (order > 0) {
      const std::uint64_t end = vpn + (std::uint64_t{1} << order);
      auto it = pages.lower_bound({asid, vpn});
      while (it != pages.end() && it->first.first == asid && it->first.second < end) {
        page.heat = std::max(page.heat, it->second.heat);
        page.cooldown = std::max(page.cooldown, it->second.cooldown);
        page.touches = std::max(page.touches, it->second.touches);
        it = pages.erase(it);
      }
    }
    unsigned place = 15;
    if (seen.node && seen.node->get() < 3)
      place = static_cast<unsigned>(seen.node->get()) + (seen.observable ? 0 : 8);
    if ((place & 7) != (page.place & 7)) page.stuck = false;
    page.place = place;
    if (count && seen.accessed && page.observable()) {
      page.heat = std::min(255u, page.heat + kIncrement);
      if ((page.touches & 127u) < 127) ++page.touches;
    }
    pages[{asid, vpn}] = page;
  }

  void clear(std::uint64_t asid, std::uint64_t first, std::uint64_t count) {
    // What sticks out of the range is split; what lies inside as a whole need not be.
    for (const std::uint64_t edge : {first, first + count}) {
      const auto it = pages.find(covering(asid, edge));
      if (it != pages.end() && it->first.second != edge) {
        const unsigned order = edge % 512 != 0 ? 0 : 9;
        split_to(asid, edge, order);
      }
    }
    const auto from = pages.lower_bound({asid, first});
    pages.erase(from, pages.lower_bound({asid, first + count}));
  }

  /// The next epoch's evidence begins: touches of this one are those of the one before.
  void begin_epoch() {
    if (!std::exchange(told, false)) return;
    for (auto& [key, page] : pages) page.touches = (page.touches & 127u) != 0 ? 128 : 0;
  }

  void age() {
    begin_epoch();
    told = true;
    const std::uint64_t epoch = epochs++;
    for (auto& [key, page] : pages) {
      if (page.observable())
        page.heat = aged(static_cast<std::uint8_t>(page.heat), dither_of(epoch));
      if (page.cooldown > 0) --page.cooldown;
    }
  }

  std::uint64_t at_least(unsigned heat) const {
    std::uint64_t n = 0;
    for (const auto& [key, page] : pages)
      if (page.observable() && page.heat >= heat) n += page.size();
    return n;
  }

  Threshold select(std::uint64_t capacity) const {
    for (const auto& [key, page] : pages)
      if (page.place == 8) capacity -= std::min(capacity, page.size());
    for (unsigned h = 0; h <= 255; ++h) {
      if (at_least(h) > capacity) continue;
      return {Heat(static_cast<std::uint8_t>(h)), true, PageCount(at_least(h)),
              PageCount(at_least(h > 0 ? h - 1 : 0))};
    }
    return {Heat(255), false, PageCount(at_least(255)), PageCount(at_least(254))};
  }

  std::vector<Key> candidates(unsigned tier, unsigned min, unsigned max, bool hottest,
                              std::uint64_t limit) const {
    std::vector<std::pair<unsigned, Key>> found;
    for (const auto& [key, page] : pages)
      if (page.movable() && page.place == tier && page.heat >= min && page.heat <= max)
        found.emplace_back(hottest ? 255 - page.heat : page.heat, key);
    std::stable_sort(found.begin(), found.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Key> result;
    for (const auto& [rank, key] : found) {
      const std::uint64_t size = pages.at(key).size();
      if (size > limit) break;
      limit -= size;
      result.push_back(key);
    }
    return result;
  }

  std::map<Key, Page> pages;
  std::uint64_t epochs = 0;
  bool told = false;
};

class HeatMapModel : public testing::TestWithParam<HeatKernels> {};

TEST_P(HeatMapModel, AgreesUnderRandomRecordsAndCalls) {
  for (unsigned seed = 0; seed < 6; ++seed) {
    std::mt19937 rng(seed);
    HeatMap map(HeatMap::Options{.window_heat = kIncrement, .kernels = &GetParam()});
    const TierId tiers[] = {TierId(0), TierId(1), TierId(2)};
    map.set_node_tiers(tiers);
    map.keep_touches(true);
    Model model;
    const auto pick = [&](std::uint64_t n) {
      return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(rng);
    };
    // Six blocks across the border of two GiB; now and then a GiB page over one half of them.
    const std::uint64_t base = (std::uint64_t{1} << 18) * 5 - 3 * 512;
    const auto any_page = [&] { return base + pick(6 * 512); };
    for (int step = 0; step < 400; ++step) {
      const std::uint64_t asid = 1 + pick(2);
      const std::uint64_t action = pick(100);
      if (action < 60) {
        const unsigned order = action < 45 ? 0 : action < 58 ? 9 : 18;
        std::uint64_t first = any_page();
        std::uint64_t count = 1 + pick(1200);
        if (pick(3) == 0) first &= ~std::uint64_t{511};
        if (pick(3) == 0) count = 512;
        if (order == 0) count = std::min(count, base + 6 * 512 - first);
        if (order == 9) {
          first &= ~std::uint64_t{511};
          count = 1 + pick(2);
        }
        if (order == 18) {
          if (pick(6) != 0) continue;
          first = first >> 18 << 18;
          count = 1;
        }
        // Uniform stretches as trackers send them, and wild ones.
        std::vector<EntryObservation> entries(count);
        const bool wild = pick(3) == 0;
        EntryObservation now;
        for (std::size_t i = 0; i < entries.size(); ++i) {
          if (i == 0 || pick(wild ? 2 : 300) == 0) {
            now = {};
            now.present = pick(5) != 0;
            if (now.present) {
              now.observable = pick(6) != 0;
              if (pick(12) != 0) now.node = NodeId(static_cast<std::int32_t>(pick(4)));
            }
          }
          entries[i] = now;
          if (now.present) entries[i].accessed = pick(2) == 0;
        }
        const bool counted = pick(5) != 0;
        std::vector<std::byte> bytes;
        RecordHeader header;
        header.asid = Asid(asid);
        RecordWriter(bytes).append(header, 0, Vpn(first),
                                   PageOrder(static_cast<std::uint8_t>(order)), entries);
        RecordReader reader(bytes);
        const auto record = reader.next();
        ASSERT_TRUE(record);
        if (counted) model.begin_epoch();
        const ApplyStats stats = map.apply(*record, counted);
        std::uint64_t pages = 0, accessed = 0, fast = 0;
        // A 4 KiB record splits every larger page it overlaps, before any entry counts.
        for (std::uint64_t i = 0; order == 0 && i < count; ++i) model.split_to(asid, first + i, 0);
        for (std::uint64_t i = 0; i < count; ++i) {
          model.see(asid, first + (i << order), order, entries[i], counted);
          const bool seen = entries[i].present && entries[i].observable && entries[i].node &&
                            entries[i].node->get() < 3;
          if (!seen) continue;
          pages += std::uint64_t{1} << order;
          if (!entries[i].accessed) continue;
          accessed += std::uint64_t{1} << order;
          if (entries[i].node->get() == 0) fast += std::uint64_t{1} << order;
        }
        ASSERT_EQ(stats.pages.get(), pages);
        ASSERT_EQ(stats.accessed.get(), accessed);
        ASSERT_EQ(stats.accessed_fast.get(), fast);
      } else if (action < 66) {
        std::uint64_t first = any_page(), count = 1 + pick(1500);
        if (pick(8) == 0) {
          first = 0;
          count = std::uint64_t{1} << 45;
        }
        map.clear_range(Asid(asid), Vpn(first), PageCount(count));
        model.clear(asid, first, count);
      } else if (action < 67) {
        map.forget(Asid(asid));
        model.clear(asid, 0, std::uint64_t{1} << 45);
      } else if (action < 80) {
        const std::uint64_t vpn = any_page();
        const auto tier = static_cast<std::uint8_t>(pick(3));
        const auto cooldown = static_cast<unsigned>(pick(4));
        const bool promotion = pick(2) == 0;
        const auto it = model.pages.find(model.covering(asid, vpn));
        if (pick(4) == 0) {
          map.mark_stuck(Asid(asid), Vpn(vpn));
          if (it != model.pages.end()) it->second.stuck = true;
        } else {
          map.moved(Asid(asid), Vpn(vpn), TierId(tier), promotion, cooldown);
          if (it != model.pages.end()) {
            it->second.place = tier | (it->second.place & 8u);
            it->second.cooldown = cooldown;
            it->second.promoted = promotion;
            it->second.stuck = false;
          }
        }
      } else {
        std::uint64_t total = 0;
        for (const auto& [key, page] : model.pages) total += page.size();
        const std::uint64_t capacity = pick(total + 10);
        const bool ageing = pick(2) == 0;
        if (ageing) model.age();
        const Threshold actual =
            ageing ? map.age_and_select(PageCount(capacity)) : map.select(PageCount(capacity));
        const Threshold expected = model.select(capacity);
        ASSERT_EQ(actual.heat, expected.heat) << "capacity " << capacity << " of " << total;
        ASSERT_EQ(actual.fits, expected.fits);
        ASSERT_EQ(actual.at_or_above, expected.at_or_above);
        ASSERT_EQ(actual.below_edge, expected.below_edge);
      }
      // Everything that can be asked.
      for (int probe = 0; probe < 40; ++probe) {
        const std::uint64_t vpn = any_page();
        const auto it = model.pages.find(model.covering(asid, vpn));
        const auto found = map.look_up(Asid(asid), Vpn(vpn));
        ASSERT_EQ(found.has_value(), it != model.pages.end()) << "step " << step;
        if (!found) continue;
        const Model::Page& page = it->second;
        ASSERT_EQ(found->first.get(), page.heat) << "seed " << seed << " step " << step;
        ASSERT_EQ(found->second.raw() & 15u, page.place);
        ASSERT_EQ(found->second.cooldown(), page.cooldown);
        ASSERT_EQ(found->second.stuck(), page.stuck);
        ASSERT_EQ(found->second.movable(), page.movable());
      }
      if (step % 10 != 0) continue;
      std::array<std::uint64_t, 16> by_place{};
      std::array<PageCount, 256> histogram{}, movable{};
      for (const auto& [key, page] : model.pages) {
        by_place[page.place] += page.size();
        if ((page.place & 7u) == 1) histogram[page.heat] += PageCount(page.size());
        if (page.place == 1 && page.movable()) movable[page.heat] += PageCount(page.size());
      }
      const Occupancy held = map.occupancy();
      std::uint64_t unobservable = by_place[15];
      for (std::size_t t = 0; t < kMaxTiers; ++t) {
        ASSERT_EQ(held.per_tier[t].get(), by_place[t] + by_place[t + 8]);
        unobservable += by_place[t + 8];
      }
      ASSERT_EQ(held.unobservable.get(), unobservable);
      ASSERT_EQ(map.histogram(TierId(1), false), histogram);
      ASSERT_EQ(map.histogram(TierId(1), true), movable);
      const Heat heats[] = {Heat(0), Heat(1), Heat(40), Heat(127), Heat(200), Heat(255)};
      for (const HeatCount& n : map.count(heats))
        ASSERT_EQ(n.pages.get(), model.at_least(n.at_least.get()));
      const PageFilter filter{TouchSet([](Touches t) { return t.windows() == 0 || t.before(); }),
                              nullptr};
      auto next = model.pages.begin();
      map.for_each(TierId(1), filter, [&](const PageRef& page) {
        while (next != model.pages.end() &&
               !(next->second.place == 1 && next->second.movable() &&
                 filter.touches.contains(Touches(static_cast<std::uint8_t>(next->second.touches)))))
          ++next;
        EXPECT_NE(next, model.pages.end());
        if (next == model.pages.end()) return false;
        EXPECT_EQ(Model::Key(page.asid.get(), page.vpn.get()), next->first);
        ++next;
        return true;
      });
      for (const bool hottest : {true, false}) {
        const auto tier = static_cast<unsigned>(pick(3));
        const auto min = static_cast<std::uint8_t>(pick(100));
        const auto max = static_cast<std::uint8_t>(min + pick(256u - min));
        const std::uint64_t limit = pick(4) == 0 ? pick(1u << 20) : pick(900);
        const auto actual = map.candidates(TierId(static_cast<std::uint8_t>(tier)), Heat(min),
                                           Heat(max), hottest, PageCount(limit));
        const auto expected = model.candidates(tier, min, max, hottest, limit);
        ASSERT_EQ(actual.size(), expected.size()) << "seed " << seed << " step " << step;
        for (std::size_t i = 0; i < actual.size(); ++i) {
          ASSERT_EQ(actual[i].asid.get(), expected[i].first);
          ASSERT_EQ(actual[i].vpn.get(), expected[i].second);
          ASSERT_EQ(actual[i].order.get(), model.pages.at(expected[i]).order);
          ASSERT_EQ(actual[i].touches.raw(), model.pages.at(expected[i]).touches)
              << "seed " << seed << " step " << step;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, HeatMapModel,
                         testing::ValuesIn(supported_heat_kernels().begin(),
                                           supported_heat_kernels().end()),
                         [](const auto& form) { return std::string(form.param.name); });

}  // namespace
}  // namespace thermocline
