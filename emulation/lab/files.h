// SPDX-License-Identifier: Apache-2.0
// Files and helper programs of the host that the lab uses: whole-file reading and writing, the
// cache folder, and running a small program for its output. Never touches /sys or /proc (System
// does).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace thermocline::lab {

/// ${XDG_CACHE_HOME:-$HOME/.cache}/thermocline; not created.
[[nodiscard]] std::filesystem::path cache_dir();

[[nodiscard]] Result<std::string> read_whole(const std::filesystem::path& path);
/// As thermocline::write_whole() (base/output.h), and makes the parent folders.
[[nodiscard]] Status write_whole(const std::filesystem::path& path, std::string_view content);

/// As read_whole(), of a file in the cache: also marks it as used now.
[[nodiscard]] Result<std::string> read_kept(const std::filesystem::path& path);
/// Deletes files in `dir` and its folders that were not used for 30 days: archives and programs of
/// builds that are gone. What can't be deleted stays.
void prune_cache(const std::filesystem::path& dir);

struct ProgramOutput {
  int exit_code = 0;  ///< 128 + signal when killed; 127 when it could not be started
  std::string text;   ///< standard output and standard error
};
/// Runs a program found through PATH and waits for it.
[[nodiscard]] Result<ProgramOutput> run_program(const std::vector<std::string>& arguments);

/// FNV-1a, 64 bits: names things in the cache by content, no security.
[[nodiscard]] std::uint64_t fingerprint(std::string_view bytes,
                                        std::uint64_t seed = 0xcbf29ce484222325u);
/// Of a file's path, size and modification time: changes when the file is rebuilt.
[[nodiscard]] Result<std::uint64_t> file_fingerprint(const std::filesystem::path& path);

}  // namespace thermocline::lab
