// SPDX-License-Identifier: Apache-2.0
// The factories of the built-in policies, one a file; registry.cc lists them. Adding a policy is a
// line here, a line there and a file.
#pragma once

#include "policies/policy.h"

namespace thermocline {

[[nodiscard]] PolicyFactory heat_policy();
[[nodiscard]] PolicyFactory static_policy();

}  // namespace thermocline
