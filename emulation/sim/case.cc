// SPDX-License-Identifier: Apache-2.0
#include "emulation/sim/case.h"

#include <algorithm>
#include <cmath>

#include "emulation/sim/engine_host.h"
#include "emulation/sim/world.h"

namespace thermocline::sim {

namespace {

/// A change of phase counts when this much of the accesses could be won back.
constexpr double kWorthIt = 0.02;
constexpr double kBack = 0.9;
constexpr int kGoalEpochs = 3;

Nanoseconds nanoseconds_of(double seconds) {
  return Nanoseconds(std::llround(seconds * 1e9));
}

double seconds_of(Nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

double moves_per_second(const EngineOptions& options) {
  return static_cast<double>(options.rate_limit.get()) / static_cast<double>(kPageSize);
}

OracleQuestion question_of(const Case& c, const Workload& workload, const Capacity& capacity) {
  return {c.machine, workload, capacity, c.judged_from, c.seconds, moves_per_second(c.engine)};
}

/// Figures of a time: now less before.
void judge(const Progress& before, const Progress& now, double& hit_ratio, AccessRate& rate) {
  const double accesses = now.accesses - before.accesses;
  hit_ratio = accesses > 0 ? (now.fast - before.fast) / accesses : 0;
  rate = accesses / (now.seconds - before.seconds);
}

/// Waits, after a change of phase, for what was lost to come back.
class Reconvergence {
 public:
  Reconvergence(World& world, const Case& c) : world_(world), case_(c) {
    world_.at_change = [this] { begin(); };
  }
  void look(std::uint64_t epochs) {
    epochs_ = epochs;
    if (!target_ || world_.settled_share() < *target_) return;
    const double seconds = seconds_of(world_.now() - began_);
    seconds_.push_back(seconds);
    in_epochs_.push_back(static_cast<double>(epochs_ - epochs_before_));
    target_.reset();
  }
  void tell(Outcome& outcome) const {
    outcome.changes = goals_.size();
    outcome.reconverged = seconds_.size();
    const auto mean = [](const std::vector<double>& of) {
      double sum = 0;
      for (const double x : of) sum += x;
      return sum / static_cast<double>(of.size());
    };
    if (!goals_.empty()) outcome.reconverge_goal_s = mean(goals_);
    if (seconds_.empty()) return;
    outcome.reconverge_s = mean(seconds_);
    outcome.reconverge_epochs = mean(in_epochs_);
    outcome.reconverge_most_s = *std::max_element(seconds_.begin(), seconds_.end());
  }

 private:
  void begin() {
    target_.reset();
    std::array<std::uint64_t, kClasses> pages{};
    for (const auto& of_tier : world_.held())
      for (std::size_t c = 0; c < kClasses; ++c) pages[c] += of_tier[c];
    // Without sweeps, of which no placement is better than another.
    const double now = world_.settled_share();
    const double best = best_share(world_.phase(), pages, world_.capacity()[0]);
    if (best - now < kWorthIt) return;
    target_ = now + kBack * (best - now);
    began_ = world_.now();
    epochs_before_ = epochs_;
    // What has to be promoted: the busiest pages that fit and are not there.
    double wanted = 0;
    std::uint64_t left = world_.capacity()[0];
    std::vector<std::size_t> order(kClasses);
    for (std::size_t c = 0; c < kClasses; ++c) order[c] = c;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return world_.phase().share[a] > world_.phase().share[b];
    });
    for (const std::size_t c : order) {
      const std::uint64_t n = std::min(left, pages[c]);
      wanted += static_cast<double>(n - std::min(n, world_.held()[0][c]));
      left -= n;
      // Pages at the cold end are not what a program waits for.
      if (n < pages[c]) break;
    }
    goals_.push_back(std::max(kGoalEpochs * seconds_of(case_.engine.epoch),
                              2 * wanted / moves_per_second(case_.engine)));
  }

  World& world_;
  const Case& case_;
  std::optional<double> target_;
  Nanoseconds began_{};
  std::uint64_t epochs_ = 0, epochs_before_ = 0;
  std::vector<double> goals_, seconds_, in_epochs_;
};

struct Counted {
  PageCount promoted, demoted;
  std::uint64_t epochs = 0;
  Nanoseconds tracking{}, moving{};
};

Counted counted(const Engine& engine) {
  const LedgerTotals& moves = engine.ledger().totals();
  const EngineCounters& counters = engine.counters();
  return {moves.promotions.applied, moves.demotions.applied, counters.epochs, counters.tracking_cpu,
          counters.moving_cpu};
}

Outcome run_baseline(const Case& c) {
  const Workload workload = make_workload(c.workload, c.pages, c.seed);
  const Capacity capacity = capacity_of(c.ratio, c.pages);
  const std::string& name = c.system.name;
  std::vector<std::uint8_t> tiers = name == "oracle-static"
                                        ? best_static_placement(question_of(c, workload, capacity))
                                        : place_at_start(workload, capacity,
                                                         name == "interleaved" ? Start::kInterleave
                                                         : name == "all-fast"  ? Start::kFast
                                                         : name == "all-slow"  ? Start::kSlow
                                                                              : Start::kFirstTouch);
  World world(c.machine, workload, capacity, std::move(tiers), c.seed);
  world.run_until(nanoseconds_of(c.judged_from));
  const Progress before = world.progress();
  world.run_until(nanoseconds_of(c.seconds));
  Outcome outcome;
  judge(before, world.progress(), outcome.hit_ratio, outcome.throughput);
  judge(Progress{}, world.progress(), outcome.whole_hit_ratio, outcome.whole_throughput);
  return outcome;
}

}  // namespace

const std::vector<std::string>& baselines() {
  static const std::vector<std::string> kBaselines = {"first-touch", "interleaved", "all-fast",
                                                      "all-slow", "oracle-static"};
  return kBaselines;
}

std::string to_text(const SystemChoice& system) {
  std::string text = system.name;
  for (const PolicyOption& option : system.options) {
    text += text.size() == system.name.size() ? ':' : ';';
    text += option.key + "=" + option.value;
  }
  return text;
}

const std::vector<EngineKey>& engine_keys() {
  static const std::vector<EngineKey> kKeys = {
      {"epoch", "seconds of a decision period", 0.01, 3600, false,
       [](EngineOptions& o, double v) { o.epoch = nanoseconds_of(v); },
       [](const EngineOptions& o) { return seconds_of(o.epoch); }},
      {"window", "ms of a window, at first", 0.1, 3.6e6, false,
       [](EngineOptions& o, double v) { o.window = nanoseconds_of(v * 1e-3); },
       [](const EngineOptions& o) { return seconds_of(o.window) * 1e3; }},
      {"window_auto", "1: the policy steers the window's length", 0, 1, true,
       [](EngineOptions& o, double v) { o.window_auto = v != 0; },
       [](const EngineOptions& o) { return o.window_auto ? 1.0 : 0.0; }},
      {"windows", "windows an epoch", 1, 64, true,
       [](EngineOptions& o, double v) { o.windows_per_epoch = static_cast<unsigned>(v); },
       [](const EngineOptions& o) { return static_cast<double>(o.windows_per_epoch); }},
      {"cpu_budget", "share of one core that tracking and deciding may take", 0.0001, 1, false,
       [](EngineOptions& o, double v) { o.cpu_budget = v; },
       [](const EngineOptions& o) { return o.cpu_budget; }},
      {"cpu_burst", "seconds for which the budget is saved up at most", 0, 3600, false,
       [](EngineOptions& o, double v) { o.cpu_burst = nanoseconds_of(v); },
       [](const EngineOptions& o) { return seconds_of(o.cpu_burst); }},
      {"rate_limit", "MiB a second that may be moved", 0.01, 1e6, false,
       [](EngineOptions& o, double v) {
         o.rate_limit = Bytes(static_cast<std::uint64_t>(v * 1048576));
       },
       [](const EngineOptions& o) { return static_cast<double>(o.rate_limit.get()) / 1048576; }},
      {"batch", "pages a call to the mover", 1, 4096, true,
       [](EngineOptions& o, double v) { o.batch = PageCount(static_cast<std::uint64_t>(v)); },
       [](const EngineOptions& o) { return static_cast<double>(o.batch.get()); }},
      {"cooldown", "epochs in which a moved page rests", 0, 3, true,
       [](EngineOptions& o, double v) { o.cooldown = static_cast<unsigned>(v); },
       [](const EngineOptions& o) { return static_cast<double>(o.cooldown); }},
  };
  return kKeys;
}

std::string ratio_text(const std::vector<unsigned>& ratio) {
  return fmt::format("{}", fmt::join(ratio, ":"));
}

std::string problem_key(const Case& c) {
  std::string key =
      fmt::format("{} {} pages {} seed {} {:.9g}s from {:.9g}s {}", to_text(c.workload), c.pages,
                  ratio_text(c.ratio), c.seed, c.seconds, c.judged_from, c.timing);
  for (const auto& [name, value] : c.changed) key += fmt::format(" {}={:.9g}", name, value);
  return key;
}

std::string case_key(const Case& c) {
  return to_text(c.system) + " " + problem_key(c);
}

Result<Bounds> bounds_of(const Case& c) {
  const Workload workload = make_workload(c.workload, c.pages, c.seed);
  const Capacity capacity = capacity_of(c.ratio, c.pages);
  const DynamicBound dynamic = dynamic_bound(question_of(c, workload, capacity));
  Case still = c;
  still.system = {"oracle-static", {}, true};
  const Outcome best = run_baseline(still);
  still.system.name = "all-fast";
  const Outcome fast = run_baseline(still);
  still.system.name = "all-slow";
  const Outcome slow = run_baseline(still);
  Bounds bounds;
  bounds.static_hit_ratio = best.hit_ratio;
  bounds.static_throughput = best.throughput;
  // Sweeps end within a lap: what was reached was possible.
  bounds.dynamic_hit_ratio = std::max(dynamic.hit_ratio, best.hit_ratio);
  bounds.dynamic_throughput = std::max(dynamic.throughput, best.throughput);
  bounds.all_fast = fast.throughput;
  bounds.all_slow = slow.throughput;
  return bounds;
}

Result<Outcome> run_case(const Case& c, const PolicyRegistry& registry, bool helper) {
  if (c.system.baseline) return run_baseline(c);
  TC_ASSIGN(auto policy, registry.make(c.system.name, c.system.options, c.seed));
  const Workload workload = make_workload(c.workload, c.pages, c.seed);
  const Capacity capacity = capacity_of(c.ratio, c.pages);
  World world(c.machine, workload, capacity, place_at_start(workload, capacity, Start::kFirstTouch),
              c.seed);
  Reconvergence reconvergence(world, c);
  EngineHost host(world, std::move(policy), c.engine, helper);
  const Engine& engine = host.engine();
  const auto look = [&] { reconvergence.look(engine.counters().epochs); };
  host.run_until(nanoseconds_of(c.judged_from), look);
  const Progress before = world.progress();
  const Counted at_first = counted(engine);
  host.run_until(nanoseconds_of(c.seconds), look);
  const Counted at_last = counted(engine);
  TC_TRY(decided_itself(engine.policy()));
  if (const std::uint64_t bad = engine.counters().corrupt_records; bad > 0)
    return fail(ErrorKind::kFailure,
                "{} records of the simulated tracker were none: its figures are worth nothing; "
                "please report it",
                bad);

  Outcome outcome;
  judge(before, world.progress(), outcome.hit_ratio, outcome.throughput);
  judge(Progress{}, world.progress(), outcome.whole_hit_ratio, outcome.whole_throughput);
  outcome.promoted = bytes_of(at_last.promoted - at_first.promoted);
  outcome.demoted = bytes_of(at_last.demoted - at_first.demoted);
  const double epochs = static_cast<double>(at_last.epochs - at_first.epochs);
  if (epochs > 0)
    outcome.moved_share = static_cast<double>((outcome.promoted + outcome.demoted).get()) /
                          static_cast<double>(kPageSize) / static_cast<double>(c.pages) / epochs;
  const LedgerTotals& moves = engine.ledger().totals();
  const PageCount applied = moves.promotions.applied + moves.demotions.applied;
  if (applied > PageCount(0))
    outcome.ping_pong_share =
        static_cast<double>(moves.regretted.get()) / static_cast<double>(applied.get());
  const double judged_s = c.seconds - c.judged_from;
  outcome.tracking_cpu = seconds_of(at_last.tracking - at_first.tracking) / judged_s;
  outcome.moving_cpu = seconds_of(at_last.moving - at_first.moving) / judged_s;
  outcome.epochs = at_last.epochs;
  reconvergence.tell(outcome);
  return outcome;
}

nlohmann::ordered_json to_json(const Case& c, const Outcome& o, const Bounds& b) {
  nlohmann::ordered_json json;
  const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0; };
  const auto or_null = [](const std::optional<double>& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
  };
  json["key"] = case_key(c);
  json["problem"] = problem_key(c);
  json["label"] = "modelled";
  json["draw"] = c.group;
  json["workload"] = to_text(c.workload);
  json["footprint_bytes"] = c.pages * kPageSize;
  json["ratio"] = ratio_text(c.ratio);
  json["system"] = to_text(c.system);
  json["timing"] = c.timing;
  json["settings"] = nlohmann::ordered_json::object();
  for (const auto& [name, value] : c.changed) json["settings"][name] = value;
  json["seed"] = c.seed;
  json["seconds"] = c.seconds;
  json["judged_from_s"] = c.judged_from;
  json["hit_ratio"] = o.hit_ratio;
  json["throughput_per_s"] = o.throughput;
  json["of_all_fast"] = share(o.throughput, b.all_fast);
  json["hit_ratio_of_static_oracle"] = share(o.hit_ratio, b.static_hit_ratio);
  json["throughput_of_static_oracle"] = share(o.throughput, b.static_throughput);
  json["hit_ratio_of_dynamic_bound"] = share(o.hit_ratio, b.dynamic_hit_ratio);
  json["throughput_of_dynamic_bound"] = share(o.throughput, b.dynamic_throughput);
  json["whole_hit_ratio"] = o.whole_hit_ratio;
  json["whole_throughput_per_s"] = o.whole_throughput;
  json["promoted_bytes"] = o.promoted.get();
  json["demoted_bytes"] = o.demoted.get();
  json["moved_share_per_epoch"] = o.moved_share;
  json["ping_pong_share"] = o.ping_pong_share;
  json["tracking_cpu_share"] = o.tracking_cpu;
  json["moving_cpu_share"] = o.moving_cpu;
  json["epochs"] = o.epochs;
  json["changes"] = o.changes;
  json["reconverged"] = o.reconverged;
  json["reconverge_epochs"] = or_null(o.reconverge_epochs);
  json["reconverge_s"] = or_null(o.reconverge_s);
  json["reconverge_most_s"] = or_null(o.reconverge_most_s);
  json["reconverge_goal_s"] = or_null(o.reconverge_goal_s);
  json["static_oracle_hit_ratio"] = b.static_hit_ratio;
  json["static_oracle_throughput_per_s"] = b.static_throughput;
  json["dynamic_bound_hit_ratio"] = b.dynamic_hit_ratio;
  json["dynamic_bound_throughput_per_s"] = b.dynamic_throughput;
  json["all_fast_per_s"] = b.all_fast;
  json["all_slow_per_s"] = b.all_slow;
  return json;
}

}  // namespace thermocline::sim
