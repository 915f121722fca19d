// SPDX-License-Identifier: Apache-2.0
#include "control/file_sink.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "cli/oracle.h"
#include "cli/report_model.h"
#include "tracking/record.h"

namespace thermocline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class FileSinkTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "tc_sink_" + std::to_string(::getpid());
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  Result<std::unique_ptr<FileSink>> open(WholeEntries kind = whole_lines,
                                         Bytes max_size = Bytes(1u << 20)) {
    return FileSink::open(path_, max_size, kind,
                          [this](const std::string& text) { log_.push_back(text); });
  }
  static void append(FileSink& sink, std::string_view text) {
    sink.append(std::as_bytes(std::span(text)));
  }
  std::string content() const {
    std::ostringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }
  std::string path_;
  std::vector<std::string> log_;
};

std::string line(double time_s, int epoch) {
  return fmt::format(R"({{"epoch":{},"time_s":{},"epoch_s":0.5,"targets":[]}})", epoch, time_s) +
         "\n";
}

TEST_F(FileSinkTest, WhatAnEarlierRunWroteStays) {
  append(**open(), line(1, 1));
  append(**open(), line(5, 1));
  EXPECT_EQ(content(), line(1, 1) + line(5, 1));
  EXPECT_THAT(log_, IsEmpty());
}

TEST_F(FileSinkTest, ALineThatAKilledRunLeftIsCutOff) {
  std::ofstream(path_) << line(1, 1) << line(2, 2).substr(0, 20);
  append(**open(), line(5, 1));
  EXPECT_EQ(content(), line(1, 1) + line(5, 1));
  EXPECT_THAT(log_, ElementsAre(HasSubstr("cut off 20 bytes")));
  const auto histories = report::parse_history(content(), "h");
  ASSERT_TRUE(histories) << histories.error().message;
}

std::string record_of(std::uint64_t epoch) {
  std::vector<std::byte> bytes;
  RecordWriter writer(bytes);
  const EntryObservation hot{NodeId(0), true, true, true, false};
  writer.append({.asid = Asid(7),
                 .epoch = Epoch(epoch),
                 .window = std::chrono::milliseconds(5),
                 .cleared = true},
                0, Vpn(512), kOrder4K, std::vector(8, hot));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST_F(FileSinkTest, RecordsOfTwoRunsAreReadAsOne) {
  std::ofstream(path_) << record_of(1) << record_of(2).substr(0, 48);
  append(**open(whole_records), record_of(1));
  EXPECT_EQ(content(), record_of(1) + record_of(1));
  const std::string text = content();
  const auto bytes = std::as_bytes(std::span(text));
  MemoryRecords records({bytes.begin(), bytes.end()});
  const auto answer = oracle::best_static_placement(records, {});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->windows.size(), 2u);
}

TEST_F(FileSinkTest, AFileOfAnotherKindIsNotContinued) {
  for (const char* text : {"# my notes\n", "{\n  \"key\": 1\n}", "{", "TC"}) {
    std::ofstream(path_) << text;
    for (const WholeEntries kind : {whole_lines, whole_records}) {
      const auto sink = open(kind);
      ASSERT_FALSE(sink);
      EXPECT_EQ(sink.error().kind, ErrorKind::kUsage);
      EXPECT_THAT(sink.error().message, HasSubstr("name another file"));
    }
    EXPECT_EQ(content(), text);
  }
  std::filesystem::remove(path_);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THAT(open().error().message, HasSubstr("not a regular file"));
}

TEST_F(FileSinkTest, StopsAtItsLargestSizeAndSaysSoOnce) {
  const auto sink = open(whole_lines, Bytes(100));
  ASSERT_TRUE(sink);
  const std::string text(60, 'x');
  for (int i = 0; i < 3; ++i) append(**sink, text);
  EXPECT_EQ(content(), text);
  EXPECT_EQ((*sink)->dropped_bytes(), 120u);
  EXPECT_THAT(log_, ElementsAre(HasSubstr("largest size of 100 B (max_size)")));
  (*sink)->set_max_size(Bytes(200));
  append(**sink, text);
  EXPECT_EQ(content(), text + text);
  // Emptied by someone else: there is room again.
  ASSERT_EQ(::truncate(path_.c_str(), 0), 0);
  append(**sink, text);
  EXPECT_EQ(content(), text);
}

TEST_F(FileSinkTest, AWriteThatStopsHalfWayLeavesNothing) {
  // In a child: the limit on file sizes would hold for the other tests too.
  EXPECT_EXIT(
      {
        ::signal(SIGXFSZ, SIG_IGN);
        const auto sink = open();
        append(**sink, line(1, 1));
        rlimit limit{};
        limit.rlim_cur = limit.rlim_max = line(1, 1).size() + 10;
        ::setrlimit(RLIMIT_FSIZE, &limit);
        append(**sink, line(2, 2));
        append(**sink, line(3, 3));
        const bool good = content() == line(1, 1) && log_.size() == 1 &&
                          log_[0].find("File too large") != std::string::npos &&
                          (*sink)->dropped_bytes() == 2 * line(2, 2).size();
        std::_Exit(good ? 7 : 0);
      },
      testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace thermocline
