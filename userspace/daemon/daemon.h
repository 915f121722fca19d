// SPDX-License-Identifier: Apache-2.0
// The daemon: puts topology, tracker, policy, mover and engine together from a configuration, and
// drives them from one event loop with the control socket and signals. Thin: no decision is made
// here.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>

#include "base/result.h"
#include "base/system.h"
#include "control/config.h"
#include "control/control_socket.h"
#include "control/event_loop.h"
#include "control/file_sink.h"
#include "control/interleave_weights.h"
#include "engine/engine.h"
#include "topology/latency_probe.h"
#include "topology/topology.h"

namespace thermocline {

class Daemon {
 public:
  /// Checks the machine against the configuration and sets everything up. Fails with one sentence:
  /// kUnsupported (no tracker works here, one tier only and mode "manage"), kUsage (no targets,
  /// impossible tiers), kNotFound (a pid that isn't there), kFailure (socket or files).
  [[nodiscard]] static Result<std::unique_ptr<Daemon>> create(System& system, Config config,
                                                              std::string config_path);
  ~Daemon();

  /// Runs until SIGTERM or SIGINT.
  [[nodiscard]] Status run();

 private:
  explicit Daemon(System& system, Config config, std::string config_path);
  Status set_up();
  /// nullptr when the configuration wants no such file.
  [[nodiscard]] Result<std::unique_ptr<FileSink>> open_history(const Config& config) const;
  [[nodiscard]] Result<std::unique_ptr<FileSink>> open_records(const Config& config) const;
  Status watch_signals();
  void on_signal();
  void reload();
  Result<std::vector<TierState>> tier_states();
  Result<std::vector<ProcessIdentity>> targets();
  /// The policy that a configuration chooses. Starts it, if it is a plug-in.
  [[nodiscard]] Result<std::unique_ptr<Policy>> make_policy(const Config& config) const;
  /// Tells the kernel how to spread new pages.
  void set_interleave(const InterleaveAdvice& advice);
  /// Latency of a tier's nodes under load, the largest; 0 = can't be measured.
  std::uint64_t loaded_latency_ns(const Tier& tier);
  /// Those of one [[target]]. `shared`: the fast tier is shared by weights.
  void add_tenants(const TargetShare& share, const std::vector<Pid>& members, bool shared);
  Result<nlohmann::json> answer(const std::string& command);
  nlohmann::json status();
  void log(const std::string& text) const;
  void log_better_trackers();

  System& system_;
  Config config_;
  std::string config_path_;
  Topology topology_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<FileSink> history_, records_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<ControlServer> server_;
  UniqueFd signals_;
  std::string stand_in_ = "auto";       ///< built in, decides while a plug-in can't
  std::set<std::string> waiting_;       ///< selectors without a process, told in the log
  std::vector<TenantMembers> tenants_;  ///< as targets() found them
  InterleaveWeights interleave_{system_};
  std::map<NodeId, std::optional<LatencyProbe>> probes_;  ///< none: can't be measured
  std::set<NodeId> moved_probes_;                         ///< nodes of which that was told
  Nanoseconds probed_{};                                  ///< when latencies were measured
  std::map<TierId, std::uint64_t> loaded_latency_;
  Nanoseconds started_{};
  Nanoseconds zones_read_{};
  Nanoseconds cpu_at_start_{};
  bool stopping_ = false;
};

}  // namespace thermocline
