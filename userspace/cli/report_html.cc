// SPDX-License-Identifier: Apache-2.0
#include "cli/report_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <span>
#include <utility>

#include "base/text.h"
#include "base/units.h"
#include "draw/markup.h"

namespace thermocline::report {

namespace {

using draw::put;
using draw::tick_step;

// ------------------------------------------------------------------------------------- colours --

struct Rgb {
  double r, g, b;
};

constexpr Rgb rgb(unsigned hex) {
  return {static_cast<double>(hex >> 16), static_cast<double>((hex >> 8) & 255),
          static_cast<double>(hex & 255)};
}

Rgb blend(Rgb a, Rgb b, double t) {
  return {a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

/// Colour at 0 <= t <= 1 along evenly spaced stops.
Rgb along(std::span<const Rgb> stops, double t) {
  const double at = std::clamp(t, 0.0, 1.0) * static_cast<double>(stops.size() - 1);
  const auto i = std::min(static_cast<std::size_t>(at), stops.size() - 2);
  return blend(stops[i], stops[i + 1], at - static_cast<double>(i));
}

std::string css(Rgb c) {
  return fmt::format("#{:02x}{:02x}{:02x}", static_cast<unsigned>(std::lround(c.r)),
                     static_cast<unsigned>(std::lround(c.g)),
                     static_cast<unsigned>(std::lround(c.b)));
}

// Warm is DRAM, cool is the slow tier; bright is hot. Both ramps rise evenly in lightness.
constexpr std::array<Rgb, 5> kFastRamp{rgb(0x2b1509), rgb(0x7a2e0c), rgb(0xd4600f), rgb(0xffa62b),
                                       rgb(0xfff0b8)};
constexpr std::array<Rgb, 5> kSlowRamp{rgb(0x0a1a2e), rgb(0x11456b), rgb(0x1580b0), rgb(0x35bfe0),
                                       rgb(0xd6f7ff)};

constexpr unsigned kHeatLevels = 24;
constexpr unsigned kShareLevels = 12;

Rgb cell_colour(unsigned heat_level, unsigned share_level) {
  const double heat = static_cast<double>(heat_level) / (kHeatLevels - 1);
  const double share = static_cast<double>(share_level) / (kShareLevels - 1);
  return blend(along(kSlowRamp, heat), along(kFastRamp, heat), share);
}

unsigned level(double value, unsigned levels) {
  return static_cast<unsigned>(std::lround(std::clamp(value, 0.0, 1.0) * (levels - 1)));
}

// ---------------------------------------------------------------------------------------- axes --

constexpr double kWidth = 1000;
constexpr double kLeft = 92;
constexpr double kRight = 16;
constexpr double kPlotWidth = kWidth - kLeft - kRight;

/// The seconds that all pictures of a process share; 0 is where its history begins.
struct TimeAxis {
  double from = 0;  ///< CLOCK_MONOTONIC
  double span = 1;
  [[nodiscard]] double x(double monotonic_s) const {
    return kLeft + kPlotWidth * std::clamp((monotonic_s - from) / span, 0.0, 1.0);
  }
};

TimeAxis time_of(const Process& process) {
  TimeAxis time{process.columns.front().time_s, 0};
  const Column& last = process.columns.back();
  time.span = std::max(last.time_s + std::max(last.length_s, 0.0) - time.from, 0.001);
  return time;
}

void draw_time_axis(std::string& svg, const TimeAxis& axis, double y, bool labels) {
  const double step = tick_step(axis.span, 12);
  for (double t = 0; t <= axis.span * 1.0001; t += step) {
    const double x = axis.x(axis.from + t);
    put(svg, R"(<path class="tick" d="M{:.1f} {:.1f}v5"/>)", x, y);
    if (labels) put(svg, R"(<text class="x" x="{:.1f}" y="{:.1f}">{:g}</text>)", x, y + 18, t);
  }
  if (labels)
    put(svg, R"(<text class="axis x" x="{:.1f}" y="{:.1f}">seconds</text>)", kLeft + kPlotWidth / 2,
        y + 36);
}

void draw_moves(std::string& svg, const TimeAxis& axis, std::span<const Event> moves, double top,
                double height, bool labels) {
  double free_from = 0;
  for (const Event& event : moves) {
    const double x = axis.x(event.time_s);
    put(svg, R"(<path class="event" d="M{:.1f} {:.1f}v{:.1f}"/>)", x, top, height);
    if (!labels || x < free_from) continue;
    put(svg, R"(<text class="event" x="{:.1f}" y="{:.1f}">{}</text>)", x + 4, top - 5,
        draw::escaped(event.text));
    free_from = x + 10 + 6.6 * static_cast<double>(event.text.size());
  }
}

void open_svg(std::string& out, double height, std::string_view label) {
  put(out, R"(<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">)", kWidth, height,
      draw::escaped(label));
}

// ------------------------------------------------------------------------------------ heat map --

/// Where addresses stand in the picture: mapped bands only, gaps between them closed.
class AddressAxis {
 public:
  AddressAxis(const Process& process, double top, double height) : top_(top) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> spans;
    for (const Column& column : process.columns)
      for (const Bin& bin : column.bins)
        spans.emplace_back(bin.first_page, bin.first_page + bin.pages);
    std::sort(spans.begin(), spans.end());
    for (const auto& [first, end] : spans) {
      if (!bands_.empty() && first <= bands_.back().end)
        bands_.back().end = std::max(bands_.back().end, end);
      else
        bands_.push_back({first, end, 0, 0});
    }
    double pages = 0;
    for (const Band& band : bands_) pages += static_cast<double>(band.end - band.first);
    const double gaps = bands_.empty() ? 0 : static_cast<double>(bands_.size() - 1);
    const double gap = gaps * 3 < height / 4 ? 3 : 0;
    double y = top;
    for (Band& band : bands_) {
      band.y = y;
      band.height = (height - gap * gaps) * static_cast<double>(band.end - band.first) / pages;
      y += band.height + gap;
    }
  }

  struct Band {
    std::uint64_t first, end;
    double y, height;
  };
  [[nodiscard]] const std::vector<Band>& bands() const { return bands_; }

  [[nodiscard]] double y(std::uint64_t page) const {
    auto band = std::upper_bound(bands_.begin(), bands_.end(), page,
                                 [](std::uint64_t p, const Band& b) { return p < b.first; });
    if (band == bands_.begin()) return top_;
    --band;
    const double inside = static_cast<double>(std::min(page, band->end) - band->first) /
                          static_cast<double>(band->end - band->first);
    return band->y + band->height * inside;
  }

 private:
  double top_;
  std::vector<Band> bands_;
};

/// Heat that is drawn brightest: exceeded by one cell in a hundred, so that a single bin of library
/// data doesn't darken all the rest.
double brightest_heat(const Process& process) {
  std::vector<double> heats;
  for (const Column& column : process.columns)
    for (const Bin& bin : column.bins)
      if (bin.present > 0) heats.push_back(bin.heat);
  if (heats.empty()) return 1;
  const auto at = heats.begin() + static_cast<std::ptrdiff_t>(heats.size() * 99 / 100);
  std::nth_element(heats.begin(), at, heats.end());
  return std::max(*at, 1.0);
}

/// What a cell shows: the place of its colour in the legend.
using CellColour = std::pair<unsigned, unsigned>;

template <class Colour, class Css>
void draw_cells(std::string& svg, const Process& process, const TimeAxis& time,
                const AddressAxis& addresses, Colour colour_of, Css css_of) {
  // One path a colour; neighbours of a column that share it are one rectangle.
  std::map<CellColour, std::string> paths;
  for (std::size_t i = 0; i < process.columns.size(); ++i) {
    const Column& column = process.columns[i];
    const double begin = time.x(column.time_s);
    const double end = i + 1 < process.columns.size() ? time.x(process.columns[i + 1].time_s)
                                                      : time.x(column.time_s + column.length_s);
    if (end <= begin) continue;
    for (std::size_t b = 0; b < column.bins.size();) {
      const Bin& first = column.bins[b];
      if (first.present == 0) {
        ++b;
        continue;
      }
      const CellColour colour = colour_of(first);
      std::uint64_t last = first.first_page + first.pages;
      for (++b; b < column.bins.size(); ++b) {
        const Bin& next = column.bins[b];
        if (next.present == 0 || next.first_page != last || colour_of(next) != colour) break;
        last += next.pages;
      }
      const double y = addresses.y(first.first_page);
      put(paths[colour], "M{:.1f} {:.1f}h{:.1f}v{:.1f}h{:.1f}z", begin, y, end - begin,
          std::max(addresses.y(last - 1) - y, 0.3) + 0.5, begin - end);
    }
  }
  svg += R"(<g shape-rendering="crispEdges">)";
  for (const auto& [colour, path] : paths)
    put(svg, R"(<path fill="{}" d="{}"/>)", css_of(colour), path);
  svg += "</g>";
}

void draw_address_labels(std::string& svg, const AddressAxis& addresses) {
  double free_from = -1e9;
  for (const AddressAxis::Band& band : addresses.bands()) {
    if (band.height < 11 || band.y < free_from) continue;
    put(svg, R"(<text class="y mono" x="{:.0f}" y="{:.1f}">{:x}</text>)", kLeft - 6, band.y + 9,
        band.first << kPageShift);
    free_from = band.y + 12;
    if (band.height < 40) continue;
    put(svg, R"(<text class="y" x="{:.0f}" y="{:.1f}">{}</text>)", kLeft - 6,
        band.y + band.height / 2 + 8, format_bytes(bytes_of(PageCount(band.end - band.first))));
    free_from = band.y + band.height / 2 + 12;
  }
}

/// What the brightness and the hue of a cell mean.
enum class Hue { kTier, kNone };

void draw_heat_map(std::string& out, const Process& process, const TimeAxis& time,
                   std::span<const Event> moves, Hue hue) {
  constexpr double kTop = 46;
  constexpr double kHeight = 380;
  const AddressAxis addresses(process, kTop, kHeight);
  const double brightest = brightest_heat(process);
  open_svg(out, kTop + kHeight + 44,
           hue == Hue::kTier ? "Heat map: address over time, coloured by temperature and by tier"
                             : "Heat map: address over time, coloured by temperature");
  // Legend: the ramps, one above the other.
  constexpr double kStep = 6;
  for (unsigned h = 0; h < kHeatLevels; ++h)
    for (unsigned tier = 0; tier < (hue == Hue::kTier ? 2 : 1); ++tier)
      put(out, R"(<path fill="{}" d="M{:.1f} {}h{}v11h-{}z"/>)",
          css(cell_colour(h, tier == 0 ? kShareLevels - 1 : 0)),
          kWidth - kRight - kStep * (kHeatLevels - h), tier == 0 ? 4 : 16, kStep + 0.3,
          kStep + 0.3);
  const double legend = kWidth - kRight - kStep * kHeatLevels;
  if (hue == Hue::kTier) {
    put(out, R"(<text class="y" x="{:.0f}" y="13">cold — in DRAM — hot</text>)", legend - 8);
    put(out, R"(<text class="y" x="{:.0f}" y="25">cold — on slow memory — hot</text>)", legend - 8);
  } else {
    put(out,
        R"(<text class="y" x="{:.0f}" y="13">touched in none — {:.3g} % of the windows</text>)",
        legend - 8, 100 * brightest / kRecordedHeat);
  }
  put(out, R"(<rect class="ground" x="{}" y="{}" width="{}" height="{}"/>)", kLeft, kTop,
      kPlotWidth, kHeight);
  draw_cells(
      out, process, time, addresses,
      [&](const Bin& bin) {
        const double fast = static_cast<double>(bin.fast) / static_cast<double>(bin.present);
        return CellColour{level(bin.heat / brightest, kHeatLevels),
                          level(hue == Hue::kTier ? fast : 1, kShareLevels)};
      },
      [](CellColour c) { return css(cell_colour(c.first, c.second)); });
  draw_address_labels(out, addresses);
  draw_moves(out, time, moves, kTop, kHeight, true);
  draw_time_axis(out, time, kTop + kHeight, true);
  out += "</svg>";
}

void draw_residency(std::string& out, const Process& process, const TimeAxis& time,
                    std::span<const Event> moves) {
  constexpr double kTop = 32;
  constexpr double kHeight = 150;
  const AddressAxis addresses(process, kTop, kHeight);
  open_svg(out, kTop + kHeight + 44, "Residency: which addresses are in DRAM, over time");
  const auto colour = [](unsigned share) {
    return css(
        blend(rgb(0x123a57), rgb(0xffa62b), static_cast<double>(share) / (kShareLevels - 1)));
  };
  for (unsigned s = 0; s < kShareLevels; ++s)
    put(out, R"(<path fill="{}" d="M{} 8h12.3v11h-12.3z"/>)", colour(s),
        kWidth - kRight - 12 * (kShareLevels - s));
  put(out, R"(<text class="y" x="{:.0f}" y="17">all slow — all in DRAM</text>)",
      kWidth - kRight - 12 * kShareLevels - 8);
  put(out, R"(<rect class="ground" x="{}" y="{}" width="{}" height="{}"/>)", kLeft, kTop,
      kPlotWidth, kHeight);
  draw_cells(
      out, process, time, addresses,
      [](const Bin& bin) {
        return CellColour{0, level(static_cast<double>(bin.fast) / static_cast<double>(bin.present),
                                   kShareLevels)};
      },
      [colour](CellColour c) { return colour(c.second); });
  draw_address_labels(out, addresses);
  draw_moves(out, time, moves, kTop, kHeight, false);
  draw_time_axis(out, time, kTop + kHeight, true);
  out += "</svg>";
}

// -------------------------------------------------------------------------------------- charts --

struct Line {
  std::string name, css_class;
  std::vector<std::pair<double, double>> points;  ///< CLOCK_MONOTONIC, share 0..1
};

void draw_shares(std::string& out, const TimeAxis& time, std::span<const Line> lines,
                 std::span<const Event> moves) {
  constexpr double kTop = 40;
  constexpr double kHeight = 190;
  open_svg(out, kTop + kHeight + 44, "Shares in DRAM over time");
  for (int percent = 0; percent <= 100; percent += 25) {
    const double y = kTop + kHeight * (1 - percent / 100.0);
    put(out, R"(<path class="grid" d="M{} {:.1f}h{}"/>)", kLeft, y, kPlotWidth);
    put(out, R"(<text class="y" x="{:.0f}" y="{:.1f}">{} %</text>)", kLeft - 8, y + 4, percent);
  }
  double legend = kLeft;
  for (const Line& line : lines) {
    put(out, R"(<path class="line {}" d="M{:.0f} 14h22"/>)", line.css_class, legend);
    put(out, R"(<text x="{:.0f}" y="18">{}</text>)", legend + 28, draw::escaped(line.name));
    legend += 52 + 6.6 * static_cast<double>(line.name.size());
    std::string path;
    bool drawing = false;
    for (const auto& [t, share] : line.points) {
      if (t < time.from || t > time.from + time.span) continue;
      put(path, "{}{:.1f} {:.1f}", drawing ? 'L' : 'M', time.x(t),
          kTop + kHeight * (1 - std::clamp(share, 0.0, 1.0)));
      drawing = true;
    }
    put(out, R"(<path class="line {}" d="{}"/>)", line.css_class, path);
  }
  draw_moves(out, time, moves, kTop, kHeight, false);
  draw_time_axis(out, time, kTop + kHeight, true);
  out += "</svg>";
}

void draw_page_moves(std::string& out, const TimeAxis& time, const History& history,
                     std::span<const Event> moves) {
  constexpr double kTop = 34;
  constexpr double kHalf = 75;
  std::uint64_t most = 1;
  for (const EpochTotals& e : history.epochs)
    most = std::max({most, e.promoted_pages, e.demoted_pages});
  open_svg(out, kTop + 2 * kHalf + 44, "Pages promoted and demoted in each epoch");
  put(out, R"(<path class="bar up" d="M{} 6h12v12h-12z"/><text x="{}" y="16">promoted</text>)",
      kLeft, kLeft + 18);
  put(out, R"(<path class="bar down" d="M{} 6h12v12h-12z"/><text x="{}" y="16">demoted</text>)",
      kLeft + 100, kLeft + 118);
  const double step = tick_step(static_cast<double>(most), 2);
  for (double pages = 0; pages <= static_cast<double>(most); pages += step)
    for (const double sign : {-1.0, 1.0}) {
      const double y = kTop + kHalf + sign * kHalf * pages / static_cast<double>(most);
      put(out, R"(<path class="grid" d="M{} {:.1f}h{}"/>)", kLeft, y, kPlotWidth);
      put(out, R"(<text class="y" x="{:.0f}" y="{:.1f}">{:.0f}</text>)", kLeft - 8, y + 4, pages);
    }
  for (std::size_t i = 0; i < history.epochs.size(); ++i) {
    const EpochTotals& e = history.epochs[i];
    const double begin = time.x(e.time_s);
    const double end = i + 1 < history.epochs.size() ? time.x(history.epochs[i + 1].time_s)
                                                     : time.x(e.time_s + e.length_s);
    const double width = std::max(end - begin - 1, 0.5);
    const auto bar = [&](const char* css_class, std::uint64_t pages, double direction) {
      if (pages == 0) return;
      put(out,
          R"(<path class="bar {}" d="M{:.1f} {}h{:.1f}v{:.1f}h-{:.1f}z"><title>{} pages</title></path>)",
          css_class, begin, kTop + kHalf, width,
          direction * kHalf * static_cast<double>(pages) / static_cast<double>(most), width, pages);
    };
    bar("up", e.promoted_pages, -1);
    bar("down", e.demoted_pages, 1);
  }
  draw_moves(out, time, moves, kTop, 2 * kHalf, false);
  draw_time_axis(out, time, kTop + 2 * kHalf, true);
  out += "</svg>";
}

// ---------------------------------------------------------------------------------------- page --

constexpr std::string_view kStyle = R"(
:root{color-scheme:light dark;--ground:#fff;--card:#f5f6f8;--ink:#1c2330;--dim:#667085;--rule:#d9dde4;
--warm:#d4600f;--cool:#1580b0;--grey:#98a2b3;--plot:#0d1117}
@media(prefers-color-scheme:dark){:root{--ground:#10141b;--card:#181e28;--ink:#e6eaf0;--dim:#98a2b3;
--rule:#2a3240;--warm:#ffa62b;--cool:#35bfe0;--grey:#667085;--plot:#06080c}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}main{max-width:1080px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:28px;margin:0 0 4px}h2{font-size:20px;margin:40px 0 4px}h3{font-size:15px;margin:24px 0 2px}
p{margin:2px 0 10px;max-width:75ch}.dim{color:var(--dim)}
svg{width:100%;height:auto;display:block;font:12px system-ui,sans-serif}
svg text{fill:var(--dim)}svg text.y{text-anchor:end}svg text.x{text-anchor:middle}
svg .mono{font:10px ui-monospace,monospace}svg text.event{fill:var(--ink)}
.ground{fill:var(--plot)}.tick{stroke:var(--dim)}.grid{stroke:var(--rule)}
path.event{stroke:#fff;stroke-width:1.5;stroke-dasharray:5 4;mix-blend-mode:difference}
.line{fill:none;stroke-width:2.5;stroke-linejoin:round}.hot{stroke:var(--warm)}.hits{stroke:var(--cool)}
.without{stroke:var(--grey);stroke-dasharray:6 4}.up{fill:var(--warm)}.down{fill:var(--cool)}
.scroll{overflow-x:auto}table{border-collapse:collapse;margin:8px 0}
th,td{padding:6px 14px 6px 0;text-align:right;border-bottom:1px solid var(--rule);vertical-align:top}
th:first-child,td:first-child{text-align:left}th{color:var(--dim);font-weight:600}
td{font-variant-numeric:tabular-nums}
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:14px 0}
.card{background:var(--card);border-radius:10px;padding:12px 18px;min-width:150px}
.card b{display:block;font-size:24px;line-height:1.25;font-variant-numeric:tabular-nums}
.card span{color:var(--dim);font-size:13px}
)";

void put_card(std::string& out, const std::string& figure, std::string_view what) {
  put(out, R"(<div class="card"><b>{}</b><span>{}</span></div>)", draw::escaped(figure),
      draw::escaped(what));
}

void put_table(std::string& out, const Table& table) {
  put(out, "<h2>{}</h2>", draw::escaped(table.title));
  if (!table.note.empty()) put(out, R"(<p class="dim">{}</p>)", draw::escaped(table.note));
  out += R"(<div class="scroll"><table><thead><tr>)";
  for (const std::string& column : table.columns) put(out, "<th>{}</th>", draw::escaped(column));
  out += "</tr></thead><tbody>";
  for (const auto& row : table.rows) {
    out += "<tr>";
    for (const std::string& cell : row) put(out, "<td>{}</td>", draw::escaped(cell));
    out += "</tr>";
  }
  out += "</tbody></table></div>";
}

double share(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

/// Share of the accessed page-windows that were on the fast tier, over a quarter of the epochs.
double hits_in_quarter(const History& history, bool last) {
  const std::size_t n = std::max<std::size_t>(history.epochs.size() / 4, 1);
  const auto epochs = last ? std::span(history.epochs).last(n) : std::span(history.epochs).first(n);
  std::uint64_t fast = 0;
  std::uint64_t all = 0;
  for (const EpochTotals& e : epochs) {
    fast += e.accessed_page_windows_fast;
    all += e.accessed_page_windows;
  }
  return share(fast, all);
}

void put_cards(std::string& out, const History& history, const HotsetRun* hotset) {
  std::uint64_t promoted = 0;
  std::uint64_t demoted = 0;
  for (const EpochTotals& e : history.epochs) {
    promoted += e.promoted_pages;
    demoted += e.demoted_pages;
  }
  const auto percent = [](double s) { return fmt::format("{:.1f} %", 100 * s); };
  out += R"(<div class="cards">)";
  if (hotset != nullptr && !hotset->samples.empty())
    put_card(out,
             percent(hotset->samples.front().fast_share) + " → " +
                 percent(hotset->samples.back().fast_share),
             "hot pages in DRAM, start → end (measured)");
  put_card(
      out,
      percent(hits_in_quarter(history, false)) + " → " + percent(hits_in_quarter(history, true)),
      "touched pages found in DRAM, first → last quarter (measured)");
  put_card(out, format_bytes(bytes_of(PageCount(promoted))), "promoted to DRAM");
  put_card(out, format_bytes(bytes_of(PageCount(demoted))), "demoted to slow memory");
  put_card(out, std::to_string(history.epochs.size()), "epochs");
  out += "</div>";
}

void put_process(std::string& out, const Process& process, const History& history,
                 const Model& model) {
  const HotsetRun* hotset = nullptr;
  for (const HotsetRun& run : model.hotsets)
    if (run.pid == process.pid) hotset = &run;

  const TimeAxis time = time_of(process);
  std::vector<Event> moves;
  if (hotset != nullptr)
    for (const double at : hotset->moves_s)
      moves.push_back({hotset->start_s + at, "the hot set moves"});
  std::erase_if(moves, [&](const Event& event) {
    return event.time_s < time.from || event.time_s > time.from + time.span;
  });

  std::vector<Line> lines;
  if (hotset != nullptr) {
    Line line{"hot pages in DRAM", "hot", {}};
    for (const HotSample& s : hotset->samples)
      line.points.emplace_back(hotset->start_s + s.time_s, s.fast_share);
    lines.push_back(std::move(line));
  }
  Line hits{"touched pages found in DRAM", "hits", {}};
  for (const EpochTotals& e : history.epochs)
    if (e.accessed_page_windows > 0)
      hits.points.emplace_back(e.time_s + e.length_s / 2,
                               share(e.accessed_page_windows_fast, e.accessed_page_windows));
  lines.push_back(std::move(hits));
  if (hotset != nullptr)
    for (const HotsetRun& other : model.hotsets) {
      const bool tracked =
          std::any_of(model.histories.begin(), model.histories.end(), [&other](const History& h) {
            return std::any_of(h.processes.begin(), h.processes.end(),
                               [&other](const Process& p) { return p.pid == other.pid; });
          });
      if (tracked) continue;
      Line line{"hot pages in DRAM without Thermocline", "without", {}};
      for (const HotSample& s : other.samples)
        line.points.emplace_back(hotset->start_s + s.time_s, s.fast_share);
      lines.push_back(std::move(line));
    }

  put(out, R"(<h2>{} <span class="dim">pid {}</span></h2>)", draw::escaped(process.command),
      process.pid);
  put_cards(out, history, hotset);
  out +=
      "<h3>Temperature and tier</h3><p class=\"dim\">Each cell is a stretch of addresses in one "
      "epoch. Brightness is its temperature, hue is where it lives: orange in DRAM, blue on slow "
      "memory, mixed in proportion. Bright blue is what tiering has to fix.</p>";
  draw_heat_map(out, process, time, moves, Hue::kTier);
  out += "<h3>Where addresses live</h3>";
  draw_residency(out, process, time, moves);
  out += "<h3>Share in DRAM</h3>";
  draw_shares(out, time, lines, moves);
  out += "<h3>Pages moved in each epoch</h3>";
  draw_page_moves(out, time, history, moves);
}

/// What a picture by itself needs of the page's style, in the light colours; renderers that know no
/// variables must do.
constexpr std::string_view kPictureStyle = R"(
svg{font:12px system-ui,sans-serif;background:#fff}text{fill:#667085}text.y{text-anchor:end}
text.x{text-anchor:middle}.mono{font:10px ui-monospace,monospace}text.event{fill:#1c2330}
.ground{fill:#0d1117}.tick{stroke:#667085}.grid{stroke:#d9dde4}
path.event{stroke:#fff;stroke-width:1.5;stroke-dasharray:5 4})";

}  // namespace

std::string heat_map_picture(const Process& process, std::span<const Event> events) {
  std::string svg;
  if (process.columns.empty()) return svg;
  // From the begin of the recording, as its other pictures.
  TimeAxis time = time_of(process);
  time.span += std::exchange(time.from, 0);
  draw_heat_map(svg, process, time, events, Hue::kNone);
  return svg;
}

std::string standalone(const std::string& picture) {
  constexpr std::string_view kOpen = "<svg ";
  if (!picture.starts_with(kOpen) || picture.find("xmlns=") < picture.find('>')) return picture;
  const auto end = picture.find('>') + 1;
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" {}<style>{}</style>"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{}\n",
      picture.substr(kOpen.size(), end - kOpen.size()), kPictureStyle, picture.substr(end));
}

std::string to_html(const Model& model) {
  std::string out;
  put(out,
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      "<title>{}</title><style>{}</style></head><body><main>\n",
      draw::escaped(model.title), kStyle);
  put(out, "<h1>{}</h1>", draw::escaped(model.title));
  if (!model.note.empty()) put(out, R"(<p class="dim">{}</p>)", draw::escaped(model.note));
  for (const Picture& picture : model.pictures)
    put(out, R"(<h2>{}</h2><p class="dim">{}</p>{})", draw::escaped(picture.title),
        draw::escaped(picture.note), picture.svg);
  for (const Table& table : model.tables) put_table(out, table);
  for (const History& history : model.histories)
    for (const Process& process : history.processes) {
      out += "\n";
      put_process(out, process, history, model);
    }
  put(out,
      "\n<p class=\"dim\">Made by thermocline {} from {}; all counts and "
      "shares are measured.</p></main></body></html>\n",
      THERMOCLINE_VERSION, model.histories.empty() ? "a recording" : "the daemon's history");
  return out;
}

}  // namespace thermocline::report
