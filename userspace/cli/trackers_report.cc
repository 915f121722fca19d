// SPDX-License-Identifier: Apache-2.0
#include "cli/trackers_report.h"

#include "base/text.h"
#include "cli/table.h"

namespace thermocline::cli {

namespace {

using nlohmann::json;

std::string cost_text(const json& tracker, const char* key) {
  return tracker[key].is_null() ? "not known"
                                : format_duration(Nanoseconds(tracker[key].get<std::int64_t>()));
}

}  // namespace

json trackers_json(std::span<const TrackerState> trackers, std::string_view chosen) {
  json list = json::array();
  for (const TrackerState& tracker : trackers) {
    const TrackerAbilities& can = tracker.factory->abilities;
    json entry{{"name", tracker.factory->name},
               {"summary", tracker.factory->summary},
               {"works_here", tracker.why_not.empty()},
               {"why_not", tracker.why_not},
               {"auto", tracker.factory->name == chosen},
               {"sees_reads", can.sees_reads},
               {"granularity", to_string(can.grain)},
               {"one_pass", can.one_pass},
               {"clears_ranges", can.clears_ranges},
               {"knows_nodes", can.knows_nodes},
               {"privilege", can.privilege},
               {"cannot_see", can.cannot_see},
               {"read_ns_per_gib", nullptr},
               {"clear_ns_per_gib", nullptr},
               {"cost_source", nullptr}};
    if (can.cost) {
      entry["read_ns_per_gib"] = can.cost->read_per_gib.count();
      entry["clear_ns_per_gib"] = can.cost->clear_per_gib.count();
      entry["cost_source"] = can.cost->source;
    }
    list.push_back(std::move(entry));
  }
  return list;
}

std::string trackers_text(const json& trackers) {
  std::vector<std::vector<std::string>> rows, notes;
  std::string chosen;
  const auto note = [&notes](const std::string& what, const std::string& text) {
    if (!text.empty()) notes.push_back({"", what, text});
  };
  for (const json& tracker : trackers) {
    const std::string name = tracker["name"];
    if (tracker["auto"]) chosen = name;
    rows.push_back({name, tracker["works_here"] ? "yes" : "no",
                    tracker["sees_reads"] ? "reads, writes" : "writes", tracker["granularity"],
                    cost_text(tracker, "read_ns_per_gib"), cost_text(tracker, "clear_ns_per_gib"),
                    tracker["privilege"]});
    notes.push_back({name, "", tracker["summary"]});
    note("doesn't work here", tracker["why_not"]);
    note("can't see", tracker["cannot_see"]);
    if (!tracker["cost_source"].is_null()) note("cost", tracker["cost_source"]);
  }
  std::string text = format_table({{"TRACKER"},
                                   {"WORKS"},
                                   {"SEES"},
                                   {"GRAIN"},
                                   {"READ/GiB", true},
                                   {"CLEAR/GiB", true},
                                   {"NEEDS"}},
                                  rows, kLineWidth);
  text += "\n\n" + format_table({{"TRACKER"}, {""}, {"WHAT IT IS"}}, notes, kLineWidth);
  text += chosen.empty() ? "\n\nNone works here, so \"auto\" finds nothing."
                         : fmt::format("\n\n\"auto\" takes {} here.", chosen);
  return text;
}

}  // namespace thermocline::cli
