// SPDX-License-Identifier: Apache-2.0
// Policies that run as plug-ins: good ones decide, bad ones cost nothing but their own decisions.
// Every plug-in here is a real shared object in a real process.
#include "policies/plugin/plugin_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>

#include "loop_sim.h"
#include "plugin_folder.h"
#include "policies/plugin/plugin_process.h"

namespace thermocline {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::IsEmpty;
using Clock = std::chrono::steady_clock;

/// A stand-in whose plans are easy to tell: it wants other windows, and moves the coldest page of
/// tier 0 down.
class StandIn final : public Policy {
 public:
  static constexpr unsigned kEighths = 7;
  [[nodiscard]] std::string_view name() const override { return "stand-in"; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return kRules; }
  [[nodiscard]] Plan decide(const View& view) override {
    Plan plan;
    plan.advice.window_eighths = kEighths;
    for (const PageRef& page :
         view.heat.candidates(TierId(0), Heat(0), Heat(255), false, PageCount(1)))
      plan.demotions.push_back(
          {page.asid, page.vpn, page.order, page.tier, TierId(1), page.heat, 0});
    return plan;
  }

 private:
  static constexpr std::string_view kRules[] = {"because it stands in"};
};

class PolicyPlugin : public testing::Test {
 protected:
  void SetUp() override {
    options_.stand_in = [] { return std::make_unique<StandIn>(); };
    options_.log = [this](const std::string& text) { log_.push_back(text); };
    options_.decision_limit = 2s;
    options_.start_limit = 20s;
  }
  /// No test leaves a process.
  void TearDown() override {
    policy_.reset();
    while (plugin::PluginProcess::reap_late() > 0) std::this_thread::sleep_for(10ms);
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
  }

  Result<std::unique_ptr<Policy>> make(const std::string& name,
                                       const std::vector<PolicyOption>& given = {}) {
    PolicyRegistry registry;
    TC_TRY(register_plugins(registry, folder_.path(), options_));
    return registry.make(name, given, 1);
  }
  Policy& must_make(const std::string& name, const std::vector<PolicyOption>& given = {}) {
    folder_.add(name);
    auto made = make(name, given);
    if (!made) throw std::runtime_error(made.error().message);
    policy_ = std::move(*made);
    return *policy_;
  }
  Policy& odd(const std::string& mode, unsigned after) {
    return must_make("odd", {{"mode", mode}, {"after", std::to_string(after)}});
  }
  /// Whether the stand-in decided.
  bool stood_in(LoopSim& sim, Policy& policy) {
    return sim.run(policy).plan.advice.window_eighths == StandIn::kEighths;
  }
  static std::unique_ptr<LoopSim> sim(std::size_t fast_pages = 50) {
    std::vector<std::uint8_t> place(200, 1);
    std::fill(place.begin(), place.begin() + 40, std::uint8_t{0});
    auto made = std::make_unique<LoopSim>(place, std::vector<std::size_t>{fast_pages}, 3);
    for (std::size_t i = 0; i < 200; ++i) made->touch[i] = i < 160 ? 0.05 : 0.9;
    return made;
  }

  PluginFolder folder_;
  PluginOptions options_;
  std::vector<std::string> log_;
  std::unique_ptr<Policy> policy_;
};

TEST_F(PolicyPlugin, TheExampleBringsTheHotSetUp) {
  Policy& policy = must_make("hottest");
  EXPECT_EQ(policy.name(), "hottest");
  const auto world = sim();
  for (int epoch = 0; epoch < 30; ++epoch) world->run(policy);
  unsigned hot_and_fast = 0;
  for (std::size_t i = 160; i < 200; ++i) hot_and_fast += world->place(i) == 0 ? 1 : 0;
  EXPECT_EQ(hot_and_fast, 40u);
  const auto health = policy.plugin_health();
  ASSERT_TRUE(health);
  EXPECT_EQ(health->deciding, "hottest");
  EXPECT_EQ(health->decisions, 30u);
  EXPECT_EQ(health->failures, 0u);
  EXPECT_EQ(health->last_failure, "");
  EXPECT_GT(health->cpu, 0ns);
  EXPECT_THAT(log_, IsEmpty());
  EXPECT_TRUE(decided_itself(policy));
}

TEST_F(PolicyPlugin, SameViewsSamePlans) {
  folder_.add("hottest");
  auto first = make("hottest"), second = make("hottest");
  ASSERT_TRUE(first && second);
  const auto a = sim(), b = sim();
  std::size_t moves = 0;
  for (int epoch = 0; epoch < 10; ++epoch) {
    const Plan pa = a->run(**first).plan, pb = b->run(**second).plan;
    ASSERT_EQ(pa.promotions.size(), pb.promotions.size());
    for (std::size_t i = 0; i < pa.promotions.size(); ++i)
      EXPECT_EQ(pa.promotions[i].vpn, pb.promotions[i].vpn);
    moves += pa.promotions.size();
  }
  EXPECT_GT(moves, 10u);
}

TEST_F(PolicyPlugin, OptionsAreCheckedByTheirNameAndByThePlugin) {
  folder_.add("hottest");
  EXPECT_TRUE(make("hottest", {{"margin", "200"}}));
  const auto unknown = make("hottest", {{"margim", "1"}});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().kind, ErrorKind::kUsage);
  EXPECT_EQ(unknown.error().message, "policy hottest has no option \"margim\"; it has margin");
  const auto wrong = make("hottest", {{"margin", "1000"}});
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().kind, ErrorKind::kUsage);
  EXPECT_EQ(wrong.error().message,
            "policy hottest: margin is \"1000\"; give a number from 1 to 255");
  EXPECT_FALSE(make("hottest", {{"margin", std::string(1000, '1')}}));
  folder_.add("odd");
  const auto silent = make("odd", {{"mode", "refuse_silently"}});
  ASSERT_FALSE(silent);
  EXPECT_THAT(silent.error().message, HasSubstr("doesn't say why"));
}

TEST_F(PolicyPlugin, TellsAboutItself) {
  const auto described = describe_plugin(folder_.add("hottest"), options_);
  ASSERT_TRUE(described) << described.error().message;
  EXPECT_EQ(described->name, "hottest");
  EXPECT_THAT(described->summary, HasSubstr("hottest pages"));
  ASSERT_EQ(described->option_help.size(), 1u);
  EXPECT_EQ(described->option_help[0].key, "margin");
  EXPECT_EQ(described->option_help[0].default_text, "8");
}

struct Wrong {
  const char* plugin;
  const char* sentence;
};
class RefusedPlugin : public PolicyPlugin, public testing::WithParamInterface<Wrong> {};

TEST_P(RefusedPlugin, WithOneClearSentence) {
  const PluginFile file = folder_.add(GetParam().plugin);
  const auto made = make(file.name);
  const auto described = describe_plugin(file, options_);
  ASSERT_FALSE(made);
  ASSERT_FALSE(described);
  for (const Error& error : {made.error(), described.error()}) {
    EXPECT_THAT(error.message, HasSubstr(GetParam().sentence));
    EXPECT_THAT(error.message, HasSubstr(file.path));
    EXPECT_EQ(error.message.find('\n'), std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Each, RefusedPlugin,
    testing::Values(Wrong{"next_version", "is made for version 2 of the interface of policies"},
                    Wrong{"other_symbol", "doesn't export thermocline_policy"},
                    Wrong{"no_decide", "has no decide"},
                    Wrong{"other_name", "calls itself \"another\"; name the file another.so"},
                    Wrong{"crash_load", "crashed (Segmentation fault)"},
                    Wrong{"unresolved", "can't be loaded: undefined symbol: nobody_has_this"}),
    [](const auto& wrong) { return std::string(wrong.param.plugin); });

TEST_F(PolicyPlugin, OnlyFilesThatNobodyElseCanChangeAreRun) {
  const PluginFile file = folder_.add("hottest");
  const auto refusal = [&] {
    const auto made = make("hottest");
    return made ? std::string("accepted") : made.error().message;
  };
  EXPECT_EQ(refusal(), "accepted");
  for (const mode_t mode : {0775, 0757}) {
    ::chmod(file.path.c_str(), mode);
    EXPECT_THAT(refusal(), HasSubstr("hottest.so can be written by others"));
  }
  ::chmod(file.path.c_str(), 0755);
  ::chmod(folder_.path().c_str(), 0777);
  EXPECT_THAT(refusal(), HasSubstr(folder_.path() + " can be written by others"));
  ::chmod(folder_.path().c_str(), 0755);
  EXPECT_EQ(refusal(), "accepted");
  if (::geteuid() != 0) GTEST_SKIP() << "the rest gives files away, as root";
  ASSERT_EQ(::chown(file.path.c_str(), 12345, 0), 0);
  EXPECT_THAT(refusal(), HasSubstr("hottest.so belongs to user 12345"));
  ASSERT_EQ(::chown(file.path.c_str(), 0, 0), 0);
  ASSERT_EQ(::chown(folder_.path().c_str(), 12345, 0), 0);
  EXPECT_THAT(refusal(), HasSubstr("belongs to user 12345"));
  ASSERT_EQ(::chown(folder_.path().c_str(), 0, 0), 0);
}

TEST_F(PolicyPlugin, WhatIsNoPluginIsSaidToBeNone) {
  const auto refusal = [&](const std::string& name) {
    const auto made = make(name);
    return made ? std::string("accepted") : made.error().message;
  };
  const std::filesystem::path folder(folder_.path());
  std::FILE* text = std::fopen((folder / "text.so").c_str(), "w");
  std::fputs("#!/bin/sh\n", text);
  std::fclose(text);
  std::filesystem::create_directory(folder / "folder.so");
  ASSERT_EQ(::mkfifo((folder / "pipe.so").c_str(), 0600), 0);
  std::filesystem::create_symlink("/nowhere", folder / "link.so");
  // An ELF file that is cut off.
  const PluginFile whole = folder_.add("hottest", "cut");
  std::filesystem::resize_file(whole.path, 100);
  for (const char* name : {"text", "folder", "pipe"})
    EXPECT_THAT(refusal(name), HasSubstr("is not a shared object, so it is no policy plug-in"));
  EXPECT_THAT(refusal("link"), HasSubstr("can't open the policy plug-in"));
  EXPECT_THAT(refusal("cut"), HasSubstr("can't be loaded"));
  EXPECT_THAT(refusal("hotest"), HasSubstr("there is no policy called"));
  EXPECT_FALSE(find_plugins("/nowhere"));
  EXPECT_FALSE(find_plugins(whole.path));
  PolicyRegistry builtin;
  register_builtin_policies(builtin);
  folder_.add("hottest", "heat");
  const Status twice = register_plugins(builtin, folder_.path(), options_);
  ASSERT_FALSE(twice);
  EXPECT_THAT(twice.error().message, HasSubstr("is called like a policy that is built in"));
}

struct Fault {
  const char* mode;
  const char* sentence;
};
class FaultyPlugin : public PolicyPlugin, public testing::WithParamInterface<Fault> {};

TEST_P(FaultyPlugin, CostsItsOwnDecisionsOnly) {
  Policy& policy = odd(GetParam().mode, 3);
  const auto world = sim();
  for (int epoch = 0; epoch < 3; ++epoch) EXPECT_FALSE(stood_in(*world, policy)) << epoch;
  EXPECT_THAT(log_, IsEmpty());
  world->budget = PageCount(5);
  const Plan plan = world->run(policy).plan;
  EXPECT_EQ(plan.advice.window_eighths, StandIn::kEighths);
  EXPECT_THAT(plan.promotions, IsEmpty());
  ASSERT_EQ(plan.demotions.size(), 1u);
  EXPECT_EQ(policy.rules()[plan.demotions[0].rule], "because it stands in");
  auto health = policy.plugin_health();
  EXPECT_EQ(health->failures, 1u);
  EXPECT_EQ(health->decisions, 3u);
  EXPECT_EQ(health->deciding, "stand-in");
  EXPECT_THAT(health->last_failure, HasSubstr(std::string("policy plug-in odd ")));
  EXPECT_THAT(health->last_failure, HasSubstr(GetParam().sentence));
  ASSERT_EQ(log_.size(), 1u);
  EXPECT_EQ(log_[0],
            health->last_failure + "; stand-in decides, and it is started again in 1 epoch");
  EXPECT_FALSE(decided_itself(policy));

  // It comes back, and has forgotten that it has decided three times.
  for (int epoch = 0; epoch < 20 && policy.plugin_health()->decisions < 6; ++epoch)
    world->run(policy);
  health = policy.plugin_health();
  EXPECT_EQ(health->decisions, 6u);
  EXPECT_EQ(health->restarts, 1u);
  EXPECT_EQ(health->deciding, "odd");
  EXPECT_EQ(log_.back(), "policy plug-in odd decides again");
}

INSTANTIATE_TEST_SUITE_P(
    Each, FaultyPlugin,
    testing::Values(
        Fault{"abort", "crashed (Aborted)"}, Fault{"segv", "crashed (Segmentation fault)"},
        Fault{"exit", "ended by itself, with exit code 3"}, Fault{"hang", "didn't answer in time"},
        Fault{"spin", "didn't answer in time"}, Fault{"close", "closed its end of the socket"},
        Fault{"return", "returned 42 from decide()"}, Fault{"page", "is of page 1000000"},
        Fault{"tier", "goes to tier 2, where there are 2"},
        Fault{"stay", "goes to tier 1, on which the page lies"}, Fault{"rule", "is by rule 7"},
        Fault{"twice", "has been moved already"}, Fault{"budget", "beyond the budget of 5 pages"},
        Fault{"count", "planned 18446744073709551615 moves"},
        Fault{"window", "wants windows of 65 eighths"}, Fault{"noise", "is no message"},
        Fault{"long", "sent a message of"}, Fault{"lie", "planned 1000000 moves"},
        Fault{"torn", "didn't answer in time"}, Fault{"turn", "sent a message out of turn"}),
    [](const auto& fault) { return std::string(fault.param.mode); });

TEST_F(PolicyPlugin, IsGivenUpAfterAWhile) {
  options_.most_restarts = 3;
  Policy& policy = odd("abort", 0);
  const auto world = sim();
  std::vector<int> tried;
  for (int epoch = 0; epoch < 60; ++epoch) {
    const std::uint64_t before = policy.plugin_health()->failures;
    EXPECT_TRUE(stood_in(*world, policy));
    if (policy.plugin_health()->failures != before) tried.push_back(epoch);
  }
  const auto health = policy.plugin_health();
  EXPECT_EQ(health->failures, 4u);
  EXPECT_EQ(health->restarts, 3u);
  EXPECT_EQ(health->decisions, 0u);
  ASSERT_EQ(tried.size(), 4u);
  // Longer pauses each time.
  EXPECT_GE(tried[2] - tried[1], 2);
  EXPECT_GE(tried[3] - tried[2], 4);
  ASSERT_EQ(log_.size(), 4u + 3u);  // and three times that it is back
  EXPECT_THAT(log_.back(), HasSubstr("it has been started 4 times and is given up: stand-in "));
}

TEST_F(PolicyPlugin, WithoutAStandInNothingMoves) {
  options_.stand_in = nullptr;
  Policy& policy = odd("abort", 0);
  const auto world = sim();
  const Plan plan = world->run(policy).plan;
  EXPECT_TRUE(plan.demotions.empty() && plan.promotions.empty());
  EXPECT_THAT(decided_itself(policy).error().message, HasSubstr("crashed"));
}

TEST_F(PolicyPlugin, ASlowStartIsWaitedForOnlySoLong) {
  folder_.add("slow_load");  // for 700 ms
  EXPECT_TRUE(make("slow_load"));
  options_.start_limit = 200ms;
  const auto refused = make("slow_load");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("didn't answer in time"));
}

TEST_F(PolicyPlugin, ASlowRestartDoesNotHoldUpTheEpochs) {
  folder_.add("slow_load");
  options_.decision_limit = 100ms;
  options_.most_restarts = 50;  // a busy machine may add failures of its own
  auto made = make("slow_load", {{"mode", "abort"}, {"after", "2"}});
  ASSERT_TRUE(made) << made.error().message;
  policy_ = std::move(*made);
  const auto world = sim();
  unsigned stand_in = 0;
  for (int epoch = 0; epoch < 300 && policy_->plugin_health()->decisions < 4; ++epoch)
    stand_in += stood_in(*world, *policy_) ? 1u : 0u;
  EXPECT_EQ(policy_->plugin_health()->decisions, 4u);
  EXPECT_GE(stand_in, 4u) << "700 ms of loading, in epochs of which none waits for it";
}

TEST_F(PolicyPlugin, ItsProcessHasFewRights) {
  if (::geteuid() != 0) GTEST_SKIP() << "gives up the rights of root";
  Policy& policy = odd("rights", 0);
  const auto world = sim();
  EXPECT_FALSE(stood_in(*world, policy)) << policy.plugin_health()->last_failure;
  EXPECT_EQ(policy.plugin_health()->decisions, 1u);
}

TEST_F(PolicyPlugin, TheKernelEndsItForSystemCallsThatAPolicyNeedsNot) {
  folder_.add("odd");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers make system calls of their own";
#endif
  for (const char* what : {"socket", "fork", "thread", "setuid", "exec", "signal", "prctl"}) {
    auto made = make("odd", {{"mode", what}, {"after", "1"}});
    ASSERT_TRUE(made) << made.error().message;
    Policy& policy = **made;
    const auto world = sim();
    EXPECT_FALSE(stood_in(*world, policy)) << what;
    EXPECT_TRUE(stood_in(*world, policy)) << what;
    EXPECT_GT(policy.plugin_health()->cpu, 0ns) << "of one that is gone, too";
    EXPECT_EQ(policy.plugin_health()->last_failure,
              "policy plug-in odd was ended by the kernel: it made a system call that a policy may "
              "not make, to open a socket or to start a thread or a program, say")
        << what;
  }
  // Before it decides it may read files, no more.
  const auto made = make("odd", {{"mode", "socket_create"}});
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, HasSubstr("a system call that a policy may not make"));
  for (const char* what : {"read_create", "write_create"})
    EXPECT_TRUE(make("odd", {{"mode", what}})) << what;
}

TEST_F(PolicyPlugin, WhatTheCLibraryAsksByTheWayIsRefusedAndNoMore) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers make system calls of their own";
#endif
  Policy& policy = odd("refused", 0);
  const auto world = sim();
  EXPECT_FALSE(stood_in(*world, policy)) << policy.plugin_health()->last_failure;
}

TEST_F(PolicyPlugin, ItsMemoryIsBounded) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers reserve more than the limit";
#endif
  Policy& policy = odd("memory", 0);
  const auto world = sim();
  EXPECT_FALSE(stood_in(*world, policy)) << policy.plugin_health()->last_failure;
}

TEST_F(PolicyPlugin, DoesNotOutliveItsOwner) {
  folder_.add("odd");
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t owner = ::fork();
  ASSERT_GE(owner, 0);
  if (owner == 0) {
    // The plug-in hangs; its owner is killed while it waits for it.
    options_.decision_limit = 60s;
    auto made = make("odd", {{"mode", "hang"}});
    (void)!::write(ends[1], made ? "+" : "-", 1);
    const auto world = sim();
    world->run(**made);
    ::_exit(0);
  }
  char made = 0;
  ASSERT_EQ(::read(ends[0], &made, 1), 1);
  ASSERT_EQ(made, '+');
  std::this_thread::sleep_for(300ms);
  const auto hosts = [&] {
    std::vector<int> pids;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      std::FILE* file = std::fopen((entry.path() / "stat").c_str(), "r");
      if (file == nullptr) continue;
      int pid = 0, parent = 0;
      char state = 0;
      if (std::fscanf(file, "%d (%*[^)]) %c %d", &pid, &state, &parent) == 3 && parent == owner)
        pids.push_back(pid);
      std::fclose(file);
    }
    return pids;
  };
  const std::vector<int> before = hosts();
  EXPECT_EQ(before.size(), 1u);
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  const auto deadline = Clock::now() + 5s;
  bool gone = false;
  while (!gone && Clock::now() < deadline) {
    gone = std::all_of(before.begin(), before.end(), [](int pid) {
      std::FILE* file = std::fopen(fmt::format("/proc/{}/stat", pid).c_str(), "r");
      if (file == nullptr) return true;
      char state = 0;
      const bool read = std::fscanf(file, "%*d (%*[^)]) %c", &state) == 1;
      std::fclose(file);
      return !read || state == 'Z';
    });
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_TRUE(gone);
  for (const int pid : before)
    if (!gone) ::kill(pid, SIGKILL);
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace thermocline
