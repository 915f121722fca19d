// SPDX-License-Identifier: Apache-2.0
// One model of what the daemon knows, as JSON: `thermocline status`, the history file and every
// later view are made from it. Keys are stable; units stand in the key. Every key is in
// thermocline-status(1).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/units.h"
#include "engine/engine.h"

namespace thermocline {

/// "counters" of the status: totals since the daemon started.
[[nodiscard]] nlohmann::json counters_json(const Engine& engine);

/// One of "tenants" of the status.
[[nodiscard]] nlohmann::json tenant_json(const TenantStatus& tenant);

/// "plugin" of the status, which is there while the policy is a plug-in.
[[nodiscard]] nlohmann::json plugin_json(const PluginHealth& health);

/// The whole status but for "daemon", which the daemon adds.
[[nodiscard]] nlohmann::json status_json(const Engine& engine);

/// The status as a person reads it. `status` may come from a daemon of another version: kFailure
/// when something is missing in it.
[[nodiscard]] Result<std::string> status_text(const nlohmann::json& status);

/// One line of the history file, with its end: the epoch, the counters, and for each target at most
/// `max_bins` bins of address space with their heat and place.
[[nodiscard]] std::string history_line(const Engine& engine, const EpochReport& report,
                                       std::size_t max_bins);

}  // namespace thermocline
