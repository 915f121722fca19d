// SPDX-License-Identifier: Apache-2.0
// What holds for the sources as a list, and the contract of those that need no machine;
// tracker_compliance holds the others to it, on real processes.
#include "tracking/tracker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "told.h"
#include "tracking/combine_tracker.h"
#include "tracking/replay_tracker.h"
#include "tracking/synthetic_tracker.h"
#include "tree_system.h"

namespace thermocline {
namespace {

using testing::HasSubstr;

const ProcessIdentity kProcess{Pid(42), 1, Asid(7), "db"};

std::unique_ptr<Tracker> make_synthetic() {
  SyntheticLoad load;
  load.pages = PageCount(10000);
  return make_synthetic_tracker(load);
}

std::unique_ptr<Tracker> make_replay() {
  const auto source = make_synthetic();
  EXPECT_TRUE(source->attach(kProcess));
  std::vector<std::byte> records;
  for (int i = 0; i < 8; ++i) {
    ScanRequest request = request_for(kProcess.asid);
    request.epoch = Epoch(7);
    const auto pass = scan_with(*source, request).bytes;
    records.insert(records.end(), pass.begin(), pass.end());
  }
  return std::move(*ReplayTracker::open(std::make_unique<MemoryRecords>(std::move(records))));
}

std::unique_ptr<Tracker> make_combined() {
  static const auto system = make_real_system();
  return make_combine_tracker(*system, make_synthetic(), make_synthetic());
}

struct Source {
  std::string name;
  std::unique_ptr<Tracker> (*make)();
};
void PrintTo(const Source& source, std::ostream* out) {
  *out << source.name;
}

class Contract : public testing::TestWithParam<Source> {
 protected:
  std::unique_ptr<Tracker> tracker_ = GetParam().make();
};

TEST_P(Contract, AnAddressSpaceThatIsNotAttachedIsNotFound) {
  EXPECT_EQ(tracker_->name(), GetParam().name);
  const auto kind = [&] {
    const auto stats =
        tracker_->scan(request_for(kProcess.asid), [](std::span<const std::byte>) {});
    return stats ? std::optional<ErrorKind>() : stats.error().kind;
  };
  tracker_->detach(Asid(99));
  EXPECT_EQ(kind(), ErrorKind::kNotFound);
  ASSERT_TRUE(tracker_->attach(kProcess));
  EXPECT_EQ(kind(), std::nullopt);
  tracker_->detach(kProcess.asid);
  EXPECT_EQ(kind(), ErrorKind::kNotFound);
}

TEST_P(Contract, RecordsAreNumberedWithoutGapsAndCarryWhatWasAskedFor) {
  ASSERT_TRUE(tracker_->attach(kProcess));
  std::uint64_t next = 0;
  for (int i = 0; i < 3; ++i) {
    ScanRequest request = request_for(kProcess.asid);
    request.epoch = Epoch(7);
    const Scanned seen = scan_with(*tracker_, request);
    EXPECT_EQ(seen.pages.size(), 10000u);
    EXPECT_EQ(seen.stats.entries, 10000u);
    EXPECT_EQ(seen.stats.bytes, seen.bytes.size());
    RecordReader reader(seen.bytes);
    std::uint64_t records = 0;
    while (const auto record = reader.next()) {
      EXPECT_EQ(record->sequence, next++);
      EXPECT_EQ(record->asid, kProcess.asid);
      EXPECT_EQ(record->epoch, Epoch(7));
      EXPECT_TRUE(record->cleared);
      ++records;
    }
    EXPECT_EQ(seen.stats.records, records);
  }
}

TEST_P(Contract, ReadingAloneClearsNothingAndAClearOpensTheNextWindow) {
  ASSERT_TRUE(tracker_->attach(kProcess));
  const auto first = scan_with(*tracker_, request_for(kProcess.asid, false)).pages;
  EXPECT_EQ(scan_with(*tracker_, request_for(kProcess.asid, false)).pages, first);
  EXPECT_EQ(scan_with(*tracker_, request_for(kProcess.asid)).pages, first);
  EXPECT_NE(scan_with(*tracker_, request_for(kProcess.asid)).pages, first);
}

INSTANTIATE_TEST_SUITE_P(All, Contract,
                         testing::Values(Source{"synthetic", make_synthetic},
                                         Source{"replay", make_replay},
                                         Source{"combine", make_combined}),
                         [](const auto& source) { return source.param.name; });

TEST(Trackers, AreNamedOnceAndSayWhatTheyAre) {
  std::set<std::string> names;
  for (const TrackerFactory& factory : tracker_factories()) {
    EXPECT_TRUE(names.insert(factory.name).second) << factory.name;
    EXPECT_NE(factory.summary, "") << factory.name;
    EXPECT_NE(factory.abilities.privilege, "") << factory.name;
    EXPECT_NE(factory.abilities.cannot_see, "") << factory.name;
  }
}

std::vector<std::string> names_of(const AutoOrder& order) {
  std::vector<std::string> names;
  for (const TrackerFactory* factory : order.factories) names.push_back(factory->name);
  return names;
}

TEST(Trackers, AutoTriesThoseThatFollowRealProcessesOnly) {
  const TreeSystem system;
  const AutoOrder order = auto_order(system, std::span(&kProcess, 1));
  EXPECT_FALSE(order.second_mmu);
  EXPECT_EQ(names_of(order),
            (std::vector<std::string>{"kmod", "bpf", "idle", "damon", "refs", "written"}));
  for (const char* name : {"replay", "synthetic"}) {
    TreeSystem none;
    const auto made = make_tracker(none, name, {});
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().kind, ErrorKind::kUnsupported);
    EXPECT_THAT(made.error().message, HasSubstr("programs that simulate"));
  }
}

TEST(Trackers, AutoTriesDamonFirstForAVirtualMachine) {
  TreeSystem system;
  system.links["/proc/42/fd/3"] = "/dev/kvm";
  system.links["/proc/42/fd/9"] = "anon_inode:kvm-vm-stats";
  EXPECT_FALSE(has_second_mmu(system, Pid(42)));
  EXPECT_FALSE(auto_order(system, std::span(&kProcess, 1)).second_mmu);
  system.links["/proc/42/fd/10"] = "anon_inode:kvm-vm";
  EXPECT_TRUE(has_second_mmu(system, Pid(42)));
  EXPECT_FALSE(has_second_mmu(system, Pid(43)));
  const ProcessIdentity targets[] = {{Pid(43), 1, Asid(8), "other"}, kProcess};
  const AutoOrder order = auto_order(system, targets);
  ASSERT_TRUE(order.second_mmu);
  EXPECT_EQ(order.second_mmu->pid, Pid(42));
  EXPECT_EQ(names_of(order),
            (std::vector<std::string>{"damon", "kmod", "bpf", "idle", "refs", "written"}));
  EXPECT_THAT(second_mmu_sentence(*order.second_mmu), HasSubstr("process 42 (db)"));
}

}  // namespace
}  // namespace thermocline
