// SPDX-License-Identifier: Apache-2.0
#include "tracking/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

namespace thermocline {
namespace {

using testing::HasSubstr;

TEST(Asid, TellsReuseAndExecApart) {
  const Asid a = make_asid(Pid(100), 5000, 0);
  EXPECT_NE(a, make_asid(Pid(100), 5001, 0)) << "a reused pid";
  EXPECT_NE(a, make_asid(Pid(101), 5000, 0));
  EXPECT_NE(a, make_asid(Pid(100), 5000, 1)) << "an exec";
  EXPECT_EQ(a, make_asid(Pid(100), 5000, 0));
  EXPECT_NE(a.get(), 0u);
}

TEST(IdentifyProcess, FindsThisOne) {
  const auto system = make_real_system();
  const auto self = identify_process(*system, Pid(::getpid()));
  ASSERT_TRUE(self) << self.error().message;
  EXPECT_EQ(self->command, "unit_tests");
  EXPECT_GT(self->start_ticks, 0u);
}

TEST(IdentifyProcess, RefusesWhatIsNotAProcess) {
  const auto system = make_real_system();
  EXPECT_EQ(identify_process(*system, Pid(0)).error().kind, ErrorKind::kUsage);
  EXPECT_EQ(identify_process(*system, Pid(-3)).error().kind, ErrorKind::kUsage);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  // Not waited for yet: a zombie has a pid but no memory.
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  EXPECT_THAT(identify_process(*system, Pid(child)).error().message, HasSubstr("has exited"));
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(identify_process(*system, Pid(child)).error().kind, ErrorKind::kNotFound);
}

TEST(FindTargets, ByCommandAndByPid) {
  const auto system = make_real_system();
  TargetSelector selector;
  selector.command = "unit_tests";
  auto found = find_targets(*system, selector);
  ASSERT_TRUE(found);
  EXPECT_TRUE(std::any_of(found->begin(), found->end(),
                          [](const auto& p) { return p.pid == Pid(::getpid()); }));
  selector.pid = Pid(::getpid());
  selector.command = "something else";
  found = find_targets(*system, selector);
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->empty()) << "all that is set must match";
}

}  // namespace
}  // namespace thermocline
