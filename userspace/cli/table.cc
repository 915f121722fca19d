// SPDX-License-Identifier: Apache-2.0
#include "cli/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace thermocline::cli {

std::string format_table(const std::vector<Column>& columns,
                         const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::vector<std::string>> lines(1);
  for (const Column& column : columns) lines[0].push_back(column.header);
  lines.insert(lines.end(), rows.begin(), rows.end());

  std::string text;
  for (const auto& line : lines) {
    std::string out;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      std::size_t width = 0;
      for (const auto& other : lines) width = std::max(width, other[i].size());
      if (i > 0) out += "  ";
      out += columns[i].right ? fmt::format("{:>{}}", line[i], width)
                              : fmt::format("{:<{}}", line[i], width);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += (text.empty() ? "" : "\n") + out;
  }
  return text;
}

}  // namespace thermocline::cli
