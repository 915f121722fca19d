// SPDX-License-Identifier: Apache-2.0
// A file of lines to which one process at a time appends, so that a killed run can go on: a line is
// in the file as a whole or not at all. Knows nothing of what the lines say.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/system.h"

namespace thermocline {

/// Makes the file if it isn't there and locks it for as long as the descriptor is open. kUsage when
/// it can't be written or another process has it open.
[[nodiscard]] Result<UniqueFd> open_line_store(const std::string& path);

/// All that can be read of an open file; `path` is for messages, here and below.
[[nodiscard]] Result<std::string> read_all(int fd, const std::string& path);

/// Takes off what lies behind the first `bytes`: a killed run may have left a part of a line, and
/// what is appended next must begin one.
[[nodiscard]] Status cut_line_store(int fd, const std::string& path, std::size_t bytes);

/// On the disk when it returns, or not in the file at all. `line` has no newline.
[[nodiscard]] Status append_line(int fd, const std::string& path, std::string_view line);

}  // namespace thermocline
