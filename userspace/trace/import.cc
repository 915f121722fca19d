// SPDX-License-Identifier: Apache-2.0
#include "trace/import.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "tracking/process.h"
#include "tracking/record.h"

namespace thermocline::trace {

namespace {

constexpr std::uint64_t kBlock = 512;
constexpr std::uint64_t kUserEnd = std::uint64_t{1} << 56;  // of x86-64 with five levels
/// Entries of one of DAMON's records.
constexpr std::uint64_t kRegionEntries = 32768;
constexpr std::int64_t kMaxPid = 1 << 22;

/// "12.345" of a unit of `unit_ns` nanoseconds, exactly; no sign, no exponent.
std::optional<Nanoseconds> parse_time(std::string_view text, std::int64_t unit_ns) {
  const auto dot = text.find('.');
  const auto whole = parse_u64(text.substr(0, dot));
  const auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max() / unit_ns);
  if (!whole || *whole >= most) return std::nullopt;
  std::int64_t ns = static_cast<std::int64_t>(*whole) * unit_ns;
  if (dot == std::string_view::npos) return Nanoseconds(ns);
  std::string_view digits = text.substr(dot + 1);
  if (digits.empty() || digits.size() > 18) return std::nullopt;
  for (std::int64_t scale = unit_ns; !digits.empty(); digits.remove_prefix(1)) {
    if (digits[0] < '0' || digits[0] > '9') return std::nullopt;
    scale /= 10;
    ns += (digits[0] - '0') * scale;
  }
  return Nanoseconds(ns);
}

std::optional<std::uint64_t> parse_hex(std::string_view text) {
  if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
  const auto value = parse_u64(text, 16);
  return value ? std::optional(*value) : std::nullopt;
}

/// Times as damo prints them: "104.599 ms", "8 m 59.809 s", or nanoseconds.
std::optional<Nanoseconds> parse_damo_time(std::string_view text) {
  const auto parts = words(text);
  if (parts.size() == 1) return parse_time(parts[0], 1);
  constexpr std::array<std::pair<std::string_view, std::int64_t>, 6> kUnits{
      {{"ns", 1},
       {"us", 1'000},
       {"ms", 1'000'000},
       {"s", 1'000'000'000},
       {"m", 60'000'000'000},
       {"h", 3'600'000'000'000}}};
  Nanoseconds sum{};
  if (parts.empty() || parts.size() % 2 != 0 || parts.size() > 12) return std::nullopt;
  for (std::size_t i = 0; i < parts.size(); i += 2) {
    const auto unit = std::find_if(kUnits.begin(), kUnits.end(),
                                   [&](const auto& u) { return u.first == parts[i + 1]; });
    if (unit == kUnits.end()) return std::nullopt;
    const auto part = parse_time(parts[i], unit->second);
    if (!part || *part > Nanoseconds::max() / 16) return std::nullopt;
    sum += *part;
  }
  return sum;
}

struct Sample {
  Nanoseconds time{};
  std::uint64_t address = 0;
  std::int32_t pid = 1;
  std::string_view command = "imported";
  bool write = false;
};

/// Where an importer is, for messages.
struct Place {
  const std::string& name;
  std::uint64_t line = 0;

  template <class... Args>
  [[nodiscard]] tl::unexpected<Error> fail_here(fmt::format_string<Args...> format,
                                                Args&&... args) const {
    return fail(ErrorKind::kCorrupt, "{}:{}: {}", name, line,
                fmt::format(format, std::forward<Args>(args)...));
  }
};

/// Gathers samples and tells them window by window.
class Windows {
 public:
  Windows(const ImportOptions& options, const ImportSink& sink, ImportCounts& counts)
      : options_(options), sink_(sink), counts_(counts) {}

  Status add(const Sample& sample, const Place& place) {
    if (!begun_) {
      begun_ = true;
      start_ = sample.time;
    }
    if (sample.time < start_ + options_.window * window_)
      return place.fail_here("the time goes back: sort the lines by time");
    const auto window = (sample.time - start_) / options_.window;
    if (static_cast<std::uint64_t>(window) >= options_.max_windows)
      return place.fail_here(
          "at {} after the first line there would be more than {} windows of "
          "{}: give a longer --window",
          format_duration(sample.time - start_), options_.max_windows,
          format_duration(options_.window));
    while (window_ < window) tell();
    Space& space = spaces_[sample.pid];
    if (space.blocks.empty()) {
      space.asid = make_asid(Pid(sample.pid), 1, 0);
      sink_.process({space.asid, Pid(sample.pid), printable(sample.command), {}});
    }
    const std::uint64_t page = sample.address >> kPageShift;
    auto [block, is_new] = space.blocks.try_emplace(page / kBlock);
    if (is_new && ++blocks_ * kBlock > options_.max_pages.get())
      return place.fail_here("samples in more than {} of address space: import fewer processes",
                             format_bytes(bytes_of(options_.max_pages)));
    const std::size_t word = page % kBlock / 64;
    const std::uint64_t bit = std::uint64_t{1} << (page % 64);
    block->second.present[word] |= bit;
    block->second.accessed[word] |= bit;
    if (sample.write) block->second.dirty[word] |= bit;
    ++counts_.samples;
    return {};
  }

  void finish() {
    if (begun_) tell();
  }

 private:
  using Words = std::array<std::uint64_t, kBlock / 64>;
  struct Block {
    Words present{}, accessed{}, dirty{};
  };
  struct Space {
    Asid asid;
    std::map<std::uint64_t, Block> blocks;
    std::uint64_t sequence = 0;
  };

  /// The window that is open, of all address spaces.
  void tell() {
    const NodeRun nowhere{std::nullopt, kBlock};
    RecordHeader header;
    header.epoch = Epoch(static_cast<std::uint64_t>(window_) + 1);
    header.scan_time = start_ + options_.window * (window_ + 1);
    header.window = options_.window;
    header.cleared = true;
    for (auto& [pid, space] : spaces_) {
      bytes_.clear();
      header.asid = space.asid;
      for (auto& [number, block] : space.blocks) {
        RecordWriter(bytes_).append(
            header, space.sequence++, Vpn(number * kBlock), kOrder4K, kBlock,
            {block.present, block.present, block.accessed, block.dirty}, std::span(&nowhere, 1));
        block.accessed = block.dirty = {};
      }
      sink_.records(bytes_);
    }
    ++window_;
    ++counts_.windows;
  }

  const ImportOptions& options_;
  const ImportSink& sink_;
  ImportCounts& counts_;
  std::map<std::int32_t, Space> spaces_;
  std::uint64_t blocks_ = 0;
  bool begun_ = false;
  Nanoseconds start_{};
  std::int64_t window_ = 0;
  std::vector<std::byte> bytes_;
};

/// A sample, nothing for a line that is none, or an error.
using MaybeSample = Result<std::optional<Sample>>;

MaybeSample time_address_line(std::string_view line, const Place& place) {
  std::string plain(line.substr(0, line.find('#')));
  std::replace_if(
      plain.begin(), plain.end(), [](char c) { return c == ',' || c == ';'; }, ' ');
  const auto parts = words(plain);
  if (parts.empty()) return std::nullopt;
  if (place.line == 1 && parts.size() >= 2 && (parts[0] == "time" || parts[0] == "\"time\""))
    return std::nullopt;  // the head of a table
  if (parts.size() < 2 || parts.size() > 3)
    return place.fail_here("wants \"SECONDS ADDRESS\", and r or w behind it if known");
  const auto time = parse_time(parts[0], 1'000'000'000);
  if (!time) return place.fail_here("'{}' is no time in seconds", printable(parts[0]));
  const bool hex = parts[1].starts_with("0x") || parts[1].starts_with("0X");
  const auto number = hex ? parse_hex(parts[1]) : std::nullopt;
  const auto decimal = hex ? Result<std::uint64_t>(0) : parse_u64(parts[1]);
  if (hex ? !number : !decimal)
    return place.fail_here("'{}' is no address; hexadecimal ones begin with 0x",
                           printable(parts[1]));
  Sample sample;
  sample.time = *time;
  sample.address = hex ? *number : *decimal;
  if (parts.size() == 3) {
    if (parts[2] != "r" && parts[2] != "w" && parts[2] != "R" && parts[2] != "W")
      return place.fail_here("'{}' is neither r nor w", printable(parts[2]));
    sample.write = parts[2] == "w" || parts[2] == "W";
  }
  return sample;
}

/// "12.345678:"
bool is_perf_time(std::string_view word) {
  return word.size() > 2 && word.back() == ':' && word.find('.') != std::string_view::npos &&
         parse_time(word.substr(0, word.size() - 1), 1'000'000'000);
}

MaybeSample perf_line(std::string_view line, const Place& place, bool seen) {
  if (trim(line).empty() || trim(line).starts_with('#')) return std::nullopt;
  const auto parts = words(line);
  const auto time = std::find_if(parts.begin(), parts.end(), is_perf_time);
  if (time == parts.end()) {
    // Call chains stand below their sample.
    if (seen && (line[0] == ' ' || line[0] == '\t')) return std::nullopt;
    return place.fail_here("no sample: wants lines of perf script -F comm,pid,time,event,addr");
  }
  auto before = time;
  if (before != parts.begin() && std::prev(before)->starts_with('[')) --before;  // the CPU
  if (before == parts.begin()) return place.fail_here("no process id before the time");
  --before;
  const auto pid = parse_u64(before->substr(0, before->find('/')));
  if (!pid || *pid > static_cast<std::uint64_t>(kMaxPid))
    return place.fail_here("'{}' is no process id", printable(*before));
  auto event = std::next(time);
  while (event != parts.end() && event->back() != ':') ++event;
  if (event == parts.end() || std::next(event) == parts.end())
    return place.fail_here("no address behind the event: record with -d, print it with -F addr");
  const auto address = parse_hex(*std::next(event));
  if (!address) return place.fail_here("'{}' is no address", printable(*std::next(event)));
  Sample sample;
  sample.time = *parse_time(time->substr(0, time->size() - 1), 1'000'000'000);
  sample.address = *address;
  sample.pid = static_cast<std::int32_t>(*pid);
  if (before != parts.begin()) {
    const auto* from = parts.front().data();
    const auto& last = *std::prev(before);
    sample.command = {from, static_cast<std::size_t>(last.data() + last.size() - from)};
  }
  sample.write = event->find("store") != std::string_view::npos;
  return sample;
}

Status import_samples(std::istream& in, Place& place, const ImportOptions& options,
                      const ImportSink& sink, ImportCounts& counts) {
  Windows windows(options, sink, counts);
  std::string line;
  while (std::getline(in, line)) {
    ++place.line;
    auto sample = options.format == ImportFormat::kPerf
                      ? perf_line(line, place, counts.samples + counts.passed_over > 0)
                      : time_address_line(line, place);
    if (!sample) return tl::make_unexpected(sample.error());
    if (!*sample) continue;
    // perf's swapper has pid 0, and samples without data have no address.
    if ((*sample)->address == 0 || (*sample)->address >= kUserEnd || (*sample)->pid == 0) {
      ++counts.passed_over;
      continue;
    }
    TC_TRY(windows.add(**sample, place));
  }
  windows.finish();
  return {};
}

/// `damo report raw`: snapshots of targets, one after the other.
class Damon {
 public:
  Damon(const ImportOptions& options, const ImportSink& sink, ImportCounts& counts)
      : options_(options), sink_(sink), counts_(counts) {}

  Status add(std::string_view line, const Place& place) {
    line = trim(line);
    if (line.empty() || line.starts_with('#')) return {};
    const auto colon =
        line.rfind("):") != std::string_view::npos ? line.rfind("):") + 1 : line.find(':');
    if (colon == std::string_view::npos)
      return place.fail_here("no line of damo report raw: it has no colon");
    const std::string_view key = line.substr(0, colon), value = trim(line.substr(colon + 1));
    if (key == "monitoring_start" || key == "monitoring_end") {
      const auto time = parse_damo_time(value);
      if (!time) return place.fail_here("'{}' is no time", printable(value));
      (key == "monitoring_start" ? start_ : end_) = *time;
      return {};
    }
    if (key == "target_id") return begin_target(value, place);
    if (key == "base_time_absolute" || key == "monitoring_duration" || key == "nr_regions")
      return {};
    return add_region(key, value, place);
  }

 private:
  Status begin_target(std::string_view value, const Place& place) {
    if (end_ <= start_)
      return place.fail_here("monitoring_start and monitoring_end before it give no time");
    const std::string id(value);
    auto [target, is_new] =
        targets_.try_emplace(id, static_cast<std::int32_t>(targets_.size()) + 1);
    if (is_new && targets_.size() > 4096) return place.fail_here("more than 4096 targets");
    header_ = {};
    header_.asid = make_asid(Pid(target->second), 1, 0);
    if (is_new)
      sink_.process({header_.asid, Pid(target->second), "DAMON target " + printable(id), {}});
    header_.epoch = Epoch(++counts_.windows);
    header_.scan_time = end_;
    header_.window = end_ - start_;
    header_.cleared = true;
    pages_ = cursor_ = told_ = 0;
    return {};
  }

  Status add_region(std::string_view range, std::string_view value, const Place& place) {
    const std::string_view ends = range.substr(0, range.find('('));
    const auto dash = ends.find('-');
    std::optional<std::uint64_t> first, end;
    if (dash != std::string_view::npos) {
      first = parse_hex(trim(ends.substr(0, dash)));
      end = parse_hex(trim(ends.substr(dash + 1)));
    }
    const auto fields = words(value);
    const auto accesses =
        fields.empty() ? Result<std::uint64_t>(fail(ErrorKind::kUsage, "")) : parse_u64(fields[0]);
    if (!first || !end || !accesses)
      return place.fail_here("no line of damo report raw: wants START-END (SIZE): NR_ACCESSES");
    if (header_.asid == Asid{}) return place.fail_here("a region before any target_id");
    if (*first < cursor_ || *end <= *first || *end > kUserEnd)
      return place.fail_here("the region is empty, or does not lie behind the one before");
    cursor_ = *end;
    const std::uint64_t from = *first >> kPageShift;
    const std::uint64_t to = (*end + kPageSize - 1) >> kPageShift;
    pages_ += to - from;
    if (pages_ > options_.max_pages.get())
      return place.fail_here("the snapshot's regions are larger than {}",
                             format_bytes(bytes_of(options_.max_pages)));
    bytes_.clear();
    for (std::uint64_t page = std::max(from, told_to_of(from)); page < to;) {
      const auto count = static_cast<std::uint32_t>(std::min(to - page, kRegionEntries));
      const std::vector<std::uint64_t> none((count + 63) / 64);
      std::vector<std::uint64_t> all(none.size(), ~std::uint64_t{0});
      if (count % 64 != 0) all.back() = (std::uint64_t{1} << (count % 64)) - 1;
      const NodeRun nowhere{std::nullopt, count};
      RecordWriter(bytes_).append(header_, sequence_++, Vpn(page), kOrder4K, count,
                                  {all, all, *accesses > 0 ? all : none, none},
                                  std::span(&nowhere, 1));
      page += count;
    }
    told_ = to;
    if (!bytes_.empty()) sink_.records(bytes_);
    ++counts_.samples;
    return {};
  }

  /// Regions may meet within a page: it is of the first one.
  [[nodiscard]] std::uint64_t told_to_of(std::uint64_t from) const {
    return pages_ > 0 && told_ == from + 1 ? told_ : from;
  }

  const ImportOptions& options_;
  const ImportSink& sink_;
  ImportCounts& counts_;
  Nanoseconds start_{}, end_{};
  std::map<std::string, std::int32_t> targets_;
  RecordHeader header_;
  std::uint64_t cursor_ = 0, pages_ = 0, told_ = 0, sequence_ = 0;
  std::vector<std::byte> bytes_;
};

Status import_damon(std::istream& in, Place& place, const ImportOptions& options,
                    const ImportSink& sink, ImportCounts& counts) {
  Damon damon(options, sink, counts);
  std::string line;
  while (std::getline(in, line)) {
    ++place.line;
    TC_TRY(damon.add(line, place));
  }
  return {};
}

constexpr std::array<std::pair<std::string_view, ImportFormat>, 3> kFormats{
    {{"time-address", ImportFormat::kTimeAddress},
     {"perf", ImportFormat::kPerf},
     {"damon", ImportFormat::kDamon}}};

}  // namespace

Result<ImportFormat> parse_import_format(const std::string& text) {
  std::vector<std::string> names;
  for (const auto& [name, format] : kFormats) {
    if (name == text) return format;
    names.emplace_back(name);
  }
  const std::string near = nearest_word(text, names);
  return fail(ErrorKind::kUsage, "there is no format \"{}\" to import{}", printable(text),
              near.empty() ? fmt::format("; there are {}", fmt::join(names, ", "))
                           : fmt::format("; did you mean \"{}\"?", near));
}

std::string_view to_string(ImportFormat format) {
  for (const auto& [name, known] : kFormats)
    if (known == format) return name;
  return "";
}

Result<ImportCounts> import_text(std::istream& in, const std::string& name,
                                 const ImportOptions& options, const ImportSink& sink) {
  ImportCounts counts;
  Place place{name};
  TC_TRY(options.format == ImportFormat::kDamon ? import_damon(in, place, options, sink, counts)
                                                : import_samples(in, place, options, sink, counts));
  counts.lines = place.line;
  if (in.bad()) return fail(ErrorKind::kFailure, "can't read {}", name);
  if (counts.samples == 0)
    return fail(ErrorKind::kCorrupt, "{} holds nothing to import: {} lines, {} without an address",
                name, counts.lines, counts.passed_over);
  return counts;
}

}  // namespace thermocline::trace
