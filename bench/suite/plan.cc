// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/text.h"
#include "bench/suite/choose.h"
#include "bench/suite/run.h"
#include "emulation/lab/files.h"
#include "emulation/timing/model.h"

namespace thermocline::suite {

namespace {

constexpr unsigned kMostSeeds = 100;
constexpr std::uint64_t kPage = 4096;
constexpr Bytes kMostFootprint{std::uint64_t{4} << 30};
constexpr Bytes kLeastFootprint{std::uint64_t{32} << 20};

template <class T>
std::string name_of(const T& one) {
  return one.name;
}

/// Each text with its length, so that what moves from one to the next changes the whole.
std::string setting_of(const SuiteOptions& o, const SuiteWorkload& workload,
                       const SuiteSystem& system, std::string_view timing_text) {
  std::string text;
  const auto add = [&text](std::string_view part) {
    text += fmt::format("{}:{}", part.size(), part);
  };
  add(fmt::format("{} {} {} {}", o.footprint.get(), o.length, workload.seconds,
                  workload.huge_pages));
  for (const std::string& one : workload.settings) add(one);
  add(timing_text);
  const bool swaps = workload.swapped != 0 && !system.once;
  if (swaps) add(fmt::format("swapped {}", workload.swapped));
  for (const Script& script : scripts())
    if (script.name == "cell.sh" || script.name == system.script + ".sh" ||
        (swaps && script.name == "swap.sh"))
      add(script.text);
  return fmt::format("{:016x}", lab::fingerprint(text));
}

}  // namespace

Result<std::string> timing_text(const std::string& timing) {
  TC_TRY(timing::load_model(timing));
  const std::string_view preset = timing::preset_text(timing);
  return preset.empty() ? lab::read_whole(timing) : std::string(preset);
}

const std::vector<SuiteWorkload>& suite_workloads() {
  static const std::vector<SuiteWorkload> kWorkloads = {
      {"gups-hot", 3, {}, false, true, "", true},
      {"gups-moving", 4, {"phases=2"}},
      {"hot-larger", 3, {}, false, true, "", true},
      {"sparse-huge", 3, {}, true, true, "", true},
      {"scan-then-loop", 4, {}},
      {"phase-change", 8, {}},
      {"chase", 4, {"hot=0.1"}, false, true, "", true},
      {"llm-decode", 4, {}},
      {"ycsb-b", 5, {}, false, true, "", true},
      {"btree", 5, {}},
      {"xsbench", 4, {}, false, true, "", true},
      {"pagerank", 4, {}},
      {"redis", 8, {}, false, true, "redis-server"},
      {"gups-uniform", 2, {}, false, false},
      {"stream", 3, {}, false, false},
      {"ycsb-a", 5, {}, false, false},
      {"ycsb-c", 5, {}, false, false},
      {"ycsb-d", 5, {}, false, false},
      {"ycsb-e", 5, {}, false, false},
      {"ycsb-f", 5, {}, false, false},
      {"bfs", 4, {}, false, false},
      {"bc", 4, {}, false, false},
      {"llm-decode-swap", 4, {}, false, false, "", false, "llm-decode", 0.25},
      {"memcached", 8, {}, false, false, "memcached"},
      {"sqlite", 8, {}, false, false, "sqlite3"},
  };
  return kWorkloads;
}

const std::vector<SuiteSystem>& suite_systems() {
  static const std::vector<SuiteSystem> kSystems = {
      {"all-fast", "all-fast", "-", "the fast node has room for everything", true},
      {"all-slow", "all-slow", "-", "everything on the slow node", true},
      {"first-touch", "first-touch", "-", "no tiering: a page stays where it was first touched"},
      {"interleave", "interleave", "-", "pages in turn on both nodes, until the fast one is full"},
      {"oracle-static", "oracle-static", "-",
       "the best static placement, from exact counts of the same run"},
      {"thermocline:auto", "thermocline", "auto", "policy auto, settings for a small guest", false,
       true},
      {"numab@tuned", "numab", "tuned", "NUMA balancing and demotion, tuned for a small guest",
       false, true},
      {"numab@roomy", "numab", "roomy", "tuned, and more of the fast node kept free for promotions",
       false, true},
      {"damos@tuned", "damos", "tuned", "DAMON migrate_hot and migrate_cold, tuned, and demotion",
       false, true},
      {"damos@young", "damos", "young", "tuned, and only pages that are (not) young are migrated",
       false, true},
      {"thermocline:auto@default", "thermocline", "auto@default",
       "policy auto, the daemon's defaults"},
      {"numab", "numab", "default", "NUMA balancing and demotion, the kernel's defaults", false,
       true},
      {"damos", "damos", "default", "DAMON migrate_hot and migrate_cold, the kernel's defaults",
       false, true},
      {"thermocline:heat", "thermocline", "heat",
       "policy heat (after MEMTIS), settings for a small guest", false, true, false},
      {"thermocline:age", "thermocline", "age", "policy age (two generations), the same", false,
       true, false},
      {"thermocline:tpp", "thermocline", "tpp", "policy tpp (after TPP), the same", false, true,
       false},
      {"thermocline:hemem", "thermocline", "hemem", "policy hemem (after HeMem), the same", false,
       true, false},
      {"thermocline:hybrid", "thermocline", "hybrid", "policy hybrid (after HybridTier), the same",
       false, true, false},
      {"thermocline:exchange", "thermocline", "exchange",
       "policy exchange (after memory-optimizer), the same", false, true, false},
      {"thermocline:static", "thermocline", "static", "the same, but nothing moves", false, true,
       false},
      {"thermocline:static@default", "thermocline", "static@default",
       "the daemon's defaults, but nothing moves: what tracking costs", false, false, false},
  };
  return kSystems;
}

bool stands_still(std::string_view system) {
  return system == "all-fast" || system == "all-slow" || system == "first-touch" ||
         system == "interleave" || system == "oracle-static";
}

std::string Ratio::text() const {
  return fmt::format("{}:{}", fast, slow);
}

Bytes Ratio::fast_of(Bytes footprint) const {
  return Bytes(footprint.get() / (fast + slow) * fast / kPage * kPage);
}

Result<Ratio> parse_ratio(std::string_view text) {
  const auto parts = split(text, ':');
  if (parts.size() == 2) {
    const auto fast = parse_u64(parts[0]), slow = parse_u64(parts[1]);
    if (fast && slow && *fast >= 1 && *fast <= 64 && *slow >= 1 && *slow <= 64)
      return Ratio{static_cast<unsigned>(*fast), static_cast<unsigned>(*slow)};
  }
  return fail(ErrorKind::kUsage,
              "a ratio is FAST:SLOW with numbers from 1 to 64, such as 1:4, not \"{}\"",
              printable(text));
}

Result<std::vector<PlannedCell>> plan_cells(const SuiteOptions& o) {
  std::vector<SuiteWorkload> workloads;
  TC_ASSIGN(workloads, choose(suite_workloads(), o.workloads, "workload", name_of<SuiteWorkload>));
  if (o.workloads.empty())
    for (const SuiteWorkload& workload : suite_workloads())
      if (workload.core) workloads.push_back(workload);
  TC_ASSIGN(std::vector<SuiteSystem> systems,
            choose(suite_systems(), o.systems, "system", name_of<SuiteSystem>));
  if (o.systems.empty())
    for (const SuiteSystem& system : suite_systems())
      if (system.core) systems.push_back(system);
  if (o.seeds < 1 || o.seeds > kMostSeeds)
    return fail(ErrorKind::kUsage, "--seeds must be 1 to {}", kMostSeeds);
  if (!(o.length >= 0.01 && o.length <= 100))
    return fail(ErrorKind::kUsage, "--length must be 0.01 to 100");
  if (o.footprint < kLeastFootprint || o.footprint > kMostFootprint)
    return fail(ErrorKind::kUsage, "--footprint must be {} to {}, not {}",
                format_bytes(kLeastFootprint), format_bytes(kMostFootprint),
                format_bytes(o.footprint));
  TC_ASSIGN(const timing::Mode mode, timing::parse_mode(o.mode));
  if (mode == timing::Mode::kReport)
    return fail(ErrorKind::kUsage,
                "report mode leaves the guest's clock alone; use reference or parallel");
  TC_ASSIGN(const std::string timing, timing_text(o.timing));
  std::vector<Ratio> ratios;
  for (const std::string& text : o.ratios) {
    TC_ASSIGN(const Ratio ratio, parse_ratio(text));
    if (ratio.fast_of(o.footprint) < kLeastFast)
      return fail(ErrorKind::kUsage,
                  "{} of {} leaves {} of fast memory, less than the {} that a guest needs: give a "
                  "larger --footprint",
                  ratio.text(), format_bytes(o.footprint), format_bytes(ratio.fast_of(o.footprint)),
                  format_bytes(kLeastFast));
    if (std::none_of(ratios.begin(), ratios.end(),
                     [&](const Ratio& r) { return r.text() == ratio.text(); }))
      ratios.push_back(ratio);
  }
  for (const SuiteWorkload& workload : workloads)
    for (const Ratio& ratio : ratios) {
      if (workload.swapped == 0) continue;
      const auto kept = static_cast<std::uint64_t>((1 - workload.swapped) *
                                                   static_cast<double>(o.footprint.get()));
      if (kept < (ratio.fast_of(o.footprint) + kLeastFast).get())
        return fail(
            ErrorKind::kUsage,
            "{} leaves {} with too little slow memory, as {:g} % of its footprint is to go to "
            "swap: give a ratio with more slow memory",
            ratio.text(), workload.name, 100 * workload.swapped);
    }
  // The oracle looks at what a run on fast memory missed.
  const auto needs_all_fast = [](const SuiteSystem& s) { return s.name == "oracle-static"; };
  if (std::any_of(systems.begin(), systems.end(), needs_all_fast) &&
      systems.front().name != "all-fast")
    systems.insert(systems.begin(), suite_systems().front());

  std::vector<PlannedCell> cells;
  for (unsigned seed = 1; seed <= o.seeds; ++seed)
    for (const SuiteWorkload& workload : workloads) {
      const auto add = [&](const SuiteSystem& system, const std::string& ratio,
                           std::optional<Bytes> fast) {
        if (seed > 1 && !system.seeded) return;
        // What nothing moves is as fast at the end as at the start.
        const auto sized = [&](const SuiteSystem& of) {
          SuiteWorkload result = workload;
          if (workload.stationary && stands_still(of.name)) result.seconds /= 2;
          return result;
        };
        const SuiteSystem& all_fast = suite_systems().front();
        cells.push_back({{workload.name, ratio, system.name, o.timing, o.mode, o.kernel, seed},
                         sized(system),
                         system,
                         fast,
                         setting_of(o, sized(system), system, timing),
                         setting_of(o, sized(all_fast), all_fast, timing)});
      };
      for (const SuiteSystem& system : systems)
        if (system.once)
          add(system, "-",
              system.name == "all-fast" ? std::optional<Bytes>()
                                        : Ratio{1, 2}.fast_of(o.footprint));
      for (const Ratio& ratio : ratios)
        for (const SuiteSystem& system : systems)
          if (!system.once) add(system, ratio.text(), ratio.fast_of(o.footprint));
    }
  return cells;
}

std::vector<CellKey> other_settings(const CellKey& key) {
  if (key.seed <= 1) return {};
  const auto& all = suite_systems();
  const auto own = std::find_if(all.begin(), all.end(),
                                [&](const SuiteSystem& s) { return s.name == key.system; });
  // A policy of ours is no setting of another.
  if (own == all.end() || own->script == "thermocline") return {};
  std::vector<CellKey> others;
  for (const SuiteSystem& other : all) {
    if (other.script != own->script || other.name == own->name || !other.seeded || !own->seeded)
      continue;
    CellKey& first = others.emplace_back(key);
    first.system = other.name;
    first.seed = 1;
  }
  return others;
}

std::optional<double> too_far_behind(const CellRecord& seed1, const CellRecord& other) {
  if (!seed1.done || !other.done || seed1.setting != other.setting) return std::nullopt;
  const double whole = *other.ops_per_s / *seed1.ops_per_s - 1;
  if (whole <= kCloseWithSeed1) return std::nullopt;
  // The better setting counts for each measure by itself.
  if (seed1.steady_ops_per_s && other.steady_ops_per_s &&
      *other.steady_ops_per_s / *seed1.steady_ops_per_s - 1 <= kCloseWithSeed1)
    return std::nullopt;
  return whole;
}

std::vector<CellKey> without_unneeded(const std::vector<CellKey>& keys,
                                      const std::vector<CellRecord>& records) {
  std::map<CellKey, const CellRecord*> by_key;
  for (const CellRecord& record : records) by_key[record.key] = &record;
  std::vector<CellKey> needed;
  for (const CellKey& key : keys) {
    CellKey first = key;
    first.seed = 1;
    const auto own_at = by_key.find(first);
    const auto others = other_settings(key);
    if (own_at != by_key.end() &&
        std::any_of(others.begin(), others.end(), [&](const CellKey& other) {
          const auto at = by_key.find(other);
          return at != by_key.end() && too_far_behind(*own_at->second, *at->second);
        }))
      continue;
    needed.push_back(key);
  }
  return needed;
}

}  // namespace thermocline::suite
