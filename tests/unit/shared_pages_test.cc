// SPDX-License-Identifier: Apache-2.0
// Pages that several processes map: merged, counted once, handed over.
#include "engine/shared_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "heat/scale.h"

namespace thermocline {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr unsigned kTouch = 16;

ProcessIdentity process(int pid, std::uint64_t start) {
  ProcessIdentity result;
  result.pid = Pid(pid);
  result.start_ticks = start;
  result.asid = make_asid(result.pid, start, 0);
  return result;
}

Mapping file_mapping(std::uint64_t first, std::uint64_t count, std::uint64_t offset,
                     std::uint64_t inode = 5) {
  Mapping mapping;
  mapping.first = Vpn(first);
  mapping.end = Vpn(first + count);
  mapping.shared = mapping.file = mapping.writable = true;
  mapping.offset = PageCount(offset);
  mapping.device = 1;
  mapping.inode = inode;
  return mapping;
}

class SharedPagesTest : public testing::Test {
 protected:
  SharedPagesTest() {
    heat_.set_node_tiers(std::vector{TierId(0), TierId(1)});
    heat_.set_window_heat(kTouch);
  }

  void map(const ProcessIdentity& who, const std::vector<Mapping>& mappings,
           std::uint64_t ipc_space = 1) {
    shared_.set_mappings(who, mappings, ipc_space);
    shared_.settle();
  }

  using Entries = std::vector<EntryObservation>;
  static Entries pages(std::size_t n, int node = 1) {
    return Entries(n, EntryObservation{NodeId(node), true, true, false, false});
  }

  SharedPages::Seen tell(const ProcessIdentity& who, std::uint64_t first, const Entries& entries,
                         std::optional<unsigned> window = 0, PageOrder order = kOrder4K,
                         bool writes_only = false, bool marked = false) {
    std::vector<std::byte> bytes;
    RecordHeader header;
    header.asid = who.asid;
    header.writes_only = writes_only;
    header.shared = marked;
    RecordWriter(bytes).append(header, 0, Vpn(first), order, entries);
    RecordReader reader(bytes);
    return shared_.apply(*reader.next(), window);
  }

  [[nodiscard]] unsigned heat(const ProcessIdentity& who, std::uint64_t vpn) const {
    const auto found = heat_.look_up(who.asid, Vpn(vpn));
    return found ? found->first.get() : 999;
  }
  [[nodiscard]] bool known(const ProcessIdentity& who, std::uint64_t vpn) const {
    return heat_.look_up(who.asid, Vpn(vpn)).has_value();
  }
  [[nodiscard]] std::uint64_t held(unsigned tier) const {
    return heat_.occupancy().per_tier[tier].get();
  }

  const ProcessIdentity old_ = process(20, 100), young_ = process(10, 200),
                        youngest_ = process(30, 300);
  HeatMap heat_;
  std::vector<std::pair<Asid, Vpn>> handed_;
  SharedPages shared_{heat_, [this](Asid from, Vpn first, PageCount, Asid, Vpn) {
                        handed_.emplace_back(from, first);
                      }};
};

TEST_F(SharedPagesTest, WhatIsPrivateGoesThroughUntouched) {
  map(old_, {file_mapping(1000, 100, 0)});
  map(young_, {file_mapping(5000, 100, 0, 6)});
  tell(old_, 1000, pages(100));
  tell(young_, 5000, pages(100, 0));
  EXPECT_EQ(held(0), 100u);
  EXPECT_EQ(held(1), 100u);
  EXPECT_FALSE(shared_.shares(old_.asid));
  EXPECT_EQ(shared_.shared_pages(old_.asid), PageCount(0));
  EXPECT_EQ(shared_.owners(old_.asid, Vpn(1000)), Owners::kOne);
}

TEST_F(SharedPagesTest, APageIsCountedOnceWhereTheOldestProcessMapsIt) {
  map(young_, {file_mapping(5000, 100, 0)});
  map(old_, {file_mapping(1000, 100, 0)});
  tell(young_, 5000, pages(100));
  tell(old_, 1000, pages(100));
  EXPECT_EQ(held(1), 100u);
  EXPECT_TRUE(known(old_, 1007));
  EXPECT_FALSE(known(young_, 5007));
  EXPECT_TRUE(shared_.shares(old_.asid));
  EXPECT_EQ(shared_.shared_pages(old_.asid), PageCount(100));
  EXPECT_EQ(shared_.shared_pages(young_.asid), PageCount(100));
  EXPECT_EQ(shared_.end_epoch(true), PageCount(100));
}

TEST_F(SharedPagesTest, TouchedByEightInAWindowIsTouchedOnce) {
  std::vector<ProcessIdentity> all;
  for (int i = 0; i < 8; ++i) {
    all.push_back(process(100 + i, 50));
    map(all.back(), {file_mapping(static_cast<std::uint64_t>(1000 * (i + 1)), 64, 0)});
  }
  Entries entries = pages(64);
  entries[3].accessed = true;
  std::uint64_t accessed = 0;
  for (unsigned window = 0; window < 2; ++window)
    for (std::size_t i = 0; i < 8; ++i)
      accessed += tell(all[i], 1000 * (i + 1), entries, window).stats.accessed.get();
  EXPECT_EQ(accessed, 2u) << "once a window";
  EXPECT_EQ(heat(all[0], 1003), 2 * kTouch);
  EXPECT_EQ(heat(all[0], 1004), 0u);
  EXPECT_EQ(held(1), 64u);
}

TEST_F(SharedPagesTest, WindowsThatComeLateAreToldApart) {
  map(old_, {file_mapping(1000, 8, 0)});
  map(young_, {file_mapping(5000, 8, 0)});
  Entries entries = pages(8);
  entries[0].accessed = true;
  for (const unsigned window : {0u, 1u, 2u}) tell(old_, 1000, entries, window);
  for (const unsigned window : {0u, 1u, 2u, 3u}) tell(young_, 5000, entries, window);
  EXPECT_EQ(heat(old_, 1000), 4 * kTouch);
  shared_.end_epoch(true);
  tell(young_, 5000, entries, 0);
  EXPECT_EQ(heat(old_, 1000), 5 * kTouch) << "of another epoch";
}

TEST_F(SharedPagesTest, APassThatDoesNotCountTellsThatTheProcessLives) {
  map(old_, {file_mapping(1000, 8, 0)});
  map(young_, {file_mapping(5000, 8, 0)});
  Entries entries = pages(8);
  entries[0].accessed = true;
  EXPECT_TRUE(tell(young_, 5000, entries, std::nullopt).touched);
  EXPECT_EQ(heat(old_, 1000), 0u);
  EXPECT_FALSE(tell(young_, 5000, pages(8)).touched);
}

TEST_F(SharedPagesTest, WhoDoesNotMapAPageSaysNothingOfIt) {
  map(old_, {file_mapping(1000, 8, 0)});
  map(young_, {file_mapping(5000, 8, 0)});
  Entries half = pages(8);
  for (std::size_t i = 4; i < 8; ++i) half[i] = {};
  Entries rest = pages(8, 0);
  for (std::size_t i = 0; i < 4; ++i) rest[i] = {};
  for (unsigned epoch = 0; epoch < 3; ++epoch) {
    tell(old_, 1000, half);
    tell(young_, 5000, rest);
    shared_.clear_range(young_.asid, Vpn(0), PageCount(100000));
    shared_.clear_range(old_.asid, Vpn(0), PageCount(100000));
    EXPECT_EQ(shared_.end_epoch(true), PageCount(8));
    EXPECT_EQ(held(0), 4u);
    EXPECT_EQ(held(1), 4u);
  }
  EXPECT_THAT(shared_.others({old_.asid, Vpn(1006)}),
              ElementsAre(PagePlace{young_.asid, Vpn(5006)}));
  // And what nobody has any more is gone; not so when somebody could not be asked.
  tell(old_, 1000, half);
  shared_.end_epoch(false);
  EXPECT_EQ(held(0), 4u);
  tell(old_, 1000, half);
  shared_.end_epoch(true);
  EXPECT_EQ(held(0), 0u);
  EXPECT_EQ(held(1), 4u);
}

TEST_F(SharedPagesTest, IdleRecordsKeepWhatIsThere) {
  map(old_, {file_mapping(1024, 512, 0)});
  map(young_, {file_mapping(5120, 512, 0)});
  tell(old_, 1024, pages(512));
  tell(young_, 5120, pages(512));
  shared_.end_epoch(true);
  for (unsigned epoch = 0; epoch < 3; ++epoch) {
    for (const auto& [who, first] : {std::pair(old_, 1024), std::pair(young_, 5120)}) {
      std::vector<std::byte> bytes;
      RecordHeader header;
      header.asid = who.asid;
      RecordWriter(bytes).append_idle(header, 0, Vpn(static_cast<std::uint64_t>(first)), kOrder2M,
                                      1);
      RecordReader reader(bytes);
      shared_.apply(*reader.next(), 0);
    }
    EXPECT_EQ(shared_.end_epoch(true), PageCount(512));
    EXPECT_EQ(held(1), 512u);
  }
}

TEST_F(SharedPagesTest, OneOwnerThatCannotTellMakesAPageUnknown) {
  map(old_, {file_mapping(1000, 8, 0)});
  map(young_, {file_mapping(5000, 8, 0)});
  Entries blind = pages(8);
  blind[2].observable = false;
  for (unsigned epoch = 0; epoch < 2; ++epoch) {
    tell(young_, 5000, blind, 0);
    tell(old_, 1000, pages(8), 0);
    tell(old_, 1000, pages(8), 1);
    EXPECT_TRUE(heat_.look_up(old_.asid, Vpn(1002))->second.unobservable());
    EXPECT_FALSE(heat_.look_up(old_.asid, Vpn(1003))->second.unobservable());
    EXPECT_EQ(shared_.end_epoch(true), PageCount(7));
  }
  // A touch is known all the same.
  Entries touched = pages(8);
  touched[2].accessed = true;
  tell(young_, 5000, blind, 0);
  tell(old_, 1000, touched, 0);
  EXPECT_EQ(heat(old_, 1002), kTouch);
  EXPECT_EQ(shared_.end_epoch(true), PageCount(8));
  for (unsigned epoch = 0; epoch < 2; ++epoch) {
    tell(young_, 5000, pages(8));
    tell(old_, 1000, pages(8));
    shared_.end_epoch(true);
  }
  EXPECT_FALSE(heat_.look_up(old_.asid, Vpn(1002))->second.unobservable());
}

TEST_F(SharedPagesTest, WhatOneHasWrittenIsKnownToATrackerOfWrites) {
  map(old_, {file_mapping(1000, 8, 0)});
  map(young_, {file_mapping(5000, 8, 0)});
  Entries written = pages(8);
  written[5].accessed = true;
  tell(young_, 5000, written, 0, kOrder4K, true);
  tell(old_, 1000, pages(8), 0, kOrder4K, true);
  EXPECT_EQ(heat(old_, 1005), kTouch);
  EXPECT_FALSE(heat_.look_up(old_.asid, Vpn(1005))->second.unobservable());
  EXPECT_TRUE(heat_.look_up(old_.asid, Vpn(1004))->second.unobservable());
}

TEST_F(SharedPagesTest, HeatGoesToTheNextOldestWhenTheHomeGoes) {
  map(old_, {file_mapping(1000, 100, 0)});
  map(young_, {file_mapping(5000, 100, 0)});
  map(youngest_, {file_mapping(9000, 100, 0)});
  Entries entries = pages(100);
  entries[7].accessed = true;
  tell(young_, 5000, entries);
  ASSERT_EQ(heat(old_, 1007), kTouch);
  handed_.clear();
  shared_.leave(old_.asid);
  heat_.forget(old_.asid);
  EXPECT_THAT(handed_, testing::Contains(std::pair(old_.asid, Vpn(1000))));
  EXPECT_EQ(heat(young_, 5007), kTouch);
  EXPECT_EQ(held(1), 100u);
  shared_.end_epoch(true);
  EXPECT_EQ(held(1), 100u) << "what was told in this epoch was told to the old home";
  tell(youngest_, 9000, pages(100));
  shared_.end_epoch(true);
  EXPECT_EQ(held(1), 100u);
  // The last one has it for itself again.
  shared_.leave(young_.asid);
  heat_.forget(young_.asid);
  EXPECT_EQ(heat(youngest_, 9007), kTouch);
  EXPECT_FALSE(shared_.shares(youngest_.asid));
  tell(youngest_, 9000, pages(100));
  EXPECT_EQ(held(1), 100u);
}

TEST_F(SharedPagesTest, WhatWasPrivateBecomesShared) {
  map(young_, {file_mapping(5000, 1100, 0)});
  Entries entries = pages(1100);
  entries[700].accessed = true;
  tell(young_, 5000, entries);
  ASSERT_EQ(heat(young_, 5700), kTouch);
  map(old_, {file_mapping(1000, 1100, 0)});
  EXPECT_EQ(heat(old_, 1700), kTouch);
  EXPECT_FALSE(known(young_, 5700));
  EXPECT_EQ(held(1), 1100u);
}

TEST_F(SharedPagesTest, OnlyWhatOverlapsIsShared) {
  map(old_, {file_mapping(1000, 100, 0)});
  map(young_, {file_mapping(5000, 100, 60)});
  EXPECT_EQ(shared_.owners(old_.asid, Vpn(1059)), Owners::kOne);
  EXPECT_EQ(shared_.owners(old_.asid, Vpn(1060)), Owners::kAll);
  tell(old_, 1000, pages(100));
  tell(young_, 5000, pages(100));
  EXPECT_EQ(held(1), 160u);
  EXPECT_TRUE(known(young_, 5040));
  EXPECT_FALSE(known(young_, 5039));
  EXPECT_EQ(shared_.shared_pages(young_.asid), PageCount(40));
}

TEST_F(SharedPagesTest, AProcessMayMapItTwice) {
  map(old_, {file_mapping(1000, 10, 0), file_mapping(2000, 10, 0)});
  tell(old_, 1000, pages(10));
  Entries touched = pages(10);
  touched[4].accessed = true;
  tell(old_, 2000, touched);
  EXPECT_EQ(held(1), 10u);
  EXPECT_EQ(heat(old_, 1004), kTouch);
  EXPECT_THAT(shared_.others({old_.asid, Vpn(1004)}), ElementsAre(PagePlace{old_.asid, Vpn(2004)}));
}

TEST_F(SharedPagesTest, FilesAreToldApart) {
  Mapping segment = file_mapping(1000, 10, 0, 0);
  segment.file = false;
  segment.sysv = true;
  segment.name = 7;
  map(old_, {segment}, 1);
  map(young_, {segment}, 2);
  EXPECT_FALSE(shared_.shares(old_.asid)) << "another IPC name space";
  map(young_, {segment}, 1);
  EXPECT_TRUE(shared_.shares(old_.asid));
  Mapping memfd = file_mapping(1000, 10, 0, 9), other = memfd;
  other.name = 8;
  map(old_, {memfd});
  map(young_, {other});
  EXPECT_FALSE(shared_.shares(old_.asid)) << "of another name";
  // Text is counted once, but it is everybody's.
  Mapping text = file_mapping(1000, 10, 0, 9);
  text.shared = text.writable = false;
  text.executable = true;
  map(old_, {text});
  map(young_, {text});
  EXPECT_FALSE(shared_.shares(old_.asid));
  EXPECT_EQ(shared_.owners(old_.asid, Vpn(1003)), Owners::kOne);
  tell(old_, 1000, pages(10));
  tell(young_, 1000, pages(10));
  EXPECT_EQ(held(1), 10u);
}

TEST_F(SharedPagesTest, AnonymousMemoryMayBeThatOfForks) {
  Mapping heap, stack, data = file_mapping(3000, 10, 0);
  heap.first = Vpn(1000);
  heap.end = Vpn(1010);
  stack.first = Vpn(2000);
  stack.end = Vpn(2010);
  data.shared = false;
  map(old_, {heap, stack, data});
  EXPECT_EQ(shared_.owners(old_.asid, Vpn(1009)), Owners::kForks);
  EXPECT_EQ(shared_.owners(old_.asid, Vpn(1010)), Owners::kOne);
  EXPECT_EQ(shared_.owners(old_.asid, Vpn(2000)), Owners::kForks);
  EXPECT_EQ(shared_.owners(old_.asid, Vpn(3000)), Owners::kOne) << "libc is everybody's";
  EXPECT_EQ(shared_.owners(young_.asid, Vpn(1000)), Owners::kOne);
}

Mapping anonymous(std::uint64_t first, std::uint64_t count) {
  Mapping mapping;
  mapping.first = Vpn(first);
  mapping.end = Vpn(first + count);
  mapping.writable = true;
  return mapping;
}

TEST_F(SharedPagesTest, AForkSharesUntilItHasCopies) {
  map(old_, {anonymous(1024, 2048), anonymous(9000, 10)});
  map(young_, {anonymous(1024, 1024), anonymous(2560, 4096), anonymous(9000, 10)});
  const auto common = shared_.common_anonymous(old_.asid, young_.asid);
  ASSERT_THAT(common, SizeIs(2)) << "small pieces are not worth a look";
  EXPECT_EQ(common[0].first, Vpn(1024));
  EXPECT_EQ(common[0].count, PageCount(1024));
  EXPECT_EQ(common[1].first, Vpn(2560));
  EXPECT_EQ(common[1].count, PageCount(512));

  Entries touched = pages(1024);
  touched[9].accessed = true;
  tell(old_, 1024, pages(1024));
  tell(young_, 1024, touched);
  EXPECT_EQ(held(1), 2048u) << "not known yet";
  shared_.set_forked(young_.asid, old_.asid, std::span(common).first(1));
  shared_.set_forked(youngest_.asid, old_.asid, common);  // not a member
  shared_.settle();
  EXPECT_EQ(held(1), 1024u);
  EXPECT_EQ(heat(old_, 1024 + 9), kTouch);
  EXPECT_EQ(shared_.owners(old_.asid, Vpn(1030)), Owners::kAll);
  EXPECT_EQ(shared_.owners(old_.asid, Vpn(2560)), Owners::kForks);
  EXPECT_FALSE(shared_.shares(old_.asid)) << "that is about MAP_SHARED";
  tell(old_, 1024, pages(1024));
  EXPECT_EQ(shared_.shared_pages(young_.asid), PageCount(1024));
  // A copy of the child's is on another node; the parent says where its own is.
  Entries copies = pages(1024, 0);
  tell(young_, 1024, copies);
  EXPECT_EQ(held(0), 0u);
  // Another child shares less of it; both are united on the parent's side.
  map(youngest_, {anonymous(1536, 512)});
  const ScanRange part{Vpn(1536), PageCount(512)};
  shared_.set_forked(youngest_.asid, old_.asid, std::span(&part, 1));
  shared_.settle();
  tell(youngest_, 1536, pages(512));
  EXPECT_EQ(held(1), 1024u);
  EXPECT_THAT(shared_.others({old_.asid, Vpn(1600)}), SizeIs(2));
  // It exits, or has copied most of it.
  shared_.set_forked(young_.asid, old_.asid, {});
  shared_.leave(youngest_.asid);
  shared_.settle();
  EXPECT_EQ(shared_.owners(old_.asid, Vpn(1030)), Owners::kForks);
  tell(young_, 1024, copies);
  EXPECT_EQ(held(0), 1024u);
  EXPECT_EQ(held(1), 1024u);
  EXPECT_EQ(heat(old_, 1024 + 9), kTouch);
}

TEST_F(SharedPagesTest, TheOldestForkInheritsFromAnAncestorThatExits) {
  const ScanRange range{Vpn(1024), PageCount(512)};
  for (const ProcessIdentity& who : {old_, young_, youngest_}) {
    map(who, {anonymous(1024, 512)});
    if (who.pid != old_.pid) shared_.set_forked(who.asid, old_.asid, std::span(&range, 1));
  }
  shared_.settle();
  Entries touched = pages(512);
  touched[9].accessed = true;
  tell(youngest_, 1024, touched);
  ASSERT_EQ(heat(old_, 1024 + 9), kTouch);
  shared_.leave(old_.asid);
  heat_.forget(old_.asid);
  EXPECT_EQ(heat(young_, 1024 + 9), kTouch);
  EXPECT_EQ(held(1), 512u);
}

TEST_F(SharedPagesTest, WhatOthersOutsideMapIsUnknown) {
  map(old_, {file_mapping(1000, 10, 0), file_mapping(2000, 10, 0, 6)});
  map(young_, {file_mapping(5000, 10, 0)});
  Entries touched = pages(10);
  touched[4].accessed = true;
  tell(old_, 2000, touched, 0, kOrder4K, false, true);
  EXPECT_TRUE(heat_.look_up(old_.asid, Vpn(2004))->second.unobservable());
  EXPECT_EQ(heat(old_, 2004), 0u);
  tell(old_, 1000, touched, 0, kOrder4K, false, true);
  EXPECT_EQ(heat(old_, 1004), kTouch);
}

TEST_F(SharedPagesTest, HugePagesHaveTheSizeThatTheyHaveAtHome) {
  map(old_, {file_mapping(1024, 1024, 0)});
  map(young_, {file_mapping(5120, 1024, 0)});
  map(youngest_, {file_mapping(9001, 1024, 0)});
  Entries huge = pages(2);
  Entries small = pages(1024);
  small[5].accessed = small[6].accessed = true;
  tell(old_, 1024, huge, 0, kOrder2M);
  tell(youngest_, 9001, small);
  tell(young_, 5120, huge, 0, kOrder2M);
  EXPECT_EQ(heat_.order_at(old_.asid, Vpn(1024)), kOrder2M);
  EXPECT_EQ(heat(old_, 1024), kTouch) << "a huge page is one page, touched once";
  EXPECT_EQ(heat(old_, 1536), 0u);
  EXPECT_EQ(held(1), 1024u);
  // Split at home: told as small pages from then on.
  tell(old_, 1024, pages(1024), 1);
  huge[1].accessed = true;
  tell(young_, 5120, huge, 1, kOrder2M);
  EXPECT_EQ(heat_.order_at(old_.asid, Vpn(1536)), kOrder4K);
  EXPECT_EQ(heat(old_, 1600), kTouch);
  EXPECT_EQ(held(1), 1024u);
  EXPECT_EQ(shared_.end_epoch(true), PageCount(1024));
}

TEST_F(SharedPagesTest, AHugePageThatIsSharedInPart) {
  map(old_, {file_mapping(1024, 1024, 0)});
  map(young_, {file_mapping(5000, 512, 256)});
  Entries huge = pages(2);
  huge[0].accessed = true;
  tell(old_, 1024, huge, 0, kOrder2M);
  tell(young_, 5000, pages(512));
  EXPECT_EQ(held(1), 1024u);
  EXPECT_EQ(heat(old_, 1024 + 10), kTouch);
  EXPECT_EQ(heat(old_, 1024 + 300), kTouch);
  EXPECT_EQ(heat(old_, 1024 + 600), 0u);
}

TEST_F(SharedPagesTest, AnUnalignedHomeTakesHugePagesAsSmallOnes) {
  map(old_, {file_mapping(1001, 512, 0)});
  map(young_, {file_mapping(5120, 512, 0)});
  Entries huge = pages(1);
  huge[0].accessed = true;
  tell(young_, 5120, huge, 0, kOrder2M);
  EXPECT_EQ(held(1), 512u);
  EXPECT_EQ(heat(old_, 1001), kTouch);
  EXPECT_EQ(heat(old_, 1001 + 511), kTouch);
  EXPECT_FALSE(known(old_, 1000));
}

TEST_F(SharedPagesTest, NobodyElseMapsWhatIsPrivate) {
  map(old_, {file_mapping(1000, 10, 0)});
  EXPECT_THAT(shared_.others({old_.asid, Vpn(1000)}), IsEmpty());
  EXPECT_THAT(shared_.others({young_.asid, Vpn(1000)}), IsEmpty());
}

}  // namespace
}  // namespace thermocline
