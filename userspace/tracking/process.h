// SPDX-License-Identifier: Apache-2.0
// Processes as the kernel shows them: identity that survives pid reuse, and finding targets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"

namespace thermocline {

/// One program image of one process. Another start time or another image is another identity.
struct ProcessIdentity {
  Pid pid;
  std::uint64_t start_ticks = 0;  ///< field 22 of /proc/PID/stat
  Asid asid;
  std::string
      command;  ///< comm, at most 15 characters, made printable(): any user may set any bytes
  std::uint64_t cpu_ticks = 0;  ///< CPU time so far in clock ticks: not a part of who it is
  std::uint64_t stack = 0;      ///< where its stack begins (field 28); 0 = not to be known
};

/// Whether a process that is still there has another address space than the one it was known by,
/// although that one lives on: vfork() lends a child that of its parent until it becomes another
/// program.
[[nodiscard]] bool has_another_image(const ProcessIdentity& known, const ProcessIdentity& now);

/// Address-space id: pid (22 bits), start time in ticks (36 bits), image generation (6 bits, counts
/// what the same process exec'd while we watched). Never 0, the same on every tracker.
[[nodiscard]] Asid make_asid(Pid pid, std::uint64_t start_ticks, unsigned generation);

/// Reads /proc/PID/stat. kNotFound when there is no such process, kUsage for pid <= 0 and
/// for a kernel thread.
[[nodiscard]] Result<ProcessIdentity> identify_process(const System& system, Pid pid,
                                                       unsigned generation = 0);

/// Whether a process has made virtual machines with KVM: their memory is its own, and the guests
/// touch it through page tables of their own. False when this user may not know.
[[nodiscard]] bool has_second_mmu(const System& system, Pid pid);

/// What selects targets: all that are set must match.
struct TargetSelector {
  std::optional<Pid> pid;
  std::optional<std::string> command;  ///< comm, exact
  std::optional<std::string> cgroup;   ///< cgroup v2 path; processes at or below it
  /// With a pid: the start time of the process that is meant; set by pin_targets().
  std::optional<std::uint64_t> start_ticks;
};

/// What it selects, for messages: command "redis-server" in cgroup /system.slice.
[[nodiscard]] std::string describe(const TargetSelector& selector);

/// Fixes every selector with a pid to the process that has it now, so that a later process with the
/// same pid is never taken for it. kNotFound when there is none.
[[nodiscard]] Status pin_targets(const System& system, std::vector<TargetSelector>& selectors);

/// Processes that match now, by pid. An empty list is not an error, except that kNotFound says that
/// the process of a pid selector is gone.
[[nodiscard]] Result<std::vector<ProcessIdentity>> find_targets(const System& system,
                                                                const TargetSelector& selector);

}  // namespace thermocline
