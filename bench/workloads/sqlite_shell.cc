// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/sqlite_shell.h"

#include "base/text.h"

namespace thermocline::workloads {

namespace {
/// A line that no row of ours can be.
constexpr std::string_view kMark = "=\n";
constexpr std::string_view kPrintMark = "\n.print =\n";
}  // namespace

void append_statement(std::string& out, std::string_view statement) {
  out += statement;
  out += kPrintMark;
}

void ShellAnswers::feed(std::string_view bytes) {
  buffer_.erase(0, at_);
  at_ = 0;
  buffer_ += bytes;
}

Result<std::optional<std::string_view>> ShellAnswers::next() {
  const std::string_view rest = std::string_view(buffer_).substr(at_);
  for (std::size_t line = 0; line <= max_;) {
    if (rest.substr(line).starts_with(kMark)) {
      at_ += line + kMark.size();
      return rest.substr(0, line);
    }
    const auto end = rest.find('\n', line);
    if (end == std::string_view::npos) {
      if (rest.size() > max_) break;
      return std::nullopt;
    }
    line = end + 1;
  }
  return fail(ErrorKind::kCorrupt, "the shell's answer has no end after {} bytes", max_);
}

Result<ShellRow> parse_shell_row(std::string_view answer) {
  if (answer.empty()) return fail(ErrorKind::kCorrupt, "there is no such row");
  const auto parts = split(answer.substr(0, answer.size() - 1), '|');
  if (parts.size() == 3 && answer.find('\n') == answer.size() - 1) {
    const auto key = parse_u64(parts[0]);
    const auto version = parse_u64(parts[1]);
    if (key && version) return ShellRow{*key, *version, parts[2]};
  }
  return fail(ErrorKind::kCorrupt, "\"{}\" is not one row", printable(answer.substr(0, 80)));
}

}  // namespace thermocline::workloads
