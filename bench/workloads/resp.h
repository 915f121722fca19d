// SPDX-License-Identifier: Apache-2.0
// The part of RESP2 (the redis protocol) that zipf_client speaks: it writes commands as arrays of
// bulk strings and reads simple strings, errors, integers and bulk strings. Replies are untrusted
// input: a length over the limit or a byte out of place is an error, never a crash.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace thermocline::workloads {

/// Appends one command, e.g. {"SET", key, value}.
void append_command(std::string& out, std::span<const std::string_view> words);

struct Reply {
  enum class Kind { kSimple, kError, kInteger, kBulk, kNull };
  Kind kind = Kind::kNull;
  std::string_view text;  ///< valid until the parser is fed or asked for the next reply
};

/// Collects bytes and hands out whole replies. Not thread-safe.
class ReplyParser {
 public:
  /// A reply with a longer line or bulk string is refused.
  explicit ReplyParser(std::size_t max_bulk = std::size_t{16} << 20) : max_bulk_(max_bulk) {}

  void feed(std::string_view bytes);
  /// The next whole reply; nullopt when more bytes are needed; kCorrupt when they aren't RESP (the
  /// parser then stays at that error).
  [[nodiscard]] Result<std::optional<Reply>> next();

 private:
  Result<std::optional<Reply>> refuse(std::string_view why);
  std::size_t max_bulk_;
  std::string buffer_;
  std::size_t at_ = 0;
  std::optional<Error> error_;
};

}  // namespace thermocline::workloads
