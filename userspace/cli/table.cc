// SPDX-License-Identifier: Apache-2.0
#include "cli/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/text.h"

namespace thermocline::cli {

namespace {

std::vector<std::string> wrapped(const std::string& text, std::size_t width) {
  const std::size_t indent = std::min(text.find_first_not_of(' '), text.size());
  std::vector<std::string> lines;
  std::string line = text.substr(0, indent);
  for (const std::string_view word : words(text)) {
    const bool is_first = line.size() == indent;
    if (!is_first && line.size() + 1 + word.size() > width) {
      lines.push_back(line);
      line = std::string(indent, ' ');
    } else if (!is_first) {
      line += ' ';
    }
    line += word;
  }
  lines.push_back(line);
  return lines;
}

}  // namespace

std::string format_table(const std::vector<Column>& columns,
                         const std::vector<std::vector<std::string>>& rows, std::size_t max_width) {
  std::vector<std::vector<std::string>> cells(1);
  for (const Column& column : columns) cells[0].push_back(column.header);
  cells.insert(cells.end(), rows.begin(), rows.end());

  std::vector<std::size_t> widths(columns.size());
  for (const auto& row : cells)
    for (std::size_t i = 0; i < columns.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  const std::size_t last = columns.size() - 1;
  const std::size_t before = std::accumulate(widths.begin(), widths.end() - 1, 2 * last);

  std::string text;
  for (const auto& row : cells) {
    std::string line;
    for (std::size_t i = 0; i < last; ++i)
      line +=
          fmt::format(fmt::runtime(columns[i].right ? "{:>{}}  " : "{:<{}}  "), row[i], widths[i]);
    const std::vector<std::string> parts =
        max_width > before ? wrapped(row[last], max_width - before) : std::vector{row[last]};
    for (const std::string& part : parts) {
      line += columns[last].right ? fmt::format("{:>{}}", part, widths[last]) : part;
      line.erase(line.find_last_not_of(' ') + 1);
      text += (text.empty() ? "" : "\n") + line;
      line.assign(before, ' ');
    }
  }
  return text;
}

}  // namespace thermocline::cli
