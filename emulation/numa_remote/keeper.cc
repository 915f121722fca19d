// SPDX-License-Identifier: Apache-2.0
#include "emulation/numa_remote/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include <fmt/ranges.h>

#include "base/output.h"
#include "base/text.h"
#include "emulation/numa_remote/journal.h"
#include "emulation/numa_remote/kernel_files.h"

namespace thermocline::numa_remote {

namespace {

constexpr const char* kFolder = "/run/thermocline";
constexpr const char* kLock = "/run/thermocline/numa-remote.lock";
constexpr const char* kGroup = "/sys/fs/cgroup/thermocline-numa-remote";
constexpr std::size_t kLargestMessage = 1 << 16;

using Json = nlohmann::json;

bool send(int socket, const Json& message) {
  const std::string text = message.dump(-1, ' ', false, Json::error_handler_t::replace);
  return ::send(socket, text.data(), text.size(), MSG_NOSIGNAL) >= 0;
}

/// Nothing at the other end's death. Both ends are this program: what comes is well-formed.
std::optional<Json> receive(int socket) {
  std::string text(kLargestMessage, '\0');
  ssize_t n;
  do n = ::recv(socket, text.data(), text.size(), 0);
  while (n < 0 && errno == EINTR);
  if (n <= 0) return std::nullopt;
  text.resize(static_cast<std::size_t>(n));
  return Json::parse(text);
}

Json to_json(const Error& error) {
  return {{"kind", static_cast<int>(error.kind)}, {"message", error.message}};
}

/// Held by the keeper for its lifetime: one run at a time. `patient`: the holder has just died.
/// Without a journal the holder is about to begin, or has put everything back and ends: either is a
/// matter of moments.
Result<UniqueFd> take_lock(const System& system, bool patient) {
  std::error_code error;
  std::filesystem::create_directories(kFolder, error);
  UniqueFd lock(::open(kLock, O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!lock) return fail_errno(errno, fmt::format("can't open {}", kLock));
  for (int tries = 200; tries > 0; --tries) {
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
    if (!patient && system.exists(kStandInPath)) break;
    ::usleep(10'000);
  }
  return fail(ErrorKind::kFailure,
              "another `thermocline emulate numa-remote` is running: one at a time");
}

Result<Journal> read_journal(const System& system) {
  TC_ASSIGN(const std::string text, system.read_file(kStandInPath));
  auto journal = parse_journal(text);
  if (!journal)
    return fail(ErrorKind::kCorrupt,
                "{}: look at it, put back what it names by hand, and remove it",
                journal.error().message);
  return journal;
}

/// The journal goes when all it tells of is put back.
std::vector<std::string> undo(System& system, const Journal& journal) {
  auto problems = put_back(system, journal);
  if (problems.empty()) ::unlink(kStandInPath);
  return problems;
}

/// Folder of a process's cgroup (v2).
std::string group_of(const System& system, Pid pid) {
  const auto text = system.read_file(fmt::format("/proc/{}/cgroup", pid.get()));
  if (text)
    for (const std::string_view line : split(*text, '\n'))
      if (line.starts_with("0::/"))
        return fmt::format("{}{}", kGroups, line.size() == 4 ? "" : line.substr(3));
  return std::string(kGroups);
}

/// A cgroup that holds the command to the fast node's CPUs and to both nodes' memory, whatever
/// affinity its threads ask for.
Status make_group(System& system, Journal& journal, const Setting& setting,
                  const std::function<Status(const Journal&)>& save) {
  const std::string control = std::string(kGroups) + "/cgroup.subtree_control";
  if (!has_word(system, std::string(kGroups) + "/cgroup.controllers", "cpuset"))
    return fail(ErrorKind::kUnsupported, "there is no cgroup v2 with the cpuset controller at {}",
                kGroups);
  journal.enabled_cpusets = !has_word(system, control, "cpuset");
  TC_TRY(save(journal));
  if (journal.enabled_cpusets)
    if (Status enabled = system.write_file(control, "+cpuset"); !enabled) {
      journal.enabled_cpusets = false;
      TC_TRY(save(journal));
      return enabled;
    }
  journal.group = kGroup;
  TC_TRY(save(journal));
  if (::mkdir(kGroup, 0755) != 0 && errno != EEXIST)
    return fail_errno(errno, fmt::format("can't make the cgroup {}", kGroup));
  TC_TRY(system.write_file(std::string(kGroup) + "/cpuset.cpus", list_of(setting.cpus)));
  return system.write_file(std::string(kGroup) + "/cpuset.mems",
                           list_of(std::vector<NodeId>{setting.fast, setting.slow}));
}

Result<Kept> apply(System& system, Journal& journal, const Setting& setting,
                   std::optional<Bytes> fast_bytes, int socket) {
  Kept kept;
  LimitHooks hooks;
  hooks.save = [&](const Journal& j) { return write_whole(kStandInPath, journal_text(j)); };
  hooks.progress = [&](const std::string& text) { send(socket, {{"progress", text}}); };
  hooks.stopped = [&] {
    pollfd p{socket, POLLIN, 0};
    return ::poll(&p, 1, 0) > 0;
  };
  TC_TRY(hooks.save(journal));
  if (const Status made = make_group(system, journal, setting, hooks.save); made) {
    kept.group = kGroup;
  } else {
    kept.notes.push_back(fmt::format(
        "{}: threads that set an affinity of their own can leave node {}'s CPUs{}",
        made.error().message, setting.fast.get(),
        setting.left_out.empty() ? std::string()
                                 : fmt::format(", and memory of nodes {} is open to the command",
                                               list_of(setting.left_out))));
  }
  if (!kept.group.empty() && journal.group_back != kGroups)
    kept.notes.push_back(fmt::format(
        "the command has left the cgroup {}: limits of memory, CPU time or processes that are set "
        "there don't hold it",
        journal.group_back.substr(kGroups.size())));
  if (fast_bytes) {
    TC_ASSIGN(kept.limit, limit_fast(system, journal, *fast_bytes, hooks));
    if (kept.limit->offlined.get() != 0)
      kept.notes.push_back(
          "what other programs had in the memory that was taken offline was moved, perhaps to the "
          "slow node, and stays there");
  }
  return kept;
}

/// Nothing but SIGKILL ends it, it holds no file or folder, and memory that has become scarce takes
/// somebody else first.
void settle(System& system, int socket) {
  ::setsid();
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGTSTP, SIGUSR1, SIGUSR2})
    ::signal(signal, SIG_IGN);
  ::prctl(PR_SET_NAME, kKeeperName);
  static_cast<void>(system.write_file("/proc/self/oom_score_adj", "-1000"));
  // Whoever ends the starter's service or session by its cgroup shall not end this one.
  static_cast<void>(system.write_file(std::string(kGroups) + "/cgroup.procs", "0"));
  if (::chdir("/") != 0) ::_exit(1);
  const UniqueFd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int fd : {0, 1, 2}) ::dup2(nothing.get(), fd);
  if (socket > 3) ::close_range(3, static_cast<unsigned>(socket) - 1, 0);
  ::close_range(static_cast<unsigned>(socket) + 1, ~0u, 0);
}

/// The keeper's life. `orders`: nothing to adopt what a dead keeper did.
struct Orders {
  const Setting* setting = nullptr;
  std::optional<Bytes> fast_bytes;
};

[[noreturn]] void keep(System& system, int socket, Pid starter,
                       const std::optional<Orders>& orders) {
  settle(system, socket);
  Journal journal;
  bool begun = false;  // the journal is this process's own from here on
  const auto begin = [&]() -> Result<Kept> {
    if (!orders) {
      TC_ASSIGN(journal, read_journal(system));
      journal.who.keeper = Pid(::getpid());
      begun = true;
      TC_TRY(write_whole(kStandInPath, journal_text(journal)));
      return Kept();
    }
    std::vector<std::string> notes;
    if (system.exists(kStandInPath)) {
      TC_ASSIGN(const Journal old, read_journal(system));
      if (const auto problems = undo(system, old); !problems.empty())
        return fail(ErrorKind::kFailure,
                    "an earlier run was killed, and what it did could not be put back: {}",
                    fmt::join(problems, "; "));
      notes.push_back("an earlier run had been killed; what it had changed was put back first");
    }
    journal.who = {Pid(::getpid()), orders->setting->fast, orders->setting->slow};
    journal.group_back = group_of(system, starter);
    begun = true;
    auto kept = apply(system, journal, *orders->setting, orders->fast_bytes, socket);
    if (kept) kept->notes.insert(kept->notes.begin(), notes.begin(), notes.end());
    return kept;
  };
  const auto lock = take_lock(system, !orders);
  Result<Kept> kept = lock ? begin() : tl::make_unexpected(lock.error());
  if (kept) {
    Json ready = {{"group", kept->group}, {"notes", kept->notes}};
    if (kept->limit)
      ready["limit"] = {kept->limit->before.get(), kept->limit->left.get(),
                        kept->limit->offlined.get(), kept->limit->held.get()};
    send(socket, {{"ready", std::move(ready)}});
    static_cast<void>(receive(socket));  // the order to end, or the starter's death
  }
  const auto problems = begun ? undo(system, journal) : std::vector<std::string>();
  for (const std::string& problem : problems)
    ::syslog(LOG_WARNING, "thermocline emulate numa-remote: %s", problem.c_str());
  if (kept)
    send(socket, {{"ended", problems}});
  else
    send(socket, {{"failed", to_json(kept.error())}, {"ended", problems}});
  ::_exit(0);
}

/// Forks a keeper; the socket to it.
Result<std::pair<Pid, UniqueFd>> fork_keeper(System& system, const std::optional<Orders>& orders) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return fail_errno(errno, "can't make a socket");
  UniqueFd mine(ends[0]);
  UniqueFd its(ends[1]);
  const Pid me(::getpid());
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "can't start the supervisor");
  if (pid == 0) keep(system, its.get(), me, orders);
  return std::make_pair(Pid(pid), std::move(mine));
}

}  // namespace

Result<Keeper> Keeper::start(System& system, const Setting& setting,
                             std::optional<Bytes> fast_bytes, int stop,
                             const std::function<void(const std::string&)>& progress) {
  TC_ASSIGN(auto forked, fork_keeper(system, Orders{&setting, fast_bytes}));
  Keeper keeper(forked.first, std::move(forked.second));
  for (bool stopped = false;;) {
    pollfd fds[] = {{keeper.fd(), POLLIN, 0}, {stopped ? -1 : stop, POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR)
      return fail_errno(errno, "can't wait for the supervisor");
    if (fds[1].revents != 0) {
      stopped = true;  // it looks at its socket between two steps
      send(keeper.fd(), "end");
    }
    if (fds[0].revents == 0) continue;
    const auto message = receive(keeper.fd());
    if (!message) {
      ::waitpid(keeper.pid_.get(), nullptr, 0);
      // Whatever killed it: another one adopts what it did and puts it back at once.
      if (!system.exists(kStandInPath))
        return fail(ErrorKind::kFailure, "the supervisor died before it changed anything");
      TC_TRY(keeper.replace(system));
      const auto problems = keeper.end();
      if (problems.empty())
        return fail(ErrorKind::kFailure, "the supervisor died; what it had changed was put back");
      return fail(ErrorKind::kFailure, "the supervisor died; not put back: {}",
                  fmt::join(problems, "; "));
    }
    if (message->contains("progress")) {
      progress(message->at("progress").get<std::string>());
    } else if (message->contains("failed")) {
      ::waitpid(keeper.pid_.get(), nullptr, 0);
      const Json& failed = message->at("failed");
      Error error{static_cast<ErrorKind>(failed.at("kind").get<int>()),
                  failed.at("message").get<std::string>(), 0};
      for (const Json& problem : message->at("ended"))
        error.message += "; not put back: " + problem.get<std::string>();
      return tl::make_unexpected(std::move(error));
    } else if (message->contains("ready")) {
      const Json& ready = message->at("ready");
      keeper.kept_.group = ready.at("group").get<std::string>();
      keeper.kept_.notes = ready.at("notes").get<std::vector<std::string>>();
      if (ready.contains("limit")) {
        const auto n = ready["limit"].get<std::vector<std::uint64_t>>();
        keeper.kept_.limit = Limit{Bytes(n[0]), Bytes(n[1]), Bytes(n[2]), Bytes(n[3])};
      }
      return keeper;
    }
  }
}

Status Keeper::replace(System& system) {
  if (pid_.get() > 0) ::waitpid(pid_.get(), nullptr, 0);
  TC_ASSIGN(auto forked, fork_keeper(system, std::nullopt));
  pid_ = forked.first;
  socket_ = std::move(forked.second);
  const auto message = receive(socket_.get());
  if (!message || !message->contains("ready"))
    return fail(ErrorKind::kFailure, "the supervisor died, and another could not take over{}",
                message ? ": " + message->at("failed").at("message").get<std::string>() : "");
  return {};
}

std::vector<std::string> Keeper::end() {
  send(socket_.get(), "end");
  const auto message = receive(socket_.get());
  ::waitpid(pid_.get(), nullptr, 0);
  if (!message)
    return {"the supervisor died; `thermocline emulate numa-remote --restore` puts things back"};
  return message->at("ended").get<std::vector<std::string>>();
}

Result<bool> restore(System& system) {
  TC_ASSIGN(const UniqueFd lock, take_lock(system, false));
  if (!system.exists(kStandInPath)) return false;
  TC_ASSIGN(const Journal journal, read_journal(system));
  const auto problems = undo(system, journal);
  if (!problems.empty())
    return fail(ErrorKind::kFailure, "could not be put back: {}", fmt::join(problems, "; "));
  return true;
}

}  // namespace thermocline::numa_remote
