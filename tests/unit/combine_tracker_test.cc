// SPDX-License-Identifier: Apache-2.0
#include "tracking/combine_tracker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "told.h"
#include "tracking/synthetic_tracker.h"

namespace thermocline {
namespace {

using testing::HasSubstr;

/// Records of entries in a row: 'A' accessed, 'i' idle, '?' unknown, '.' not present; upper-case
/// and '!' (unknown) on node 1, the others on none.
std::vector<std::byte> records(std::uint64_t first, std::string_view pages,
                               PageOrder order = kOrder4K, bool writes_only = false) {
  std::vector<EntryObservation> entries;
  for (const char c : pages) {
    EntryObservation e;
    e.present = c != '.';
    e.accessed = c == 'A' || c == 'a';
    e.observable = e.accessed || c == 'I' || c == 'i';
    if (c == 'A' || c == 'I' || c == '!') e.node = NodeId(1);
    entries.push_back(e);
  }
  RecordHeader header;
  header.asid = Asid(7);
  header.writes_only = writes_only;
  std::vector<std::byte> bytes;
  RecordWriter(bytes).append(header, 0, Vpn(first), order, entries);
  return bytes;
}

std::vector<std::byte> operator+(std::vector<std::byte> a, const std::vector<std::byte>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::map<std::uint64_t, Told> merged(const std::vector<std::byte>& a,
                                     const std::vector<std::byte>& b) {
  RecordHeader header;
  header.asid = Asid(7);
  std::uint64_t sequence = 0;
  ScanStats stats;
  std::vector<std::byte> out;
  const Status status = merge_records(a, b, header, sequence, stats, out);
  EXPECT_TRUE(status) << status.error().message;
  EXPECT_EQ(stats.records, sequence);
  EXPECT_EQ(stats.bytes, out.size());
  const auto told = told_in(out);
  EXPECT_EQ(stats.entries, told.size());
  return told;
}

constexpr Told kTouched{true, true, -1}, kIdle{true, false, -1}, kUnknown{false, false, -1};

TEST(Combine, EitherMaySayTouchedAndUnknownIsWhatNeitherKnows) {
  const auto told = merged(records(512, "aaaiii???"), records(512, "ai?ai?ai?"));
  const std::vector<Told> wanted{kTouched, kTouched, kTouched, kTouched, kIdle,
                                 kIdle,    kTouched, kIdle,    kUnknown};
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(told.at(512 + i), wanted[i]) << i;
  const auto other_way = merged(records(512, "ai?ai?ai?"), records(512, "aaaiii???"));
  EXPECT_EQ(told, other_way);
}

TEST(Combine, PagesThatOnlyOneTellsAreToldAsItDoes) {
  const auto told =
      merged(records(512, "a.i") + records(520, "?"), records(513, "ii") + records(600, "a"));
  EXPECT_EQ(told,
            (std::map<std::uint64_t, Told>{
                {512, kTouched}, {513, kIdle}, {514, kIdle}, {520, kUnknown}, {600, kTouched}}));
}

TEST(Combine, TheNodeIsTheFirstOnesIfItKnows) {
  EXPECT_EQ(merged(records(512, "i"), records(512, "A")).at(512), (Told{true, true, 1}));
  EXPECT_EQ(merged(records(512, "I"), records(512, "?")).at(512), (Told{true, false, 1}));
}

TEST(Combine, NotBeingWrittenIsNoKnowledge) {
  const auto written = records(512, "aii", kOrder4K, true);
  const auto told = merged(written, records(512, "?i?"));
  EXPECT_EQ(told.at(512), kTouched);
  EXPECT_EQ(told.at(513), kIdle);
  EXPECT_EQ(told.at(514), kUnknown);
}

TEST(Combine, AHugePageTakesWhatThePartsTell) {
  const std::string idle(512, 'i');
  std::string one_unknown = idle, one_touched = idle;
  one_unknown[100] = '?';
  one_touched[511] = 'a';
  const auto huge = [](char c) { return records(1024, std::string(1, c), kOrder2M); };
  const std::vector<std::pair<std::string, Told>> unknown_and{
      {idle, kIdle}, {one_unknown, kUnknown}, {one_touched, kTouched}};
  for (const auto& [parts, wanted] : unknown_and) {
    for (const auto& told :
         {merged(huge('?'), records(1024, parts)), merged(records(1024, parts), huge('?'))}) {
      EXPECT_EQ(told.size(), 1u) << "one huge page";
      EXPECT_EQ(told.at(1024), wanted);
    }
  }
  EXPECT_EQ(merged(huge('i'), records(1024, one_unknown)).at(1024), kIdle) << "either knows";
  // What lies beside the huge page is told by itself.
  const auto around =
      merged(huge('a'), records(1023, "?") + records(1024, idle) + records(1536, "i"));
  EXPECT_EQ(around,
            (std::map<std::uint64_t, Told>{{1023, kUnknown}, {1024, kTouched}, {1536, kIdle}}));
}

TEST(Combine, RecordsThatDoNotRiseAreCorrupt) {
  RecordHeader header;
  header.asid = Asid(7);
  std::uint64_t sequence = 0;
  ScanStats stats;
  std::vector<std::byte> out;
  const Status status = merge_records(records(520, "a") + records(512, "a"), records(512, "i"),
                                      header, sequence, stats, out);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::kCorrupt);
}

TEST(Combine, WantsTwoSourcesThatLeaveEachOtherAlone) {
  const auto system = make_real_system();
  const auto why = [&](std::vector<std::string> sources) {
    TrackerOptions options;
    options.sources = std::move(sources);
    const Status works = combine_tracker_factory().probe(*system, options);
    return works ? std::string("works") : works.error().message;
  };
  EXPECT_THAT(why({}), HasSubstr("set tracker.sources"));
  EXPECT_THAT(why({"refs"}), HasSubstr("wants two sources, not 1"));
  EXPECT_THAT(why({"refs", "none"}), HasSubstr("\"none\" can't be combined"));
  EXPECT_THAT(why({"combine", "refs"}), HasSubstr("\"combine\" can't be combined"));
  EXPECT_THAT(why({"refs", "bpf"}), HasSubstr("spoil the other's windows"));
  EXPECT_THAT(why({"written", "written"}), HasSubstr("spoil the other's windows"));
  EXPECT_THAT(why({"hmu", "refs"}), HasSubstr("hmu: no hot list is named"));
}

}  // namespace
}  // namespace thermocline
