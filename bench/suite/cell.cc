// SPDX-License-Identifier: Apache-2.0
#include "bench/suite/cell.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "bench/suite/guest_command.h"

namespace thermocline::suite {

namespace {

using Json = nlohmann::json;
using literals::operator""_MiB;

constexpr double kPage = 4096;
/// Beyond the footprint: for the kernel, the daemon, and everything else that the fast node has no
/// room for.
constexpr Bytes kSlowSpare = 288_MiB;

/// Twice what must go there, as the kernel swaps more than it has to; in steps that a device of
/// persistent memory can have.
Bytes swap_size(const PlannedCell& cell, Bytes footprint) {
  constexpr double kStep = 32 << 20;
  const double wanted = 2 * cell.workload.swapped * static_cast<double>(footprint.get());
  return Bytes(static_cast<std::uint64_t>(std::ceil(wanted / kStep) * kStep));
}

/// What programs find on the slow node when some of the footprint is to be swapped.
Bytes slow_of(const PlannedCell& cell, Bytes footprint) {
  const double kept = (1 - cell.workload.swapped) * static_cast<double>(footprint.get());
  return Bytes(static_cast<std::uint64_t>(kept)) - *cell.fast;
}

/// The guest of a cell. The DMA zone is reserved: it would be a large and special part of a small
/// node.
std::vector<std::string> guest(const PlannedCell& cell, const std::string& timing, Bytes footprint,
                               const FastNode& node, const CellPlaces& places) {
  GuestShape shape;
  shape.thermocline = places.thermocline;
  shape.kernel = cell.key.kernel;
  shape.timing = timing;
  shape.mode = cell.key.mode;
  shape.scripts = places.scripts;
  shape.fast = node.size;
  const std::uint64_t block = kNodeStep.get();
  shape.slow = Bytes((footprint + kSlowSpare + kNodeStep - Bytes(1)).get() / block * block);
  shape.append = "memmap=15M$1M";
  if (node.reserved.get() != 0)
    shape.append += fmt::format(" memmap={}K${}K", node.reserved.get() >> 10,
                                (node.size - node.reserved).get() >> 10);
  // The first part of the slow node is persistent memory, and that is what swap lies on.
  if (cell.swaps())
    shape.append += fmt::format(" memmap={}!{}", mib(swap_size(cell, footprint)), mib(node.size));
  std::vector<std::string> words = guest_command(shape);
  const auto add = [&](std::initializer_list<std::string> more) {
    words.insert(words.end(), more);
  };
  add({"--with", places.carried + ":/lab/page-counts"});
  if (!places.program.empty()) add({"--with", places.program});
  if (cell.swaps()) add({"--module", "nd_e820", "--module", "nd_pmem"});
  return words;
}

std::optional<double> number(const Json& json, const char* key) {
  if (!json.is_object() || !json.contains(key) || !json[key].is_number()) return std::nullopt;
  return json[key].get<double>();
}

/// A part of `thermocline status --json`.
Json part(const Json& status, const char* key) {
  return status.is_object() && status.contains(key) ? status[key] : Json();
}

/// Value of "KEY VALUE" in a section.
std::optional<double> value_of(const std::string& section, std::string_view key) {
  for (const std::string_view line : split(section, '\n')) {
    const auto w = words(line);
    if (w.size() < 2 || w[0] != key) continue;
    const auto value = parse_u64(w[1]);
    if (value) return static_cast<double>(*value);
  }
  return std::nullopt;
}

struct Outputs {
  const Sections& sections;

  [[nodiscard]] const std::string& section(const std::string& name) const {
    static const std::string kNone;
    const auto at = sections.find(name);
    return at == sections.end() ? kNone : at->second;
  }
  /// What counters of the kernel grew by during the run, together.
  [[nodiscard]] double grown(const std::vector<std::string>& names) const {
    double sum = 0;
    for (const std::string& name : names)
      sum += value_of(section("after"), name).value_or(0) -
             value_of(section("before"), name).value_or(0);
    return sum;
  }
  /// What a figure of the daemon's status grew by during the run.
  [[nodiscard]] std::optional<double> told(const char* in, const char* key) const {
    const Json before = Json::parse(section("system-before"), nullptr, false),
               after = Json::parse(section("system"), nullptr, false);
    const auto begin = number(part(before, in), key), end = number(part(after, in), key);
    if (!begin || !end) return std::nullopt;
    return *end - *begin;
  }
};

/// Operations in a part of the run, from the samples of the workload, evenly between two of them.
std::optional<double> operations_at(const Json& workload, double at_s) {
  if (!workload.contains("samples") || !workload["samples"].is_array()) return std::nullopt;
  double before_s = 0, before = 0;
  for (const Json& sample : workload["samples"]) {
    const double s = sample[0].get<double>(), operations = sample[1].get<double>();
    if (s >= at_s)
      return before +
             (operations - before) * (s > before_s ? (at_s - before_s) / (s - before_s) : 1);
    before_s = s;
    before = operations;
  }
  // Behind the last sample: up to the end.
  const double end_s = workload["seconds"].get<double>(),
               all = workload["operations"].get<double>();
  if (end_s <= before_s) return all;
  return before + (all - before) * std::min(1.0, (at_s - before_s) / (end_s - before_s));
}

void add_moves(const PlannedCell& cell, const Outputs& outputs, CellRecord& record) {
  const auto pages = [](double count) {
    return Bytes(static_cast<std::uint64_t>(std::llround(std::max(0.0, count) * kPage)));
  };
  const double demoted =
      outputs.grown({"pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged"});
  if (cell.system.script == "numab") {
    record.promoted_bytes = pages(outputs.grown({"pgpromote_success"}));
    record.demoted_bytes = pages(demoted);
  } else if (cell.system.script == "damos") {
    // DAMON's own statistics, in bytes; the first kdamond promotes, the second demotes.
    double applied[2] = {0, 0};
    for (const std::string_view line : split(outputs.section("system"), '\n')) {
      const auto w = words(line);
      if (w.size() == 3 && w[1] == "sz_applied" && (w[0] == "damos0" || w[0] == "damos1"))
        applied[w[0] == "damos1"] = static_cast<double>(parse_u64(w[2]).value_or(0));
    }
    record.promoted_bytes = Bytes(static_cast<std::uint64_t>(applied[0]));
    record.demoted_bytes = Bytes(static_cast<std::uint64_t>(applied[1])) + pages(demoted);
  } else if (cell.system.script == "thermocline") {
    if (const auto moved = outputs.told("counters", "promoted_pages"))
      record.promoted_bytes = pages(*moved);
    if (const auto moved = outputs.told("counters", "demoted_pages"))
      record.demoted_bytes = pages(*moved);
  } else {
    record.promoted_bytes = record.demoted_bytes = Bytes();
  }
}

void add_shares(const PlannedCell& cell, const Outputs& outputs, const Truth& truth,
                CellRecord& record) {
  const auto share = [](double part, double all) {
    return all > 0 ? std::clamp(part / all, 0.0, 1.0) : 0.0;
  };
  if (truth.profile && truth.profile->all() != 0) {
    const auto all = static_cast<double>(truth.profile->all());
    record.tracker_cpu_share = share(static_cast<double>(truth.profile->tracker), all);
    record.policy_cpu_share = share(static_cast<double>(truth.profile->policy), all);
    record.mover_cpu_share = share(static_cast<double>(truth.profile->mover), all);
    record.overhead_cpu_share = share(static_cast<double>(truth.profile->kernel), all);
  }
  if (cell.system.script != "thermocline") return;
  // The daemon keeps accounts of its own, user time included: what they grew by during the run, as
  // a share of the processors' time, as the samples are.
  const auto tracking = outputs.told("counters", "tracking_cpu_ns"),
             source = outputs.told("counters", "source_cpu_ns"),
             deciding = outputs.told("counters", "deciding_cpu_ns"),
             moving = outputs.told("counters", "moving_cpu_ns"),
             scanning = outputs.told("counters", "scan_ns"), cpu = outputs.told("daemon", "cpu_s"),
             up = outputs.told("daemon", "uptime_s");
  if (!tracking || !source || !deciding || !moving || !scanning || !cpu || !up || *up <= 0) return;
  const double time = *up * (cell.key.mode == "reference" ? 1 : 2);
  record.tracker_cpu_share = share((*tracking - *deciding) / 1e9, time);
  record.mover_cpu_share = share(*moving / 1e9, time);
  // The module's threads are no part of the daemon's time.
  record.policy_cpu_share = share(*cpu - (*tracking - *source - *deciding + *moving) / 1e9, time);
  // The samples of the kernel hold what the daemon does there, scanning and moving; where threads
  // scan, they hold those.
  const double scanned = *source > 0 ? 0 : *scanning;
  if (record.overhead_cpu_share)
    record.overhead_cpu_share =
        std::min(1.0, *record.overhead_cpu_share + share(*cpu - (scanned + *moving) / 1e9, time));
}

}  // namespace

std::vector<std::string> cell_command(const PlannedCell& cell, const std::string& timing,
                                      Bytes footprint, double length, const FastNode& node,
                                      const CellPlaces& places) {
  std::vector<std::string> words = guest(cell, timing, footprint, node, places);
  const auto add = [&](std::initializer_list<std::string> more) {
    words.insert(words.end(), more);
  };
  add({"--truth", places.truth, "--truth-slice", "50ms", "--truth-pages", "virtual"});
  add({"--truth-profile", "50us"});
  // Another seed begins at another point of the tracker's period.
  const std::uint64_t delay_ms = (cell.key.seed - 1) * 37 % 100;
  add({"--", "sh"});
  if (cell.swaps())
    add({fmt::format("{}/swap.sh", kGuestScripts),
         std::to_string(slow_of(cell, footprint).get() >> 10)});
  else
    add({fmt::format("{}/cell.sh", kGuestScripts)});
  add({cell.system.script, cell.system.policy, std::to_string(delay_ms),
       cell.fast ? std::to_string(cell.fast->get() >> 10) : "-",
       cell.workload.runs.empty() ? cell.workload.name : cell.workload.runs, "--footprint",
       mib(footprint), "--seed", std::to_string(cell.key.seed), "--duration",
       fmt::format("{:g}", cell.workload.seconds * length), "--samples", "0.05"});
  if (cell.workload.huge_pages) add({"--thp"});
  for (const std::string& setting : cell.workload.settings) add({"--set", setting});
  return words;
}

std::vector<std::string> probe_command(const PlannedCell& cell, const std::string& timing,
                                       Bytes footprint, const FastNode& node,
                                       const CellPlaces& places) {
  std::vector<std::string> words = guest(cell, timing, footprint, node, places);
  for (const std::string& word :
       {std::string("--"), std::string("sh"), fmt::format("{}/cell.sh", kGuestScripts),
        std::string("probe"), std::string("-"), std::string("0"), std::string("-")})
    words.push_back(word);
  return words;
}

Sections sections_of(std::string_view output) {
  Sections sections;
  std::string name;
  for (const std::string_view line : split(output, '\n')) {
    if (line.starts_with("=== ")) {
      name = std::string(trim(line.substr(4)));
      sections[name];
    } else if (!name.empty()) {
      sections[name] += line;
      sections[name] += '\n';
    }
  }
  return sections;
}

Result<Bytes> fast_bytes_of(const Sections& sections) {
  const auto start = sections.find("start");
  const auto value = start == sections.end() ? std::nullopt : value_of(start->second, "fast_bytes");
  if (!value)
    return fail(ErrorKind::kCorrupt, "the guest did not tell how much fast memory it has");
  return Bytes(static_cast<std::uint64_t>(*value));
}

std::vector<std::pair<double, double>> steady_parts(double seconds,
                                                    const std::vector<double>& phase_starts) {
  if (phase_starts.empty()) return {{seconds * 2 / 3, seconds}};
  std::vector<std::pair<double, double>> parts;
  double start = 0;
  for (std::size_t i = 0; i <= phase_starts.size(); ++i) {
    const double end = i < phase_starts.size() ? phase_starts[i] : seconds;
    parts.emplace_back((start + end) / 2, end);
    start = end;
  }
  return parts;
}

std::optional<double> reconverge_s(const Truth& truth) {
  if (truth.phases_ns.empty()) return std::nullopt;
  const std::uint64_t change = truth.phases_ns.back();
  const std::uint64_t before =
      truth.phases_ns.size() > 1 ? truth.phases_ns[truth.phases_ns.size() - 2] : 0;
  const auto level = truth.fast_share((before + change) / 2, change);
  if (!level) return std::nullopt;
  const double target = 0.9 * *level;
  std::uint64_t since = change;
  bool reached = false;
  unsigned below = 0;  // slices in a row
  for (const Truth::Slice& slice : truth.slices) {
    if (slice.begin_ns < change || slice.all_misses == 0) continue;
    if (slice.fast_share() >= target) {
      reached = true;
      below = 0;
    } else if (++below > 1 || !reached) {
      since = slice.end_ns;
    }
  }
  if (!reached || below > 1) return std::nullopt;
  return static_cast<double>(since - change) / 1e9;
}

Result<CellRecord> read_cell(const PlannedCell& cell, const Sections& sections,
                             const Truth& truth) {
  const Outputs outputs{sections};
  if (!sections.contains("end"))
    return fail(ErrorKind::kCorrupt, "the guest's script ended before it was through");
  const Json workload = Json::parse(outputs.section("workload"), nullptr, false);
  const auto ops = number(workload, "ops_per_s");
  if (!ops || !number(workload, "seconds") || !number(workload, "operations"))
    return fail(ErrorKind::kCorrupt, "the workload gave no result");
  if (!workload.value("verified", false))
    return fail(ErrorKind::kFailure, "the workload's result is wrong");

  CellRecord record;
  record.key = cell.key;
  if (cell.system.policy != "-") record.policy = cell.system.policy;
  record.done = true;
  record.ops_per_s = ops;
  record.seconds = number(workload, "seconds");
  record.operations = static_cast<std::uint64_t>(*number(workload, "operations"));
  record.verified = true;
  record.p50_ns = number(workload, "p50_ns");
  record.p99_ns = number(workload, "p99_ns");
  if (const auto bytes = number(workload, "allocated_bytes"))
    record.footprint_bytes = Bytes(static_cast<std::uint64_t>(*bytes));
  TC_ASSIGN(record.fast_bytes, fast_bytes_of(sections));
  if (record.footprint_bytes && record.footprint_bytes->get() != 0)
    record.fast_share = std::min(1.0, static_cast<double>(record.fast_bytes->get()) /
                                          static_cast<double>(record.footprint_bytes->get()));

  std::vector<double> phase_starts;
  for (const std::uint64_t ns : truth.phases_ns)
    phase_starts.push_back(static_cast<double>(ns) / 1e9);
  double steady_s = 0, steady_operations = 0;
  Truth::Slice steady, all;
  for (const auto& [from, to] : steady_parts(*record.seconds, phase_starts)) {
    const auto before = operations_at(workload, from), after = operations_at(workload, to);
    if (before && after) {
      steady_operations += *after - *before;
      steady_s += to - from;
    }
    for (const Truth::Slice& slice : truth.slices) {
      const double middle = static_cast<double>(slice.begin_ns + slice.end_ns) / 2e9;
      if (middle < from || middle >= to) continue;
      steady.fast_misses += slice.fast_misses;
      steady.all_misses += slice.all_misses;
    }
  }
  if (steady_s > 0) record.steady_ops_per_s = steady_operations / steady_s;
  if (steady.all_misses != 0) record.steady_fast_hit_ratio = steady.fast_share();
  for (const Truth::Slice& slice : truth.slices) {
    all.fast_misses += slice.fast_misses;
    all.all_misses += slice.all_misses;
    all.latency_ns += slice.latency_ns;
  }
  if (all.all_misses != 0) {
    record.fast_hit_ratio = all.fast_share();
    record.ns_per_access =
        static_cast<double>(all.latency_ns) / static_cast<double>(all.all_misses);
  }
  record.reconverge_s = reconverge_s(truth);
  record.ping_pong_share =
      truth.moves == 0 ? 0 : static_cast<double>(truth.returns) / static_cast<double>(truth.moves);
  add_moves(cell, outputs, record);
  add_shares(cell, outputs, truth, record);
  return record;
}

}  // namespace thermocline::suite
