// SPDX-License-Identifier: Apache-2.0
// What other tools recorded, as records.
#include "trace/import.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "tracking/record.h"

namespace thermocline::trace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Imported {
  Result<ImportCounts> counts{ImportCounts{}};
  /// By window and pid: pages that were touched, and in parentheses those that were only there.
  std::vector<std::string> passes;
  std::vector<ProcessInfo> processes;
  std::vector<std::string> written;
};

Imported import(ImportFormat format, const std::string& text, ImportOptions options = {}) {
  Imported result;
  options.format = format;
  std::istringstream in(text);
  std::optional<std::pair<Epoch, Asid>> open;
  result.counts = import_text(
      in, "f", options,
      {[&](std::span<const std::byte> bytes) {
         RecordReader reader(bytes);
         while (const auto r = reader.next()) {
           EXPECT_TRUE(r->cleared);
           EXPECT_GT(r->window.count(), 0);
           if (open != std::pair(r->epoch, r->asid)) result.passes.emplace_back();
           open = {r->epoch, r->asid};
           std::string& pass = result.passes.back();
           for (std::uint32_t i = 0; i < r->count; ++i) {
             if (!r->present.test(i)) continue;
             const auto page = fmt::format("{:x}", r->first.get() + i);
             pass += (pass.empty() ? "" : " ") + (r->accessed.test(i) ? page : "(" + page + ")");
             if (r->dirty.test(i)) result.written.push_back(page);
           }
         }
         EXPECT_FALSE(reader.error());
       },
       [&](const ProcessInfo& process) { result.processes.push_back(process); }});
  return result;
}

std::string error_of(ImportFormat format, const std::string& text, ImportOptions options = {}) {
  const Imported result = import(format, text, options);
  return result.counts ? "" : result.counts.error().message;
}

TEST(Import, TimesAndAddressesBecomeWindows) {
  const auto got = import(ImportFormat::kTimeAddress,
                          "time,address\n"
                          "10.00,0x5000,r\n"
                          "10.05 0x6fff w # a comment\n"
                          "\n"
                          "10.12;20480\n"  // 0x5000
                          "10.31 0x7000\n");
  ASSERT_TRUE(got.counts) << got.counts.error().message;
  EXPECT_THAT(got.passes, ElementsAre("5 6", "5 (6)", "(5) (6)", "(5) (6) 7"));
  EXPECT_THAT(got.written, ElementsAre("6"));
  EXPECT_EQ(got.counts->samples, 4u);
  EXPECT_EQ(got.counts->windows, 4u);
  EXPECT_EQ(got.counts->lines, 6u);
}

TEST(Import, MistakesAreNamedByLine) {
  const auto f = ImportFormat::kTimeAddress;
  EXPECT_EQ(error_of(f, "1 0x1000\n2\n"),
            "f:2: wants \"SECONDS ADDRESS\", and r or w behind it if known");
  EXPECT_EQ(error_of(f, "x 0x1000\n"), "f:1: 'x' is no time in seconds");
  EXPECT_EQ(error_of(f, "-1 0x1000\n"), "f:1: '-1' is no time in seconds");
  EXPECT_EQ(error_of(f, "99999999999 0x1000\n"), "f:1: '99999999999' is no time in seconds");
  EXPECT_EQ(error_of(f, "1 7f00a\n"), "f:1: '7f00a' is no address; hexadecimal ones begin with 0x");
  EXPECT_EQ(error_of(f, "1 0x1000 x\n"), "f:1: 'x' is neither r nor w");
  EXPECT_EQ(error_of(f, "5 0x1000\n4.99 0x1000\n"),
            "f:2: the time goes back: sort the lines by time");
  EXPECT_THAT(error_of(f, "1 0x1000\n500000 0x1000\n"), HasSubstr("give a longer --window"));
  EXPECT_THAT(error_of(f, "1 0x1000\n1 0x40000000\n", {.max_pages = PageCount(512)}),
              HasSubstr("f:2: samples in more than 2.0 MiB"));
  EXPECT_EQ(error_of(f, ""), "f holds nothing to import: 0 lines, 0 without an address");
}

TEST(Import, PerfScriptInBothShapes) {
  const auto got = import(
      ImportFormat::kPerf,
      "# captured on: today\n"
      "     my prog 12/13 [001] 12.000100:   1 cpu/mem-loads,ldlat=30/P:  7f0000001000 |OP LOAD|\n"
      "\t           55d00 main+0x1 (/bin/x)\n"
      "\n"
      "swapper 0 12.000200: mem-loads: 0\n"
      "gups 77 12.15: cpu/mem-stores/P: 7f0000003008\n"
      "gups 77 12.16: cpu/mem-stores/P: ffffffff81000000\n");
  ASSERT_TRUE(got.counts) << got.counts.error().message;
  EXPECT_THAT(got.passes, ElementsAre("7f0000001", "(7f0000001)", "7f0000003"));
  EXPECT_THAT(got.written, ElementsAre("7f0000003"));
  ASSERT_EQ(got.processes.size(), 2u);
  EXPECT_EQ(got.processes[0].command, "my prog");
  EXPECT_EQ(got.processes[0].pid, Pid(12));
  EXPECT_EQ(got.counts->passed_over, 2u);
}

TEST(Import, PerfScriptMistakes) {
  const auto f = ImportFormat::kPerf;
  EXPECT_THAT(error_of(f, "some text\n"), HasSubstr("f:1: no sample"));
  EXPECT_EQ(error_of(f, "12.5: event: 1000\n"), "f:1: no process id before the time");
  EXPECT_THAT(error_of(f, "x 12 12.5: event:\n"), HasSubstr("f:1: no address behind the event"));
  EXPECT_EQ(error_of(f, "x 12 12.5: event: main\n"), "f:1: 'main' is no address");
  EXPECT_EQ(error_of(f, "x y 12.5: event: 1000\n"), "f:1: 'y' is no process id");
}

constexpr const char* kDamon =
    "base_time_absolute: 8 m 59.809 s\n\n"
    "monitoring_start:                0 ns\n"
    "monitoring_end:            104.599 ms\n"
    "monitoring_duration:       104.599 ms\n"
    "target_id: 18446623438842320000\n"
    "nr_regions: 2\n"
    "00005000-00007000(   8.000 KiB):        1\n"
    "00008000-0000a000(   8.000 KiB):        0\n"
    "\n"
    "monitoring_start:          104.599 ms\n"
    "monitoring_end:                   2 m 1.5 s\n"
    "target_id: 18446623438842320000\n"
    "00005000-00005800(   2.000 KiB):        0\t3\n"
    "00005800-00007000(   6.000 KiB):        9\n";

TEST(Import, DamonsSnapshotsAreWindows) {
  const auto got = import(ImportFormat::kDamon, kDamon);
  ASSERT_TRUE(got.counts) << got.counts.error().message;
  EXPECT_THAT(got.passes, ElementsAre("5 6 (8) (9)", "(5) 6"));
  EXPECT_EQ(got.counts->windows, 2u);
  ASSERT_EQ(got.processes.size(), 1u);
}

TEST(Import, DamonMistakes) {
  const auto f = ImportFormat::kDamon;
  EXPECT_THAT(error_of(f, "hello\n"), HasSubstr("f:1: no line of damo report raw"));
  EXPECT_EQ(error_of(f, "monitoring_start: 3 parsecs\n"), "f:1: '3 parsecs' is no time");
  EXPECT_THAT(error_of(f, "target_id: 1\n"), HasSubstr("f:1: monitoring_start"));
  EXPECT_EQ(error_of(f, "5000-7000(8 KiB): 1\n"), "f:1: a region before any target_id");
  const std::string head = "monitoring_start: 0 ns\nmonitoring_end: 1 s\ntarget_id: 1\n";
  EXPECT_THAT(error_of(f, head + "7000-5000(8 KiB): 1\n"), HasSubstr("f:4: the region is empty"));
  EXPECT_THAT(error_of(f, head + "5000-7000(8 KiB): 1\n6000-8000(8 KiB): 1\n"),
              HasSubstr("f:5: the region is empty, or does not lie behind"));
  EXPECT_THAT(error_of(f, head + "5000-7000: many\n"), HasSubstr("wants START-END"));
  EXPECT_THAT(error_of(f, head + "0-800000000000(128 TiB): 0\n"),
              HasSubstr("the snapshot's regions are larger than 4.0 TiB"));
}

TEST(Import, FormatsHaveNames) {
  EXPECT_EQ(parse_import_format("perf").value(), ImportFormat::kPerf);
  EXPECT_THAT(parse_import_format("damno").error().message, HasSubstr("did you mean \"damon\"?"));
}

}  // namespace
}  // namespace thermocline::trace
