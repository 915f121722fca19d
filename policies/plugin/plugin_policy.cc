// SPDX-License-Identifier: Apache-2.0
#include "policies/plugin/plugin_policy.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/text.h"
#include "policies/plugin/plugin_process.h"
#include "policies/plugin/wire.h"

namespace thermocline {

namespace {

using plugin::FrameType;
using plugin::Hello;
using plugin::PluginProcess;
using Clock = PluginProcess::Clock;

/// Plans in a row after which earlier failures are forgotten.
constexpr unsigned kWellAgain = 64;

/// Nobody but root and this user can have changed it.
Status check_owner(const struct stat& file, const std::string& path) {
  if (file.st_uid != 0 && file.st_uid != ::geteuid())
    return fail(ErrorKind::kPermission,
                "{} belongs to user {}; policy plug-ins and their folder must belong to root or to "
                "the user who runs them",
                path, file.st_uid);
  if ((file.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return fail(ErrorKind::kPermission,
                "{} can be written by others, so no policy plug-in is taken from there; chmod "
                "go-w it",
                path);
  return {};
}

/// The file, open. The same file is run each time, whatever its name leads to later.
Result<UniqueFd> open_plugin(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return fail_errno(errno, "can't open the policy plug-in " + path);
  struct stat file {};
  if (::fstat(fd.get(), &file) != 0) return fail_errno(errno, "can't look at " + path);
  char magic[4] = {};
  if (!S_ISREG(file.st_mode) || ::pread(fd.get(), magic, sizeof(magic), 0) != sizeof(magic) ||
      std::string_view(magic, sizeof(magic)) !=
          "\x7f"
          "ELF")
    return fail(ErrorKind::kUsage, "{} is not a shared object, so it is no policy plug-in", path);
  TC_TRY(check_owner(file, path));
  return fd;
}

Result<std::vector<std::string>> values_of(const Hello& hello,
                                           std::span<const PolicyOption> options) {
  std::vector<std::string> values, keys;
  for (const PolicyOptionHelp& known : hello.options) {
    values.push_back(known.default_text);
    keys.push_back(known.key);
  }
  for (const PolicyOption& option : options) {
    const auto known = std::find(keys.begin(), keys.end(), option.key);
    if (known == keys.end())
      return fail(ErrorKind::kUsage, "policy {} has no option \"{}\"; it has {}", hello.name,
                  option.key, keys.empty() ? "none" : fmt::format("{}", fmt::join(keys, " and ")));
    if (option.value.size() >= THERMOCLINE_MOST_TEXT)
      return fail(ErrorKind::kUsage, "option {} of policy {} has more than {} letters", option.key,
                  hello.name, THERMOCLINE_MOST_TEXT - 1);
    values[static_cast<std::size_t>(known - keys.begin())] = option.value;
  }
  return values;
}

/// A frame of type `wanted`; kUsage with its reason when the plug-in refuses.
Result<plugin::Frame> expect(PluginProcess& process, FrameType wanted, std::uint64_t most,
                             Clock::time_point deadline) {
  TC_ASSIGN(plugin::Frame frame, process.receive(most, deadline));
  if (frame.type == FrameType::kRefused)
    return fail(ErrorKind::kUsage, "{}", plugin::decode_text(frame.payload));
  if (frame.type != wanted) return fail(ErrorKind::kCorrupt, "sent a message out of turn");
  return frame;
}

Result<Hello> greet(PluginProcess& process, const PluginFile& file, Clock::time_point deadline) {
  TC_ASSIGN(const plugin::Frame frame,
            expect(process, FrameType::kHello, plugin::kMostText, deadline));
  TC_ASSIGN(Hello hello, plugin::decode_hello(frame.payload));
  if (hello.name != file.name)
    return fail(ErrorKind::kUsage, "calls itself \"{}\"; name the file {}.so", hello.name,
                hello.name);
  return hello;
}

/// A plug-in's file, started so far that it has told what it is.
struct Started {
  UniqueFd file;
  PluginProcess process;
  Hello hello;
};

template <class T>
Result<T> about(const PluginFile& file, Result<T> result) {
  if (!result)
    result.error().message = fmt::format("policy plug-in {} {}", file.path, result.error().message);
  return result;
}

Result<Started> start_plugin(const PluginFile& file, const PluginOptions& options,
                             std::string& host, Clock::time_point deadline) {
  host = options.host;
  if (host.empty()) {
    TC_ASSIGN(host, plugin::host_program());
  }
  TC_ASSIGN(UniqueFd fd, open_plugin(file.path));
  TC_ASSIGN(PluginProcess process, PluginProcess::start(host, fd.get()));
  process.allow_cpu(options.start_limit);
  TC_ASSIGN(Hello hello, about(file, greet(process, file, deadline)));
  return Started{std::move(fd), std::move(process), std::move(hello)};
}

class PluginPolicy final : public Policy {
 public:
  static Result<std::unique_ptr<Policy>> make(const PluginFile& file, const PluginOptions& options,
                                              std::span<const PolicyOption> given,
                                              std::uint64_t seed) {
    const auto deadline = Clock::now() + options.start_limit;
    std::string host;
    TC_ASSIGN(Started started, start_plugin(file, options, host, deadline));
    plugin::Create create;
    create.seed = seed;
    TC_ASSIGN(create.values, values_of(started.hello, given));
    std::unique_ptr<PluginPolicy> policy(
        new PluginPolicy(file, options, std::move(host), std::move(started), std::move(create)));
    const Status created = about<void>(
        file,
        policy->process_->send(FrameType::kCreate, plugin::encode(policy->create_), deadline));
    if (!created) return tl::make_unexpected(created.error());
    auto ready = expect(*policy->process_, FrameType::kReady, plugin::kMostText, deadline);
    if (!ready) {
      if (ready.error().kind == ErrorKind::kUsage)
        return fail(ErrorKind::kUsage, "policy {}: {}", file.name, ready.error().message);
      return tl::make_unexpected(about(file, std::move(ready)).error());
    }
    policy->state_ = State::kDeciding;
    return policy;
  }

  [[nodiscard]] std::string_view name() const override { return hello_.name; }
  [[nodiscard]] std::span<const std::string_view> rules() const override { return rules_; }
  [[nodiscard]] bool needs_touches() const override {
    return (hello_.needs & THERMOCLINE_NEEDS_TOUCHES) != 0 ||
           (stand_in_ && stand_in_->needs_touches());
  }
  [[nodiscard]] bool needs_loaded_latency() const override {
    return (hello_.needs & THERMOCLINE_NEEDS_LOADED_LATENCY) != 0 ||
           (stand_in_ && stand_in_->needs_loaded_latency());
  }
  [[nodiscard]] Bytes memory() const override { return stand_in_ ? stand_in_->memory() : Bytes(0); }
  [[nodiscard]] std::optional<PluginHealth> plugin_health() const override {
    PluginHealth health = health_;
    health.deciding = state_ == State::kDeciding || !stand_in_ ? name() : stand_in_->name();
    if (process_) health.cpu += process_->cpu_time();
    if (!options_.tells_cpu) health.cpu = {};
    return health;
  }

  [[nodiscard]] Plan decide(const View& view) override {
    if (state_ == State::kWaiting && wait_ > 0) --wait_;
    if (state_ == State::kWaiting && wait_ == 0) restart();
    if (state_ == State::kGreeting || state_ == State::kCreating)
      if (const Status started = go_on(Clock::now() + options_.decision_limit); !started)
        failed(started.error().message);
    if (state_ != State::kDeciding) return stand_in(view);
    auto plan = ask(view);
    if (!plan) {
      failed(plan.error().message);
      return stand_in(view);
    }
    ++health_.decisions;
    if (++in_a_row_ == kWellAgain) failures_ = 0;
    return std::move(*plan);
  }

 private:
  enum class State : std::uint8_t {
    kDeciding,
    kWaiting,   ///< for the next start
    kGreeting,  ///< its process has been started
    kCreating,  ///< has told what it is and was told its options
    kGivenUp,
  };

  PluginPolicy(PluginFile file, PluginOptions options, std::string host, Started started,
               plugin::Create create)
      : file_(std::move(file)),
        options_(std::move(options)),
        host_(std::move(host)),
        plugin_(std::move(started.file)),
        process_(std::move(started.process)),
        hello_(std::move(started.hello)),
        create_(std::move(create)),
        stand_in_(options_.stand_in ? options_.stand_in() : nullptr) {
    for (const std::string& rule : hello_.rules) rules_.emplace_back(rule);
    if (stand_in_)
      rules_.insert(rules_.end(), stand_in_->rules().begin(), stand_in_->rules().end());
  }

  Result<Plan> ask(const View& view) {
    const plugin::ShownView shown = plugin::show(view);
    const std::vector<std::byte> bytes = plugin::encode(shown);
    // What it takes to find the pages is not the plug-in's time.
    const auto deadline = Clock::now() + options_.decision_limit;
    process_->allow_cpu(options_.decision_limit);
    TC_TRY(process_->send(FrameType::kView, bytes, deadline));
    const std::uint64_t most = std::max<std::uint64_t>(
        plugin::kMostText, 64 + shown.pages.size() * sizeof(thermocline_move));
    TC_ASSIGN(const plugin::Frame frame, expect(*process_, FrameType::kPlan, most, deadline));
    TC_ASSIGN(const plugin::PlanReply reply,
              plugin::decode_plan(frame.payload, shown.pages.size()));
    return plugin::to_plan(view, shown, reply, hello_.rules.size());
  }

  [[nodiscard]] Plan stand_in(const View& view) {
    if (!stand_in_) return {};
    Plan plan = stand_in_->decide(view);
    // Its rules stand behind those of the plug-in.
    for (auto* moves : {&plan.demotions, &plan.promotions, &plan.spares})
      for (Move& move : *moves)
        move.rule = static_cast<std::uint8_t>(move.rule + hello_.rules.size());
    return plan;
  }

  void restart() {
    auto process = PluginProcess::start(host_, plugin_.get());
    if (!process) return failed(process.error().message);
    ++health_.restarts;
    process_ = std::move(*process);
    process_->allow_cpu(options_.start_limit);
    state_ = State::kGreeting;
    start_end_ = Clock::now() + options_.start_limit;
  }

  /// As far with a start as the other side is; not beyond `deadline`.
  Status go_on(Clock::time_point deadline) {
    // Nothing yet is no failure while there is time left to start.
    const auto silent = [&] {
      return !process_->wait_for_input(std::min(deadline, start_end_)) && Clock::now() < start_end_;
    };
    if (state_ == State::kGreeting) {
      if (silent()) return {};
      TC_ASSIGN(const Hello hello, greet(*process_, file_, std::min(deadline, start_end_)));
      if (hello.rules != hello_.rules || hello.needs != hello_.needs ||
          hello.options.size() != hello_.options.size())
        return fail(ErrorKind::kCorrupt, "is not what it was");
      TC_TRY(process_->send(FrameType::kCreate, plugin::encode(create_), deadline));
      state_ = State::kCreating;
    }
    if (silent()) return {};
    if (const auto ready =
            expect(*process_, FrameType::kReady, plugin::kMostText, std::min(deadline, start_end_));
        !ready)
      return tl::make_unexpected(ready.error());
    state_ = State::kDeciding;
    log(fmt::format("policy plug-in {} decides again", name()));
    return {};
  }

  void failed(const std::string& why) {
    ++health_.failures;
    ++failures_;
    in_a_row_ = 0;
    if (process_) health_.cpu += process_->cpu_time();
    process_.reset();
    const bool over = failures_ > options_.most_restarts;
    state_ = over ? State::kGivenUp : State::kWaiting;
    wait_ = 1u << std::min(failures_ - 1, 10u);
    health_.last_failure = fmt::format("policy plug-in {} {}", name(), why);
    const std::string_view decides = stand_in_ ? stand_in_->name() : "nobody";
    log(over ? fmt::format("{}; it has been started {} times and is given up: {} decides",
                           health_.last_failure, failures_, decides)
             : fmt::format("{}; {} decides, and it is started again in {} epoch{}",
                           health_.last_failure, decides, wait_, wait_ == 1 ? "" : "s"));
  }

  void log(const std::string& text) const {
    if (options_.log) options_.log(text);
  }

  PluginFile file_;
  PluginOptions options_;
  std::string host_;
  UniqueFd plugin_;
  std::optional<PluginProcess> process_;
  Hello hello_;
  plugin::Create create_;
  std::unique_ptr<Policy> stand_in_;
  std::vector<std::string_view> rules_;  ///< its own, then those of the stand-in
  State state_ = State::kCreating;
  unsigned wait_ = 0;      ///< epochs until the next start
  unsigned failures_ = 0;  ///< since it was last well
  unsigned in_a_row_ = 0;  ///< plans without a failure
  Clock::time_point start_end_{};
  PluginHealth health_;
};

PolicyFactory factory_of(const PluginFile& file, const PluginOptions& options) {
  PolicyFactory factory;
  factory.name = file.name;
  factory.make = [file, options](std::span<const PolicyOption> given, std::uint64_t seed) {
    return PluginPolicy::make(file, options, given, seed);
  };
  return factory;
}

}  // namespace

PluginOptions patient_plugins() {
  PluginOptions options;
  options.decision_limit = options.start_limit = std::chrono::minutes(1);
  options.tells_cpu = false;
  return options;
}

Result<std::vector<PluginFile>> find_plugins(const std::string& dir) {
  struct stat folder {};
  if (::stat(dir.c_str(), &folder) != 0)
    return fail_errno(errno, "can't look for policy plug-ins in " + dir);
  if (!S_ISDIR(folder.st_mode))
    return fail(ErrorKind::kUsage, "{} is not a folder, so no policy plug-ins are in it", dir);
  TC_TRY(check_owner(folder, dir));
  std::vector<PluginFile> files;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(dir, error), end; !error && entry != end;
       entry.increment(error))
    if (entry->path().extension() == ".so")
      files.push_back({entry->path().stem().string(), entry->path().string()});
  if (error) return fail_errno(error.value(), "can't look for policy plug-ins in " + dir);
  std::sort(files.begin(), files.end(),
            [](const PluginFile& a, const PluginFile& b) { return a.name < b.name; });
  return files;
}

Status register_plugins(PolicyRegistry& registry, const std::string& dir,
                        const PluginOptions& options) {
  TC_ASSIGN(const std::vector<PluginFile> files, find_plugins(dir));
  for (const PluginFile& file : files) {
    for (const PolicyFactory& known : registry.factories())
      if (known.name == file.name)
        return fail(ErrorKind::kUsage,
                    "the policy plug-in {} is called like a policy that is built in; rename it",
                    file.path);
    registry.add(factory_of(file, options));
  }
  return {};
}

Result<PolicyFactory> describe_plugin(const PluginFile& file, const PluginOptions& options) {
  std::string host;
  TC_ASSIGN(const Started started,
            start_plugin(file, options, host, Clock::now() + options.start_limit));
  PolicyFactory factory = factory_of(file, options);
  factory.summary = started.hello.summary;
  factory.source = started.hello.source;
  factory.option_help = started.hello.options;
  return factory;
}

}  // namespace thermocline
