// SPDX-License-Identifier: Apache-2.0
// `thermocline trackers`: what it makes of the sources' own words.
#include "cli/trackers_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace thermocline::cli {
namespace {

using testing::HasSubstr;

TrackerFactory source(const std::string& name) {
  TrackerFactory factory;
  factory.name = name;
  factory.summary = "what " + name + " is";
  factory.abilities.privilege = "root";
  return factory;
}

TEST(TrackersReport, TellsWhichOneAutoTakes) {
  const TrackerFactory a = source("a"), b = source("b"), c = source("c");
  const std::vector<TrackerState> states{{&a, "it is not there"}, {&b, ""}, {&c, ""}};
  const auto json = trackers_json(states, "b");
  EXPECT_EQ(json[0]["auto"], false);
  EXPECT_EQ(json[1]["auto"], true);
  EXPECT_EQ(json[2]["auto"], false);
  EXPECT_EQ(json[0]["why_not"], "it is not there");
  const std::string text = trackers_text(json);
  EXPECT_THAT(text, HasSubstr("\"auto\" takes b here"));
  EXPECT_THAT(text, HasSubstr("it is not there"));
}

TEST(TrackersReport, NoneThatWorksIsSaid) {
  const TrackerFactory a = source("a");
  const std::vector<TrackerState> states{{&a, "no"}};
  EXPECT_THAT(trackers_text(trackers_json(states, "")), HasSubstr("None works here"));
}

TEST(TrackersReport, ACostThatNobodyMeasuredIsNotAFigure) {
  TrackerFactory a = source("a"), b = source("b");
  b.abilities.cost =
      ScanCost{std::chrono::microseconds(200), std::chrono::milliseconds(12), "measured on b"};
  const std::vector<TrackerState> states{{&a, ""}, {&b, ""}};
  const auto json = trackers_json(states, "a");
  EXPECT_TRUE(json[0]["read_ns_per_gib"].is_null());
  EXPECT_TRUE(json[0]["cost_source"].is_null());
  EXPECT_EQ(json[1]["read_ns_per_gib"], 200'000);
  EXPECT_EQ(json[1]["clear_ns_per_gib"], 12'000'000);
  const std::string text = trackers_text(json);
  EXPECT_THAT(text, HasSubstr("not known"));
  EXPECT_THAT(text, HasSubstr("200 us"));
  EXPECT_THAT(text, HasSubstr("measured on b"));
}

}  // namespace
}  // namespace thermocline::cli
