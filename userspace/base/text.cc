// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <numeric>

namespace thermocline {

namespace {
constexpr std::string_view kBlank = " \t\r\n";

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::array<Unit, 9> kByteUnits{{{"", 1},
                                          {"B", 1},
                                          {"K", 1ull << 10},
                                          {"KiB", 1ull << 10},
                                          {"M", 1ull << 20},
                                          {"MiB", 1ull << 20},
                                          {"G", 1ull << 30},
                                          {"GiB", 1ull << 30},
                                          {"T", 1ull << 40}}};
constexpr std::array<Unit, 5> kTimeUnits{
    {{"ns", 1}, {"us", 1'000}, {"ms", 1'000'000}, {"s", 1'000'000'000}, {"min", 60'000'000'000}}};

Result<std::uint64_t> parse_scaled(std::string_view text, std::span<const Unit> units,
                                   std::string_view example) {
  const std::string_view body = trim(text);
  std::uint64_t number = 0;
  const auto [end, ec] = std::from_chars(body.data(), body.data() + body.size(), number);
  if (ec != std::errc() || end == body.data())
    return fail(ErrorKind::kUsage, "\"{}\" is not {}", text, example);
  const std::string_view unit = trim(body.substr(static_cast<std::size_t>(end - body.data())));
  for (const Unit& u : units) {
    if (u.name != unit) continue;
    if (number > std::numeric_limits<std::int64_t>::max() / u.factor)
      return fail(ErrorKind::kUsage, "\"{}\" is too large", text);
    return number * u.factor;
  }
  return fail(ErrorKind::kUsage, "\"{}\" is not {}", text, example);
}
}  // namespace

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> result;
  for (;;) {
    const auto first = text.find_first_not_of(kBlank);
    if (first == std::string_view::npos) return result;
    text.remove_prefix(first);
    const auto end = text.find_first_of(kBlank);
    result.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return result;
    text.remove_prefix(end);
  }
}

Result<std::uint64_t> parse_u64(std::string_view text, int base) {
  std::uint64_t number = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (ec != std::errc() || end != text.data() + text.size() || text.empty())
    return fail(ErrorKind::kUsage, "\"{}\" is not a whole number from 0 to 2^64 - 1", text);
  return number;
}

Result<Bytes> parse_bytes(std::string_view text) {
  TC_ASSIGN(const auto n, parse_scaled(text, kByteUnits, "a size such as 512M, 2G or 64K"));
  return Bytes(n);
}

Result<Nanoseconds> parse_duration(std::string_view text) {
  TC_ASSIGN(const auto n, parse_scaled(text, kTimeUnits, "a time such as 250ms, 1s or 20us"));
  return Nanoseconds(static_cast<std::int64_t>(n));
}

Result<std::vector<std::uint32_t>> parse_list(std::string_view text) {
  // A kernel with 8192 CPUs prints at most that many numbers; more is not a list of the kernel's.
  constexpr std::uint64_t kLargest = 1u << 20;
  std::vector<std::uint32_t> numbers;
  text = trim(text);
  if (text.empty()) return numbers;
  for (const std::string_view part : split(text, ',')) {
    const auto dash = part.find('-');
    TC_ASSIGN(const auto first, parse_u64(part.substr(0, dash)));
    std::uint64_t last = first;
    if (dash != std::string_view::npos) {
      TC_ASSIGN(last, parse_u64(part.substr(dash + 1)));
    }
    if (last < first || last > kLargest)
      return fail(ErrorKind::kUsage, "\"{}\" is not a list such as 0-3,8", text);
    for (std::uint64_t n = first; n <= last; ++n) numbers.push_back(static_cast<std::uint32_t>(n));
  }
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

std::string format_bytes(Bytes bytes) {
  constexpr std::array<std::string_view, 5> kNames{"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes.get());
  std::size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < kNames.size()) {
    value /= 1024.0;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, value < 10.0 && unit > 0 ? 1 : 0, kNames[unit]);
}

std::string format_duration(Nanoseconds time) {
  constexpr std::array<std::string_view, 4> kNames{"ns", "us", "ms", "s"};
  auto value = static_cast<double>(time.count());
  std::size_t unit = 0;
  while (value >= 1000.0 && unit + 1 < kNames.size()) {
    value /= 1000.0;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, value < 10.0 && unit > 0 ? 1 : 0, kNames[unit]);
}

std::string format_list(std::span<const std::uint32_t> numbers) {
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t j = i;
    while (j + 1 < numbers.size() && numbers[j + 1] == numbers[j] + 1) ++j;
    if (!text.empty()) text += ',';
    text += std::to_string(numbers[i]);
    if (j > i) text += "-" + std::to_string(numbers[j]);
    i = j + 1;
  }
  return text;
}

namespace {

/// Length of the valid UTF-8 sequence that `text` begins with, or 0 (RFC 3629, section 4).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  // Longer than needed, surrogates, beyond U+10FFFF.
  if ((lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xed && byte(1) > 0x9f) ||
      (lead == 0xf0 && byte(1) < 0x90) || (lead == 0xf4 && byte(1) > 0x8f))
    return 0;
  return length;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const auto lead = static_cast<unsigned char>(text.front());
    // C1 controls, U+0080 to U+009F, are "\xc2" and one of these.
    const bool control =
        lead < 0x20 || lead == 0x7f ||
        (lead == 0xc2 && length == 2 && static_cast<unsigned char>(text[1]) < 0xa0);
    const std::size_t taken = length == 0 ? 1 : length;
    if (length == 0 || control) {
      out += '?';
    } else {
      out += text.substr(0, taken);
    }
    text.remove_prefix(taken);
  }
  return out;
}

std::string usage_sentence(std::string_view complaint, std::string_view command) {
  std::string text = fmt::format("{}", fmt::join(words(complaint), " "));
  // "Could not convert: --smp = x"; whatever isn't a text is a number.
  constexpr std::string_view kConversion = "Could not convert: ";
  if (const auto equals = text.find(" = "); text.starts_with(kConversion) && equals != text.npos)
    text = fmt::format("{} wants a number in range, not '{}'",
                       text.substr(kConversion.size(), equals - kConversion.size()),
                       text.substr(equals + 3));
  // A validator's own words: "--slow-node: wants ...".
  if (const auto colon = text.find(": wants "); colon != text.npos) text.erase(colon, 1);
  const auto is_upper = [](char c) { return c >= 'A' && c <= 'Z'; };
  // Not "SIZE is required": that is a name.
  if (text.size() > 1 && is_upper(text[0]) && !is_upper(text[1]))
    text[0] = static_cast<char>(text[0] - 'A' + 'a');
  return fmt::format("{}; see {} --help", text, command);
}

tl::expected<std::string, TextPlace> ascii_toml(std::string_view text) {
  const auto beyond = [](char c) { return static_cast<unsigned char>(c) > 0x7e; };
  const bool lines_are_clear = text.find("\"\"\"") == text.npos && text.find("'''") == text.npos;
  std::string result(text);
  std::size_t begin = 0;
  for (unsigned line = 1; begin < result.size(); ++line) {
    const std::size_t end = std::min(result.find('\n', begin), result.size());
    const auto first = result.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto last = result.begin() + static_cast<std::ptrdiff_t>(end);
    const auto odd = std::find_if(first, last, beyond);
    if (odd != last) {
      if (!lines_are_clear || !trim(std::string_view(first, last)).starts_with('#'))
        return tl::make_unexpected(TextPlace{line, static_cast<unsigned>(odd - first) + 1});
      std::replace_if(odd, last, beyond, '?');
    }
    begin = end + 1;
  }
  return result;
}

std::string nearest_word(std::string_view word, std::span<const std::string> candidates) {
  std::string best;
  // Two edits cover a swapped pair of letters; in a very short word they could make any other.
  std::size_t best_distance =
      (word.size() <= 3 ? 1 : std::max<std::size_t>(2, word.size() / 3)) + 1;
  for (const std::string& candidate : candidates) {
    std::vector<std::size_t> row(candidate.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 0; i < word.size(); ++i) {
      std::size_t diagonal = std::exchange(row[0], i + 1);
      for (std::size_t j = 0; j < candidate.size(); ++j) {
        const std::size_t substitute = diagonal + (word[i] == candidate[j] ? 0 : 1);
        diagonal = row[j + 1];
        row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, substitute});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

}  // namespace thermocline
