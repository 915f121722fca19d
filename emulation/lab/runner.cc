// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/runner.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "base/output.h"
#include "base/system.h"
#include "base/text.h"
#include "emulation/lab/emulator_fault.h"
#include "emulation/lab/files.h"
#include "emulation/lab/guest_image.h"
#include "emulation/lab/host_clock.h"
#include "emulation/lab/kernel_log.h"
#include "emulation/lab/sign_of_life.h"
#include "emulation/timing/profile.h"

namespace thermocline::lab {

namespace fs = std::filesystem;

namespace {

constexpr const char* kQemu = "qemu-system-x86_64";
constexpr std::size_t kLogLines = 60;
constexpr std::uint64_t kModelledKhz = 1'000'000;

struct Pipe {
  UniqueFd reader;
  UniqueFd writer;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "can't make a pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

/// Bytes in memory that QEMU opens by descriptor: nothing is left on a disk.
Result<UniqueFd> memory_file(const char* name, std::initializer_list<std::string_view> parts) {
  UniqueFd fd(::memfd_create(name, 0));
  if (!fd) return fail_errno(errno, "can't make a file in memory for the guest");
  for (const std::string_view part : parts)
    if (const int error = write_fully(fd.get(), part); error != 0)
      return fail_errno(error, fmt::format("can't fill the {} for the guest", name));
  return fd;
}

/// A deterministic guest gets the same number in every run: it would count other instructions with
/// another.
Result<std::string> make_nonce(bool deterministic) {
  if (deterministic) return "tc-" + std::string(32, '0');
  std::array<std::uint64_t, 2> random{};
  if (::getrandom(random.data(), sizeof random, 0) != sizeof random)
    return fail_errno(errno, "can't get random bytes");
  return fmt::format("tc-{:016x}{:016x}", random[0], random[1]);
}

std::string double_commas(const std::string& text) {
  std::string out;
  for (const char c : text) {
    out += c;
    if (c == ',') out += c;
  }
  return out;
}

/// Blocks the signals that end a run and restores the mask afterwards.
class SignalBlock {
 public:
  SignalBlock() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
    ::sigprocmask(SIG_BLOCK, &set, &old_);
    fd_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC));
  }
  ~SignalBlock() { ::sigprocmask(SIG_SETMASK, &old_, nullptr); }
  SignalBlock(const SignalBlock&) = delete;
  SignalBlock& operator=(const SignalBlock&) = delete;
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const sigset_t& old() const { return old_; }
  [[nodiscard]] int take() const {
    signalfd_siginfo info{};
    return ::read(fd_.get(), &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo)
                                                                : SIGTERM;
  }

 private:
  sigset_t old_{};
  UniqueFd fd_;
};

/// A running QEMU; killed when this goes.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      wait();
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  void kill() const { ::kill(pid_, SIGKILL); }
  /// The signal that ended it, or 0.
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }

 private:
  pid_t pid_;
};

/// `preload`: a library for the dynamic linker to load first; empty: none.
pid_t start(const std::vector<std::string>& arguments, const std::string& preload,
            std::span<const int> keep_open, int stderr_fd, bool own_group, const sigset_t& mask) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::string variable = "LD_PRELOAD=" + preload;
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; ++entry)
    if (preload.empty() || !std::string_view(*entry).starts_with("LD_PRELOAD="))
      environment.push_back(*entry);
  if (!preload.empty()) environment.push_back(variable.data());
  environment.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  // Child: only async-signal-safe calls from here.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  // Its own group: Ctrl-C comes to us alone, and we end it in order.
  if (own_group) ::setpgid(0, 0);
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  if (own_group) {
    const int null = ::open("/dev/null", O_RDWR);
    ::dup2(null, STDIN_FILENO);
    ::dup2(null, STDOUT_FILENO);
  }
  ::dup2(stderr_fd, STDERR_FILENO);
  for (const int fd : keep_open) ::fcntl(fd, F_SETFD, 0);
  ::execvpe(argv[0], argv.data(), environment.data());
  ::_exit(127);
}

/// A stream that is read to its end.
struct Stream {
  UniqueFd fd;
  std::function<void(std::string_view)> take;
};

/// What QEMU reads, by descriptor.
struct Inputs {
  int initrd = -1;
  int plan = -1;  ///< of the timing model; -1: without
  std::string plugin;
};

/// Ends of pipes that QEMU writes to.
struct GuestFds {
  int console;
  int control;
  int output;
};

std::vector<std::string> qemu_arguments(const RunSpec& spec, const Machine& machine,
                                        const GuestKernel& kernel, const Inputs& inputs,
                                        std::uint64_t counter_khz, const GuestFds& fds) {
  std::vector<std::string> arguments = {kQemu};
  arguments.insert(arguments.end(), machine.qemu.begin(), machine.qemu.end());
  const auto add = [&arguments](std::initializer_list<std::string> more) {
    arguments.insert(arguments.end(), more);
  };
  add({"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"});
  add({"-kernel", kernel.image.string(), "-initrd",
       fmt::format("/proc/self/fd/{}", inputs.initrd)});
  const std::array<std::string_view, 10> kernel_words = {
      "console=ttyS0",
      "loglevel=5",  // warnings reach the console
      "panic=-1",    // with -no-reboot, a panic ends QEMU
      "oops=panic",
      // A busy host delivers the emulated timer late, which the kernel takes for a broken board.
      "no_timer_check",
      // It also stops an emulated CPU for many seconds: lock-ups and stalls are those of a minute.
      "watchdog_thresh=30",
      "rcupdate.rcu_cpu_stall_timeout=60",
      // What costs most under emulation: clock reads through a trap, zeroing twice, tests of
      // ciphers nobody uses.
      "tsc=reliable",
      "init_on_alloc=0",
      "cryptomgr.notests=1",
  };
  std::string append =
      fmt::format("{} tsc_early_khz={}", fmt::join(kernel_words, " "), counter_khz);
  if (spec.timing && spec.timing->mode == timing::Mode::kReference)
    append += " nokaslr norandmaps";
  else if (spec.timing && spec.timing->truth.profile.count() != 0)
    append += " nokaslr";  // functions must be where their addresses were read
  // Servers with CXL need no page-table isolation and the like: their processors are not
  // vulnerable, and the emulated one has no PCID that would keep its price down.
  if (spec.timing) append += " mitigations=off";
  add({"-append", fmt::format("{} {}", append, fmt::join(spec.append, " "))});
  if (inputs.plan >= 0)
    add({"-plugin",
         fmt::format("file={},plan=/proc/self/fd/{}", double_commas(inputs.plugin), inputs.plan)});
  const auto serial = [&](const char* id, int fd) {
    add({"-chardev", fmt::format("file,id={},path=/proc/self/fd/{}", id, fd), "-serial",
         fmt::format("chardev:{}", id)});
  };
  serial("console", fds.console);
  if (spec.interactive)
    add({"-chardev", "stdio,id=terminal,signal=off", "-serial", "chardev:terminal"});
  else
    serial("output", fds.output);
  serial("control", fds.control);
  add({"-device", "isa-debug-exit,iobase=0xf4,iosize=1"});
  if (!spec.out_dir.empty())
    // On the root bus by name: QEMU's own choice may be the CXL host bridge, which takes no such
    // device.
    add({"-fsdev",
         fmt::format("local,id=out,path={},security_model=none",
                     double_commas(fs::absolute(spec.out_dir).string())),
         "-device", "virtio-9p-pci,bus=pcie.0,fsdev=out,mount_tag=out"});
  arguments.insert(arguments.end(), spec.qemu_args.begin(), spec.qemu_args.end());

  return arguments;
}

/// How one boot went.
struct Outcome {
  GuestStory story;
  int signal = 0;  ///< that ended it, or 0
  bool closed_stdout = false;
  bool ended = false;          ///< by us: too long, or stuck at boot
  bool stuck_at_boot = false;  ///< the kernel reported trouble before the command began
  [[nodiscard]] bool failed_at_boot() const { return stuck_at_boot && !story.ready && signal == 0; }
};

/// How long a kernel that reported trouble at boot may go on: its report has more than one line.
constexpr std::chrono::seconds kLastWords{5};

Result<Outcome> boot_guest(const RunSpec& spec, const Machine& machine, const GuestKernel& kernel,
                           const Inputs& inputs, const std::string& nonce,
                           std::uint64_t counter_khz, bool last_try) {
  TC_ASSIGN(Pipe console, make_pipe());
  TC_ASSIGN(Pipe control, make_pipe());
  TC_ASSIGN(Pipe output, make_pipe());
  TC_ASSIGN(Pipe errors, make_pipe());

  const std::vector<std::string> arguments =
      qemu_arguments(spec, machine, kernel, inputs, counter_khz,
                     {console.writer.get(), control.writer.get(), output.writer.get()});
  const SignalBlock signals;
  std::vector<int> keep = {inputs.initrd, console.writer.get(), control.writer.get(),
                           output.writer.get()};
  if (inputs.plan >= 0) keep.push_back(inputs.plan);
  // See gettimeofday() in the plug-in.
  const bool reference = spec.timing && spec.timing->mode == timing::Mode::kReference;
  const pid_t pid = start(arguments, reference ? inputs.plugin : "", keep, errors.writer.get(),
                          !spec.interactive, signals.old());
  if (pid < 0) return fail_errno(errno, "can't start QEMU");
  Child qemu(pid);
  for (Pipe* pipe : {&console, &control, &output, &errors}) pipe->writer.reset();
  if (spec.machine.profile == Profile::kCxl && !spec.machine.layout)
    if (const Result<unsigned> mended = mend_emulator(pid); !mended)
      fmt::print(stderr,
                 "thermocline: lab: QEMU could not be mended ({}): it may crash when a program's "
                 "stack lies on CXL memory; docs/lab.md tells why\n",
                 mended.error().message);

  Outcome outcome;
  GuestStory& story = outcome.story;
  story.timeout = spec.timeout;
  std::string control_text;
  const auto start_time = std::chrono::steady_clock::now();
  auto deadline = start_time + spec.timeout;
  SignOfLife life(::isatty(STDERR_FILENO) != 0, start_time);
  const auto say = [](const std::string& text) { (void)write_fully(STDERR_FILENO, text); };
  // The kernel's log is a sign of its own.
  if (!spec.verbose) say(life.begin("booting the guest", start_time));
  std::array<Stream, 4> streams = {{
      {std::move(console.reader),
       [&](std::string_view data) {
         story.kernel_log += data;
         if (spec.verbose) (void)write_fully(STDERR_FILENO, data);
         if (story.ready || last_try || outcome.stuck_at_boot ||
             trouble_in(story.kernel_log).empty())
           return;
         outcome.stuck_at_boot = true;
         deadline = std::min(deadline, std::chrono::steady_clock::now() + kLastWords);
       }},
      {std::move(control.reader),
       [&](std::string_view data) {
         control_text += data;
         for (auto end = control_text.find('\n'); end != std::string::npos;
              end = control_text.find('\n')) {
           const bool booting = !story.ready;
           story.take_control_line(control_text.substr(0, end), nonce);
           control_text.erase(0, end + 1);
           if (booting && story.ready && !spec.verbose)
             say(life.begin(spec.doing, std::chrono::steady_clock::now()));
         }
       }},
      {std::move(output.reader),
       [&](std::string_view data) {
         if (spec.output)
           spec.output(data);
         else
           outcome.closed_stdout = outcome.closed_stdout || write_fully(STDOUT_FILENO, data) != 0;
       }},
      {std::move(errors.reader), [&](std::string_view data) { story.qemu_error += data; }},
  }};

  for (;;) {
    std::array<pollfd, 5> fds{};
    bool any = false;
    for (std::size_t i = 0; i < streams.size(); ++i) {
      fds[i] = {streams[i].fd.get(), POLLIN, 0};
      any = any || streams[i].fd;
    }
    if (!any) break;
    fds[4] = {signals.fd(), POLLIN, 0};
    const bool limited = !spec.interactive && !outcome.ended && outcome.signal == 0;
    const auto until = limited ? std::min(deadline, life.next()) : life.next();
    int wait_ms = -1;
    if (until != SignOfLife::Time::max()) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
      wait_ms = static_cast<int>(std::max<std::int64_t>(left.count(), 0));
    }
    const int ready = ::poll(fds.data(), fds.size(), wait_ms);
    const auto now = std::chrono::steady_clock::now();
    say(life.tell(now));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) {
      if (!limited || now < deadline) continue;
      story.timed_out = !outcome.stuck_at_boot;
      outcome.ended = true;
      qemu.kill();
      continue;
    }
    if ((fds[4].revents & POLLIN) != 0 && outcome.signal == 0) {
      outcome.signal = signals.take();
      qemu.kill();
    }
    for (std::size_t i = 0; i < streams.size(); ++i) {
      if (!streams[i].fd || (fds[i].revents & (POLLIN | POLLHUP | POLLERR)) == 0) continue;
      std::array<char, 16384> buffer;
      const ssize_t n = ::read(streams[i].fd.get(), buffer.data(), buffer.size());
      if (n > 0)
        streams[i].take({buffer.data(), static_cast<std::size_t>(n)});
      else if (n == 0 || errno != EINTR)
        streams[i].fd.reset();
    }
  }
  say(life.begin("", std::chrono::steady_clock::now()));
  story.qemu_signal = qemu.wait();
  return outcome;
}

/// What symbol_filter() finds in a kernel; read by a short guest at first use. kFailure also when a
/// signal ended that guest.
Result<std::string> kernel_functions(const RunSpec& spec, const GuestKernel& kernel) {
  TC_ASSIGN(const std::uint64_t image, file_fingerprint(kernel.image));
  const std::string filter = timing::symbol_filter();
  const fs::path kept =
      cache_dir() / "lab" / fmt::format("functions-{:016x}", fingerprint(filter, image));
  if (fs::exists(kept)) return read_kept(kept);
  RunSpec reader;
  reader.kernel = spec.kernel;
  reader.append = {"nokaslr"};
  reader.timeout = spec.timeout;
  reader.doing = "reading the kernel's symbols";
  std::string functions;
  reader.output = [&functions](std::string_view text) { functions += text; };
  reader.command = {"awk", filter, "/proc/kallsyms"};
  TC_ASSIGN(const int code, run_guest(reader));
  if (code != 0)
    return fail(ErrorKind::kFailure, "lab: the symbols of the kernel {} could not be read: {}",
                kernel.name, code > 128 ? "interrupted" : trim(functions));
  TC_TRY(write_whole(kept, functions));
  return functions;
}

}  // namespace

Result<std::string> qemu_version() {
  const Result<ProgramOutput> output = run_program({kQemu, "--version"});
  if (!output || output->exit_code != 0)
    return fail(ErrorKind::kUnsupported,
                "{} is not installed; run emulation/lab/setup.sh (or ./test) as root once", kQemu);
  const auto parts = words(output->text);
  for (std::size_t i = 0; i + 1 < parts.size(); ++i)
    if (parts[i] == "version") return std::string(parts[i + 1]);
  return fail(ErrorKind::kFailure, "{} does not tell its version", kQemu);
}

Result<std::string> timing_plugin_file() {
  const fs::path build = build_dir();
  const fs::path file = build.empty() ? installed_dir() / "thermocline-timing.so"
                                      : build / "emulation/timing/thermocline-timing.so";
  if (!fs::exists(file))
    return fail(ErrorKind::kUnsupported,
                "the timing model's plug-in {} is not there; build it, or install the package",
                file.string());
  return file.string();
}

Status check_timing_plugin() {
  TC_ASSIGN(const std::string plugin, timing_plugin_file());
  // The plug-in ends QEMU itself when it has looked at it.
  TC_ASSIGN(const ProgramOutput output,
            run_program({kQemu, "-M", "none", "-accel", "tcg", "-display", "none", "-nodefaults",
                         "-plugin", fmt::format("file={},check=on", double_commas(plugin))}));
  if (output.exit_code == 0) return {};
  return fail(ErrorKind::kUnsupported, "{}", trim(output.text));
}

void GuestStory::take_control_line(std::string_view line, std::string_view nonce) {
  line = trim(line);
  if (!line.starts_with(nonce)) return;
  line = trim(line.substr(nonce.size()));
  const auto space = line.find(' ');
  const std::string_view key = line.substr(0, space);
  const std::string_view value = space == std::string_view::npos ? "" : line.substr(space + 1);
  if (key == "ready") ready = true;
  if (key == "setup-failed") setup_failure = value;
  if (key == "taint") taint = parse_u64(value).value_or(0);
  if (key == "exit") exit_code = static_cast<int>(parse_u64(value).value_or(255) & 255);
}

Result<int> GuestStory::verdict() const {
  const std::vector<std::string> trouble = trouble_in(kernel_log);
  if (!trouble.empty())
    return fail(ErrorKind::kFailure, "lab: the guest's kernel reported a bug: {}", trouble.front());
  if (!setup_failure.empty())
    return fail(ErrorKind::kFailure, "lab: the guest could not be set up: {}", setup_failure);
  if (timed_out)
    return fail(ErrorKind::kFailure, "lab: the guest hung: {} after {} s; --timeout allows more",
                ready ? "the command had not ended" : "it had not booted", timeout.count());
  if (const std::string text = taint_trouble(taint); !text.empty())
    return fail(ErrorKind::kFailure, "lab: the guest's kernel is tainted by {} (flags {})", text,
                taint);
  if (exit_code < 0 && qemu_signal != 0)
    return fail(ErrorKind::kFailure, "lab: QEMU itself was ended by signal {} ({})", qemu_signal,
                ::sigdescr_np(qemu_signal));
  if (exit_code < 0) {
    const std::string_view said = trim(qemu_error);
    return fail(ErrorKind::kFailure, "lab: the guest ended before the command did{}{}",
                said.empty() ? "" : "; QEMU said: ", said);
  }
  return exit_code;
}

Result<int> run_guest(const RunSpec& spec) {
  const CounterMeter counter;
  TC_TRY(qemu_version());
  TC_ASSIGN(const GuestKernel kernel, find_kernel(spec.kernel));
  MachineSpec machine_spec = spec.machine;
  if (machine_spec.profile == Profile::kCxl && !kernel.modules.empty()) {
    TC_ASSIGN(const ModuleTree tree, ModuleTree::load(kernel.modules));
    machine_spec.persistent_cxl = !tree.has("dax_cxl");
  }
  machine_spec.deterministic = spec.timing && spec.timing->mode == timing::Mode::kReference;
  TC_ASSIGN(Machine machine, build_machine(machine_spec));
  std::string plan;
  if (spec.timing) {
    TC_ASSIGN(plan, timing::make_plan(spec.timing->model, machine.memory, spec.timing->mode,
                                      spec.timing->truth));
    if (const Nanoseconds period = spec.timing->truth.profile; period.count() != 0) {
      TC_ASSIGN(const std::string functions, kernel_functions(spec, kernel));
      TC_ASSIGN(const std::string lines, timing::profile_plan(functions, kernel.name, period));
      plan += lines;
    }
  }

  ImageSpec image;
  image.kernel = kernel;
  image.modules = machine.modules;
  image.files = spec.files;
  image.command = spec.command;
  TC_ASSIGN(image.nonce, make_nonce(machine_spec.deterministic));
  image.config = machine.config + fmt::format("TC_KERNEL={}\n", shell_quote(kernel.name));
  if (!spec.out_dir.empty()) {
    image.config += "TC_OUT=/out\n";
    image.modules.insert(image.modules.begin(), {"virtio_pci", "9pnet_virtio", "9p"});
  }
  if (!spec.log_file.empty()) image.config += "TC_WANT_LOG=1\n";
  if (spec.interactive) image.config += "TC_SHELL=1\n";
  if (spec.timing) {
    image.config +=
        fmt::format("export THERMOCLINE_TIMING_MODE={}\n", timing::mode_name(spec.timing->mode));
    // A guest whose clock is left alone must not call its times modelled.
    if (spec.timing->mode != timing::Mode::kReport)
      image.config +=
          fmt::format("export THERMOCLINE_TIMING={}\n", shell_quote(spec.timing->model.name));
  }
  for (const std::string& variable : spec.env) {
    const auto equals = variable.find('=');
    if (equals == std::string::npos || equals == 0)
      return fail(ErrorKind::kUsage, "--env wants NAME=VALUE, not '{}'", variable);
    image.config += fmt::format("export {}={}\n", variable.substr(0, equals),
                                shell_quote(variable.substr(equals + 1)));
  }
  for (const std::string& name : spec.modules) image.modules.push_back(name);
  TC_ASSIGN(const std::string base, base_archive(kernel));
  TC_ASSIGN(const std::string run, run_archive(image));
  TC_ASSIGN(const UniqueFd initrd, memory_file("initrd", {base, run}));
  Inputs inputs;
  inputs.initrd = initrd.get();
  UniqueFd plan_file;
  if (spec.timing) {
    TC_ASSIGN(inputs.plugin, timing_plugin_file());
    TC_ASSIGN(plan_file, memory_file("plan", {plan}));
    inputs.plan = plan_file.get();
  }
  if (!spec.out_dir.empty()) {
    // Only now that nothing in the user's words can be wrong any more.
    std::error_code ec;
    fs::create_directories(spec.out_dir, ec);
    if (ec) return fail_errno(ec.value(), "can't make the folder " + spec.out_dir);
  }

  const auto boot = [&](bool last_try) -> Result<Outcome> {
    // Under the model the counter runs at 1 GHz of guest time, otherwise it is the host's.
    const bool modelled = spec.timing && spec.timing->mode != timing::Mode::kReport;
    return boot_guest(spec, machine, kernel, inputs, image.nonce,
                      modelled ? kModelledKhz : counter.khz(), last_try);
  };
  TC_ASSIGN(Outcome outcome, boot(false));
  if (outcome.failed_at_boot()) {
    // Nothing of ours has run yet. A busy host can starve an emulated CPU until the kernel reports
    // a stall.
    fmt::print(stderr,
               "thermocline: lab: the guest's kernel failed before the command began ({}); trying "
               "once more\n",
               trouble_in(outcome.story.kernel_log).front());
    TC_ASSIGN(outcome, boot(true));
  }
  const GuestStory& story = outcome.story;
  if (!spec.log_file.empty()) TC_TRY(write_whole(spec.log_file, story.kernel_log));
  if (outcome.signal == SIGINT) fmt::print(stderr, "thermocline: lab: interrupted\n");
  if (outcome.signal != 0) return 128 + outcome.signal;
  Result<int> verdict = story.verdict();
  if (!verdict && !spec.verbose && !story.kernel_log.empty())
    fmt::print(stderr, "--- from the guest's kernel log ---\n{}\n---\n",
               telling_part(story.kernel_log, kLogLines));
  if (verdict && outcome.closed_stdout)
    return fail(ErrorKind::kFailure, "lab: the command's output could not be written");
  return verdict;
}

}  // namespace thermocline::lab
