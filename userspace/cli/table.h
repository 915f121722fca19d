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

/// Each row has one cell a column. Lines are parted by "\n", with none at the end.
[[nodiscard]] std::string format_table(const std::vector<Column>& columns,
                                       const std::vector<std::vector<std::string>>& rows);

}  // namespace thermocline::cli
