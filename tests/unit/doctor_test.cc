// SPDX-License-Identifier: Apache-2.0
#include "control/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tree_system.h"

namespace thermocline {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TrackerFactory tracker(const std::string& name, const Status& works) {
  TrackerFactory factory;
  factory.name = name;
  factory.summary = "sees everything";
  factory.probe = [works](System&, const TrackerOptions&) { return works; };
  return factory;
}

class DoctorTest : public testing::Test {
 protected:
  DoctorTest() {
    system_.files["/proc/sys/kernel/osrelease"] = "6.12.95+deb12-amd64\n";
    system_.files["/proc/self/status"] += "CapEff:\t000001ffffffffff\n";
    system_.files["/sys/kernel/btf/vmlinux"] = "x";
    system_.files["/sys/fs/cgroup/cgroup.controllers"] = "memory\n";
    system_.files["/proc/sys/kernel/numa_balancing"] = "0\n";
    system_.files["/sys/kernel/mm/transparent_hugepage/enabled"] = "always [madvise] never\n";
  }
  std::vector<Finding> look() {
    const std::vector<TrackerFactory> trackers{tracker("good", works_)};
    return examine_machine(system_, trackers);
  }
  /// The first one of that name that is not "ok", or the last one that is.
  Finding finding(const std::string& what) {
    Finding found{"", Severity::kOk, "nothing of that name", ""};
    for (const Finding& f : look())
      if (f.what == what && found.severity == Severity::kOk) found = f;
    return found;
  }

  TreeSystem system_ = TreeSystem::of_machine("hmat");
  Status works_;
};

TEST_F(DoctorTest, HasNothingToSayOfAGoodMachine) {
  for (const Finding& f : look()) {
    EXPECT_EQ(f.severity, Severity::kOk) << f.what << ": " << f.state;
    EXPECT_THAT(f.state, Not(IsEmpty())) << f.what;
    EXPECT_THAT(f.advice, IsEmpty()) << f.what;
  }
  EXPECT_TRUE(is_ready(look()));
}

TEST_F(DoctorTest, OldKernelsAreAProblem) {
  for (const char* good : {"6.1.0-56-amd64", "6.12-rc1", "7.0.1"}) {
    system_.files["/proc/sys/kernel/osrelease"] = good;
    EXPECT_EQ(finding("kernel").severity, Severity::kOk) << good;
  }
  for (const char* bad : {"6.0.12", "5.15.0-generic"}) {
    system_.files["/proc/sys/kernel/osrelease"] = bad;
    EXPECT_EQ(finding("kernel").severity, Severity::kProblem) << bad;
  }
  for (const char* odd : {"", "6", "6.x", "...", "\x01"}) {
    system_.files["/proc/sys/kernel/osrelease"] = odd;
    EXPECT_EQ(finding("kernel").severity, Severity::kNote) << odd;
  }
}

TEST_F(DoctorTest, NamesTheCapabilitiesThatAreMissing) {
  std::string& status = system_.files["/proc/self/status"];
  status = "CapEff:\t0000000000800000\n";  // CAP_SYS_NICE alone
  EXPECT_EQ(finding("privileges").severity, Severity::kProblem);
  EXPECT_THAT(finding("privileges").state, HasSubstr("CAP_SYS_ADMIN"));
  EXPECT_THAT(finding("privileges").state, Not(HasSubstr("CAP_SYS_NICE")));
  EXPECT_FALSE(is_ready(look()));
}

TEST_F(DoctorTest, OneTierIsAProblem) {
  system_ = TreeSystem::of_machine("one-node");
  EXPECT_EQ(finding("tiers").severity, Severity::kProblem);
  EXPECT_THAT(finding("tiers").advice, HasSubstr("lab"));
}

TEST_F(DoctorTest, MemoryThatTheKernelDoesntUseIsTold) {
  system_.files["/sys/bus/cxl/devices/mem0/serial"] = "0x1\n";
  EXPECT_THAT(finding("memory devices").state, HasSubstr("mem0"));
  EXPECT_THAT(finding("memory devices").advice, HasSubstr("create-region"));
  system_.links["/sys/bus/dax/devices/dax0.0/driver"] = "/sys/bus/dax/drivers/device_dax";
  EXPECT_THAT(finding("memory devices").advice, HasSubstr("system-ram dax0.0"));
  // As the kernel's own it is fine.
  system_ = TreeSystem::of_machine("cxl");
  system_.files["/sys/bus/cxl/devices/mem0/serial"] = "0x1\n";
  EXPECT_EQ(finding("memory devices").state, "nothing of that name");
}

TEST_F(DoctorTest, WithoutATrackerThereIsNothingToDecideBy) {
  works_ = fail(ErrorKind::kUnsupported, "the module is not loaded");
  EXPECT_EQ(finding("tracker good").severity, Severity::kNote);
  EXPECT_EQ(finding("tracker good").state, "doesn't work here");
  EXPECT_EQ(finding("tracker good").advice, "the module is not loaded");
  EXPECT_EQ(finding("trackers").severity, Severity::kProblem);
}

TEST_F(DoctorTest, SaysWhyAModuleWontLoadAndHowToEnrolAKey) {
  const std::string efi =
      "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
  system_.files[efi] = std::string("\x06\0\0\0\0", 5);
  EXPECT_EQ(finding("module signing").severity, Severity::kOk);
  system_.files[efi] = std::string("\x06\0\0\0\x01", 5);
  EXPECT_THAT(finding("module signing").state, HasSubstr("Secure Boot"));
  EXPECT_THAT(finding("module signing").advice, HasSubstr("mokutil --import"));
  system_.files["/sys/kernel/security/lockdown"] = "none [integrity] confidentiality\n";
  EXPECT_THAT(finding("module signing").state, HasSubstr("lockdown is \"integrity\""));
  system_.files["/sys/module/thermocline/refcnt"] = "0\n";
  EXPECT_EQ(finding("module signing").severity, Severity::kOk);
}

TEST_F(DoctorTest, WhoElseMovesPagesOrClearsBitsIsNamed) {
  system_.files["/proc/sys/kernel/numa_balancing"] = "2\n";
  EXPECT_THAT(finding("NUMA balancing").state, HasSubstr("mode 2"));
  system_.files["/sys/kernel/mm/numa/demotion_enabled"] = "true\n";
  EXPECT_EQ(finding("demotion by reclaim").severity, Severity::kNote);
  EXPECT_EQ(finding("tiers").severity, Severity::kOk);  // told once
  system_.files["/sys/module/damon_reclaim/parameters/enabled"] = "Y\n";
  system_.files["/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds"] = "1\n";
  EXPECT_THAT(finding("DAMON").state, HasSubstr("damon_reclaim, 1 kdamond in"));
  // Not ideal, but it works.
  EXPECT_TRUE(is_ready(look()));
}

TEST_F(DoctorTest, WhatTheKernelLacksIsTold) {
  system_.files.erase("/sys/kernel/btf/vmlinux");
  system_.files.erase("/sys/fs/cgroup/cgroup.controllers");
  system_.files["/sys/kernel/mm/transparent_hugepage/enabled"] = "[always] madvise never\n";
  for (const char* what : {"BTF", "cgroups", "huge pages"}) {
    EXPECT_EQ(finding(what).severity, Severity::kNote) << what;
    EXPECT_THAT(finding(what).advice, Not(IsEmpty())) << what;
  }
}

TEST_F(DoctorTest, FilesOfAnyContentAreStates) {
  for (const char* path :
       {"/proc/self/status", "/proc/sys/kernel/numa_balancing",
        "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/security/lockdown"})
    system_.files[path] = "]\xff[\n\x01";
  for (const Finding& f : look())
    for (const char c : f.state + f.advice) EXPECT_TRUE(c >= ' ' || c < 0) << f.what;
}

}  // namespace
}  // namespace thermocline
