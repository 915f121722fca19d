// SPDX-License-Identifier: Apache-2.0
// The store of the benchmark suite. All records are made up.
#include "bench/suite/cell_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

namespace thermocline::suite {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

CellRecord made_up(std::uint64_t seed = 1) {
  CellRecord r;
  r.key = {"gups-hot", "1:2", "numab@tuned", "cxl-asic", "reference", "6.12", seed};
  r.policy = "tuned";
  r.done = true;
  r.ops_per_s = 1.25e6;
  r.fast_hit_ratio = 0.75;
  r.overhead_cpu_share = -0.01;
  r.promoted_bytes = Bytes(1 << 20);
  r.operations = 12'000'000;
  r.verified = true;
  r.version = "v0.1.0-7-gabc";
  return r;
}

CellRecord made_up_failure() {
  CellRecord r = made_up();
  r.done = false;
  r.ops_per_s.reset();
  r.error = "the guest died";
  r.log = "cells/x.log";
  return r;
}

std::string line_of(const CellRecord& record) {
  return to_json(record).dump() + "\n";
}

std::string why_not(const std::string& line) {
  const auto record = parse_line(line);
  return record ? "accepted" : record.error().message;
}

std::string with(const std::string& key, nlohmann::ordered_json value) {
  auto line = to_json(made_up());
  line[key] = std::move(value);
  return line.dump();
}

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = std::filesystem::temp_directory_path() / "thermocline-store-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = folder_ / "core.jsonl";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& text) { std::ofstream(path_) << text; }
  [[nodiscard]] std::string text() const {
    std::ostringstream out;
    out << std::ifstream(path_).rdbuf();
    return out.str();
  }
  std::filesystem::path folder_;
  std::string path_;
};

TEST(CellRecord, ComesBackAsItWasWritten) {
  for (const CellRecord& record : {made_up(), made_up_failure()}) {
    const auto again = parse_line(to_json(record).dump());
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(to_json(*again), to_json(record));
    EXPECT_EQ(again->key, record.key);
  }
}

TEST(CellRecord, HasEveryKeyOfTheSchemaAlways) {
  std::vector<std::string> keys;
  const auto json = to_json(CellRecord{});
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_THAT(
      keys, testing::ElementsAre("workload", "ratio", "system", "timing", "mode", "kernel", "seed",
                                 "setting", "policy", "status", "error", "log", "ops_per_s",
                                 "steady_ops_per_s", "ns_per_access", "p50_ns", "p99_ns",
                                 "fast_hit_ratio", "steady_fast_hit_ratio", "promoted_bytes",
                                 "demoted_bytes", "ping_pong_share", "tracker_cpu_share",
                                 "policy_cpu_share", "mover_cpu_share", "overhead_cpu_share",
                                 "reconverge_s", "fast_bytes", "fast_share", "footprint_bytes",
                                 "operations", "seconds", "verified", "wall_s", "version"));
}

TEST(CellRecord, MissingFiguresAreNull) {
  const auto record = parse_line(
      R"({"workload":"w","ratio":"-","system":"all-fast","timing":"t","mode":"parallel",)"
      R"("kernel":"6.1","seed":0,"status":"done","ops_per_s":3})");
  ASSERT_TRUE(record) << record.error().message;
  EXPECT_EQ(record->ops_per_s, 3);
  EXPECT_FALSE(record->p99_ns);
  EXPECT_FALSE(record->policy);
  EXPECT_EQ(record->setting, "");
}

TEST(CellRecord, WhatIsNoneIsToldByKey) {
  EXPECT_EQ(why_not(to_json(made_up()).dump()), "accepted");
  EXPECT_THAT(why_not("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(why_not(""), HasSubstr("not a cell"));
  EXPECT_THAT(why_not("{}"), HasSubstr("'workload' not found"));
  EXPECT_THAT(why_not(with("colour", 1)), HasSubstr("\"colour\" is no key"));
  EXPECT_THAT(why_not(with("workload", "two words")), HasSubstr("\"workload\" wants a word"));
  EXPECT_THAT(why_not(with("workload", "<b>")), HasSubstr("\"workload\" wants a word"));
  EXPECT_EQ(why_not(with("timing", "models/my card.toml")), "accepted");
  EXPECT_THAT(why_not(with("timing", "a\x1b[2J")), HasSubstr("\"timing\" wants"));
  EXPECT_THAT(why_not(with("setting", "a b")), HasSubstr("\"setting\" wants a word"));
  EXPECT_THAT(why_not(with("mode", "fast")), HasSubstr("\"mode\" wants"));
  EXPECT_THAT(why_not(with("seed", -1)), HasSubstr("no whole number"));
  EXPECT_THAT(why_not(with("seed", 1.5)), HasSubstr("no whole number"));
  EXPECT_THAT(why_not(with("status", "maybe")), HasSubstr("\"status\""));
  EXPECT_THAT(why_not(with("ops_per_s", 0)), HasSubstr("\"ops_per_s\" wants a number above 0"));
  EXPECT_THAT(why_not(with("ops_per_s", nullptr)), HasSubstr("\"ops_per_s\" wants"));
  EXPECT_THAT(why_not(with("ops_per_s", true)), HasSubstr("\"ops_per_s\" is no number"));
  EXPECT_THAT(why_not(with("p99_ns", -1)), HasSubstr("\"p99_ns\" wants a finite number of 0"));
  EXPECT_THAT(why_not(with("fast_hit_ratio", 1.01)), HasSubstr("\"fast_hit_ratio\" wants"));
  EXPECT_THAT(why_not(with("status", "failed")), HasSubstr("\"error\" wants a sentence"));
}

TEST(CellRecord, ALineNamesTheCell) {
  EXPECT_EQ(to_text(made_up(3).key),
            "gups-hot 1:2 numab@tuned, seed 3 (cxl-asic, reference, 6.12)");
}

TEST(Cells, ALaterLineReplacesAnEarlierOne) {
  CellRecord better = made_up(1);
  better.ops_per_s = 2e6;
  const auto cells = parse_cells(line_of(made_up(1)) + line_of(made_up(2)) + line_of(better), "f");
  ASSERT_TRUE(cells) << cells.error().message;
  ASSERT_THAT(cells->records, SizeIs(2));
  EXPECT_EQ(cells->records[0].ops_per_s, 2e6);
  EXPECT_EQ(cells->records[1].key.seed, 2u);
}

TEST(Cells, AFailureNeverHidesWhatIsDone) {
  const auto cells =
      parse_cells(line_of(made_up_failure()) + line_of(made_up(made_up_failure().key.seed)) +
                      line_of(made_up_failure()),
                  "f");
  ASSERT_TRUE(cells) << cells.error().message;
  ASSERT_THAT(cells->records, SizeIs(1));
  EXPECT_TRUE(cells->records[0].done);
}

TEST(Cells, OnlyATornLastLineIsForgiven) {
  const std::string whole = line_of(made_up(1));
  const std::string torn = line_of(made_up(2)).substr(0, 20);
  const auto cells = parse_cells(whole + torn, "f");
  ASSERT_TRUE(cells) << cells.error().message;
  EXPECT_THAT(cells->records, SizeIs(1));
  EXPECT_EQ(cells->whole_bytes, whole.size());
  ASSERT_THAT(cells->notes, SizeIs(1));
  EXPECT_THAT(cells->notes[0], HasSubstr("f:2: the last line has no end"));

  const auto bad = parse_cells(whole + torn + "\n" + whole, "f");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().kind, ErrorKind::kCorrupt);
  EXPECT_THAT(bad.error().message, HasSubstr("f:2: not a cell"));
  EXPECT_FALSE(parse_cells("\n", "f"));
}

TEST_F(StoreTest, GoesOnWhereTheLastRunStopped) {
  {
    auto store = Store::open(path_);
    ASSERT_TRUE(store) << store.error().message;
    EXPECT_FALSE(store->done(made_up(1).key));
    ASSERT_TRUE(store->append(made_up(1)));
    EXPECT_TRUE(store->done(made_up(1).key));
    CellRecord failed = made_up_failure();
    failed.key.seed = 2;
    ASSERT_TRUE(store->append(failed));
    EXPECT_FALSE(store->done(failed.key)) << "a failed cell is tried again";
  }
  std::ofstream(path_, std::ios::app) << R"({"workload":"gu)";
  auto store = Store::open(path_);
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_THAT(store->notes(), SizeIs(1));
  EXPECT_THAT(store->records(), SizeIs(2));
  EXPECT_TRUE(store->done(made_up(1).key));
  ASSERT_TRUE(store->append(made_up(2)));
  EXPECT_TRUE(store->done(made_up(2).key));
  CellRecord failed = made_up_failure();
  failed.key.seed = 2;
  EXPECT_EQ(text(), line_of(made_up(1)) + line_of(failed) + line_of(made_up(2)));
  const auto cells = read_cells(path_);
  ASSERT_TRUE(cells) << cells.error().message;
  EXPECT_THAT(cells->records, SizeIs(2));
}

TEST_F(StoreTest, OneProcessAtATime) {
  auto first = Store::open(path_);
  ASSERT_TRUE(first);
  const auto second = Store::open(path_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(second.error().message, HasSubstr("another run is writing its results to " + path_));
  EXPECT_TRUE(read_cells(path_)) << "looking is allowed";
}

TEST_F(StoreTest, RefusesWhatItCouldNotReadAgain) {
  auto store = Store::open(path_);
  ASSERT_TRUE(store);
  CellRecord record = made_up();
  record.ns_per_access = std::numeric_limits<double>::quiet_NaN();
  const Status status = store->append(record);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("\"ns_per_access\" wants"));
  record = made_up_failure();
  record.error = "bytes \xff\x1b[2J of a guest";
  EXPECT_TRUE(store->append(record));
  EXPECT_TRUE(read_cells(path_));
  EXPECT_THAT(text(), HasSubstr("bytes ??[2J of a guest"));
}

TEST_F(StoreTest, SaysWhatCannotBeWritten) {
  for (const std::string& path : {folder_.string(), path_ + "/below", std::string("/dev/null")}) {
    const auto store = Store::open(path);
    ASSERT_FALSE(store) << path;
    EXPECT_EQ(store.error().kind, ErrorKind::kUsage);
    EXPECT_THAT(store.error().message, HasSubstr("can't write results to " + path));
  }
  write("not a record\n");
  const auto store = Store::open(path_);
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().kind, ErrorKind::kCorrupt);
  EXPECT_EQ(text(), "not a record\n") << "what is no store is left as it is";
  EXPECT_EQ(read_cells(path_ + ".none").error().kind, ErrorKind::kNotFound);
}

}  // namespace
}  // namespace thermocline::suite
