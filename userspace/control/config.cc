// SPDX-License-Identifier: Apache-2.0
#include "control/config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <span>

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include "base/system.h"
#include "base/text.h"

namespace thermocline {

namespace {

/// Where we are, for messages. Line 0: the file as a whole.
struct Place {
  std::string file;
  toml::source_position position{};
};

tl::unexpected<Error> refuse(const Place& place, const std::string& what) {
  if (place.position.line == 0) return fail(ErrorKind::kUsage, "{}: {}", place.file, what);
  return fail(ErrorKind::kUsage, "{}:{}:{}: {}", place.file, place.position.line,
              place.position.column, what);
}

/// A configuration while it is read: what it says, and where it says that, for mistakes that only
/// show once all is read.
struct Draft {
  Config config;
  std::map<std::string, Place> keys;  ///< "engine.window", "policy.heat", "policy.heat.min_heat"
  std::vector<std::vector<Place>> nodes;  ///< of config.tiers

  [[nodiscard]] Place place_of(const std::string& key, const std::string& file) const {
    const auto place = keys.find(key);
    return place == keys.end() ? Place{file} : place->second;
  }
};

/// A TOML string in ASCII. `text` is UTF-8, as it came from the parser.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    std::uint32_t point = length == 1 ? lead : lead & (0xffu >> (length + 1));
    for (std::size_t k = 1; k < length && i + k < text.size(); ++k)
      point = point << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3fu);
    i += length;
    if (point < 0x20 || point >= 0x7f) {
      out += point > 0xffff ? fmt::format("\\U{:08x}", point) : fmt::format("\\u{:04x}", point);
      continue;
    }
    if (point == '"' || point == '\\') out += '\\';
    out += static_cast<char>(point);
  }
  return out + "\"";
}

// ---- Values: each reader names what it wanted.

Result<std::string> read_string(const toml::node& node) {
  if (const auto* value = node.as_string()) return value->get();
  return fail(ErrorKind::kUsage, "needs a text in quotes");
}

Result<bool> read_bool(const toml::node& node) {
  if (const auto* value = node.as_boolean()) return value->get();
  return fail(ErrorKind::kUsage, "needs true or false");
}

Result<std::uint64_t> read_integer(const toml::node& node, std::uint64_t low, std::uint64_t high) {
  const auto* value = node.as_integer();
  if (value == nullptr || value->get() < 0 || static_cast<std::uint64_t>(value->get()) < low ||
      static_cast<std::uint64_t>(value->get()) > high)
    return fail(ErrorKind::kUsage, "needs a whole number from {} to {}", low, high);
  return static_cast<std::uint64_t>(value->get());
}

Result<double> read_share(const toml::node& node, double low, double high) {
  double value = -1.0;
  if (const auto* real = node.as_floating_point()) value = real->get();
  if (const auto* whole = node.as_integer()) value = static_cast<double>(whole->get());
  if (!(value >= low && value <= high))
    return fail(ErrorKind::kUsage, "needs a number from {} to {}", low, high);
  return value;
}

Result<Nanoseconds> read_duration(const toml::node& node, Nanoseconds low, Nanoseconds high) {
  const auto text = read_string(node);
  const auto time = text ? parse_duration(*text) : Result<Nanoseconds>(tl::unexpect, text.error());
  if (!time || *time < low || *time > high)
    return fail(ErrorKind::kUsage, "needs a time from \"{}\" to \"{}\", such as \"250ms\"",
                format_duration(low), format_duration(high));
  return *time;
}

Result<Bytes> read_size(const toml::node& node, Bytes low, Bytes high) {
  const auto text = read_string(node);
  const auto size = text ? parse_bytes(*text) : Result<Bytes>(tl::unexpect, text.error());
  if (!size || *size < low || *size > high)
    return fail(ErrorKind::kUsage, "needs a size from {} to {}, such as \"256M\"",
                format_bytes(low), format_bytes(high));
  return *size;
}

std::string duration_text(Nanoseconds time) {
  const auto ns = time.count();
  if (ns % 1'000'000'000 == 0) return fmt::format("\"{}s\"", ns / 1'000'000'000);
  if (ns % 1'000'000 == 0) return fmt::format("\"{}ms\"", ns / 1'000'000);
  if (ns % 1'000 == 0) return fmt::format("\"{}us\"", ns / 1'000);
  return fmt::format("\"{}ns\"", ns);
}

std::string size_text(Bytes size) {
  const auto bytes = size.get();
  if (bytes % (1u << 20) == 0) return fmt::format("\"{}M\"", bytes >> 20);
  if (bytes % 1024 == 0) return fmt::format("\"{}K\"", bytes >> 10);
  return fmt::format("\"{}\"", bytes);
}

// ---- The keys.

struct KeyRule {
  std::string table, key, help;
  std::function<Status(const toml::node&, Config&)> read;
  std::function<std::string(const Config&)> write;  ///< "" = not set
};

template <class Reader, class Store>
auto reader(Reader read, Store store) {
  return [read, store](const toml::node& node, Config& config) -> Status {
    auto value = read(node);
    if (!value) return tl::make_unexpected(value.error());
    store(config, *value);
    return {};
  };
}

auto duration_between(Nanoseconds low, Nanoseconds high) {
  return [low, high](const toml::node& node) { return read_duration(node, low, high); };
}

/// No machine has more memory, or moves more in a second; sums of such sizes stay far from
/// overflow.
constexpr Bytes kLargestSize{std::uint64_t{1} << 44};

auto size_from(Bytes low) {
  return [low](const toml::node& node) { return read_size(node, low, kLargestSize); };
}

auto integer_between(std::uint64_t low, std::uint64_t high) {
  return [low, high](const toml::node& node) { return read_integer(node, low, high); };
}

Status read_mode(const toml::node& node, Config& config) {
  const auto text = read_string(node);
  if (text && *text == "manage") {
    config.engine.mode = EngineMode::kManage;
  } else if (text && *text == "observe") {
    config.engine.mode = EngineMode::kObserve;
  } else {
    return fail(ErrorKind::kUsage, "needs \"manage\" or \"observe\"");
  }
  return {};
}

Result<std::vector<std::string>> read_names(const toml::node& node) {
  std::vector<std::string> names;
  const toml::array* array = node.as_array();
  if (array == nullptr || array->size() != 2)
    return fail(ErrorKind::kUsage, "needs two names, such as [\"hmu\", \"refs\"]");
  for (const toml::node& name : *array) {
    TC_ASSIGN(std::string text, read_string(name));
    names.push_back(std::move(text));
  }
  return names;
}

Status read_clear(const toml::node& node, Config& config) {
  using Clear = TrackerOptions::Clear;
  const auto text = read_string(node);
  for (const Clear clear : {Clear::kAuto, Clear::kClearRefs, Clear::kCold}) {
    if (!text || *text != to_string(clear)) continue;
    config.tracker_options.clear = clear;
    return {};
  }
  return fail(ErrorKind::kUsage, "needs \"auto\", \"clear_refs\" or \"cold\"");
}

Status read_flush(const toml::node& node, Config& config) {
  using Flush = TrackerOptions::Flush;
  if (const auto on = read_bool(node)) {
    config.tracker_options.flush = *on ? Flush::kOn : Flush::kOff;
    return {};
  }
  if (const auto text = read_string(node); text && *text == "auto") {
    config.tracker_options.flush = Flush::kAuto;
    return {};
  }
  return fail(ErrorKind::kUsage, "needs \"auto\", true or false");
}

std::string flush_text(const Config& config) {
  using Flush = TrackerOptions::Flush;
  if (config.tracker_options.flush == Flush::kAuto) return quoted("auto");
  return config.tracker_options.flush == Flush::kOn ? "true" : "false";
}

Status read_window(const toml::node& node, Config& config) {
  const auto text = read_string(node);
  config.engine.window_auto = text && *text == "auto";
  if (config.engine.window_auto) {
    config.engine.window = EngineOptions{}.window;
    return {};
  }
  using namespace std::chrono_literals;
  auto time = read_duration(node, 1ms, 60s);
  if (!time) return fail(ErrorKind::kUsage, "{}, or \"auto\"", time.error().message);
  config.engine.window = *time;
  return {};
}

const std::vector<KeyRule>& rules() {
  using namespace std::chrono_literals;
  static const std::vector<KeyRule> kRules{
      {"engine", "mode", "\"manage\" moves pages, \"observe\" only watches and reports", read_mode,
       [](const Config& c) {
         return c.engine.mode == EngineMode::kManage ? "\"manage\"" : "\"observe\"";
       }},
      {"engine", "epoch", "decision period",
       reader(duration_between(50ms, 3600s), [](Config& c, Nanoseconds v) { c.engine.epoch = v; }),
       [](const Config& c) { return duration_text(c.engine.epoch); }},
      {"engine", "window",
       "time from clearing an accessed bit to reading it, or \"auto\": the policy steers it",
       read_window,
       [](const Config& c) {
         return c.engine.window_auto ? std::string("\"auto\"") : duration_text(c.engine.window);
       }},
      {"engine", "windows_per_epoch", "windows that are watched in each epoch, 1 to 64",
       reader(integer_between(1, 64),
              [](Config& c, std::uint64_t v) {
                c.engine.windows_per_epoch = static_cast<unsigned>(v);
              }),
       [](const Config& c) { return fmt::format("{}", c.engine.windows_per_epoch); }},
      {"engine", "cpu_budget",
       "share of one core for tracking and deciding, 0.0001 to 1; the epoch is stretched to keep "
       "it",
       reader([](const toml::node& n) { return read_share(n, 0.0001, 1.0); },
              [](Config& c, double v) { c.engine.cpu_budget = v; }),
       [](const Config& c) { return fmt::format("{}", c.engine.cpu_budget); }},
      {"engine", "cpu_burst",
       "for how long the budget is saved up at most; spent while much is to be moved",
       reader(duration_between(0ms, 3600s),
              [](Config& c, Nanoseconds v) { c.engine.cpu_burst = v; }),
       [](const Config& c) { return duration_text(c.engine.cpu_burst); }},
      {"engine", "cooldown_epochs", "epochs for which a moved page rests, 0 to 3",
       reader(integer_between(0, 3),
              [](Config& c, std::uint64_t v) { c.engine.cooldown = static_cast<unsigned>(v); }),
       [](const Config& c) { return fmt::format("{}", c.engine.cooldown); }},
      {"engine", "headroom",
       "memory kept free on every tier, beyond the kernel's own high watermark",
       reader(size_from(Bytes(0)), [](Config& c, Bytes v) { c.engine.headroom = pages_of(v); }),
       [](const Config& c) { return size_text(bytes_of(c.engine.headroom)); }},
      {"engine", "oom_headroom",
       "free memory of the fast tier, beyond the high watermark, below which its coldest pages go "
       "whatever the policy plans; 0: left to the policy",
       reader(size_from(Bytes(0)), [](Config& c, Bytes v) { c.engine.oom_headroom = pages_of(v); }),
       [](const Config& c) { return size_text(bytes_of(c.engine.oom_headroom)); }},
      {"policy", "name", "which policy decides; see `thermocline policies`",
       reader(read_string, [](Config& c, const std::string& v) { c.policy = v; }),
       [](const Config& c) { return quoted(c.policy); }},
      {"policy", "seed", "seed of policies that draw lots",
       reader(integer_between(0, INT64_MAX), [](Config& c, std::uint64_t v) { c.seed = v; }),
       [](const Config& c) { return fmt::format("{}", c.seed); }},
      {"policy", "plugin_dir", "folder of policy plug-ins, each a file NAME.so; not set: none",
       reader(read_string, [](Config& c, const std::string& v) { c.plugin_dir = v; }),
       [](const Config& c) { return c.plugin_dir.empty() ? "" : quoted(c.plugin_dir); }},
      {"policy", "plugin_timeout", "time that a plug-in has for a decision before it is ended",
       reader(duration_between(1ms, 60s), [](Config& c, Nanoseconds v) { c.plugin_timeout = v; }),
       [](const Config& c) { return duration_text(c.plugin_timeout); }},
      {"tracker", "name", "source of access records; see `thermocline trackers`",
       reader(read_string, [](Config& c, const std::string& v) { c.tracker = v; }),
       [](const Config& c) { return quoted(c.tracker); }},
      {"tracker", "flush",
       "flush the TLBs of the target's CPUs after clearing, so that no touch is missed: \"auto\" "
       "(the "
       "module's own thread does, scans by system call don't), true (both) or false (neither)",
       read_flush, flush_text},
      {"tracker", "clear",
       "how a tracker that can't clear by itself has the kernel do it: \"auto\", \"clear_refs\" or "
       "\"cold\"",
       read_clear,
       [](const Config& c) { return quoted(std::string(to_string(c.tracker_options.clear))); }},
      {"tracker", "continuous",
       "let the module's own thread watch the windows, where the module can; false: scan by system "
       "call",
       reader(read_bool, [](Config& c, bool v) { c.tracker_options.continuous = v; }),
       [](const Config& c) { return c.tracker_options.continuous ? "true" : "false"; }},
      {"tracker", "prune",
       "let that thread leave out blocks of 2 MiB and more that an upper-level accessed bit shows "
       "to be idle",
       reader(read_bool, [](Config& c, bool v) { c.tracker_options.prune = v; }),
       [](const Config& c) { return c.tracker_options.prune ? "true" : "false"; }},
      {"tracker", "hmu_list",
       "hot list of the device that the tracker hmu stands for; not set: none",
       reader(read_string, [](Config& c, const std::string& v) { c.tracker_options.hmu_list = v; }),
       [](const Config& c) {
         const std::string& list = c.tracker_options.hmu_list;
         return list.empty() ? "" : quoted(list);
       }},
      {"tracker", "sources",
       "the two trackers that the tracker combine merges, such as [\"hmu\", \"refs\"]; not set: "
       "none",
       reader(read_names,
              [](Config& c, const std::vector<std::string>& v) { c.tracker_options.sources = v; }),
       [](const Config& c) {
         std::vector<std::string> names;
         for (const std::string& name : c.tracker_options.sources) names.push_back(quoted(name));
         return names.empty() ? "" : fmt::format("[{}]", fmt::join(names, ", "));
       }},
      {"mover", "rate_limit", "bytes a second that may be moved, both directions together",
       reader(size_from(Bytes(kPageSize)), [](Config& c, Bytes v) { c.engine.rate_limit = v; }),
       [](const Config& c) { return size_text(c.engine.rate_limit); }},
      {"mover", "batch_pages", "pages a call to the kernel, 1 to 4096",
       reader(integer_between(1, 4096),
              [](Config& c, std::uint64_t v) { c.engine.batch = PageCount(v); }),
       [](const Config& c) { return fmt::format("{}", c.engine.batch.get()); }},
      {"control", "socket", "path of the control socket",
       reader(read_string, [](Config& c, const std::string& v) { c.socket = v; }),
       [](const Config& c) { return quoted(c.socket); }},
      {"history", "file", "append one JSON line an epoch to this file; not set: none",
       reader(read_string, [](Config& c, const std::string& v) { c.history_file = v; }),
       [](const Config& c) { return c.history_file ? quoted(*c.history_file) : ""; }},
      {"history", "max_size", "size of the file from which on nothing more is written to it",
       reader(size_from(Bytes(kPageSize)), [](Config& c, Bytes v) { c.history_max_size = v; }),
       [](const Config& c) { return size_text(c.history_max_size); }},
      {"record", "file", "append all access records to this file; not set: none",
       reader(read_string,
              [](Config& c, const std::string& v) {
                c.record_file = v;
                c.engine.sections = false;
              }),
       [](const Config& c) { return c.record_file ? quoted(*c.record_file) : ""; }},
      {"record", "max_size", "size of the file from which on nothing more is written to it",
       reader(size_from(Bytes(kPageSize)), [](Config& c, Bytes v) { c.record_max_size = v; }),
       [](const Config& c) { return size_text(c.record_max_size); }},
  };
  return kRules;
}

/// The keys of the lists; read_target() and read_tier() take them.
const std::vector<ConfigKey>& list_keys() {
  static const std::vector<ConfigKey> kKeys{
      {"target", "pid", "a process id", "", true},
      {"target", "command", "command name as in /proc/PID/comm", "", true},
      {"target", "cgroup", "cgroup v2 path: processes at or below it", "", true},
      {"target", "name", "for people", "the keys above", true},
      {"target", "weight", "share of the fast tier beside the other targets', 1 to 10000", "100",
       true},
      {"target", "floor", "fast memory that it gets first, as far as it uses it", "\"0M\"", true},
      {"target", "ceiling", "fast memory that it never has more of; not set: none", "", true},
      {"target", "per_process", "weight, floor and ceiling are those of each process by itself",
       "false", true},
      {"target", "never_move", "address ranges, such as [\"0x7f00000000-0x7f40000000\"], that stay",
       "[]", true},
      {"target", "keep_fast", "address ranges that are brought to the fast tier and stay there",
       "[]", true},
      {"tier", "name", "for people", "\"tier0\", ...", true},
      {"tier", "nodes", "NUMA nodes, such as [0, 1]; tiers stand fastest first", "", true},
  };
  return kKeys;
}

std::vector<std::string> table_names() {
  std::vector<std::string> names{"target", "tier"};
  for (const KeyRule& rule : rules())
    if (std::find(names.begin(), names.end(), rule.table) == names.end())
      names.push_back(rule.table);
  return names;
}

std::vector<std::string> keys_of(const std::string& table) {
  std::vector<std::string> keys;
  for (const KeyRule& rule : rules())
    if (rule.table == table) keys.push_back(rule.key);
  for (const ConfigKey& key : list_keys())
    if (key.table == table) keys.push_back(key.key);
  return keys;
}

tl::unexpected<Error> unknown(const Place& place, std::string_view what, std::string_view name,
                              const std::string& where, const std::vector<std::string>& valid) {
  const std::string near = nearest_word(name, valid);
  std::string hint = near.empty() ? fmt::format("valid here: {}", fmt::join(valid, ", "))
                                  : fmt::format("did you mean \"{}\"?", near);
  return refuse(place, fmt::format("unknown {} \"{}\"{}; {}", what, name, where, hint));
}

// ---- [[target]] and [[tier]].

/// "0xFIRST-0xEND", addresses as /proc/PID/maps has them.
Result<PageRange> read_range(const toml::node& node) {
  TC_ASSIGN(const std::string text, read_string(node));
  const auto dash = text.find('-');
  const auto address = [&](std::string_view part) -> std::uint64_t {
    if (part.starts_with("0x")) part.remove_prefix(2);
    const auto value = parse_u64(part, 16);
    return value && *value < std::uint64_t{1} << 57 ? *value : 1;  // 1: no page begins there
  };
  const std::uint64_t first = address(std::string_view(text).substr(0, dash));
  const std::uint64_t end =
      dash == std::string::npos ? 1 : address(std::string_view(text).substr(dash + 1));
  if (first % kPageSize != 0 || end % kPageSize != 0 || first >= end)
    return fail(ErrorKind::kUsage,
                "needs address ranges of whole pages, such as [\"0x7f0000000000-0x7f0040000000\"]");
  return PageRange{Vpn::of_address(first), Vpn::of_address(end)};
}

Result<std::vector<PageRange>> read_ranges(const toml::node& node) {
  const toml::array* array = node.as_array();
  if (array == nullptr)
    return fail(ErrorKind::kUsage,
                "needs a list of address ranges, such as [\"0x7f0000000000-0x7f0040000000\"]");
  std::vector<PageRange> ranges;
  for (const toml::node& element : *array) {
    TC_ASSIGN(const PageRange range, read_range(element));
    ranges.push_back(range);
  }
  return ranges;
}

/// A key of [[target]] that is about its share; false: it is none.
Result<bool> read_share_key(std::string_view key, const toml::node& node, TargetShare& share) {
  if (key == "name") {
    TC_ASSIGN(share.limits.name, read_string(node));
  } else if (key == "weight") {
    TC_ASSIGN(const std::uint64_t weight, read_integer(node, 1, 10000));
    share.limits.weight = static_cast<unsigned>(weight);
    share.set = true;
  } else if (key == "floor") {
    TC_ASSIGN(const Bytes size, read_size(node, Bytes(0), kLargestSize));
    share.limits.floor = pages_of(size);
    share.set = true;
  } else if (key == "ceiling") {
    TC_ASSIGN(const Bytes size, read_size(node, Bytes(0), kLargestSize));
    share.limits.ceiling = pages_of(size);
    share.set = true;
  } else if (key == "per_process") {
    TC_ASSIGN(share.per_process, read_bool(node));
  } else if (key == "never_move") {
    TC_ASSIGN(share.never_move, read_ranges(node));
  } else if (key == "keep_fast") {
    TC_ASSIGN(share.keep_fast, read_ranges(node));
  } else {
    return false;
  }
  return true;
}

Status read_target(const std::string& file, const toml::table& table, Config& config) {
  TargetSelector target;
  TargetShare share;
  for (const auto& [key, node] : table) {
    const Place place{file, key.source().begin};
    Status status;
    if (key == "pid") {
      const auto pid = read_integer(node, 1, 1u << 22);
      if (pid) target.pid = Pid(static_cast<std::int32_t>(*pid));
      if (!pid) status = tl::make_unexpected(pid.error());
    } else if (key == "command" || key == "cgroup") {
      const auto text = read_string(node);
      if (!text || text->empty()) {
        status = fail(ErrorKind::kUsage, "needs a text in quotes that is not empty");
      } else if (key == "cgroup" && text->front() != '/') {
        status = fail(ErrorKind::kUsage,
                      "needs a path below the cgroup mount, such as \"/system.slice/db.service\"");
      } else {
        (key == "command" ? target.command : target.cgroup) = *text;
      }
    } else {
      const auto known = read_share_key(key.str(), node, share);
      if (known && !*known)
        return unknown(place, "key", key.str(), " in [[target]]", keys_of("target"));
      if (!known) status = tl::make_unexpected(known.error());
    }
    if (!status)
      return refuse(place, fmt::format("target.{} {}", key.str(), status.error().message));
  }
  if (!target.pid && !target.command && !target.cgroup)
    return refuse({file, table.source().begin},
                  "a [[target]] needs at least one of pid, command, cgroup");
  if (share.limits.floor > share.limits.ceiling)
    return refuse({file, table.source().begin},
                  fmt::format("target.floor is {}, more than target.ceiling, {}",
                              format_bytes(bytes_of(share.limits.floor)),
                              format_bytes(bytes_of(share.limits.ceiling))));
  if (share.limits.name.empty()) share.limits.name = describe(target);
  config.targets.push_back(std::move(target));
  config.shares.push_back(std::move(share));
  return {};
}

Status read_tier(const std::string& file, const toml::table& table, Draft& draft) {
  Config& config = draft.config;
  TierDeclaration tier;
  std::vector<Place> places;
  for (const auto& [key, node] : table) {
    const Place place{file, key.source().begin};
    if (key == "name") {
      const auto text = read_string(node);
      if (!text) return refuse(place, fmt::format("tier.name {}", text.error().message));
      tier.name = *text;
    } else if (key == "nodes") {
      const auto* array = node.as_array();
      if (array == nullptr || array->empty())
        return refuse(place, "tier.nodes needs a list of node numbers, such as [0, 1]");
      for (const toml::node& element : *array) {
        const auto number = read_integer(element, 0, 65534);
        if (!number)
          return refuse({file, element.source().begin},
                        fmt::format("tier.nodes {}", number.error().message));
        tier.nodes.emplace_back(static_cast<std::int32_t>(*number));
        places.push_back({file, element.source().begin});
      }
    } else {
      return unknown(place, "key", key.str(), " in [[tier]]", keys_of("tier"));
    }
  }
  if (tier.nodes.empty())
    return refuse({file, table.source().begin}, "a [[tier]] needs nodes = [..]");
  if (config.tiers.size() >= kMaxTiers)
    return refuse({file, table.source().begin},
                  fmt::format("there may be at most {} tiers", kMaxTiers));
  if (tier.name.empty()) tier.name = fmt::format("tier{}", config.tiers.size());
  config.tiers.push_back(std::move(tier));
  draft.nodes.push_back(std::move(places));
  return {};
}

Status read_policy_options(const std::string& file, const std::string& policy,
                           const toml::table& table, Draft& draft) {
  // Even without an option in it: a policy that does not exist is a mistake.
  auto& options = draft.config.policy_options[policy];
  for (const auto& [key, node] : table) {
    std::string value;
    if (const auto* text = node.as_string()) {
      value = text->get();
    } else if (const auto* number = node.as_integer()) {
      value = fmt::format("{}", number->get());
    } else if (const auto* real = node.as_floating_point()) {
      value = fmt::format("{}", real->get());
    } else if (const auto* flag = node.as_boolean()) {
      value = flag->get() ? "true" : "false";
    } else {
      return refuse({file, key.source().begin},
                    fmt::format("policy.{}.{} needs a single value", policy, key.str()));
    }
    const auto same =
        std::find_if(options.begin(), options.end(),
                     [name = key.str()](const PolicyOption& o) { return o.key == name; });
    if (same != options.end()) options.erase(same);
    options.push_back({std::string(key.str()), std::move(value)});
    draft.keys[fmt::format("policy.{}.{}", policy, key.str())] = {file, key.source().begin};
  }
  return {};
}

Status read_document(const toml::table& document, const std::string& file, Draft& draft) {
  for (const auto& [name, node] : document) {
    const Place place{file, name.source().begin};
    const std::string table_name(name.str());
    if (table_name == "target" || table_name == "tier") {
      const auto* array = node.as_array();
      if (array == nullptr || !array->is_array_of_tables())
        return refuse(place, fmt::format("{0} is a list: write [[{0}]]", table_name));
      for (const toml::node& element : *array)
        TC_TRY(table_name == "target" ? read_target(file, *element.as_table(), draft.config)
                                      : read_tier(file, *element.as_table(), draft));
      continue;
    }
    const std::vector<std::string> keys = keys_of(table_name);
    if (keys.empty()) return unknown(place, "table", table_name, "", table_names());
    const toml::table* table = node.as_table();
    if (table == nullptr)
      return refuse(place, fmt::format("{0} is a table: write [{0}]", table_name));
    for (const auto& [key, value] : *table) {
      const Place key_place{file, key.source().begin};
      draft.keys[fmt::format("{}.{}", table_name, key.str())] = key_place;
      if (table_name == "policy" && value.is_table()) {
        TC_TRY(read_policy_options(file, std::string(key.str()), *value.as_table(), draft));
        continue;
      }
      const std::string_view key_name = key.str();
      const auto rule = std::find_if(rules().begin(), rules().end(), [&](const KeyRule& r) {
        return r.table == table_name && r.key == key_name;
      });
      if (rule == rules().end())
        return unknown(key_place, "key", key.str(), fmt::format(" in [{}]", table_name), keys);
      const Status status = rule->read(value, draft.config);
      if (!status)
        return refuse(key_place,
                      fmt::format("{}.{} {}", table_name, key.str(), status.error().message));
    }
  }
  return {};
}

Status read_text(const std::string& text, const std::string& file, Draft& draft) {
  const auto ascii = ascii_toml(text);
  if (!ascii)
    return refuse({file, {ascii.error().line, ascii.error().column}},
                  "letters beyond ASCII can stand in comment lines only; in a text write them as "
                  "\\uXXXX");
  const toml::parse_result parsed = toml::parse(*ascii, file);
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    return refuse({file, error.source().begin}, std::string(error.description()));
  }
  return read_document(parsed.table(), file, draft);
}

/// The same file, as far as their names tell.
bool same_file(const std::string& a, const std::string& b) {
  namespace fs = std::filesystem;
  std::error_code ec;
  if (fs::equivalent(a, b, ec)) return true;
  const fs::path first = fs::absolute(a, ec).lexically_normal();
  return first == fs::absolute(b, ec).lexically_normal();
}

/// Policies and their options: those of every policy that is named, not only of the chosen one.
Status check_policies(const std::string& file, const Draft& draft) {
  const Config& config = draft.config;
  const auto policies = policies_of(config, {});
  if (!policies) return refuse(draft.place_of("policy.plugin_dir", file), policies.error().message);
  const PolicyRegistry& registry = *policies;
  // What options a plug-in has, only the plug-in knows; it isn't run to check a file.
  const auto is_plugin = [&](const std::string& name) {
    return !is_builtin_policy(name) &&
           std::any_of(registry.factories().begin(), registry.factories().end(),
                       [&](const PolicyFactory& policy) { return policy.name == name; });
  };
  for (const auto& [name, options] : config.policy_options) {
    if (is_plugin(name)) continue;
    const std::string table = "policy." + name;
    const Place place = draft.place_of(table, file);
    if (const auto plain = registry.make(name, {}, config.seed); !plain)
      return refuse(place, fmt::format("[{}]: {}", table, plain.error().message));
    for (const PolicyOption& option : options)
      if (const auto made = registry.make(name, std::span(&option, 1), config.seed); !made)
        return refuse(draft.place_of(table + "." + option.key, file),
                      fmt::format("[{}]: {}", table, made.error().message));
    if (const auto all = registry.make(name, options, config.seed); !all)
      return refuse(place, fmt::format("[{}]: {}", table, all.error().message));
  }
  if (is_plugin(config.policy)) return {};
  if (const auto made = registry.make(config.policy, chosen_policy_options(config), config.seed);
      !made)
    return refuse(draft.place_of("policy.name", file), made.error().message);
  return {};
}

Status check_tiers(const Draft& draft) {
  std::vector<NodeId> seen;
  for (std::size_t t = 0; t < draft.config.tiers.size(); ++t) {
    const std::vector<NodeId>& nodes = draft.config.tiers[t].nodes;
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      if (std::find(seen.begin(), seen.end(), nodes[n]) != seen.end())
        return refuse(draft.nodes[t][n],
                      fmt::format("node {} stands in the [[tier]]s twice", nodes[n].get()));
      seen.push_back(nodes[n]);
    }
  }
  return {};
}

/// What only makes sense together.
Status check_whole(const std::string& file, const Draft& draft) {
  const Config& config = draft.config;
  const auto span = config.engine.window * (config.engine.windows_per_epoch + 1);
  if (!config.engine.window_auto && span > config.engine.epoch)
    return refuse(
        draft.place_of("engine.window", file),
        fmt::format("{} windows of {} do not fit an epoch of {}: make engine.epoch "
                    "longer or engine.window shorter",
                    config.engine.windows_per_epoch, format_duration(config.engine.window),
                    format_duration(config.engine.epoch)));
  if (config.history_file && config.record_file &&
      same_file(*config.history_file, *config.record_file))
    return refuse(draft.place_of("record.file", file),
                  "record.file and history.file name the same file");
  TC_TRY(check_tiers(draft));
  return check_policies(file, draft);
}

Result<std::string> read_whole_file(const std::string& path) {
  auto text = make_real_system()->read_file(path);
  if (text) return text;
  switch (text.error().errno_value) {
    case ENOENT:
      return fail(ErrorKind::kNotFound,
                  "there is no configuration file {}: write it (thermoclined.toml(5) has an "
                  "example), or name another one",
                  path);
    case EISDIR:
      return fail(ErrorKind::kUsage, "{} is a directory, not a configuration file", path);
    default:
      return text;
  }
}

/// Files in `dir` that end in .toml, by name. No such folder means none; anything else that keeps
/// them from being read is an error, because they would be missed in silence.
Result<std::vector<std::string>> find_drop_ins(const std::string& dir) {
  std::vector<std::string> drop_ins;
  std::error_code error;
  std::filesystem::directory_iterator entry(dir, error);
  if (error == std::errc::no_such_file_or_directory) return drop_ins;
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error))
    if (entry->path().extension() == ".toml") drop_ins.push_back(entry->path().string());
  if (error) return fail_errno(error.value(), "can't list " + dir);
  std::sort(drop_ins.begin(), drop_ins.end());
  return drop_ins;
}

}  // namespace

const std::vector<ConfigKey>& config_keys() {
  static const std::vector<ConfigKey> kKeys = [] {
    std::vector<ConfigKey> keys;
    const Config defaults;
    for (const KeyRule& rule : rules())
      keys.push_back({rule.table, rule.key, rule.help, rule.write(defaults)});
    PolicyRegistry registry;
    register_builtin_policies(registry);
    for (const PolicyFactory& policy : registry.factories())
      for (const PolicyOptionHelp& option : policy.option_help)
        keys.push_back({"policy." + policy.name, option.key, option.meaning, option.default_text});
    keys.insert(keys.end(), list_keys().begin(), list_keys().end());
    return keys;
  }();
  return kKeys;
}

Result<Config> parse_config(const std::string& text, const std::string& name) {
  Draft draft;
  TC_TRY(read_text(text, name, draft));
  TC_TRY(check_whole(name, draft));
  return std::move(draft.config);
}

Status require_targets(const Config& config, const std::string& name) {
  if (!config.targets.empty()) return {};
  return fail(ErrorKind::kUsage,
              "{}: no [[target]]: say whose memory to look after, by pid, command or cgroup", name);
}

Result<Config> load_config(const std::string& path) {
  Draft draft;
  TC_ASSIGN(const auto text, read_whole_file(path));
  TC_TRY(read_text(text, path, draft));
  TC_ASSIGN(const auto drop_ins, find_drop_ins(path + ".d"));
  for (const std::string& drop_in : drop_ins) {
    TC_ASSIGN(const auto more, read_whole_file(drop_in));
    TC_TRY(read_text(more, drop_in, draft));
  }
  TC_TRY(check_whole(path, draft));
  return std::move(draft.config);
}

std::vector<PolicyOption> chosen_policy_options(const Config& config) {
  const auto options = config.policy_options.find(config.policy);
  return options == config.policy_options.end() ? std::vector<PolicyOption>{} : options->second;
}

Result<PolicyRegistry> policies_of(const Config& config, const PluginOptions& plugins) {
  PolicyRegistry registry;
  register_builtin_policies(registry);
  if (!config.plugin_dir.empty()) TC_TRY(register_plugins(registry, config.plugin_dir, plugins));
  return registry;
}

bool is_builtin_policy(const std::string& name) {
  PolicyRegistry registry;
  register_builtin_policies(registry);
  return std::any_of(registry.factories().begin(), registry.factories().end(),
                     [&](const PolicyFactory& policy) { return policy.name == name; });
}

bool same_policy(const Config& a, const Config& b) {
  const auto options = [](const Config& config) {
    std::map<std::string, std::string> by_key;
    for (const PolicyOption& option : chosen_policy_options(config))
      by_key[option.key] = option.value;
    return by_key;
  };
  return a.policy == b.policy && a.seed == b.seed && options(a) == options(b);
}

namespace {

/// What was given of it.
std::string share_to_toml(const TargetShare& share, const std::string& default_name) {
  std::string text;
  const TenantLimits& limits = share.limits;
  if (limits.name != default_name) text += fmt::format("name = {}\n", quoted(limits.name));
  if (share.set) text += fmt::format("weight = {}\n", limits.weight);
  if (share.set) text += fmt::format("floor = {}\n", size_text(bytes_of(limits.floor)));
  if (limits.ceiling != TenantLimits{}.ceiling)
    text += fmt::format("ceiling = {}\n", size_text(bytes_of(limits.ceiling)));
  if (share.per_process) text += "per_process = true\n";
  for (const auto& [key, ranges] :
       {std::pair("never_move", &share.never_move), std::pair("keep_fast", &share.keep_fast)}) {
    std::vector<std::string> texts;
    for (const PageRange& range : *ranges)
      texts.push_back(fmt::format("\"{:#x}-{:#x}\"", range.first.address(), range.end.address()));
    if (!texts.empty()) text += fmt::format("{} = [{}]\n", key, fmt::join(texts, ", "));
  }
  return text;
}

}  // namespace

std::string config_to_toml(const Config& config) {
  std::string text;
  std::string table;
  const auto close_policy = [&] {
    if (table != "policy") return;
    for (const auto& [name, options] : config.policy_options) {
      text += fmt::format("\n[policy.{}]\n", name);
      for (const PolicyOption& option : options)
        text += fmt::format("{} = {}\n", option.key, quoted(option.value));
    }
  };
  for (const KeyRule& rule : rules()) {
    const std::string value = rule.write(config);
    if (value.empty()) continue;
    if (rule.table != table) {
      close_policy();
      table = rule.table;
      text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", table);
    }
    text += fmt::format("{} = {}\n", rule.key, value);
  }
  for (std::size_t i = 0; i < config.targets.size(); ++i) {
    const TargetSelector& target = config.targets[i];
    text += "\n[[target]]\n";
    if (target.pid) text += fmt::format("pid = {}\n", target.pid->get());
    if (target.command) text += fmt::format("command = {}\n", quoted(*target.command));
    if (target.cgroup) text += fmt::format("cgroup = {}\n", quoted(*target.cgroup));
    text += share_to_toml(config.shares[i], describe(target));
  }
  for (const TierDeclaration& tier : config.tiers) {
    std::vector<std::int32_t> nodes;
    for (const NodeId node : tier.nodes) nodes.push_back(node.get());
    text += fmt::format("\n[[tier]]\nname = {}\nnodes = [{}]\n", quoted(tier.name),
                        fmt::join(nodes, ", "));
  }
  return text;
}

}  // namespace thermocline
