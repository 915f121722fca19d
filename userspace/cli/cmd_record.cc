// SPDX-License-Identifier: Apache-2.0
// `thermocline record`: what processes touch, window by window, into a trace.
#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/system.h"
#include "base/text.h"
#include "cli/command.h"
#include "topology/topology.h"
#include "trace/recorder.h"
#include "trace/trace_writer.h"

namespace thermocline::cli {

namespace {

struct RecordOptions {
  std::optional<std::int32_t> pid;
  std::string cgroup, out, tracker = "auto", window = "100ms", duration;
  bool append = false;
  std::vector<std::string> command;
};

constexpr std::array kEndings = {SIGINT, SIGTERM, SIGHUP};
constexpr Nanoseconds kProgress = std::chrono::seconds(10);
constexpr std::string_view kCgroups = "/sys/fs/cgroup";

void say(const std::string& text) {
  fmt::print(stderr, "thermocline: record: {}\n", text);
}

/// Signals that end the recording come through a descriptor while this lives.
class Endings {
 public:
  Endings() {
    sigset_t set;
    sigemptyset(&set);
    for (const int number : kEndings) sigaddset(&set, number);
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
    fd_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    ::signal(SIGXFSZ, SIG_IGN);  // a file at its limit is a failed write, not the end
  }
  ~Endings() { restore(); }
  Endings(const Endings&) = delete;
  Endings& operator=(const Endings&) = delete;
  /// For a child, before it becomes another program.
  void restore() const {
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    ::signal(SIGXFSZ, SIG_DFL);
  }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::optional<signalfd_siginfo> take() const {
    signalfd_siginfo info{};
    if (::read(fd_.get(), &info, sizeof(info)) != static_cast<ssize_t>(sizeof(info)))
      return std::nullopt;
    return info;
  }

 private:
  sigset_t before_{};
  UniqueFd fd_;
};

/// A program that was started here.
class Child {
 public:
  /// Returns when it has become that program. kFailure when it can't.
  static Result<Child> start(System& system, const std::vector<std::string>& command,
                             const Endings& endings) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "can't make a pipe");
    const UniqueFd failed(ends[0]);
    UniqueFd told(ends[1]);
    std::vector<char*> words;
    for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid < 0) return fail_errno(errno, "can't start " + command[0]);
    if (pid == 0) {
      endings.restore();
      ::execvp(words[0], words.data());
      const int error = errno;
      (void)!::write(told.get(), &error, sizeof(error));
      ::_exit(127);
    }
    told.reset();
    int error = 0;
    ssize_t n = 0;
    do {
      n = ::read(failed.get(), &error, sizeof(error));
    } while (n < 0 && errno == EINTR);
    Child child(pid);
    if (n == static_cast<ssize_t>(sizeof(error))) {
      child.reap(0);
      return fail_errno(error, "can't run " + command[0]);
    }
    TC_ASSIGN(child.pidfd_, system.pidfd_open(Pid(pid)));
    return child;
  }

  [[nodiscard]] Pid pid() const { return Pid(pid_); }
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  void signal(int number) const { ::kill(pid_, number); }
  /// Its exit code, 128 + signal when that ended it; nullopt while it runs.
  std::optional<int> reap(int flags) {
    int status = 0;
    pid_t got = 0;
    do {
      got = ::waitpid(pid_, &status, flags);
    } while (got < 0 && errno == EINTR);
    if (got != pid_) return std::nullopt;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  explicit Child(pid_t pid) : pid_(pid) {}
  pid_t pid_;
  UniqueFd pidfd_;
};

/// A process and all that it started, as far as they are still its children's children.
void add_family(const System& system, Pid pid, std::vector<ProcessIdentity>& family) {
  auto process = identify_process(system, pid);
  if (!process) return;
  family.push_back(std::move(*process));
  const std::string folder = fmt::format("/proc/{}/task", pid.get());
  const auto threads = system.list_dir(folder);
  if (!threads) return;
  for (const std::string& thread : *threads) {
    const auto children = system.read_file(folder + "/" + thread + "/children");
    if (!children) continue;
    for (const std::string_view word : words(*children))
      if (const auto number = parse_u64(word))
        add_family(system, Pid(static_cast<std::int32_t>(*number)), family);
  }
}

trace::SessionInfo describe_session(const System& system, const std::string& tracker,
                                    Nanoseconds window, const std::vector<std::string>& command) {
  trace::SessionInfo session;
  session.made_by = std::string("thermocline ") + THERMOCLINE_VERSION;
  session.source = tracker;
  for (const TrackerFactory& factory : tracker_factories()) {
    if (factory.name != tracker) continue;
    session.grain = to_string(factory.abilities.grain);
    session.sees_reads = factory.abilities.sees_reads;
  }
  session.window = window;
  session.unix_ns = static_cast<std::uint64_t>(
      std::chrono::duration_cast<Nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
  trace::describe_machine(system, session);
  if (const auto topology = discover(system))
    for (const Tier& tier : topology->tiers)
      session.tiers.push_back({tier.name, tier.nodes, tier.total});
  session.command = command;
  return session;
}

Result<TargetSelector> selector_of(const System& system, const RecordOptions& o) {
  TargetSelector selector;
  if (o.pid) {
    selector.pid = Pid(*o.pid);
    std::vector<TargetSelector> one{selector};
    TC_TRY(pin_targets(system, one));
    return one.front();
  }
  std::string group = o.cgroup;
  if (group.starts_with(kCgroups)) group.erase(0, kCgroups.size());
  if (!group.starts_with('/')) group = "/" + group;
  if (!system.exists(std::string(kCgroups) + group))
    return fail(ErrorKind::kNotFound, "there is no cgroup {}{}", kCgroups, group);
  selector.cgroup = group;
  return selector;
}

/// What a run of the recorder is about, and how it ends.
class Session {
 public:
  Session(System& system, trace::Recorder& recorder, const Endings& endings, Child* child,
          std::optional<Nanoseconds> duration, bool ends_with_targets)
      : system_(system),
        recorder_(recorder),
        endings_(endings),
        child_(child),
        duration_(duration),
        ends_with_targets_(ends_with_targets) {}

  /// Why it ended, for the trace.
  Result<std::string> run(const trace::TraceWriter& writer) {
    const Nanoseconds begin = system_.now();
    Nanoseconds next_progress = begin + kProgress;
    for (;;) {
      const Nanoseconds now = system_.now();
      if (duration_ && now - begin >= *duration_) return "duration";
      TC_ASSIGN(Nanoseconds next, recorder_.step(now));
      const trace::Recorder::Counts& counts = recorder_.counts();
      if (ends_with_targets_ && counts.processes == 0) return "targets gone";
      if (now >= next_progress) {
        say(
            fmt::format("{} windows, {} processes, {} of {} pages touched in the last one, {} in "
                        "the trace",
                        counts.windows, counts.processes, counts.accessed, counts.entries,
                        format_bytes(writer.size())));
        next_progress = now + kProgress;
      }
      if (duration_) next = std::min(next, begin + *duration_);
      if (wait_until(next)) return reason_;
    }
  }
  [[nodiscard]] std::optional<int> exit_code() const { return exit_code_; }

 private:
  /// True when the recording is over.
  bool wait_until(Nanoseconds time) {
    for (;;) {
      const Nanoseconds left = time - system_.now();
      if (left.count() <= 0) return false;
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
      const timespec timeout{seconds.count(), (left - seconds).count()};
      pollfd fds[] = {{endings_.fd(), POLLIN, 0}, {child_ ? child_->pidfd() : -1, POLLIN, 0}};
      if (::ppoll(fds, 2, &timeout, nullptr) <= 0) continue;
      if (fds[1].revents != 0) {
        exit_code_ = child_->reap(0);
        reason_ = "command ended";
        return true;
      }
      while (const auto signal = endings_.take()) {
        reason_ = "interrupted";
        // What a terminal sends goes to the command as well. It ends the recording when it ends;
        // who asks twice need not wait.
        if (child_ == nullptr || std::exchange(asked_, true)) return true;
        if (signal->ssi_code != SI_KERNEL) child_->signal(static_cast<int>(signal->ssi_signo));
      }
    }
  }

  System& system_;
  trace::Recorder& recorder_;
  const Endings& endings_;
  Child* child_;
  std::optional<Nanoseconds> duration_;
  bool ends_with_targets_;
  bool asked_ = false;
  std::string reason_;
  std::optional<int> exit_code_;
};

Status check_usage(const RecordOptions& o) {
  const int ways = (o.pid ? 1 : 0) + (o.cgroup.empty() ? 0 : 1) + (o.command.empty() ? 0 : 1);
  if (ways != 1)
    return fail(ErrorKind::kUsage,
                "say what to record, by one of --pid PID, --cgroup DIR and -- COMMAND");
  return {};
}

Result<Nanoseconds> duration_option(const char* name, const std::string& text) {
  const auto time = parse_duration(text);
  if (!time || *time < std::chrono::milliseconds(1) || *time > std::chrono::hours(24 * 365))
    return fail(ErrorKind::kUsage, "{} {}: give a time of 1ms or more, such as 100ms or 5min", name,
                text);
  return *time;
}

Result<int> record(const RecordOptions& o) {
  TC_TRY(check_usage(o));
  TC_ASSIGN(const Nanoseconds window, duration_option("--window", o.window));
  std::optional<Nanoseconds> duration;
  if (!o.duration.empty()) {
    TC_ASSIGN(duration, duration_option("--duration", o.duration));
  }
  const auto system = make_real_system();
  TargetSelector selector;
  if (o.command.empty()) {
    TC_ASSIGN(selector, selector_of(*system, o));
  }
  // Every page is told in every window, and windows are the recorder's.
  TrackerOptions tracker_options;
  tracker_options.continuous = false;
  tracker_options.prune = false;
  std::vector<ProcessIdentity> first;
  if (o.command.empty()) {
    TC_ASSIGN(first, find_targets(*system, selector));
  }
  TC_ASSIGN(auto tracker, make_tracker(*system, o.tracker, tracker_options, first));
  trace::TraceWriter::Options options;
  options.append = o.append;
  TC_ASSIGN(const auto writer, trace::TraceWriter::open(o.out, options));
  if (writer->cut_bytes() > 0)
    say(fmt::format("{}: cut off {} bytes that a recorder left half-written", o.out,
                    writer->cut_bytes()));

  const Endings endings;
  std::optional<Child> child;
  if (!o.command.empty()) {
    auto started = Child::start(*system, o.command, endings);
    if (!started) {
      if (!o.append) ::unlink(o.out.c_str());  // made just now, and empty
      return tl::make_unexpected(started.error());
    }
    child.emplace(std::move(*started));
  }
  const std::string tracker_name = tracker->name();
  writer->info(to_json(describe_session(*system, tracker_name, window, o.command)));
  const auto targets = [&]() -> Result<std::vector<ProcessIdentity>> {
    if (!child) return find_targets(*system, selector);
    std::vector<ProcessIdentity> family;
    add_family(*system, child->pid(), family);
    return family;
  };
  trace::Recorder recorder({*system, std::move(tracker), *writer, targets, say}, window);
  say(fmt::format("with tracker {}{}, windows of {} or more, to {}{}", tracker_name,
                  o.tracker == "auto" ? " (`thermocline trackers` says why)" : "",
                  format_duration(window), o.out,
                  writer->io_name() == "io_uring" ? "" : ", without io_uring"));
  Session session(*system, recorder, endings, child ? &*child : nullptr, duration,
                  o.cgroup.empty() && !child);
  const auto reason = session.run(*writer);
  const trace::Recorder::Counts& counts = recorder.counts();
  Status finished = reason ? Status() : tl::make_unexpected(reason.error());
  if (reason)
    writer->info(to_json(trace::EndInfo{*reason, counts.windows, writer->lost_records()}));
  if (const Status written = writer->finish(); finished && !written) finished = written;
  if (finished && counts.records == 0 && recorder.trouble())
    finished = tl::make_unexpected(*recorder.trouble());
  if (finished)
    say(fmt::format("{} windows, {} records, {} in {}", counts.windows, counts.records,
                    format_bytes(writer->size()), o.out));
  if (writer->lost_records() > 0)
    say(fmt::format("the disk was too slow: {} records were lost", writer->lost_records()));
  if (child) {
    std::optional<int> code = session.exit_code();
    if (!code) {
      // The recording is over, the command isn't: what it does is still passed on.
      if (!finished) say(finished.error().message);
      while (!(code = child->reap(WNOHANG))) {
        pollfd fds[] = {{child->pidfd(), POLLIN, 0}, {endings.fd(), POLLIN, 0}};
        ::poll(fds, 2, -1);
        while (const auto signal = endings.take())
          if (signal->ssi_code != SI_KERNEL) child->signal(static_cast<int>(signal->ssi_signo));
      }
    } else if (!finished) {
      say(finished.error().message);
    }
    return *code == 0 && !finished ? static_cast<int>(finished.error().exit_code()) : *code;
  }
  if (!finished) return tl::make_unexpected(finished.error());
  return 0;
}

}  // namespace

void register_record(CLI::App& app, Context& context) {
  auto options = std::make_shared<RecordOptions>();
  CLI::App* verb =
      app.add_subcommand("record", "record what processes touch, window by window, as a trace");
  verb->add_option("--pid", options->pid, "record this process")->type_name("PID");
  verb->add_option("--cgroup", options->cgroup, "record all processes at or below this cgroup")
      ->type_name("DIR");
  verb->add_option("-o,--out", options->out, "trace to write (.tct)")
      ->type_name("FILE")
      ->required();
  verb->add_flag("--append", options->append, "continue a trace that is there");
  verb->add_option("--tracker", options->tracker,
                   "source of access records; auto: the best that works here")
      ->type_name("NAME")
      ->capture_default_str();
  verb->add_option("--window", options->window, "time between clearing accessed bits and reading")
      ->type_name("TIME")
      ->capture_default_str();
  verb->add_option("--duration", options->duration,
                   "end after this time; default: when the processes have gone, or at Ctrl-C")
      ->type_name("TIME");
  verb->add_option("command", options->command, "run this and record it and what it starts")
      ->type_name("-- COMMAND");
  verb->callback([&context, options] { context.action = [options] { return record(*options); }; });
}

}  // namespace thermocline::cli
