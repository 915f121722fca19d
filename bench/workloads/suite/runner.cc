// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/suite/runner.h"

#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <limits>
#include <thread>
#include <utility>

#include "base/text.h"
#include "bench/workloads/common.h"
#include "bench/workloads/random.h"
#include "bench/workloads/suite/latency.h"
#include "bench/workloads/suite/progress.h"
#include "emulation/timing/mark.h"

namespace thermocline::workloads {

namespace {

constexpr unsigned kMostThreads = 64;
constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();

std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

Status check(const RunOptions& o, const WorkloadSpec& spec) {
  if (!spec.program.empty() && o.threads > 1)
    return fail(ErrorKind::kUsage, "{} takes one thread; its memory is that of one {}", spec.name,
                spec.program);
  if (spec.program.empty() && !o.program.empty())
    return fail(ErrorKind::kUsage, "{} has no program of its own; leave --program out", spec.name);
  if (o.threads < 1 || o.threads > kMostThreads)
    return fail(ErrorKind::kUsage, "--threads must be 1 to {}", kMostThreads);
  if (o.footprint.get() / o.threads < kLeastFootprint.get())
    return fail(ErrorKind::kUsage,
                "a footprint of {} is too small; each of {} threads needs at least {}",
                format_bytes(o.footprint), o.threads, format_bytes(kLeastFootprint));
  struct sysinfo machine {};
  if (::sysinfo(&machine) == 0) {
    const Bytes there((machine.totalram + machine.totalswap) * machine.mem_unit);
    if (o.footprint > there)
      return fail(ErrorKind::kUsage,
                  "a footprint of {} is too large; memory and swap of this machine are {}",
                  format_bytes(o.footprint), format_bytes(there));
  }
  if (o.operations == 0 && !(o.duration_s > 0 && o.duration_s <= 1e6))
    return fail(ErrorKind::kUsage, "--duration must be more than 0 and at most 1000000 seconds");
  if (!(o.warm_up >= 0 && o.warm_up <= 1e15))
    return fail(ErrorKind::kUsage, "--warm-up must not be negative");
  if (o.samples_s != 0 && !(o.samples_s >= 0.001 && o.samples_s <= 1e6))
    return fail(ErrorKind::kUsage, "--samples must be 0.001 to 1000000 seconds");
  return {};
}

Result<std::map<std::string, double>> effective_settings(const WorkloadSpec& spec,
                                                         const RunOptions& o) {
  std::map<std::string, double> settings;
  std::string known;
  for (const Setting& s : spec.settings) {
    settings[s.key] = s.value;
    known += (known.empty() ? "" : ", ") + s.key;
  }
  for (const auto& [key, value] : o.settings) {
    const auto at = std::find_if(spec.settings.begin(), spec.settings.end(),
                                 [&](const Setting& s) { return s.key == key; });
    if (at == spec.settings.end())
      return fail(ErrorKind::kUsage, "{} has no setting \"{}\"; it has {}", spec.name,
                  printable(key), known.empty() ? "none" : known);
    if (!(value >= at->min && value <= at->max))
      return fail(ErrorKind::kUsage, "{} must be {} to {}, not {}", key, at->min, at->max, value);
    settings[key] = value;
  }
  return settings;
}

/// Between two samples.
std::uint64_t period_ns(const RunOptions& o) {
  return static_cast<std::uint64_t>(std::llround(o.samples_s * 1e9));
}

/// Share of `all` that falls to part `i` of `n`; the parts add up to `all`.
std::uint64_t part(std::uint64_t all, unsigned i, unsigned n) {
  return all / n + (i < all % n ? 1 : 0);
}

/// One thread's side of the run.
struct Worker {
  std::unique_ptr<Workload> workload;
  LatencyHistogram latencies;
  Progress progress;                 ///< of the measured part
  std::uint64_t all_operations = 0;  ///< warm-up included
};

/// Runs until `operations` are done, the clock has reached `until_ns` or a stop was requested.
/// Returns how many were done.
std::uint64_t run_until(Worker& worker, unsigned phase, std::uint64_t operations,
                        std::uint64_t until_ns, unsigned sample_every, bool measured) {
  std::uint64_t done = 0, told = 0;
  const auto tell = [&](std::uint64_t now) {
    if (measured) worker.progress.reading(now, done - std::exchange(told, done));
    return now;
  };
  while (done < operations && !stop_requested.load(std::memory_order_relaxed) &&
         worker.workload->state()) {
    const std::uint64_t start = tell(monotonic_ns());
    if (start >= until_ns) break;
    worker.workload->run(phase, 1);
    if (measured) worker.latencies.add(monotonic_ns() - start);
    const std::uint64_t rest = std::min<std::uint64_t>(operations - done, sample_every) - 1;
    if (rest > 0) worker.workload->run(phase, rest);
    done += 1 + rest;
  }
  tell(monotonic_ns());
  worker.all_operations += done;
  return done;
}

/// As run_until() for all workers at once, each with its part of `operations`.
std::uint64_t run_all(std::vector<Worker>& workers, unsigned phase, std::uint64_t operations,
                      std::uint64_t until_ns, unsigned sample_every, bool measured) {
  const auto count = static_cast<unsigned>(workers.size());
  if (count == 1) return run_until(workers[0], phase, operations, until_ns, sample_every, measured);
  std::vector<std::uint64_t> done(count, 0);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < count; ++t)
    threads.emplace_back([&, t] {
      const std::uint64_t mine = operations == kNoLimit ? kNoLimit : part(operations, t, count);
      done[t] = run_until(workers[t], phase, mine, until_ns, sample_every, measured);
    });
  std::uint64_t sum = 0;
  for (unsigned t = 0; t < count; ++t) {
    threads[t].join();
    sum += done[t];
  }
  return sum;
}

}  // namespace

std::uint64_t RunResult::operations() const {
  std::uint64_t sum = 0;
  for (const PhaseResult& phase : phases) sum += phase.operations;
  return sum;
}

double RunResult::seconds() const {
  return phases.empty() ? 0 : phases.back().end_s;
}

Result<RunResult> run_workload(const RunOptions& o, const System& system) {
  TC_ASSIGN(const WorkloadSpec* const spec, find_workload(o.name));
  TC_TRY(check(o, *spec));
  TC_ASSIGN(const auto settings, effective_settings(*spec, o));

  Memory memory(o.huge_pages);
  std::vector<Worker> workers(o.threads);
  for (unsigned t = 0; t < o.threads; ++t) {
    const Instance instance{memory,
                            Bytes(o.footprint.get() / o.threads),
                            t == 0 ? o.seed : mix64(o.seed + t),
                            settings,
                            o.program,
                            o.huge_pages};
    TC_ASSIGN(workers[t].workload, spec->make(instance));
  }
  const std::vector<std::string> names = workers[0].workload->phases();
  const auto phases = static_cast<unsigned>(names.size());
  if (o.operations != 0 && o.operations < std::uint64_t{phases} * o.threads)
    return fail(ErrorKind::kUsage,
                "{} operations are too few for {} phases and {} threads; give at least {}",
                o.operations, phases, o.threads, phases * o.threads);
  memory.touch(o.seed);
  for (Worker& worker : workers) {
    worker.workload->fill();
    TC_TRY(worker.workload->state());
  }
  const TieredProcess process = workers[0].workload->process().value_or(
      TieredProcess{"workload", Pid(::getpid()), memory.allocated()});
  TC_TRY(write_ready_file(o.ready_file, fmt::format("{} {}\n", process.pid.get(), process.name)));
  wait_for_file(o.wait_file);

  const bool counted = o.operations != 0;
  if (o.warm_up > 0)
    run_all(workers, 0, counted ? static_cast<std::uint64_t>(o.warm_up) : kNoLimit,
            counted ? kNoLimit : monotonic_ns() + static_cast<std::uint64_t>(o.warm_up * 1e9),
            spec->sample_every, false);

  RunResult result;
  result.options = o;
  result.settings = settings;
  result.process = process;
  result.sample_every = spec->sample_every;
  result.start_monotonic_s = monotonic_seconds(system);
  const std::uint64_t start = monotonic_ns();
  for (Worker& worker : workers) worker.progress.start(start, period_ns(o));
  const auto since_start = [&] { return static_cast<double>(monotonic_ns() - start) / 1e9; };
  for (unsigned p = 0; p < phases; ++p) {
    if (p > 0 && stop_requested) break;
    thermocline_timing_mark(p == 0 ? "run" : "phase");
    PhaseResult phase{names[p], since_start(), 0, 0};
    const double until_s = o.duration_s * (p + 1) / phases;
    phase.operations =
        run_all(workers, p, counted ? part(o.operations, p, phases) : kNoLimit,
                counted ? kNoLimit : start + static_cast<std::uint64_t>(until_s * 1e9),
                spec->sample_every, true);
    phase.end_s = since_start();
    result.phases.push_back(std::move(phase));
  }
  thermocline_timing_mark("end");
  result.stopped = stop_requested;

  LatencyHistogram latencies;
  std::vector<const Progress*> progress;
  for (Worker& worker : workers) {
    TC_TRY(worker.workload->state());
    progress.push_back(&worker.progress);
    latencies.merge(worker.latencies);
    result.checksum = mix64(result.checksum ^ worker.workload->checksum());
    if (result.verified) result.verified = worker.workload->verify(worker.all_operations);
  }
  result.samples = sum_of(progress);
  result.p50_ns = latencies.quantile(0.50);
  result.p99_ns = latencies.quantile(0.99);
  return result;
}

nlohmann::ordered_json to_json(const RunResult& r) {
  using Json = nlohmann::ordered_json;
  const auto rate = [](std::uint64_t operations, double seconds) {
    return seconds > 0 ? static_cast<double>(operations) / seconds : 0.0;
  };
  Json phases = Json::array();
  for (const PhaseResult& p : r.phases)
    phases.push_back({{"name", p.name},
                      {"start_s", p.start_s},
                      {"end_s", p.end_s},
                      {"operations", p.operations},
                      {"ops_per_s", rate(p.operations, p.end_s - p.start_s)}});
  Json samples = Json::array();
  for (std::size_t i = 0; i < r.samples.size(); ++i)
    samples.push_back({static_cast<double>((i + 1) * period_ns(r.options)) / 1e9, r.samples[i]});
  const std::uint64_t operations = r.operations();
  // Time of one thread: with two threads an operation takes twice what their sum suggests.
  const double ns = operations == 0
                        ? 0.0
                        : r.seconds() * 1e9 * r.options.threads / static_cast<double>(operations);
  return {{"workload", r.options.name},
          {"seed", r.options.seed},
          {"threads", r.options.threads},
          {"footprint_bytes", r.options.footprint.get()},
          {"allocated_bytes", r.process.resident.get()},
          {"process", {{"name", r.process.name}, {"pid", r.process.pid.get()}}},
          {"huge_pages", r.options.huge_pages},
          {"settings", r.settings},
          {"start_monotonic_s", r.start_monotonic_s},
          {"operations", operations},
          {"seconds", r.seconds()},
          {"ops_per_s", rate(operations, r.seconds())},
          {"ns_per_op", ns},
          {"p50_ns", r.p50_ns},
          {"p99_ns", r.p99_ns},
          {"sample_every", r.sample_every},
          {"checksum", fmt::format("{:016x}", r.checksum)},
          {"verified", r.verified.has_value()},
          {"stopped", r.stopped},
          {"phases", std::move(phases)},
          {"samples", std::move(samples)}};
}

nlohmann::ordered_json list_json() {
  using Json = nlohmann::ordered_json;
  Json list = Json::array();
  for (const WorkloadSpec& spec : all_workloads()) {
    Json settings = Json::array();
    for (const Setting& s : spec.settings)
      settings.push_back({{"key", s.key},
                          {"default", s.value},
                          {"min", s.min},
                          {"max", s.max},
                          {"about", s.about}});
    list.push_back({{"name", spec.name},
                    {"about", spec.about},
                    {"source", spec.source},
                    {"program", spec.program.empty() ? Json(nullptr) : Json(spec.program)},
                    {"least_footprint_bytes", kLeastFootprint.get()},
                    {"settings", std::move(settings)}});
  }
  return list;
}

}  // namespace thermocline::workloads
