// SPDX-License-Identifier: Apache-2.0
// Small readings of the kernel's files that more than one part here needs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/text.h"

namespace thermocline::numa_remote {

/// Where cgroup v2 is mounted.
inline constexpr std::string_view kGroups = "/sys/fs/cgroup";

/// A file of one number; `base` 16 is without "0x", as memory block sizes are.
[[nodiscard]] inline Result<std::uint64_t> number_in(const System& system, const std::string& path,
                                                     int base = 10) {
  TC_ASSIGN(const std::string text, system.read_file(path));
  return parse_u64(trim(text), base);
}

/// False also for a file that can't be read.
[[nodiscard]] inline bool has_word(const System& system, const std::string& path,
                                   std::string_view word) {
  const auto text = system.read_file(path);
  if (!text) return false;
  const auto all = words(*text);
  return std::find(all.begin(), all.end(), word) != all.end();
}

/// CPUs or nodes as the kernel lists them: "0-3,8".
template <class T>
[[nodiscard]] std::string list_of(const std::vector<T>& ids) {
  std::vector<std::uint32_t> numbers;
  for (const T id : ids) numbers.push_back(static_cast<std::uint32_t>(id.get()));
  std::sort(numbers.begin(), numbers.end());
  return format_list(numbers);
}

}  // namespace thermocline::numa_remote
