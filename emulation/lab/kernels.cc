// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/kernels.h"

#include <algorithm>

#include "base/text.h"
#include "emulation/lab/files.h"

namespace thermocline::lab {

namespace fs = std::filesystem;

const std::vector<std::string>& known_kernels() {
  static const std::vector<std::string> names = {"6.12", "6.1"};
  return names;
}

namespace {

constexpr std::string_view kDebug = "debug-";

Result<GuestKernel> cached_kernel(const std::string& name) {
  const fs::path dir = cache_dir() / "kernels" / name;
  const Result<std::string> release = read_whole(dir / "release");
  if (!release || !fs::exists(dir / "vmlinux"))
    return fail(ErrorKind::kUnsupported, "the guest kernel {} is not in {}; run {} as root once",
                name, dir.string(),
                name.starts_with(kDebug)
                    ? fmt::format("emulation/lab/debug-kernel.sh {}", name.substr(kDebug.size()))
                    : "emulation/lab/setup.sh (or ./test)");
  GuestKernel kernel;
  kernel.name = name;
  kernel.release = std::string(trim(*release));
  kernel.image = dir / "vmlinux";
  kernel.modules = dir / "lib" / "modules" / kernel.release;
  return kernel;
}

}  // namespace

bool is_known_kernel(const std::string& name) {
  const std::string series = name.starts_with(kDebug) ? name.substr(kDebug.size()) : name;
  const auto& known = known_kernels();
  return std::find(known.begin(), known.end(), series) != known.end();
}

Result<GuestKernel> find_kernel(const std::string& text) {
  if (is_known_kernel(text)) return cached_kernel(text);
  if (text.find('/') == std::string::npos && !fs::exists(text))
    return fail(
        ErrorKind::kUsage,
        "'{}' is no kernel; use {}, one of these with {} before it, or the path of an image", text,
        fmt::join(known_kernels(), ", "), kDebug);
  const auto colon = text.find(':');
  GuestKernel kernel;
  kernel.image = text.substr(0, colon);
  kernel.name = kernel.image.string();
  if (!fs::is_regular_file(kernel.image))
    return fail(ErrorKind::kUsage, "there is no kernel image {}", kernel.image.string());
  if (colon != std::string::npos) {
    kernel.modules = text.substr(colon + 1);
    if (!fs::exists(kernel.modules / "modules.dep"))
      return fail(ErrorKind::kUsage,
                  "{} has no modules.dep; give the lib/modules/RELEASE folder, after depmod",
                  kernel.modules.string());
    kernel.release = fs::canonical(kernel.modules).filename().string();
  }
  return kernel;
}

}  // namespace thermocline::lab
