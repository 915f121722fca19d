// SPDX-License-Identifier: Apache-2.0
// The real engine on a modelled machine: its tracker, its mover, its clock and its CPU time are
// those of a World. The third host beside the daemon and a replay: heat, policy, limits and ledger
// are the same code.
#pragma once

#include <functional>
#include <memory>

#include "emulation/sim/world.h"
#include "engine/engine.h"

namespace thermocline::sim {

class EngineHost {
 public:
  /// `world` must outlive it. `helper`: a second thread prepares records while the engine takes in
  /// others; for large footprints only, the result is the same.
  EngineHost(World& world, std::unique_ptr<Policy> policy, const EngineOptions& options,
             bool helper);
  ~EngineHost();
  EngineHost(const EngineHost&) = delete;
  EngineHost& operator=(const EngineHost&) = delete;

  /// Runs program and engine until then; `each` is called whenever pages may lie elsewhere.
  void run_until(Nanoseconds time, const std::function<void()>& each);
  [[nodiscard]] const Engine& engine() const { return *engine_; }

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace thermocline::sim
