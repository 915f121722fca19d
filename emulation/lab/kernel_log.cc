// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/kernel_log.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/text.h"

namespace thermocline::lab {

bool is_trouble(std::string_view line) {
  // Texts of the kernel's own reports; "WARNING:" begins WARN() and lockdep's, "BUG:" all of BUG's
  // kin.
  static constexpr std::array<std::string_view, 21> kMarks = {
      "WARNING: ",
      "BUG: ",
      "kernel BUG at",
      "Oops: ",
      "Oops[",
      "general protection fault",
      "Kernel panic",
      "double fault",
      "soft lockup",
      "hard LOCKUP",
      "Hard LOCKUP",
      "self-detected stall",
      "detected stalls on CPUs",
      "blocked for more than",
      "unable to handle",
      "KASAN:",
      "UBSAN:",
      "refcount_t:",
      "non-static key",                                 // lockdep can't follow a lock ...
      "turning off the locking correctness validator",  // ... and gives up
      "unreferenced object",                            // kmemleak's
  };
  for (const std::string_view mark : kMarks) {
    const auto at = line.find(mark);
    if (at == std::string_view::npos) continue;
    // "DEBUG: " is not "BUG: ".
    if (at == 0 || std::isalpha(static_cast<unsigned char>(line[at - 1])) == 0) return true;
  }
  return false;
}

std::vector<std::string> trouble_in(std::string_view log) {
  std::vector<std::string> found;
  for (const std::string_view line : split(log, '\n'))
    if (is_trouble(line)) found.emplace_back(trim(line));
  return found;
}

std::string taint_trouble(std::uint64_t flags) {
  // Documentation/admin-guide/tainted-kernels.rst
  struct Flag {
    unsigned bit;
    std::string_view text;
  };
  static constexpr std::array<Flag, 6> kFlags = {{{3, "a module unloaded by force"},
                                                  {4, "a machine check"},
                                                  {5, "a bad page"},
                                                  {7, "an oops"},
                                                  {9, "a warning"},
                                                  {14, "a soft lock-up"}}};
  std::string text;
  for (const Flag& flag : kFlags) {
    if (((flags >> flag.bit) & 1) == 0) continue;
    if (!text.empty()) text += ", ";
    text += flag.text;
  }
  return text;
}

std::string_view telling_part(std::string_view log, std::size_t lines) {
  constexpr std::size_t kBefore = 10;
  const std::vector<std::string_view> all = split(log, '\n');
  for (std::size_t n = 0; n < all.size(); ++n) {
    if (!is_trouble(all[n])) continue;
    const std::string_view first = all[n < kBefore ? 0 : n - kBefore];
    const std::string_view last = all[std::min(all.size(), n + lines - kBefore) - 1];
    return {first.data(), static_cast<std::size_t>(last.data() + last.size() - first.data())};
  }
  return last_lines(log, lines);
}

std::string_view last_lines(std::string_view text, std::size_t lines) {
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  std::size_t start = text.size();
  for (std::size_t n = 0; n < lines && start != 0 && start != std::string_view::npos; ++n)
    start = text.rfind('\n', start - 1);
  return start == std::string_view::npos || start == 0 ? text : text.substr(start + 1);
}

}  // namespace thermocline::lab
