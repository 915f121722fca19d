// SPDX-License-Identifier: Apache-2.0
// The parts of the lab that need no guest: archives, modules, QEMU arguments, verdicts.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "emulation/lab/cpio.h"
#include "emulation/lab/emulator_fault.h"
#include "emulation/lab/files.h"
#include "emulation/lab/guest_image.h"
#include "emulation/lab/guest_modules.h"
#include "emulation/lab/host_clock.h"
#include "emulation/lab/kernel_log.h"
#include "emulation/lab/libraries.h"
#include "emulation/lab/machine.h"
#include "emulation/lab/runner.h"
#include "emulation/lab/sign_of_life.h"

namespace thermocline::lab {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using literals::operator""_MiB;

TEST(Cpio, WritesOneNewcEntryWithAlignedParts) {
  CpioWriter cpio;
  cpio.add_file("/abc", "12345", 0644);
  const std::string bytes = cpio.finish();
  ASSERT_EQ(bytes.substr(0, 6), "070701");
  EXPECT_EQ(bytes.substr(14, 8), "000081a4");  // S_IFREG | 0644
  EXPECT_EQ(bytes.substr(54, 8), "00000005");  // size
  EXPECT_EQ(bytes.substr(94, 8), "00000004");  // name with its NUL
  EXPECT_EQ(bytes.substr(110, 3), "abc");
  EXPECT_EQ(bytes.substr(116, 5), "12345");  // 110 + 4, rounded up to 4
  EXPECT_EQ(bytes.substr(124, 6), "070701");
  EXPECT_THAT(bytes, HasSubstr("TRAILER!!!"));
  EXPECT_EQ(bytes.size() % 4, 0u);
}

TEST(Cpio, AddsParentsOnceAndKeepsTheFirstContent) {
  CpioWriter cpio;
  cpio.add_file("/a/b/one", "first");
  cpio.add_file("/a/b/one", "second");
  cpio.add_file("/a/b/two", "x");
  EXPECT_TRUE(cpio.has("/a/b"));
  EXPECT_FALSE(cpio.has("/a/c"));
  const std::string bytes = cpio.finish();
  EXPECT_THAT(bytes, HasSubstr("first"));
  EXPECT_THAT(bytes, Not(HasSubstr("second")));
  std::size_t entries = 0;
  for (std::size_t at = bytes.find("070701"); at != std::string::npos;
       at = bytes.find("070701", at + 1))
    ++entries;
  EXPECT_EQ(entries, 5u);  // a, a/b, one, two, the trailer
}

TEST(Cpio, SameInputGivesSameBytes) {
  const auto make = [] {
    CpioWriter cpio;
    cpio.add_dir("/d");
    cpio.add_symlink("/l", "d");
    return cpio.finish();
  };
  EXPECT_EQ(make(), make());
}

TEST(SignOfLife, OneLineWhereNobodyWatchesAndALiveOneOnATerminal) {
  using std::chrono::seconds;
  const SignOfLife::Time start{};
  SignOfLife log(false, start);
  EXPECT_EQ(log.next(), SignOfLife::Time::max());
  EXPECT_EQ(log.begin("booting the guest", start), "");
  EXPECT_EQ(log.tell(start + seconds(4)), "");
  EXPECT_EQ(log.next(), start + seconds(5));
  EXPECT_EQ(log.tell(start + seconds(5)), "thermocline: lab: booting the guest (5 s)\n");
  EXPECT_EQ(log.tell(start + seconds(60)), "");
  EXPECT_EQ(log.begin("", start + seconds(61)), "");
  SignOfLife terminal(true, start);
  EXPECT_EQ(terminal.begin("booting the guest", start), "");
  EXPECT_EQ(terminal.tell(start + seconds(1)), "\r\033[Kthermocline: lab: booting the guest (1 s)");
  EXPECT_EQ(terminal.next(), start + seconds(2));
  EXPECT_EQ(terminal.begin("measuring", start + seconds(9)), "\r\033[K");
  EXPECT_EQ(terminal.tell(start + seconds(10)), "\r\033[Kthermocline: lab: measuring (1 s)");
}

TEST(Libraries, ParsesWhatLddPrints) {
  const auto libraries = parse_ldd(
      "\tlinux-vdso.so.1 (0x00007ffd)\n"
      "\tlibnuma.so.1 => /lib/x86_64-linux-gnu/libnuma.so.1 (0x00007f)\n"
      "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n",
      "prog");
  ASSERT_TRUE(libraries);
  EXPECT_THAT(*libraries,
              ElementsAre("/lib/x86_64-linux-gnu/libnuma.so.1", "/lib64/ld-linux-x86-64.so.2"));
}

TEST(Libraries, MissingLibraryIsAnErrorThatNamesIt) {
  const auto libraries = parse_ldd("\tlibfoo.so.3 => not found\n", "prog");
  ASSERT_FALSE(libraries);
  EXPECT_THAT(libraries.error().message, HasSubstr("libfoo.so.3"));
}

TEST(Libraries, FindsAScriptsInterpreter) {
  EXPECT_EQ(script_interpreter("#!/bin/bash -e\necho"), "/bin/bash");
  EXPECT_EQ(script_interpreter("#!/usr/bin/env python3\n"), "python3");
  EXPECT_EQ(script_interpreter("#!"), "");
  EXPECT_EQ(script_interpreter("echo"), "");
}

TEST(Modules, LoadsDependenciesFirstAndOnce) {
  const ModuleTree tree = ModuleTree::parse(
      "kernel/a/kmem.ko.xz: kernel/b/dax.ko.xz kernel/c/core-lib.ko.xz\n"
      "kernel/b/dax.ko.xz: kernel/c/core-lib.ko.xz\n"
      "kernel/c/core-lib.ko.xz:\n",
      "kernel/drivers/cxl/port.ko\n");
  EXPECT_TRUE(tree.has("core_lib"));
  EXPECT_TRUE(tree.has("port"));
  const std::vector<std::string> names = {"dax", "kmem", "port"};
  const auto order = tree.load_order(names);
  ASSERT_TRUE(order);
  EXPECT_THAT(*order,
              ElementsAre("kernel/c/core-lib.ko.xz", "kernel/b/dax.ko.xz", "kernel/a/kmem.ko.xz"));
  const std::vector<std::string> unknown = {"nothing"};
  EXPECT_FALSE(tree.load_order(unknown));
}

TEST(KernelLog, TellsTroubleFromOrdinaryLines) {
  for (const char* line :
       {"[    3.1] WARNING: CPU: 0 PID: 1 at mm/page_alloc.c:1",
        "[ 3.1] BUG: Bad page state in process x", "[ 3.1] Oops: 0000 [#1] PREEMPT SMP",
        "[ 3.1] Kernel panic - not syncing: x",
        "[ 3.1] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!",
        "[ 3.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "[ 3.1] INFO: task foo:12 blocked for more than 120 seconds.",
        "[ 3.1] BUG: KASAN: slab-use-after-free in x+0x1/0x2 [thermocline]",
        "[ 3.1] WARNING: possible circular locking dependency detected",
        "[ 3.1] WARNING: suspicious RCU usage",
        "[ 3.1] BUG: sleeping function called from invalid context at mm/x.c:1",
        "[ 3.1] INFO: trying to register non-static key.",
        "[ 3.1] turning off the locking correctness validator.",
        "[ 3.1] kmemleak: unreferenced object 0xffff888003a4c000 (size 512):"})
    EXPECT_TRUE(is_trouble(line)) << line;
  for (const char* line :
       {"[    0.1] Spectre V2 : WARN about nothing", "[ 0.2] DEBUG: x",
        "[ 0.3] ACPI: please report this as a bug",
        "[ 0.3] kasan: KernelAddressSanitizer initialized",
        "[ 0.4] thermocline: module verification failed: signature missing - tainting kernel"})
    EXPECT_FALSE(is_trouble(line)) << line;
}

TEST(KernelLog, TaintOfAModuleIsHarmlessAndOfAWarningIsNot) {
  EXPECT_EQ(taint_trouble(0), "");
  EXPECT_EQ(taint_trouble((1u << 12) | (1u << 13)), "");
  EXPECT_EQ(taint_trouble((1u << 12) | (1u << 9)), "a warning");
  EXPECT_EQ(taint_trouble((1u << 7) | (1u << 14)), "an oops, a soft lock-up");
}

TEST(KernelLog, LastLines) {
  EXPECT_EQ(last_lines("a\nb\nc\n", 2), "b\nc");
  EXPECT_EQ(last_lines("a\nb", 5), "a\nb");
  EXPECT_EQ(last_lines("", 5), "");
}

TEST(KernelLog, TellingPartBeginsShortlyBeforeTheFirstTrouble) {
  std::string log;
  for (int i = 0; i < 100; ++i) log += i == 50 ? "BUG: here\n" : fmt::format("line {}\n", i);
  const std::string_view part = telling_part(log, 20);
  EXPECT_TRUE(part.starts_with("line 40\n")) << part;
  EXPECT_TRUE(part.ends_with("line 59")) << part;
  EXPECT_EQ(telling_part("a\nb\nc\n", 2), "b\nc");
  EXPECT_EQ(telling_part("BUG: x", 20), "BUG: x");
}

GuestStory ended_well(int exit_code) {
  GuestStory story;
  story.ready = true;
  story.exit_code = exit_code;
  return story;
}

TEST(GuestStory, BelievesOnlyLinesWithTheNonce) {
  GuestStory story;
  story.take_control_line("tc-1 ready 2.5\r", "tc-1");
  story.take_control_line("tc-2 exit 0", "tc-1");
  story.take_control_line("exit 0", "tc-1");
  EXPECT_TRUE(story.ready);
  EXPECT_EQ(story.exit_code, -1);
  story.take_control_line("tc-1 exit 255\r", "tc-1");
  EXPECT_EQ(story.exit_code, 255);
}

TEST(GuestStory, VerdictIsTheExitCodeOnlyWhenNothingElseWentWrong) {
  EXPECT_EQ(ended_well(7).verdict().value(), 7);

  GuestStory warned = ended_well(0);
  warned.kernel_log = "[ 1.0] fine\n[ 2.0] WARNING: CPU: 1 PID: 7\n[ 3.0] fine\n";
  EXPECT_THAT(warned.verdict().error().message, HasSubstr("[ 2.0] WARNING: CPU: 1"));

  GuestStory tainted = ended_well(0);
  tainted.taint = 1u << 9;
  EXPECT_THAT(tainted.verdict().error().message, HasSubstr("tainted by a warning"));

  GuestStory hung;
  hung.ready = true;
  hung.timed_out = true;
  EXPECT_THAT(hung.verdict().error().message, HasSubstr("the guest hung"));

  EXPECT_THAT(GuestStory().verdict().error().message, HasSubstr("ended before the command did"));

  GuestStory crashed;
  crashed.qemu_signal = 11;
  EXPECT_THAT(crashed.verdict().error().message, HasSubstr("signal 11 (Segmentation fault)"));

  GuestStory half;
  half.setup_failure = "no module";
  EXPECT_THAT(half.verdict().error().message, HasSubstr("could not be set up: no module"));
}

/// True when `option value` stands in the list, in this order.
bool has(const std::vector<std::string>& list, const std::string& option,
         const std::string& value) {
  for (std::size_t i = 0; i + 1 < list.size(); ++i)
    if (list[i] == option && list[i + 1] == value) return true;
  return false;
}

TEST(Machine, HmatProfileHasACpulessNodeThatFirmwareCallsSlower) {
  MachineSpec spec;
  spec.fast = 512_MiB;
  spec.slow = 1024_MiB;
  const auto machine = build_machine(spec);
  ASSERT_TRUE(machine) << machine.error().message;
  EXPECT_TRUE(has(machine->qemu, "-m", "1536M"));
  EXPECT_TRUE(has(machine->qemu, "-numa", "node,nodeid=0,cpus=0-1,memdev=m0"));
  EXPECT_TRUE(has(machine->qemu, "-numa", "node,nodeid=1,memdev=m1,initiator=0"));
  EXPECT_TRUE(
      has(machine->qemu, "-numa",
          "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-latency,latency=250"));
  EXPECT_THAT(machine->modules, IsEmpty());
}

TEST(Machine, CxlHidesTheHypervisorAndGivesEachDeviceAWindow) {
  MachineSpec spec;
  spec.profile = Profile::kCxl;
  spec.cxl_devices = 2;
  const auto machine = build_machine(spec);
  ASSERT_TRUE(machine) << machine.error().message;
  EXPECT_TRUE(has(machine->qemu, "-cpu", "max,-hypervisor,-erms,-fsrm"));
  EXPECT_TRUE(has(machine->qemu, "-M",
                  "cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4096M,cxl-fmw.1.targets.0=cxl.1,cxl-"
                  "fmw.1.size=4096M"));
  EXPECT_THAT(machine->config, HasSubstr("TC_CXL_KIND=ram"));
  spec.persistent_cxl = true;
  EXPECT_THAT(build_machine(spec)->config, HasSubstr("TC_CXL_KIND=pmem"));
}

TEST(Machine, RefusesSizesThatCannotBe) {
  const auto refused = [](MachineSpec spec) {
    const auto machine = build_machine(spec);
    return !machine && machine.error().kind == ErrorKind::kUsage;
  };
  MachineSpec spec;
  spec.fast = 64_MiB;
  EXPECT_TRUE(refused(spec));
  spec = {};
  spec.slow = 129_MiB;
  EXPECT_TRUE(refused(spec));
  spec = {};
  spec.cpus = 0;
  EXPECT_TRUE(refused(spec));
  spec = {};
  spec.profile = Profile::kCxl;
  spec.slow = 384_MiB;
  EXPECT_TRUE(refused(spec));
  spec = {};
  spec.cxl_devices = 2;
  EXPECT_TRUE(refused(spec));
}

TEST(Machine, EveryLayoutIsWholeAndBuilds) {
  for (const NodeLayout& layout : layouts()) {
    const std::size_t n = layout.nodes.size();
    ASSERT_EQ(layout.distance.size(), n) << layout.name;
    for (std::size_t a = 0; a < n; ++a) {
      ASSERT_EQ(layout.distance[a].size(), n) << layout.name;
      EXPECT_EQ(layout.distance[a][a], 10) << layout.name;
      for (std::size_t b = 0; b < n; ++b)
        EXPECT_EQ(layout.distance[a][b], layout.distance[b][a]) << layout.name;
      if (layout.latency_ns.empty() || !layout.nodes[a].has_cpus) continue;
      EXPECT_EQ(layout.latency_ns[a].size(), n) << layout.name;
      EXPECT_EQ(layout.bandwidth_gib[a].size(), n) << layout.name;
    }
    MachineSpec spec;
    spec.layout = layout;
    EXPECT_TRUE(build_machine(spec)) << layout.name;
  }
}

TEST(ShellQuote, KeepsEveryCharacter) {
  EXPECT_EQ(shell_quote("a b"), "'a b'");
  EXPECT_EQ(shell_quote("it's $x"), "'it'\\''s $x'");
  EXPECT_EQ(shell_quote(""), "''");
}

TEST(CounterMeter, TwoMeasurementsAgree) {
  const double one = static_cast<double>(CounterMeter().khz());
  const double two = static_cast<double>(CounterMeter().khz());
  EXPECT_GT(one, 100'000);
  EXPECT_NEAR(two / one, 1.0, 0.01);
}

// Ends of access_stq() and access_stb() of QEMU 10.0.2 as Debian builds it.
constexpr std::string_view kStoreEight("\x29\xf9\x48\x03\x48\x10\x48\x89\xca\x75\xc8\x8b\x48\x1c",
                                       14);
constexpr std::string_view kStoreOne("\x29\xf9\x48\x03\x48\x10\x75\xc5\x8b\x48\x1c", 11);

TEST(EmulatorFault, FindsTheJumpThatForgetsTheTest) {
  EXPECT_EQ(faulty_jump(kStoreEight), 9u);
  EXPECT_EQ(faulty_jump(kStoreOne), 6u);
}

TEST(EmulatorFault, LeavesOtherCodeAlone) {
  std::string mended(kStoreEight);
  mended.replace(9, 2, "\x90\x90");
  EXPECT_EQ(faulty_jump(mended), std::nullopt);
  std::string other(kStoreEight);
  other[9] = '\x74';  // jumps if zero
  EXPECT_EQ(faulty_jump(other), std::nullopt);
  for (std::size_t length = 0; length < 11; ++length)
    EXPECT_EQ(faulty_jump(kStoreEight.substr(0, length)), std::nullopt) << length;
}

TEST(EmulatorFault, FindsExportedFunctions) {
  Dl_info library{};
  ASSERT_NE(::dladdr(reinterpret_cast<void*>(&::qsort_r), &library), 0);
  const auto file = read_whole(library.dli_fname);
  ASSERT_TRUE(file);
  const auto offset = reinterpret_cast<std::uintptr_t>(library.dli_saddr) -
                      reinterpret_cast<std::uintptr_t>(library.dli_fbase);
  const std::array<std::string_view, 2> names = {"qsort_r", "no_such_function"};
  const auto found = exported_functions(*file, names);
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ(found->front().address, offset);
  EXPECT_GT(found->front().size, 0u);

  const auto cut = exported_functions(std::string_view(*file).substr(0, file->size() / 2), names);
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().kind, ErrorKind::kCorrupt);
  EXPECT_THAT(*exported_functions(std::string(200, 'x'), names), IsEmpty());
}

TEST(Files, WhatWasNotUsedForAMonthIsPruned) {
  namespace fs = std::filesystem;
  using namespace std::chrono_literals;
  const fs::path dir = fs::path(testing::TempDir()) / "tc_prune_test";
  fs::remove_all(dir);
  fs::create_directories(dir / "stripped");
  const auto now = fs::file_time_type::clock::now();
  const auto make = [&](const char* name, std::chrono::hours age) {
    std::ofstream(dir / name) << name;
    fs::last_write_time(dir / name, now - age);
  };
  make("old.cpio", 31 * 24h);
  make("recent.cpio", 29 * 24h);
  make("stripped/old", 400 * 24h);
  make("used", 400 * 24h);
  EXPECT_EQ(read_kept(dir / "used").value(), "used");
  prune_cache(dir);
  EXPECT_FALSE(fs::exists(dir / "old.cpio"));
  EXPECT_FALSE(fs::exists(dir / "stripped/old"));
  EXPECT_TRUE(fs::exists(dir / "recent.cpio"));
  EXPECT_TRUE(fs::exists(dir / "used")) << "what is read is used";
  prune_cache(dir / "none");
  fs::remove_all(dir);
}

TEST(Files, RunProgramGivesOutputAndExitCode) {
  const auto output = run_program({"sh", "-c", "echo out; echo err >&2; exit 3"});
  ASSERT_TRUE(output);
  EXPECT_EQ(output->exit_code, 3);
  EXPECT_EQ(output->text, "out\nerr\n");
  EXPECT_FALSE(run_program({"/no/such/program"}));
}

}  // namespace
}  // namespace thermocline::lab
