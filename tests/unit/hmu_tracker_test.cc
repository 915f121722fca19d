// SPDX-License-Identifier: Apache-2.0
// The stand-in for a device that counts: its list as text, and whose pages the hot units are.
#include "tracking/hmu_tracker.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proc_machine.h"
#include "told.h"
#include "tracking/hot_list.h"

namespace thermocline {
namespace {

using testing::HasSubstr;

std::string list_text(std::string_view hot, unsigned epoch = 1, unsigned threshold = 1,
                      unsigned overflow = 0, unsigned unit = 4096) {
  return fmt::format(
      "thermocline-hot-list 1\nepoch {}\nunit_bytes {}\nbase 134217728\nunits 32768\n"
      "threshold {}\noverflow {}\n{}",
      epoch, unit, threshold, overflow, hot);
}

TEST(HotList, TellsTheFramesOfHotUnits) {
  const auto list = parse_hot_list(list_text("hot 5 970\nhot 2 64\n"));
  ASSERT_TRUE(list) << list.error().message;
  EXPECT_EQ(list->epoch, 1u);
  EXPECT_EQ(list->first_frame, 32768u);
  EXPECT_EQ(list->frames, 32768u);
  EXPECT_EQ(list->hot_frames(), (std::vector<std::uint64_t>{32770, 32773}));
  EXPECT_TRUE(list->complete());
}

TEST(HotList, UnitsSmallerThanAPageMakeItHotOnce) {
  const auto list = parse_hot_list(list_text("hot 16 1\nhot 31 1\nhot 32 1\n", 1, 1, 0, 256));
  ASSERT_TRUE(list) << list.error().message;
  EXPECT_EQ(list->hot_frames(), (std::vector<std::uint64_t>{32769, 32770}));
  EXPECT_EQ(list->frames, 2048u);
}

TEST(HotList, IsCompleteOnlyWithoutAThresholdAndAnOverflow) {
  EXPECT_FALSE(parse_hot_list(list_text("", 1, 2))->complete());
  EXPECT_FALSE(parse_hot_list(list_text("", 1, 1, 1))->complete());
}

TEST(HotList, RefusesWhatIsNotOne) {
  const auto why = [](const std::string& text) {
    const auto list = parse_hot_list(text);
    if (list) return std::string("taken");
    EXPECT_EQ(list.error().kind, ErrorKind::kCorrupt);
    return list.error().message;
  };
  EXPECT_THAT(why(""), HasSubstr("ends before its header does"));
  EXPECT_THAT(why("thermocline-hot-list 2\n"), HasSubstr("only version 1"));
  EXPECT_THAT(why("epoch 1\n"), HasSubstr("line 1 of the hot list: wants \"thermocline-hot-list"));
  EXPECT_THAT(why(list_text("hot 5\n")), HasSubstr("line 8 of the hot list: wants \"hot UNIT"));
  EXPECT_THAT(why(list_text("hot 5 x\n")), HasSubstr("not a number"));
  EXPECT_THAT(why(list_text("hot 32768 1\n")), HasSubstr("no such unit"));
  EXPECT_THAT(why(list_text("hot 5 63\n", 1, 64)), HasSubstr("below the threshold"));
  EXPECT_THAT(why(list_text("hot 5 1\nhot 6 1\nhot 5 2\n")), HasSubstr("listed twice"));
  EXPECT_THAT(why(list_text("", 1, 0)), HasSubstr("threshold wants 1 or more"));
  EXPECT_THAT(why(list_text("", 1, 1, 0, 8192)), HasSubstr("unit_bytes wants"));
  EXPECT_THAT(why(list_text("", 1, 1, 0, 384)), HasSubstr("unit_bytes wants"));
}

class Hmu : public testing::Test {
 protected:
  Hmu() {
    options_.hmu_list = "/list";
    machine_.files["/sys/devices/system/node/has_memory"] = "0-1\n";
    list("hot 5 970\n");
    auto made = hmu_tracker_factory().make(machine_, options_);
    if (!made) throw std::runtime_error(made.error().message);
    tracker_ = std::move(*made);
    process_ = *identify_process(machine_, Pid(42));
    EXPECT_TRUE(tracker_->attach(process_));
    machine_.others = 0;
    // On the device (node 1), hot and not; beside it (node 0); shared, on the device.
    machine_.pagemap = {{0x10000, kPresent | kAlone | 32773},
                        {0x10001, kPresent | kAlone | 32774},
                        {0x10002, kPresent | kAlone | 5},
                        {0x20000, kPresent | 32775}};
  }
  void list(std::string_view hot, unsigned epoch = 1, unsigned threshold = 1) {
    machine_.files["/list"] = list_text(hot, epoch, threshold);
  }
  std::map<std::uint64_t, Told> scan() {
    return scan_with(*tracker_, request_for(process_.asid)).pages;
  }
  ProcMachine machine_;
  TrackerOptions options_;
  std::unique_ptr<Tracker> tracker_;
  ProcessIdentity process_;
};

TEST_F(Hmu, KnowsThePagesOfItsDeviceAndNoOthers) {
  EXPECT_EQ(scan(), (std::map<std::uint64_t, Told>{{0x10000, {true, true, 1}},
                                                   {0x10001, {true, false, 1}},
                                                   {0x10002, {false, false, 0}},
                                                   {0x20000, {true, false, 1}}}));
}

TEST_F(Hmu, WhatAThresholdLeftOutIsUnknown) {
  list("hot 5 970\n", 2, 64);
  const auto told = scan();
  EXPECT_EQ(told.at(0x10000), (Told{true, true, 1}));
  EXPECT_EQ(told.at(0x10001), (Told{false, false, 1}));
}

TEST_F(Hmu, AListThatStaysTheSameIsNotToldForLong) {
  EXPECT_TRUE(scan().at(0x10000).accessed);
  machine_.time += std::chrono::seconds(11);
  EXPECT_EQ(scan().at(0x10000), (Told{false, false, 1}));
  list("hot 5 970\n", 2);
  EXPECT_TRUE(scan().at(0x10000).accessed) << "a new epoch";
}

TEST_F(Hmu, AListThatIsNoneFailsTheScanAndNamesTheFile) {
  machine_.files["/list"] = "x\n";
  const auto stats = tracker_->scan(request_for(process_.asid), [](std::span<const std::byte>) {});
  ASSERT_FALSE(stats);
  EXPECT_THAT(stats.error().message, HasSubstr("/list: line 1"));
}

TEST_F(Hmu, WorksOnlyWithAList) {
  machine_.others = kPresent | 1;
  EXPECT_TRUE(hmu_tracker_factory().probe(machine_, options_));
  const Status none = hmu_tracker_factory().probe(machine_, {});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().kind, ErrorKind::kUnsupported);
  EXPECT_THAT(none.error().message, HasSubstr("tracker.hmu_list"));
}

}  // namespace
}  // namespace thermocline
