// SPDX-License-Identifier: Apache-2.0
// hotset: a program with a known hot set, in the manner of GUPS: threads update random 8-byte
// words, most of them in a few hot pages. It knows the truth that a tiering system has to find out,
// says where its hot and cold pages live, how soon a hot set that moved was on the fast node, and
// proves at the end that no word was damaged. It sets no memory policy; only the order in which it
// first touches its pages decides where they start.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "base/text.h"
#include "bench/workloads/command_line.h"
#include "bench/workloads/common.h"
#include "bench/workloads/gups.h"

namespace thermocline::workloads {
namespace {

enum class Init { kColdFirst, kHotFirst, kAddress };

struct Options {
  Bytes footprint;
  PageCount hot_unit;
  double hot_fraction = 0.25;
  double hot_share = 0.9;
  HotLayout layout = HotLayout::kScattered;
  Init init = Init::kColdFirst;
  bool thp = false;
  unsigned threads = 1;
  std::uint64_t seed = 1;
  double duration_s = 10;
  std::vector<double> move_hot_at_s;
  double rate = 0;
  double sample_s = 0.5;
  double report_every_s = 0;
  int fast_node = -1;
  double require_share = 0;
  double require_move_s = 0;
  std::string json, ready_file, wait_file;
};

/// One look at where the hot set of the moment lives.
struct Sample {
  double time_s = 0;  ///< since the start of the updates
  unsigned phase = 0;
  Placement hot;
};

struct Phase {
  double start_s = 0;
  double end_s = 0;
  std::uint64_t operations = 0;
  Placement hot_at_start, hot_at_end, cold_at_end;
  /// Seconds from the start of the phase to the first look at which that share of its hot pages was
  /// on the fast node.
  std::optional<double> reached_90, reached_95;
};

constexpr std::size_t kHugePage = std::size_t{2} << 20;

class Region {
 public:
  static Result<Region> map(Bytes size, bool thp) {
    void* const p = ::mmap(nullptr, size.get() + kHugePage, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
      return fail_errno(errno,
                        "can't map " + format_bytes(size) + "; choose a smaller --footprint");
    const auto at = (reinterpret_cast<std::uintptr_t>(p) + kHugePage - 1) & ~(kHugePage - 1);
    Region region(reinterpret_cast<std::byte*>(at), size.get());
    if (::madvise(region.base_, size.get(), thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0 && thp)
      return fail(ErrorKind::kUnsupported,
                  "this kernel gives no transparent huge pages ({}); use --thp off",
                  errno_text(errno));
    return region;
  }
  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] std::span<std::uint64_t> words() const {
    return {reinterpret_cast<std::uint64_t*>(base_), size_ / sizeof(std::uint64_t)};
  }

 private:
  Region(std::byte* base, std::size_t size) : base_(base), size_(size) {}
  std::byte* base_;
  std::size_t size_;
};

class Hotset {
 public:
  Hotset(Options options, System& system, std::vector<HotSet> sets, Region region)
      : o_(std::move(options)),
        system_(system),
        sets_(std::move(sets)),
        region_(region),
        memory_(region.words(), o_.seed),
        phases_(sets_.size()),
        operations_(std::size_t{o_.threads} * sets_.size() * kStride) {}

  Result<int> run() {
    fmt::print(
        "hotset: pid {}, {} at {:#x}, {} hot pages of {}, hot share of operations {:.1f} %, "
        "{} threads, seed {}\n",
        ::getpid(), format_bytes(o_.footprint), reinterpret_cast<std::uintptr_t>(region_.base()),
        sets_[0].hot.size(), pages_of(o_.footprint).get(), 100 * o_.hot_share, o_.threads, o_.seed);
    touch();
    TC_ASSIGN(start_hot_, placement(sets_[0].hot));
    TC_ASSIGN(start_cold_, placement(sets_[0].cold));
    fmt::print("start    hot pages: {}; cold pages: {}\n", start_hot_.to_text(),
               start_cold_.to_text());
    std::fflush(stdout);
    TC_TRY(write_ready_file(o_.ready_file));
    wait_for_file(o_.wait_file);

    t0_ = monotonic_seconds(system_);
    std::vector<std::thread> workers;
    for (unsigned t = 0; t < o_.threads; ++t) workers.emplace_back([this, t] { work(t); });
    const Status watched = watch();
    done_ = true;
    for (std::thread& worker : workers) worker.join();
    TC_TRY(watched);
    return report();
  }

 private:
  /// Counters of one thread and phase stand a cache line apart.
  static constexpr std::size_t kStride = 8;

  [[nodiscard]] double now() const { return monotonic_seconds(system_) - t0_; }
  [[nodiscard]] Result<Placement> placement(const std::vector<std::uint32_t>& pages) const {
    return query_placement(system_, region_.base(), pages);
  }
  std::atomic<std::uint64_t>& operations(unsigned thread, std::size_t phase) {
    return operations_[(thread * sets_.size() + phase) * kStride];
  }
  [[nodiscard]] std::uint64_t operations_of_phase(std::size_t phase) {
    std::uint64_t sum = 0;
    for (unsigned t = 0; t < o_.threads; ++t) sum += operations(t, phase);
    return sum;
  }

  void touch() {
    const HotSet& set = sets_[0];
    const auto fill = [this](const std::vector<std::uint32_t>& pages) {
      for (const std::uint32_t page : pages) memory_.fill_page(page);
    };
    switch (o_.init) {
      case Init::kColdFirst:
        fill(set.cold);
        fill(set.hot);
        break;
      case Init::kHotFirst:
        fill(set.hot);
        fill(set.cold);
        break;
      case Init::kAddress:
        for (std::uint32_t page = 0; page < pages_of(o_.footprint).get(); ++page)
          memory_.fill_page(page);
        break;
    }
  }

  void work(unsigned thread) {
    Random random(o_.seed, 1 + thread);
    const double rate = o_.rate / o_.threads;
    // A limited thread sleeps about every five milliseconds.
    const std::uint64_t batch =
        rate > 0 ? std::clamp<std::uint64_t>(static_cast<std::uint64_t>(rate / 200), 1, 16384)
                 : 1024;
    std::uint64_t mine = 0;
    while (!done_.load(std::memory_order_relaxed)) {
      const unsigned phase = phase_.load(std::memory_order_relaxed);
      memory_.update(sets_[phase], o_.hot_share, batch, thread, o_.threads, random);
      operations(thread, phase).fetch_add(batch, std::memory_order_relaxed);
      mine += batch;
      if (rate <= 0) continue;
      const double ahead = static_cast<double>(mine) / rate - now();
      if (ahead > 0)
        std::this_thread::sleep_for(std::chrono::duration<double>(std::min(ahead, 0.2)));
    }
  }

  /// The main thread while the workers run: takes samples, moves the hot set, reports.
  Status watch() {
    double next_sample = 0;
    double next_report = o_.report_every_s > 0 ? o_.report_every_s : o_.duration_s + 1;
    double last_report = 0;
    std::uint64_t last_operations = 0;
    phases_[0].hot_at_start = start_hot_;
    for (;;) {
      const double t = now();
      const unsigned phase = phase_;
      if (t >= o_.duration_s || stop_requested) return end_phase(phase);
      if (phase < o_.move_hot_at_s.size() && t >= o_.move_hot_at_s[phase]) {
        TC_TRY(end_phase(phase));
        phases_[phase + 1].start_s = phases_[phase].end_s;
        TC_ASSIGN(phases_[phase + 1].hot_at_start, placement(sets_[phase + 1].hot));
        phase_ = phase + 1;
        next_sample = now();
        continue;
      }
      if (t >= next_sample) {
        TC_TRY(sample(phase));
        next_sample += o_.sample_s * std::ceil((now() - next_sample) / o_.sample_s);
      }
      if (t >= next_report) {
        std::uint64_t all = 0;
        for (std::size_t p = 0; p < phases_.size(); ++p) all += operations_of_phase(p);
        TC_ASSIGN(const Placement cold, placement(sets_[phase].cold));
        fmt::print("{:6.1f} s  phase {}  {:.2f} M op/s  hot pages: {}; cold pages: {}\n", t, phase,
                   static_cast<double>(all - last_operations) / (t - last_report) / 1e6,
                   samples_.back().hot.to_text(), cold.to_text());
        std::fflush(stdout);
        last_operations = all;
        last_report = t;
        next_report += o_.report_every_s;
      }
      double next = std::min({next_sample, next_report, o_.duration_s});
      if (phase < o_.move_hot_at_s.size()) next = std::min(next, o_.move_hot_at_s[phase]);
      // In short steps, so that a stop signal is obeyed at once.
      std::this_thread::sleep_for(
          std::chrono::duration<double>(std::clamp(next - now(), 0.0005, 0.1)));
    }
  }

  Status sample(unsigned phase) {
    TC_ASSIGN(Placement hot, placement(sets_[phase].hot));
    const double t = now();
    if (o_.fast_node >= 0) {
      Phase& p = phases_[phase];
      const double share = hot.share(o_.fast_node);
      if (share >= 0.90 && !p.reached_90) p.reached_90 = t - p.start_s;
      if (share >= 0.95 && !p.reached_95) p.reached_95 = t - p.start_s;
    }
    samples_.push_back({t, phase, std::move(hot)});
    return {};
  }

  Status end_phase(unsigned phase) {
    TC_TRY(sample(phase));
    Phase& p = phases_[phase];
    p.hot_at_end = samples_.back().hot;
    p.end_s = samples_.back().time_s;
    TC_ASSIGN(p.cold_at_end, placement(sets_[phase].cold));
    return {};
  }

  Result<int> report() {
    // A stop signal may have ended the run before later phases began.
    phases_.resize(phase_ + 1u);
    std::uint64_t all = 0;
    for (std::size_t i = 0; i < phases_.size(); ++i) {
      Phase& p = phases_[i];
      p.operations = operations_of_phase(i);
      all += p.operations;
      fmt::print(
          "phase {}  {:.1f} s to {:.1f} s: {:.3f} M op/s (an operation updates one 8-byte "
          "word)\n         hot pages: {}\n",
          i, p.start_s, p.end_s, static_cast<double>(p.operations) / (p.end_s - p.start_s) / 1e6,
          p.hot_at_end.to_text());
      if (o_.fast_node >= 0)
        fmt::print("         on fast node {}: 90 % of them {}, 95 % {}\n", o_.fast_node,
                   reached_text(p.reached_90), reached_text(p.reached_95));
    }
    const Phase& last = phases_.back();
    fmt::print("end      hot pages: {}; cold pages: {}\n", last.hot_at_end.to_text(),
               last.cold_at_end.to_text());
    const Status verified = memory_.verify(all);
    TC_TRY(write_json(o_.json, to_json(verified.has_value())));
    TC_TRY(verified);
    fmt::print("verified {} operations: every word holds what it should\n", all);
    return requirements();
  }

  static std::string reached_text(const std::optional<double>& seconds) {
    return seconds ? fmt::format("after {:.2f} s", *seconds) : "never";
  }

  /// What --require-... asked for: kFailure when the run didn't show it.
  Result<int> requirements() const {
    const Phase& last = phases_.back();
    if (o_.require_share > 0 && last.hot_at_end.share(o_.fast_node) < o_.require_share)
      return fail(ErrorKind::kFailure,
                  "{:.1f} % of the hot pages ended on node {}; {:.1f} % were required",
                  100 * last.hot_at_end.share(o_.fast_node), o_.fast_node, 100 * o_.require_share);
    if (o_.require_move_s > 0) {
      if (phases_.size() != sets_.size())
        return fail(ErrorKind::kFailure, "the run was stopped before the hot set had moved");
      for (std::size_t i = 1; i < phases_.size(); ++i)
        if (!phases_[i].reached_90 || *phases_[i].reached_90 > o_.require_move_s)
          return fail(ErrorKind::kFailure,
                      "90 % of the hot set of phase {} was on node {} {}; {:.2f} s were required",
                      i, o_.fast_node, reached_text(phases_[i].reached_90), o_.require_move_s);
    }
    return 0;
  }

  [[nodiscard]] nlohmann::json to_json(bool verified) const {
    using nlohmann::json;
    const auto with_share = [this](const Placement& p) {
      json j = p.to_json();
      if (o_.fast_node >= 0) j["fast_share"] = p.share(o_.fast_node);
      return j;
    };
    json phases = json::array();
    for (const Phase& p : phases_) {
      json j{{"start_s", p.start_s},
             {"end_s", p.end_s},
             {"operations", p.operations},
             {"operations_per_s", static_cast<double>(p.operations) / (p.end_s - p.start_s)},
             {"hot_at_start", with_share(p.hot_at_start)},
             {"hot_at_end", with_share(p.hot_at_end)},
             {"cold_at_end", with_share(p.cold_at_end)}};
      if (o_.fast_node >= 0) {
        j["reached_90_s"] = p.reached_90 ? json(*p.reached_90) : json();
        j["reached_95_s"] = p.reached_95 ? json(*p.reached_95) : json();
      }
      phases.push_back(std::move(j));
    }
    json samples = json::array();
    for (const Sample& s : samples_) {
      json j = with_share(s.hot);
      j["time_s"] = s.time_s;
      j["phase"] = s.phase;
      samples.push_back(std::move(j));
    }
    json result{{"program", "hotset"},
                {"pid", ::getpid()},
                {"seed", o_.seed},
                {"threads", o_.threads},
                {"first_page", reinterpret_cast<std::uintptr_t>(region_.base()) >> kPageShift},
                {"pages", pages_of(o_.footprint).get()},
                {"hot_pages", sets_[0].hot.size()},
                {"hot_share_of_operations", o_.hot_share},
                {"start_monotonic_s", t0_},
                {"start", {{"hot", with_share(start_hot_)}, {"cold", with_share(start_cold_)}}},
                {"phases", std::move(phases)},
                {"samples", std::move(samples)},
                {"verified", verified}};
    result["fast_node"] = o_.fast_node >= 0 ? json(o_.fast_node) : json();
    return result;
  }

  Options o_;
  System& system_;
  std::vector<HotSet> sets_;
  Region region_;
  GupsMemory memory_;
  Placement start_hot_, start_cold_;
  double t0_ = 0;
  std::atomic<bool> done_{false};
  std::atomic<unsigned> phase_{0};
  std::vector<Phase> phases_;
  std::vector<Sample> samples_;
  std::vector<std::atomic<std::uint64_t>> operations_;
};

Status check(const Options& o) {
  const auto usage = [](std::string message) {
    return tl::make_unexpected(Error{ErrorKind::kUsage, std::move(message), 0});
  };
  if (o.footprint.get() == 0 || o.footprint.get() % kPageSize != 0)
    return usage("--footprint must be a multiple of 4K");
  if (o.thp && o.footprint.get() % kHugePage != 0)
    return usage("--footprint must be a multiple of 2M with --thp on");
  if (o.threads < 1 || o.threads > 64) return usage("--threads must be 1 to 64");
  if (!(o.hot_share >= 0 && o.hot_share <= 1)) return usage("--hot-share must be 0 to 1");
  if (!(o.duration_s > 0)) return usage("--duration must be more than 0 seconds");
  if (!(o.sample_s >= 0.01)) return usage("--sample-every must be at least 10 milliseconds");
  if (!(o.rate >= 0)) return usage("--rate must not be negative");
  double before = 0;
  for (const double at : o.move_hot_at_s) {
    if (!(at > before && at < o.duration_s))
      return usage("--move-hot-at times must rise and lie between 0 and --duration");
    before = at;
  }
  if (!(o.require_share >= 0 && o.require_share <= 1))
    return usage("--require-share must be 0 to 1");
  if ((o.require_share > 0 || o.require_move_s > 0) && o.fast_node < 0)
    return usage("--require-share and --require-move need --fast-node");
  if (o.require_move_s > 0 && o.move_hot_at_s.empty())
    return usage("--require-move needs --move-hot-at");
  return {};
}

Result<int> run(int argc, char** argv) {
  Options o;
  CLI::App app{"hotset: updates random words, most of them in a known set of hot pages."};
  std::string footprint = "128M";
  std::string hot_unit;
  double sample_ms = 500;
  const std::map<std::string, HotLayout> layouts{{"scattered", HotLayout::kScattered},
                                                 {"clustered", HotLayout::kClustered},
                                                 {"contiguous", HotLayout::kContiguous}};
  const std::map<std::string, Init> inits{{"cold-first", Init::kColdFirst},
                                          {"hot-first", Init::kHotFirst},
                                          {"address", Init::kAddress}};
  const std::map<std::string, bool> switches{{"on", true}, {"off", false}};
  app.add_option("--footprint", footprint, "memory that is updated")->capture_default_str();
  app.add_option("--hot-fraction", o.hot_fraction, "share of it that is hot")
      ->capture_default_str();
  app.add_option("--hot-share", o.hot_share, "share of operations that go to hot pages")
      ->capture_default_str();
  app.add_option("--layout", o.layout,
                 "scattered: any page is as likely to be hot; clustered: some 2 MiB hold many hot "
                 "pages, others few; contiguous: one run (default: scattered)")
      ->transform(CLI::CheckedTransformer(layouts));
  app.add_option("--hot-unit", hot_unit,
                 "bytes that are hot together (default: a page, 2M with --thp on)");
  app.add_option("--thp", o.thp, "transparent huge pages: on or off (default: off)")
      ->transform(CLI::CheckedTransformer(switches));
  app.add_option("--init", o.init,
                 "order of the first touch, which decides who gets the fast node: cold-first, "
                 "hot-first or address (default: cold-first)")
      ->transform(CLI::CheckedTransformer(inits));
  app.add_option("--threads", o.threads)->capture_default_str();
  app.add_option("--seed", o.seed, "same seed, same hot pages and operations")
      ->capture_default_str();
  app.add_option("--duration", o.duration_s, "seconds of updates")->capture_default_str();
  app.add_option("--move-hot-at", o.move_hot_at_s,
                 "seconds after which the hot set moves to other pages; may be given again");
  app.add_option("--rate", o.rate, "operations per second at most, all threads; 0: no limit")
      ->capture_default_str();
  app.add_option("--sample-every", sample_ms,
                 "milliseconds between two looks at where the hot pages live")
      ->capture_default_str();
  app.add_option("--report-every", o.report_every_s, "seconds between progress lines; 0: none")
      ->capture_default_str();
  app.add_option("--fast-node", o.fast_node, "node to report the share of hot pages for");
  app.add_option("--require-share", o.require_share,
                 "exit 1 unless this share of the hot pages ends on the fast node");
  app.add_option("--require-move", o.require_move_s,
                 "exit 1 unless 90 % of each hot set that moved is on the fast node within that "
                 "many seconds");
  app.add_option("--json", o.json, "also write the results to this file (-: standard output)");
  app.add_option("--ready-file", o.ready_file, "create this file when the memory is filled");
  app.add_option("--wait-file", o.wait_file, "then wait for this file before updating");
  TC_ASSIGN(const bool go_on, understand(app, "hotset", argc, argv));
  if (!go_on) return 0;
  TC_ASSIGN(o.footprint, parse_bytes(footprint));
  o.hot_unit = PageCount(o.thp ? kHugePage / kPageSize : 1);
  if (!hot_unit.empty()) {
    TC_ASSIGN(const Bytes unit, parse_bytes(hot_unit));
    if (unit.get() == 0 || unit.get() % kPageSize != 0)
      return fail(ErrorKind::kUsage, "--hot-unit must be a multiple of 4K");
    o.hot_unit = pages_of(unit);
  }
  o.sample_s = sample_ms / 1000;
  TC_TRY(check(o));
  const std::unique_ptr<System> system = make_real_system();
  if (o.fast_node >= 0) TC_TRY(check_node(*system, o.fast_node));
  TC_ASSIGN(std::vector<HotSet> sets,
            choose_hot_sets({.pages = pages_of(o.footprint),
                             .unit = o.hot_unit,
                             .hot_fraction = o.hot_fraction,
                             .layout = o.layout,
                             .seed = o.seed,
                             .phases = static_cast<unsigned>(o.move_hot_at_s.size() + 1)}));
  TC_ASSIGN(const Region region, Region::map(o.footprint, o.thp));
  catch_stop_signals();
  return Hotset(std::move(o), *system, std::move(sets), region).run();
}

}  // namespace
}  // namespace thermocline::workloads

int main(int argc, char** argv) {
  return thermocline::workloads::run_program(
      "hotset", [&] { return thermocline::workloads::run(argc, argv); });
}
