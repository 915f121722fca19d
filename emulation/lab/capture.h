// SPDX-License-Identifier: Apache-2.0
// Saves what the topology layer reads of a machine as a folder tree that `--sysroot` can use: for
// tests and bug reports.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace thermocline::lab {

struct CaptureCount {
  std::size_t files = 0;
  std::size_t links = 0;
};

/// Copies nodes, CPUs, memory blocks' sizes, memory tiers, CXL and DAX devices, NUMA settings, the
/// cpuset of this process and meminfo from `root` ("" is this machine) to `out`, which must not
/// exist or be empty. Only ever reads `root`; no serial numbers, no command lines, no addresses of
/// the network.
[[nodiscard]] Result<CaptureCount> capture_machine(const std::string& root,
                                                   const std::filesystem::path& out);

}  // namespace thermocline::lab
