// SPDX-License-Identifier: Apache-2.0
// Which shared libraries a program needs, so that it can be carried into a guest.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace thermocline::lab {

/// True for the first bytes of an ELF file.
[[nodiscard]] bool is_elf(std::string_view content);
/// Interpreter of a script ("#!/bin/bash -e" -> "/bin/bash", "#!/usr/bin/env python3" ->
/// "python3"); empty when it has none.
[[nodiscard]] std::string_view script_interpreter(std::string_view content);

/// Absolute host paths of the libraries and the loader of an ELF program or library, as ldd tells
/// them; empty for a static one. libgcc_s.so.1 is added wherever libc is: pthread_exit() loads it
/// by name. Fails when a library is missing on the host.
[[nodiscard]] Result<std::vector<std::filesystem::path>> library_closure(
    const std::filesystem::path& elf);

/// The paths in ldd's output; `program` is only for the message.
[[nodiscard]] Result<std::vector<std::filesystem::path>> parse_ldd(std::string_view output,
                                                                   const std::string& program);

}  // namespace thermocline::lab
