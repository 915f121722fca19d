// SPDX-License-Identifier: Apache-2.0
// tracker_watch: lets the engine watch one process through one tracker, moves nothing, and writes
// down after each epoch which pages it holds for hot (watch_file.h). Runs in a guest, beside the
// workload that `thermocline bench trackers` judges it by. With --probe it only tells whether the
// tracker works there: exit code 77 if not.
#include <fmt/core.h>
#include <poll.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "base/output.h"
#include "base/text.h"
#include "bench/trackers/hot_pages.h"
#include "bench/trackers/plan.h"
#include "bench/trackers/watch_file.h"
#include "bench/workloads/command_line.h"
#include "bench/workloads/common.h"
#include "emulation/timing/mark.h"
#include "engine/engine.h"
#include "tracking/proc_maps.h"

namespace thermocline::trackers {
namespace {

/// Smaller mappings are libraries' and the C library's.
constexpr std::uint64_t kLeastPages = 256;

struct Options {
  std::string tracker, out, ready_file;
  int pid = 0;
  double hot = 0.1, budget = 0.05;
  bool probe = false;
};

// For a small and therefore hot guest, as in bench/suite/guest/thermocline.sh.
constexpr Nanoseconds kEpoch = std::chrono::milliseconds(200);
constexpr Nanoseconds kWindow = std::chrono::milliseconds(2);
constexpr unsigned kWindows = 4;
/// No memory of the guest is there.
constexpr NodeId kNoNode{2};

Result<std::vector<Region>> regions_of(const System& system, int pid) {
  TC_ASSIGN(const std::string text, system.read_file(fmt::format("/proc/{}/maps", pid)));
  TC_ASSIGN(const std::vector<Mapping> maps, parse_maps(text));
  std::vector<Region> regions;
  for (const Mapping& m : maps)
    if (!m.shared && !m.file && m.end.get() - m.first.get() >= kLeastPages)
      regions.push_back({m.first.get(), m.end.get() - m.first.get()});
  if (regions.empty()) return fail(ErrorKind::kNotFound, "process {} has no large mapping", pid);
  return regions;
}

/// CPU time of a process, to the nanosecond: the first number of schedstat.
std::uint64_t cpu_ns(const System& system, int pid) {
  const auto text = system.read_file(fmt::format("/proc/{}/schedstat", pid));
  if (!text) return 0;
  return parse_u64(split(*text, ' ')[0]).value_or(0);
}

/// As make_tracker(), but "damon+written" is the two combined.
Result<std::unique_ptr<Tracker>> tracker_of(System& system, const std::string& name) {
  TrackerOptions options;
  options.sources = sources_of(name);
  return make_tracker(system, options.sources.size() > 1 ? "combine" : name, options);
}

/// Two passes over the program at rest, marked for the model to count what they take.
Result<Watch::Cost> cost_of(System& system, const Options& o, const ProcessIdentity& process) {
  TC_ASSIGN(const auto tracker, tracker_of(system, o.tracker));
  TC_TRY(tracker->attach(process));
  ScanRequest request;
  request.asid = process.asid;
  Watch::Cost cost;
  for (int pass = 0; pass < 2; ++pass) {
    const Nanoseconds before = system.process_cpu_time();
    thermocline_timing_mark("scan");
    const auto stats = tracker->scan(request, [](std::span<const std::byte>) {});
    thermocline_timing_mark("scanned");
    if (!stats) return tl::make_unexpected(stats.error());
    cost.entries += stats->entries;
    cost.cpu_ns += static_cast<std::uint64_t>((system.process_cpu_time() - before).count());
  }
  tracker->detach(process.asid);
  return cost;
}

class Watcher {
 public:
  Watcher(System& system, const Options& o, const ProcessIdentity& process)
      : system_(system), options_(o), process_(process) {
    watch_.tracker = o.tracker;
  }

  Status start() {
    TC_ASSIGN(watch_.regions, regions_of(system_, options_.pid));
    room_ = static_cast<std::uint64_t>(
        std::llround(options_.hot * static_cast<double>(watch_.pages())));
    if (options_.tracker == kNone) return {};
    TC_ASSIGN(watch_.cost, cost_of(system_, options_, process_));
    TC_ASSIGN(auto tracker, tracker_of(system_, options_.tracker));
    watch_.scans_ranges = tracker->scans_ranges();
    PolicyRegistry registry;
    register_builtin_policies(registry);
    TC_ASSIGN(auto policy, registry.make("auto", {}, 1));
    EngineHooks hooks;
    hooks.on_epoch = [this](const EpochReport&) { look(); };
    hooks.log = [](const std::string& text) { fmt::print("tracker_watch: {}\n", text); };
    EngineOptions engine;
    engine.mode = EngineMode::kObserve;
    engine.headroom = PageCount(0);
    engine.epoch = engine.cpu_burst = kEpoch;
    engine.window = kWindow;
    engine.windows_per_epoch = kWindows;
    engine.cpu_budget = options_.budget;
    engine_ = std::make_unique<Engine>(
        Engine::Parts{
            system_, std::move(tracker), std::move(policy),
            make_kernel_mover(system_, {[](Asid) { return Pid(0); }, {}}),
            [this] { return tiers(); },
            [this]() -> Result<std::vector<ProcessIdentity>> { return std::vector{process_}; },
            std::move(hooks)},
        engine);
    return {};
  }

  void run() {
    while (!workloads::stop_requested) {
      const Nanoseconds now = system_.now();
      Nanoseconds next = now + kEpoch;
      if (engine_)
        next = engine_->step(now);
      else
        look();
      if (next <= now) continue;
      const timespec wait{(next - now).count() / 1'000'000'000,
                          (next - now).count() % 1'000'000'000};
      pollfd ready{engine_ ? engine_->ready_fd() : -1, POLLIN, 0};
      (void)::ppoll(&ready, 1, &wait, nullptr);
    }
  }

  [[nodiscard]] const Watch& watch() const { return watch_; }

 private:
  /// All memory lies in the slow tier, and the fast one has room for the hot part: what matters is
  /// which pages would be in it, and windows are to tell those from the others.
  [[nodiscard]] Result<std::vector<TierState>> tiers() const {
    TierState fast{TierId(0), {}}, slow{TierId(1), {}};
    fast.nodes.push_back({kNoNode, PageCount(room_), {}, {}, {}});
    for (int node = 0; node < 2; ++node)
      slow.nodes.push_back({NodeId(node), PageCount(1 << 16), {}, {}, {}});
    return std::vector{fast, slow};
  }

  [[nodiscard]] std::vector<std::uint8_t> heat() const {
    std::vector<std::uint8_t> heat;
    heat.reserve(watch_.pages());
    for (const Region& region : watch_.regions)
      for (std::uint64_t i = 0; i < region.pages; ++i) {
        const auto known = engine_->heat().look_up(process_.asid, Vpn(region.first + i));
        const bool seen = known && known->second.present() && !known->second.unobservable();
        heat.push_back(seen ? known->first.get() : std::uint8_t{0});
      }
    return heat;
  }

  void look() {
    const Nanoseconds before = system_.process_cpu_time();
    Watch::Look look;
    look.at_ns = static_cast<std::uint64_t>(system_.now().count());
    if (engine_) {
      const EngineCounters& c = engine_->counters();
      fmt::print(
          "tracker_watch: {} ms: epoch {}, window {} us, looks {}, early {}, stretched {}, "
          "accessed page-windows {} of {}\n",
          system_.now().count() / 1000000, c.epochs, engine_->window().count() / 1000, c.looks,
          c.epochs_early, c.epochs_stretched, c.accessed_page_windows.get(),
          c.present_page_windows.get());
    }
    look.target_cpu_ns = cpu_ns(system_, options_.pid);
    look.own_cpu_ns = own_cpu_ns_;
    if (engine_) {
      look.tracking_cpu_ns = static_cast<std::uint64_t>(engine_->counters().tracking_cpu.count());
      std::vector<std::uint8_t> now = heat();
      look.hot = hot_pages(now, room_);
      // The engine forgets a program that has ended: what counts is the last that it knew.
      if (std::any_of(now.begin(), now.end(), [](std::uint8_t h) { return h != 0; }))
        watch_.heat = std::move(now);
    }
    watch_.looks.push_back(std::move(look));
    own_cpu_ns_ += static_cast<std::uint64_t>((system_.process_cpu_time() - before).count());
  }

  System& system_;
  Options options_;
  ProcessIdentity process_;
  std::uint64_t room_ = 0, own_cpu_ns_ = 0;
  Watch watch_;
  std::unique_ptr<Engine> engine_;
};

Result<int> run(int argc, char** argv) {
  CLI::App app("watches a process through one tracker and writes down what it holds for hot");
  Options o;
  app.add_option("--tracker", o.tracker, "its name, two joined by +, or none")->required();
  app.add_option("--pid", o.pid, "the process to watch");
  app.add_option("--out", o.out, "file to write at the end");
  app.add_flag("--probe", o.probe, "only look whether the tracker works here");
  app.add_option("--ready-file", o.ready_file, "is made when the watching begins");
  app.add_option("--hot", o.hot, "share of the pages that there is room for")
      ->check(CLI::Range(0.001, 1.0));
  app.add_option("--budget", o.budget, "share of one processor")->check(CLI::Range(0.0001, 1.0));
  TC_ASSIGN(const bool go, workloads::understand(app, "tracker_watch", argc, argv));
  if (!go) return 0;
  const auto system = make_real_system();
  if (o.probe) {
    if (o.tracker != kNone) TC_TRY(tracker_of(*system, o.tracker));
    return 0;
  }
  if (o.pid == 0 || o.out.empty()) return fail(ErrorKind::kUsage, "give --pid and --out");
  workloads::catch_stop_signals();
  TC_ASSIGN(const ProcessIdentity process, identify_process(*system, Pid(o.pid)));
  Watcher watcher(*system, o, process);
  TC_TRY(watcher.start());
  TC_TRY(workloads::write_ready_file(o.ready_file));
  watcher.run();
  TC_TRY(write_whole(o.out, to_text(watcher.watch())));
  return 0;
}

}  // namespace
}  // namespace thermocline::trackers

int main(int argc, char** argv) {
  return thermocline::workloads::run_program(
      "tracker_watch", [&] { return thermocline::trackers::run(argc, argv); });
}
