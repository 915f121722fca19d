// SPDX-License-Identifier: Apache-2.0
// What memcached and the sqlite3 shell answer, in pieces, cut short and hostile.
#include <gtest/gtest.h>

#include "bench/workloads/memcached_text.h"
#include "bench/workloads/random.h"
#include "bench/workloads/sqlite_shell.h"

namespace thermocline::workloads {
namespace {

TEST(Memcached, WritesRequests) {
  std::string out;
  append_memcached_get(out, "k1");
  append_memcached_set(out, "k2", "a\r\nb");
  EXPECT_EQ(out, "get k1\r\nset k2 0 0 4\r\na\r\nb\r\n");
}

TEST(Memcached, ReadsRepliesInPiecesOfAnySize) {
  using Kind = MemcachedReply::Kind;
  const std::string stream =
      "STORED\r\nVALUE k 0 5\r\na\r\nEN\r\nEND\r\nEND\r\nNOT_STORED\r\nSERVER_ERROR out of "
      "memory\r\n"
      "VALUE k2 0 0\r\n\r\nEND\r\n";
  const std::vector<std::pair<Kind, std::string>> expected{
      {Kind::kStored, ""},
      {Kind::kValue, "a\r\nEN"},
      {Kind::kMissing, ""},
      {Kind::kRefused, "NOT_STORED"},
      {Kind::kRefused, "SERVER_ERROR out of memory"},
      {Kind::kValue, ""}};
  for (std::size_t piece = 1; piece <= stream.size(); ++piece) {
    MemcachedParser parser;
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

TEST(Memcached, RefusesWhatIsNoReply) {
  for (const char* bad :
       {"HTTP/1.1 400\r\n", "\r\n", "stored\r\n", "VALUE k 0\r\n", "VALUE  0 1\r\n",
        "VALUE k 0 -1\r\n", "VALUE k 0 +1\r\n", "VALUE k 0 1x\r\n", "VALUE k 0 \r\n",
        "VALUE k 0 99999999999999999999\r\n", "VALUE k 0 1048577\r\n", "VALUE k 0 2\r\nabcd",
        "VALUE k 0 2\r\nab\r\nVALUE ", "VALUE k 0 1 7\r\na\r\nEND\r\n"}) {
    MemcachedParser parser(1 << 20);
    parser.feed(bad);
    EXPECT_FALSE(parser.next()) << bad;
    parser.feed("STORED\r\n");
    EXPECT_FALSE(parser.next()) << "the error stays";
  }
  MemcachedParser endless;
  endless.feed(std::string(5000, 'a'));
  EXPECT_FALSE(endless.next());
}

TEST(Memcached, RandomBytesNeverCrash) {
  Random random(98);
  constexpr std::string_view kWords[] = {"VALUE ", "END", "\r\n", "STORED", " ",
                                         "0",      "\r",  "7",    "k",      "SERVER_ERROR "};
  for (int round = 0; round < 20000; ++round) {
    MemcachedParser parser(64);
    for (int piece = 0; piece < 4; ++piece) {
      std::string bytes;
      for (std::uint64_t n = random.below(8); n > 0; --n) bytes += kWords[random.below(10)];
      parser.feed(bytes);
      for (;;) {
        const auto reply = parser.next();
        if (!reply || !*reply) break;
        ASSERT_LE((*reply)->text.size(), 1024u);
      }
    }
  }
}

TEST(SqliteShell, AsksForAMarkBehindEachStatement) {
  std::string out;
  append_statement(out, "SELECT 1;");
  EXPECT_EQ(out, "SELECT 1;\n.print =\n");
}

TEST(SqliteShell, ReadsAnswersInPiecesOfAnySize) {
  const std::string stream = "1|0|ab\n=\n=\n2|3|=\n3|3|x=\n=\n";
  const std::vector<std::string> expected{"1|0|ab\n", "", "2|3|=\n3|3|x=\n"};
  for (std::size_t piece = 1; piece <= stream.size(); ++piece) {
    ShellAnswers answers;
    std::vector<std::string> got;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      answers.feed(std::string_view(stream).substr(at, piece));
      for (;;) {
        const auto answer = answers.next();
        ASSERT_TRUE(answer) << answer.error().message;
        if (!*answer) break;
        got.emplace_back(**answer);
      }
    }
    EXPECT_EQ(got, expected) << "in pieces of " << piece;
  }
}

TEST(SqliteShell, RefusesAnswersWithoutEnd) {
  ShellAnswers line(100);
  line.feed(std::string(101, 'a'));
  EXPECT_FALSE(line.next());
  ShellAnswers lines(100);
  for (int i = 0; i < 60; ++i) lines.feed("a\n");
  EXPECT_FALSE(lines.next());
}

TEST(SqliteShell, ReadsOneRow) {
  const auto row = parse_shell_row("17|3|00ff\n");
  ASSERT_TRUE(row);
  EXPECT_EQ(row->key, 17u);
  EXPECT_EQ(row->version, 3u);
  EXPECT_EQ(row->text, "00ff");
  for (const char* bad : {"", "\n", "17|3\n", "17|3|a|b\n", "|3|a\n", "17|-3|a\n", "x|3|a\n",
                          "17|3|a\n18|0|b\n", "17|3|a", "18446744073709551616|3|a\n"})
    EXPECT_FALSE(parse_shell_row(bad)) << bad;
}

}  // namespace
}  // namespace thermocline::workloads
