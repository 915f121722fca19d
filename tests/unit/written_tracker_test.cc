// SPDX-License-Identifier: Apache-2.0
// The written tracker, and the list of present pages that it and damon share, on a page map that a
// test keeps. tracker_compliance holds it to the contract on real ones.
#include "tracking/written_tracker.h"

#include <gtest/gtest.h>

#include "proc_machine.h"
#include "told.h"

namespace thermocline {
namespace {

class Written : public testing::Test {
 protected:
  void open() {
    auto made = written_tracker_factory().make(machine_, {});
    ASSERT_TRUE(made) << made.error().message;
    tracker_ = std::move(*made);
    process_ = *identify_process(machine_, Pid(42));
    ASSERT_TRUE(tracker_->attach(process_));
    machine_.others = 0;
  }
  std::map<std::uint64_t, Told> scan(bool clear = true, std::span<const ScanRange> ranges = {}) {
    const Scanned seen = scan_with(*tracker_, request_for(process_.asid, clear, ranges));
    RecordReader reader(seen.bytes);
    while (const auto record = reader.next()) {
      EXPECT_TRUE(record->writes_only);
      EXPECT_EQ(record->cleared, clear);
    }
    stats_ = seen.stats;
    return seen.pages;
  }

  ProcMachine machine_;
  ProcessIdentity process_;
  std::unique_ptr<Tracker> tracker_;
  ScanStats stats_;
};

TEST_F(Written, AKernelThatNotesNoWritesIsUnsupported) {
  machine_.others = kPresent;
  const Status works = written_tracker_factory().probe(machine_, {});
  ASSERT_FALSE(works);
  EXPECT_EQ(works.error().kind, ErrorKind::kUnsupported);
  EXPECT_TRUE(machine_.written.empty()) << "a probe clears nothing";
}

TEST_F(Written, WritesAreTouchesAndOfSharedMemoryOnlyTheyCount) {
  open();
  machine_.pagemap = {{0x10001, kPresent | kAlone | kSoftDirty},
                      {0x10002, kPresent | kAlone},
                      {0x10004, kPresent},  // shared with a fork, or the zero page
                      {0x10005, kPresent | kSoftDirty},
                      {0x20000, kPresent | kAlone},
                      {0x20001, kPresent | kAlone | kSoftDirty}};
  const std::map<std::uint64_t, Told> wanted{
      {0x10001, {true, true, 0}}, {0x10002, {true, false, 0}},  {0x10004, {false, false, 0}},
      {0x10005, {true, true, 0}}, {0x20000, {false, false, 0}}, {0x20001, {true, true, 0}}};
  EXPECT_EQ(scan(false), wanted);
  EXPECT_TRUE(machine_.written.empty());
  EXPECT_EQ(scan(), wanted);
  EXPECT_EQ(machine_.written, std::vector<std::string>{"/proc/42/clear_refs=4"});
  EXPECT_EQ(stats_.accessed, 3u);
  EXPECT_EQ(stats_.records, 2u);
  EXPECT_EQ(stats_.entries, 12u);
  EXPECT_EQ(stats_.skipped, pages_of(Bytes(std::uint64_t{0x80000000000}))) << "a range set aside";
}

TEST_F(Written, OnlyTheRangesAreListed) {
  open();
  machine_.others = kPresent | kAlone;
  const ScanRange ranges[] = {{Vpn(0xfff0), PageCount(0x12)},
                              {Vpn(0x10004), PageCount(1)},
                              {Vpn(0x10007), PageCount(0x10000 - 6)}};
  std::vector<std::uint64_t> pages;
  for (const auto& [page, told] : scan(true, ranges)) pages.push_back(page);
  EXPECT_EQ(pages, (std::vector<std::uint64_t>{0x10000, 0x10001, 0x10004, 0x10007, 0x20000}));
}

TEST_F(Written, NodesAreThoseOfThePageFramesOrTheKernelIsAsked) {
  machine_.files["/sys/devices/system/node/has_memory"] = "0-1\n";
  open();
  machine_.pagemap = {{0x10000, kPresent | kAlone | 5},
                      {0x10001, kPresent | kAlone | 0x8005},
                      {0x10002, kPresent | kAlone},             // a user who may not know frames
                      {0x10003, kPresent | kAlone | 0x99999}};  // no memory of a node
  auto told = scan();
  EXPECT_EQ(told[0x10000].node, 0);
  EXPECT_EQ(told[0x10001].node, 1);
  EXPECT_EQ(told[0x10002].node, 1);
  EXPECT_EQ(told[0x10003].node, -1);
  machine_.asked_node = -14;
  EXPECT_EQ(scan()[0x10002].node, -1);
}

}  // namespace
}  // namespace thermocline
