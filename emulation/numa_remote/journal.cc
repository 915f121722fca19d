// SPDX-License-Identifier: Apache-2.0
#include "emulation/numa_remote/journal.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/json_read.h"
#include "base/text.h"
#include "emulation/numa_remote/kernel_files.h"

namespace thermocline::numa_remote {

namespace {

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

Status put_block_back(System& system, const OfflinedBlock& block) {
  const std::string path = block_path(block.number) + "/state";
  // Memory comes online with some of its own; when there was none, there may be in a moment.
  for (int tries = 3;; --tries) {
    TC_ASSIGN(const std::string state, system.read_file(path));
    if (trim(state) == "online") return {};
    const Status written =
        system.write_file(path, block.movable ? "online_movable" : "online_kernel");
    if (written || tries == 1) return written;
    ::usleep(100'000);
  }
}

Status put_min_free_back(System& system, std::uint64_t kib) {
  TC_ASSIGN(const std::uint64_t now, number_in(system, kMinFreePath));
  return now == kib ? Status() : system.write_file(kMinFreePath, std::to_string(kib));
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

/// Pids of a cgroup, as the kernel lists them.
Result<std::vector<std::string>> members(const System& system, const std::string& group) {
  TC_ASSIGN(const std::string text, system.read_file(group + "/cgroup.procs"));
  std::vector<std::string> pids;
  for (const std::string_view pid : words(text)) pids.emplace_back(pid);
  return pids;
}

Status put_group_back(System& system, const Journal& journal) {
  if (!system.exists(journal.group)) return {};
  std::vector<std::string> left;
  // Processes may fork while the list is read.
  for (int round = 0; round < 50; ++round) {
    TC_ASSIGN(left, members(system, journal.group));
    if (left.empty()) break;
    for (const std::string& pid : left) {
      // Where the run came from may have gone, or takes no processes: then further up. One that
      // has just exited is taken nowhere.
      std::string to = journal.group_back;
      while (!system.write_file(to + "/cgroup.procs", pid) && to.size() > kGroups.size())
        to.erase(to.rfind('/'));
    }
  }
  if (!left.empty())
    return fail(ErrorKind::kFailure, "processes {} can't be moved out of the cgroup {}",
                fmt::join(left, ", "), journal.group);
  if (::rmdir(journal.group.c_str()) != 0 && errno != ENOENT)
    return fail_errno(errno, "can't remove the cgroup " + journal.group);
  return {};
}

bool is_empty(const System& system, const std::string& path) {
  const auto text = system.read_file(path);
  return !text || trim(*text).empty();
}

/// Off again, unless another cgroup has come to hang on it: that one keeps it.
Status put_cpusets_back(System& system) {
  const std::string root(kGroups);
  if (!has_word(system, root + "/cgroup.subtree_control", "cpuset")) return {};
  TC_ASSIGN(const auto names, system.list_dir(root));
  for (const std::string& name : names) {
    const std::string group = root + "/" + name;
    if (!is_empty(system, group + "/cpuset.cpus") || !is_empty(system, group + "/cpuset.mems") ||
        has_word(system, group + "/cgroup.subtree_control", "cpuset"))
      return {};
  }
  return system.write_file(root + "/cgroup.subtree_control", "-cpuset");
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
  if (journal.min_free_kib) json["min_free_kib"] = *journal.min_free_kib;
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
    if (json.contains("min_free_kib"))
      out.min_free_kib = whole<std::uint64_t>(json["min_free_kib"]);
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
  if (journal.enabled_cpusets) attempt(put_cpusets_back(system));
  if (journal.min_free_kib) attempt(put_min_free_back(system, *journal.min_free_kib));
  return problems;
}

}  // namespace thermocline::numa_remote
