// SPDX-License-Identifier: Apache-2.0
// The daemon's configuration: TOML, one file and its drop-ins, checked as a whole before any of it
// is used. Every key stands in one table (config_keys()), from which the messages, `config show`
// and the man page come.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "engine/engine.h"
#include "policies/plugin/plugin_policy.h"
#include "policies/policy.h"
#include "topology/topology.h"
#include "tracking/process.h"
#include "tracking/tracker.h"

namespace thermocline {

/// What a [[target]] may have of the fast tier, and what of it stays where it is.
struct TargetShare {
  TenantLimits limits;       ///< `name` is the target's selector unless it was given
  bool set = false;          ///< some limit was given
  bool per_process = false;  ///< each process is a tenant of its own, with these limits
  std::vector<PageRange> never_move, keep_fast;
};

struct Config {
  EngineOptions engine;
  std::string policy = "auto";
  /// Options by policy name; only those of `policy` are used, so that switching is one line.
  std::map<std::string, std::vector<PolicyOption>> policy_options;
  std::uint64_t seed = 1;
  std::string plugin_dir;  ///< empty: none
  Nanoseconds plugin_timeout = PluginOptions{}.decision_limit;
  std::string tracker = "auto";
  TrackerOptions tracker_options;
  std::vector<TargetSelector> targets;
  std::vector<TargetShare> shares;  ///< of each target, in the same order
  /// Fastest first; empty = what the kernel and firmware say.
  std::vector<TierDeclaration> tiers;
  std::string socket = "/run/thermocline.sock";
  std::optional<std::string> history_file;
  Bytes history_max_size{std::uint64_t{1} << 30};
  std::optional<std::string> record_file;
  Bytes record_max_size{std::uint64_t{1} << 30};
};

/// One key: where it stands, what it means, its default as it would be written.
struct ConfigKey {
  std::string table, key, help, default_text;
  bool list = false;  ///< of a table that may stand there again: [[table]]
};
/// Those of [policy.NAME] and of the lists [[target]] and [[tier]] as well.
[[nodiscard]] const std::vector<ConfigKey>& config_keys();

inline constexpr const char* kDefaultConfigPath = "/etc/thermocline/thermoclined.toml";

/// Reads `path`, then path + ".d/*.toml" in the order of their names; what comes later wins,
/// [[target]] and [[tier]] add up. Any mistake refuses the whole: kUsage, "FILE:LINE:COLUMN: what,
/// and the nearest valid key". A missing file is kNotFound.
[[nodiscard]] Result<Config> load_config(const std::string& path);
/// The same for text in memory; `name` stands for the file in messages. No drop-ins.
[[nodiscard]] Result<Config> parse_config(const std::string& text, const std::string& name);
/// kUsage when the configuration names no target: complete otherwise, but nothing for a daemon.
[[nodiscard]] Status require_targets(const Config& config, const std::string& name);

/// The options of the policy that is chosen.
[[nodiscard]] std::vector<PolicyOption> chosen_policy_options(const Config& config);

/// The policies that are built in and the plug-ins of policy.plugin_dir, none of which is run yet.
/// Fails as register_plugins().
[[nodiscard]] Result<PolicyRegistry> policies_of(const Config& config,
                                                 const PluginOptions& plugins);
[[nodiscard]] bool is_builtin_policy(const std::string& name);

/// Whether both choose the same policy with the same seed and options, however they are written.
[[nodiscard]] bool same_policy(const Config& a, const Config& b);

/// The effective configuration as TOML that load_config() accepts.
[[nodiscard]] std::string config_to_toml(const Config& config);

}  // namespace thermocline
