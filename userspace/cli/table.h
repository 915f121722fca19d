// SPDX-License-Identifier: Apache-2.0
// Tables for people: columns as wide as their widest cell, two blanks between, no trailing blanks.
#pragma once

#include <string>
#include <vector>

namespace thermocline::cli {

struct Column {
  std::string header;
  bool right = false;  ///< numbers line up at the right
};

/// What a terminal shows without breaking lines, and a book of manual pages.
inline constexpr std::size_t kLineWidth = 100;

/// Each row has one cell a column. Lines are parted by "\n", with none at the end. With `max_width`
/// the last column is wrapped at blanks so that lines are no longer than that, as far as words
/// allow; lines of a wrapped cell are indented as its first one.
[[nodiscard]] std::string format_table(const std::vector<Column>& columns,
                                       const std::vector<std::vector<std::string>>& rows,
                                       std::size_t max_width = 0);

}  // namespace thermocline::cli
