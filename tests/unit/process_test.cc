// SPDX-License-Identifier: Apache-2.0
#include "tracking/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "tree_system.h"

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

/// A machine with one process, whose command its owner chose.
TreeSystem with_process(const std::string& command, const std::string& state = "S",
                        const std::string& threads = "1", const std::string& start = "77") {
  TreeSystem system;
  system.files["/proc/5/stat"] = "5 (" + command + ") " + state +
                                 " 1 5 5 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 " + threads + " 0 " +
                                 start + " 0 0\n";
  system.files["/proc/5/cgroup"] = "0::/a/b\n";
  return system;
}

TEST(IdentifyProcess, AnotherProgramHasAnotherStack) {
  const auto forked = ::fork();
  ASSERT_GE(forked, 0);
  if (forked == 0) {
    // Its child has its address space until it is another program.
    const pid_t lent = ::vfork();
    if (lent == 0) {
      ::execlp("sleep", "sleep", "60", nullptr);
      ::_exit(127);
    }
    ::waitpid(lent, nullptr, 0);
    ::_exit(0);
  }
  const auto system = make_real_system();
  const auto parent = identify_process(*system, Pid(forked));
  std::optional<ProcessIdentity> child;
  for (int i = 0; i < 500 && !child; ++i) {
    ::usleep(10000);
    const auto children =
        system->read_file(fmt::format("/proc/{0}/task/{0}/children", forked)).value_or("");
    if (const auto pid = parse_u64(trim(children)))
      if (auto found = identify_process(*system, Pid(static_cast<std::int32_t>(*pid))))
        if (found->command == "sleep") child = *found;
  }
  ASSERT_TRUE(parent && child);
  EXPECT_TRUE(has_another_image(*parent, *child));
  EXPECT_FALSE(has_another_image(*parent, *parent));
  ::kill(child->pid.get(), SIGKILL);
  ::waitpid(forked, nullptr, 0);
}

TEST(IdentifyProcess, ACommandOfAnyBytesIsMadePrintable) {
  const auto found = identify_process(with_process("a\xff\x1b[2J\xc3\xbc\xe2\x82)"), Pid(5));
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->command, "a??[2J\xc3\xbc?\x3f)");
  EXPECT_EQ(found->start_ticks, 77u);
  TargetSelector selector;
  selector.command = "0123456789abcd\xc3\xbc";  // the kernel cuts the last letter in two
  EXPECT_EQ(find_targets(with_process("0123456789abcd\xc3"), selector)->size(), 1u);
}

TEST(IdentifyProcess, AProcessWhoseMainThreadHasEndedGoesOn) {
  EXPECT_TRUE(identify_process(with_process("x", "Z", "3"), Pid(5)));
  EXPECT_FALSE(identify_process(with_process("x", "Z", "1"), Pid(5)));
  EXPECT_FALSE(identify_process(with_process("x", "X", "3"), Pid(5)));
}

TEST(FindTargets, AReusedPidIsNotFollowed) {
  std::vector<TargetSelector> selectors(2);
  selectors[0].pid = Pid(5);
  selectors[1].command = "x";
  ASSERT_TRUE(pin_targets(with_process("x", "S", "1", "77"), selectors));
  EXPECT_EQ(find_targets(with_process("x", "S", "1", "77"), selectors[0])->size(), 1u);
  const auto reused = find_targets(with_process("x", "S", "1", "90"), selectors[0]);
  ASSERT_FALSE(reused);
  EXPECT_EQ(reused.error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(find_targets(with_process("x", "S", "1", "90"), selectors[1])->size(), 1u);
  // A pid that isn't there can't be pinned, at the start as at a reload.
  EXPECT_EQ(pin_targets(TreeSystem(), selectors).error().kind, ErrorKind::kNotFound);
}

TEST(FindTargets, ByCgroup) {
  const auto count = [](const std::string& cgroup) {
    TargetSelector selector;
    selector.pid = Pid(5);
    selector.cgroup = cgroup;
    return find_targets(with_process("x"), selector)->size();
  };
  for (const char* cgroup : {"/", "//", "/a", "/a/", "/a/b", "/a/b/", "/a/b//"})
    EXPECT_EQ(count(cgroup), 1u) << cgroup;
  for (const char* cgroup : {"/a/b/c", "/ab", "/a/bb", "/b"})
    EXPECT_EQ(count(cgroup), 0u) << cgroup;
}

}  // namespace
}  // namespace thermocline
