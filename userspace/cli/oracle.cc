// SPDX-License-Identifier: Apache-2.0
#include "cli/oracle.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_map>

#include "base/text.h"
#include "tracking/recording.h"

namespace thermocline::oracle {

namespace {

/// Calls `entry(index, is on the fast node)` for every present entry.
template <class Entry>
void for_each_present(const RecordView& record, NodeId fast_node, Entry entry) {
  std::uint32_t at = 0;
  for (std::uint32_t r = 0; r < record.node_run_count; ++r) {
    const NodeRun run = record.node_run(r);
    for (std::uint32_t i = at; i < at + run.count; ++i)
      if (record.present.test(i)) entry(i, run.node == fast_node);
    at += run.count;
  }
}

Window& at_window(std::vector<Window>& windows, std::size_t number, const RecordView& record) {
  if (number >= windows.size()) windows.resize(number + 1);
  Window& window = windows[number];
  if (window.present.get() == 0 && window.length.count() == 0) {
    window.asid = record.asid;
    window.epoch = record.epoch;
    window.scan_time = record.scan_time;
    window.length = record.cleared ? record.window : Nanoseconds(0);
  }
  return window;
}

Nanoseconds median_length(const std::vector<Window>& windows) {
  std::vector<Nanoseconds> lengths;
  for (const Window& window : windows)
    if (window.length.count() > 0) lengths.push_back(window.length);
  if (lengths.empty()) return Nanoseconds(0);
  const auto middle = lengths.begin() + static_cast<std::ptrdiff_t>(lengths.size() / 2);
  std::nth_element(lengths.begin(), middle, lengths.end());
  return *middle;
}

/// Windows in which each page was found accessed. What was mapped as one page is counted as one, so
/// that a 1 GiB page doesn't take 262,144 counters; a page may be seen in several sizes, as when
/// the kernel splits it, and then its counts add up.
class PageCounts {
 public:
  /// False when the counters would take more than `largest` bytes: then nothing is counted.
  [[nodiscard]] bool add(Asid asid, Vpn first, PageOrder order, Bytes largest) {
    Space& space = spaces_[asid];
    if (order == kOrder1G) {
      if (!make_room(space.giant, first.get() / kGiant, largest)) return false;
      ++space.giant[first.get() / kGiant];
    } else if (order == kOrder2M) {
      if (!make_room(space.huge, first.get() / kBlock, largest)) return false;
      ++space.huge[first.get() / kBlock];
    } else {
      if (!make_room(space.small, first.get() / kBlock, largest)) return false;
      ++space.small[first.get() / kBlock][first.get() % kBlock];
    }
    return true;
  }
  /// Page-windows of the `capacity` pages that have the most.
  [[nodiscard]] PageCount best(PageCount capacity) const {
    std::map<std::uint64_t, std::uint64_t, std::greater<>> pages_with;
    for (const auto& [asid, space] : spaces_) tally(space, pages_with);
    std::uint64_t room = capacity.get();
    std::uint64_t sum = 0;
    for (const auto& [count, pages] : pages_with) {
      const std::uint64_t taken = std::min(room, pages);
      sum += taken * count;
      room -= taken;
    }
    return PageCount(sum);
  }

 private:
  static constexpr std::uint64_t kBlock = 512;
  static constexpr std::uint64_t kGiant = kBlock * kBlock;
  using Counts = std::unordered_map<std::uint64_t, std::uint32_t>;
  struct Space {
    Counts giant;  ///< by page number / kGiant
    Counts huge;   ///< by page number / kBlock
    std::unordered_map<std::uint64_t, std::array<std::uint32_t, kBlock>> small;  ///< likewise
  };

  /// Accounts for the node that `counts[key]` would add.
  template <class Map>
  bool make_room(const Map& counts, std::uint64_t key, Bytes largest) {
    if (counts.contains(key)) return true;
    constexpr std::size_t kLink = 2 * sizeof(void*);  // of a node, and its bucket
    const Bytes more(sizeof(typename Map::value_type) + kLink);
    if (taken_ + more > largest) return false;
    taken_ += more;
    return true;
  }

  static std::uint32_t at(const Counts& counts, std::uint64_t key) {
    const auto found = counts.find(key);
    return found == counts.end() ? 0 : found->second;
  }

  static void tally(const Space& space,
                    std::map<std::uint64_t, std::uint64_t, std::greater<>>& pages_with) {
    Counts counted_blocks;  // of each giant page: blocks that have counts of their own
    const auto base = [&](std::uint64_t block) {
      ++counted_blocks[block / kBlock];
      return std::uint64_t{at(space.huge, block)} + at(space.giant, block / kBlock);
    };
    for (const auto& [block, counts] : space.small) {
      const std::uint64_t more = base(block);
      for (const std::uint32_t count : counts)
        if (count + more > 0) ++pages_with[count + more];
    }
    for (const auto& [block, count] : space.huge)
      if (!space.small.contains(block)) pages_with[base(block)] += kBlock;
    for (const auto& [number, count] : space.giant)
      pages_with[count] += (kBlock - at(counted_blocks, number)) * kBlock;
  }

  std::map<Asid, Space> spaces_;
  Bytes taken_;
};

/// Counts before and in the judged part of a recording, of each page as it was mapped.
class PartCounts {
 public:
  /// False when the counters would take more than `largest` bytes.
  [[nodiscard]] bool add(Asid asid, Vpn first, PageOrder order, bool judged, Bytes largest) {
    constexpr std::size_t kEach = sizeof(Unit) + sizeof(Key) + 2 * sizeof(void*);
    if (Bytes(units_.size() * kEach) >= largest) return false;
    Unit& unit = units_[{asid, first.get(), order}];
    ++(judged ? unit.judged : unit.learned);
    return true;
  }
  [[nodiscard]] Learned judge(PageCount capacity) const {
    Learned result;
    result.learned_page_windows = caught(capacity, &Unit::learned, result.accessed_page_windows);
    result.best_page_windows = PageCount(static_cast<std::uint64_t>(
        std::llround(caught(capacity, &Unit::judged, result.accessed_page_windows))));
    return result;
  }

 private:
  struct Unit {
    std::uint32_t learned = 0, judged = 0;
  };
  using Key = std::tuple<Asid, std::uint64_t, PageOrder>;
  struct Level {
    std::uint64_t pages = 0, judged = 0;  ///< judged page-windows of these pages
  };

  /// Judged page-windows of the pages that have the highest `count`.
  double caught(PageCount capacity, std::uint32_t Unit::*count, PageCount& all) const {
    std::map<std::uint32_t, Level, std::greater<>> levels;
    all = PageCount(0);
    for (const auto& [key, unit] : units_) {
      const std::uint64_t pages = std::get<PageOrder>(key).pages().get();
      Level& level = levels[unit.*count];
      level.pages += pages;
      level.judged += unit.judged * pages;
      all += PageCount(unit.judged * pages);
    }
    double sum = 0;
    std::uint64_t room = capacity.get();
    for (const auto& [n, level] : levels) {
      const std::uint64_t taken = std::min(room, level.pages);
      sum += static_cast<double>(level.judged) * static_cast<double>(taken) /
             static_cast<double>(level.pages);
      room -= taken;
    }
    return sum;
  }

  std::map<Key, Unit> units_;
};

/// Mean of the fast pages of each address space, added up: they share the fast tier.
PageCount mean_fast_pages(const std::vector<Window>& windows) {
  std::map<Asid, std::pair<std::uint64_t, std::uint64_t>> sums;
  for (const Window& window : windows) {
    sums[window.asid].first += window.fast.get();
    ++sums[window.asid].second;
  }
  PageCount total;
  for (const auto& [asid, sum] : sums) total += PageCount(sum.first / sum.second);
  return total;
}

double ratio(PageCount part, PageCount whole) {
  return whole.get() == 0 ? 0 : static_cast<double>(part.get()) / static_cast<double>(whole.get());
}

}  // namespace

double Learned::best_share() const {
  return ratio(best_page_windows, accessed_page_windows);
}
double Learned::learned_share() const {
  return accessed_page_windows.get() == 0
             ? 0
             : learned_page_windows / static_cast<double>(accessed_page_windows.get());
}

double Answer::best_share() const {
  return ratio(best_page_windows, accessed_page_windows);
}
double Answer::recorded_share() const {
  return ratio(accessed_page_windows_fast, accessed_page_windows);
}

double Answer::mean_set_share() const {
  double sum = 0;
  for (const Window& window : windows) sum += ratio(window.accessed, window.present);
  return windows.empty() ? 0 : sum / static_cast<double>(windows.size());
}

Nanoseconds Answer::median_window() const {
  return median_length(windows);
}

Result<Answer> best_static_placement(RecordSource& records, const Options& options) {
  // First pass: how long the windows are. Second: count in those that are evidence.
  std::vector<Window> all;
  bool pruned = false;
  TC_TRY(for_each_record(records, [&](const RecordView& record, const RecordPlace& place) {
    at_window(all, place.pass, record).present += record.pages();
    pruned = pruned || record.idle;
  }));
  if (pruned)
    return fail(ErrorKind::kUsage,
                "the records are of pruned scans, which don't tell where every page lies in every "
                "window: record without pruning");
  const Nanoseconds median = median_length(all);
  const auto counts = [&](const Window& window) {
    return window.length.count() > 0 &&
           (options.longest_window <= 0 ||
            static_cast<double>(window.length.count()) <=
                options.longest_window * static_cast<double>(median.count()));
  };
  std::vector<bool> kept;
  for (const Window& window : all) kept.push_back(counts(window));
  for (Window& window : all) window.present = PageCount(0);

  Nanoseconds end{};
  for (const Window& window : all) end = std::max(end, window.scan_time);
  const auto judged = [&](const Window& window) {
    return window.scan_time > end - options.judge_last;
  };

  Answer answer;
  PageCounts accessed;
  PartCounts parts;
  bool fits = true;
  TC_TRY(for_each_record(records, [&](const RecordView& record, const RecordPlace& place) {
    if (!kept[place.pass]) return;
    Window& window = all[place.pass];
    const PageCount entry = record.order.pages();
    for_each_present(record, options.fast_node, [&](std::uint32_t i, bool fast) {
      window.present += entry;
      if (fast) window.fast += entry;
      if (!record.accessed.test(i)) return;
      window.accessed += entry;
      if (fast) window.fast_accessed += entry;
      const Vpn page = record.first + PageCount(std::uint64_t{i} * entry.get());
      fits = fits && accessed.add(record.asid, page, record.order, options.largest_memory);
      if (options.judge_last.count() > 0)
        fits = fits &&
               parts.add(record.asid, page, record.order, judged(window), options.largest_memory);
    });
  }));
  if (!fits)
    return fail(ErrorKind::kFailure,
                "the records name more pages than can be counted in {} of memory: record fewer "
                "processes, or for a shorter time",
                format_bytes(options.largest_memory));
  for (std::size_t i = 0; i < all.size(); ++i)
    if (kept[i]) answer.windows.push_back(all[i]);
  answer.windows_left_out = all.size() - answer.windows.size();
  if (answer.windows.empty())
    return fail(ErrorKind::kFailure,
                "the records hold no clearing scan with a known window; record for longer");
  for (const Window& window : answer.windows) {
    answer.accessed_page_windows += window.accessed;
    answer.accessed_page_windows_fast += window.fast_accessed;
    answer.pages = std::max(answer.pages, window.present);
  }
  answer.fast_pages = options.fast_pages.value_or(mean_fast_pages(answer.windows));
  answer.best_page_windows = accessed.best(answer.fast_pages);
  if (options.judge_last.count() <= 0) return answer;
  const auto last = std::count_if(answer.windows.begin(), answer.windows.end(), judged);
  if (last == 0 || static_cast<std::size_t>(last) == answer.windows.size())
    return fail(ErrorKind::kUsage,
                "the last {} to judge by leave no window {} them: the records span {}",
                format_duration(options.judge_last), last == 0 ? "in" : "before",
                format_duration(end - all.front().scan_time));
  answer.learned = parts.judge(answer.fast_pages);
  answer.learned->windows = static_cast<std::size_t>(last);
  return answer;
}

nlohmann::ordered_json to_json(const Answer& a) {
  nlohmann::ordered_json windows = nlohmann::ordered_json::array();
  for (const Window& w : a.windows)
    windows.push_back({{"asid", fmt::format("{:#x}", w.asid.get())},
                       {"epoch", w.epoch.get()},
                       {"scan_ns", w.scan_time.count()},
                       {"window_ns", w.length.count()},
                       {"present_pages", w.present.get()},
                       {"fast_pages", w.fast.get()},
                       {"accessed_pages", w.accessed.get()},
                       {"accessed_pages_fast", w.fast_accessed.get()}});
  nlohmann::ordered_json learned;
  if (a.learned)
    learned = {{"judged_windows", a.learned->windows},
               {"learned_share", a.learned->learned_share()},
               {"hindsight_share", a.learned->best_share()}};
  return {{"fast_pages", a.fast_pages.get()},
          {"pages", a.pages.get()},
          {"accessed_page_windows", a.accessed_page_windows.get()},
          {"accessed_page_windows_fast", a.accessed_page_windows_fast.get()},
          {"best_page_windows", a.best_page_windows.get()},
          {"recorded_share", a.recorded_share()},
          {"best_static_share", a.best_share()},
          {"mean_set_share", a.mean_set_share()},
          {"median_window_ns", a.median_window().count()},
          {"windows_left_out", a.windows_left_out},
          {"learned", std::move(learned)},
          {"windows", std::move(windows)}};
}

}  // namespace thermocline::oracle
