// SPDX-License-Identifier: Apache-2.0
// How the workload sqlite talks with the sqlite3 shell: statements go to its standard input, each
// followed by ".print" of an end mark, as a statement without rows prints nothing. The shell writes
// out what it has printed whenever it reads a line, so answers come at once through a pipe as well.
// Answers are untrusted input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace thermocline::workloads {

/// Appends `statement`, which ends in a semicolon, and the request for the end mark.
void append_statement(std::string& out, std::string_view statement);

/// Collects bytes and hands out what each statement printed. Not thread-safe.
class ShellAnswers {
 public:
  explicit ShellAnswers(std::size_t max_answer = std::size_t{64} << 10) : max_(max_answer) {}

  void feed(std::string_view bytes);
  /// Lines of the next whole answer, each with its newline; empty: no rows. Valid until more is
  /// fed. nullopt when more bytes are needed; kCorrupt when an answer is longer than allowed.
  [[nodiscard]] Result<std::optional<std::string_view>> next();

 private:
  std::size_t max_;
  std::string buffer_;
  std::size_t at_ = 0;
};

/// A row of the workload's table: key|version|text.
struct ShellRow {
  std::uint64_t key;
  std::uint64_t version;
  std::string_view text;
};
/// The one row of an answer; kCorrupt when it is not one such row.
[[nodiscard]] Result<ShellRow> parse_shell_row(std::string_view answer);

}  // namespace thermocline::workloads
