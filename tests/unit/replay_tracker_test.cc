// SPDX-License-Identifier: Apache-2.0
#include "tracking/replay_tracker.h"

#include <gtest/gtest.h>

#include "told.h"
#include "tracking/synthetic_tracker.h"

namespace thermocline {
namespace {

const ProcessIdentity kA{Pid(1), 1, Asid(7), "a"}, kB{Pid(2), 1, Asid(8), "b"};

/// Passes of two address spaces, record by record in turn, as a daemon's file holds them.
struct Recording {
  Recording() {
    SyntheticLoad load;
    load.pages = PageCount(20000);
    const auto tracker = make_synthetic_tracker(load);
    EXPECT_TRUE(tracker->attach(kA));
    EXPECT_TRUE(tracker->attach(kB));
    for (std::uint64_t pass = 0; pass < 3; ++pass)
      for (const ProcessIdentity* process : {&kA, &kB}) {
        ScanRequest request = request_for(process->asid);
        request.epoch = Epoch(pass / 2);  // two passes in an epoch, as well as epochs
        request.window = Nanoseconds(5);
        passes[process->asid].push_back(scan_with(*tracker, request).bytes);
      }
    for (std::size_t pass = 0; pass < 3; ++pass) {
      RecordReader a(passes[kA.asid][pass]), b(passes[kB.asid][pass]);
      for (;;) {
        const std::size_t a_from = a.offset(), b_from = b.offset();
        if (!a.next() || !b.next()) break;
        add(passes[kA.asid][pass], a_from, a.offset());
        add(passes[kB.asid][pass], b_from, b.offset());
      }
    }
  }
  void add(const std::vector<std::byte>& from, std::size_t begin, std::size_t end) {
    bytes.insert(bytes.end(), from.begin() + static_cast<std::ptrdiff_t>(begin),
                 from.begin() + static_cast<std::ptrdiff_t>(end));
  }
  std::map<Asid, std::vector<std::vector<std::byte>>> passes;
  std::vector<std::byte> bytes;
};

Result<std::unique_ptr<ReplayTracker>> open(std::vector<std::byte> bytes) {
  return ReplayTracker::open(std::make_unique<MemoryRecords>(std::move(bytes)));
}

TEST(Replay, EachScanTellsTheNextPassAsItWasRecorded) {
  const Recording recording;
  auto opened = open(recording.bytes);
  ASSERT_TRUE(opened) << opened.error().message;
  ReplayTracker& tracker = **opened;
  EXPECT_EQ(tracker.address_spaces(), (std::vector<Asid>{kA.asid, kB.asid}));
  ASSERT_TRUE(tracker.attach(kA));
  ASSERT_TRUE(tracker.attach(kB));
  for (std::size_t pass = 0; pass < 3; ++pass)
    for (const ProcessIdentity* process : {&kA, &kB}) {
      EXPECT_TRUE(tracker.next_pass(process->asid));
      EXPECT_EQ(scan_with(tracker, request_for(process->asid, false)).bytes,
                recording.passes.at(process->asid)[pass]);
      const Scanned seen = scan_with(tracker, request_for(process->asid));
      EXPECT_EQ(seen.bytes, recording.passes.at(process->asid)[pass]) << "reading alone goes on";
      EXPECT_EQ(seen.stats.entries, 20000u);
      EXPECT_EQ(seen.stats.bytes, seen.bytes.size());
    }
  EXPECT_FALSE(tracker.next_pass(kA.asid));
  const auto through = tracker.scan(request_for(kA.asid), [](std::span<const std::byte>) {});
  ASSERT_FALSE(through);
  EXPECT_EQ(through.error().kind, ErrorKind::kNotFound);
  ASSERT_TRUE(tracker.attach(kA));
  EXPECT_EQ(scan_with(tracker, request_for(kA.asid)).bytes, recording.passes.at(kA.asid)[0])
      << "from the begin again";
}

TEST(Replay, OfRangesItTellsTheRecordsThatOverlapThem) {
  const Recording recording;
  auto opened = open(recording.bytes);
  ASSERT_TRUE(opened);
  ASSERT_TRUE((*opened)->attach(kA));
  const Vpn first = SyntheticLoad{}.first;
  const ScanRange range{first + PageCount(19999), PageCount(5)};
  const Scanned seen = scan_with(**opened, request_for(kA.asid, true, std::span(&range, 1)));
  EXPECT_EQ(seen.stats.records, 1u);
  EXPECT_TRUE(seen.pages.contains(first.get() + 19999));
  EXPECT_FALSE(seen.pages.contains(first.get()));
}

TEST(Replay, WhatWasNotRecordedIsNotFound) {
  auto opened = open({});
  ASSERT_TRUE(opened);
  const Status status = (*opened)->attach(kA);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::kNotFound);
}

TEST(Replay, ACutOffLastRecordIsLeftOutAndOtherBytesAreCorrupt) {
  Recording recording;
  const std::size_t whole = recording.bytes.size();
  recording.add(recording.passes[kA.asid][0], 0, 100);
  auto opened = open(recording.bytes);
  ASSERT_TRUE(opened) << opened.error().message;
  recording.bytes.resize(whole);
  recording.bytes.insert(recording.bytes.end(), 200, std::byte{1});
  opened = open(recording.bytes);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind, ErrorKind::kCorrupt);
}

}  // namespace
}  // namespace thermocline
