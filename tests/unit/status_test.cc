// SPDX-License-Identifier: Apache-2.0
// What leaves the daemon as JSON, and what comes back from one that may be of another version.
#include "control/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine_with_one_target.h"

namespace thermocline {
namespace {

using testing::HasSubstr;

TEST(Status, ACommandThatIsNotUtf8DoesNotEndTheDaemon) {
  const EngineWithOneTarget host("bad\xff\xfename");
  const std::string line = history_line(*host.engine, EpochReport{}, 16);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const auto parsed = nlohmann::json::parse(line, nullptr, false);
  ASSERT_TRUE(parsed.is_object()) << line;
  ASSERT_EQ(parsed["targets"].size(), 1u);
  EXPECT_THAT(parsed["targets"][0]["command"].get<std::string>(), HasSubstr("name"));
}

TEST(Status, TextTellsWhatThereIsNotYet) {
  const EngineWithOneTarget host("redis");
  nlohmann::json status = status_json(*host.engine);
  EXPECT_THAT(*status_text(status), HasSubstr("hot set   not known yet"));
  status["engine"]["hot_pages"] = 512;
  EXPECT_THAT(*status_text(status), HasSubstr("all 2.0 MiB fit the fast tier"));
  status["engine"]["threshold_heat"] = 3;
  EXPECT_THAT(*status_text(status), HasSubstr("2.0 MiB at heat 3 and above"));
  EXPECT_THAT(*status_text(status), testing::Not(HasSubstr("shared with other targets")));
  status["targets"][0]["shared_pages"] = 256;
  EXPECT_THAT(*status_text(status), HasSubstr("1.0 MiB shared with other targets, counted once"));
  status["targets"][0]["pinned_pages"] = 512;
  EXPECT_THAT(*status_text(status), HasSubstr("2.0 MiB of it can't be moved"));
  status["targets"][0]["unseen"] = true;
  EXPECT_THAT(*status_text(status), HasSubstr("no page of it is seen accessed"));
  TenantStatus tenant;
  tenant.limits.name = "the database";
  tenant.fast = PageCount(512);
  status["tenants"].push_back(tenant_json(tenant));
  EXPECT_THAT(*status_text(status), HasSubstr("share     the database: 2.0 MiB of the fast tier"));
  status["targets"] = nlohmann::json::array();
  EXPECT_THAT(*status_text(status), HasSubstr("targets   none now"));
}

TEST(Status, TextOfAStatusFromAnotherVersionIsASentence) {
  const EngineWithOneTarget host("redis");
  const nlohmann::json status = status_json(*host.engine);
  const auto whole = status_text(status);
  ASSERT_TRUE(whole) << whole.error().message;
  EXPECT_THAT(*whole, HasSubstr("redis"));
  for (const auto& [section, content] : status.items()) {
    nlohmann::json less = status;
    less.erase(section);
    const auto text = status_text(less);
    ASSERT_FALSE(text) << section;
    EXPECT_THAT(text.error().message, HasSubstr("same version")) << section;
    less[section] = "something else";
    EXPECT_FALSE(status_text(less) && section != "tiers" && section != "targets") << section;
  }
  for (const char* other : {"null", "[]", "{}", "5", R"({"engine": null})"})
    EXPECT_FALSE(status_text(nlohmann::json::parse(other))) << other;
}

}  // namespace
}  // namespace thermocline
