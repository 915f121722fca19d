// SPDX-License-Identifier: Apache-2.0
#include "bench/trackers/row.h"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "base/text.h"

namespace thermocline::trackers {

namespace {

using Json = nlohmann::ordered_json;

/// The figures by name, in the order of the documents.
constexpr std::array<std::pair<const char*, std::optional<double> Judgement::*>, 13> kFigures{{
    {"recall", &Judgement::recall},
    {"precision", &Judgement::precision},
    {"rank_correlation", &Judgement::rank_correlation},
    {"delay_s", &Judgement::delay_s},
    {"delay_epochs", &Judgement::delay_epochs},
    {"cpu_share", &Judgement::cpu_share},
    {"instr_per_entry", &Judgement::instr_per_entry},
    {"ns_per_entry", &Judgement::ns_per_entry},
    {"epoch_ns_per_page", &Judgement::epoch_ns_per_page},
    {"epoch_64gib_s", &Judgement::epoch_64gib_s},
    {"delay_64gib_s", &Judgement::delay_64gib_s},
    {"recall_64gib", &Judgement::recall_64gib},
    {"precision_64gib", &Judgement::precision_64gib},
}};
constexpr std::array<std::pair<const char*, std::string Row::*>, 8> kTexts{{
    {"tracker", &Row::tracker},
    {"pattern", &Row::pattern},
    {"kernel", &Row::kernel},
    {"timing", &Row::timing},
    {"setting", &Row::setting},
    {"error", &Row::error},
    {"unsupported", &Row::unsupported},
    {"version", &Row::version},
}};

Json number(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

bool read(const Json& json, const char* key, std::optional<double>& value) {
  const auto at = json.find(key);
  if (at == json.end()) return true;
  if (!(at->is_number() || at->is_null())) return false;
  if (at->is_number()) value = at->get<double>();
  return true;
}

bool read(const Json& json, Row& row) {
  if (!json.is_object()) return false;
  for (const auto& [key, member] : kTexts) {
    const auto at = json.find(key);
    if (at == json.end()) continue;
    if (!at->is_string()) return false;
    row.*member = at->get<std::string>();
  }
  if (row.tracker.empty() || row.pattern.empty()) return false;
  for (const auto& [key, member] : kFigures)
    if (!read(json, key, row.result.*member)) return false;
  std::optional<double> budget;
  if (!read(json, "ops_per_s", row.ops_per_s) || !read(json, "budget", budget) || !budget)
    return false;
  row.budget = *budget;
  for (const char* key : {"footprint_bytes", "seed"})
    if (!json.contains(key) || !json[key].is_number_unsigned()) return false;
  row.footprint = Bytes(json["footprint_bytes"].get<std::uint64_t>());
  row.seed = json["seed"].get<std::uint64_t>();
  return true;
}

}  // namespace

bool Row::same_run(const Row& other) const {
  const auto key = [](const Row& r) {
    return std::tie(r.tracker, r.pattern, r.kernel, r.timing, r.budget, r.footprint, r.seed,
                    r.setting);
  };
  return key(*this) == key(other);
}

Json to_json(const Row& row) {
  Json json = {{"tracker", row.tracker},
               {"pattern", row.pattern},
               {"kernel", row.kernel},
               {"budget", row.budget}};
  for (const auto& [key, member] : kFigures) json[key] = number(row.result.*member);
  json["ops_per_s"] = number(row.ops_per_s);
  json["timing"] = row.timing;
  json["footprint_bytes"] = row.footprint.get();
  json["seed"] = row.seed;
  json["setting"] = row.setting;
  json["unsupported"] = row.unsupported;
  json["error"] = row.error;
  json["version"] = row.version;
  return json;
}

Result<std::vector<Row>> parse_rows(std::string_view text) {
  std::vector<Row> rows;
  std::size_t number = 0;
  for (const std::string_view line : split(text, '\n')) {
    ++number;
    if (trim(line).empty()) continue;
    Row row;
    if (!read(Json::parse(line, nullptr, false), row))
      return fail(ErrorKind::kCorrupt, "line {} is no result of a tracker", number);
    std::erase_if(rows, [&](const Row& r) { return r.same_run(row); });
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace thermocline::trackers
