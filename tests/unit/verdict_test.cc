// SPDX-License-Identifier: Apache-2.0
#include "bench/demo/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thermocline::demo {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json placement(std::uint64_t fast, std::uint64_t slow) {
  return {{"pages_on_node", {{"0", fast}, {"1", slow}}},
          {"unknown_pages", 0},
          {"fast_share", static_cast<double>(fast) / static_cast<double>(fast + slow)}};
}

json hotset(std::uint64_t hot_on_fast) {
  const json phase{{"operations_per_s", 1e6},
                   {"hot_at_end", placement(hot_on_fast, 850 - hot_on_fast)},
                   {"reached_90_s", 1.0}};
  return {{"fast_node", 0},
          {"hot_pages", 850},
          {"verified", true},
          {"start", {{"hot", placement(0, 850)}, {"cold", placement(1000, 1150)}}},
          {"phases", {phase, phase}}};
}

json status(std::uint64_t accessed, std::uint64_t fast) {
  return {{"daemon", {{"cpu_share", 0.021}}},
          {"engine", {{"last_epoch_ns", 500'000'000}, {"rate_limit_bytes_per_s", 64 << 20}}},
          {"counters",
           {{"promoted_pages", 12345},
            {"demoted_pages", 12000},
            {"scan_calls", 90},
            {"scan_entries", 1000},
            {"scan_ns", 12500},
            {"accessed_page_windows", accessed},
            {"accessed_page_windows_fast", fast}}}};
}

Inputs good() {
  return {.hotset_without = hotset(0),
          .hotset_with = hotset(840),
          .hotset_status = status(1, 1),
          .redis_without = {{"operations_per_s", 20000.0}},
          .redis_with = {{"operations_per_s", 19000.0}},
          .redis_settled = status(1000, 100),
          .redis_status = status(3000, 1900),  // 1800 of 2000 in between
          .oracle = {{"best_static_share", 0.93}, {"recorded_share", 0.2}, {"mean_set_share", 0.3}},
          .hotset_kernel_moves = 24345,
          .redis_kernel_moves = 24345};
}

/// The text of the one check that fails.
std::string failure(const Inputs& inputs) {
  const auto verdict = judge(inputs, {});
  if (!verdict) return "error: " + verdict.error().message;
  std::string text;
  for (const Check& check : verdict->checks)
    if (!check.passed) text += check.text + "|";
  EXPECT_EQ(text.empty(), verdict->passed());
  return text;
}

TEST(Verdict, PassesWhenEverythingWasShown) {
  EXPECT_EQ(failure(good()), "");
  const std::string text = table_text(judge(good(), {})->table);
  EXPECT_THAT(text, HasSubstr("12,345"));
  EXPECT_THAT(text, HasSubstr("12.5 ns"));
  EXPECT_THAT(text, HasSubstr("2.1 % of a core"));
  EXPECT_THAT(text, HasSubstr("90.0 %"));
}

TEST(Verdict, FailsForEachThingThatWasNot) {
  Inputs in = good();
  in.hotset_with = hotset(800);
  EXPECT_THAT(failure(in), HasSubstr("94.1 % of the hot pages ended"));

  in = good();
  in.hotset_with["start"]["hot"] = placement(100, 750);
  EXPECT_THAT(failure(in), HasSubstr("at the start"));

  in = good();
  in.hotset_with["start"]["cold"] = placement(2000, 150);
  EXPECT_THAT(failure(in), HasSubstr("42.5 % of the fast tier"));

  in = good();
  in.hotset_with["verified"] = false;
  EXPECT_THAT(failure(in), HasSubstr("every word"));

  in = good();
  in.hotset_with["phases"][1]["reached_90_s"] = nullptr;
  EXPECT_THAT(failure(in), HasSubstr("never"));
  in.hotset_with["phases"][1]["reached_90_s"] = 1.6;  // three epochs are 1.5 s, moving takes 0.2 s
  EXPECT_THAT(failure(in), HasSubstr("after 1.6 s; within 1.5 s"));

  in = good();
  in.redis_status = status(3000, 1850);  // 87.5 % is 94.1 % of 93 %
  EXPECT_THAT(failure(in), HasSubstr("87.5 % of the touched pages"));

  in = good();
  in.oracle["mean_set_share"] = 0.5;
  EXPECT_THAT(failure(in), HasSubstr("finds 50.0 % of the pages set"));

  in = good();
  in.hotset_status.erase("counters");
  EXPECT_THAT(failure(in), HasSubstr("error:"));
}

}  // namespace
}  // namespace thermocline::demo
