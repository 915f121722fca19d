// SPDX-License-Identifier: Apache-2.0
#include "tracking/process.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/text.h"

namespace thermocline {

namespace {

constexpr unsigned kPidBits = 22;  // PID_MAX_LIMIT, include/linux/threads.h
constexpr unsigned kTickBits = 36;
constexpr std::size_t kCommandLength = 15;  // TASK_COMM_LEN - 1

std::string proc_path(Pid pid, std::string_view file) {
  return fmt::format("/proc/{}/{}", pid.get(), file);
}

bool in_cgroup(const System& system, Pid pid, std::string_view wanted) {
  while (wanted.size() > 1 && wanted.ends_with('/')) wanted.remove_suffix(1);
  const auto text = system.read_file(proc_path(pid, "cgroup"));
  if (!text) return false;
  for (const std::string_view line : split(*text, '\n')) {
    if (!line.starts_with("0::")) continue;
    const std::string_view path = line.substr(3);
    if (wanted == "/" || path == wanted) return true;
    return path.starts_with(wanted) && path[wanted.size()] == '/';
  }
  return false;
}

}  // namespace

Asid make_asid(Pid pid, std::uint64_t start_ticks, unsigned generation) {
  const std::uint64_t ticks = start_ticks & ((std::uint64_t{1} << kTickBits) - 1);
  return Asid((std::uint64_t{generation & 63u} << (kPidBits + kTickBits)) | (ticks << kPidBits) |
              static_cast<std::uint64_t>(pid.get()));
}

Result<ProcessIdentity> identify_process(const System& system, Pid pid, unsigned generation) {
  if (pid.get() <= 0) return fail(ErrorKind::kUsage, "{} is not a process id", pid.get());
  const auto text = system.read_file(proc_path(pid, "stat"));
  if (!text) {
    if (text.error().kind == ErrorKind::kNotFound)
      return fail(ErrorKind::kNotFound, "there is no process {}", pid.get());
    return tl::make_unexpected(text.error());
  }
  // The command may hold blanks and parentheses: it ends at the last ')'.
  const auto open = text->find('(');
  const auto close = text->rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open)
    return fail(ErrorKind::kFailure, "can't understand {}", proc_path(pid, "stat"));
  const std::vector<std::string_view> fields = words(std::string_view(*text).substr(close + 1));
  // Fields 3, 9, 14, 15, 20, 22 and 28 of proc(5).
  constexpr std::size_t kState = 0, kFlags = 6, kUser = 11, kKernel = 12, kThreads = 17,
                        kStartTime = 19, kStack = 25;
  constexpr std::uint64_t kKernelThread = 0x00200000;  // PF_KTHREAD
  if (fields.size() <= kStartTime)
    return fail(ErrorKind::kFailure, "can't understand {}", proc_path(pid, "stat"));
  TC_ASSIGN(const auto flags, parse_u64(fields[kFlags]));
  TC_ASSIGN(const auto user, parse_u64(fields[kUser]));
  TC_ASSIGN(const auto kernel, parse_u64(fields[kKernel]));
  TC_ASSIGN(const auto start, parse_u64(fields[kStartTime]));
  std::string command = printable(std::string_view(*text).substr(open + 1, close - open - 1));
  if (flags & kKernelThread)
    return fail(ErrorKind::kUsage,
                "process {} ({}) is a kernel thread, which has no memory of its own to track: name "
                "a program",
                pid.get(), command);
  // The main thread may end before the others: they go on, in the same address space.
  const bool others_run = fields[kState] == "Z" && fields[kThreads] != "1";
  if ((fields[kState] == "Z" && !others_run) || fields[kState] == "X")
    return fail(ErrorKind::kNotFound, "process {} has exited", pid.get());
  ProcessIdentity identity;
  identity.pid = pid;
  identity.start_ticks = start;
  identity.asid = make_asid(pid, start, generation);
  identity.command = std::move(command);
  identity.cpu_ticks = user + kernel;
  if (fields.size() > kStack) identity.stack = parse_u64(fields[kStack]).value_or(0);
  return identity;
}

bool has_another_image(const ProcessIdentity& known, const ProcessIdentity& now) {
  return known.stack != 0 && now.stack != 0 && known.stack != now.stack;
}

bool has_second_mmu(const System& system, Pid pid) {
  const std::string folder = fmt::format("/proc/{}/fd", pid.get());
  const auto files = system.list_dir(folder);
  return files && std::any_of(files->begin(), files->end(), [&](const std::string& file) {
           return system.read_link_name(folder + "/" + file) == "anon_inode:kvm-vm";
         });
}

std::string describe(const TargetSelector& selector) {
  std::vector<std::string> parts;
  if (selector.pid) parts.push_back(fmt::format("pid {}", selector.pid->get()));
  if (selector.command) parts.push_back(fmt::format("command \"{}\"", *selector.command));
  if (selector.cgroup) parts.push_back(fmt::format("cgroup {}", *selector.cgroup));
  return fmt::format("{}", fmt::join(parts, ", "));
}

Status pin_targets(const System& system, std::vector<TargetSelector>& selectors) {
  for (TargetSelector& selector : selectors) {
    if (!selector.pid) continue;
    TC_ASSIGN(const ProcessIdentity process, identify_process(system, *selector.pid));
    selector.start_ticks = process.start_ticks;
  }
  return {};
}

Result<std::vector<ProcessIdentity>> find_targets(const System& system,
                                                  const TargetSelector& selector) {
  const auto matches = [&](const ProcessIdentity& process) {
    if (selector.command &&
        process.command != printable(std::string_view(*selector.command).substr(0, kCommandLength)))
      return false;
    return !selector.cgroup || in_cgroup(system, process.pid, *selector.cgroup);
  };
  std::vector<ProcessIdentity> found;
  if (selector.pid) {
    TC_ASSIGN(auto process, identify_process(system, *selector.pid));
    if (selector.start_ticks && process.start_ticks != *selector.start_ticks)
      return fail(ErrorKind::kNotFound, "process {} has exited, and another one has its number",
                  selector.pid->get());
    if (matches(process)) found.push_back(std::move(process));
    return found;
  }
  TC_ASSIGN(const auto entries, system.list_dir("/proc"));
  for (const std::string& entry : entries) {
    const auto number = parse_u64(entry);
    if (!number) continue;
    // A process that exits while we look is simply not a target.
    const auto process = identify_process(system, Pid(static_cast<std::int32_t>(*number)));
    if (process && matches(*process)) found.push_back(*process);
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.pid < b.pid; });
  return found;
}

}  // namespace thermocline
