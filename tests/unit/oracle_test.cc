// SPDX-License-Identifier: Apache-2.0
#include "cli/oracle.h"

#include <gtest/gtest.h>

#include "tracking/record.h"

namespace thermocline::oracle {
namespace {

/// Builds the records of one scan a call: pages from 0x1000 on, 'A' accessed on the fast node, 'a'
/// accessed on the slow one, 'F' and 's' not accessed, '.' not present.
class Recording {
 public:
  void scan(std::uint64_t epoch, Nanoseconds window, std::string_view pages, bool cleared = true) {
    std::vector<EntryObservation> entries;
    for (const char c : pages) {
      EntryObservation e;
      e.present = c != '.';
      e.observable = e.present;
      e.accessed = c == 'A' || c == 'a';
      if (e.present) e.node = NodeId(c == 'A' || c == 'F' ? 0 : 1);
      entries.push_back(e);
    }
    const RecordHeader header{.asid = Asid(7),
                              .epoch = Epoch(epoch),
                              .scan_time = time,
                              .window = window,
                              .cleared = cleared};
    // Two records a scan, so that grouping them is tested too.
    const std::size_t half = entries.size() / 2;
    RecordWriter writer(bytes);
    writer.append(header, sequence_++, Vpn(0x1000), kOrder4K, std::span(entries).first(half));
    writer.append(header, sequence_++, Vpn(0x1000 + half), kOrder4K,
                  std::span(entries).subspan(half));
  }
  std::vector<std::byte> bytes;
  Nanoseconds time{1000};

 private:
  std::uint64_t sequence_ = 0;
};

constexpr Nanoseconds kWindow{5'000'000};

Result<Answer> best_of(std::vector<std::byte> bytes, const Options& options) {
  MemoryRecords records(std::move(bytes));
  return best_static_placement(records, options);
}

TEST(Oracle, TheBestPlacementHoldsThePagesWithTheMostWindows) {
  Recording r;
  for (int i = 0; i < 8; ++i) {
    std::string pages = "Fs.s";
    if (i < 1) pages[0] = 'A';  // 1 window, on the fast node
    if (i < 5) pages[1] = 'a';  // 5
    pages[3] = 'a';             // 8
    r.scan(1, kWindow, pages);
  }
  const auto one = best_of(r.bytes, {.fast_pages = PageCount(1)});
  ASSERT_TRUE(one) << one.error().message;
  EXPECT_EQ(one->windows.size(), 8u);
  EXPECT_EQ(one->pages, PageCount(3));
  EXPECT_EQ(one->accessed_page_windows, PageCount(14));
  EXPECT_DOUBLE_EQ(one->best_share(), 8.0 / 14);
  EXPECT_DOUBLE_EQ(one->recorded_share(), 1.0 / 14);
  EXPECT_DOUBLE_EQ(one->mean_set_share(), 14.0 / 24);
  EXPECT_EQ(one->median_window(), kWindow);
  EXPECT_DOUBLE_EQ(best_of(r.bytes, {.fast_pages = PageCount(2)})->best_share(), 13.0 / 14);
  EXPECT_DOUBLE_EQ(best_of(r.bytes, {.fast_pages = PageCount(9)})->best_share(), 1.0);
  EXPECT_DOUBLE_EQ(best_of(r.bytes, {.fast_pages = PageCount(0)})->best_share(), 0.0);
  // By default it may hold as much as the fast node did.
  EXPECT_EQ(best_of(r.bytes, {})->fast_pages, PageCount(1));
}

TEST(Oracle, PausesAndScansThatDoNotClearAreNoEvidence) {
  Recording r;
  r.scan(1, Nanoseconds(0), "AAAA");            // the first has no window
  r.scan(1, Nanoseconds(400'000'000), "AAAA");  // the pause between epochs
  r.scan(1, kWindow, "FFFF", false);
  for (int i = 0; i < 4; ++i) r.scan(2, kWindow, "Asss");
  const auto answer = best_of(r.bytes, {});
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->windows.size(), 4u);
  EXPECT_EQ(answer->windows_left_out, 3u);
  EXPECT_EQ(answer->accessed_page_windows, PageCount(4));
  EXPECT_EQ(best_of(r.bytes, {.longest_window = 0})->windows.size(), 5u);
}

TEST(Oracle, HugePagesCountAsTheirBasePages) {
  std::vector<std::byte> bytes;
  RecordWriter writer(bytes);
  const EntryObservation hot{NodeId(1), true, true, true, false};
  const EntryObservation cold{NodeId(0), true, true, false, false};
  const RecordHeader header{.asid = Asid(7), .epoch = Epoch(1), .window = kWindow, .cleared = true};
  writer.append(header, 0, Vpn(512), kOrder2M, std::vector{hot, cold});
  const auto answer = best_of(bytes, {.fast_pages = PageCount(256)});
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->pages, PageCount(1024));
  EXPECT_EQ(answer->accessed_page_windows, PageCount(512));
  EXPECT_DOUBLE_EQ(answer->best_share(), 0.5);
}

TEST(Oracle, APageThatIsSeenInSeveralSizesHasOneCount) {
  std::vector<std::byte> bytes;
  RecordWriter writer(bytes);
  const EntryObservation hot{NodeId(1), true, true, true, false};
  RecordHeader header{.asid = Asid(7), .epoch = Epoch(1), .window = kWindow, .cleared = true};
  const std::uint64_t giant = std::uint64_t{1} << 18;
  writer.append(header, 0, Vpn(giant), kOrder1G, std::vector{hot});
  header.epoch = Epoch(2);
  writer.append(header, 1, Vpn(giant + 512), kOrder2M, std::vector{hot, hot});
  header.epoch = Epoch(3);
  writer.append(header, 2, Vpn(giant + 512 + 9), kOrder4K, std::vector{hot, hot});
  const auto best = [&](std::uint64_t pages) {
    const auto answer = best_of(bytes, {.fast_pages = PageCount(pages)});
    return answer ? answer->best_page_windows.get() : 0;
  };
  EXPECT_EQ(best(1), 3u);
  EXPECT_EQ(best(3), 3u + 3 + 2);
  EXPECT_EQ(best(1024), 2 * 3u + 1022 * 2);
  EXPECT_EQ(best(1025), 2 * 3u + 1022 * 2 + 1);
  EXPECT_EQ(best(giant * 9), giant + 1024 + 2);
}

TEST(Oracle, FewBytesThatClaimTerabytesAreCountedOrRefused) {
  std::vector<std::byte> bytes;
  RecordWriter writer(bytes);
  const EntryObservation hot{NodeId(1), true, true, true, false};
  const RecordHeader header{.asid = Asid(7), .epoch = Epoch(1), .window = kWindow, .cleared = true};
  const std::vector<EntryObservation> all(32'768, hot);
  writer.append(header, 0, Vpn(0), kOrder1G, all);
  ASSERT_EQ(bytes.size(), 88u);
  const auto answer = best_of(bytes, {.fast_pages = PageCount(5)});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->pages.get(), std::uint64_t{32'768} << 18);
  EXPECT_EQ(answer->best_page_windows, PageCount(5));
  const auto refused = best_of(bytes, {.largest_memory = Bytes(100'000)});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("98 KiB"), std::string::npos) << refused.error().message;
}

TEST(Oracle, RefusesWhatItCantJudge) {
  EXPECT_FALSE(best_of({}, {}));
  Recording r;
  r.scan(1, kWindow, "Aass");
  std::vector<std::byte> cut = r.bytes;
  cut.resize(cut.size() - 8);  // the daemon was killed while it wrote
  EXPECT_TRUE(best_of(cut, {}));
  r.bytes[0] = std::byte{0};
  const auto answer = best_of(r.bytes, {});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().kind, ErrorKind::kCorrupt);
}

TEST(Oracle, APlacementLearnedBeforeIsJudgedOnTheLastPart) {
  Recording r;
  // For five windows the first page is the hot one, then, for three, the second.
  for (int i = 0; i < 8; ++i) {
    r.time = Nanoseconds(1000 * (i + 1));
    r.scan(1, kWindow, i < 5 ? "aFss" : "sAsa");
  }
  const auto answer =
      best_of(r.bytes, {.fast_pages = PageCount(1), .judge_last = Nanoseconds(3000)});
  ASSERT_TRUE(answer) << answer.error().message;
  ASSERT_TRUE(answer->learned);
  EXPECT_EQ(answer->learned->windows, 3u);
  EXPECT_EQ(answer->learned->accessed_page_windows, PageCount(6));
  EXPECT_DOUBLE_EQ(answer->learned->best_share(), 0.5);
  EXPECT_DOUBLE_EQ(answer->learned->learned_share(), 0.0);
  // With room for two: the learned one, and a third of the three that it knows nothing of.
  const auto two = best_of(r.bytes, {.fast_pages = PageCount(2), .judge_last = Nanoseconds(3000)});
  ASSERT_TRUE(two && two->learned);
  EXPECT_DOUBLE_EQ(two->learned->best_share(), 1.0);
  EXPECT_DOUBLE_EQ(two->learned->learned_share(), 0.5);

  for (const Nanoseconds last : {Nanoseconds(8000), Nanoseconds(1)}) {
    const auto all = best_of(r.bytes, {.judge_last = last});
    if (last.count() == 1) {
      EXPECT_TRUE(all) << "the last window alone";
    } else {
      ASSERT_FALSE(all);
      EXPECT_EQ(all.error().kind, ErrorKind::kUsage);
    }
  }
}

}  // namespace
}  // namespace thermocline::oracle
