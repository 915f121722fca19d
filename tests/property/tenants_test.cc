// SPDX-License-Identifier: Apache-2.0
// Shares of the fast tier: the arithmetic by its properties, and the engine on a scripted machine
// of two processes under every policy of the registry.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <numeric>
#include <random>

#include "engine/engine.h"
#include "tracking/synthetic_tracker.h"

namespace thermocline {
namespace {

using namespace std::chrono_literals;

std::vector<std::uint64_t> shares(std::uint64_t capacity, const std::vector<TenantNeed>& needs) {
  std::vector<std::uint64_t> result;
  for (const PageCount share : entitlements(PageCount(capacity), needs))
    result.push_back(share.get());
  return result;
}

TenantNeed need(unsigned weight, std::uint64_t floor, std::uint64_t ceiling, std::uint64_t wanted) {
  return {weight, PageCount(floor), PageCount(ceiling), PageCount(wanted)};
}

TEST(Entitlements, WorkedExampleOfTheHeader) {
  constexpr std::uint64_t kNone = ~std::uint64_t{0};
  using testing::ElementsAre;
  EXPECT_THAT(shares(100, {need(3, 0, kNone, 100), need(1, 0, kNone, 100)}), ElementsAre(75, 25));
  EXPECT_THAT(shares(100, {need(3, 0, kNone, 100), need(1, 40, kNone, 100)}), ElementsAre(60, 40));
  EXPECT_THAT(shares(100, {need(3, 0, kNone, 30), need(1, 0, kNone, 100)}), ElementsAre(30, 70));
  EXPECT_THAT(shares(100, {need(1, 0, 20, 100), need(1, 0, kNone, 100)}), ElementsAre(20, 80));
  EXPECT_THAT(shares(100, {need(1, 150, kNone, 200), need(1, 50, kNone, 200)}), ElementsAre(75, 25))
      << "floors that don't fit shrink alike";
}

TEST(Entitlements, HoldTheirLimitsWhateverIsAsked) {
  std::mt19937_64 rng(1);
  const auto pick = [&](std::uint64_t n) { return rng() % n; };
  for (int draw = 0; draw < 3000; ++draw) {
    const std::uint64_t capacity = pick(4) == 0 ? pick(10) : pick(std::uint64_t{1} << 34);
    std::vector<TenantNeed> needs;
    for (std::uint64_t n = pick(6); n > 0; --n) {
      const std::uint64_t ceiling = pick(2) == 0 ? ~std::uint64_t{0} : pick(capacity + 10);
      needs.push_back(need(1 + static_cast<unsigned>(pick(10000)),
                           pick(ceiling / 2 + 1) % (capacity + 1), ceiling,
                           pick(2 * capacity + 10)));
    }
    const auto got = shares(capacity, needs);
    std::uint64_t sum = 0, wanted = 0;
    for (std::size_t i = 0; i < needs.size(); ++i) {
      const std::uint64_t most = std::min(needs[i].ceiling, needs[i].wanted).get();
      ASSERT_LE(got[i], most);
      sum += got[i];
      wanted += most;
    }
    ASSERT_LE(sum, capacity);
    // Nothing is kept back from those who want it, but for the rounding of levels.
    std::uint64_t weights = 0;
    for (const TenantNeed& n : needs) weights += n.weight;
    ASSERT_GE(sum + weights / 65536 + needs.size() + 1, std::min(capacity, wanted));
    // Of two that are held back only by their weights the heavier one has no less.
    for (std::size_t i = 0; i < needs.size(); ++i)
      for (std::size_t k = 0; k < needs.size(); ++k) {
        const bool free_k = got[k] < std::min(needs[k].ceiling, needs[k].wanted).get() &&
                            got[k] > std::min(needs[k].floor, needs[k].wanted).get();
        if (free_k && needs[k].weight >= needs[i].weight &&
            got[i] > std::min(needs[i].floor, needs[i].wanted).get()) {
          ASSERT_GE(got[k] + 1, got[i]);
        }
      }
  }
}

// ---- The engine.

/// Two processes of so many pages each. The clock stands until it is moved.
constexpr std::size_t kPages = 6000, kFast = 4000;

struct Machine {
  Nanoseconds clock{1s};
  std::vector<std::uint8_t> place[2];
  std::size_t fast_free = kFast;
};

class MachineSystem final : public System {
 public:
  explicit MachineSystem(Machine& machine) : machine_(machine) {}
  Result<std::string> read_file(const std::string& p) const override { return none(p); }
  Result<std::vector<std::string>> list_dir(const std::string&) const override {
    return std::vector<std::string>{};
  }
  bool exists(const std::string&) const override { return false; }
  Result<std::string> read_link_name(const std::string& p) const override { return none(p); }
  Nanoseconds now() const override { return machine_.clock; }
  Nanoseconds process_cpu_time() const override { return {}; }
  Result<UniqueFd> open_device(const std::string& p, int) override {
    return fail(ErrorKind::kNotFound, "no {}", p);
  }
  int ioctl(int, unsigned long, void*) override { return -ENOSYS; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -ENOSYS;
  }
  Result<UniqueFd> pidfd_open(Pid) override { return UniqueFd(); }
  bool pidfd_exited(int) const override { return false; }

 private:
  static Result<std::string> none(const std::string& p) {
    return fail(ErrorKind::kNotFound, "no {}", p);
  }
  Machine& machine_;
};

constexpr std::uint64_t kFirst = 512 * 1000;

/// A synthetic tracker for each of the two processes.
class TwoTrackers final : public Tracker {
 public:
  TwoTrackers(Machine& machine, const std::vector<double>* touch) {
    for (std::size_t p = 0; p < 2; ++p) {
      SyntheticLoad load;
      load.pages = PageCount(kPages);
      load.first = Vpn(kFirst);
      load.seed = p + 1;
      load.chance = [touch, p](std::uint64_t page, std::uint64_t) { return touch[p][page]; };
      load.node_of = [&machine, p](std::uint64_t page) {
        return NodeId(machine.place[p][static_cast<std::size_t>(page)]);
      };
      of_[p] = make_synthetic_tracker(std::move(load));
    }
  }
  const std::string& name() const override { return of_[0]->name(); }
  Status attach(const ProcessIdentity& process) override {
    asid_[process.pid.get() - 1] = process.asid;
    return of_[process.pid.get() - 1]->attach(process);
  }
  void detach(Asid asid) override { of_[asid == asid_[0] ? 0 : 1]->detach(asid); }
  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override {
    return of_[request.asid == asid_[0] ? 0 : 1]->scan(request, sink);
  }
  [[nodiscard]] std::size_t process_of(Asid asid) const { return asid == asid_[0] ? 0 : 1; }

 private:
  std::unique_ptr<Tracker> of_[2];
  Asid asid_[2];
};

class MachineMover final : public Mover {
 public:
  MachineMover(Machine& machine, const TwoTrackers& trackers)
      : machine_(machine), trackers_(trackers) {}
  void execute(std::span<const PageMove> moves, std::span<MoveOutcome> outcomes) override {
    for (std::size_t i = 0; i < moves.size(); ++i) {
      auto& place = machine_.place[trackers_.process_of(moves[i].asid)];
      std::uint8_t& at = place[static_cast<std::size_t>(moves[i].vpn.get() - kFirst)];
      outcomes[i] = MoveOutcome::kMoved;
      if (moves[i].to == NodeId(0)) {
        EXPECT_GT(machine_.fast_free, 0u);
        --machine_.fast_free;
        at = 0;
      } else {
        ++machine_.fast_free;
        at = 1;
      }
    }
  }

 private:
  Machine& machine_;
  const TwoTrackers& trackers_;
};

class Tenants : public testing::TestWithParam<std::string> {
 protected:
  /// The first `fast` pages of each process start on the fast tier.
  void start(std::size_t fast_of_first, std::size_t fast_of_second) {
    const std::size_t held[2] = {fast_of_first, fast_of_second};
    for (std::size_t p = 0; p < 2; ++p) {
      machine_.place[p].assign(kPages, 1);
      std::fill_n(machine_.place[p].begin(), held[p], std::uint8_t{0});
      machine_.fast_free -= held[p];
      if (touch_[p].empty()) touch_[p].assign(kPages, 0.6);
    }
    PolicyRegistry registry;
    register_builtin_policies(registry);
    auto trackers = std::make_unique<TwoTrackers>(machine_, touch_);
    auto mover = std::make_unique<MachineMover>(machine_, *trackers);
    options_.window_auto = false;
    options_.window = 10ms;
    options_.epoch = 1s;
    options_.cpu_budget = 1;
    options_.headroom = PageCount(0);
    engine_ = std::make_unique<Engine>(
        Engine::Parts{
            system_, std::move(trackers), *registry.make(policy_, {}, 1), std::move(mover),
            [this]() -> Result<std::vector<TierState>> {
              TierState fast{TierId(0), {{NodeId(0), PageCount(machine_.fast_free), {}, {}, {}}}};
              TierState slow{TierId(1), {{NodeId(1), PageCount(100000), {}, {}, {}}}};
              fast.bandwidth_mbps = 30000;
              slow.bandwidth_mbps = 10000;
              return std::vector{fast, slow};
            },
            []() -> Result<std::vector<ProcessIdentity>> {
              return std::vector{ProcessIdentity{Pid(1), 1, {}, "a"},
                                 ProcessIdentity{Pid(2), 1, {}, "b"}};
            },
            hooks_, [this] { return tenants_; }},
        options_);
  }
  void run(Nanoseconds time) {
    const Nanoseconds end = machine_.clock + time;
    while (machine_.clock < end)
      machine_.clock = std::max(machine_.clock + 10us, engine_->step(machine_.clock));
  }
  [[nodiscard]] std::size_t on_fast(std::size_t p) const {
    return static_cast<std::size_t>(
        std::count(machine_.place[p].begin(), machine_.place[p].end(), 0));
  }
  static TenantMembers tenant(int pid, unsigned weight) {
    TenantMembers members;
    members.limits.weight = weight;
    members.members = {Pid(pid)};
    return members;
  }

  Machine machine_;
  MachineSystem system_{machine_};
  std::vector<double> touch_[2];
  std::string policy_ = GetParam();
  std::vector<TenantMembers> tenants_;
  EngineOptions options_;
  EngineHooks hooks_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(Tenants, EqualTenantsWeightedThreeToOneHoldThreeQuarters) {
  tenants_ = {tenant(1, 300), tenant(2, 100)};
  start(1000, 3000);  // the other way round
  run(40s);
  const auto held = static_cast<double>(on_fast(0) + on_fast(1));
  EXPECT_GE(held, 0.9 * kFast);
  EXPECT_NEAR(100 * static_cast<double>(on_fast(0)) / held, 75, 5);
  ASSERT_EQ(engine_->tenants().size(), 2u);
  EXPECT_NEAR(static_cast<double>(engine_->tenants()[0].entitled.get()), 3000, 40);
}

TEST_P(Tenants, ACeilingHoldsEvenWhereThereIsRoom) {
  tenants_ = {tenant(1, 100)};
  tenants_[0].limits.ceiling = PageCount(500);
  start(1500, 0);
  run(30s);
  EXPECT_LE(on_fast(0), 500u);
}

TEST_P(Tenants, RangesThatNeverMoveStayAndThoseToBeKeptFastCome) {
  tenants_ = {tenant(1, 100), tenant(2, 100)};
  for (TenantMembers& members : tenants_) members.shares = false;
  // Cold pages on the fast tier that never move, and cold ones on the slow tier that shall be fast.
  tenants_[0].never_move = {{Vpn(kFirst), Vpn(kFirst + 700)}};
  tenants_[1].keep_fast = {{Vpn(kFirst + 3000), Vpn(kFirst + 3400)}};
  touch_[0].assign(kPages, 0.0);
  start(3000, 1000);
  run(30s);
  EXPECT_EQ(std::count(machine_.place[0].begin(), machine_.place[0].begin() + 700, 0), 700);
  EXPECT_EQ(std::count(machine_.place[1].begin() + 3000, machine_.place[1].begin() + 3400, 0), 400);
}

std::vector<std::string> names() {
  PolicyRegistry registry;
  register_builtin_policies(registry);
  std::vector<std::string> result;
  for (const PolicyFactory& factory : registry.factories()) result.push_back(factory.name);
  return result;
}

INSTANTIATE_TEST_SUITE_P(Registered, Tenants, testing::ValuesIn(names()),
                         [](const auto& name) { return name.param; });

class Headroom : public Tenants {};

TEST_P(Headroom, AgainstRunningOutOfMemoryIsMadeByAPolicyThatNeverMoves) {
  options_.oom_headroom = PageCount(600);
  start(2000, 2000);
  run(20s);
  EXPECT_GE(machine_.fast_free, 600u);
  EXPECT_LE(machine_.fast_free, 700u);
}

INSTANTIATE_TEST_SUITE_P(OfStatic, Headroom, testing::Values("static"));

class Advice : public Tenants {
 protected:
  Advice() {
    hooks_.on_interleave = [this](const InterleaveAdvice& advice) {
      told_.push_back(advice.tier_weights);
    };
  }
  std::vector<std::vector<std::uint8_t>> told_;
};

TEST_P(Advice, OnInterleavingIsToldWhenItChangesAndTakenBackWithThePolicy) {
  start(2000, 2000);
  run(5s);
  using Weights = std::vector<std::uint8_t>;
  EXPECT_EQ(told_, (std::vector<Weights>{{16, 5}}));
  PolicyRegistry registry;
  register_builtin_policies(registry);
  engine_->set_policy(std::move(*registry.make("static", {}, 1)));
  run(5s);
  EXPECT_EQ(told_, (std::vector<Weights>{{16, 5}, {}}));
}

TEST_P(Advice, IsNotTakenWhileObserving) {
  options_.mode = EngineMode::kObserve;
  start(2000, 2000);
  run(5s);
  EXPECT_TRUE(told_.empty());
}

INSTANTIATE_TEST_SUITE_P(OfInterleave, Advice, testing::Values("interleave"));

}  // namespace
}  // namespace thermocline
