// SPDX-License-Identifier: Apache-2.0
// Small text helpers that several layers need: number and size parsing, lists, nearest word.
// Pure functions; never touch the machine.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline {

[[nodiscard]] std::string_view trim(std::string_view text);
[[nodiscard]] std::vector<std::string_view> split(std::string_view text, char separator);
/// Split at runs of blanks, tabs and newlines; no empty words.
[[nodiscard]] std::vector<std::string_view> words(std::string_view text);

/// Whole text as a number, base 10 or 16 ("0x" not allowed); kUsage otherwise.
[[nodiscard]] Result<std::uint64_t> parse_u64(std::string_view text, int base = 10);

/// "512M", "1G", "4096", "64KiB": binary multiples; kUsage for anything else, overflow included.
[[nodiscard]] Result<Bytes> parse_bytes(std::string_view text);
/// "250ms", "1s", "20us", "5min": kUsage for anything else, a missing unit included.
[[nodiscard]] Result<Nanoseconds> parse_duration(std::string_view text);
/// The kernel's list format, "0-3,8": sorted numbers; empty text is an empty list.
[[nodiscard]] Result<std::vector<std::uint32_t>> parse_list(std::string_view text);

/// 1536 MiB -> "1.5 GiB". For people; JSON uses bytes.
[[nodiscard]] std::string format_bytes(Bytes bytes);
/// 1500000 ns -> "1.5 ms".
[[nodiscard]] std::string format_duration(Nanoseconds time);
/// The inverse of parse_list(): {0,1,2,8} -> "0-2,8". `numbers` must be sorted.
[[nodiscard]] std::string format_list(std::span<const std::uint32_t> numbers);

/// `text` without what a terminal or a JSON writer can't take: every byte that is not part of valid
/// UTF-8 and every control character becomes a "?". For names that other users choose.
[[nodiscard]] std::string printable(std::string_view text);

/// What a command-line parser complained about, as one sentence: "A verb is required" becomes
/// "a verb is required; see COMMAND --help", "Could not convert: --smp = x" becomes "--smp wants a
/// number ...".
[[nodiscard]] std::string usage_sentence(std::string_view complaint, std::string_view command);

struct TextPlace {
  unsigned line = 1;
  unsigned column = 1;
};
/// A TOML text as toml++ can take it, or the place of its first letter beyond ASCII. toml++ 3.3
/// runs into undefined behaviour on most such letters outside quotes (the default branch of
/// is_non_ascii_horizontal_whitespace() is marked unreachable, and isn't), so it sees none: in
/// comment lines they become "?", anywhere else they are refused (in values there is \uXXXX). A
/// text with triple quotes may have none at all, as its lines can't be told apart without parsing.
[[nodiscard]] tl::expected<std::string, TextPlace> ascii_toml(std::string_view text);

/// The word of `candidates` nearest to `word` by edit distance, or "" when none is near.
[[nodiscard]] std::string nearest_word(std::string_view word,
                                       std::span<const std::string> candidates);

}  // namespace thermocline
