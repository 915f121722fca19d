// SPDX-License-Identifier: Apache-2.0
// Finds a guest kernel: one of those that setup.sh unpacked into the cache, or any image given by
// path.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace thermocline::lab {

struct GuestKernel {
  std::string name;               ///< "6.12", "debug-6.12", or the image's path
  std::string release;            ///< "6.12.95+deb12-amd64"; empty when it has no modules
  std::filesystem::path image;    ///< what QEMU boots
  std::filesystem::path modules;  ///< folder with modules.dep; empty when it has none
};

/// Names of the kernels that setup.sh provides, newest first.
[[nodiscard]] const std::vector<std::string>& known_kernels();
/// True for these and for the debug kernels of the same series ("debug-6.12"), which
/// debug-kernel.sh builds.
[[nodiscard]] bool is_known_kernel(const std::string& name);

/// `text` is_known_kernel(), or VMLINUZ[:MODULES_DIR] with paths; MODULES_DIR holds modules.dep.
/// kUnsupported when a known kernel is not in the cache yet, kUsage when a path is wrong.
[[nodiscard]] Result<GuestKernel> find_kernel(const std::string& text);

}  // namespace thermocline::lab
