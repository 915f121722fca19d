// SPDX-License-Identifier: Apache-2.0
#include "emulation/numa_remote/command.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "base/text.h"

namespace thermocline::numa_remote {

namespace {

constexpr std::array kEndings = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// The signals that would end this process, as a descriptor; as before when it goes.
class Endings {
 public:
  Endings() {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : kEndings) ::sigaddset(&set, signal);
    ::sigprocmask(SIG_BLOCK, &set, &before_);
    fd_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~Endings() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  Endings(const Endings&) = delete;
  Endings& operator=(const Endings&) = delete;
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const sigset_t& before() const { return before_; }
  /// The next signal, if any.
  [[nodiscard]] std::optional<signalfd_siginfo> take() const {
    signalfd_siginfo info;
    if (::read(fd_.get(), &info, sizeof(info)) != sizeof(info)) return std::nullopt;
    return info;
  }

 private:
  sigset_t before_;
  UniqueFd fd_;
};

/// In the child: never returns. What goes wrong before the command runs is told through `failed`.
[[noreturn]] void become(System& system, const Setting& setting, const std::string& group,
                         const std::vector<std::string>& command, pid_t parent,
                         const std::vector<std::pair<std::string, std::string>>& variables,
                         const Endings& endings, int failed) {
  const auto give_up = [&](int error) {
    static_cast<void>(::write(failed, &error, sizeof(error)) == 0);
    ::_exit(error == ENOENT ? 127 : 126);
  };
  // With this process's death the command is asked to end: its slow tier is gone.
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(126);
  const std::size_t count = setting.cpus.back().get() + 1;
  cpu_set_t* const set = CPU_ALLOC(count);
  CPU_ZERO_S(CPU_ALLOC_SIZE(count), set);
  for (const CpuId cpu : setting.cpus) CPU_SET_S(cpu.get(), CPU_ALLOC_SIZE(count), set);
  if (::sched_setaffinity(0, CPU_ALLOC_SIZE(count), set) != 0) give_up(errno);
  if (!group.empty())
    if (const Status joined = system.write_file(group + "/cgroup.procs", "0"); !joined)
      give_up(joined.error().errno_value);
  for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
  ::sigprocmask(SIG_SETMASK, &endings.before(), nullptr);
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execvp(words[0], words.data());
  give_up(errno);
  ::_exit(126);
}

/// Waits for the command, passes signals on, and keeps a keeper.
Result<int> wait_for(System& system, Keeper& keeper, pid_t pid, int pidfd, const Endings& endings,
                     const Hooks& hooks) {
  bool kept = true;
  for (;;) {
    pollfd fds[] = {
        {pidfd, POLLIN, 0}, {endings.fd(), POLLIN, 0}, {kept ? keeper.fd() : -1, POLLIN, 0}};
    if (::poll(fds, 3, -1) < 0 && errno != EINTR)
      return fail_errno(errno, "can't wait for the command");
    while (const auto signal = endings.take())
      // What a terminal sends goes to the command as well.
      if (signal->ssi_code != SI_KERNEL) ::kill(pid, static_cast<int>(signal->ssi_signo));
    if (fds[2].revents != 0) {
      const Status replaced = keeper.replace(system);
      kept = replaced.has_value();
      hooks.warn(kept ? "the supervisor died; another one has taken over"
                      : replaced.error().message);
    }
    if (fds[0].revents == 0) continue;
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
}

/// The cgroup still holds its members to the fast node's CPUs.
bool holds(const System& system, const std::string& group, const Setting& setting) {
  const auto text = system.read_file(group + "/cpuset.cpus.effective");
  const auto list = text ? parse_list(trim(*text)) : tl::make_unexpected(text.error());
  if (!list) return false;
  for (const std::uint32_t cpu : *list)
    if (std::find(setting.cpus.begin(), setting.cpus.end(), CpuId(cpu)) == setting.cpus.end())
      return false;
  return true;
}

Result<int> run_kept(System& system, Keeper& keeper, const Setting& setting,
                     const std::vector<std::string>& command, const Endings& endings,
                     const Hooks& hooks) {
  const auto variables = hooks.ready(keeper.kept());
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "can't make a pipe");
  UniqueFd failed(ends[0]);
  UniqueFd told(ends[1]);
  std::fflush(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "can't start the command");
  if (pid == 0)
    become(system, setting, keeper.kept().group, command, parent, variables, endings, told.get());
  told.reset();
  TC_ASSIGN(const UniqueFd pidfd, system.pidfd_open(Pid(pid)));
  TC_ASSIGN(const int code, wait_for(system, keeper, pid, pidfd.get(), endings, hooks));
  int error = 0;
  if (::read(failed.get(), &error, sizeof(error)) == sizeof(error))
    hooks.warn(fmt::format("can't run {}: {}", command[0], errno_text(error)));
  return code;
}

}  // namespace

Result<int> run_command(System& system, const Setting& setting, std::optional<Bytes> fast_bytes,
                        const std::vector<std::string>& command, const Hooks& hooks) {
  const Endings endings;
  auto keeper = Keeper::start(system, setting, fast_bytes, endings.fd(), hooks.progress);
  if (const auto signal = endings.take(); signal) {
    // The user ended it before anything ran; a keeper that was ready none the less goes too.
    if (keeper)
      for (const std::string& problem : keeper->end())
        hooks.warn("not put back: " + problem +
                   "; `thermocline emulate numa-remote --restore` tries again");
    return 128 + static_cast<int>(signal->ssi_signo);
  }
  if (!keeper) return tl::make_unexpected(std::move(keeper).error());
  auto code = run_kept(system, *keeper, setting, command, endings, hooks);
  if (!keeper->kept().group.empty() && !holds(system, keeper->kept().group, setting))
    hooks.warn(
        "somebody changed the command's cgroup meanwhile: its threads may have run elsewhere");
  if (keeper->kept().limit) hooks.progress("putting memory back");
  const auto problems = keeper->end();
  for (const std::string& problem : problems) hooks.warn("not put back: " + problem);
  if (problems.empty()) return code;
  hooks.warn("`thermocline emulate numa-remote --restore` tries again");
  return code && *code == 0 ? 1 : code;
}

}  // namespace thermocline::numa_remote
