// SPDX-License-Identifier: Apache-2.0
// What `thermocline lab calibrate` makes of the probe's measurements: beside the model, beside what
// was published about real devices, as text, JSON and a picture. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "emulation/timing/model.h"

namespace thermocline::cli {

struct Calibration {
  struct SweepPoint {
    unsigned load_percent = 0;
    double chase_ns = 0;
  };
  struct Node {
    int node = 0;
    const timing::NodeModel* model = nullptr;
    double chase_ns = 0;
    double update_ns = 0;
    double read_gb_per_s = 0;
    double triad_gb_per_s = 0;
    std::vector<SweepPoint> sweep;

    /// Latency that the model says, with the load of others that it has.
    [[nodiscard]] double model_ns() const;
    /// Measured idle latency against the model's, as a share: 0.01 is 1 % too slow.
    [[nodiscard]] double error() const { return chase_ns / model_ns() - 1; }
    /// Latency never falls as load rises.
    [[nodiscard]] bool rises() const;
    /// Within 1 %, whatever the load.
    [[nodiscard]] bool flat() const;
    /// Load from which latency is half as much again as without any; none: never.
    [[nodiscard]] std::optional<unsigned> knee_percent() const;
  };
  std::string model;
  std::string mode;
  std::string kernel;
  std::vector<Node> nodes;
  nlohmann::json kernel_ns;  ///< costs of kernel work, nanoseconds by name
};

/// From the probe's JSON; kCorrupt when it isn't that. `model` must outlive the result.
[[nodiscard]] Result<Calibration> read_calibration(const std::string& probe,
                                                   const timing::Model& model, timing::Mode mode,
                                                   const std::string& kernel);
[[nodiscard]] std::string calibration_text(const Calibration& calibration,
                                           const timing::Model& model);
[[nodiscard]] nlohmann::ordered_json calibration_json(const Calibration& calibration,
                                                      const timing::Model& model);
[[nodiscard]] std::string calibration_svg(const Calibration& calibration);

}  // namespace thermocline::cli
