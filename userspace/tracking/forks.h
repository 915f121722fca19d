// SPDX-License-Identifier: Apache-2.0
// Which anonymous memory a forked child still shares with the process that it is a fork of: until
// one of them writes to a page, both map the same one, at the same address.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/system.h"
#include "base/units.h"
#include "tracking/tracker.h"

namespace thermocline {

/// The process that this one is a fork of; nullopt when it has exec'ed since, or is gone.
[[nodiscard]] std::optional<Pid> parent_of_fork(const System& system, Pid pid);

/// Those of `ranges`, private memory that both have at the same addresses, that are still the same
/// memory: of a few dozen pages in each at least half of those that both have in memory are the
/// same. Another `seed` chooses others. Two processes of one layout may also map different memory
/// at the same addresses after the fork: addresses alone don't tell. Empty without CAP_SYS_ADMIN,
/// which it takes to be told of page frames.
[[nodiscard]] std::vector<ScanRange> still_shared(System& system, Pid ancestor, Pid fork,
                                                  std::span<const ScanRange> ranges,
                                                  std::uint64_t seed);

}  // namespace thermocline
