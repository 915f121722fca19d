// SPDX-License-Identifier: Apache-2.0
// Packs the first root file system of a guest: a base that is kept in the cache (busybox, scripts,
// modules) and a small part for each run (our programs, files with the libraries they need, the
// command).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "emulation/lab/guest_modules.h"
#include "emulation/lab/kernels.h"

namespace thermocline::lab {

struct ImageSpec {
  GuestKernel kernel;
  std::vector<std::string> modules;  ///< names; loaded by init before the command
  std::vector<std::string>
      files;  ///< "SOURCE" (goes to /lab) or "SOURCE:/PLACE/IN/GUEST"; folders too
  std::vector<std::string> command;
  std::string config;  ///< shell variables for init
  std::string nonce;   ///< marks control lines
};

/// The base of a kernel as the bytes of a cpio archive; built at first use. busybox and xz must be
/// there.
[[nodiscard]] Result<std::string> base_archive(const GuestKernel& kernel);

/// The part for one run. Our own programs (thermocline, thermoclined, workloads) go to
/// /opt/thermocline/bin, the module to /lib/thermocline/thermocline.ko, as far as they are built.
[[nodiscard]] Result<std::string> run_archive(const ImageSpec& spec);

/// Folder of the build tree this program runs from; empty when it runs from elsewhere (installed).
[[nodiscard]] std::filesystem::path build_dir();
/// Where an installed program has its plug-in and modules: ../lib/thermocline beside its own
/// folder.
[[nodiscard]] std::filesystem::path installed_dir();
/// Where the module for a kernel is expected; empty when this kernel has no such place.
[[nodiscard]] std::filesystem::path module_file(const GuestKernel& kernel);

/// 'it'"'"'s' -- one word for a POSIX shell.
[[nodiscard]] std::string shell_quote(std::string_view word);

}  // namespace thermocline::lab
