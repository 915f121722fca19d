// SPDX-License-Identifier: Apache-2.0
// A chart of lines as an SVG that stands by itself. Pure.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace thermocline::cli {

struct LineChart {
  struct Line {
    std::string name;
    std::vector<std::pair<double, double>> points;  ///< x and y, both 0 or more; x ascending
  };
  struct Band {
    std::string name;
    double low = 0, high = 0;  ///< y
  };
  std::string title, x_text;
  std::string y_unit;            ///< behind the numbers of the y axis
  std::optional<double> x_most;  ///< end of the x axis; none: as the points want it
  std::vector<Line> lines;
  std::optional<Band> band;  ///< shaded
};

/// Titles and names are escaped.
[[nodiscard]] std::string line_chart_svg(const LineChart& chart);

}  // namespace thermocline::cli
