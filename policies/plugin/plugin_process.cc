// SPDX-License-Identifier: Apache-2.0
#include "policies/plugin/plugin_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace thermocline::plugin {

namespace {

/// For how long a process that was killed is waited for: it may hold much memory.
constexpr auto kLastWait = std::chrono::milliseconds(200);
constexpr auto kPoll = std::chrono::milliseconds(1);

/// Killed, but not gone yet when there was no more time to wait for them.
struct Late {
  std::mutex lock;
  std::vector<pid_t> pids;
};
Late& late() {
  static Late the_late;
  return the_late;
}

/// A copy that none of the child's numbers falls on.
UniqueFd copy_above(int fd) {
  return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 10));
}

int milliseconds_until(PluginProcess::Clock::time_point deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - PluginProcess::Clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1 << 30));
}

}  // namespace

Result<PluginProcess> PluginProcess::start(const std::string& host, int plugin_fd) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return fail_errno(errno, "can't make a socket for a policy plug-in");
  UniqueFd ours(ends[0]), low(ends[1]);
  const UniqueFd theirs = copy_above(low.get()), plugin = copy_above(plugin_fd);
  if (!theirs || !plugin) return fail_errno(errno, "can't make a socket for a policy plug-in");
  ::fcntl(ours.get(), F_SETFL, O_NONBLOCK);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, theirs.get(), kSocketFd);
  posix_spawn_file_actions_adddup2(&files, plugin.get(), kPluginFd);
  posix_spawn_file_actions_addclosefrom_np(&files, kPluginFd + 1);
  posix_spawnattr_t how;
  posix_spawnattr_init(&how);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&how, &none);
  posix_spawnattr_setsigdefault(&how, &all);
  // A session of its own: Ctrl-C is for its owner.
  posix_spawnattr_setflags(&how,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  std::string name = "thermocline-policy-host";
  char* arguments[] = {name.data(), nullptr};
  char* environment[] = {nullptr};
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, host.c_str(), &files, &how, arguments, environment);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&how);
  if (error != 0) return fail_errno(error, "can't run " + host);
  return PluginProcess(pid, std::move(ours));
}

PluginProcess::PluginProcess(PluginProcess&& o) noexcept
    : pid_(std::exchange(o.pid_, -1)), socket_(std::move(o.socket_)), last_cpu_(o.last_cpu_) {}

PluginProcess& PluginProcess::operator=(PluginProcess&& o) noexcept {
  if (this == &o) return *this;
  end();
  pid_ = std::exchange(o.pid_, -1);
  socket_ = std::move(o.socket_);
  last_cpu_ = o.last_cpu_;
  return *this;
}

PluginProcess::~PluginProcess() {
  end();
}

std::size_t PluginProcess::reap_late() {
  const std::lock_guard guard(late().lock);
  std::erase_if(late().pids, [](pid_t pid) { return ::waitpid(pid, nullptr, WNOHANG) != 0; });
  return late().pids.size();
}

void PluginProcess::end() {
  reap_late();
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  const auto deadline = Clock::now() + kLastWait;
  while (::waitpid(pid_, nullptr, WNOHANG) == 0) {
    if (Clock::now() >= deadline) {
      const std::lock_guard guard(late().lock);
      late().pids.push_back(pid_);
      break;
    }
    std::this_thread::sleep_for(kPoll);
  }
  pid_ = -1;
}

tl::unexpected<Error> PluginProcess::gone() {
  const auto deadline = Clock::now() + std::chrono::milliseconds(100);
  int status = 0;
  pid_t reaped = 0;
  rusage used{};
  while ((reaped = ::wait4(pid_, &status, WNOHANG, &used)) == 0 && Clock::now() < deadline)
    std::this_thread::sleep_for(kPoll);
  // Alive, or ending slowly: what it ended of stays what it was.
  const bool alive = reaped == 0;
  if (alive) {
    ::kill(pid_, SIGKILL);
    for (const auto end = Clock::now() + kLastWait; reaped == 0 && Clock::now() < end;) {
      std::this_thread::sleep_for(kPoll);
      reaped = ::wait4(pid_, &status, WNOHANG, &used);
    }
  }
  if (reaped != pid_) return fail(ErrorKind::kFailure, "closed its end of the socket");
  pid_ = -1;
  for (const timeval& time : {used.ru_utime, used.ru_stime})
    last_cpu_ += std::chrono::seconds(time.tv_sec) + std::chrono::microseconds(time.tv_usec);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
    return fail(ErrorKind::kFailure, "used CPU when it was not asked");
  if (alive && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
    return fail(ErrorKind::kFailure, "closed its end of the socket");
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
    return fail(
        ErrorKind::kFailure,
        "was ended by the kernel: it made a system call that a policy may not make, to open "
        "a socket or to start a thread or a program, say");
  if (WIFSIGNALED(status))
    return fail(ErrorKind::kFailure, "crashed ({})", ::strsignal(WTERMSIG(status)));
  return fail(ErrorKind::kFailure, "ended by itself, with exit code {}", WEXITSTATUS(status));
}

Status PluginProcess::transfer(std::span<std::byte> bytes, bool write, Clock::time_point deadline) {
  while (!bytes.empty()) {
    const ssize_t done = write ? ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL)
                               : ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
    if (done > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(done));
      continue;
    }
    if (done < 0 && errno == EINTR) continue;
    if (done == 0 || errno != EAGAIN) return gone();
    const int left = milliseconds_until(deadline);
    if (left == 0) return fail(ErrorKind::kFailure, "didn't answer in time");
    pollfd wait{socket_.get(), static_cast<short>(write ? POLLOUT : POLLIN), 0};
    ::poll(&wait, 1, left);
  }
  return {};
}

Status PluginProcess::send(FrameType type, std::span<const std::byte> payload,
                           Clock::time_point deadline) {
  if (pid_ < 0) return fail(ErrorKind::kFailure, "is gone");
  FrameHeader header;
  header.type = type;
  header.length = payload.size();
  TC_TRY(transfer(std::as_writable_bytes(std::span(&header, 1)), true, deadline));
  // transfer() writes from what it is given, never to it.
  return transfer({const_cast<std::byte*>(payload.data()), payload.size()}, true, deadline);
}

Result<Frame> PluginProcess::receive(std::uint64_t most, Clock::time_point deadline) {
  if (pid_ < 0) return fail(ErrorKind::kFailure, "is gone");
  FrameHeader header;
  TC_TRY(transfer(std::as_writable_bytes(std::span(&header, 1)), false, deadline));
  TC_TRY(check_header(header, most));
  Frame frame{header.type, std::vector<std::byte>(header.length)};
  TC_TRY(transfer(frame.payload, false, deadline));
  return frame;
}

bool PluginProcess::wait_for_input(Clock::time_point deadline) const {
  pollfd wait{socket_.get(), POLLIN, 0};
  return ::poll(&wait, 1, milliseconds_until(deadline)) > 0;
}

Nanoseconds PluginProcess::cpu_time() const {
  clockid_t clock{};
  timespec used{};
  if (pid_ < 0 || ::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &used) != 0)
    return last_cpu_;
  return std::chrono::seconds(used.tv_sec) + Nanoseconds(used.tv_nsec);
}

void PluginProcess::allow_cpu(Nanoseconds time) const {
  if (pid_ < 0) return;
  // Whole seconds are what the kernel counts in; a decision that takes no longer never sees it.
  const auto until = std::chrono::ceil<std::chrono::seconds>(cpu_time() + time).count() + 1;
  const rlimit limit{static_cast<rlim_t>(until), RLIM_INFINITY};
  ::prlimit(pid_, RLIMIT_CPU, &limit, nullptr);
}

Result<std::string> host_program() {
  namespace fs = std::filesystem;
  std::error_code ec;
  const fs::path self = fs::read_symlink("/proc/self/exe", ec).parent_path();
  const fs::path installed = self.parent_path() / "lib/thermocline/thermocline-policy-host";
  const fs::path built =
      self.parent_path().parent_path() / "policies/plugin/thermocline-policy-host";
  for (const fs::path& file : {installed, built})
    if (fs::exists(file, ec)) return file.string();
  return fail(ErrorKind::kUnsupported,
              "{}, in which policy plug-ins run, is not there; install it, or build it",
              installed.string());
}

}  // namespace thermocline::plugin
