// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/suite/server.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/system.h"
#include "base/text.h"
#include "bench/workloads/common.h"

namespace thermocline::workloads {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

namespace {
constexpr milliseconds kPoll{5};
/// An emulated guest takes its time.
constexpr milliseconds kToStart{30'000};
/// Between the end of a connection and the end of the process that had it.
constexpr milliseconds kToEnd{1'000};

bool is_program(const std::string& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored) && ::access(path.c_str(), X_OK) == 0;
}
}  // namespace

Result<std::string> find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (is_program(name)) return name;
    return fail(ErrorKind::kUnsupported, "there is no program {}", printable(name));
  }
  const char* const path = std::getenv("PATH");
  for (const std::string_view folder : split(path == nullptr ? "" : path, ':'))
    if (std::string file = fmt::format("{}/{}", folder, name); !folder.empty() && is_program(file))
      return file;
  return fail(ErrorKind::kUnsupported,
              "there is no {} in the folders of PATH; install it, or name it with --program FILE",
              printable(name));
}

Result<std::unique_ptr<Server>> Server::start(const Launch& launch) {
  TC_ASSIGN(const std::string program,
            find_program(launch.program.empty() ? launch.name : launch.program));
  std::unique_ptr<Server> server(new Server);
  server->name_ = launch.name;
  std::error_code error;
  std::string folder = (fs::temp_directory_path(error) / "workload-XXXXXX").string();
  if (error || ::mkdtemp(folder.data()) == nullptr)
    return fail_errno(errno, "can't make a temporary folder " + folder);
  server->folder_ = folder;

  std::array<int, 2> ends{-1, -1};
  if (launch.by_standard_input) {
    // Not a pipe: writing to a program that has ended must not be a signal.
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
      return fail_errno(errno, "can't make a socket");
    server->channel_.emplace(UniqueFd(ends[0]));
  }
  const UniqueFd input(ends[1]);
  TC_TRY(server->spawn(program, launch, input.get()));
  if (!launch.by_standard_input) {
    TC_TRY(server->wait_for_socket(folder + "/socket"));
  }
  return server;
}

Status Server::spawn(const std::string& program, const Launch& launch, int input) {
  // The child runs in its own folder.
  const std::string file = fs::absolute(program).string();
  std::vector<std::string> arguments = launch.arguments(folder_ + "/socket");
  arguments.insert(arguments.begin(), launch.name);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd log(
      ::open((folder_ + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!nothing || !log) return fail_errno(errno, "can't write to " + folder_);

  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "can't start " + launch.name);
  if (child > 0) {
    pid_ = Pid(child);
    return {};
  }
  // Child: only async-signal-safe calls from here.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  ::setpgid(0, 0);  // Ctrl-C is for `workload`, which then still needs its server
  if (!launch.huge_pages) ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
  ::dup2(input >= 0 ? input : nothing.get(), STDIN_FILENO);
  ::dup2(input >= 0 ? input : log.get(), STDOUT_FILENO);
  ::dup2(log.get(), STDERR_FILENO);
  if (::chdir(folder_.c_str()) == 0) ::execv(file.c_str(), argv.data());
  constexpr std::string_view kSorry = "it can't be executed\n";
  if (::write(STDERR_FILENO, kSorry.data(), kSorry.size()) < 0) ::_exit(126);
  ::_exit(127);
}

Status Server::wait_for_socket(const std::string& path) {
  for (milliseconds waited{0};; waited += kPoll) {
    Result<Channel> channel = Channel::connect_unix(path);
    if (channel) {
      channel_.emplace(std::move(*channel));
      return {};
    }
    if (const auto how = ending())
      return fail(ErrorKind::kFailure, "{} {} at its start; it said: {}", name_, *how,
                  last_words());
    if (stop_requested) return fail(ErrorKind::kFailure, "stopped before {} was ready", name_);
    const int error = channel.error().errno_value;
    if ((error != ENOENT && error != ECONNREFUSED) || waited >= kToStart)
      return tl::make_unexpected(explain(std::move(channel).error()));
    std::this_thread::sleep_for(kPoll);
  }
}

Server::~Server() {
  if (pid_.get() > 0 && !reaped_) {
    // It has nothing to save.
    ::kill(pid_.get(), SIGKILL);
    while (::waitpid(pid_.get(), nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  std::error_code ignored;
  if (!folder_.empty()) fs::remove_all(folder_, ignored);
}

std::string Server::comm() const {
  const auto comm = make_real_system()->read_file(fmt::format("/proc/{}/comm", pid_.get()));
  return comm ? printable(trim(*comm)) : name_;
}

Result<Bytes> Server::resident() const {
  TC_ASSIGN(const std::string statm,
            make_real_system()->read_file(fmt::format("/proc/{}/statm", pid_.get())));
  const auto fields = words(statm);
  if (fields.size() < 3) return fail(ErrorKind::kCorrupt, "/proc/{}/statm is odd", pid_.get());
  TC_ASSIGN(const std::uint64_t resident, parse_u64(fields[1]));
  TC_ASSIGN(const std::uint64_t shared, parse_u64(fields[2]));
  return Bytes((resident - std::min(shared, resident)) * kPageSize);
}

std::optional<std::string> Server::ending() {
  int status = 0;
  if (reaped_ || ::waitpid(pid_.get(), &status, WNOHANG) != pid_.get()) return std::nullopt;
  reaped_ = true;
  if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
  return fmt::format("ended with exit code {}", WEXITSTATUS(status));
}

Error Server::explain(Error error) {
  for (milliseconds waited{0}; waited < kToEnd; waited += kPoll) {
    if (const auto how = ending()) {
      const std::string words = last_words();
      error.kind = ErrorKind::kFailure;
      error.message = fmt::format("{} (process {}) {}{}{}", name_, pid_.get(), *how,
                                  words.empty() ? "" : "; it said last: ", words);
      break;
    }
    std::this_thread::sleep_for(kPoll);
  }
  return error;
}

std::string Server::last_words() const {
  const auto log = make_real_system()->read_file(folder_ + "/log");
  if (!log) return {};
  const std::string_view text = trim(*log);
  return printable(text.substr(text.rfind('\n') + 1));
}

}  // namespace thermocline::workloads
