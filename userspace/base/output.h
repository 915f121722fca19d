// SPDX-License-Identifier: Apache-2.0
// What programs leave behind for people: whole files and standard output. Never loses what a path
// named before, and never takes a write that failed for one that worked.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace thermocline {

/// Writes all of `content`, however many calls that takes. 0, or the errno of the call that failed.
[[nodiscard]] int write_fully(int fd, std::string_view content);

/// Makes `content` the content of `path`. A regular file, or one that isn't there yet, changes as a
/// whole or not at all: written beside and renamed, through symbolic links, with the old file's
/// permissions. Anything else that a path can name (a device, a pipe) is written in place.
[[nodiscard]] Status write_whole(const std::string& path, std::string_view content);

/// Flushes standard output. kFailure when any of what was printed so far could not be written: a
/// full disk must not look like success.
[[nodiscard]] Status finish_stdout();

}  // namespace thermocline
