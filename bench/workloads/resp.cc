// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/resp.h"

#include <charconv>
#include <cstdint>

namespace thermocline::workloads {

namespace {
/// Longest line of a reply: a type byte, an error's text or a number.
constexpr std::size_t kMaxLine = 4096;
}  // namespace

void append_command(std::string& out, std::span<const std::string_view> words) {
  out += '*';
  out += std::to_string(words.size());
  out += "\r\n";
  for (const std::string_view word : words) {
    out += '$';
    out += std::to_string(word.size());
    out += "\r\n";
    out += word;
    out += "\r\n";
  }
}

void ReplyParser::feed(std::string_view bytes) {
  // What was handed out is dropped here and not in next(), so that a Reply's text stays valid.
  buffer_.erase(0, at_);
  at_ = 0;
  buffer_ += bytes;
}

Result<std::optional<Reply>> ReplyParser::refuse(std::string_view why) {
  error_ = Error{ErrorKind::kCorrupt, fmt::format("the server's reply is not RESP: {}", why), 0};
  return tl::make_unexpected(*error_);
}

Result<std::optional<Reply>> ReplyParser::next() {
  if (error_) return tl::make_unexpected(*error_);
  const std::string_view rest = std::string_view(buffer_).substr(at_);
  if (rest.empty()) return std::nullopt;
  const char type = rest.front();
  if (type != '+' && type != '-' && type != ':' && type != '$')
    return refuse(fmt::format("type byte {:#04x}", static_cast<unsigned char>(type)));
  const auto end = rest.substr(0, kMaxLine).find("\r\n");
  if (end == std::string_view::npos) {
    if (rest.size() >= kMaxLine) return refuse("a line has no end");
    return std::nullopt;
  }
  const std::string_view line = rest.substr(1, end - 1);
  if (type != '$') {
    at_ += end + 2;
    const Reply::Kind kind = type == '+'   ? Reply::Kind::kSimple
                             : type == '-' ? Reply::Kind::kError
                                           : Reply::Kind::kInteger;
    return Reply{kind, line};
  }
  std::int64_t length = 0;
  const auto [stop, ec] = std::from_chars(line.data(), line.data() + line.size(), length);
  if (ec != std::errc() || stop != line.data() + line.size() || length < -1)
    return refuse("a bulk string has no valid length");
  if (length == -1) {
    at_ += end + 2;
    return Reply{Reply::Kind::kNull, {}};
  }
  const auto size = static_cast<std::size_t>(length);
  if (size > max_bulk_) return refuse(fmt::format("a bulk string of {} bytes", size));
  if (rest.size() < end + 2 + size + 2) return std::nullopt;
  if (rest.substr(end + 2 + size, 2) != "\r\n") return refuse("a bulk string has no end");
  at_ += end + 2 + size + 2;
  return Reply{Reply::Kind::kBulk, rest.substr(end + 2, size)};
}

}  // namespace thermocline::workloads
