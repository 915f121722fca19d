// SPDX-License-Identifier: Apache-2.0
// What every picture and page that is drawn as text needs. Pure.
#pragma once

#include <fmt/format.h>

#include <iterator>
#include <string>
#include <string_view>
#include <utility>

namespace thermocline::draw {

/// `text` inside an element or a quoted attribute of HTML or SVG.
[[nodiscard]] std::string escaped(std::string_view text);

/// Appends as fmt::format does. Escapes nothing.
template <class... Args>
void put(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

/// 1, 2 or 5 times a power of ten: a step of which at most `most` fit into `span`.
[[nodiscard]] double tick_step(double span, double most);

}  // namespace thermocline::draw
