// SPDX-License-Identifier: Apache-2.0
// Draws a report as one HTML page with SVG pictures: no scripts, no fonts, nothing from elsewhere.
// Pure: the same model gives the same bytes.
#pragma once

#include <span>
#include <string>

#include "cli/report_model.h"

namespace thermocline::report {

[[nodiscard]] std::string to_html(const Model& model);

/// Address over time of a recorded process, heat as kRecordedHeat has it. For a page; empty when
/// it has no columns.
[[nodiscard]] std::string heat_map_picture(const Process& process, std::span<const Event> events);
/// The same, or another picture of a page, as an SVG file.
[[nodiscard]] std::string standalone(const std::string& picture);

}  // namespace thermocline::report
