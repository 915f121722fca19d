// SPDX-License-Identifier: Apache-2.0
// The supervisor: a process in a session of its own that changes the machine, and puts everything
// back when it is told to or when the process that started it is gone, however that ended. Signals
// other than SIGKILL don't reach it; when it is killed, its starter makes another that adopts the
// journal; when both are, the next start, or restore(), puts things back.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "emulation/numa_remote/limit.h"
#include "emulation/numa_remote/setting.h"

namespace thermocline::numa_remote {

/// What the keeper did.
struct Kept {
  std::optional<Limit> limit;
  std::string group;  ///< cgroup for the command; empty: none could be made, a note says why
  std::vector<std::string> notes;
};

class Keeper {
 public:
  /// Forks it and waits until everything is as ordered. On failure everything has been put back.
  /// `stop` is a descriptor that becomes readable when the user wants no more (a signalfd).
  [[nodiscard]] static Result<Keeper> start(
      System& system, const Setting& setting, std::optional<Bytes> fast_bytes, int stop,
      const std::function<void(const std::string&)>& progress);
  /// Becomes readable when the keeper has died.
  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] const Kept& kept() const { return kept_; }
  /// Another keeper for what a dead one did.
  [[nodiscard]] Status replace(System& system);
  /// Puts everything back; what could not be, a sentence each.
  [[nodiscard]] std::vector<std::string> end();

 private:
  Keeper(Pid pid, UniqueFd socket) : pid_(pid), socket_(std::move(socket)) {}
  Pid pid_;
  UniqueFd socket_;
  Kept kept_;
};

/// Puts back what a run left that was killed together with its keeper. False when there was
/// nothing. kFailure when a run goes on.
[[nodiscard]] Result<bool> restore(System& system);

}  // namespace thermocline::numa_remote
