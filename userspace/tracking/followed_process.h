// SPDX-License-Identifier: Apache-2.0
// One address space that is watched through /proc, held so that neither a reused pid nor an exec
// can slip another one under it. Holds no memory of it: a process that exits frees all at once.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/system.h"
#include "tracking/process.h"

namespace thermocline {

class FollowedProcess {
 public:
  /// kNotFound when the process is gone or its pid was reused; kPermission when /proc doesn't let
  /// this user read its page map.
  [[nodiscard]] static Result<FollowedProcess> open(System& system, const ProcessIdentity& process);

  /// Ok while the process lives and has still the image that it had at open(); else kNotFound.
  /// What was read from /proc/PID before an Ok answer was of this address space.
  [[nodiscard]] Status check(const System& system) const;
  [[nodiscard]] const ProcessIdentity& identity() const { return identity_; }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  /// /proc/PID/pagemap. Open, it pins the kernel's name for the address space (not its memory).
  [[nodiscard]] int pagemap() const { return pagemap_.get(); }
  [[nodiscard]] std::string proc_path(std::string_view file) const;

 private:
  FollowedProcess(ProcessIdentity identity, UniqueFd pidfd, UniqueFd pagemap)
      : identity_(std::move(identity)), pidfd_(std::move(pidfd)), pagemap_(std::move(pagemap)) {}
  ProcessIdentity identity_;
  UniqueFd pidfd_, pagemap_;
};

}  // namespace thermocline
