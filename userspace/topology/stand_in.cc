// SPDX-License-Identifier: Apache-2.0
#include "topology/stand_in.h"

#include <nlohmann/json.hpp>

#include "base/json_read.h"
#include "base/text.h"

namespace thermocline {

namespace {

constexpr int kVersion = 1;

}  // namespace

StandIn stand_in_of(const nlohmann::json& json) {
  if (whole<int>(json.at("version")) != kVersion)
    throw nlohmann::json::other_error::create(501, "written by another version", &json);
  const auto node = [&](const char* key) {
    return NodeId(whole<std::uint16_t>(json.at(key)));  // the kernel has 1024 at most
  };
  return {Pid(whole<std::int32_t>(json.at("keeper"))), node("fast_node"), node("slow_node")};
}

void put_stand_in(const StandIn& stand_in, nlohmann::ordered_json& json) {
  json["version"] = kVersion;
  json["keeper"] = stand_in.keeper.get();
  json["fast_node"] = stand_in.fast.get();
  json["slow_node"] = stand_in.slow.get();
}

bool is_kept(const System& system, const StandIn& stand_in) {
  const auto name = system.read_file(fmt::format("/proc/{}/comm", stand_in.keeper.get()));
  return name && trim(*name) == kKeeperName;
}

Result<std::optional<StandIn>> read_stand_in(const System& system) {
  if (!system.exists(kStandInPath)) return std::nullopt;
  const auto text = system.read_file(kStandInPath);
  if (!text) {
    if (text.error().kind == ErrorKind::kNotFound) return std::nullopt;  // it has just ended
    return tl::make_unexpected(text.error());
  }
  try {
    const StandIn stand_in = stand_in_of(nlohmann::json::parse(*text));
    if (!is_kept(system, stand_in)) return std::nullopt;
    return stand_in;
  } catch (const nlohmann::json::exception& e) {
    return fail(ErrorKind::kCorrupt,
                "{}: {}; `thermocline emulate numa-remote --restore` looks into it", kStandInPath,
                e.what());
  }
}

}  // namespace thermocline
