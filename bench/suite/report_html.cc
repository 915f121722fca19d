// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "bench/suite/report.h"
#include "bench/suite/report_sections.h"
#include "draw/markup.h"

namespace thermocline::suite {

namespace {

using draw::escaped;
using draw::put;

constexpr std::string_view kStyle = R"(
:root{color-scheme:light dark;--ground:#fff;--card:#f5f6f8;--ink:#1c2330;--dim:#667085;--rule:#d9dde4;
--good:#0b6e4f;--good-ground:#e3f4ec;--bad:#a3271b;--bad-ground:#fdeae7}
@media(prefers-color-scheme:dark){:root{--ground:#10141b;--card:#181e28;--ink:#e6eaf0;--dim:#98a2b3;
--rule:#2a3240;--good:#5fd3a5;--good-ground:#12312a;--bad:#ff9b8e;--bad-ground:#3d1a18}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}main{max-width:1208px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:28px;margin:0 0 4px}h2{font-size:22px;margin:48px 0 4px}h3{font-size:16px;margin:30px 0 2px}
p{margin:2px 0 10px;max-width:90ch}.dim{color:var(--dim)}a{color:inherit}
svg{max-width:100%;height:auto;display:block;margin:8px 0}
.scroll{overflow-x:auto}table{border-collapse:collapse;margin:8px 0;font-size:13.5px}
th,td{padding:5px 14px 5px 0;text-align:right;border-bottom:1px solid var(--rule);vertical-align:top}
th.left,td.left{text-align:left}th{color:var(--dim);font-weight:600;vertical-align:bottom}
td{font-variant-numeric:tabular-nums}td small{display:block;color:var(--dim);font-size:11.5px}
td.good b,td.bad b{padding:0 6px;border-radius:5px}
td.good b{color:var(--good);background:var(--good-ground)}
td.bad b{color:var(--bad);background:var(--bad-ground)}td.dim{color:var(--dim)}
td{white-space:nowrap}td.words{min-width:30ch;white-space:normal}th.left{white-space:nowrap}
table.sortable th{cursor:pointer}table.sortable th[data-order]::after{content:" ▲"}
table.sortable th[data-order="-1"]::after{content:" ▼"}
.warning{background:var(--bad-ground);color:var(--bad);border-radius:8px;padding:8px 14px;margin:8px 0;max-width:90ch}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:14px 0}dt{color:var(--dim)}dd{margin:0}
pre{background:var(--card);border-radius:8px;padding:10px 14px;overflow-x:auto;font:12px/1.45 ui-monospace,monospace}
summary{cursor:pointer;font-weight:600;margin:14px 0}
)";

// Rows by the cell of the column that was clicked; again: the other way round.
constexpr std::string_view kScript = R"(
for (const table of document.querySelectorAll("table.sortable"))
  table.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {
    const order = head.dataset.order === "1" ? -1 : 1;
    for (const other of table.querySelectorAll("th")) delete other.dataset.order;
    head.dataset.order = order;
    const value = row => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const compare = (a, b) => {
      const x = value(a), y = value(b), numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
      return order * (numbers ? x - y : x.localeCompare(y, "en", {numeric: true}));
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }));
)";

const char* css_class(Tone tone) {
  switch (tone) {
    case Tone::kGood:
      return "good";
    case Tone::kBad:
      return "bad";
    case Tone::kDim:
      return "dim";
    case Tone::kPlain:
      break;
  }
  return "";
}

constexpr std::size_t kWordy = 48;  ///< texts longer than this are wrapped

void put_cell(std::string& out, const TextCell& cell, bool right) {
  std::string classes = css_class(cell.tone);
  if (!right) classes += classes.empty() ? "left" : " left";
  if (cell.text.size() > kWordy) classes += classes.empty() ? "words" : " words";
  put(out, "<td{}{}>", classes.empty() ? "" : fmt::format(R"( class="{}")", classes),
      cell.sort ? fmt::format(R"( data-sort="{:.9g}")", *cell.sort) : "");
  const bool marked = cell.tone == Tone::kGood || cell.tone == Tone::kBad;
  put(out, "{}{}{}", marked ? "<b>" : "", escaped(cell.text), marked ? "</b>" : "");
  if (!cell.note.empty()) put(out, "<small>{}</small>", escaped(cell.note));
  out += "</td>";
}

void put_rows(std::string& out, const Section& section) {
  put(out, R"(<div class="scroll"><table class="sortable"><thead><tr>)");
  for (const TextColumn& column : section.columns)
    put(out, "<th{}>{}</th>", column.right ? "" : R"( class="left")", escaped(column.name));
  out += "</tr></thead><tbody>\n";
  for (const auto& row : section.rows) {
    out += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i) put_cell(out, row[i], section.columns[i].right);
    out += "</tr>\n";
  }
  out += "</tbody></table></div>\n";
}

void put_section(std::string& out, const Section& section, const std::string& nothing = "") {
  put(out, R"(<h3 id="{}">{}</h3>)", section.id, escaped(section.title));
  if (!section.note.empty()) put(out, R"(<p class="dim">{}</p>)", escaped(section.note));
  if (section.rows.empty())
    put(out, "<p>{}</p>", escaped(nothing));
  else
    put_rows(out, section);
}

void put_folded(std::string& out, const std::string& title, const std::string& content) {
  put(out, "<details><summary>{}</summary>{}</details>\n", escaped(title), content);
}

void put_header(std::string& out, const ReportHeader& header) {
  out += "<dl>";
  const auto entry = [&out](std::string_view name, const std::string& value) {
    if (!value.empty()) put(out, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value));
  };
  entry("Machine", header.machine);
  for (const auto& [name, value] : header.facts) entry(name, value);
  entry("Timing model", header.timing_model);
  out += "</dl>";
  if (!header.command.empty()) put(out, "<pre>{}</pre>", escaped(header.command));
  if (header.settings.empty()) return;
  Section settings{"settings", "Settings", "", {{"system", false}, {"settings", false}}, {}};
  for (const auto& [system, text] : header.settings) settings.rows.push_back({{system}, {text}});
  put_section(out, settings);
}

void put_table(std::string& out, const Table& table, const ReportHeader& header,
               std::string_view prefix) {
  put(out, R"(<h2 id="{}">{} <span class="dim">modelled</span></h2>)", prefix,
      escaped(title_of(table)));
  for (const std::string& warning : warnings_of(table))
    put(out, R"(<p class="warning">{}.</p>)", escaped(warning));
  const auto with_id = [prefix](Section section) {
    section.id = fmt::format("{}-{}", prefix, section.id);
    return section;
  };
  put_section(out, with_id(goals_section(table)));
  put_section(out, with_id(scores_section(table)));
  out += "<h3>Slow-down against all-fast</h3>";
  out += slowdown_chart_svg(table, Measure::kWhole);
  put_folded(out, "The same in steady state", slowdown_chart_svg(table, Measure::kSteady));
  put_section(out, with_id(verdicts_section(table)), "There are no cells.");
  put_section(out, with_id(causes_section(table)), "No cell is lost.");
  if (const Section evidence = evidence_section(table); !evidence.rows.empty())
    put_section(out, with_id(evidence));
  put_section(out, with_id(oracle_section(table)), "There are no cells.");
  for (const Measure measure : {Measure::kWhole, Measure::kSteady}) {
    std::string content;
    const Section section = slowdowns_section(table, measure);
    put(content, R"(<p class="dim">{}</p>)", escaped(section.note));
    put_rows(content, section);
    put_folded(out, section.title, content);
  }
  put_section(out, with_id(cells_section(table)), "There are no cells.");
  if (!table.failed.empty()) {
    put_section(out, with_id(failed_section(table)));
    for (const Failure& failure : table.failed)
      if (const auto tail = header.log_tails.find(failure.log); tail != header.log_tails.end())
        put_folded(out, "End of " + failure.log,
                   fmt::format("<pre>{}</pre>", escaped(tail->second)));
  }
  if (!table.missing.empty()) put_section(out, with_id(missing_section(table)));
}

}  // namespace

std::string report_html(const Summary& summary, const ReportHeader& header) {
  std::string out;
  put(out,
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      "<title>Thermocline beside the kernel's own tiering</title><style>{}</style></head>"
      "<body><main>\n",
      kStyle);
  out +=
      "<h1>Thermocline beside the kernel's own tiering</h1><p class=\"dim\">All times are "
      "modelled: "
      "an emulated guest with a timing model stands in for a machine with CXL memory. Tables can "
      "be sorted by a click on a column.</p>";
  put_header(out, header);
  if (summary.tables.size() > 1) {
    out += "<p>";
    for (std::size_t i = 0; i < summary.tables.size(); ++i)
      put(out, R"({}<a href="#t{}">{}</a>)", i > 0 ? " · " : "", i,
          escaped(title_of(summary.tables[i])));
    out += "</p>";
  }
  for (std::size_t i = 0; i < summary.tables.size(); ++i)
    put_table(out, summary.tables[i], header, fmt::format("t{}", i));
  out += "<h2>How the figures are made</h2>";
  for (const std::string& paragraph : method_paragraphs())
    put(out, "<p>{}</p>", escaped(paragraph));
  put(out, "<script>{}</script></main></body></html>\n", kScript);
  return out;
}

}  // namespace thermocline::suite
