// SPDX-License-Identifier: Apache-2.0
// Reading numbers from JSON that may be anybody's.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace thermocline {

/// A whole number that fits T. json's own get<T>() converts what is no such number, or doesn't fit,
/// to something else. Throws json::exception, as it does for other types.
template <class T>
[[nodiscard]] T whole(const nlohmann::json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (std::in_range<T>(number)) return static_cast<T>(number);
  } else if (value.is_number_integer()) {
    const auto number = value.get<std::int64_t>();
    if (std::in_range<T>(number)) return static_cast<T>(number);
  }
  throw nlohmann::json::out_of_range::create(406, "no whole number of the expected size", &value);
}

/// The same of a key that may be missing.
template <class T>
[[nodiscard]] T whole_or(const nlohmann::json& object, const std::string& key, T otherwise) {
  const auto found = object.find(key);
  return found == object.end() ? otherwise : whole<T>(*found);
}

}  // namespace thermocline
