// SPDX-License-Identifier: Apache-2.0
// What of a catalogue was asked for by name. Pure.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/text.h"

namespace thermocline::suite {

/// Those of `all` whose name was asked for, each once and in the order of the catalogue. kUsage,
/// with the nearest name, for one that there is not.
template <class T, class NameOf>
[[nodiscard]] Result<std::vector<T>> choose(const std::vector<T>& all,
                                            const std::vector<std::string>& asked,
                                            std::string_view what, NameOf name_of) {
  std::vector<std::string> names;
  for (const T& one : all) names.push_back(name_of(one));
  for (const std::string& name : asked) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    const std::string near = nearest_word(name, names);
    return fail(ErrorKind::kUsage, "there is no {} \"{}\"; {}", what, printable(name),
                near.empty() ? fmt::format("there are {}", fmt::join(names, ", "))
                             : fmt::format("did you mean \"{}\"?", near));
  }
  std::vector<T> chosen;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (std::find(asked.begin(), asked.end(), names[i]) != asked.end()) chosen.push_back(all[i]);
  return chosen;
}

}  // namespace thermocline::suite
