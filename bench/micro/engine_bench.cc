// SPDX-License-Identifier: Apache-2.0
// An epoch of the engine over 100 M pages, by CPU time of one core: records of nine passes taken
// in, ageing, the edge, the policy's decision. Its limit is what has to go through memory (Limit*
// of the same run): the heat plane read and written once a window and once for ageing, both planes
// read for the decision, and the records.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <ctime>
#include <memory>

#include "bench/micro/machine.h"
#include "engine/engine.h"

namespace thermocline::bench {
namespace {

Nanoseconds thread_cpu() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + Nanoseconds(t.tv_nsec);
}

/// No clock and no cost: epochs come when they are asked for.
class StillSystem final : public System {
 public:
  Result<std::string> read_file(const std::string& path) const override { return none(path); }
  Result<std::vector<std::string>> list_dir(const std::string& path) const override {
    return none(path);
  }
  bool exists(const std::string&) const override { return false; }
  Result<std::string> read_link_name(const std::string& path) const override { return none(path); }
  Nanoseconds now() const override { return {}; }
  Nanoseconds process_cpu_time() const override { return {}; }
  Result<UniqueFd> open_device(const std::string& path, int) override { return none(path); }
  int ioctl(int, unsigned long, void*) override { return -1; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -1;
  }
  Result<UniqueFd> pidfd_open(Pid) override { return UniqueFd(); }
  bool pidfd_exited(int) const override { return false; }

 private:
  static tl::unexpected<Error> none(const std::string& path) {
    return fail(ErrorKind::kNotFound, "no {}", path);
  }
};

/// Tells the same window each time.
class RepeatingTracker final : public Tracker {
 public:
  explicit RepeatingTracker(int active_of_ten) : records_(window_records(active_of_ten)) {}
  const std::string& name() const override {
    static const std::string kName = "repeating";
    return kName;
  }
  Status attach(const ProcessIdentity&) override { return {}; }
  void detach(Asid) override {}
  Result<ScanStats> scan(const ScanRequest&, const RecordSink& sink) override {
    sink(records_);
    return ScanStats{};
  }

 private:
  const std::vector<std::byte>& records_;
};

class NoMover final : public Mover {
 public:
  void execute(std::span<const PageMove>, std::span<MoveOutcome> outcomes) override {
    std::fill(outcomes.begin(), outcomes.end(), MoveOutcome::kNoMemory);
  }
};

struct Times {
  Nanoseconds epoch{}, decision{};
};

/// An engine whose policy is `auto`; it decides and moves nothing.
class Epochs {
 public:
  explicit Epochs(int active_of_ten) {
    PolicyRegistry registry;
    register_builtin_policies(registry);
    EngineOptions options;
    options.mode = EngineMode::kObserve;
    engine_ = std::make_unique<Engine>(
        Engine::Parts{system_,
                      std::make_unique<RepeatingTracker>(active_of_ten),
                      *registry.make("auto", {}, 1),
                      std::make_unique<NoMover>(),
                      []() -> Result<std::vector<TierState>> {
                        std::vector<TierState> tiers(2);
                        for (std::uint8_t t = 0; t < 2; ++t) {
                          tiers[t].id = TierId(t);
                          tiers[t].nodes = {{NodeId(t), PageCount(1024), {}, {}, {}}};
                        }
                        return tiers;
                      },
                      []() -> Result<std::vector<ProcessIdentity>> {
                        // The address space that the records name.
                        return std::vector{ProcessIdentity{Pid(1), 0, Asid(1), "bench"}};
                      },
                      {}},
        options);
    (void)next();  // up to the first epoch
    (void)next();  // in which all blocks are new
  }

  /// The epoch that has begun, up to the step that begins the next one.
  Times next() {
    const std::uint64_t epoch = engine_->counters().epochs;
    Times times;
    Nanoseconds first{};
    while (engine_->counters().epochs <= epoch) {
      const std::uint64_t windows = engine_->counters().windows;
      const bool deciding =
          windows > 0 && windows % engine_->options().windows_per_epoch == 0 && windows != decided_;
      const Nanoseconds from = thread_cpu();
      if (first.count() == 0) first = from;
      now_ = std::max(now_, engine_->step(now_));
      if (deciding) {
        decided_ = windows;
        times.decision = thread_cpu() - from;
      }
    }
    times.epoch = thread_cpu() - first;
    return times;
  }

 private:
  StillSystem system_;
  std::unique_ptr<Engine> engine_;
  Nanoseconds now_{};
  std::uint64_t decided_ = 0;
};

double seconds_of(Nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

void told(benchmark::State& state) {
  state.SetLabel(state.range(0) == 10 ? "a fifth of the pages of every block accessed"
                                      : "of one block in ten, a fifth of the pages accessed");
  state.counters["pages"] = static_cast<double>(kPages);
}

/// Age, edge, decide and queue: what follows the windows.
void EngineDecision(benchmark::State& state) {
  Epochs epochs(static_cast<int>(state.range(0)));
  for (auto _ : state) state.SetIterationTime(seconds_of(epochs.next().decision));
  told(state);
}
BENCHMARK(EngineDecision)->Arg(1)->Arg(10)->UseManualTime()->Unit(benchmark::kMillisecond);

/// All of an epoch: eight windows and the arming pass as well.
void EngineEpoch(benchmark::State& state) {
  Epochs epochs(static_cast<int>(state.range(0)));
  for (auto _ : state) state.SetIterationTime(seconds_of(epochs.next().epoch));
  told(state);
}
BENCHMARK(EngineEpoch)->Arg(1)->Arg(10)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace thermocline::bench
