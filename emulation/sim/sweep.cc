// SPDX-License-Identifier: Apache-2.0
#include "emulation/sim/sweep.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "base/line_store.h"
#include "base/text.h"
#include "emulation/sim/spread.h"

namespace thermocline::sim {

namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr unsigned kMostPart = 1024;
constexpr std::size_t kMostCases = 1'000'000;
/// Above so many pages a single case gets a thread that helps it.
constexpr std::uint64_t kLargePages = std::uint64_t{1} << 22;

struct KeyBounds {
  double least, most;
  bool whole;
};

/// Of the machine or the engine.
std::optional<KeyBounds> own_key(std::string_view name) {
  for (const MachineKey& key : machine_keys())
    if (key.name == name) return KeyBounds{key.least, key.most, key.number == nullptr};
  for (const EngineKey& key : engine_keys())
    if (key.name == name) return KeyBounds{key.least, key.most, key.whole};
  return std::nullopt;
}

std::optional<KeyBounds> workload_key(const WorkloadKind& kind, std::string_view name) {
  for (const WorkloadKey& key : kind.keys)
    if (key.name == name) return KeyBounds{key.least, key.most, key.whole};
  return std::nullopt;
}

Status set_key(Case& c, const std::string& key, double value) {
  if (!own_key(key)) return set_workload_key(c.workload, key, value);
  c.changed[key] = value;
  for (const MachineKey& known : machine_keys()) {
    if (known.name != key) continue;
    if (known.number != nullptr) {
      c.machine.*known.number = value;
    } else if (known.whole != nullptr) {
      c.machine.*known.whole = static_cast<std::uint64_t>(value);
    } else {
      c.machine.*known.charge = value != 0 ? Charge::kProgram : Charge::kOther;
    }
  }
  for (const EngineKey& known : engine_keys())
    if (known.name == key) known.set(c.engine, value);
  if ((c.machine.grain & (c.machine.grain - 1)) != 0)
    return fail(ErrorKind::kUsage, "tracker_grain is {}; it must be a power of two",
                c.machine.grain);
  return {};
}

Result<std::vector<unsigned>> parse_ratio(std::string_view text, std::size_t tiers) {
  std::vector<unsigned> ratio;
  for (const std::string_view part : split(text, ':')) {
    const auto number = parse_u64(part);
    if (!number || *number == 0 || *number > kMostPart) {
      ratio.clear();
      break;
    }
    ratio.push_back(static_cast<unsigned>(*number));
  }
  if (ratio.size() != tiers)
    return fail(ErrorKind::kUsage,
                "the ratio \"{}\" is not {} numbers from 1 to {} with colons between them, as {} "
                "tiers need",
                printable(text), tiers, kMostPart, tiers);
  return ratio;
}

/// Three digits, so that a draw can be typed again.
double three_digits(double value) {
  if (value == 0) return 0;
  const double scale = std::pow(10, 2 - std::floor(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

WorkloadChoice draw_workload(std::span<const WorkloadChoice> kinds, Lots& lots) {
  WorkloadChoice choice = kinds[lots.below(kinds.size())];
  for (const WorkloadKey& key : choice.kind->keys) {
    const double value =
        std::exp(std::log(key.draw_low) + lots.share() * std::log(key.draw_high / key.draw_low));
    choice.settings[std::string(key.name)] =
        std::clamp(key.whole ? std::round(value) : three_digits(value), key.least, key.most);
  }
  return choice;
}

/// Has all keys of a case's line, each with a value of its kind; no number is one that a case can't
/// have.
bool is_case(const ordered_json& line) {
  static const ordered_json kLike = [] {
    Case c;
    c.workload.kind = &workload_kinds().front();
    return to_json(c, Outcome{}, Bounds{});
  }();
  constexpr double kMost = 1e18;
  const auto is_number = [](const ordered_json& value) {
    return value.is_number() && value.get<double>() >= 0 && value.get<double>() <= kMost;
  };
  if (!line.is_object() || line.size() != kLike.size()) return false;
  for (const auto& [key, like] : kLike.items()) {
    if (!line.contains(key)) return false;
    const ordered_json& value = line.at(key);
    if (like.is_string()) {
      if (!value.is_string()) return false;
    } else if (like.is_object()) {
      if (!value.is_object() || !std::all_of(value.begin(), value.end(), is_number)) return false;
    } else if (!is_number(value) && !(like.is_null() && value.is_null())) {
      return false;
    }
  }
  return true;
}

/// Of a stored line, beside what a case tells.
constexpr const char* kVersionKey = "version";

/// What is kept of the cases of a folder.
class Results {
 public:
  static Result<Results> open(const std::string& dir, const std::string& version) {
    Results results;
    results.version_ = version;
    if (dir.empty()) return results;
    std::error_code ec;
    std::filesystem::create_directories(dir, ec);
    if (ec)
      return fail(ErrorKind::kUsage, "can't make the folder {}: {}; choose another with --out", dir,
                  ec.message());
    results.path_ = (std::filesystem::path(dir) / kCasesName).string();
    TC_ASSIGN(results.fd_, open_line_store(results.path_));
    TC_ASSIGN(const std::string content, read_all(results.fd_.get(), results.path_));
    TC_ASSIGN(StoredCases stored, parse_cases(content, results.path_));
    if (stored.whole_bytes != content.size())
      TC_TRY(cut_line_store(results.fd_.get(), results.path_, stored.whole_bytes));
    for (std::size_t i = 0; i < stored.lines.size(); ++i) {
      std::string key = stored.lines[i]["key"].get<std::string>();
      if (stored.versions[i] == version)
        results.lines_[std::move(key)] = std::move(stored.lines[i]);
      else
        results.others_.insert(std::move(key));
    }
    return results;
  }
  [[nodiscard]] const ordered_json* find(const std::string& key) const {
    const auto found = lines_.find(key);
    return found == lines_.end() ? nullptr : &found->second;
  }
  /// True when only another version has kept that case.
  [[nodiscard]] bool is_of_another(const std::string& key) const {
    return others_.contains(key) && !lines_.contains(key);
  }
  Status keep(ordered_json line) {
    if (!fd_) return {};
    line[kVersionKey] = version_;
    return append_line(fd_.get(), path_, line.dump());
  }

 private:
  std::string path_, version_;
  UniqueFd fd_;  ///< locked; none when nothing is kept
  std::map<std::string, ordered_json> lines_;
  std::set<std::string> others_;  ///< keys of cases that other versions have kept
};

/// The bounds of each problem, found by the first case that asks.
class BoundsCache {
 public:
  Result<Bounds> of(const Case& c) {
    Entry* entry = nullptr;
    {
      const std::lock_guard lock(mutex_);
      entry = &entries_[problem_key(c)];
    }
    std::call_once(entry->once, [&] { entry->bounds = bounds_of(c); });
    return entry->bounds;
  }

 private:
  struct Entry {
    std::once_flag once;
    Result<Bounds> bounds;
  };
  std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

std::string time_left(double seconds) {
  const auto minutes = static_cast<unsigned>(std::ceil(seconds / 60));
  if (seconds < 60) return fmt::format("some {:.0f} s left", std::ceil(seconds));
  return minutes >= 120 ? fmt::format("some {} hours left", (minutes + 30) / 60)
                        : fmt::format("some {} min left", minutes);
}

}  // namespace

Result<StoredCases> parse_cases(std::string_view text, const std::string& name) {
  StoredCases stored;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) break;  // torn by a kill: that case is run again
    ordered_json line = ordered_json::parse(text.substr(0, end), nullptr, false);
    std::string version;
    if (line.is_object() && line.contains(kVersionKey) && line[kVersionKey].is_string()) {
      version = line[kVersionKey].get<std::string>();
      line.erase(kVersionKey);
    }
    if (!is_case(line))
      return fail(ErrorKind::kCorrupt,
                  "{}:{}: not a case of a simulation; choose another folder with --out", name,
                  number);
    stored.lines.push_back(std::move(line));
    stored.versions.push_back(std::move(version));
    stored.whole_bytes += end + 1;
    text.remove_prefix(end + 1);
  }
  return stored;
}

Result<SweepAxis> parse_axis(std::string_view text, std::span<const WorkloadChoice> workloads) {
  const auto equals = text.find('=');
  if (equals == std::string_view::npos || equals + 1 == text.size())
    return fail(ErrorKind::kUsage, "\"{}\" is not key=value[,value...]", printable(text));
  SweepAxis axis{std::string(text.substr(0, equals)), {}};
  std::optional<KeyBounds> bounds = own_key(axis.key);
  for (const WorkloadChoice& workload : workloads)
    if (!bounds) bounds = workload_key(*workload.kind, axis.key);
  if (!bounds) {
    std::vector<std::string> known;
    for (const MachineKey& key : machine_keys()) known.emplace_back(key.name);
    for (const EngineKey& key : engine_keys()) known.emplace_back(key.name);
    for (const WorkloadChoice& workload : workloads)
      for (const WorkloadKey& key : workload.kind->keys) known.emplace_back(key.name);
    const std::string near = nearest_word(axis.key, known);
    return fail(
        ErrorKind::kUsage, "there is no key \"{}\" to sweep; {}", printable(axis.key),
        near.empty() ? "see thermocline sim --list" : fmt::format("did you mean {}?", near));
  }
  for (const std::string_view value : split(text.substr(equals + 1), ',')) {
    TC_ASSIGN(const double number,
              parse_setting(axis.key, value, bounds->least, bounds->most, bounds->whole));
    axis.values.push_back(number);
  }
  return axis;
}

Result<std::vector<std::vector<unsigned>>> parse_ratios(std::string_view text, std::size_t tiers) {
  std::vector<std::vector<unsigned>> ratios;
  for (const std::string_view item : split(text, ',')) {
    const auto dots = item.find("..");
    TC_ASSIGN(std::vector<unsigned> ratio, parse_ratio(item.substr(0, dots), tiers));
    if (dots == std::string_view::npos) {
      ratios.push_back(std::move(ratio));
      continue;
    }
    TC_ASSIGN(const std::vector<unsigned> last, parse_ratio(item.substr(dots + 2), tiers));
    if (!std::equal(ratio.begin(), ratio.end() - 1, last.begin()) || ratio.back() > last.back())
      return fail(ErrorKind::kUsage,
                  "the ratios \"{}\" don't go from one to another of the same fast tier; write "
                  "1:1..1:16, say",
                  printable(item));
    for (; ratio.back() < last.back(); ratio.back() *= 2) ratios.push_back(ratio);
    ratios.push_back(last);
  }
  return ratios;
}

Result<std::vector<SystemChoice>> parse_systems(std::string_view text,
                                                std::span<const std::string> grids,
                                                const PolicyRegistry& registry) {
  std::vector<std::string> known;
  for (const PolicyFactory& policy : registry.factories()) known.push_back(policy.name);
  const std::size_t policies = known.size();
  known.insert(known.end(), baselines().begin(), baselines().end());
  std::vector<SystemChoice> systems;
  const auto add = [&](const std::string& name) {
    // Named twice is asked for once.
    if (std::any_of(systems.begin(), systems.end(),
                    [&](const SystemChoice& s) { return s.name == name; }))
      return;
    const auto at = std::find(known.begin(), known.end(), name);
    systems.push_back({name, {}, static_cast<std::size_t>(at - known.begin()) >= policies});
  };
  const auto check = [&](const std::string& name) -> Status {
    if (std::find(known.begin(), known.end(), name) != known.end()) return {};
    const std::string near = nearest_word(name, known);
    return fail(ErrorKind::kUsage, "there is no policy or baseline called \"{}\"; {}",
                printable(name),
                near.empty() ? fmt::format("there are {}", fmt::join(known, ", "))
                             : fmt::format("did you mean {}?", near));
  };
  for (const std::string_view item : split(text, ',')) {
    if (item == "all") {
      for (std::size_t i = 0; i < policies; ++i) add(known[i]);
      continue;
    }
    TC_TRY(check(std::string(item)));
    add(std::string(item));
  }
  for (const std::string& grid : grids) {
    const auto colon = grid.find(':');
    const std::string name = grid.substr(0, colon);
    TC_TRY(check(name));
    if (colon == std::string::npos ||
        std::none_of(systems.begin(), systems.end(),
                     [&](const SystemChoice& s) { return s.name == name; }))
      return fail(ErrorKind::kUsage,
                  "\"{}\" is not POLICY:key=value[,value...][;key=...] with one of the --policies",
                  printable(grid));
    std::vector<std::vector<PolicyOption>> combinations{{}};
    for (const std::string_view option : split(std::string_view(grid).substr(colon + 1), ';')) {
      const auto equals = option.find('=');
      if (equals == std::string_view::npos)
        return fail(ErrorKind::kUsage, "\"{}\" in \"{}\" is not key=value[,value...]",
                    printable(option), printable(grid));
      std::vector<std::vector<PolicyOption>> longer;
      for (const auto& combination : combinations)
        for (const std::string_view value : split(option.substr(equals + 1), ',')) {
          longer.push_back(combination);
          longer.back().push_back({std::string(option.substr(0, equals)), std::string(value)});
        }
      combinations = std::move(longer);
    }
    std::vector<SystemChoice> expanded;
    for (const SystemChoice& system : systems) {
      expanded.push_back(system);
      if (system.name != name || !system.options.empty()) continue;
      for (const auto& combination : combinations)
        expanded.push_back({name, combination, system.baseline});
    }
    systems = std::move(expanded);
  }
  // A policy that refuses its options does so before anything is run.
  for (const SystemChoice& system : systems)
    if (!system.baseline) TC_TRY(registry.make(system.name, system.options, 1));
  return systems;
}

namespace {

Result<std::vector<Case>> with_systems(const std::vector<Case>& problems,
                                       const std::vector<SystemChoice>& systems) {
  if (problems.size() > kMostCases / std::max<std::size_t>(systems.size(), 1))
    return fail(ErrorKind::kUsage, "that is more than {} cases; sweep less at a time", kMostCases);
  std::vector<Case> cases;
  for (const Case& problem : problems)
    for (const SystemChoice& system : systems) {
      cases.push_back(problem);
      cases.back().system = system;
    }
  return cases;
}

/// Each problem with each combination of the axes' values.
Result<std::vector<Case>> with_axes(std::vector<Case> problems,
                                    const std::vector<SweepAxis>& axes) {
  for (const SweepAxis& axis : axes) {
    std::vector<Case> more;
    if (problems.size() > kMostCases / axis.values.size())
      return fail(ErrorKind::kUsage, "that is more than {} cases; sweep less at a time",
                  kMostCases);
    for (const Case& problem : problems)
      for (const double value : axis.values) {
        more.push_back(problem);
        TC_TRY(set_key(more.back(), axis.key, value));
      }
    problems = std::move(more);
  }
  return problems;
}

}  // namespace

Result<std::vector<Case>> plan_sweep(const SweepRequest& request) {
  std::vector<Case> problems;
  for (const WorkloadChoice& workload : request.workloads)
    for (const auto& ratio : request.ratios) {
      Case c = request.base;
      c.workload = workload;
      c.ratio = ratio;
      problems.push_back(std::move(c));
    }
  TC_ASSIGN(problems, with_axes(std::move(problems), request.axes));
  std::vector<Case> seeded;
  if (problems.size() > kMostCases / request.seeds)
    return fail(ErrorKind::kUsage, "that is more than {} cases; sweep less at a time", kMostCases);
  for (const Case& problem : problems)
    for (std::uint64_t i = 0; i < request.seeds; ++i) {
      seeded.push_back(problem);
      seeded.back().seed = request.first_seed + i;
    }
  return with_systems(seeded, request.systems);
}

Result<std::vector<Case>> plan_draws(const SweepRequest& request, std::uint64_t draws) {
  std::vector<Case> problems;
  for (std::uint64_t number = 1; number <= draws; ++number) {
    Lots lots(spread(request.first_seed) ^ number);
    Case c = request.base;
    c.workload = draw_workload(request.workloads, lots);
    c.ratio = request.ratios[lots.below(request.ratios.size())];
    c.seed = lots.next() >> 32;
    c.group = fmt::format("{}.{}", request.first_seed, number);
    problems.push_back(std::move(c));
  }
  TC_ASSIGN(problems, with_axes(std::move(problems), request.axes));
  return with_systems(problems, request.systems);
}

Result<std::vector<ordered_json>> run_cases(const std::vector<Case>& cases,
                                            const PolicyRegistry& registry,
                                            const RunOptions& options) {
  TC_ASSIGN(Results results, Results::open(options.out_dir, options.version));
  std::vector<ordered_json> lines(cases.size());
  std::vector<std::size_t> waiting;
  std::size_t of_another = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string key = case_key(cases[i]);
    if (const ordered_json* line = results.find(key)) {
      lines[i] = *line;
      // The same problem may have been drawn, or asked for by itself.
      lines[i]["draw"] = cases[i].group;
    } else {
      waiting.push_back(i);
      of_another += results.is_of_another(key) ? 1 : 0;
    }
  }
  const auto say = [&](const std::string& text) {
    if (options.say) options.say(text);
  };
  if (waiting.size() < cases.size())
    say(fmt::format("{} of {} cases are there already", cases.size() - waiting.size(),
                    cases.size()));
  if (of_another > 0)
    say(
        fmt::format("{} of {} cases are there from other code (another build of the program, or "
                    "another file of a plug-in), and are run again",
                    of_another, cases.size()));

  BoundsCache bounds;
  std::mutex mutex;
  std::optional<Error> error;
  std::atomic<std::size_t> next{0};
  std::size_t done = 0;
  const Clock::time_point begun = Clock::now();
  const auto work = [&](bool helper) {
    for (std::size_t i = next++; i < waiting.size(); i = next++) {
      const Case& c = cases[waiting[i]];
      const Clock::time_point from = Clock::now();
      const Result<Bounds> possible = bounds.of(c);
      const Clock::time_point run_from = Clock::now();
      const Result<Outcome> outcome =
          possible ? run_case(c, registry, helper) : tl::make_unexpected(possible.error());
      const std::lock_guard lock(mutex);
      if (error) return;
      if (!outcome) {
        error = outcome.error();
        return;
      }
      lines[waiting[i]] = to_json(c, *outcome, *possible);
      if (const Status kept = results.keep(lines[waiting[i]]); !kept) {
        error = kept.error();
        return;
      }
      ++done;
      const auto seconds = [](Clock::duration time) {
        return std::chrono::duration<double>(time).count();
      };
      const double left = seconds(Clock::now() - begun) / static_cast<double>(done) *
                          static_cast<double>(waiting.size() - done);
      const double run_s = seconds(Clock::now() - run_from);
      say(fmt::format("{}/{} {} {} {}, seed {}: {:.1f} s{}; {}", done, waiting.size(),
                      to_text(c.workload), ratio_text(c.ratio), to_text(c.system), c.seed,
                      seconds(Clock::now() - from),
                      outcome->epochs > 0 && run_s > 0
                          ? fmt::format(" ({:.1f} epochs a second)",
                                        static_cast<double>(outcome->epochs) / run_s)
                          : "",
                      done == waiting.size() ? "that was the last" : time_left(left)));
    }
  };
  const auto jobs = static_cast<unsigned>(
      std::clamp<std::size_t>(options.jobs, 1, std::max<std::size_t>(waiting.size(), 1)));
  const bool large =
      std::any_of(cases.begin(), cases.end(), [](const Case& c) { return c.pages >= kLargePages; });
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < jobs; ++i) threads.emplace_back(work, false);
  work(large && jobs == 1 && options.jobs > 1);
  for (std::thread& thread : threads) thread.join();
  if (error) return tl::make_unexpected(*error);
  return lines;
}

}  // namespace thermocline::sim
