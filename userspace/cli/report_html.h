// SPDX-License-Identifier: Apache-2.0
// Draws a report as one HTML page with SVG pictures: no scripts, no fonts, nothing from elsewhere.
// Pure: the same model gives the same bytes.
#pragma once

#include <string>

#include "cli/report_model.h"

namespace thermocline::report {

[[nodiscard]] std::string to_html(const Model& model);

}  // namespace thermocline::report
