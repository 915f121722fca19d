// SPDX-License-Identifier: Apache-2.0
#include "cli/line_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "draw/markup.h"

namespace thermocline::cli {

namespace {

constexpr double kWidth = 640, kHeight = 420, kLeft = 70, kRight = 20, kTop = 60, kBottom = 50;
constexpr std::array<const char*, 5> kColours = {"#1b7f79", "#c8553d", "#3d5a98", "#7a5195",
                                                 "#8a6d1d"};

class Canvas {
 public:
  Canvas(double x_most, double y_most) : x_most_(x_most), y_most_(y_most) {}
  [[nodiscard]] double x(double value) const {
    return kLeft + value / x_most_ * (kWidth - kLeft - kRight);
  }
  [[nodiscard]] double y(double value) const {
    return kHeight - kBottom - value / y_most_ * (kHeight - kTop - kBottom);
  }
  void text(double at_x, double at_y, const char* anchor, const std::string& words) {
    out +=
        fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" fill=\"#444\">{}</text>\n",
                    at_x, at_y, anchor, draw::escaped(words));
  }
  std::string out;

 private:
  double x_most_, y_most_;
};

}  // namespace

std::string line_chart_svg(const LineChart& chart) {
  double x_most = chart.x_most.value_or(0);
  double y_most = 0;
  for (const LineChart::Line& line : chart.lines)
    for (const auto& [x, y] : line.points) {
      if (!chart.x_most) x_most = std::max(x_most, x);
      y_most = std::max(y_most, y);
    }
  if (x_most <= 0) x_most = 1;
  if (y_most <= 0) y_most = 1;
  const double x_step = draw::tick_step(x_most, 6);
  const double y_step = draw::tick_step(y_most, 8);
  if (!chart.x_most) x_most = std::ceil(x_most / x_step) * x_step;
  y_most = std::ceil(y_most / y_step) * y_step;

  Canvas canvas(x_most, y_most);
  canvas.out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      "<text x=\"{2}\" y=\"22\" font-size=\"15\">{3}</text>\n",
      kWidth, kHeight, kLeft, draw::escaped(chart.title));
  if (chart.band) {
    const double low = canvas.y(std::min(chart.band->low, y_most));
    const double high = canvas.y(std::min(chart.band->high, y_most));
    canvas.out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"#f2e6c9\"/>\n",
        canvas.x(0), high, canvas.x(x_most) - canvas.x(0), low - high);
    canvas.text(canvas.x(x_most) - 6, high + 14, "end", chart.band->name);
  }
  for (double y = 0; y <= y_most + y_step / 2; y += y_step) {
    canvas.out += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#ddd\"/>\n",
        canvas.x(0), canvas.x(x_most), canvas.y(y));
    canvas.text(kLeft - 8, canvas.y(y) + 4, "end", fmt::format("{:g}{}", y, chart.y_unit));
  }
  for (double x = 0; x <= x_most + x_step / 2; x += x_step)
    canvas.text(canvas.x(x), kHeight - kBottom + 18, "middle", fmt::format("{:g}", x));
  canvas.text((kLeft + kWidth - kRight) / 2, kHeight - 12, "middle", chart.x_text);
  for (std::size_t i = 0; i < chart.lines.size(); ++i) {
    const char* colour = kColours[i % kColours.size()];
    canvas.out +=
        fmt::format("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"2\" points=\"", colour);
    for (const auto& [x, y] : chart.lines[i].points)
      canvas.out += fmt::format("{:.1f},{:.1f} ", canvas.x(x), canvas.y(y));
    canvas.out += "\"/>\n";
    // Names stand in a row above the plot, where no line comes.
    const double at = kLeft + static_cast<double>(i) * (kWidth - kLeft - kRight) /
                                  static_cast<double>(chart.lines.size());
    canvas.out += fmt::format(
        "<rect x=\"{:.0f}\" y=\"40\" width=\"12\" height=\"3\" fill=\"{}\"/>\n", at, colour);
    canvas.text(at + 18, 45, "start", chart.lines[i].name);
  }
  return canvas.out + "</svg>\n";
}

}  // namespace thermocline::cli
