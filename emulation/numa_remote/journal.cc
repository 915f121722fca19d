// SPDX-License-Identifier: Apache-2.0
#include "emulation/numa_remote/journal.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/json_read.h"
#include "base/text.h"

namespace thermocline::numa_remote {

namespace {

constexpr std::string_view kGroups = "/sys/fs/cgroup";

/// A folder below the mount of cgroup v2, or the mount itself.
std::string group_of(const nlohmann::json& value, bool may_be_root) {
  const auto text = value.get<std::string>();
  const bool inside =
      text.starts_with(std::string(kGroups) + "/") || (may_be_root && text == kGroups);
  if (!text.empty() && (!inside || text.find("/..") != std::string::npos))
    throw nlohmann::json::other_error::create(502, "\"" + printable(text) + "\" is no cgroup",
                                              &value);
  return text;
}

Result<std::uint64_t> number_in(const System& system, const std::string& path) {
  TC_ASSIGN(const std::string text, system.read_file(path));
  return parse_u64(trim(text));
}

Status put_block_back(System& system, const OfflinedBlock& block) {
  const std::string path = block_path(block.number) + "/state";
  TC_ASSIGN(const std::string state, system.read_file(path));
  if (trim(state) == "online") return {};
  return system.write_file(path, block.movable ? "online_movable" : "online_kernel");
}

Status put_pool_back(System& system, NodeId node, const HeldPages& held) {
  const std::string path = pool_path(node) + "/nr_hugepages";
  TC_ASSIGN(const std::uint64_t now, number_in(system, path));
  // Somebody else may have added pages, or taken some, in the meantime: theirs stay as they are.
  const std::uint64_t target = std::max(held.before, now - std::min(now, held.added));
  if (now <= held.before) return {};
  TC_TRY(system.write_file(path, std::to_string(target)));
  TC_ASSIGN(const std::uint64_t left, number_in(system, path));
  if (left > target)
    return fail(ErrorKind::kFailure, "{} huge pages of node {} are in use and stay reserved",
                left - target, node.get());
  return {};
}

Status put_group_back(System& system, const Journal& journal) {
  if (!system.exists(journal.group)) return {};
  // Twice: a process may have forked while the list was read.
  for (int round = 0; round < 2; ++round) {
    TC_ASSIGN(const std::string members, system.read_file(journal.group + "/cgroup.procs"));
    for (const std::string_view pid : words(members))
      // One that has just exited is no failure.
      static_cast<void>(system.write_file(journal.group_back + "/cgroup.procs", pid));
  }
  if (::rmdir(journal.group.c_str()) != 0 && errno != ENOENT)
    return fail_errno(errno, "can't remove the cgroup " + journal.group);
  return {};
}

}  // namespace

std::string pool_path(NodeId node) {
  return fmt::format("/sys/devices/system/node/node{}/hugepages/hugepages-2048kB", node.get());
}

std::string block_path(unsigned number) {
  return fmt::format("/sys/devices/system/memory/memory{}", number);
}

std::string journal_text(const Journal& journal) {
  nlohmann::ordered_json json;
  put_stand_in(journal.who, json);
  json["blocks"] = nlohmann::ordered_json::array();
  for (const OfflinedBlock& block : journal.blocks)
    json["blocks"].push_back({{"number", block.number}, {"movable", block.movable}});
  if (journal.held)
    json["held"] = {{"before", journal.held->before}, {"added", journal.held->added}};
  json["group"] = journal.group;
  json["group_back"] = journal.group_back;
  json["enabled_cpusets"] = journal.enabled_cpusets;
  return json.dump() + "\n";
}

Result<Journal> parse_journal(const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    Journal out;
    out.who = stand_in_of(json);
    for (const auto& block : json.at("blocks"))
      out.blocks.push_back({whole<unsigned>(block.at("number")), block.at("movable").get<bool>()});
    if (json.contains("held"))
      out.held = {whole<std::uint64_t>(json["held"].at("before")),
                  whole<std::uint64_t>(json["held"].at("added"))};
    out.group = group_of(json.at("group"), false);
    out.group_back = group_of(json.at("group_back"), true);
    out.enabled_cpusets = json.at("enabled_cpusets").get<bool>();
    return out;
  } catch (const nlohmann::json::exception& e) {
    return fail(ErrorKind::kCorrupt, "{} is not what this program writes ({})", kStandInPath,
                e.what());
  }
}

std::vector<std::string> put_back(System& system, const Journal& journal) {
  std::vector<std::string> problems;
  const auto attempt = [&](const Status& status) {
    if (!status) problems.push_back(status.error().message);
  };
  // Pages held back first: memory that comes online needs some for its own tables.
  if (journal.held) attempt(put_pool_back(system, journal.who.fast, *journal.held));
  for (const OfflinedBlock& block : journal.blocks) attempt(put_block_back(system, block));
  if (!journal.group.empty()) attempt(put_group_back(system, journal));
  if (journal.enabled_cpusets)
    attempt(system.write_file(std::string(kGroups) + "/cgroup.subtree_control", "-cpuset"));
  return problems;
}

}  // namespace thermocline::numa_remote
