// SPDX-License-Identifier: Apache-2.0
// The epoch loop on a scripted machine: one process, two tiers, a clock that the test moves.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>

#include "tracking/rounds.h"

namespace thermocline {
namespace {

using namespace std::chrono_literals;

/// A machine of two nodes. Pages are touched by `hot` in every window; a move changes `node`.
struct World {
  std::vector<NodeId> node;  // of each page
  std::vector<bool> hot;
  PageCount fast_free{0};
  std::vector<PageCount> slow_free{PageCount(100000)};  // of nodes 1, 2, ...
  PageCount cpu_lists{0}, cpu_lists_hold{0};  // freed pages go here first, up to cpu_lists_hold
  Nanoseconds clock{1s};
  bool process_exists = true;
  std::vector<ProcessIdentity> others;  // targets that touch nothing
  std::uint64_t ticks_an_epoch = 0;
  bool address_space_gone = false;
  bool ranges = false;              // the tracker scans ranges alone
  bool rounds = false;              // the tracker watches windows by itself
  bool lose_second_record = false;  // of the first window of each round
  bool stuck = false;               // rounds don't end
  Nanoseconds pass_time{};          // that a pass of a round takes
  Nanoseconds whole_pass{};         // that a pass over all pages takes, as the tracker tells it
  std::vector<MoveOutcome> script;  // outcomes of the next moves, then kMoved
  std::set<std::size_t> held;       // pages that are always busy
  std::map<std::size_t, unsigned> tries;
  std::function<bool(std::size_t page)> touched;  // instead of `hot`
  std::function<void()> on_move;
  std::uint64_t moves = 0, moves_without_room = 0;
  std::vector<std::size_t> batch_sizes;
};

class ScriptedSystem final : public System {
 public:
  explicit ScriptedSystem(World& world) : world_(world) {}
  Result<std::string> read_file(const std::string& p) const override {
    if (maps_cpu == 0s || !p.ends_with("/maps")) return none(p);
    cpu += maps_cpu;
    ++maps_read;
    return "";
  }
  Result<std::vector<std::string>> list_dir(const std::string&) const override {
    return std::vector<std::string>{};
  }
  bool exists(const std::string&) const override { return false; }
  Result<std::string> read_link_name(const std::string& p) const override { return none(p); }
  Nanoseconds now() const override { return world_.clock; }
  Nanoseconds process_cpu_time() const override { return cpu; }
  Result<UniqueFd> open_device(const std::string&, int) override {
    return fail(ErrorKind::kNotFound, "no device");
  }
  int ioctl(int, unsigned long, void*) override { return -1; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -1;
  }
  Result<UniqueFd> pidfd_open(Pid) override { return UniqueFd(); }
  bool pidfd_exited(int) const override { return false; }
  mutable Nanoseconds cpu{0};
  Nanoseconds maps_cpu{0};  // that reading a target's memory maps takes; 0: it has none
  mutable unsigned maps_read = 0;

 private:
  static Result<std::string> none(const std::string& p) {
    return fail(ErrorKind::kNotFound, "no {}", p);
  }
  World& world_;
};

/// Scans when asked, or, in a world with rounds, watches windows by itself as the clock goes on.
class ScriptedTracker final : public Tracker, public RoundSource {
 public:
  ScriptedTracker(World& world, ScriptedSystem& system) : world_(world), system_(system) {}
  const std::string& name() const override {
    static const std::string kName = "scripted";
    return kName;
  }
  Status attach(const ProcessIdentity& process) override {
    attached.push_back(process.asid);
    world_.address_space_gone = false;
    return {};
  }
  void detach(Asid) override {}
  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override {
    if (world_.address_space_gone) return fail(ErrorKind::kNotFound, "gone");
    system_.cpu += scan_cpu;
    sink(records(request.asid, request.epoch, request.window, request.ranges));
    if (is_look(request.ranges)) return ScanStats{};
    return told(request.ranges);
  }

  bool scans_ranges() const override { return world_.ranges; }
  RoundSource* rounds() override { return world_.rounds ? this : nullptr; }
  int ready_fd() const override { return -1; }
  Status begin_round(const RoundRequest& request) override {
    if (world_.address_space_gone) return fail(ErrorKind::kNotFound, "gone");
    requests.push_back(request);
    round_ = request;
    ranges_.assign(request.ranges.begin(), request.ranges.end());
    pass_ = 0;
    next_pass_ = world_.clock + world_.pass_time;
    return {};
  }
  void drain(RoundSink& sink) override {
    if (!round_ || world_.stuck) return;
    const Asid asid = round_->asid;
    if (world_.address_space_gone) {
      round_.reset();
      sink.on_gone(asid, Error{ErrorKind::kNotFound, "gone"});
      return;
    }
    while (round_ && next_pass_ <= world_.clock) {
      auto bytes = records(asid, round_->epoch, round_->window, ranges_);
      RoundPass pass;
      pass.epoch = round_->epoch;
      pass.pass = pass_;
      pass.windows = round_->windows;
      if (!is_look(ranges_)) pass.stats = told(ranges_);
      if (world_.lose_second_record && pass_ == 1) {
        RecordReader reader(bytes);
        (void)reader.next();
        const std::size_t from = reader.offset();
        (void)reader.next();
        sink.on_records(asid, std::span(bytes).first(from));
        sink.on_records(asid, std::span(bytes).subspan(reader.offset()));
        pass.lost_records = 1;
      } else {
        sink.on_records(asid, bytes);
      }
      if (pass_ == round_->windows) pass.cpu = scan_cpu;
      sink.on_pass(asid, pass);
      next_pass_ += round_->window + world_.pass_time;
      if (pass_++ == round_->windows) round_.reset();
    }
  }

  std::vector<Asid> attached;
  std::vector<RoundRequest> requests;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> sections;  // of each pass: from, to
  unsigned scans = 0;
  Nanoseconds scan_cpu{0};

 private:
  /// A few pages, where a section of the address space has many.
  static bool is_look(std::span<const ScanRange> ranges) {
    return !ranges.empty() && ranges.front().count < PageCount(512);
  }
  ScanStats told(std::span<const ScanRange> ranges) {
    ++scans;
    ScanStats stats;
    stats.entries = world_.node.size();
    if (!ranges.empty()) {
      const std::uint64_t first = ranges.front().first.get();
      sections.emplace_back(first, first + ranges.front().count.get());
      stats.entries = 0;
      for (std::size_t i = 0; i < world_.node.size(); ++i)
        stats.entries += i + 0x1000 >= sections.back().first && i + 0x1000 < sections.back().second;
    }
    stats.elapsed =
        world_.whole_pass * static_cast<int>(stats.entries) / static_cast<int>(world_.node.size());
    return stats;
  }

  std::vector<std::byte> records(Asid asid, Epoch epoch, Nanoseconds window,
                                 std::span<const ScanRange> ranges) {
    std::vector<std::byte> bytes;
    RecordWriter writer(bytes);
    RecordHeader header;
    header.asid = asid;
    header.epoch = epoch;
    header.window = window;
    const auto accessed = [&](std::size_t i) {
      return world_.touched ? world_.touched(i) : world_.hot[i];
    };
    if (is_look(ranges)) {
      for (const ScanRange& range : ranges) {
        const std::size_t i = range.first.get() - 0x1000;
        const EntryObservation entry{world_.node[i], true, true, accessed(i), false};
        writer.append(header, sequence_++, range.first, kOrder4K, {&entry, 1});
      }
      return bytes;
    }
    for (std::size_t at = 0; at < world_.node.size(); at += 512) {
      const Vpn first(0x1000 + at);
      if (!ranges.empty() &&
          (first < ranges.front().first || first >= ranges.front().first + ranges.front().count))
        continue;
      std::vector<EntryObservation> entries;
      for (std::size_t i = at; i < std::min(at + 512, world_.node.size()); ++i)
        entries.push_back({world_.node[i], true, true, accessed(i), false});
      writer.append(header, sequence_++, Vpn(0x1000 + at), kOrder4K, entries);
    }
    return bytes;
  }

  std::optional<RoundRequest> round_;
  std::vector<ScanRange> ranges_;
  unsigned pass_ = 0;
  Nanoseconds next_pass_{};
  World& world_;
  ScriptedSystem& system_;
  std::uint64_t sequence_ = 0;
};

class ScriptedMover final : public Mover {
 public:
  explicit ScriptedMover(World& world) : world_(world) {}
  void execute(std::span<const PageMove> moves, std::span<MoveOutcome> outcomes) override {
    world_.batch_sizes.push_back(moves.size());
    for (std::size_t i = 0; i < moves.size(); ++i) {
      outcomes[i] = MoveOutcome::kMoved;
      if (world_.moves < world_.script.size()) outcomes[i] = world_.script[world_.moves];
      ++world_.moves;
      if (world_.on_move) world_.on_move();
      const std::size_t page = moves[i].vpn.get() - 0x1000;
      ++world_.tries[page];
      if (world_.held.contains(page)) outcomes[i] = MoveOutcome::kBusy;
      if (outcomes[i] != MoveOutcome::kMoved) continue;
      if (moves[i].to == NodeId(0)) {
        if (world_.fast_free == PageCount(0)) {
          outcomes[i] = MoveOutcome::kNoMemory;
          continue;
        }
        world_.fast_free -= PageCount(1);
      } else {
        (world_.cpu_lists < world_.cpu_lists_hold ? world_.cpu_lists : world_.fast_free) +=
            PageCount(1);
        PageCount& free = world_.slow_free[static_cast<std::size_t>(moves[i].to.get() - 1)];
        if (free == PageCount(0)) ++world_.moves_without_room;
        free = free.minus_floor(PageCount(1));
      }
      world_.node[page] = moves[i].to;
    }
  }

 private:
  World& world_;
};

class EngineTest : public testing::Test {
 protected:
  EngineTest() {
    options_.epoch = 1s;
    options_.window = 10ms;
    options_.window_auto = false;
    options_.cpu_budget = 1.0;
    options_.headroom = PageCount(0);
    options_.batch = PageCount(64);
    process_.pid = Pid(7);
    process_.start_ticks = 5;
    process_.command = "app";
    // Fast tier full of cold pages, hot pages on the slow one: every promotion needs a demotion.
    world_.node.assign(2048, NodeId(1));
    world_.hot.assign(2048, false);
    for (std::size_t i = 0; i < 512; ++i) world_.node[i] = NodeId(0);
    for (std::size_t i = 1024; i < 1024 + 400; ++i) world_.hot[i] = true;
    world_.fast_free = PageCount(16);
  }

  void build(const std::string& policy = "auto") {
    PolicyRegistry registry;
    register_builtin_policies(registry);
    auto tracker = std::make_unique<ScriptedTracker>(world_, system_);
    tracker_ = tracker.get();
    EngineHooks hooks;
    hooks.on_epoch = [this](const EpochReport& report) { reports_.push_back(report); };
    hooks.on_records = [this](std::span<const std::byte> bytes) {
      RecordReader reader(bytes);
      while (const auto record = reader.next()) told_of_looks_ |= record->epoch > engine_epoch();
    };
    hooks.log = [this](const std::string& text) { log_ += text + "\n"; };
    engine_ = std::make_unique<Engine>(
        Engine::Parts{
            system_, std::move(tracker), *registry.make(policy, {}, 1),
            std::make_unique<ScriptedMover>(world_),
            [this]() -> Result<std::vector<TierState>> {
              TierState fast{TierId(0), {{NodeId(0), world_.fast_free, world_.cpu_lists, {}, {}}}};
              TierState slow{TierId(1), {}};
              for (std::size_t i = 0; i < world_.slow_free.size(); ++i)
                slow.nodes.push_back(
                    {NodeId(static_cast<std::int32_t>(1 + i)), world_.slow_free[i], {}, {}, {}});
              return std::vector{fast, slow};
            },
            [this]() -> Result<std::vector<ProcessIdentity>> {
              if (!world_.process_exists) return std::vector<ProcessIdentity>{};
              process_.cpu_ticks += world_.ticks_an_epoch;
              std::vector<ProcessIdentity> all = world_.others;
              all.push_back(process_);
              return all;
            },
            hooks},
        options_);
  }

  void run_until(Nanoseconds end) {
    while (world_.clock < end) {
      const Nanoseconds next = engine_->step(world_.clock);
      world_.clock = std::max(world_.clock + 10us, next);
    }
  }

  Epoch engine_epoch() const { return Epoch(engine_->counters().epochs); }

  std::size_t hot_on_fast() const {
    std::size_t n = 0;
    for (std::size_t i = 0; i < world_.node.size(); ++i)
      if (world_.hot[i] && world_.node[i] == NodeId(0)) ++n;
    return n;
  }

  EngineOptions options_;
  World world_;
  ScriptedSystem system_{world_};
  ProcessIdentity process_;
  ScriptedTracker* tracker_ = nullptr;
  std::unique_ptr<Engine> engine_;
  std::vector<EpochReport> reports_;
  std::string log_;
  bool told_of_looks_ = false;  // records of no epoch came to the hook
};

TEST_F(EngineTest, HotPagesEndUpOnAFullFastTier) {
  build();
  run_until(world_.clock + 5s);
  EXPECT_GE(hot_on_fast(), 396u) << "of 400";
  EXPECT_EQ(engine_->ledger().totals().promotions.applied.get(), hot_on_fast());
  EXPECT_GE(engine_->ledger().totals().demotions.applied.get(), hot_on_fast() - 16);
}

TEST_F(EngineTest, ANewHotSetFollowsWithinThreeEpochs) {
  build();
  run_until(world_.clock + 6s);
  world_.hot.assign(2048, false);
  for (std::size_t i = 1500; i < 1900; ++i) world_.hot[i] = true;
  run_until(world_.clock + 3s);
  EXPECT_GE(hot_on_fast(), 360u) << "of 400";
}

TEST_F(EngineTest, FreedPagesOnCpuListsNeitherBlockNorDrainTheFastTier) {
  world_.cpu_lists_hold = PageCount(80);
  build();
  run_until(world_.clock + 4s);
  EXPECT_GE(hot_on_fast(), 396u) << "of 400";
  const std::uint64_t demoted = engine_->ledger().totals().demotions.applied.get();
  EXPECT_LE(demoted, 400u + 80u + 64u) << "no more than the lists hold, and a batch";
  run_until(world_.clock + 5s);
  EXPECT_LE(engine_->ledger().totals().demotions.applied.get(), demoted + 8) << "and then rest";
}

TEST_F(EngineTest, EachEpochArmsOnceAndCountsItsWindows) {
  options_.windows_per_epoch = 4;
  build();
  run_until(world_.clock + 3s - 1ms);
  const std::uint64_t epochs = engine_->counters().epochs;
  EXPECT_GE(epochs, 3u);
  EXPECT_EQ(tracker_->scans, epochs * (4 + 1));
  EXPECT_EQ(engine_->counters().windows, epochs * 4);
  EXPECT_EQ(engine_->counters().present_page_windows.get(), epochs * 4 * 2048u);
  EXPECT_EQ(engine_->counters().accessed_page_windows.get(), epochs * 4 * 400u);
}

/// Passes of 25 ms where a window is one of 10: the address space is watched in parts.
class EngineSectionsTest : public EngineTest {
 protected:
  EngineSectionsTest() {
    world_.ranges = true;
    world_.whole_pass = 25ms;
    options_.mode = EngineMode::kObserve;  // so that epochs are as long as asked for
  }
  /// The rounds of epochs, without those of looks.
  std::vector<RoundRequest> asked() const {
    std::vector<RoundRequest> rounds;
    for (const RoundRequest& request : tracker_->requests)
      if (request.windows == options_.windows_per_epoch) rounds.push_back(request);
    return rounds;
  }
  /// All passes of an epoch over one section come one after the other, and each section begins
  /// where the one before ended.
  void expect_whole_epochs(std::size_t windows) {
    ASSERT_GE(tracker_->sections.size(), 2 * (windows + 1));
    std::uint64_t end = 0;
    std::size_t at = 0, epochs = 0;
    while (at + windows < tracker_->sections.size()) {
      for (std::size_t w = 0; w <= windows; ++w)
        ASSERT_EQ(tracker_->sections[at + w], tracker_->sections[at]) << at << " + " << w;
      ASSERT_EQ(tracker_->sections[at].first, end) << at;
      end = tracker_->sections[at].second;
      if (end >= (std::uint64_t{1} << 35) - 1) {
        EXPECT_EQ(end, (std::uint64_t{1} << 35) - 1) << "the module refuses more";
        end = 0;
        ++epochs;
      }
      at += windows + 1;
    }
    EXPECT_GE(epochs, 2u);
  }
};

TEST_F(EngineSectionsTest, EachPageIsSeenInEachWindowOnce) {
  for (const bool rounds : {false, true}) {
    world_.rounds = rounds;
    options_.windows_per_epoch = 4;
    build();
    run_until(world_.clock + 5s);
    expect_whole_epochs(4);
    const EngineCounters& counters = engine_->counters();
    EXPECT_EQ(counters.windows, counters.epochs * 4) << rounds;
    EXPECT_EQ(counters.present_page_windows.get(), counters.epochs * 4 * 2048u) << rounds;
    EXPECT_EQ(counters.accessed_page_windows.get(), counters.epochs * 4 * 400u) << rounds;
    EXPECT_EQ(counters.corrupt_records, 0u);
  }
}

TEST_F(EngineSectionsTest, HotPagesAreFoundAsWithoutThem) {
  options_.mode = EngineMode::kManage;
  for (const bool rounds : {false, true}) {
    const World fresh = world_;
    world_.rounds = rounds;
    build();
    run_until(world_.clock + 4s);
    EXPECT_FALSE(tracker_->sections.empty());
    EXPECT_GE(hot_on_fast(), 396u) << "of 400";
    world_ = fresh;
  }
}

TEST_F(EngineSectionsTest, IdleMemoryIsLookedAtNowAndThen) {
  world_.rounds = true;
  for (const Nanoseconds pass : {Nanoseconds(1ms), Nanoseconds(25ms)}) {
    world_.whole_pass = pass;
    build();
    run_until(world_.clock + 30s);
    EXPECT_EQ(tracker_->sections.empty(), pass < 10ms);
    std::map<Epoch, std::set<bool>> whole;  // by epoch, of its rounds
    for (const RoundRequest& request : asked()) whole[request.epoch].insert(request.whole);
    ASSERT_GE(whole.size(), 20u);
    unsigned n = 0;
    for (const auto& [epoch, is_whole] : whole)
      EXPECT_THAT(is_whole, testing::ElementsAre(n++ % 8 == 0)) << "epoch " << epoch.get();
  }
}

TEST_F(EngineSectionsTest, AfterALossAllIsLookedAt) {
  world_.rounds = true;
  world_.whole_pass = 1ms;
  build();
  run_until(world_.clock + 5s);
  ASSERT_FALSE(asked().back().whole);
  world_.lose_second_record = true;
  const std::size_t before = asked().size();
  while (asked().size() < before + 2) run_until(world_.clock + 100ms);
  EXPECT_TRUE(asked().back().whole);
}

/// A round that is late when all should be looked at is no reason to put that off by eight epochs.
TEST_F(EngineSectionsTest, ALateRoundDoesNotSwallowAWholeLook) {
  world_.rounds = true;
  world_.whole_pass = 1ms;
  for (int late_at = 0; late_at < 10; ++late_at) {
    build();
    const auto run_until_asked = [&](std::size_t n) {
      const Nanoseconds latest = world_.clock + 100s;
      while (asked().size() < n && world_.clock < latest) run_until(world_.clock + 10ms);
    };
    run_until_asked(12 + static_cast<std::size_t>(late_at));
    world_.stuck = true;
    run_until(world_.clock + 5s);
    EXPECT_GE(engine_->counters().epochs, asked().size()) << "an epoch went on without it";
    world_.stuck = false;
    run_until_asked(asked().size() + 20);
    std::size_t since = 0;
    for (const RoundRequest& request : asked()) {
      since = request.whole ? 0 : since + 1;
      EXPECT_LT(since, 8u) << late_at;
    }
  }
}

TEST_F(EngineSectionsTest, WhatIsMappedLaterIsFoundAndWhatIsUnmappedForgotten) {
  build();
  const auto pages = [this] {
    PageCount all;
    for (const PageCount tier : engine_->heat().occupancy().per_tier) all += tier;
    return all.get();
  };
  run_until(world_.clock + 3s);
  ASSERT_FALSE(tracker_->sections.empty());
  EXPECT_EQ(pages(), 2048u);
  world_.node.resize(4096, NodeId(1));
  world_.hot.resize(4096, false);
  run_until(world_.clock + 3s);
  EXPECT_EQ(pages(), 4096u);
  world_.node.resize(1024);
  world_.hot.resize(1024);
  run_until(world_.clock + 3s);
  EXPECT_EQ(pages(), 1024u);
}

TEST_F(EngineSectionsTest, WhoWantsWholePassesGetsThem) {
  options_.sections = false;
  build();
  run_until(world_.clock + 3s);
  EXPECT_TRUE(tracker_->sections.empty());
}

TEST_F(EngineSectionsTest, ShortPassesAreLeftWhole) {
  world_.whole_pass = 9ms;
  build();
  run_until(world_.clock + 3s);
  EXPECT_TRUE(tracker_->sections.empty());
}

TEST_F(EngineTest, ObserveMovesNothing) {
  options_.mode = EngineMode::kObserve;
  build();
  run_until(world_.clock + 5s);
  EXPECT_EQ(world_.moves, 0u);
  EXPECT_GT(engine_->counters().windows, 0u);
}

TEST_F(EngineTest, StaticMovesNothing) {
  build("static");
  run_until(world_.clock + 5s);
  EXPECT_EQ(world_.moves, 0u);
}

TEST_F(EngineTest, TheRateLimitHolds) {
  options_.rate_limit = bytes_of(PageCount(100));  // 100 pages a second
  options_.batch = PageCount(10);
  build();
  run_until(world_.clock + 4s);
  EXPECT_GT(world_.moves, 100u);
  EXPECT_LE(world_.moves, 4 * 100u + 20u);
}

TEST_F(EngineTest, BatchesAreNoLargerThanAllowed) {
  build();
  run_until(world_.clock + 3s);
  ASSERT_FALSE(world_.batch_sizes.empty());
  for (const std::size_t size : world_.batch_sizes) EXPECT_LE(size, 64u);
}

TEST_F(EngineTest, FailuresAreCountedByReasonAndDeniedPagesAreLeftAlone) {
  // The first moves are demotions; two of them are refused for good.
  world_.script = {MoveOutcome::kDenied, MoveOutcome::kBusy, MoveOutcome::kDenied};
  build();
  run_until(world_.clock + 5s);
  const MoveTotals& totals = engine_->ledger().totals().demotions;
  EXPECT_EQ(totals.by_outcome[static_cast<std::size_t>(MoveOutcome::kDenied)].get(), 2u);
  EXPECT_EQ(totals.by_outcome[static_cast<std::size_t>(MoveOutcome::kBusy)].get(), 1u);
  EXPECT_EQ(totals.tried.get(), totals.applied.get() + 3);
  EXPECT_GE(hot_on_fast(), 396u);
}

TEST_F(EngineTest, APageThatWasDeniedIsTriedAgainLater) {
  // A fork shares all pages for a while: nothing can be moved, then everything.
  world_.script.assign(3000, MoveOutcome::kDenied);
  build();
  run_until(world_.clock + 100s);
  EXPECT_GT(world_.moves, 3000u);
  EXPECT_GE(hot_on_fast(), 396u);
}

TEST_F(EngineTest, DemotionsKeepTheHeadroomOfEachNode) {
  options_.headroom = PageCount(60);
  world_.slow_free = {PageCount(100), PageCount(250)};
  world_.fast_free = PageCount(76);
  build();
  run_until(world_.clock + 10s);
  // 30 pages each are kept; what can't be demoted makes no room for a promotion.
  EXPECT_EQ(world_.moves_without_room, 0u);
  EXPECT_EQ(world_.slow_free[0], PageCount(30));
  EXPECT_EQ(world_.slow_free[1], PageCount(30));
  EXPECT_GE(hot_on_fast(), 280u);
}

TEST_F(EngineTest, ObservingAgainStopsThePlanAtOnce) {
  options_.rate_limit = bytes_of(PageCount(64));
  options_.batch = PageCount(8);
  build();
  while (world_.moves == 0)
    world_.clock = std::max(world_.clock + 1ms, engine_->step(world_.clock));
  EngineOptions observe = options_;
  observe.mode = EngineMode::kObserve;
  engine_->set_options(observe);
  const std::uint64_t moves = world_.moves;
  run_until(world_.clock + 5s);
  EXPECT_EQ(world_.moves, moves);
}

TEST(MoveQueue, TakesOneAddressSpaceAndKeepsTheOrderOfTheOthers) {
  const auto move = [](std::uint64_t asid, std::uint64_t vpn, PageOrder order) {
    return Move{Asid(asid), Vpn(vpn), order, TierId(1), TierId(0), Heat(1), 0};
  };
  MoveQueue queue;
  for (const Move& m : {move(1, 10, kOrder4K), move(2, 20, kOrder4K), move(1, 512, kOrder2M),
                        move(1, 11, kOrder4K), move(2, 21, kOrder4K)})
    queue.push(m);
  EXPECT_EQ(queue.pages(), PageCount(516));
  std::vector<Move> batch;
  queue.take(PageCount(64), batch);
  ASSERT_EQ(batch.size(), 1u) << "the huge page is next and has no room";
  EXPECT_EQ(batch[0].vpn, Vpn(10));
  batch.clear();
  queue.take(PageCount(64), batch);
  ASSERT_EQ(batch.size(), 2u);
  EXPECT_EQ(batch[1].vpn, Vpn(21));
  EXPECT_EQ(queue.front().vpn, Vpn(512));
  EXPECT_EQ(queue.pages(), PageCount(513));
}

TEST(MoveQueue, WhatLeavesATierComesForwardAndWhatFindsNoRoomIsDropped) {
  const auto move = [](std::uint64_t vpn, unsigned from) {
    return Move{Asid(1),
                Vpn(vpn),
                kOrder4K,
                TierId(static_cast<std::uint8_t>(from)),
                TierId(static_cast<std::uint8_t>(from + 1)),
                Heat(1),
                0};
  };
  MoveQueue queue;
  for (const Move& m : {move(1, 0), move(2, 0), move(3, 1), move(4, 0), move(5, 1)}) queue.push(m);
  EXPECT_FALSE(queue.bring_forward(TierId(2)));
  EXPECT_EQ(queue.front().vpn, Vpn(1));
  EXPECT_TRUE(queue.bring_forward(TierId(1)));
  std::vector<Move> batch;
  queue.take(PageCount(1), batch);
  EXPECT_EQ(batch[0].vpn, Vpn(3));
  EXPECT_EQ(queue.drop(TierId(1)), PageCount(3));
  EXPECT_EQ(queue.pages(), PageCount(1));
  EXPECT_EQ(queue.front().vpn, Vpn(5));
}

/// Keeps what a policy is told.
class Listener final : public Policy {
 public:
  Listener(std::unique_ptr<Policy> policy, std::vector<Feedback>& told)
      : policy_(std::move(policy)), told_(told) {}
  std::string_view name() const override { return policy_->name(); }
  std::span<const std::string_view> rules() const override { return policy_->rules(); }
  Plan decide(const View& view) override {
    told_.push_back(view.feedback);
    return policy_->decide(view);
  }

 private:
  std::unique_ptr<Policy> policy_;
  std::vector<Feedback>& told_;
};

TEST_F(EngineTest, APolicyIsToldWhatMovesCostOfLate) {
  Nanoseconds a_page = 50us;
  world_.on_move = [&] { system_.cpu += a_page; };
  build();
  std::vector<Feedback> told;
  PolicyRegistry registry;
  register_builtin_policies(registry);
  engine_->set_policy(std::make_unique<Listener>(*registry.make("auto", {}, 1), told));
  // The hot set is another one every five epochs, so that there is always something to move.
  std::size_t first = 0;
  const auto change = [&] {
    std::fill(world_.hot.begin(), world_.hot.end(), false);
    first = (first + 500) % 1500;
    std::fill_n(world_.hot.begin() + static_cast<std::ptrdiff_t>(first), 400, true);
    run_until(world_.clock + 5s);
  };
  change();
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().page_move, 0ns) << "a few pages tell little";
  for (int i = 0; i < 6; ++i) change();
  EXPECT_NEAR(static_cast<double>(told.back().page_move.count()), 50e3, 1e3);
  a_page = 5us;
  for (int i = 0; i < 40; ++i) change();
  EXPECT_NEAR(static_cast<double>(told.back().page_move.count()), 5e3, 500);
}

TEST_F(EngineTest, AnExecIsFollowedUnderANewIdentity) {
  build();
  run_until(world_.clock + 1500ms);
  world_.address_space_gone = true;
  run_until(world_.clock + 2s);
  ASSERT_EQ(tracker_->attached.size(), 2u);
  EXPECT_NE(tracker_->attached[0], tracker_->attached[1]);
}

TEST_F(EngineTest, AnExecIsFollowedAlthoughTheAddressSpaceLivesOn) {
  // As of a child of vfork(), which had that of its parent.
  process_.stack = 0x7ffc0000;
  build();
  run_until(world_.clock + 1500ms);
  process_.stack = 0x7ffd0000;
  run_until(world_.clock + 2s);
  ASSERT_EQ(tracker_->attached.size(), 2u);
  EXPECT_NE(tracker_->attached[0], tracker_->attached[1]);
  process_.stack = 0;  // whoever may not know, or whose main thread has ended
  run_until(world_.clock + 2s);
  EXPECT_EQ(tracker_->attached.size(), 2u);
}

TEST_F(EngineTest, AnExitedProcessIsForgotten) {
  build();
  run_until(world_.clock + 1500ms);
  EXPECT_EQ(engine_->targets().size(), 1u);
  world_.process_exists = false;
  world_.address_space_gone = true;
  run_until(world_.clock + 2s);
  EXPECT_TRUE(engine_->targets().empty());
  EXPECT_EQ(engine_->heat().occupancy().per_tier[0], PageCount(0));
  EXPECT_THAT(log_, testing::HasSubstr("process 7 (app) is gone"));
}

TEST_F(EngineTest, AProcessThatRunsButIsNeverSeenToTouchMemoryIsToldOnce) {
  world_.hot.assign(2048, false);
  build();
  run_until(world_.clock + 20s);
  EXPECT_FALSE(engine_->targets().front().unseen) << "it sleeps";
  world_.ticks_an_epoch = 10;
  run_until(world_.clock + 20s);
  EXPECT_TRUE(engine_->targets().front().unseen);
  const auto told = log_.find("uses CPU");
  ASSERT_NE(told, std::string::npos) << log_;
  EXPECT_EQ(log_.find("uses CPU", told + 1), std::string::npos);
  world_.hot[5] = true;
  run_until(world_.clock + 2s);
  EXPECT_FALSE(engine_->targets().front().unseen);
}

TEST_F(EngineTest, APageThatIsBusyForGoodIsTriedLessAndLess) {
  for (std::size_t i = 0; i < 100; ++i) world_.held.insert(i);
  for (std::size_t i = 1024; i < 1024 + 40; ++i) world_.held.insert(i);
  build();
  run_until(world_.clock + 300s);
  EXPECT_GE(hot_on_fast(), 350u);
  for (const std::size_t page : world_.held) EXPECT_LE(world_.tries[page], 9u) << page;
  // Once it is free, it moves.
  world_.held.clear();
  run_until(world_.clock + 100s);
  EXPECT_GE(hot_on_fast(), 396u);
}

TEST_F(EngineTest, PinnedPagesAreReportedAndTheirRoomIsNotCountedOn) {
  for (std::size_t i = 0; i < 200; ++i) world_.held.insert(i);  // cold, and on the fast tier
  build();
  run_until(world_.clock + 20s);
  EXPECT_EQ(engine_->targets().front().pinned, PageCount(0))
      << "busy a few times is no more than that";
  run_until(world_.clock + 200s);
  EXPECT_EQ(engine_->targets().front().pinned, PageCount(200));
  const auto told = log_.find("200 pages of process 7 (app) can't be moved");
  EXPECT_NE(log_.find("pages of process 7 (app) can't be moved"), std::string::npos) << log_;
  EXPECT_EQ(log_.find("can't be moved", log_.find("can't be moved") + 1), std::string::npos)
      << told;
  // 328 pages are left of the fast tier, and the free ones: the hottest of 400 are there.
  EXPECT_GE(hot_on_fast(), 320u);
  const std::uint64_t moves = world_.moves;
  run_until(world_.clock + 100s);
  EXPECT_LE(world_.moves - moves, 400u) << "nothing is won by moving";
  world_.held.clear();
  run_until(world_.clock + 200s);
  EXPECT_EQ(engine_->targets().front().pinned, PageCount(0));
}

TEST_F(EngineTest, TheCpuBudgetStretchesTheEpoch) {
  options_.cpu_budget = 0.05;
  options_.cpu_burst = 0s;
  build();
  tracker_->scan_cpu = 20ms;  // nine scans an epoch: 180 ms of CPU want 3.6 s at 5 %
  const Nanoseconds begin = world_.clock;
  unsigned at = 0;
  while (world_.clock < begin + 72s) {  // never calm
    run_until(world_.clock + 6s);
    at = 1024 - at;
    world_.hot.assign(2048, false);
    for (std::size_t i = at; i < at + 400; ++i) world_.hot[i] = true;
  }
  const std::chrono::duration<double> elapsed = world_.clock - begin;
  const std::chrono::duration<double> cpu = system_.cpu;
  EXPECT_LE(cpu / elapsed, 0.055);
  EXPECT_GE(engine_->counters().epochs_stretched, 8u);
}

TEST_F(EngineTest, WhatWasSavedOfTheBudgetIsSpentOnAChange) {
  options_.cpu_budget = 0.05;
  options_.cpu_burst = 20s;
  build();
  tracker_->scan_cpu = 10ms;
  // The start has a second of CPU time to spend: eleven epochs of 90 ms.
  const Nanoseconds begin = world_.clock;
  run_until(begin + 4s);
  EXPECT_EQ(engine_->counters().epochs_stretched, 0u);
  EXPECT_GE(hot_on_fast(), 396u);
  // Then all is calm, and a quarter of the budget is enough.
  run_until(begin + 40s);
  const Nanoseconds before = system_.cpu;
  run_until(begin + 140s);
  const std::chrono::duration<double> calm = system_.cpu - before;
  EXPECT_LE(calm.count() / 100, 0.025) << "90 ms every 4 s";
  EXPECT_GE(engine_->counters().epochs_calm, 10u);
  // What was saved meanwhile pays for the next change.
  std::rotate(world_.hot.begin(), world_.hot.begin() + 700, world_.hot.end());
  const std::uint64_t stretched = engine_->counters().epochs_stretched;
  run_until(begin + 140s + 4s + 3s);
  EXPECT_GE(hot_on_fast(), 396u) << "a rest, and two epochs at full pace";
  EXPECT_EQ(engine_->counters().epochs_stretched, stretched);
}

TEST_F(EngineTest, WhenTheFastTierServesLessTheNextEpochBeginsAtOnce) {
  options_.epoch = 10s;
  build();
  run_until(world_.clock + 55s);
  ASSERT_GE(hot_on_fast(), 396u);
  std::rotate(world_.hot.begin(), world_.hot.begin() + 700, world_.hot.end());
  const std::uint64_t epochs = engine_->counters().epochs;
  run_until(world_.clock + 12s);
  EXPECT_GE(engine_->counters().epochs, epochs + 2);
  EXPECT_GE(hot_on_fast(), 396u) << "one epoch would not have told";
}

TEST_F(EngineTest, ALookAtHotPagesEndsTheRestWhenTheyAreNotTouchedAnyMore) {
  for (const bool rounds : {false, true}) {
    SCOPED_TRACE(rounds);
    world_.rounds = rounds;
    world_.ranges = true;
    options_.epoch = 10s;
    build();
    run_until(world_.clock + 100s);
    ASSERT_GE(hot_on_fast(), 396u);
    EXPECT_GE(engine_->counters().looks, 100u);
    EXPECT_EQ(engine_->counters().epochs_early, 0u) << "nothing has changed";
    std::rotate(world_.hot.begin(), world_.hot.begin() + 700, world_.hot.end());
    run_until(world_.clock + 3s);
    EXPECT_EQ(engine_->counters().epochs_early, 1u);
    run_until(world_.clock + 10s);
    EXPECT_FALSE(told_of_looks_);
    EXPECT_GE(hot_on_fast(), 396u) << "a rest would have been 40 s";
  }
}

TEST_F(EngineTest, AHotSetThatHasGoneIsForgottenUnlessTheProgramSleeps) {
  for (const bool rounds : {false, true}) {
    for (const bool sleeps : {false, true}) {
      SCOPED_TRACE(rounds);
      SCOPED_TRACE(sleeps);
      world_.rounds = rounds;
      world_.ranges = true;
      world_.touched = nullptr;
      options_.epoch = 10s;
      build();
      run_until(world_.clock + 100s);
      const auto page = static_cast<std::size_t>(
          std::find(world_.hot.begin(), world_.hot.end(), true) - world_.hot.begin());
      const auto heat = [&] {
        return engine_->heat().look_up(tracker_->attached.back(), Vpn(0x1000 + page))->first.get();
      };
      const unsigned before = heat();
      const std::uint64_t epochs = engine_->counters().epochs;
      if (sleeps) {
        world_.touched = [](std::size_t) { return false; };
      } else {
        std::rotate(world_.hot.begin(), world_.hot.begin() + 700, world_.hot.end());
      }
      const Nanoseconds latest = world_.clock + 100s;
      while (engine_->counters().epochs_early == 0 || engine_->counters().epochs < epochs + 2) {
        ASSERT_LT(world_.clock, latest);
        run_until(world_.clock + 1ms);
      }
      if (sleeps)
        EXPECT_GE(heat(), before / 2) << "aged";
      else
        EXPECT_LE(heat(), before / 4 + 4) << "quartered";
      std::fill(world_.hot.begin(), world_.hot.end(), false);
      std::fill(world_.hot.begin(), world_.hot.begin() + 400, true);
    }
  }
}

TEST_F(EngineTest, ALookThatFindsMuchMoreEndsTheRest) {
  world_.ranges = true;
  bool busy = false;
  world_.touched = [&](std::size_t page) {
    const auto turn = static_cast<std::size_t>(world_.clock / 1ms);
    return busy ? page < 400 : (page * 7 + turn * 13) % 41 == 0;
  };
  options_.epoch = 10s;
  build();
  run_until(world_.clock + 100s);
  ASSERT_EQ(engine_->counters().epochs_early, 0u);
  busy = true;
  run_until(world_.clock + 3s);
  EXPECT_EQ(engine_->counters().epochs_early, 1u);
  world_.touched = nullptr;
}

TEST_F(EngineTest, LooksAreNoEvidenceOfHeat) {
  world_.ranges = true;
  options_.epoch = 10s;
  build();
  run_until(world_.clock + 60s);
  const auto heat = [&](std::size_t page) {
    return engine_->heat().look_up(tracker_->attached.back(), Vpn(0x1000 + page))->first.get();
  };
  std::uint64_t epochs = engine_->counters().epochs;
  while (engine_->counters().epochs == epochs) run_until(world_.clock + 100ms);
  run_until(world_.clock + 1s);
  epochs = engine_->counters().epochs;
  std::vector<unsigned> before;
  for (std::size_t page = 0; page < 2048; ++page) before.push_back(heat(page));
  const std::uint64_t looks = engine_->counters().looks;
  run_until(world_.clock + 2s);
  ASSERT_EQ(engine_->counters().epochs, epochs) << "within one rest";
  ASSERT_GT(engine_->counters().looks, looks);
  for (std::size_t page = 0; page < 2048; ++page) ASSERT_EQ(heat(page), before[page]) << page;
}

TEST_F(EngineTest, AStreamIsNotRunAfter) {
  for (const bool looks : {false, true}) {
    SCOPED_TRACE(looks);
    world_.ranges = looks;
    // Sixteen ranges in turn, an epoch each: what is hot now is what will be cold for longest.
    world_.touched = [this](std::size_t page) {
      return page / 128 == static_cast<std::size_t>(world_.clock / 1s) % 16;
    };
    build();
    run_until(world_.clock + 100s);
    const std::uint64_t begin = world_.moves;
    run_until(world_.clock + 400s);
    // Looks see each change, and find what is hot for a second; that this doesn't pay shows later.
    EXPECT_LE(world_.moves - begin, 400 * (looks ? 28u : 16u))
        << "of the 400 * 256 that running after it takes";
    EXPECT_LE(engine_->counters().epochs_early, 40u) << "changes that never pay are not believed";
  }
}

TEST_F(EngineTest, StopMovingStopsAtOnce) {
  options_.rate_limit = bytes_of(PageCount(100));
  options_.batch = PageCount(10);
  build();
  run_until(world_.clock + 1500ms);
  const std::uint64_t before = world_.moves;
  engine_->stop_moving();
  run_until(world_.clock + 3s);
  EXPECT_EQ(world_.moves, before);
  EXPECT_GT(engine_->ledger().totals().abandoned.get(), 0u);
}

/// The same engine with a tracker that watches windows by itself: it must not make a difference.
class EngineRoundsTest : public EngineTest {
 protected:
  EngineRoundsTest() { world_.rounds = true; }
};

TEST_F(EngineRoundsTest, DoesAsWithScans) {
  const auto run = [&](bool rounds) {
    world_.rounds = rounds;
    build();
    const Nanoseconds begin = world_.clock;
    run_until(begin + 3s);
    const EngineCounters counters = engine_->counters();
    EXPECT_GE(hot_on_fast(), 396u) << "of 400";
    EXPECT_EQ(counters.corrupt_records, 0u);
    EXPECT_EQ(counters.windows, counters.epochs * options_.windows_per_epoch);
    EXPECT_EQ(counters.scan_calls, counters.epochs * (options_.windows_per_epoch + 1));
    return std::pair{counters.accessed_page_windows.get() / counters.epochs,
                     counters.present_page_windows.get() / counters.epochs};
  };
  const World fresh = world_;
  const auto scans = run(false);
  world_ = fresh;
  EXPECT_EQ(run(true), scans) << "page-windows of an epoch";
}

TEST_F(EngineRoundsTest, ANewHotSetFollowsWithinThreeEpochs) {
  build();
  run_until(world_.clock + 6s);
  world_.hot.assign(2048, false);
  for (std::size_t i = 1500; i < 1900; ++i) world_.hot[i] = true;
  run_until(world_.clock + 3s);
  EXPECT_GE(hot_on_fast(), 360u) << "of 400";
}

TEST_F(EngineRoundsTest, WhatWasLostIsNotForgotten) {
  world_.lose_second_record = true;
  build("static");
  run_until(world_.clock + 3s);
  EXPECT_GT(engine_->counters().lost_records, 0u);
  EXPECT_EQ(engine_->counters().corrupt_records, 0u);
  PageCount pages;
  for (const PageCount tier : engine_->heat().occupancy().per_tier) pages += tier;
  EXPECT_EQ(pages, PageCount(2048));
  EXPECT_TRUE(engine_->heat().look_up(engine_->targets().at(0).process.asid, Vpn(0x1000 + 600)));
}

TEST_F(EngineRoundsTest, TheCpuTimeOfTheSourceStretchesTheEpoch) {
  options_.cpu_budget = 0.1;
  options_.cpu_burst = 0s;
  build();
  tracker_->scan_cpu = 200ms;
  run_until(world_.clock + 20s);
  EXPECT_GE(engine_->counters().tracking_cpu, 200ms * (engine_->counters().epochs - 1));
  EXPECT_GE(engine_->counters().source_cpu, 200ms * (engine_->counters().epochs - 1));
  EXPECT_LE(engine_->counters().epochs, 11u) << "two seconds each, where one was asked for";
  EXPECT_GT(engine_->counters().epochs_stretched, 0u);
}

TEST_F(EngineRoundsTest, TheTargetsThreadsShareOneBudget) {
  options_.cpu_budget = 0.08;
  options_.cpu_burst = 1s;
  for (const int pid : {101, 102, 103})
    world_.others.push_back(
        {Pid(pid), 1, Asid(static_cast<std::uint64_t>(pid)), "other " + std::to_string(pid)});
  build();
  run_until(world_.clock + 100ms);
  ASSERT_GE(tracker_->requests.size(), 4u);
  double share = 0;
  Nanoseconds burst{};
  for (std::size_t i = 0; i < 4; ++i) {
    share += tracker_->requests[i].cpu_share;
    burst += tracker_->requests[i].cpu_burst;
  }
  EXPECT_NEAR(share, 0.08, 1e-9);
  EXPECT_NEAR(static_cast<double>(burst.count()), 0.08e9, 10.0);
}

TEST_F(EngineRoundsTest, AnExecDetachesAndFollowsTheNewImage) {
  build();
  run_until(world_.clock + 1500ms);
  world_.address_space_gone = true;
  run_until(world_.clock + 3s);
  ASSERT_GE(tracker_->attached.size(), 2u);
  EXPECT_NE(tracker_->attached[0], tracker_->attached[1]);
  EXPECT_EQ(engine_->counters().scan_errors, 0u);
}

TEST_F(EngineRoundsTest, ARoundThatDoesNotEndIsNotWaitedForForEver) {
  build();
  run_until(world_.clock + 2s);
  world_.stuck = true;
  const std::uint64_t epochs = engine_->counters().epochs;
  run_until(world_.clock + 30s);
  EXPECT_GE(engine_->counters().epochs, epochs + 3);
  EXPECT_THAT(log_, testing::HasSubstr("its windows take too long"));
  world_.stuck = false;
  run_until(world_.clock + 10s);
  EXPECT_GE(engine_->counters().epochs, epochs + 8);
}

TEST_F(EngineRoundsTest, ARoundThatTakesLongCountsAsAWhole) {
  // Nine passes of three seconds, epochs of one.
  world_.pass_time = 3s;
  build();
  run_until(world_.clock + 240s);
  const EngineCounters& counters = engine_->counters();
  EXPECT_GE(counters.epochs, 8u);
  EXPECT_THAT(log_, testing::Not(testing::HasSubstr("take too long")));
  // A round may be under way.
  EXPECT_GE(counters.accessed_page_windows.get(), 400 * counters.windows);
  EXPECT_LT(counters.accessed_page_windows.get(),
            400 * (counters.windows + options_.windows_per_epoch));
  EXPECT_GE(hot_on_fast(), 396u) << "of 400";
}

TEST_F(EngineRoundsTest, WhatIsNotSeenDoesNotCool) {
  build("static");
  run_until(world_.clock + 6s);
  const Asid asid = engine_->targets().at(0).process.asid;
  const auto heat = [&] { return engine_->heat().look_up(asid, Vpn(0x1000 + 1100))->first; };
  const Heat before = heat();
  ASSERT_GT(before.get(), 100u);
  const std::size_t begun = tracker_->requests.size();
  world_.stuck = true;
  run_until(world_.clock + 40s);
  EXPECT_EQ(heat(), before);
  EXPECT_LE(tracker_->requests.size(), begun + 4) << "a round that goes on is not begun anew";
  world_.stuck = false;
  const std::uint64_t seen = engine_->counters().accessed_page_windows.get();
  run_until(world_.clock + 1s);
  EXPECT_GT(engine_->counters().accessed_page_windows.get(), seen) << "what comes late counts";
}

TEST_F(EngineTest, MemoryMapsThatTakeLongAreReadSeldom) {
  options_.cpu_budget = 0.05;
  options_.cpu_burst = 1h;
  system_.maps_cpu = 40ms;
  build("static");
  run_until(world_.clock + 100s);
  // A sixteenth of the budget is 3.1 ms a second.
  EXPECT_GE(system_.maps_read, 7u);
  EXPECT_LE(system_.maps_read, 9u);
  EXPECT_GT(engine_->counters().epochs, 20u);
}

TEST_F(EngineTest, ReportsAddUpToTheTotals) {
  build();
  run_until(world_.clock + 5s);
  ASSERT_GE(reports_.size(), 3u);
  PageCount promoted, demoted;
  for (const EpochReport& report : reports_) {
    promoted += report.promoted;
    demoted += report.demoted;
  }
  EXPECT_EQ(promoted, engine_->ledger().totals().promotions.applied);
  EXPECT_EQ(demoted, engine_->ledger().totals().demotions.applied);
}

}  // namespace
}  // namespace thermocline
