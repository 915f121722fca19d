// SPDX-License-Identifier: Apache-2.0
// Every number that is printed and every key that is read is documented in its man page.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "control/config.h"
#include "control/status.h"
#include "engine_with_one_target.h"

namespace thermocline {
namespace {

std::string page(const std::string& name) {
  std::ifstream in(std::string(THERMOCLINE_SOURCE_DIR) + "/docs/man/" + name);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

bool names(const std::string& text, const std::string& key) {
  return text.find("*" + key + "*") != std::string::npos;
}

TEST(Docs, EveryConfigKeyIsInItsManPage) {
  const std::string text = page("thermoclined.toml.5.scd");
  ASSERT_FALSE(text.empty());
  for (const ConfigKey& key : config_keys())
    EXPECT_TRUE(names(text, key.key)) << key.table << "." << key.key;
}

TEST(Docs, EveryStatusKeyIsInItsManPage) {
  const std::string text = page("thermocline-status.1.scd");
  ASSERT_FALSE(text.empty());
  const EngineWithOneTarget host("x");
  const nlohmann::json status = status_json(*host.engine);
  std::size_t checked = 0;
  const std::function<void(const nlohmann::json&)> check = [&](const nlohmann::json& node) {
    if (node.is_array()) {
      for (const auto& element : node) check(element);
    } else if (node.is_object()) {
      for (const auto& [key, value] : node.items()) {
        if (!value.is_object() && !(value.is_array() && !value.empty() && value[0].is_object())) {
          EXPECT_TRUE(names(text, key)) << key;
          ++checked;
        }
        check(value);
      }
    }
  };
  check(status);
  EXPECT_GT(checked, 40u);
}

}  // namespace
}  // namespace thermocline
