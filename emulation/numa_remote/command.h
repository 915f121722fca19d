// SPDX-License-Identifier: Apache-2.0
// Runs a command on the fast node's CPUs while a keeper holds the machine as it is to be.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "emulation/numa_remote/keeper.h"
#include "emulation/numa_remote/setting.h"

namespace thermocline::numa_remote {

struct Hooks {
  /// Long steps, for a person.
  std::function<void(const std::string&)> progress;
  /// Everything is as ordered and the command is about to start; returns the variables for it.
  std::function<std::vector<std::pair<std::string, std::string>>(const Kept&)> ready;
  /// Something went wrong that doesn't stop the command.
  std::function<void(const std::string&)> warn;
};

/// Exit status of the command (128 + signal, as shells count), or 1 for a command that succeeded
/// when not everything could be put back; 127 when it can't be found, 126 when it can't be run, 130
/// when the user ended it before it started. Signals that ask this process to end are passed on to
/// the command.
[[nodiscard]] Result<int> run_command(System& system, const Setting& setting,
                                      std::optional<Bytes> fast_bytes,
                                      const std::vector<std::string>& command, const Hooks& hooks);

}  // namespace thermocline::numa_remote
