// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/doctor.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/text.h"
#include "emulation/lab/files.h"
#include "emulation/lab/guest_image.h"
#include "emulation/lab/kernels.h"
#include "emulation/lab/runner.h"

namespace thermocline::lab {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kOldestQemu = 9;
constexpr std::string_view kSetup = "run emulation/lab/setup.sh as root once";

Finding examine_qemu() {
  const Result<std::string> version = qemu_version();
  if (!version) return {"QEMU", false, true, version.error().message};
  const auto major = parse_u64(split(*version, '.').front());
  if (!major || *major < kOldestQemu)
    return {"QEMU", false, true,
            fmt::format("version {} is too old for CXL memory, {} is needed; {}", *version,
                        kOldestQemu, kSetup)};
  return {"QEMU", true, true, *version};
}

Finding examine_program(const std::string& name, const std::string& path,
                        std::string_view what_for) {
  if (::access(path.c_str(), X_OK) == 0) return {name, true, true, path};
  return {name, false, true, fmt::format("{} is missing ({}); {}", path, what_for, kSetup)};
}

Finding examine_cache() {
  const fs::path dir = cache_dir();
  fs::path there = dir;
  std::error_code ec;
  while (!fs::exists(there, ec) && there.has_relative_path()) there = there.parent_path();
  if (::access(there.c_str(), W_OK) != 0)
    return {
        "cache", false, true,
        fmt::format("{} can't be written; set XDG_CACHE_HOME to a folder that can", dir.string())};
  const std::uint64_t free_mib = fs::space(there, ec).available >> 20;
  if (!ec && free_mib < 512)
    return {"cache", false, true,
            fmt::format("{} has only {} MiB free; free some", dir.string(), free_mib)};
  return {"cache", true, true, fmt::format("{}, {} MiB free", dir.string(), free_mib)};
}

Finding examine_timing() {
  const Status status = check_timing_plugin();
  return {"timing model", status.has_value(), false,
          status ? "can drive this QEMU's clock" : status.error().message};
}

}  // namespace

std::vector<Finding> examine_lab() {
  std::vector<Finding> findings = {
      examine_qemu(),
      examine_program("busybox", "/bin/busybox", "the guest's shell and tools"),
      examine_program("xz", "/usr/bin/xz", "unpacks kernel modules"),
      examine_cache(),
  };
  for (const std::string& name : known_kernels()) {
    const Result<GuestKernel> kernel = find_kernel(name);
    const std::string what = "kernel " + name;
    findings.push_back(kernel ? Finding{what, true, true, kernel->release}
                              : Finding{what, false, true, kernel.error().message});
    if (!kernel) continue;
    const fs::path module = module_file(*kernel);
    const bool built = !module.empty() && fs::exists(module);
    findings.push_back(
        {"module for " + name, built, false,
         built ? module.string() : "thermocline.ko is not built for it; build the tree first"});
  }
  if (findings.front().good) findings.push_back(examine_timing());
  return findings;
}

bool is_ready(const std::vector<Finding>& findings) {
  return std::all_of(findings.begin(), findings.end(),
                     [](const Finding& f) { return f.good || !f.needed; });
}

}  // namespace thermocline::lab
