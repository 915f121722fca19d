// SPDX-License-Identifier: Apache-2.0
#include "emulation/timing/model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include "base/text.h"

namespace thermocline::timing {

namespace {

template <class... Args>
tl::unexpected<Error> refuse(const std::string& file, unsigned line,
                             fmt::format_string<Args...> format, Args&&... args) {
  return fail(ErrorKind::kUsage, "{}:{}: {}", file, line,
              fmt::format(format, std::forward<Args>(args)...));
}

/// A number of at most six decimals and its unit: {"0.4", "ns"}.
Result<double> number_with(std::string_view text,
                           std::initializer_list<std::pair<std::string_view, double>> units) {
  std::size_t end = 0;
  bool point = false;
  while (end < text.size() &&
         ((text[end] >= '0' && text[end] <= '9') || (text[end] == '.' && !point)))
    point = text[end++] == '.' || point;
  const std::string digits(text.substr(0, end));
  for (const auto& [unit, factor] : units)
    if (trim(text.substr(end)) == unit && !digits.empty() && digits.front() != '.' &&
        digits.back() != '.' && digits.size() <= 12)
      return std::strtod(digits.c_str(), nullptr) * factor;
  return fail(ErrorKind::kUsage, "'{}' is not a number with a unit", text);
}

// ---- Values of the file: each reader says what it wants.

Result<std::string> read_text(const toml::node& node) {
  if (const auto* value = node.as_string()) return value->get();
  return fail(ErrorKind::kUsage, "needs a text in quotes");
}

std::string shown(const toml::node& node) {
  if (const auto* value = node.as_string()) return fmt::format(" (it is \"{}\")", value->get());
  if (const auto* value = node.as_integer()) return fmt::format(" (it is {})", value->get());
  if (const auto* value = node.as_floating_point()) return fmt::format(" (it is {})", value->get());
  return "";
}

Result<Picoseconds> read_time(const toml::node& node, Picoseconds low, Picoseconds high) {
  const auto text = read_text(node);
  const auto time = text ? parse_time(*text) : Result<Picoseconds>(tl::unexpect, text.error());
  if (!time || *time < low || *time > high)
    return fail(ErrorKind::kUsage,
                "needs a time with its unit from \"{:g}ns\" to \"{:g}ns\", such as \"{}\"{}",
                static_cast<double>(low.get()) / 1000, static_cast<double>(high.get()) / 1000,
                high.get() > 250'000 ? "250ns" : "0.4ns", shown(node));
  return *time;
}

Result<MegabytesPerSecond> read_bandwidth(const toml::node& node, MegabytesPerSecond low) {
  const auto text = read_text(node);
  const auto rate =
      text ? parse_bandwidth(*text) : Result<MegabytesPerSecond>(tl::unexpect, text.error());
  if (!rate || *rate < low || rate->get() > 10'000'000)
    return fail(ErrorKind::kUsage,
                "needs a bandwidth with its unit from \"{}MB/s\" to \"10000GB/s\", such as "
                "\"25GB/s\"{}",
                low.get(), shown(node));
  return *rate;
}

Result<unsigned> read_number(const toml::node& node, unsigned low, unsigned high) {
  const auto* value = node.as_integer();
  if (value == nullptr || value->get() < low || value->get() > high)
    return fail(ErrorKind::kUsage, "needs a whole number from {} to {}{}", low, high, shown(node));
  return static_cast<unsigned>(value->get());
}

Result<double> read_share(const toml::node& node) {
  double value = 0;
  if (const auto* real = node.as_floating_point()) value = real->get();
  if (const auto* whole = node.as_integer()) value = static_cast<double>(whole->get());
  if (!(value >= 0.001 && value <= 1))
    return fail(ErrorKind::kUsage, "needs a number from 0.001 to 1{}", shown(node));
  return value;
}

Result<Bytes> read_size(const toml::node& node) {
  const auto text = read_text(node);
  const auto size = text ? parse_bytes(*text) : Result<Bytes>(tl::unexpect, text.error());
  if (!size || size->get() < 4096 || size->get() > std::uint64_t{1} << 30)
    return fail(ErrorKind::kUsage, "needs a size from 4K to 1G, such as \"512K\"{}", shown(node));
  return *size;
}

/// "0x40000000-0x7fffffff": first and last byte, whole pages.
Result<std::pair<std::uint64_t, std::uint64_t>> read_range(const toml::node& node) {
  const auto text = read_text(node);
  if (text) {
    const auto parts = split(*text, '-');
    std::vector<std::uint64_t> numbers;
    for (const std::string_view part : parts)
      if (const auto number = part.starts_with("0x") ? parse_u64(part.substr(2), 16)
                                                     : Result<std::uint64_t>(tl::unexpect, Error{}))
        numbers.push_back(*number);
    if (parts.size() == 2 && numbers.size() == 2 && numbers[0] < numbers[1] &&
        numbers[0] % kPageSize == 0 && (numbers[1] + 1) % kPageSize == 0 &&
        numbers[1] < std::uint64_t{1} << 52)
      return std::pair(numbers[0], numbers[1]);
  }
  return fail(ErrorKind::kUsage,
              "needs the first and the last byte of whole pages, such as "
              "\"0x40000000-0x7fffffff\"{}",
              shown(node));
}

constexpr Picoseconds kMostTime{100'000'000};

auto time_from(Picoseconds low) {
  return [low](const toml::node& node) { return read_time(node, low, kMostTime); };
}
auto number_in(unsigned low, unsigned high) {
  return [low, high](const toml::node& node) { return read_number(node, low, high); };
}

/// One key of a table and where its value goes.
template <class Into>
struct Key {
  std::string_view name;
  std::function<Status(const toml::node&, Into&)> read;
  bool required = false;
};

template <class Into, class Reader, class Member>
Key<Into> key(std::string_view name, Reader reader, Member member, bool required = false) {
  return {name,
          [reader, member](const toml::node& node, Into& into) -> Status {
            auto value = reader(node);
            if (!value) return tl::make_unexpected(value.error());
            into.*member = *value;
            return {};
          },
          required};
}

unsigned line_of(const toml::source_region& source) {
  return source.begin.line;
}

template <class Into>
Status read_table(const std::string& file, const std::string& name, const toml::table& table,
                  unsigned line, const std::vector<Key<Into>>& keys, Into& into) {
  for (const auto& [found, node] : table) {
    const std::string_view text = found.str();
    const auto known =
        std::find_if(keys.begin(), keys.end(), [&](const Key<Into>& k) { return k.name == text; });
    if (known == keys.end()) {
      std::vector<std::string> names;
      for (const Key<Into>& k : keys) names.emplace_back(k.name);
      const std::string near = nearest_word(text, names);
      return refuse(file, line_of(found.source()), "there is no key {} in {}{}", text, name,
                    near.empty() ? fmt::format("; its keys are {}", fmt::join(names, ", "))
                                 : fmt::format("; did you mean {}?", near));
    }
    const Status read = known->read(node, into);
    if (!read)
      return refuse(file, line_of(found.source()), "{} in {} {}", text, name, read.error().message);
  }
  for (const Key<Into>& k : keys)
    if (k.required && !table.contains(k.name))
      return refuse(file, line, "{} lacks its {}", name, k.name);
  return {};
}

const std::vector<Key<CacheModel>>& cache_keys() {
  static const std::vector<Key<CacheModel>> kKeys{
      key<CacheModel>("size", read_size, &CacheModel::size, true),
      key<CacheModel>("ways", number_in(1, 64), &CacheModel::ways, true),
      key<CacheModel>("latency", time_from(Picoseconds(0)), &CacheModel::latency, true),
  };
  return kKeys;
}

Status read_cache(const std::string& file, const std::string& name, const toml::table& table,
                  unsigned line, CacheModel& cache) {
  TC_TRY(read_table(file, name, table, line, cache_keys(), cache));
  const std::uint64_t way = std::uint64_t{cache.ways} * 64;
  const std::uint64_t sets = cache.size.get() / way;
  if (sets * way != cache.size.get() || (sets & (sets - 1)) != 0)
    return refuse(file, line,
                  "{} needs a size that is its ways times 64 bytes times a power of two", name);
  return {};
}

Status read_from(const toml::node& node, NodeModel& into) {
  const toml::table* table = node.as_table();
  if (table == nullptr)
    return fail(ErrorKind::kUsage,
                "needs latencies by node of the CPU, such as {{ 1 = \"140ns\" }}");
  for (const auto& [key, value] : *table) {
    const std::string_view cpu_node = key.str();
    const auto number = parse_u64(cpu_node);
    if (cpu_node != "own" && cpu_node != "rest" && (!number || *number > 63))
      return fail(ErrorKind::kUsage, "needs node numbers of CPUs, own or rest as keys, not '{}'",
                  cpu_node);
    TC_ASSIGN(const Picoseconds time, read_time(value, Picoseconds(1000), kMostTime));
    if (cpu_node == "own")
      into.latency_own = time;
    else if (cpu_node == "rest")
      into.latency_rest = time;
    else
      into.latency_from[NodeId(static_cast<std::int32_t>(*number))] = time;
  }
  return {};
}

Status read_node_number(const toml::node& node, NodeModel& into) {
  const auto* text = node.as_string();
  if (text != nullptr && text->get() == "rest") return {};
  const auto number = read_number(node, 0, 63);
  if (!number) return fail(ErrorKind::kUsage, "{}, or \"rest\"", number.error().message);
  into.node = NodeId(static_cast<std::int32_t>(*number));
  return {};
}

Status read_node(const std::string& file, const toml::table& table, Model& model) {
  static const std::vector<Key<NodeModel>> kKeys{
      {"node", read_node_number, true},
      key<NodeModel>("latency", time_from(Picoseconds(1000)), &NodeModel::latency, true),
      {"from", read_from},
      key<NodeModel>(
          "bandwidth",
          [](const toml::node& n) { return read_bandwidth(n, MegabytesPerSecond(13)); },
          &NodeModel::bandwidth, true),
      key<NodeModel>(
          "background",
          [](const toml::node& n) { return read_bandwidth(n, MegabytesPerSecond(0)); },
          &NodeModel::background),
      key<NodeModel>("share", read_share, &NodeModel::share),
      key<NodeModel>("queue", time_from(Picoseconds(0)), &NodeModel::queue),
      key<NodeModel>("range", read_range, &NodeModel::range),
  };
  NodeModel node;
  node.line = line_of(table.source());
  TC_TRY(read_table(file, "[[node]]", table, node.line, kKeys, node));
  if (node.background.get() * 100 > node.bandwidth.get() * 98)
    return refuse(file, node.line,
                  "the background of this [[node]] leaves nothing of its bandwidth: at most 98 %");
  constexpr double kLeast = 64 / 5.0;  // MB/s: a line each 5 us
  if (static_cast<double>(node.bandwidth.get() - node.background.get()) * node.share < kLeast)
    return refuse(file, node.line,
                  "(bandwidth - background) * share of this [[node]] gives this guest less than "
                  "13 MB/s");
  if (node.range && !node.node)
    return refuse(file, node.line, "a range belongs to one node: give its number, not \"rest\"");
  for (const NodeModel& other : model.nodes)
    if (other.node == node.node && !(node.range && other.range))
      return refuse(file, node.line, "{} is described already in line {}",
                    node.node ? fmt::format("node {}", node.node->get()) : "\"rest\"", other.line);
  model.nodes.push_back(std::move(node));
  return {};
}

Status read_document(const toml::table& document, const std::string& file, Model& model) {
  static const std::vector<Key<Model>> kCoreKeys{
      key<Model>(
          "instruction",
          [](const toml::node& n) { return read_time(n, Picoseconds(10), Picoseconds(1000)); },
          &Model::instruction),
      key<Model>("window", number_in(1, 4096), &Model::window),
      key<Model>("in_flight", number_in(1, 32), &Model::in_flight),
      key<Model>("prefetch", number_in(0, 64), &Model::prefetch),
      key<Model>("pause", time_from(Picoseconds(0)), &Model::pause),
      key<Model>("counter", time_from(Picoseconds(0)), &Model::counter),
  };
  static const std::vector<Key<Model>> kTlbKeys{
      key<Model>("entries", number_in(16, 65536), &Model::tlb_entries),
      key<Model>("ways", number_in(1, 64), &Model::tlb_ways),
      key<Model>("walk", time_from(Picoseconds(0)), &Model::walk),
  };
  static const std::vector<std::string> kNames{"name", "source", "core", "l2",
                                               "llc",  "tlb",    "node"};
  for (const auto& [found, node] : document) {
    const unsigned line = line_of(found.source());
    const std::string name(found.str());
    if (name == "name" || name == "source") {
      const auto text = read_text(node);
      if (!text) return refuse(file, line, "{} {}", name, text.error().message);
      (name == "name" ? model.name : model.source) = *text;
      continue;
    }
    if (name == "node") {
      const toml::array* array = node.as_array();
      if (array == nullptr || !array->is_array_of_tables())
        return refuse(file, line, "node is a list: write [[node]]");
      for (const toml::node& element : *array) TC_TRY(read_node(file, *element.as_table(), model));
      continue;
    }
    if (std::find(kNames.begin(), kNames.end(), name) == kNames.end()) {
      const std::string near = nearest_word(name, kNames);
      return refuse(file, line, "there is no {} in a timing model{}", name,
                    near.empty() ? fmt::format("; it has {}", fmt::join(kNames, ", "))
                                 : fmt::format("; did you mean {}?", near));
    }
    const toml::table* table = node.as_table();
    if (table == nullptr) return refuse(file, line, "{0} is a table: write [{0}]", name);
    const std::string shown_name = "[" + name + "]";
    if (name == "core") TC_TRY(read_table(file, shown_name, *table, line, kCoreKeys, model));
    if (name == "tlb") TC_TRY(read_table(file, shown_name, *table, line, kTlbKeys, model));
    if (name == "l2") TC_TRY(read_cache(file, shown_name, *table, line, model.l2));
    if (name == "llc") TC_TRY(read_cache(file, shown_name, *table, line, model.llc));
    const unsigned sets = model.tlb_entries / model.tlb_ways;
    if (name == "tlb" && (sets * model.tlb_ways != model.tlb_entries || (sets & (sets - 1)) != 0))
      return refuse(file, line, "[tlb] needs entries that are its ways times a power of two");
  }
  if (model.nodes.empty())
    return refuse(file, 1,
                  "the model describes no memory: give a [[node]] with node, latency and "
                  "bandwidth");
  return {};
}

struct Piece {
  std::uint64_t start, end;  ///< end: one past the last byte
  std::size_t tier;
};

/// Pieces in order, apart from each other; the error names both lines.
Status check_overlap(const Model& model, std::vector<Piece>& pieces) {
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.start < b.start; });
  for (std::size_t i = 1; i < pieces.size(); ++i) {
    const Piece& a = pieces[i - 1];
    const Piece& b = pieces[i];
    if (b.start >= a.end) continue;
    const unsigned first = model.nodes[a.tier].line;
    const unsigned second = model.nodes[b.tier].line;
    return refuse(model.file, std::max(first, second),
                  "this [[node]]'s range overlaps that of the [[node]] in line {} (at {:#x})",
                  std::min(first, second), b.start);
  }
  return {};
}

/// A range of the file lies in its node's memory, and no memory is left without a price. `pieces`
/// are in order.
Status check_cover(const Model& model, const GuestMemory& memory,
                   const std::vector<Piece>& pieces) {
  for (const Piece& piece : pieces) {
    const NodeModel& entry = model.nodes[piece.tier];
    if (!entry.range) continue;
    std::uint64_t inside = 0;
    std::vector<std::string> places;
    for (const auto& range : memory.ranges) {
      if (range.node != *entry.node) continue;
      const std::uint64_t end = range.start + range.size.get();
      const std::uint64_t low = std::max(range.start, piece.start);
      const std::uint64_t high = std::min(end, piece.end);
      if (low < high) inside += high - low;
      places.push_back(fmt::format("{:#x}-{:#x}", range.start, end - 1));
    }
    if (inside != piece.end - piece.start)
      return refuse(model.file, entry.line,
                    "this [[node]]'s range is not within the guest's memory of node {}: {}",
                    entry.node->get(), fmt::join(places, " and "));
  }
  for (const auto& range : memory.ranges) {
    const std::uint64_t end = range.start + range.size.get();
    std::uint64_t known = range.start;
    for (const Piece& piece : pieces)
      if (piece.start <= known && piece.end > known) known = piece.end;
    if (known >= end) continue;
    std::uint64_t next = end;
    for (const Piece& piece : pieces)
      if (piece.start > known) next = std::min(next, piece.start);
    return refuse(model.file, model_of(model, range.node)->line,
                  "the ranges of node {} leave out {:#x}-{:#x} of the guest's memory: give it a "
                  "[[node]] as well",
                  range.node.get(), known, next - 1);
  }
  return {};
}

}  // namespace

Result<Picoseconds> parse_time(std::string_view text) {
  TC_ASSIGN(const double ps, number_with(text, {{"ps", 1}, {"ns", 1e3}, {"us", 1e6}, {"ms", 1e9}}));
  if (ps > 1e15) return fail(ErrorKind::kUsage, "'{}' is too long a time", text);
  return Picoseconds(static_cast<std::uint64_t>(std::llround(ps)));
}

Result<MegabytesPerSecond> parse_bandwidth(std::string_view text) {
  TC_ASSIGN(const double rate, number_with(text, {{"MB/s", 1}, {"GB/s", 1e3}, {"TB/s", 1e6}}));
  if (rate > 1e12) return fail(ErrorKind::kUsage, "'{}' is too high a bandwidth", text);
  return MegabytesPerSecond(static_cast<std::uint64_t>(std::llround(rate)));
}

Result<Mode> parse_mode(std::string_view text) {
  for (const Mode mode : {Mode::kReference, Mode::kParallel, Mode::kReport})
    if (text == mode_name(mode)) return mode;
  return fail(ErrorKind::kUsage, "'{}' is no timing mode; use reference, parallel or report", text);
}

std::string_view mode_name(Mode mode) {
  switch (mode) {
    case Mode::kReference:
      return "reference";
    case Mode::kParallel:
      return "parallel";
    case Mode::kReport:
      break;
  }
  return "report";
}

Result<Model> parse_model(const std::string& text, const std::string& file) {
  if (text.find('\0') != text.npos) return refuse(file, 1, "this is not a text file");
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  const auto ascii = ascii_toml(
      std::string_view(text).substr(text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0));
  if (!ascii)
    return refuse(file, ascii.error().line,
                  "letters beyond ASCII can stand in comment lines only; in a text write them as "
                  "\\uXXXX");
  const toml::parse_result parsed = toml::parse(*ascii, file);
  if (!parsed)
    return refuse(file, line_of(parsed.error().source()), "{}", parsed.error().description());
  Model model;
  model.file = file;
  TC_TRY(read_document(parsed.table(), file, model));
  if (model.name.empty()) model.name = std::filesystem::path(file).stem().string();
  // What overlaps within the file does so in every guest.
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < model.nodes.size(); ++i)
    if (const auto& range = model.nodes[i].range)
      pieces.push_back({range->first, range->second + 1, i});
  TC_TRY(check_overlap(model, pieces));
  return model;
}

Result<Model> load_model(const std::string& text) {
  if (const std::string_view preset = preset_text(text); !preset.empty())
    return parse_model(std::string(preset), text + ".toml");
  std::error_code ec;
  if (std::filesystem::is_directory(text, ec))
    return fail(ErrorKind::kUsage, "{} is a directory; a timing model is a file", text);
  if (!std::filesystem::is_regular_file(text, ec)) {
    const std::string near = nearest_word(text, preset_names());
    return fail(ErrorKind::kUsage, "'{}' is neither a timing preset nor a file; presets are {}{}",
                text, fmt::join(preset_names(), ", "),
                near.empty() ? "" : fmt::format("; did you mean {}?", near));
  }
  std::ifstream in(text, std::ios::binary);
  std::ostringstream content;
  content << in.rdbuf();
  if (!in) return fail_errno(errno, "can't read " + text);
  return parse_model(content.str(), text);
}

Picoseconds latency_between(const NodeModel& entry, NodeId memory, NodeId cpu) {
  if (const auto from = entry.latency_from.find(cpu); from != entry.latency_from.end())
    return from->second;
  return (cpu == memory ? entry.latency_own : entry.latency_rest).value_or(entry.latency);
}

const NodeModel* model_of(const Model& model, NodeId node) {
  const NodeModel* rest = nullptr;
  for (const NodeModel& entry : model.nodes) {
    if (entry.node == node) return &entry;
    if (!entry.node) rest = &entry;
  }
  return rest;
}

Result<std::string> make_plan(const Model& model, const GuestMemory& memory, Mode mode,
                              const TruthOptions& truth) {
  std::int32_t highest = 0;
  for (const auto& range : memory.ranges) highest = std::max(highest, range.node.get());
  for (const NodeId node : memory.cpu_node) highest = std::max(highest, node.get());
  const auto has = [&](NodeId node) {
    return std::any_of(memory.ranges.begin(), memory.ranges.end(),
                       [&](const auto& range) { return range.node == node; });
  };
  for (const NodeModel& entry : model.nodes)
    if (entry.node && !has(*entry.node))
      return refuse(model.file, entry.line,
                    "this [[node]] is for node {}, but the guest has memory on {} only",
                    entry.node->get(), [&] {
                      std::vector<std::string> names;
                      for (std::int32_t n = 0; n <= highest; ++n)
                        if (has(NodeId(n))) names.push_back(fmt::format("node {}", n));
                      return fmt::format("{}", fmt::join(names, " and "));
                    }());

  for (const NodeModel& entry : model.nodes)
    for (const auto& [from, latency] : entry.latency_from)
      if (std::find(memory.cpu_node.begin(), memory.cpu_node.end(), from) == memory.cpu_node.end())
        return refuse(model.file, entry.line,
                      "from in this [[node]] is for CPUs of node {}, but the guest has none there",
                      from.get());

  // A tier of the plan is a node of the guest with the model that describes it.
  struct Tier {
    NodeId node;
    const NodeModel* model;
  };
  std::vector<Tier> tiers;
  std::vector<Piece> pieces;
  std::vector<std::size_t> tier_of_piece;
  std::string lines;
  const auto tier_number = [&](NodeId node, const NodeModel* entry) {
    for (std::size_t t = 0; t < tiers.size(); ++t)
      if (tiers[t].node == node && tiers[t].model == entry) return t;
    tiers.push_back({node, entry});
    return tiers.size() - 1;
  };
  struct Placed {
    std::uint64_t start, size;
    std::size_t tier;
  };
  std::vector<Placed> placed;
  for (const NodeModel& entry : model.nodes)
    if (entry.range) {
      const std::size_t index = static_cast<std::size_t>(&entry - model.nodes.data());
      pieces.push_back({entry.range->first, entry.range->second + 1, index});
      placed.push_back({entry.range->first, entry.range->second - entry.range->first + 1,
                        tier_number(*entry.node, &entry)});
    }
  for (const auto& range : memory.ranges) {
    const NodeModel* entry = model_of(model, range.node);
    if (entry == nullptr)
      return refuse(model.file, 1,
                    "the guest has node {}, which the model leaves out: give it a [[node]], or one "
                    "with node = \"rest\"",
                    range.node.get());
    if (entry->range) continue;  // the file says where
    pieces.push_back({range.start, range.start + range.size.get(),
                      static_cast<std::size_t>(entry - model.nodes.data())});
    placed.push_back({range.start, range.size.get(), tier_number(range.node, entry)});
  }
  TC_TRY(check_overlap(model, pieces));
  TC_TRY(check_cover(model, memory, pieces));
  std::sort(placed.begin(), placed.end(),
            [](const Placed& a, const Placed& b) { return a.start < b.start; });

  std::string plan = fmt::format("thermocline-plan 1\nmode {}\n", mode_name(mode));
  plan += fmt::format("core {} {} {} {} {} {}\n", model.instruction.get(), model.window,
                      model.in_flight, model.pause.get(), model.counter.get(), model.prefetch);
  for (const auto& [name, cache] : {std::pair("l2", model.l2), std::pair("llc", model.llc)})
    plan += fmt::format("{} {} {} {}\n", name, cache.size.get(), cache.ways, cache.latency.get());
  plan += fmt::format("tlb {} {} {}\n", model.tlb_entries, model.tlb_ways, model.walk.get());
  for (const Tier& tier : tiers) {
    const NodeModel& m = *tier.model;
    plan += fmt::format("tier {} {} {} {} {}", tier.node.get(), m.bandwidth.get(),
                        m.background.get(), std::llround(m.share * 1e6), m.queue.get());
    for (std::int32_t n = 0; n <= highest; ++n)
      plan += fmt::format(" {}", latency_between(m, tier.node, NodeId(n)).get());
    plan += '\n';
  }
  for (const Placed& p : placed) plan += fmt::format("range {} {} {}\n", p.start, p.size, p.tier);
  plan += "cpus";
  for (const NodeId node : memory.cpu_node) plan += fmt::format(" {}", node.get());
  plan += '\n';
  if (!truth.file.empty())
    plan += fmt::format("truth {} {} {}\n", truth.slice.count(), truth.pages, truth.file);
  return plan;
}

}  // namespace thermocline::timing
