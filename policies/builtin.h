// SPDX-License-Identifier: Apache-2.0
// The factories of the built-in policies, one a file; registry.cc lists them. Adding a policy is a
// line here, a line there and a file.
#pragma once

#include "policies/policy.h"

namespace thermocline {

[[nodiscard]] PolicyFactory age_policy();
[[nodiscard]] PolicyFactory auto_policy();
[[nodiscard]] PolicyFactory exchange_policy();
[[nodiscard]] PolicyFactory heat_policy();
[[nodiscard]] PolicyFactory hemem_policy();
[[nodiscard]] PolicyFactory hybrid_policy();
[[nodiscard]] PolicyFactory interleave_policy();
[[nodiscard]] PolicyFactory latency_policy();
[[nodiscard]] PolicyFactory static_policy();
[[nodiscard]] PolicyFactory tpp_policy();

}  // namespace thermocline
