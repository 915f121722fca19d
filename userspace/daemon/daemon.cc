// SPDX-License-Identifier: Apache-2.0
#include "daemon/daemon.h"

#include <fmt/core.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <nlohmann/json.hpp>

#include "control/status.h"

namespace thermocline {

namespace {

/// Bins of address space in a line of the history file.
constexpr std::size_t kHistoryBins = 256;

/// Free memory is asked for after every batch; watermarks and the CPUs' free lists change slowly
/// and cost more to read on a machine with many CPUs.
constexpr Nanoseconds kZonesInterval = std::chrono::milliseconds(200);

/// A measurement of latency under load takes about 300 loads from each node.
constexpr Nanoseconds kProbeInterval = std::chrono::milliseconds(200);

/// Pages above the low watermark: what other allocations may take while a batch is moved.
constexpr PageCount kFloorSlack{64};

/// A policy that is built in, with the options that `config` has for it. nullptr when it refuses
/// them, which load_config() has ruled out.
std::unique_ptr<Policy> builtin_policy(Config config, const std::string& name) {
  PolicyRegistry registry;
  register_builtin_policies(registry);
  config.policy = name;
  auto made = registry.make(name, chosen_policy_options(config), config.seed);
  return made ? std::move(*made) : nullptr;
}

Result<Topology> discover_tiers(const System& system, const Config& config) {
  TC_ASSIGN(auto topology, discover(system, config.tiers));
  if (topology.tiers.size() < 2 && config.engine.mode == EngineMode::kManage)
    return fail(ErrorKind::kUnsupported,
                "this machine has one memory tier, so there is nowhere to move pages: {} Set "
                "engine.mode = \"observe\" to watch only, or declare [[tier]]s",
                topology.why);
  if (topology.tiers.size() > kMaxTiers)
    return fail(ErrorKind::kUnsupported, "this machine has {} memory tiers, at most {} work",
                topology.tiers.size(), kMaxTiers);
  return topology;
}

/// Every target takes a process descriptor and up to four of the tracker's; the usual soft limit of
/// 1024 is for programs that use select(2).
void raise_file_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

Daemon::Daemon(System& system, Config config, std::string config_path)
    : system_(system), config_(std::move(config)), config_path_(std::move(config_path)) {}

Daemon::~Daemon() = default;

void Daemon::log(const std::string& text) const {
  fmt::print(stderr, "thermoclined: {}\n", text);
}

Result<std::unique_ptr<Daemon>> Daemon::create(System& system, Config config,
                                               std::string config_path) {
  std::unique_ptr<Daemon> daemon(new Daemon(system, std::move(config), std::move(config_path)));
  TC_TRY(daemon->set_up());
  return daemon;
}

Result<std::unique_ptr<Policy>> Daemon::make_policy(const Config& config) const {
  PluginOptions plugins;
  plugins.decision_limit = config.plugin_timeout;
  plugins.log = [this](const std::string& text) { log(text); };
  plugins.stand_in = [config, name = stand_in_] { return builtin_policy(config, name); };
  TC_ASSIGN(const PolicyRegistry registry, policies_of(config, plugins));
  return registry.make(config.policy, chosen_policy_options(config), config.seed);
}

Status Daemon::set_up() {
  raise_file_limit();
  started_ = system_.now();
  cpu_at_start_ = system_.process_cpu_time();
  TC_TRY(require_targets(config_, config_path_));
  TC_TRY(pin_targets(system_, config_.targets));
  TC_ASSIGN(topology_, discover_tiers(system_, config_));
  TC_ASSIGN(auto policy, make_policy(config_));
  TrackerOptions options = config_.tracker_options;
  // Records that are kept tell every page in every window: `thermocline oracle` needs all of them.
  if (config_.record_file && options.prune) {
    options.prune = false;
    log("records are kept, so every page is read in every window: tracker.prune is off");
  }
  // What it finds now decides; one tracker follows all targets.
  std::vector<ProcessIdentity> first_targets;
  if (auto found = targets()) first_targets = std::move(*found);
  TC_ASSIGN(auto tracker, make_tracker(system_, config_.tracker, options, first_targets));

  std::string why_not;
  TC_ASSIGN(loop_, make_event_loop(why_not));
  if (!why_not.empty()) log(fmt::format("waiting in epoll: {}", why_not));
  const auto say = [this](const std::string& text) { log(text); };
  // The socket first: a second daemon stops here, before it touches the files of the first.
  TC_ASSIGN(server_,
            ControlServer::start(*loop_, system_, config_.socket,
                                 [this](const std::string& command, const nlohmann::json&) {
                                   return answer(command);
                                 }));
  TC_ASSIGN(history_, open_history(config_));
  TC_ASSIGN(records_, open_records(config_));
  TC_TRY(watch_signals());

  EngineHooks hooks;
  hooks.log = say;
  hooks.on_records = [this](std::span<const std::byte> bytes) {
    if (records_) records_->append(bytes);
  };
  hooks.on_epoch = [this](const EpochReport& report) {
    if (!history_) return;
    const std::string line = history_line(*engine_, report, kHistoryBins);
    history_->append(std::as_bytes(std::span(line)));
  };
  hooks.on_interleave = [this](const InterleaveAdvice& advice) { set_interleave(advice); };
  auto mover =
      make_kernel_mover(system_, {[this](Asid asid) { return engine_->pid_of(asid); },
                                  [this](PagePlace page) { return engine_->others(page); }});
  engine_ = std::make_unique<Engine>(
      Engine::Parts{system_, std::move(tracker), std::move(policy), std::move(mover),
                    [this] { return tier_states(); }, [this] { return targets(); },
                    std::move(hooks), [this] { return tenants_; }},
      config_.engine);
  // The loop ends when it is readable, and the engine's next step takes what is there.
  if (const int fd = engine_->ready_fd(); fd >= 0) TC_TRY(loop_->watch(fd, false, [] {}));
  return {};
}

Result<std::unique_ptr<FileSink>> Daemon::open_history(const Config& config) const {
  if (!config.history_file) return nullptr;
  return FileSink::open(*config.history_file, config.history_max_size, whole_lines,
                        [this](const std::string& text) { log(text); });
}

Result<std::unique_ptr<FileSink>> Daemon::open_records(const Config& config) const {
  if (!config.record_file) return nullptr;
  return FileSink::open(*config.record_file, config.record_max_size, whole_records,
                        [this](const std::string& text) { log(text); });
}

Status Daemon::watch_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, number);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);  // a file at its limit is a failed write, not the end
  signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return fail_errno(errno, "can't wait for signals");
  return loop_->watch(signals_.get(), false, [this] { on_signal(); });
}

void Daemon::on_signal() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    if (info.ssi_signo == SIGHUP) {
      reload();
    } else if (!stopping_) {
      engine_->stop_moving();
      stopping_ = true;
    }
  }
}

void Daemon::reload() {
  auto fresh = load_config(config_path_);
  if (!fresh) {
    log(fmt::format("not reloaded, everything stays as it was: {}", fresh.error().message));
    return;
  }
  const auto needs_restart = [&]() -> const char* {
    if (fresh->socket != config_.socket) return "control.socket";
    if (fresh->tracker != config_.tracker) return "tracker.name";
    if (fresh->tracker_options.flush != config_.tracker_options.flush) return "tracker.flush";
    if (fresh->tracker_options.clear != config_.tracker_options.clear) return "tracker.clear";
    if (fresh->tracker_options.continuous != config_.tracker_options.continuous)
      return "tracker.continuous";
    if (fresh->tracker_options.prune != config_.tracker_options.prune) return "tracker.prune";
    if (fresh->tracker_options.hmu_list != config_.tracker_options.hmu_list)
      return "tracker.hmu_list";
    if (fresh->tracker_options.sources != config_.tracker_options.sources) return "tracker.sources";
    return nullptr;
  }();
  if (needs_restart != nullptr) {
    log(fmt::format("not reloaded, everything stays as it was: {} can only change with a restart",
                    needs_restart));
    return;
  }
  if (fresh->targets.empty()) {
    log("not reloaded, everything stays as it was: no [[target]]");
    return;
  }
  if (const Status pinned = pin_targets(system_, fresh->targets); !pinned) {
    log(fmt::format("not reloaded, everything stays as it was: {}", pinned.error().message));
    return;
  }
  auto topology = discover_tiers(system_, *fresh);
  if (is_builtin_policy(config_.policy)) stand_in_ = config_.policy;
  auto policy = make_policy(*fresh);
  if (!topology || !policy) {
    log(fmt::format("not reloaded, everything stays as it was: {}",
                    (topology ? policy.error() : topology.error()).message));
    return;
  }
  const bool other_history = fresh->history_file != config_.history_file;
  const bool other_records = fresh->record_file != config_.record_file;
  Result<std::unique_ptr<FileSink>> history, records;
  if (other_history) history = open_history(*fresh);
  if (other_records) records = open_records(*fresh);
  if (!history || !records) {
    log(fmt::format("not reloaded, everything stays as it was: {}",
                    (history ? records.error() : history.error()).message));
    return;
  }
  if (other_history) history_ = std::move(*history);
  if (other_records) records_ = std::move(*records);
  topology_ = std::move(*topology);
  engine_->set_options(fresh->engine);
  // A policy keeps what it has learned unless it is another one now, and a plug-in's file may be.
  if (!same_policy(*fresh, config_) || !is_builtin_policy(fresh->policy))
    engine_->set_policy(std::move(*policy));
  if (history_) history_->set_max_size(fresh->history_max_size);
  if (records_) records_->set_max_size(fresh->record_max_size);
  config_ = std::move(*fresh);
  log(fmt::format("reloaded {}", config_path_));
}

Result<std::vector<TierState>> Daemon::tier_states() {
  Status fresh = topology_.refresh_free(system_);
  const Nanoseconds now = system_.now();
  if (fresh && now - zones_read_ >= kZonesInterval) {
    fresh = topology_.refresh_zones(system_);
    zones_read_ = now;
  }
  if (!fresh) {
    // A node went or came: look at the machine again.
    TC_ASSIGN(topology_, discover_tiers(system_, config_));
  }
  if (engine_->policy().needs_loaded_latency() && now - probed_ >= kProbeInterval) {
    probed_ = now;
    for (const Tier& tier : topology_.tiers) loaded_latency_[tier.id] = loaded_latency_ns(tier);
  }
  std::vector<TierState> states;
  for (const Tier& tier : topology_.tiers) {
    TierState state;
    state.id = tier.id;
    if (engine_->policy().needs_loaded_latency())
      state.loaded_latency_ns = loaded_latency_[tier.id];
    for (const NodeId id : tier.nodes) {
      const Node* node = topology_.find(id);
      if (node == nullptr) continue;
      state.nodes.push_back({id, pages_of(node->free).minus_floor(node->reserved), node->cpu_lists,
                             node->watermarks.low + kFloorSlack, node->watermarks.high});
      if (!node->performance) continue;
      if (node->performance->read_latency)
        state.latency_ns = std::max(
            state.latency_ns, static_cast<std::uint64_t>(node->performance->read_latency->count()));
      if (node->performance->read_bandwidth)
        state.bandwidth_mbps += node->performance->read_bandwidth->get();
    }
    states.push_back(std::move(state));
  }
  return states;
}

std::uint64_t Daemon::loaded_latency_ns(const Tier& tier) {
  Nanoseconds latest{};
  for (const NodeId node : tier.nodes) {
    auto probe = probes_.find(node);
    if (probe != probes_.end() && probe->second && !probe->second->in_place()) {
      if (moved_probes_.insert(node).second)
        log(fmt::format(
            "the page by which the latency of node {} is measured has left it; another is taken "
            "as soon as the node has one to spare",
            node.get()));
      probe = probes_.erase(probe), probe = probes_.end();
    }
    if (probe == probes_.end()) {
      auto opened = LatencyProbe::open(node);
      // Full just now: another time.
      if (!opened && opened.error().kind == ErrorKind::kNotFound) continue;
      if (!opened) log(opened.error().message);
      probe = probes_.emplace(node, std::nullopt).first;
      if (opened) probe->second.emplace(std::move(*opened));
    }
    if (probe->second) latest = std::max(latest, probe->second->measure(system_));
  }
  return static_cast<std::uint64_t>(latest.count());
}

void Daemon::set_interleave(const InterleaveAdvice& advice) {
  std::vector<NodeWeight> weights;
  for (std::size_t t = 0; t < std::min(advice.tier_weights.size(), topology_.tiers.size()); ++t) {
    const std::vector<NodeId>& nodes = topology_.tiers[t].nodes;
    for (const NodeId node : nodes)
      weights.push_back({node, static_cast<std::uint8_t>(std::max<std::size_t>(
                                   advice.tier_weights[t] / nodes.size(), 1))});
  }
  const auto set = interleave_.set(weights);
  if (!set)
    log(fmt::format("can't set the kernel's interleave weights: {}", set.error().message));
  else if (*set)
    log(weights.empty() ? "the kernel's interleave weights are what they were"
                        : "the kernel's interleave weights follow bandwidth");
}

Result<std::vector<ProcessIdentity>> Daemon::targets() {
  std::vector<ProcessIdentity> all;
  tenants_.clear();
  // Nobody is held to a share unless some are given.
  const bool shared = std::any_of(config_.shares.begin(), config_.shares.end(),
                                  [](const TargetShare& share) { return share.set; });
  for (std::size_t i = 0; i < config_.targets.size(); ++i) {
    const TargetSelector& selector = config_.targets[i];
    auto found = find_targets(system_, selector);
    if (!found) {
      // A process named by pid has exited: nothing to do for it any more.
      if (found.error().kind == ErrorKind::kNotFound) continue;
      return found;
    }
    if (!found->empty())
      waiting_.erase(describe(selector));
    else if (waiting_.insert(describe(selector)).second)
      log(fmt::format("waiting for a process with {}", describe(selector)));
    std::vector<Pid> members;
    for (ProcessIdentity& process : *found) {
      const bool known = std::any_of(
          all.begin(), all.end(), [&](const ProcessIdentity& p) { return p.pid == process.pid; });
      if (known || process.pid.get() == ::getpid()) continue;
      members.push_back(process.pid);
      all.push_back(std::move(process));
    }
    add_tenants(config_.shares[i], members, shared);
  }
  return all;
}

void Daemon::add_tenants(const TargetShare& share, const std::vector<Pid>& members, bool shared) {
  if (!shared && share.never_move.empty() && share.keep_fast.empty()) return;
  TenantMembers tenant{share.limits, members, share.never_move, share.keep_fast, shared};
  if (!share.per_process) {
    tenants_.push_back(std::move(tenant));
    return;
  }
  for (const Pid pid : members) {
    tenant.members = {pid};
    tenant.limits.name = fmt::format("{} (process {})", share.limits.name, pid.get());
    tenants_.push_back(tenant);
  }
}

nlohmann::json Daemon::status() {
  nlohmann::json out = status_json(*engine_);
  const std::chrono::duration<double> up = system_.now() - started_;
  const std::chrono::duration<double> cpu = system_.process_cpu_time() - cpu_at_start_;
  out["daemon"] = {{"pid", ::getpid()},
                   {"version", THERMOCLINE_VERSION},
                   {"uptime_s", up.count()},
                   {"cpu_s", cpu.count()},
                   {"cpu_share", up.count() > 0.0 ? cpu.count() / up.count() : 0.0},
                   {"event_loop", loop_->name()},
                   {"history_dropped_bytes", history_ ? history_->dropped_bytes() : 0},
                   {"record_dropped_bytes", records_ ? records_->dropped_bytes() : 0}};
  return out;
}

Result<nlohmann::json> Daemon::answer(const std::string& command) {
  if (command == "status") return status();
  if (command == "config") return nlohmann::json{{"toml", config_to_toml(config_)}};
  return fail(ErrorKind::kUsage, "unknown command \"{}\"; known: status, config", command);
}

/// A tracker that "auto" took may tell much less than the one that somebody expects.
void Daemon::log_better_trackers() {
  if (config_.tracker != "auto") return;
  const auto now = targets();
  const AutoOrder order = auto_order(
      system_, now ? std::span<const ProcessIdentity>(*now) : std::span<const ProcessIdentity>());
  if (order.second_mmu) log(second_mmu_sentence(*order.second_mmu));
  for (const TrackerFactory* better : order.factories) {
    if (better->name == engine_->tracker().name()) return;
    const Status works = better->probe(system_, config_.tracker_options);
    if (!works) log(fmt::format("not tracker {}: {}", better->name, works.error().message));
  }
}

Status Daemon::run() {
  log(fmt::format("{} with policy {}, tracker {}; control socket {}",
                  config_.engine.mode == EngineMode::kManage ? "managing" : "observing",
                  engine_->policy().name(),
                  engine_->tracker().name() + (engine_->ready_fd() >= 0 ? " (continuous)" : ""),
                  config_.socket));
  log_better_trackers();
  while (!stopping_) {
    const Nanoseconds now = system_.now();
    const Nanoseconds next = engine_->step(now);
    server_->expire(now);
    TC_TRY(loop_->run_once(std::min(next, server_->next_deadline())));
  }
  log("stopped");
  return {};
}

}  // namespace thermocline
