// SPDX-License-Identifier: Apache-2.0
// The pure parts of the workload programs: who is hot, Zipf, RESP, the proof that memory is intact.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "bench/workloads/gups.h"
#include "bench/workloads/hot_set.h"
#include "bench/workloads/random.h"
#include "bench/workloads/resp.h"
#include "bench/workloads/zipf.h"

namespace thermocline::workloads {
namespace {

HotSetOptions options(HotLayout layout, unsigned phases = 3) {
  return {.pages = PageCount(4096),
          .unit = PageCount(1),
          .hot_fraction = 0.25,
          .layout = layout,
          .seed = 7,
          .phases = phases};
}

class HotSetLayouts : public testing::TestWithParam<HotLayout> {};

TEST_P(HotSetLayouts, EveryPageIsOnceHotOrCold) {
  const auto sets = choose_hot_sets(options(GetParam()));
  ASSERT_TRUE(sets);
  ASSERT_EQ(sets->size(), 3u);
  for (const HotSet& set : *sets) {
    EXPECT_EQ(set.hot.size(), 1024u);
    std::vector<std::uint32_t> all = set.hot;
    all.insert(all.end(), set.cold.begin(), set.cold.end());
    std::sort(all.begin(), all.end());
    std::vector<std::uint32_t> expected(4096);
    std::iota(expected.begin(), expected.end(), 0u);
    EXPECT_EQ(all, expected);
  }
}

TEST_P(HotSetLayouts, ASetThatMovesSharesNoPageWithTheOneBefore) {
  const auto sets = choose_hot_sets(options(GetParam()));
  ASSERT_TRUE(sets);
  for (std::size_t i = 1; i < sets->size(); ++i) {
    const std::set<std::uint32_t> before((*sets)[i - 1].hot.begin(), (*sets)[i - 1].hot.end());
    for (const std::uint32_t page : (*sets)[i].hot) EXPECT_FALSE(before.contains(page)) << page;
  }
}

TEST_P(HotSetLayouts, FollowsFromTheSeed) {
  const auto a = choose_hot_sets(options(GetParam()));
  const auto b = choose_hot_sets(options(GetParam()));
  HotSetOptions other = options(GetParam());
  other.seed = 8;
  const auto c = choose_hot_sets(other);
  EXPECT_EQ((*a)[1].hot, (*b)[1].hot);
  EXPECT_NE((*a)[1].hot, (*c)[1].hot);
}

INSTANTIATE_TEST_SUITE_P(All, HotSetLayouts,
                         testing::Values(HotLayout::kScattered, HotLayout::kClustered,
                                         HotLayout::kContiguous));

/// Hot pages of each MiB, sorted.
std::vector<int> hot_per_mib(const HotSet& set) {
  std::vector<int> counts(16, 0);
  for (const std::uint32_t page : set.hot) ++counts[page / 256];
  std::sort(counts.begin(), counts.end());
  return counts;
}

TEST(HotSet, LayoutsDifferInHowHotPagesGather) {
  const auto scattered = hot_per_mib((*choose_hot_sets(options(HotLayout::kScattered, 1)))[0]);
  EXPECT_GT(scattered.front(), 40);  // 64 expected, standard deviation 7
  EXPECT_LT(scattered.back(), 90);
  const auto clustered = hot_per_mib((*choose_hot_sets(options(HotLayout::kClustered, 1)))[0]);
  EXPECT_LT(clustered.front(), 20);
  EXPECT_GT(clustered.back(), 110);
  const auto set = (*choose_hot_sets(options(HotLayout::kContiguous, 1)))[0];
  int breaks = 0;
  for (std::size_t i = 1; i < set.hot.size(); ++i) breaks += set.hot[i] != set.hot[i - 1] + 1;
  EXPECT_LE(breaks, 1);  // it may wrap around the end
}

TEST(HotSet, UnitsStayTogether) {
  HotSetOptions o = options(HotLayout::kScattered, 1);
  o.unit = PageCount(512);
  const HotSet set = (*choose_hot_sets(o))[0];
  ASSERT_EQ(set.hot.size(), 1024u);
  for (std::size_t i = 0; i < set.hot.size(); ++i) EXPECT_EQ(set.hot[i] % 512, i % 512);
}

TEST(HotSet, RefusesWhatCantBe) {
  HotSetOptions o = options(HotLayout::kScattered);
  o.hot_fraction = 0.6;
  EXPECT_EQ(choose_hot_sets(o).error().kind, ErrorKind::kUsage);
  o.phases = 1;
  EXPECT_TRUE(choose_hot_sets(o));
  for (const double fraction : {0.0, 1.0, -1.0, 0.00001, std::nan("")}) {
    o.hot_fraction = fraction;
    EXPECT_FALSE(choose_hot_sets(o)) << fraction;
  }
  o = options(HotLayout::kScattered);
  o.unit = PageCount(1000);
  EXPECT_FALSE(choose_hot_sets(o));
}

TEST(Gups, CountsEveryUpdateAndSeesDamage) {
  std::vector<std::uint64_t> words(64 * kWordsPerPage);
  GupsMemory memory(words, 3);
  for (std::uint32_t page = 0; page < 64; ++page) memory.fill_page(page);
  EXPECT_TRUE(memory.verify(0));
  const auto sets = choose_hot_sets({.pages = PageCount(64), .hot_fraction = 0.25, .seed = 3});
  Random random(3);
  for (unsigned thread = 0; thread < 3; ++thread)
    memory.update((*sets)[0], 0.9, 10000, thread, 3, random);
  EXPECT_TRUE(memory.verify(30000));
  EXPECT_FALSE(memory.verify(29999));

  words[700] ^= 1;  // one flipped bit
  EXPECT_FALSE(memory.verify(30000));
  words[700] ^= 1;
  std::swap_ranges(words.begin(), words.begin() + kWordsPerPage,
                   words.begin() + kWordsPerPage);  // two pages exchanged
  EXPECT_FALSE(memory.verify(30000));
  std::swap_ranges(words.begin(), words.begin() + kWordsPerPage, words.begin() + kWordsPerPage);
  const std::vector<std::uint64_t> old(words.begin(), words.begin() + 4 * kWordsPerPage);
  memory.update((*sets)[0], 0.9, 10000, 0, 1, random);
  std::copy(old.begin(), old.end(), words.begin());  // pages fell back to an earlier content
  EXPECT_FALSE(memory.verify(40000));
}

TEST(Gups, HotPagesGetTheirShare) {
  std::vector<std::uint64_t> words(64 * kWordsPerPage, 0);
  GupsMemory memory(words, 3);
  const auto sets = choose_hot_sets({.pages = PageCount(64), .hot_fraction = 0.25, .seed = 3});
  Random random(5);
  memory.update((*sets)[0], 0.9, 100000, 0, 1, random);
  std::size_t hot = 0;
  std::size_t all = 0;
  for (const std::uint32_t page : (*sets)[0].hot)
    for (std::uint32_t w = 0; w < kWordsPerPage; ++w) hot += words[page * kWordsPerPage + w] != 0;
  for (const std::uint64_t word : words) all += word != 0;
  EXPECT_GT(hot, 8000u);        // nearly all of the 16 * 512 hot words
  EXPECT_GT(all - hot, 6000u);  // 10,000 operations on 48 * 512 cold words: about 8,200 touched
  EXPECT_LT(all - hot, 10001u);
}

TEST(Zipf, DrawsEveryRankAsOftenAsItShould) {
  for (const double theta : {0.5, 0.99, 1.0, 1.5}) {
    const auto zipf = Zipf::make(1000, theta);
    ASSERT_TRUE(zipf);
    Random random(11);
    constexpr int kDraws = 400000;
    std::vector<int> counts(1000, 0);
    for (int i = 0; i < kDraws; ++i) ++counts[zipf->draw(random)];
    // Chi-square over the ranks: mean 999, standard deviation 45.
    double chi2 = 0;
    double sum = 0;
    for (std::uint64_t k = 0; k < 1000; ++k) {
      const double expected = kDraws * zipf->probability(k);
      sum += zipf->probability(k);
      chi2 += (counts[k] - expected) * (counts[k] - expected) / expected;
    }
    EXPECT_NEAR(sum, 1.0, 1e-9);
    EXPECT_LT(chi2, 999 + 5 * 45) << theta;
    EXPECT_GT(chi2, 999 - 5 * 45) << theta;
  }
}

TEST(Zipf, EdgesAndRefusals) {
  Random random(1);
  const auto one = Zipf::make(1, 0.99);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(one->draw(random), 0u);
  const auto many = Zipf::make(std::uint64_t{1} << 40, 0.01);
  for (int i = 0; i < 10000; ++i) EXPECT_LT(many->draw(random), std::uint64_t{1} << 40);
  EXPECT_FALSE(Zipf::make(0, 1));
  EXPECT_FALSE(Zipf::make(10, 0));
  EXPECT_FALSE(Zipf::make(10, std::nan("")));
}

TEST(Resp, WritesCommands) {
  std::string out;
  append_command(out, std::array<std::string_view, 2>{"GET", "key:1"});
  EXPECT_EQ(out, "*2\r\n$3\r\nGET\r\n$5\r\nkey:1\r\n");
}

TEST(Resp, ReadsRepliesHoweverTheyAreCut) {
  const std::string stream = "+OK\r\n$5\r\nab\r\nc\r\n-ERR no\r\n$-1\r\n:42\r\n$0\r\n\r\n";
  using Kind = Reply::Kind;
  const std::vector<std::pair<Kind, std::string>> expected{
      {Kind::kSimple, "OK"}, {Kind::kBulk, "ab\r\nc"}, {Kind::kError, "ERR no"},
      {Kind::kNull, ""},     {Kind::kInteger, "42"},   {Kind::kBulk, ""}};
  for (std::size_t piece = 1; piece <= stream.size(); ++piece) {
    ReplyParser parser;
    std::vector<std::pair<Kind, std::string>> got;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      parser.feed(std::string_view(stream).substr(at, piece));
      for (;;) {
        const auto reply = parser.next();
        ASSERT_TRUE(reply) << reply.error().message;
        if (!*reply) break;
        got.emplace_back((*reply)->kind, (*reply)->text);
      }
    }
    EXPECT_EQ(got, expected) << "in pieces of " << piece;
  }
}

TEST(Resp, RefusesWhatIsNotResp) {
  for (const char* bad :
       {"HTTP/1.1 400\r\n", "$x\r\n", "$-2\r\n", "$5 \r\nabcde\r\n", "$99999999999999999999\r\n",
        "$2\r\nabcd\r\n", "$1048577\r\n", "\r\n", "*1\r\n"}) {
    ReplyParser parser(1 << 20);
    parser.feed(bad);
    EXPECT_FALSE(parser.next()) << bad;
    parser.feed("+OK\r\n");
    EXPECT_FALSE(parser.next()) << "the error stays";
  }
  ReplyParser endless;
  endless.feed("+" + std::string(5000, 'a'));
  EXPECT_FALSE(endless.next());
}

TEST(Resp, RandomBytesNeverCrash) {
  Random random(99);
  constexpr std::string_view kAlphabet = "+-:$0123456789\r\nab";
  for (int round = 0; round < 20000; ++round) {
    ReplyParser parser(64);
    for (int piece = 0; piece < 4; ++piece) {
      std::string bytes;
      for (std::uint64_t n = random.below(12); n > 0; --n)
        bytes += kAlphabet[random.below(kAlphabet.size())];
      parser.feed(bytes);
      for (;;) {
        const auto reply = parser.next();
        if (!reply || !*reply) break;
        ASSERT_LE((*reply)->text.size(), 64u);
      }
    }
  }
}

}  // namespace
}  // namespace thermocline::workloads
