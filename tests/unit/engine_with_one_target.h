// SPDX-License-Identifier: Apache-2.0
// An engine on a machine that never was, with one tier and one target: what its status and its
// history look like, without root.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"
#include "mover/mover.h"
#include "policies/policy.h"

namespace thermocline {

struct EngineWithOneTarget {
  explicit EngineWithOneTarget(const std::string& command);

  std::unique_ptr<System> system = make_real_system();
  std::unique_ptr<Engine> engine;

 private:
  class NoTracker final : public Tracker {
   public:
    const std::string& name() const override { return name_; }
    Status attach(const ProcessIdentity&) override { return {}; }
    void detach(Asid) override {}
    Result<ScanStats> scan(const ScanRequest&, const RecordSink&) override { return ScanStats{}; }

   private:
    std::string name_ = "none";
  };
};

inline EngineWithOneTarget::EngineWithOneTarget(const std::string& command) {
  PolicyRegistry registry;
  register_builtin_policies(registry);
  engine = std::make_unique<Engine>(
      Engine::Parts{
          *system,
          std::make_unique<NoTracker>(),
          *registry.make("static", {}, 1),
          make_kernel_mover(*system, {[](Asid) { return Pid(0); }, {}}),
          []() -> Result<std::vector<TierState>> {
            return std::vector{TierState{TierId(0), {{NodeId(0), PageCount(1), {}, {}, {}}}}};
          },
          [command]() -> Result<std::vector<ProcessIdentity>> {
            return std::vector{ProcessIdentity{Pid(1), 1, Asid(1), command}};
          },
          {}},
      EngineOptions{});
  engine->step(std::chrono::seconds(1));
}

}  // namespace thermocline
