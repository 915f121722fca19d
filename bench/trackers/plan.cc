// SPDX-License-Identifier: Apache-2.0
#include "bench/trackers/plan.h"

#include <algorithm>

#include "base/text.h"
#include "bench/suite/choose.h"

namespace thermocline::trackers {

namespace {

constexpr Bytes kLeastFootprint{std::uint64_t{32} << 20};
constexpr Bytes kMostFootprint{std::uint64_t{4} << 30};
constexpr Bytes kHugePage{std::uint64_t{2} << 20};

/// All when none is asked for.
Result<std::vector<std::string>> choose_or_all(const std::vector<std::string>& all,
                                               const std::vector<std::string>& asked,
                                               const char* what) {
  if (asked.empty()) return all;
  return suite::choose(all, asked, what, [](const std::string& name) { return name; });
}

}  // namespace

const std::vector<Pattern>& patterns() {
  static const std::vector<Pattern> kPatterns = {
      {"90-10", "90 % of the updates to 10 % of the 4 KiB pages, anywhere", "gups-hot", 4, {}},
      {"90-10-thp",
       "the same with huge pages, whole ones hot or cold",
       "gups-hot",
       4,
       {"hot_unit=512"},
       true},
      {"zipf", "keys of a store by a Zipf law, YCSB B", "ycsb-b", 4, {}},
      {"moving", "as 90-10; the hot set moves once, all at once", "gups-moving", 3, {"phases=2"}},
      {"scan", "all memory in turn, then a tenth of it", "scan-then-loop", 3, {}},
  };
  return kPatterns;
}

std::vector<std::string> sources_of(const std::string& tracker) {
  std::vector<std::string> names;
  for (const std::string_view name : split(tracker, '+')) names.emplace_back(name);
  return names;
}

Result<std::vector<PlannedRun>> plan_runs(const TrackersOptions& o,
                                          const std::vector<std::string>& known) {
  std::vector<std::string> names{kNone}, of_patterns;
  names.insert(names.end(), known.begin(), known.end());
  for (const std::string& asked : o.trackers) {
    const std::vector<std::string> sources = sources_of(asked);
    if (sources.size() < 2) continue;
    if (sources.size() > 2)
      return fail(ErrorKind::kUsage, "two trackers can be combined, not {} (\"{}\")",
                  sources.size(), printable(asked));
    TC_TRY(choose_or_all(known, sources, "tracker"));
    if (std::find(names.begin(), names.end(), asked) == names.end()) names.push_back(asked);
  }
  for (const Pattern& p : patterns()) of_patterns.push_back(p.name);
  TC_ASSIGN(const auto trackers, choose_or_all(names, o.trackers, "tracker"));
  TC_ASSIGN(const auto chosen, choose_or_all(of_patterns, o.patterns, "pattern"));
  if (o.budgets.empty()) return fail(ErrorKind::kUsage, "give at least one budget");
  for (auto budget = o.budgets.begin(); budget != o.budgets.end(); ++budget)
    if (std::find(o.budgets.begin(), budget, *budget) != budget)
      return fail(ErrorKind::kUsage, "the budget {} is given twice", *budget);
  for (const double budget : o.budgets)
    if (!(budget >= 0.0001 && budget <= 1))
      return fail(ErrorKind::kUsage, "a budget must be 0.0001 to 1 of a processor, not {}", budget);
  if (o.footprint < kLeastFootprint || o.footprint > kMostFootprint ||
      o.footprint.get() % kHugePage.get() != 0)
    return fail(ErrorKind::kUsage, "the footprint must be {} to {} and a multiple of {}, not {}",
                format_bytes(kLeastFootprint), format_bytes(kMostFootprint),
                format_bytes(kHugePage), format_bytes(o.footprint));
  std::vector<PlannedRun> runs;
  for (const Pattern& pattern : patterns()) {
    if (std::find(chosen.begin(), chosen.end(), pattern.name) == chosen.end()) continue;
    for (const std::string& tracker : trackers)
      for (const double budget : o.budgets) {
        runs.push_back({tracker, pattern, tracker == kNone ? 0 : budget});
        if (tracker == kNone) break;
      }
  }
  return runs;
}

}  // namespace thermocline::trackers
