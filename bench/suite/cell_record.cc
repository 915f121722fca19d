// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/cell_record.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "base/json_read.h"
#include "base/line_store.h"
#include "base/text.h"

namespace thermocline::suite {

namespace {

using nlohmann::json;

constexpr std::array<FigureKey, 16> kFigures{{
    {"ops_per_s", &CellRecord::ops_per_s, Range::kNotNegative},
    {"steady_ops_per_s", &CellRecord::steady_ops_per_s, Range::kNotNegative},
    {"ns_per_access", &CellRecord::ns_per_access, Range::kNotNegative},
    {"p50_ns", &CellRecord::p50_ns, Range::kNotNegative},
    {"p99_ns", &CellRecord::p99_ns, Range::kNotNegative},
    {"fast_hit_ratio", &CellRecord::fast_hit_ratio, Range::kShare},
    {"steady_fast_hit_ratio", &CellRecord::steady_fast_hit_ratio, Range::kShare},
    {"ping_pong_share", &CellRecord::ping_pong_share, Range::kShare},
    {"tracker_cpu_share", &CellRecord::tracker_cpu_share, Range::kNotNegative},
    {"policy_cpu_share", &CellRecord::policy_cpu_share, Range::kNotNegative},
    {"mover_cpu_share", &CellRecord::mover_cpu_share, Range::kNotNegative},
    {"overhead_cpu_share", &CellRecord::overhead_cpu_share, Range::kAny},
    {"reconverge_s", &CellRecord::reconverge_s, Range::kNotNegative},
    {"fast_share", &CellRecord::fast_share, Range::kNotNegative},
    {"seconds", &CellRecord::seconds, Range::kNotNegative},
    {"wall_s", &CellRecord::wall_s, Range::kNotNegative},
}};

struct Size {
  const char* key;
  std::optional<Bytes> CellRecord::*member;
};

constexpr std::array<Size, 4> kSizes{{
    {"promoted_bytes", &CellRecord::promoted_bytes},
    {"demoted_bytes", &CellRecord::demoted_bytes},
    {"fast_bytes", &CellRecord::fast_bytes},
    {"footprint_bytes", &CellRecord::footprint_bytes},
}};

struct Word {
  const char* key;
  std::string CellKey::*member;
};

constexpr std::array<Word, 6> kWords{{
    {"workload", &CellKey::workload},
    {"ratio", &CellKey::ratio},
    {"system", &CellKey::system},
    {"timing", &CellKey::timing},
    {"mode", &CellKey::mode},
    {"kernel", &CellKey::kernel},
}};

/// Can stand in a table, a path and a command line as it is.
bool is_word(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view(":@._-+").find(c) != std::string_view::npos;
  });
}

bool in_range(double value, Range range) {
  if (!std::isfinite(value)) return false;
  if (range == Range::kAny) return true;
  return value >= 0 && (range == Range::kNotNegative || value <= 1);
}

const std::set<std::string>& all_keys() {
  static const std::set<std::string> keys = [] {
    std::set<std::string> result;
    const auto written = to_json(CellRecord{});
    for (const auto& [key, value] : written.items()) result.insert(key);
    return result;
  }();
  return keys;
}

/// Throws json::exception for what is of another type.
CellRecord from_json(const json& line) {
  CellRecord record;
  for (const Word& word : kWords) record.key.*word.member = line.at(word.key).get<std::string>();
  record.key.seed = whole<std::uint64_t>(line.at("seed"));
  const auto status = line.at("status").get<std::string>();
  if (status != "done" && status != "failed")
    throw json::other_error::create(501, R"("status" is neither "done" nor "failed")", &line);
  record.done = status == "done";

  const auto value = [&line](const char* key) -> const json* {
    const auto found = line.find(key);
    return found == line.end() || found->is_null() ? nullptr : &*found;
  };
  const auto read = [&value]<class T>(const char* key, T& to) {
    if (const json* found = value(key)) to = found->get<T>();
  };
  for (const FigureKey& figure : kFigures)
    if (const json* found = value(figure.key)) {
      if (!found->is_number())  // get<double>() takes true for 1
        throw json::type_error::create(302, fmt::format("\"{}\" is no number", figure.key), found);
      record.*figure.member = found->get<double>();
    }
  for (const Size& size : kSizes)
    if (const json* found = value(size.key))
      record.*size.member = Bytes(whole<std::uint64_t>(*found));
  if (const json* found = value("operations")) record.operations = whole<std::uint64_t>(*found);
  if (const json* found = value("verified")) record.verified = found->get<bool>();
  if (const json* found = value("policy")) record.policy = found->get<std::string>();
  read("error", record.error);
  read("log", record.log);
  read("setting", record.setting);
  read("version", record.version);
  return record;
}

/// The newest record of each key, but what failed never hides what is done.
void put(std::vector<CellRecord>& records, std::map<CellKey, std::size_t>& places,
         CellRecord record) {
  const auto [place, is_new] = places.try_emplace(record.key, records.size());
  if (is_new)
    records.push_back(std::move(record));
  else if (record.done || !records[place->second].done)
    records[place->second] = std::move(record);
}

}  // namespace

std::span<const FigureKey> figure_keys() {
  return kFigures;
}

bool CellKey::operator<(const CellKey& other) const {
  const auto all = [](const CellKey& k) {
    return std::tie(k.workload, k.ratio, k.system, k.timing, k.mode, k.kernel, k.seed);
  };
  return all(*this) < all(other);
}

std::string to_text(const CellKey& key) {
  return fmt::format("{} {} {}, seed {} ({}, {}, {})", key.workload, key.ratio, key.system,
                     key.seed, key.timing, key.mode, key.kernel);
}

nlohmann::ordered_json to_json(const CellRecord& r) {
  nlohmann::ordered_json out;
  const auto put_or_null = [&out](const char* key, const auto& value) {
    if (value)
      out[key] = *value;
    else
      out[key] = nullptr;
  };
  const auto put_bytes = [&out](const char* key, const std::optional<Bytes>& value) {
    if (value)
      out[key] = value->get();
    else
      out[key] = nullptr;
  };
  for (const Word& word : kWords) out[word.key] = r.key.*word.member;
  out["seed"] = r.key.seed;
  out["setting"] = printable(r.setting);
  put_or_null("policy", r.policy);
  out["status"] = r.done ? "done" : "failed";
  out["error"] = printable(r.error);
  out["log"] = printable(r.log);
  put_or_null("ops_per_s", r.ops_per_s);
  put_or_null("steady_ops_per_s", r.steady_ops_per_s);
  put_or_null("ns_per_access", r.ns_per_access);
  put_or_null("p50_ns", r.p50_ns);
  put_or_null("p99_ns", r.p99_ns);
  put_or_null("fast_hit_ratio", r.fast_hit_ratio);
  put_or_null("steady_fast_hit_ratio", r.steady_fast_hit_ratio);
  put_bytes("promoted_bytes", r.promoted_bytes);
  put_bytes("demoted_bytes", r.demoted_bytes);
  put_or_null("ping_pong_share", r.ping_pong_share);
  put_or_null("tracker_cpu_share", r.tracker_cpu_share);
  put_or_null("policy_cpu_share", r.policy_cpu_share);
  put_or_null("mover_cpu_share", r.mover_cpu_share);
  put_or_null("overhead_cpu_share", r.overhead_cpu_share);
  put_or_null("reconverge_s", r.reconverge_s);
  put_bytes("fast_bytes", r.fast_bytes);
  put_or_null("fast_share", r.fast_share);
  put_bytes("footprint_bytes", r.footprint_bytes);
  put_or_null("operations", r.operations);
  put_or_null("seconds", r.seconds);
  put_or_null("verified", r.verified);
  put_or_null("wall_s", r.wall_s);
  out["version"] = printable(r.version);
  return out;
}

Status check(const CellRecord& record) {
  const auto wrong = [](const char* key, std::string_view wants) {
    return fail(ErrorKind::kCorrupt, "\"{}\" wants {}", key, wants);
  };
  for (const Word& word : kWords)
    if (const std::string& text = record.key.*word.member; word.member == &CellKey::timing) {
      if (text.empty() || printable(text) != text)
        return wrong(word.key, "a name or a path without control characters");
    } else if (!is_word(text)) {
      return wrong(word.key, "a word of letters, digits and : @ . _ - +");
    }
  if (record.key.mode != "reference" && record.key.mode != "parallel")
    return wrong("mode", R"("reference" or "parallel")");
  if (record.policy && !is_word(*record.policy)) return wrong("policy", "a word or null");
  if (!record.setting.empty() && !is_word(record.setting)) return wrong("setting", "a word");
  for (const FigureKey& figure : kFigures)
    if (const auto& value = record.*figure.member; value && !in_range(*value, figure.range))
      return wrong(figure.key, figure.range == Range::kShare ? "a number from 0 to 1"
                               : figure.range == Range::kNotNegative
                                   ? "a finite number of 0 or more"
                                   : "a finite number");
  if (record.done && !(record.ops_per_s && *record.ops_per_s > 0))
    return wrong("ops_per_s", "a number above 0 in a done cell");
  if (record.steady_ops_per_s && *record.steady_ops_per_s <= 0)
    return wrong("steady_ops_per_s", "a number above 0 or null");
  if (!record.done && record.error.empty()) return wrong("error", "a sentence in a failed cell");
  return {};
}

Result<CellRecord> parse_line(std::string_view line) {
  try {
    const json parsed = json::parse(line);
    if (!parsed.is_object()) return fail(ErrorKind::kCorrupt, "not a JSON object");
    for (const auto& [key, value] : parsed.items())
      if (!all_keys().contains(key))
        return fail(ErrorKind::kCorrupt, "\"{}\" is no key of a cell that this version knows",
                    printable(key));
    CellRecord record = from_json(parsed);
    TC_TRY(check(record));
    return record;
  } catch (const json::exception& e) {
    return fail(ErrorKind::kCorrupt, "not a cell: {}", printable(e.what()));
  }
}

Result<Cells> parse_cells(std::string_view text, const std::string& name) {
  Cells cells;
  std::map<CellKey, std::size_t> places;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) {
      cells.notes.push_back(
          fmt::format("{}:{}: the last line has no end, as when a run was killed; it was left out",
                      name, number));
      break;
    }
    Result<CellRecord> record = parse_line(text.substr(0, end));
    if (!record)
      return fail(ErrorKind::kCorrupt, "{}:{}: {}", name, number, record.error().message);
    put(cells.records, places, std::move(*record));
    cells.whole_bytes += end + 1;
    text.remove_prefix(end + 1);
  }
  return cells;
}

Result<Cells> read_cells(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "can't read " + path);
  TC_ASSIGN(const std::string text, read_all(fd.get(), path));
  return parse_cells(text, path);
}

Result<Store> Store::open(const std::string& path) {
  Store store;
  store.path_ = path;
  TC_ASSIGN(store.fd_, open_line_store(path));
  TC_ASSIGN(const std::string text, read_all(store.fd_.get(), path));
  TC_ASSIGN(Cells cells, parse_cells(text, path));
  if (cells.whole_bytes != text.size())
    TC_TRY(cut_line_store(store.fd_.get(), path, cells.whole_bytes));
  store.notes_ = std::move(cells.notes);
  for (CellRecord& record : cells.records) put(store.records_, store.places_, std::move(record));
  return store;
}

const CellRecord* Store::done(const CellKey& key) const {
  const auto place = places_.find(key);
  return place != places_.end() && records_[place->second].done ? &records_[place->second]
                                                                : nullptr;
}

Status Store::append(const CellRecord& record) {
  if (const Status good = check(record); !good)
    return fail(ErrorKind::kCorrupt, "the cell {} can't be stored: {}", to_text(record.key),
                good.error().message);
  TC_TRY(append_line(fd_.get(), path_, to_json(record).dump()));
  put(records_, places_, record);
  return {};
}

}  // namespace thermocline::suite
