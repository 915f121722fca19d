// SPDX-License-Identifier: Apache-2.0
#include "emulation/replay/replay.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <map>
#include <optional>

#include "base/text.h"
#include "emulation/replay/virtual_tiers.h"
#include "engine/engine.h"
#include "tracking/recording.h"
#include "tracking/replay_tracker.h"

namespace thermocline::replay {

namespace {

constexpr Vpn kEnd{std::uint64_t{1} << (57 - kPageShift)};
/// Passes are played together when they were recorded so close to each other.
constexpr Nanoseconds kTogether = std::chrono::minutes(1);

double share(PageCount part, PageCount whole) {
  return whole.get() == 0 ? 0 : static_cast<double>(part.get()) / static_cast<double>(whole.get());
}

/// No machine but a clock, which the replay sets.
class StillMachine final : public System {
 public:
  Result<std::string> read_file(const std::string& path) const override { return none(path); }
  Result<std::vector<std::string>> list_dir(const std::string& path) const override {
    return none(path);
  }
  bool exists(const std::string&) const override { return false; }
  Result<std::string> read_link_name(const std::string& path) const override { return none(path); }
  Nanoseconds now() const override { return time; }
  Nanoseconds process_cpu_time() const override { return {}; }
  Result<UniqueFd> open_device(const std::string& path, int) override { return none(path); }
  int ioctl(int, unsigned long, void*) override { return -ENOSYS; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -ENOSYS;
  }
  Result<UniqueFd> pidfd_open(Pid) override { return UniqueFd(); }
  bool pidfd_exited(int) const override { return false; }

  Nanoseconds time{1};

 private:
  static tl::unexpected<Error> none(const std::string& path) {
    return fail(ErrorKind::kNotFound, "a replay has no {}", path);
  }
};

/// The passes of a recording as the engine asks for them, with the nodes of the virtual tiers.
class PlacedTracker final : public Tracker {
 public:
  PlacedTracker(std::unique_ptr<ReplayTracker> source, VirtualTiers& tiers, const Survey& survey,
                Nanoseconds epoch)
      : source_(std::move(source)), tiers_(tiers), survey_(survey), epoch_(epoch) {
    std::int32_t number = 0;
    for (const Asid recorded : source_->address_spaces()) {
      // Ids of an engine's own making: those of a recording may be anything.
      ProcessIdentity process;
      process.pid = Pid(++number);
      process.start_ticks = 1;
      process.asid = make_asid(process.pid, process.start_ticks, 0);
      ProcessIdentity played;
      played.asid = recorded;
      (void)source_->attach(played);  // it is there
      played_[process.asid] = {process, recorded, {}, 0};
    }
    const auto first = earliest();
    if (first) clock_ = source_->next_pass(first->recorded)->time;
  }

  const std::string& name() const override { return source_->name(); }
  Status attach(const ProcessIdentity& process) override {
    if (!played_.contains(process.asid))
      return fail(ErrorKind::kNotFound, "the recording is through");
    return {};
  }
  void detach(Asid asid) override {
    if (const auto found = played_.find(asid); found != played_.end())
      tiers_.release(asid, Vpn(0), kEnd);
  }

  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override {
    Played& played = played_.at(request.asid);
    skip_what_is_no_evidence(played.recorded);
    const auto next = source_->next_pass(played.recorded);
    if (!next) return fail(ErrorKind::kNotFound, "the recording is through");
    clock_ = std::max(next->time, next->time < clock_ - kTogether ? next->time : clock_);
    // The first scan of an epoch opens the first window: it tells what the next pass finds there,
    // and its evidence isn't counted. So no window of the recording is wasted.
    const bool arming = played.epoch != request.epoch;
    played.epoch = request.epoch;
    ScanRequest inner;
    inner.asid = played.recorded;
    inner.clear = !arming;
    bytes_.clear();
    Vpn cursor{0};
    auto stats = source_->scan(inner, [&](std::span<const std::byte> records) {
      RecordReader reader(records);
      while (const auto record = reader.next()) place(*record, request, played, cursor);
    });
    tiers_.release(request.asid, cursor, kEnd);
    if (!bytes_.empty()) sink(bytes_);
    return stats;
  }

  /// Those whose turn it is; empty when all has been played.
  std::vector<ProcessIdentity> targets() {
    std::vector<ProcessIdentity> now;
    for (auto& [asid, played] : played_) {
      skip_what_is_no_evidence(played.recorded);
      const auto next = source_->next_pass(played.recorded);
      if (next && next->time <= clock_ + epoch_ && next->time >= clock_ - kTogether)
        now.push_back(played.process);
    }
    if (const auto first = earliest(); now.empty() && first) {
      clock_ = source_->next_pass(first->recorded)->time;
      now.push_back(first->process);
    }
    return now;
  }
  [[nodiscard]] Nanoseconds clock() const { return clock_; }

 private:
  struct Played {
    ProcessIdentity process;  ///< as the engine knows it
    Asid recorded;
    Epoch epoch;
    std::uint64_t sequence = 0;
  };

  void skip_what_is_no_evidence(Asid recorded) {
    ScanRequest request;
    request.asid = recorded;
    for (auto next = source_->next_pass(recorded);
         next && !survey_.counts(next->cleared, next->window); next = source_->next_pass(recorded))
      if (!source_->scan(request, [](std::span<const std::byte>) {})) return;
  }

  std::optional<Played> earliest() {
    std::optional<Played> first;
    std::size_t number = std::numeric_limits<std::size_t>::max();
    for (auto& [asid, played] : played_) {
      skip_what_is_no_evidence(played.recorded);
      const auto next = source_->next_pass(played.recorded);
      if (!next || next->number >= number) continue;
      number = next->number;
      first = played;
    }
    return first;
  }

  /// Tells a record with the nodes on which the virtual tiers have its pages.
  void place(const RecordView& record, const ScanRequest& request, Played& played, Vpn& cursor) {
    tiers_.release(request.asid, cursor, record.first);
    cursor = record.first + record.pages();
    runs_.clear();
    for (std::uint32_t i = 0; i < record.count; ++i) {
      const Vpn page = record.first + PageCount(std::uint64_t{i} << record.order.get());
      std::optional<NodeId> node;
      if (record.present.test(i))
        node = NodeId(tiers_.settle(request.asid, page, record.order).get());
      else if (record.order == kOrder4K)
        tiers_.release(request.asid, page, page + PageCount(1));
      if (!runs_.empty() && runs_.back().node == node)
        ++runs_.back().count;
      else
        runs_.push_back({node, 1});
    }
    std::array<std::vector<std::uint64_t>, 4> words;
    const std::array<const RecordMap*, 4> maps{&record.present, &record.observable,
                                               &record.accessed, &record.dirty};
    for (std::size_t m = 0; m < maps.size(); ++m)
      for (std::uint32_t w = 0; w < maps[m]->words(); ++w) words[m].push_back(maps[m]->word(w));
    RecordHeader header;
    header.asid = request.asid;
    header.epoch = request.epoch;
    header.scan_time = record.scan_time;
    header.window = record.window;
    header.cleared = request.clear;
    header.writes_only = record.writes_only;
    RecordWriter(bytes_).append(header, played.sequence++, record.first, record.order, record.count,
                                {words[0], words[1], words[2], words[3]}, runs_);
  }

  std::unique_ptr<ReplayTracker> source_;
  VirtualTiers& tiers_;
  Survey survey_;
  Nanoseconds epoch_;
  std::map<Asid, Played> played_;
  Nanoseconds clock_{};
  std::vector<std::byte> bytes_;
  std::vector<NodeRun> runs_;
};

}  // namespace

Result<Ratio> parse_ratio(const std::string& text) {
  const auto parts = split(text, ':');
  const auto part = [&](std::size_t i) -> unsigned {
    const auto number = parse_u64(parts[i]);
    return number && *number >= 1 && *number <= 1024 ? static_cast<unsigned>(*number) : 0;
  };
  if (parts.size() == 2)
    if (const Ratio ratio{part(0), part(1)}; ratio.fast > 0 && ratio.slow > 0) return ratio;
  return fail(ErrorKind::kUsage,
              "the ratio {} is no FAST:SLOW such as 1:2, of whole numbers from 1 to 1024", text);
}

bool Survey::counts(bool cleared, Nanoseconds window) const {
  return cleared && window.count() > 0 && window.count() / 3 <= median_window.count();
}

Result<Survey> survey(RecordSource& source) {
  struct Pass {
    Asid asid;
    Nanoseconds window{};
    bool cleared = false;
    PageCount present;
  };
  std::vector<Pass> passes;
  bool pruned = false;
  TC_TRY(for_each_record(source, [&](const RecordView& record, const RecordPlace& place) {
    if (place.pass == passes.size())
      passes.push_back({record.asid, record.window, record.cleared, {}});
    passes[place.pass].present +=
        PageCount(std::uint64_t{record.present.population()} << record.order.get());
    pruned = pruned || record.idle;
  }));
  if (pruned)
    return fail(ErrorKind::kUsage,
                "the records are of pruned scans, which don't tell where every page lies in every "
                "window: record without pruning");
  Survey result;
  std::vector<Nanoseconds> windows;
  for (const Pass& pass : passes)
    if (pass.cleared && pass.window.count() > 0) windows.push_back(pass.window);
  if (windows.empty())
    return fail(ErrorKind::kFailure,
                "the records hold no clearing scan with a known window; record for longer");
  const auto middle = windows.begin() + static_cast<std::ptrdiff_t>(windows.size() / 2);
  std::nth_element(windows.begin(), middle, windows.end());
  result.median_window = *middle;
  // An address space is there from its first pass to its last one.
  std::map<Asid, std::size_t> last;
  for (std::size_t i = 0; i < passes.size(); ++i) last[passes[i].asid] = i;
  result.address_spaces = last.size();
  std::map<Asid, PageCount> present;
  PageCount sum;
  for (std::size_t i = 0; i < passes.size(); ++i) {
    const Pass& pass = passes[i];
    (result.counts(pass.cleared, pass.window) ? result.windows : result.windows_left_out) += 1;
    PageCount& own = present[pass.asid];
    sum = sum + pass.present - own;
    own = pass.present;
    result.footprint = std::max(result.footprint, sum);
    if (last[pass.asid] == i) sum -= std::exchange(own, PageCount(0));
  }
  return result;
}

PageCount fast_pages(PageCount footprint, Ratio ratio) {
  return PageCount(footprint.get() * ratio.fast / (ratio.fast + ratio.slow));
}

double Outcome::hit_ratio() const {
  return share(accessed_page_windows_fast, accessed_page_windows);
}

double Outcome::ping_pong_share() const {
  return share(moves.regretted, moves.promotions.applied + moves.demotions.applied);
}

Result<Outcome> play(std::unique_ptr<RecordSource> source, const Survey& survey,
                     const Options& options) {
  PolicyRegistry builtin;
  if (options.registry == nullptr) register_builtin_policies(builtin);
  const PolicyRegistry& registry = options.registry != nullptr ? *options.registry : builtin;
  TC_ASSIGN(auto policy, registry.make(options.policy, options.policy_options, options.seed));
  Outcome outcome;
  outcome.policy = options.policy;
  outcome.fast = fast_pages(survey.footprint, options.ratio);
  outcome.slow = survey.footprint;
  if (outcome.fast == PageCount(0))
    return fail(ErrorKind::kUsage,
                "at {}:{} the fast tier holds none of the {} pages of the recording: give it more",
                options.ratio.fast, options.ratio.slow, survey.footprint.get());
  TC_ASSIGN(auto recording, ReplayTracker::open(std::move(source)));

  EngineOptions engine_options;
  engine_options.windows_per_epoch = options.windows_per_epoch;
  engine_options.window = std::max(survey.median_window, Nanoseconds(1));
  engine_options.window_auto = false;
  engine_options.epoch = engine_options.window * options.windows_per_epoch;
  engine_options.cpu_budget = 1;
  engine_options.rate_limit = options.rate_limit;
  engine_options.headroom = PageCount(0);

  StillMachine machine;
  VirtualTiers tiers({outcome.fast, outcome.slow});
  auto owned =
      std::make_unique<PlacedTracker>(std::move(recording), tiers, survey, engine_options.epoch);
  PlacedTracker& tracker = *owned;
  bool over = false;
  const Engine* played = nullptr;
  PageCount regretted;
  EngineHooks hooks;
  hooks.on_epoch = [&](const EpochReport& report) {
    const PageCount so_far = played->ledger().totals().regretted;
    outcome.epochs.push_back({report.epoch.get(), tracker.clock(), report.accessed_page_windows,
                              report.accessed_page_windows_fast, report.promoted, report.demoted,
                              report.failed, so_far - regretted});
    regretted = so_far;
  };
  Engine engine({machine, std::move(owned), std::move(policy), make_virtual_mover(tiers),
                 [&]() -> Result<std::vector<TierState>> { return tiers.states(); },
                 [&]() -> Result<std::vector<ProcessIdentity>> {
                   auto now = tracker.targets();
                   over = now.empty();
                   return now;
                 },
                 std::move(hooks)},
                engine_options);
  played = &engine;
  while (!over) machine.time = std::max(machine.time, engine.step(machine.time));
  TC_TRY(decided_itself(engine.policy()));
  outcome.accessed_page_windows = engine.counters().accessed_page_windows;
  outcome.accessed_page_windows_fast = engine.counters().accessed_page_windows_fast;
  outcome.moves = engine.ledger().totals();
  return outcome;
}

}  // namespace thermocline::replay
