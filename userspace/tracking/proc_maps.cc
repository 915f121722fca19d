// SPDX-License-Identifier: Apache-2.0
#include "tracking/proc_maps.h"

#include <algorithm>
#include <optional>

#include "base/text.h"

namespace thermocline {

namespace {

constexpr std::uint64_t kEnd = std::uint64_t{1} << 57;

tl::unexpected<Error> corrupt(std::size_t line, std::string_view why) {
  return fail(ErrorKind::kCorrupt, "line {} of a process's memory map: {}", line, why);
}

/// The next word of a line, which is cut off.
std::string_view next_word(std::string_view& line) {
  const auto begin = line.find_first_not_of(' ');
  if (begin == std::string_view::npos) return line = {};
  const auto end = std::min(line.find(' ', begin), line.size());
  const std::string_view word = line.substr(begin, end - begin);
  line.remove_prefix(end);
  return word;
}

/// FNV-1a (Fowler, Noll, Vo).
std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

/// "7f00-7f01 rw-p 00000000 08:01 123 name". What stands behind the inode is anybody's text.
Result<std::optional<Mapping>> parse_line(std::string_view line, std::size_t number, Vpn after) {
  const std::string_view range = next_word(line), flags = next_word(line);
  const auto offset = parse_u64(next_word(line), 16);
  const std::string_view device = next_word(line);
  const auto colon = std::min(device.find(':'), device.size());
  const auto major = parse_u64(device.substr(0, colon), 16),
             minor = parse_u64(device.substr(std::min(colon + 1, device.size())), 16);
  const auto inode = parse_u64(next_word(line));
  const auto dash = range.find('-');
  if (dash == std::string_view::npos || flags.size() != 4 || !offset || !major || !minor || !inode)
    return corrupt(number, "it is none");
  const auto first = parse_u64(range.substr(0, dash), 16),
             end = parse_u64(range.substr(dash + 1), 16);
  if (!first || !end) return corrupt(number, "bad addresses");
  // Above the user's half: the kernel's own page of vsyscall.
  if (*first >= kEnd) return std::optional<Mapping>();
  if (*first % kPageSize != 0 || *end % kPageSize != 0 || *first >= *end || *end > kEnd)
    return corrupt(number, "addresses that can't be");
  Mapping mapping;
  mapping.first = Vpn::of_address(*first);
  mapping.end = Vpn::of_address(*end);
  if (mapping.first < after) return corrupt(number, "it overlaps the one before");
  mapping.shared = flags[3] == 's';
  mapping.file = *inode != 0;
  mapping.writable = flags[1] == 'w';
  mapping.executable = flags[2] == 'x';
  const std::string_view name = trim(line);
  // The first segment that is made has the id 0.
  mapping.sysv = name.starts_with("/SYSV");
  if (!mapping.file && !mapping.sysv) return std::optional(mapping);
  mapping.offset = PageCount(*offset >> kPageShift);
  mapping.device = *major << 32 | *minor;
  mapping.inode = *inode;
  mapping.name = hash_of(name);
  return std::optional(mapping);
}

/// The value of "Rss:     123 kB", as bytes.
bool read_kilobytes(std::string_view value, Bytes& bytes) {
  const auto parts = words(value);
  if (parts.size() != 2 || parts[1] != "kB") return false;
  const auto number = parse_u64(parts[0]);
  if (!number || *number >= kEnd / 1024) return false;
  bytes = Bytes(*number * 1024);
  return true;
}

}  // namespace

Result<std::vector<Mapping>> parse_maps(std::string_view text) {
  std::vector<Mapping> mappings;
  std::size_t number = 0;
  for (const std::string_view line : split(text, '\n')) {
    ++number;
    if (line.empty()) continue;
    TC_ASSIGN(const auto mapping,
              parse_line(line, number, mappings.empty() ? Vpn(0) : mappings.back().end));
    if (mapping) mappings.push_back(*mapping);
  }
  return mappings;
}

Result<std::vector<MappingUse>> parse_smaps(std::string_view text) {
  std::vector<MappingUse> uses;
  bool has_resident = false, has_referenced = false;
  bool open = false;  // a mapping whose lines are being read
  std::size_t number = 0;
  Vpn after(0);
  const auto finish = [&]() -> Status {
    if (!open) return {};
    const MappingUse& use = uses.back();
    const Bytes size = bytes_of(use.mapping.end - use.mapping.first);
    if (!has_resident || !has_referenced)
      return corrupt(number, "Rss or Referenced is missing above it");
    if (use.resident > size || use.referenced > size)
      return corrupt(number, "more in use above it than the mapping can hold");
    return {};
  };
  for (const std::string_view line : split(text, '\n')) {
    ++number;
    if (line.empty()) continue;
    // "Key:  value"; a mapping's own line begins with an address.
    const auto colon = line.find(':');
    const std::string_view key = line.substr(0, colon);
    const bool is_key = colon != std::string_view::npos && key.find(' ') == std::string_view::npos;
    if (!is_key) {
      TC_TRY(finish());
      TC_ASSIGN(const auto mapping, parse_line(line, number, after));
      open = mapping.has_value();
      has_resident = has_referenced = false;
      if (!mapping) continue;
      after = mapping->end;
      uses.push_back({*mapping, {}, {}, false});
      continue;
    }
    if (!open) continue;
    const std::string_view value = line.substr(colon + 1);
    if (key == "Rss") has_resident = read_kilobytes(value, uses.back().resident);
    if (key == "Referenced") has_referenced = read_kilobytes(value, uses.back().referenced);
    if (key == "VmFlags")
      for (const std::string_view flag : words(value))
        if (flag == "ht" || flag == "pf" || flag == "io" || flag == "mm")
          uses.back().unscannable = true;
  }
  TC_TRY(finish());
  return uses;
}

PagemapEntry parse_pagemap(std::uint64_t entry) {
  PagemapEntry result;
  result.present = (entry >> 63) != 0;
  if (!result.present) return result;
  result.soft_dirty = ((entry >> 55) & 1) != 0;
  result.exclusive = ((entry >> 56) & 1) != 0;
  result.pfn = entry & ((std::uint64_t{1} << 55) - 1);
  return result;
}

}  // namespace thermocline
