// SPDX-License-Identifier: Apache-2.0
// The tracker by the kernel's bitmap of idle pages, on a bitmap that a test keeps.
#include "tracking/idle_tracker.h"

#include <gtest/gtest.h>

#include "proc_machine.h"
#include "told.h"

namespace thermocline {
namespace {

const std::string kBitmap = "/sys/kernel/mm/page_idle/bitmap";
constexpr std::uint64_t kLru = 1 << 5, kTail = 1 << 16;

class Idle : public testing::Test {
 protected:
  Idle() {
    machine_.words[kBitmap];
    auto& flags = machine_.words["/proc/kpageflags"];
    for (std::uint64_t frame = 100; frame < 108; ++frame) flags[frame] = kLru;
    auto made = idle_tracker_factory().make(machine_, {});
    if (!made) throw std::runtime_error(made.error().message);
    tracker_ = std::move(*made);
    process_ = *identify_process(machine_, Pid(42));
    EXPECT_TRUE(tracker_->attach(process_));
    machine_.others = 0;
  }
  std::map<std::uint64_t, Told> scan(bool clear = true, std::span<const ScanRange> ranges = {}) {
    return scan_with(*tracker_, request_for(process_.asid, clear, ranges)).pages;
  }
  void touch(std::uint64_t frame) {
    machine_.words[kBitmap][frame / 64] &= ~(std::uint64_t{1} << (frame % 64));
  }
  static constexpr Told kTouched{true, true, 0}, kIdle{true, false, 0}, kUnknown{false, false, 0};

  ProcMachine machine_;
  std::unique_ptr<Tracker> tracker_;
  ProcessIdentity process_;
};

TEST_F(Idle, AKernelWithoutTheBitmapIsUnsupported) {
  machine_.absent = kBitmap;
  const Status works = idle_tracker_factory().probe(machine_, {});
  ASSERT_FALSE(works);
  EXPECT_EQ(works.error().kind, ErrorKind::kUnsupported);
}

TEST_F(Idle, AUserWhoMayNotKnowPageFramesIsToldSo) {
  machine_.others = kPresent;
  const Status works = idle_tracker_factory().probe(machine_, {});
  ASSERT_FALSE(works);
  EXPECT_EQ(works.error().kind, ErrorKind::kPermission);
}

TEST_F(Idle, AMarkedPageIsIdleUntilSomebodyTouchesIt) {
  machine_.pagemap = {{0x10000, kPresent | kAlone | 100}, {0x10001, kPresent | kAlone | 101}};
  (void)scan();
  EXPECT_EQ(machine_.words[kBitmap][1], std::uint64_t{3} << 36) << "its own frames, nobody else's";
  touch(101);
  for (int i = 0; i < 2; ++i) {
    const auto told = scan(false);
    EXPECT_EQ(told.at(0x10000), kIdle);
    EXPECT_EQ(told.at(0x10001), kTouched) << "reading alone marks nothing";
  }
  EXPECT_EQ(scan().at(0x10001), kTouched);
  EXPECT_EQ(scan().at(0x10001), kIdle);
}

TEST_F(Idle, SharedMemoryIsIdleToAllWhoUseIt) {
  machine_.pagemap = {{0x20000, kPresent | 102}, {0x10000, kPresent | 103}};
  (void)scan();
  EXPECT_EQ(scan().at(0x20000), kIdle) << "of a file";
  EXPECT_EQ(scan().at(0x10000), kIdle) << "shared with a fork";
}

TEST_F(Idle, WhatCannotBeMarkedIsUnknown) {
  auto& flags = machine_.words["/proc/kpageflags"];
  flags[104] = 0;
  machine_.pagemap = {{0x10000, kPresent | kAlone | 104}};
  EXPECT_EQ(scan().at(0x10000), kUnknown) << "on no LRU list";
  // It came to a list since, but it was not marked: that its bit is clear tells nothing.
  flags[104] = kLru;
  EXPECT_EQ(scan().at(0x10000), kUnknown);
  EXPECT_EQ(scan().at(0x10000), kIdle);
}

TEST_F(Idle, APageThatCameSinceIsTouched) {
  (void)scan();
  machine_.pagemap = {{0x10000, kPresent | kAlone | 105}};
  EXPECT_EQ(scan().at(0x10000), kTouched);
}

TEST_F(Idle, AHugePageIsMarkedByItsFirstFrame) {
  auto& flags = machine_.words["/proc/kpageflags"];
  flags[512] = kLru;
  for (std::uint64_t frame = 513; frame < 1024; ++frame) flags[frame] = kTail;
  machine_.pagemap = {{0x10000, kPresent | kAlone | 700}, {0x10001, kPresent | kAlone | 701}};
  (void)scan();
  EXPECT_EQ(machine_.words[kBitmap], (std::map<std::uint64_t, std::uint64_t>{{8, 1}}));
  EXPECT_EQ(scan().at(0x10001), kIdle);
  touch(512);
  EXPECT_EQ(scan().at(0x10000), kTouched);
}

TEST_F(Idle, OnlyTheRangesAreMarked) {
  machine_.pagemap = {{0x10000, kPresent | kAlone | 100}, {0x10001, kPresent | kAlone | 101}};
  const ScanRange range{Vpn(0x10001), PageCount(1)};
  EXPECT_EQ(scan(true, std::span(&range, 1)).size(), 1u);
  EXPECT_EQ(machine_.words[kBitmap][1], std::uint64_t{2} << 36);
}

}  // namespace
}  // namespace thermocline
