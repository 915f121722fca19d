// SPDX-License-Identifier: Apache-2.0
#include "bench/trackers/watch_file.h"

#include <nlohmann/json.hpp>
#include <optional>

namespace thermocline::trackers {

namespace {

using Json = nlohmann::json;

constexpr const char* kDigits = "0123456789abcdef";
/// More than any guest has: a number that can't be must not become an allocation.
constexpr std::uint64_t kMostPages = std::uint64_t{1} << 32;

std::string hex(const std::vector<std::uint8_t>& bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::uint8_t b : bytes) {
    text += kDigits[b >> 4];
    text += kDigits[b & 15];
  }
  return text;
}

std::optional<std::vector<std::uint8_t>> bytes_of(const Json& json) {
  if (!json.is_string()) return std::nullopt;
  const auto& text = json.get_ref<const std::string&>();
  if (text.size() % 2 != 0) return std::nullopt;
  const auto digit = [](char c) -> int {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  std::vector<std::uint8_t> bytes(text.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return bytes;
}

std::vector<std::uint8_t> packed(const std::vector<bool>& bits) {
  std::vector<std::uint8_t> bytes((bits.size() + 7) / 8);
  for (std::size_t i = 0; i < bits.size(); ++i)
    if (bits[i]) bytes[i / 8] = static_cast<std::uint8_t>(bytes[i / 8] | 1u << i % 8);
  return bytes;
}

bool read(const Json& json, const char* key, std::uint64_t& value) {
  const auto at = json.find(key);
  if (at == json.end() || !at->is_number_unsigned()) return false;
  value = at->get<std::uint64_t>();
  return true;
}

tl::unexpected<Error> broken(const char* what) {
  return fail(ErrorKind::kCorrupt, "what tracker_watch wrote is not whole: {}", what);
}

}  // namespace

std::uint64_t Watch::pages() const {
  std::uint64_t sum = 0;
  for (const Region& region : regions) sum += region.pages;
  return sum;
}

std::string to_text(const Watch& watch) {
  Json regions = Json::array(), looks = Json::array();
  for (const Region& r : watch.regions) regions.push_back({r.first, r.pages});
  for (const Watch::Look& l : watch.looks)
    looks.push_back({{"at_ns", l.at_ns},
                     {"target_cpu_ns", l.target_cpu_ns},
                     {"own_cpu_ns", l.own_cpu_ns},
                     {"tracking_cpu_ns", l.tracking_cpu_ns},
                     {"hot", hex(packed(l.hot))}});
  const Json json = {{"tracker", watch.tracker},
                     {"scans_ranges", watch.scans_ranges},
                     {"regions", std::move(regions)},
                     {"looks", std::move(looks)},
                     {"cost", {{"entries", watch.cost.entries}, {"cpu_ns", watch.cost.cpu_ns}}},
                     {"heat", hex(watch.heat)}};
  return json.dump() + "\n";
}

Result<Watch> parse_watch(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return broken("no JSON object");
  for (const char* key : {"tracker", "scans_ranges", "regions", "looks", "cost", "heat"})
    if (!json.contains(key)) return broken(key);
  Watch watch;
  if (!json["tracker"].is_string()) return broken("tracker");
  watch.tracker = json["tracker"].get<std::string>();
  if (!json["scans_ranges"].is_boolean()) return broken("scans_ranges");
  watch.scans_ranges = json["scans_ranges"].get<bool>();
  if (!json["regions"].is_array()) return broken("regions");
  std::uint64_t pages = 0;
  for (const Json& r : json["regions"]) {
    if (!r.is_array() || r.size() != 2 || !r[0].is_number_unsigned() || !r[1].is_number_unsigned())
      return broken("regions");
    const Region region{r[0].get<std::uint64_t>(), r[1].get<std::uint64_t>()};
    if (region.first > kMostPages << 20 || region.pages > kMostPages - pages)
      return broken("regions");
    pages += region.pages;
    watch.regions.push_back(region);
  }
  if (!json["cost"].is_object() || !read(json["cost"], "entries", watch.cost.entries) ||
      !read(json["cost"], "cpu_ns", watch.cost.cpu_ns))
    return broken("cost");
  const auto heat = bytes_of(json["heat"]);
  if (!heat || (!heat->empty() && heat->size() != pages)) return broken("heat");
  watch.heat = *heat;
  if (!json["looks"].is_array()) return broken("looks");
  for (const Json& l : json["looks"]) {
    Watch::Look look;
    if (!l.is_object() || !read(l, "at_ns", look.at_ns) ||
        !read(l, "target_cpu_ns", look.target_cpu_ns) || !read(l, "own_cpu_ns", look.own_cpu_ns) ||
        !read(l, "tracking_cpu_ns", look.tracking_cpu_ns) || !l.contains("hot"))
      return broken("looks");
    const auto bits = bytes_of(l["hot"]);
    if (!bits || (!bits->empty() && bits->size() != (pages + 7) / 8)) return broken("hot");
    if (!bits->empty()) {
      look.hot.resize(pages);
      for (std::size_t i = 0; i < pages; ++i) look.hot[i] = ((*bits)[i / 8] >> i % 8 & 1) != 0;
    }
    if (!watch.looks.empty() && look.at_ns < watch.looks.back().at_ns) return broken("looks");
    watch.looks.push_back(std::move(look));
  }
  return watch;
}

}  // namespace thermocline::trackers
