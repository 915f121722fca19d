// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/memcached_text.h"

#include <algorithm>

#include "base/text.h"

namespace thermocline::workloads {

namespace {
/// Longest line of a reply: a key has 250 bytes at most.
constexpr std::size_t kMaxLine = 1024;
constexpr std::string_view kAfterValue = "\r\nEND\r\n";
}  // namespace

void append_memcached_get(std::string& out, std::string_view key) {
  out += "get ";
  out += key;
  out += "\r\n";
}

void append_memcached_set(std::string& out, std::string_view key, std::string_view value) {
  out += "set ";
  out += key;
  out += " 0 0 ";
  out += std::to_string(value.size());
  out += "\r\n";
  out += value;
  out += "\r\n";
}

void MemcachedParser::feed(std::string_view bytes) {
  // What was handed out is dropped here and not in next(), so that a reply's text stays valid.
  buffer_.erase(0, at_);
  at_ = 0;
  buffer_ += bytes;
}

Result<std::optional<MemcachedReply>> MemcachedParser::refuse(std::string_view why) {
  error_ = Error{ErrorKind::kCorrupt,
                 fmt::format("the server's reply is not memcached's text protocol: {}", why), 0};
  return tl::make_unexpected(*error_);
}

Result<std::optional<MemcachedReply>> MemcachedParser::next() {
  using Kind = MemcachedReply::Kind;
  if (error_) return tl::make_unexpected(*error_);
  const std::string_view rest = std::string_view(buffer_).substr(at_);
  const auto end = rest.substr(0, kMaxLine).find("\r\n");
  if (end == std::string_view::npos) {
    if (rest.size() >= kMaxLine) return refuse("a line has no end");
    return std::nullopt;
  }
  const std::string_view line = rest.substr(0, end);
  if (!line.starts_with("VALUE ")) {
    MemcachedReply reply;
    if (line == "STORED")
      reply.kind = Kind::kStored;
    else if (line == "END")
      reply.kind = Kind::kMissing;
    else if (line == "ERROR" || line == "NOT_STORED" || line.starts_with("CLIENT_ERROR ") ||
             line.starts_with("SERVER_ERROR "))
      reply.kind = Kind::kRefused;
    else
      return refuse("a line \"" + printable(line.substr(0, 80)) + "\"");
    if (reply.kind == Kind::kRefused) reply.text = line;
    at_ += end + 2;
    return reply;
  }
  // VALUE <key> <flags> <bytes>, the value, END: one key was asked for.
  const auto parts = split(line, ' ');
  if (parts.size() != 4 || parts[1].empty()) return refuse("a value has no proper head");
  const Result<std::uint64_t> length = parse_u64(parts[3]);
  if (!length) return refuse("a value has no valid length");
  if (*length > max_value_) return refuse(fmt::format("a value of {} bytes", *length));
  const std::size_t begin = end + 2;
  const std::size_t after = begin + *length;
  const std::string_view tail = rest.substr(std::min(after, rest.size()), kAfterValue.size());
  if (!kAfterValue.starts_with(tail)) return refuse("a value has no end");
  if (tail.size() < kAfterValue.size()) return std::nullopt;
  at_ += after + kAfterValue.size();
  return MemcachedReply{Kind::kValue, rest.substr(begin, *length), parts[1]};
}

}  // namespace thermocline::workloads
