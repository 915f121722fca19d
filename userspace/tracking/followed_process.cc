// SPDX-License-Identifier: Apache-2.0
#include "tracking/followed_process.h"

#include <fcntl.h>

#include <array>

namespace thermocline {

Result<FollowedProcess> FollowedProcess::open(System& system, const ProcessIdentity& process) {
  const Pid pid = process.pid;
  TC_ASSIGN(UniqueFd pidfd, system.pidfd_open(pid));
  TC_ASSIGN(UniqueFd pagemap,
            system.open_device(fmt::format("/proc/{}/pagemap", pid.get()), O_RDONLY));
  // After both: if the start time is right now, both are of the process that is meant.
  TC_ASSIGN(const ProcessIdentity now, identify_process(system, pid));
  if (now.start_ticks != process.start_ticks)
    return fail(ErrorKind::kNotFound, "process {} has exited, and another one has its number",
                pid.get());
  FollowedProcess followed(process, std::move(pidfd), std::move(pagemap));
  TC_TRY(followed.check(system));
  return followed;
}

Status FollowedProcess::check(const System& system) const {
  // The page map of an address space that nobody uses any more reads as empty.
  std::array<std::byte, 8> entry;
  const long n = system.pread(pagemap_.get(), entry, 0);
  if (n < 0) return fail_errno(static_cast<int>(-n), "can't read " + proc_path("pagemap"));
  if (n == 0 || system.pidfd_exited(pidfd_.get()))
    return fail(ErrorKind::kNotFound, "process {} ({}) has exited or runs another program",
                identity_.pid.get(), identity_.command);
  return {};
}

std::string FollowedProcess::proc_path(std::string_view file) const {
  return fmt::format("/proc/{}/{}", identity_.pid.get(), file);
}

}  // namespace thermocline
