// SPDX-License-Identifier: Apache-2.0
// The chart of slow-downs: a row a cell, a mark a system, on a logarithmic axis. Systems differ in
// shape and lane as well as in colour (the palette of Okabe and Ito).
#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.h"
#include "bench/suite/report.h"
#include "bench/suite/report_sections.h"
#include "draw/markup.h"

namespace thermocline::suite {

namespace {

using draw::escaped;
using draw::put;

constexpr double kWidth = 1160, kLeft = 178, kRight = 24, kTop = 78, kBottom = 44;
constexpr double kRow = 28, kGroupGap = 10;
constexpr double kPlot = kWidth - kLeft - kRight;

/// How a system looks: `lane` is where in its row it stands, from the top; -1: over all of it.
struct Look {
  std::string_view name, css_class;
  char shape;  ///< circle, triangle, square, diamond, x cross, | bar
  int lane;
};

constexpr std::array<Look, 7> kLooks{{{"thermocline", "ours", 'c', 0},
                                      {"numab", "numab", 't', 1},
                                      {"damos", "damos", 's', 2},
                                      {"first-touch", "touch", 'd', 3},
                                      {"interleave", "inter", 'x', 3},
                                      {"oracle-static", "oracle", '|', -1},
                                      {"all-slow", "slow", '|', -1}}};

const Look* look_of(std::string_view system) {
  const std::string_view name = split(split(system, '@').front(), ':').front();
  const auto found =
      std::find_if(kLooks.begin(), kLooks.end(), [name](const Look& l) { return l.name == name; });
  return found == kLooks.end() ? nullptr : &*found;
}

std::string shape(char kind, double x, double y, double r) {
  switch (kind) {
    case 'c':
      return fmt::format("M{:.1f} {:.1f}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z", x - r, y,
                         fmt::arg("r", r), fmt::arg("d", 2 * r));
    case 't':
      return fmt::format("M{:.1f} {:.1f}l{:.1f} {:.1f}h-{:.1f}z", x, y - r, r * 1.1, 1.9 * r,
                         r * 2.2);
    case 's':
      return fmt::format("M{:.1f} {:.1f}h{d:.1f}v{d:.1f}h-{d:.1f}z", x - 0.9 * r, y - 0.9 * r,
                         fmt::arg("d", 1.8 * r));
    case 'd':
      return fmt::format("M{:.1f} {:.1f}l{r:.1f} {r:.1f}l-{r:.1f} {r:.1f}l-{r:.1f} -{r:.1f}z", x,
                         y - r, fmt::arg("r", r));
    case 'x':
      return fmt::format("M{:.1f} {:.1f}l{d:.1f} {d:.1f}m0 -{d:.1f}l-{d:.1f} {d:.1f}", x - r, y - r,
                         fmt::arg("d", 2 * r));
    default:
      return fmt::format("M{:.1f} {:.1f}v{:.1f}", x, y - kRow / 2 + 3, kRow - 6);
  }
}

/// `is_main`: the setting that counts is drawn full, the other hollow and smaller.
void put_mark(std::string& out, const Look& look, double x, double y, bool is_main,
              const std::string& title) {
  put(out, R"(<path class="{}{}" d="{}"><title>{}</title></path>)", look.css_class,
      is_main ? "" : " hollow", shape(look.shape, x, y, is_main ? 5 : 3.5), escaped(title));
}

constexpr std::string_view kStyle =
    "svg.slowdown{--ground:#fff;--ink:#1c2330;--dim:#667085;--rule:#d9dde4;--band:#f5f6f8;"
    "--c-ours:#d55e00;--c-numab:#0072b2;--c-damos:#007a59;--c-touch:#a8578c;--c-inter:#8a6d00}"
    "@media(prefers-color-scheme:dark){svg.slowdown{--ground:#10141b;--ink:#e6eaf0;--dim:#98a2b3;"
    "--rule:#2a3240;--band:#181e28;--c-ours:#ff8a3d;--c-numab:#56b4e9;--c-damos:#2fc79a;"
    "--c-touch:#e59bc9;--c-inter:#e6c229}}"
    ".slowdown{font:12px system-ui,sans-serif}.slowdown text{fill:var(--dim)}"
    ".slowdown text.name{fill:var(--ink);font-weight:600}"
    ".slowdown text.end{text-anchor:end}.slowdown text.middle{text-anchor:middle}"
    ".slowdown .ground{fill:var(--ground)}.slowdown .band{fill:var(--band)}"
    ".slowdown .grid{stroke:var(--rule)}.slowdown .one{stroke:var(--dim)}"
    ".slowdown .ours{fill:var(--c-ours);stroke:var(--c-ours)}"
    ".slowdown .numab{fill:var(--c-numab);stroke:var(--c-numab)}"
    ".slowdown .damos{fill:var(--c-damos);stroke:var(--c-damos)}"
    ".slowdown .touch{fill:var(--c-touch);stroke:var(--c-touch)}"
    ".slowdown .inter{fill:none;stroke:var(--c-inter);stroke-width:2.5}"
    ".slowdown .oracle{fill:none;stroke:var(--ink);stroke-width:2.5}"
    ".slowdown .slow{fill:none;stroke:var(--dim);stroke-width:2.5;stroke-dasharray:3 2}"
    ".slowdown .hollow{fill:var(--ground);stroke-width:1.3}"
    ".slowdown .whisker{stroke-width:1.5;opacity:.75}";

/// Equal distances are equal ratios.
class Axis {
 public:
  Axis(double least, double most) : low_(std::log(least)), span_(std::log(most) - low_) {}
  [[nodiscard]] double x(double value) const {
    return kLeft + kPlot * std::clamp((std::log(value) - low_) / span_, 0.0, 1.0);
  }

 private:
  double low_, span_;
};

/// Of a family (a name with or without a setting), the system that counts in this cell.
bool counts(const Cell& cell, const SystemFigures& figures, Measure measure) {
  if (figures.system == kOurs) return true;
  const std::string name(split(figures.system, '@').front());
  if (name.starts_with("thermocline:")) return false;
  for (const Comparison& comparison : cell.comparisons)
    if (comparison.opponent == name && comparison.at(measure))
      return comparison.at(measure)->system == figures.system;
  return true;
}

void put_legend(std::string& out) {
  struct Entry {
    Look look;
    std::string_view text;
    bool is_main = true;
  };
  const std::array<Entry, 8> entries{{{kLooks[0], "Thermocline"},
                                      {kLooks[1], "numab"},
                                      {kLooks[2], "damos"},
                                      {kLooks[3], "first-touch"},
                                      {kLooks[4], "interleave"},
                                      {kLooks[5], "oracle-static"},
                                      {kLooks[6], "all-slow"},
                                      {kLooks[1], "hollow: the other setting", false}}};
  double x = kLeft;
  for (const Entry& entry : entries) {
    put_mark(out, entry.look, x + 6, 42, entry.is_main, std::string(entry.text));
    put(out, R"(<text x="{:.0f}" y="46">{}</text>)", x + 18, entry.text);
    x += 40 + 6.7 * static_cast<double>(entry.text.size());
  }
}

}  // namespace

std::string picture_name(const Table& table) {
  std::string name = fmt::format("{}-{}-{}.svg", table.timing, table.mode, table.kernel);
  // A timing model may be a file.
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '/' || c == ' '; }, '-');
  return name;
}

std::string slowdown_chart_svg(const Table& table, Measure measure) {
  double least = 1, most = 1.1;
  for (const Cell& cell : table.cells)
    for (const SystemFigures& figures : cell.systems)
      if (const auto& slow = figures.slow(measure); slow && look_of(figures.system)) {
        least = std::min(least, slow->value);
        // A wide interval may run out of the picture, a mark must not.
        most = std::max({most, slow->value,
                         slow->interval ? std::min(slow->interval->high, 1.2 * slow->value) : 0});
      }
  if (most <= 1.1 && least >= 1) return "";
  const Axis axis(least * 0.97, most * 1.03);

  double height = kTop + kBottom;
  for (std::size_t i = 0; i < table.cells.size(); ++i)
    height +=
        kRow + (i > 0 && table.cells[i].workload != table.cells[i - 1].workload ? kGroupGap : 0);
  std::string out;
  put(out,
      R"(<svg class="slowdown" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:.0f} {:.0f}" )"
      R"(width="{:.0f}" height="{:.0f}" role="img" aria-label="Slow-down against all-fast">)",
      kWidth, height, kWidth, height);
  put(out, R"(<style>{}</style><rect class="ground" width="100%" height="100%"/>)", kStyle);
  put(out,
      R"(<text class="name" x="{}" y="18">Slow-down against all-fast (modelled), {}; {}</text>)",
      kLeft, measure == Measure::kWhole ? "convergence counted" : "steady state",
      escaped(title_of(table)));
  put_legend(out);

  std::vector<double> ticks;
  for (const double tick : {0.5, 0.75, 0.9, 1.0, 1.1,  1.25, 1.5,  1.75, 2.0,  2.5,  3.0,
                            4.0, 5.0,  6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0})
    if (tick >= least * 0.97 && tick <= most * 1.03 &&
        (ticks.empty() || axis.x(tick) - axis.x(ticks.back()) > 34))
      ticks.push_back(tick);
  const double bottom = height - kBottom + 6;
  double y = kTop;
  for (std::size_t i = 0; i < table.cells.size(); ++i) {
    const Cell& cell = table.cells[i];
    const bool begins = i == 0 || cell.workload != table.cells[i - 1].workload;
    if (i > 0 && begins) y += kGroupGap;
    put(out, R"(<rect class="band" x="{:.0f}" y="{:.1f}" width="{:.0f}" height="{:.0f}"/>)", kLeft,
        y + 1, kPlot, kRow - 2);
    y += kRow;
  }
  for (const double tick : ticks) {
    put(out, R"(<path class="{}" d="M{:.1f} {:.0f}V{:.1f}"/>)", tick == 1 ? "one" : "grid",
        axis.x(tick), kTop - 4, bottom);
    for (const double at : {kTop - 8, bottom + 14})
      put(out, R"(<text class="middle" x="{:.1f}" y="{:.1f}">{:g}</text>)", axis.x(tick), at, tick);
  }
  put(out,
      R"(<text class="middle" x="{:.0f}" y="{:.0f}">time an operation ÷ all-fast's (equal distances )"
      R"(are equal ratios); lines are 95 % intervals over seeds</text>)",
      kLeft + kPlot / 2, height - 8);

  y = kTop;
  for (std::size_t i = 0; i < table.cells.size(); ++i) {
    const Cell& cell = table.cells[i];
    const bool begins = i == 0 || cell.workload != table.cells[i - 1].workload;
    if (i > 0 && begins) y += kGroupGap;
    const double middle = y + kRow / 2;
    if (begins)
      put(out, R"(<text class="name" x="8" y="{:.1f}">{}</text>)", middle + 4,
          escaped(cell.workload));
    put(out, R"(<text class="end" x="{:.0f}" y="{:.1f}">{}</text>)", kLeft - 10, middle + 4,
        escaped(cell.ratio));
    // Ours last, on top of all.
    for (auto figures = cell.systems.rbegin(); figures != cell.systems.rend(); ++figures) {
      const Look* look = look_of(figures->system);
      const auto& slow = figures->slow(measure);
      if (!look || !slow) continue;
      const double at = look->lane < 0 ? middle : y + 5.5 + 5.7 * look->lane;
      const bool is_main = counts(cell, *figures, measure);
      std::string title =
          fmt::format("{} {}, {}: {:.3f}", cell.workload, cell.ratio, figures->system, slow->value);
      if (slow->interval) {
        title += fmt::format(" ({:.3f} to {:.3f})", slow->interval->low, slow->interval->high);
        if (is_main)
          put(out, R"(<path class="{} whisker" d="M{:.1f} {:.1f}H{:.1f}"/>)", look->css_class,
              axis.x(slow->interval->low), at, axis.x(slow->interval->high));
      }
      put_mark(out, *look, axis.x(slow->value), at, is_main, title);
    }
    y += kRow;
  }
  return out + "</svg>\n";
}

}  // namespace thermocline::suite
