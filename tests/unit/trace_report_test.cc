// SPDX-License-Identifier: Apache-2.0
// What is drawn and told of a recording.
#include "cli/trace_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "cli/report_html.h"
#include "tracking/record.h"

namespace thermocline::report {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kHeap = 0x10000, kLibrary = 0x7f0000000;

/// 40 windows of a process with a heap of 1024 pages and a library of 64, far away. In the first
/// half the begin of the heap is touched in every window, in the second its end; the library in
/// every fourth.
trace::Recording recording() {
  std::vector<std::byte> bytes;
  std::uint64_t sequence = 0;
  for (std::uint64_t n = 0; n < 41; ++n) {
    RecordHeader header{.asid = Asid(7),
                        .epoch = Epoch(n + 1),
                        .scan_time = std::chrono::milliseconds(100 * (n + 1)),
                        .window = n == 0 ? Nanoseconds(0) : std::chrono::milliseconds(100),
                        .cleared = true};
    const auto add = [&](std::uint64_t first, std::size_t pages, auto touched) {
      std::vector<EntryObservation> entries(pages);
      for (std::size_t i = 0; i < pages; ++i)
        entries[i] = {NodeId(0), true, true, touched(i), false};
      RecordWriter(bytes).append(header, sequence++, Vpn(first), kOrder4K, entries);
    };
    add(kHeap, 1024, [&](std::size_t i) { return n <= 20 ? i < 256 : i >= 768; });
    add(kLibrary, 64, [&](std::size_t) { return n % 4 == 0; });
  }
  trace::Recording result;
  result.source = std::make_unique<MemoryRecords>(std::move(bytes));
  result.info.processes[Asid(7)] = {
      Asid(7),
      Pid(42),
      "db <1>",
      {{Vpn(kHeap), PageCount(1024), "[heap]"}, {Vpn(kLibrary), PageCount(64), "/lib/c.so"}}};
  return result;
}

TraceReport read() {
  trace::Recording r = recording();
  auto report = read_trace(r, "a.tct");
  EXPECT_TRUE(report) << report.error().message;
  return *report;
}

TEST(TraceReport, TheWorkingSetIsTheMeanOfAWindow) {
  const TraceReport report = read();
  EXPECT_EQ(report.windows, 40u);
  ASSERT_EQ(report.working_set.size(), 40u);
  for (std::size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(report.working_set[i].present_pages, 1088);
    EXPECT_EQ(report.working_set[i].touched_pages, (i + 1) % 4 == 0 ? 320 : 256) << i;
  }
  EXPECT_NEAR(report.length_s, 4.1, 0.11);
}

TEST(TraceReport, HotRangesHaveTheirShares) {
  const TraceReport report = read();
  ASSERT_EQ(report.hot.size(), 3u);
  std::map<std::uint64_t, HotRange> by_page;
  for (const HotRange& h : report.hot) by_page[h.first.get()] = h;
  const HotRange& begin = by_page[kHeap];
  EXPECT_EQ(begin.pages, PageCount(256));
  EXPECT_EQ(begin.mapping, "[heap]");
  EXPECT_DOUBLE_EQ(begin.touched, 20.0 / 40);
  EXPECT_DOUBLE_EQ(begin.of_all, 256.0 * 20 / (256 * 40 + 64 * 10));
  EXPECT_EQ(by_page[kHeap + 768].pages, PageCount(256));
  EXPECT_DOUBLE_EQ(by_page[kLibrary].touched, 0.25);
  EXPECT_EQ(by_page[kLibrary].mapping, "/lib/c.so");
  EXPECT_GE(report.hot[0].touched, report.hot[1].touched);
}

TEST(TraceReport, APhaseEndsWhenOtherAddressesAreTouched) {
  const TraceReport report = read();
  ASSERT_EQ(report.phases.size(), 2u);
  EXPECT_NEAR(report.phases[0].to_s, 2.1, 0.01) << "the first pass has no window";
  EXPECT_EQ(report.phases[0].to_s, report.phases[1].from_s);
  EXPECT_EQ(report.phases[0].kind, 0u);
  EXPECT_EQ(report.phases[1].kind, 1u);
}

TEST(TraceReport, HeatIsTheShareOfTheWindows) {
  const TraceReport report = read();
  ASSERT_EQ(report.processes.size(), 1u);
  const Process& process = report.processes[0];
  EXPECT_EQ(process.pid, 42);
  ASSERT_EQ(process.columns.size(), 40u);
  EXPECT_EQ(process.columns[0].bins.front().first_page, kHeap);
  EXPECT_EQ(process.columns[0].bins.front().heat, kRecordedHeat);
  EXPECT_EQ(process.columns[39].bins.front().heat, 0);
  std::uint64_t pages = 0;
  for (const Bin& bin : process.columns[0].bins) pages += bin.pages;
  EXPECT_EQ(pages, 1088u) << "the gap is no page";
}

TEST(TraceReport, EveryViewIsDrawnInEveryForm) {
  const TraceReport report = read();
  for (const TraceView view :
       {TraceView::kHeat, TraceView::kWss, TraceView::kHot, TraceView::kPhases}) {
    const std::string svg = trace_svg(report, view);
    EXPECT_THAT(svg, HasSubstr("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    EXPECT_THAT(svg, HasSubstr("</svg>"));
    const std::string html = trace_html(report, view);
    EXPECT_THAT(html, HasSubstr("<svg "));
    EXPECT_EQ(html.find("<1>"), std::string::npos) << "names are escaped";
    EXPECT_THAT(trace_text(report, view), HasSubstr("40 windows of 100 ms"));
  }
  EXPECT_THAT(trace_svg(report, TraceView::kPhases), HasSubstr("phase B"));
}

TEST(TraceReport, WhatIsNoEvidenceIsRefused) {
  trace::Recording nothing;
  nothing.source = std::make_unique<MemoryRecords>(std::vector<std::byte>());
  EXPECT_EQ(read_trace(nothing, "a").error().kind, ErrorKind::kFailure);
}

}  // namespace
}  // namespace thermocline::report
