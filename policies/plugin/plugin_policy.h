// SPDX-License-Identifier: Apache-2.0
// Policies that come as plug-ins (policy_abi.h): finding their files, and the Policy whose
// decisions are made in a process of their own.
//
// A plug-in can do no more than decide badly. What it does wrong (crash, silence, a plan that
// breaks a rule) ends its process, and the plan with it; a stand-in decides this epoch and those
// until a new process is there. It is started anew after 1, 2, 4, ... epochs, and given up for good
// after `most_restarts` without 64 plans in a row between them.
//
// Here alone a policy reads a clock and makes system calls: the other side of decide() is a process
// that may not answer.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "policies/policy.h"

namespace thermocline {

struct PluginOptions {
  /// For a decision, from the view that goes there to the plan that comes back. Default 200 ms.
  Nanoseconds decision_limit = std::chrono::milliseconds(200);
  /// For loading the plug-in and create(). Default 5 s.
  Nanoseconds start_limit = std::chrono::seconds(5);
  /// Default 5.
  unsigned most_restarts = 5;
  /// Whether its CPU time is told (PluginHealth::cpu), and so counted by the engine. Default true.
  bool tells_cpu = true;
  /// The program that loads the plug-in; empty = plugin::host_program(). Default empty.
  std::string host;
  /// Makes the policy that decides while the plug-in can't; not set: nothing is moved meanwhile.
  std::function<std::unique_ptr<Policy>()> stand_in;
  /// One sentence for the log.
  std::function<void(const std::string&)> log;
};

/// For hosts whose time is modelled: an epoch lasts as long as its decision, within a minute, and
/// CPU time, which differs from run to run, goes by.
[[nodiscard]] PluginOptions patient_plugins();

struct PluginFile {
  std::string name;  ///< of the policy: of the file, without ".so"
  std::string path;
};

/// Plug-ins in `dir`, by name; none of them is run. kPermission when `dir` belongs to another user
/// than root and this one, or others may write to it; kUsage when a file is called like a policy
/// that is built in; kNotFound or kFailure when it can't be read.
[[nodiscard]] Result<std::vector<PluginFile>> find_plugins(const std::string& dir);

/// Adds the plug-ins of `dir` to policies that are there. Their factories know a name only; what
/// else there is to tell, describe_plugin() finds out.
[[nodiscard]] Status register_plugins(PolicyRegistry& registry, const std::string& dir,
                                      const PluginOptions& options);

/// Runs a plug-in to see what it tells about itself. Fails with one sentence that names the file:
/// kPermission when others could have changed it, kUsage when it is no plug-in, or one of another
/// version or name, kFailure when it crashes or takes too long.
[[nodiscard]] Result<PolicyFactory> describe_plugin(const PluginFile& file,
                                                    const PluginOptions& options);

}  // namespace thermocline
