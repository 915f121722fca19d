// SPDX-License-Identifier: Apache-2.0
// The pages that show how right and how dear trackers are. Pure.
#pragma once

#include <string>
#include <vector>

#include "bench/trackers/row.h"

namespace thermocline::cli {

/// For a terminal: a row a run; those without figures with their reason.
[[nodiscard]] std::string tracker_rows_table(const std::vector<trackers::Row>& rows);

/// A part of a Markdown page: a table a pattern, at the largest budget, one of what follows for 64
/// GiB, then one of recall by budget; every figure modelled. `pictures`: what names of
/// tracker_curve_svg() pictures begin with, seen from the page.
[[nodiscard]] std::string tracker_rows_markdown(const std::vector<trackers::Row>& rows,
                                                const std::string& command,
                                                const std::string& pictures);

/// Trackers of which there are runs at several budgets.
[[nodiscard]] std::vector<std::string> trackers_with_curve(const std::vector<trackers::Row>& rows);
/// Recall over budget, a line a pattern.
[[nodiscard]] std::string tracker_curve_svg(const std::vector<trackers::Row>& rows,
                                            const std::string& tracker);

}  // namespace thermocline::cli
