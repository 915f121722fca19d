// SPDX-License-Identifier: Apache-2.0
// The part of memcached's text protocol (doc/protocol.txt of its sources) that the workload
// memcached speaks: get of one key, set, and their replies. Replies are untrusted input: a length
// over the limit or a byte out of place is an error, never a crash.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace thermocline::workloads {

void append_memcached_get(std::string& out, std::string_view key);
void append_memcached_set(std::string& out, std::string_view key, std::string_view value);

struct MemcachedReply {
  enum class Kind { kStored, kValue, kMissing, kRefused };
  Kind kind = Kind::kMissing;
  /// Value, or the line with which the server refused; valid until the parser is fed or asked for
  /// the next reply.
  std::string_view text;
  std::string_view key;  ///< of a value
};

/// Collects bytes and hands out whole replies. Not thread-safe.
class MemcachedParser {
 public:
  /// A reply with a longer line or value is refused.
  explicit MemcachedParser(std::size_t max_value = std::size_t{1} << 20) : max_value_(max_value) {}

  void feed(std::string_view bytes);
  /// The next whole reply; nullopt when more bytes are needed; kCorrupt when they aren't a reply
  /// (the parser then stays at that error).
  [[nodiscard]] Result<std::optional<MemcachedReply>> next();

 private:
  Result<std::optional<MemcachedReply>> refuse(std::string_view why);
  std::size_t max_value_;
  std::string buffer_;
  std::size_t at_ = 0;
  std::optional<Error> error_;
};

}  // namespace thermocline::workloads
