// SPDX-License-Identifier: Apache-2.0
#include "emulation/sim/workload.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/text.h"
#include "emulation/sim/spread.h"

namespace thermocline::sim {

namespace {

constexpr double kForever = std::numeric_limits<double>::infinity();

/// Pages of a range, `grain` in a row of the same rank; ranks are scattered over the range.
class Ranks {
 public:
  Ranks(std::uint64_t pages, double grain, std::uint64_t seed)
      : grain_(static_cast<std::uint64_t>(grain)),
        groups_((pages + grain_ - 1) / grain_),
        permutation_(groups_, seed) {}
  [[nodiscard]] std::uint64_t groups() const { return groups_; }
  /// Calls visit(page from 0, pages, rank) for all groups in the order of pages.
  template <class Visit>
  void for_each(std::uint64_t pages, Visit visit) const {
    for (std::uint64_t group = 0; group < groups_; ++group) {
      const std::uint64_t page = group * grain_;
      visit(page, std::min(grain_, pages - page), permutation_(group));
    }
  }

 private:
  std::uint64_t grain_, groups_;
  Permutation permutation_;
};

/// Scales the shares of classes [from, from + count) so that their pages get `weight` of all
/// accesses.
void give(Phase& phase, std::size_t from, std::size_t count, double weight) {
  std::array<std::uint64_t, kClasses> pages{};
  for (const std::uint8_t c : phase.classes) ++pages[c];
  double sum = 0;
  for (std::size_t c = from; c < from + count; ++c)
    sum += phase.share[c] * static_cast<double>(pages[c]);
  for (std::size_t c = from; c < from + count; ++c)
    phase.share[c] = sum > 0 ? phase.share[c] * weight / sum : 0;
}

/// Class of a rank of a power law, from 0: eight classes an octave, so that a page's share is off
/// by 5 % at most.
std::size_t power_class(std::uint64_t rank) {
  const std::uint64_t value = rank + 1;
  const auto octave = static_cast<unsigned>(std::bit_width(value)) - 1;
  const std::uint64_t below = octave >= 3 ? value >> (octave - 3) : value << (3 - octave);
  return octave * 8 + (below & 7);
}
constexpr std::size_t kPowerClasses = 8 * 31;

/// What pages of a class get under a power law: the mean of its ranks, up to a factor.
double power_share(std::size_t cls, double exponent) {
  const double low = std::ldexp(1 + static_cast<double>(cls % 8) / 8, static_cast<int>(cls / 8));
  const double high = low + std::ldexp(0.125, static_cast<int>(cls / 8));
  // In the first octaves a class is a single rank.
  if (cls < 24) return std::pow(low, -exponent);
  const auto integral = [&](double x) {
    return std::abs(exponent - 1) < 1e-9 ? std::log(x) : std::pow(x, 1 - exponent) / (1 - exponent);
  };
  return (integral(high - 0.5) - integral(low - 0.5)) / (high - low);
}

/// Fills a range with a power law over classes [base, base + kPowerClasses).
void power_law(Phase& phase, std::uint64_t first, std::uint64_t pages, std::size_t base,
               double exponent, const Ranks& ranks) {
  ranks.for_each(pages, [&](std::uint64_t page, std::uint64_t n, std::uint64_t rank) {
    const auto cls = static_cast<std::uint8_t>(base + power_class(rank));
    std::fill_n(phase.classes.begin() + static_cast<std::ptrdiff_t>(first + page), n, cls);
  });
  for (std::size_t c = 0; c < kPowerClasses; ++c) phase.share[base + c] = power_share(c, exponent);
}

/// Classes `cold` and `hot` in a range: hot are the groups whose rank lies in a window of ranks
/// that begins at `offset` and wraps around.
void hot_set(Phase& phase, std::uint64_t first, std::uint64_t pages, std::uint8_t cold,
             std::uint8_t hot, double share, std::uint64_t offset, const Ranks& ranks) {
  const std::uint64_t groups = ranks.groups();
  const auto size = std::clamp<std::uint64_t>(
      static_cast<std::uint64_t>(std::llround(share * static_cast<double>(groups))), 1, groups);
  ranks.for_each(pages, [&](std::uint64_t page, std::uint64_t n, std::uint64_t rank) {
    const bool is_hot = (rank + groups - offset % groups) % groups < size;
    std::fill_n(phase.classes.begin() + static_cast<std::ptrdiff_t>(first + page), n,
                is_hot ? hot : cold);
  });
  phase.share[cold] = phase.share[hot] = 1;
}

/// The two classes of a hot set get their weights; all of it goes to the hot ones if none is cold.
void give_hot_set(Phase& phase, std::size_t cold, std::size_t hot, double access, double weight) {
  const bool has_cold = std::find(phase.classes.begin(), phase.classes.end(),
                                  static_cast<std::uint8_t>(cold)) != phase.classes.end();
  give(phase, hot, 1, weight * (has_cold ? access : 1));
  give(phase, cold, 1, weight * (1 - access));
}

Workload plain(std::string_view kind, std::uint64_t pages) {
  Workload workload;
  workload.kind = kind;
  workload.pages = pages;
  workload.tenants = {{0, pages}};
  return workload;
}

void begin(Phase& phase, std::uint64_t pages) {
  phase.classes.assign(pages, 0);
  phase.share.fill(0);
  phase.sweeps.clear();
}

/// Share of a footprint in pages, at least one and at most all but one.
std::uint64_t part(std::uint64_t pages, double share) {
  return std::clamp<std::uint64_t>(
      static_cast<std::uint64_t>(std::llround(share * static_cast<double>(pages))), 1, pages - 1);
}

constexpr WorkloadKey kGrain{"grain", "pages in a row that are alike", 1, 1, 262144, 1, 512, true};
constexpr WorkloadKey kHot{"hot", "share of the pages that is hot", 0.1, 0.001, 1, 0.02, 0.5};
constexpr WorkloadKey kAccess{
    "access", "share of the accesses that goes to the hot set", 0.9, 0, 1, 0.6, 0.99};
constexpr WorkloadKey kLines{"lines", "accesses to a page in passing", 64, 1, 4096, 64, 64};
constexpr WorkloadKey kPeriod{"period", "seconds that a phase lasts", 30, 0.1, 1e6, 5, 60};

Workload uniform(const Settings&, std::uint64_t pages, std::uint64_t) {
  Workload w = plain("uniform", pages);
  w.fill = [pages](std::uint64_t, Phase& phase) {
    begin(phase, pages);
    phase.share[0] = 1;
    give(phase, 0, 1, 1);
  };
  return w;
}

Workload zipf(const Settings& s, std::uint64_t pages, std::uint64_t seed) {
  Workload w = plain("zipf", pages);
  w.fill = [=, exponent = s.at("exponent"), ranks = Ranks(pages, s.at("grain"), seed)](
               std::uint64_t, Phase& phase) {
    begin(phase, pages);
    power_law(phase, 0, pages, 0, exponent, ranks);
    give(phase, 0, kPowerClasses, 1);
  };
  return w;
}

Workload hotset(const Settings& s, std::uint64_t pages, std::uint64_t seed) {
  Workload w = plain("hotset", pages);
  w.fill = [=, ranks = Ranks(pages, s.at("grain"), seed)](std::uint64_t, Phase& phase) {
    begin(phase, pages);
    hot_set(phase, 0, pages, 0, 1, s.at("hot"), 0, ranks);
    give_hot_set(phase, 0, 1, s.at("access"), 1);
  };
  return w;
}

Workload moving(const Settings& s, std::uint64_t pages, std::uint64_t seed) {
  Workload w = plain("moving", pages);
  w.first_phase_s = w.later_phase_s = s.at("period");
  w.fill = [=, ranks = Ranks(pages, s.at("grain"), seed)](std::uint64_t number, Phase& phase) {
    begin(phase, pages);
    const double step = s.at("hot") * (1 - s.at("overlap")) * static_cast<double>(ranks.groups());
    const auto offset = number * std::max<std::uint64_t>(1, static_cast<std::uint64_t>(step));
    hot_set(phase, 0, pages, 0, 1, s.at("hot"), offset, ranks);
    give_hot_set(phase, 0, 1, s.at("access"), 1);
  };
  return w;
}

Workload phases(const Settings& s, std::uint64_t pages, std::uint64_t seed) {
  Workload w = plain("phases", pages);
  w.first_phase_s = w.later_phase_s = s.at("period");
  w.fill = [=](std::uint64_t number, Phase& phase) {
    begin(phase, pages);
    const auto set = number % static_cast<std::uint64_t>(s.at("sets"));
    hot_set(phase, 0, pages, 0, 1, s.at("hot"), 0, Ranks(pages, s.at("grain"), spread(seed) + set));
    give_hot_set(phase, 0, 1, s.at("access"), 1);
  };
  return w;
}

Workload scan(const Settings& s, std::uint64_t pages, std::uint64_t) {
  Workload w = plain("scan", pages);
  w.fill = [=](std::uint64_t, Phase& phase) {
    begin(phase, pages);
    phase.share[0] = 1;
    give(phase, 0, 1, 1 - s.at("stream"));
    phase.sweeps = {{0, pages, s.at("stream"), s.at("lines")}};
  };
  return w;
}

Workload scan_loop(const Settings& s, std::uint64_t pages, std::uint64_t seed) {
  Workload w = plain("scan-loop", pages);
  w.first_phase_s = s.at("scan");
  w.fill = [=, ranks = Ranks(pages, s.at("grain"), seed)](std::uint64_t number, Phase& phase) {
    begin(phase, pages);
    if (number == 0) {
      phase.sweeps = {{0, pages, 1, s.at("lines")}};
      return;
    }
    hot_set(phase, 0, pages, 0, 1, s.at("hot"), 0, ranks);
    give_hot_set(phase, 0, 1, s.at("access"), 1);
  };
  return w;
}

/// The parts of the benchmark suite's phase-change, in turn.
Workload changes(const Settings& s, std::uint64_t pages, std::uint64_t seed) {
  Workload w = plain("changes", pages);
  w.first_phase_s = w.later_phase_s = s.at("period");
  const std::uint64_t looped = part(pages, s.at("loop"));
  w.fill = [=](std::uint64_t number, Phase& phase) {
    enum Part { kHotA, kScan, kHotB, kUniform, kLoop, kParts };
    begin(phase, pages);
    const std::uint64_t round = number / kParts;
    switch (number % kParts) {
      case kHotA:
      case kHotB:
        hot_set(phase, 0, pages, 0, 1, s.at("hot"), 0,
                Ranks(pages, s.at("grain"), spread(seed) + number));
        give_hot_set(phase, 0, 1, s.at("access"), 1);
        break;
      case kScan:
        phase.sweeps = {{0, pages, 1, s.at("lines")}};
        break;
      case kUniform:
        phase.share[0] = 1;
        give(phase, 0, 1, 1);
        break;
      default:
        phase.sweeps = {
            {spread(spread(seed) + round) % (pages - looped + 1), looped, 1, s.at("lines")}};
    }
  };
  return w;
}

Workload graph(const Settings& s, std::uint64_t pages, std::uint64_t seed) {
  Workload w = plain("graph", pages);
  const std::uint64_t vertices = part(pages, s.at("vertices"));
  w.fill = [=, ranks = Ranks(vertices, s.at("grain"), seed)](std::uint64_t, Phase& phase) {
    begin(phase, pages);
    // Edges come first, as they are read from a file; class 255: they are only streamed.
    const std::uint64_t edges = pages - vertices;
    std::fill_n(phase.classes.begin(), edges, std::uint8_t{255});
    power_law(phase, edges, vertices, 0, s.at("exponent"), ranks);
    give(phase, 0, kPowerClasses, 1 - s.at("stream"));
    phase.sweeps = {{0, edges, s.at("stream"), s.at("lines")}};
  };
  return w;
}

Workload llm(const Settings& s, std::uint64_t pages, std::uint64_t) {
  Workload w = plain("llm", pages);
  const std::uint64_t weights = part(pages, s.at("weights"));
  const std::uint64_t cache = pages - weights;
  w.first_phase_s = w.later_phase_s = s.at("period");
  // The key-value cache is a ring: what was written last is read most, and the ring goes on.
  w.fill = [=](std::uint64_t number, Phase& phase) {
    begin(phase, pages);
    const std::uint64_t hot = part(cache, s.at("hot"));
    const std::uint64_t from = number * part(cache, s.at("turn")) % cache;
    std::fill(phase.classes.begin(), phase.classes.begin() + static_cast<std::ptrdiff_t>(weights),
              std::uint8_t{255});
    for (std::uint64_t i = 0; i < hot; ++i) phase.classes[weights + (from + i) % cache] = 1;
    phase.share[0] = phase.share[1] = 1;
    const double rest = 1 - s.at("stream");
    give_hot_set(phase, 0, 1, s.at("access"), rest);
    phase.sweeps = {{0, weights, s.at("stream"), s.at("lines")}};
  };
  return w;
}

Workload multi_tenant(const Settings& s, std::uint64_t pages, std::uint64_t seed) {
  Workload w = plain("multi-tenant", pages);
  const auto tenants = static_cast<std::uint64_t>(s.at("tenants"));
  w.tenants.clear();
  for (std::uint64_t t = 0; t < tenants; ++t) {
    // Blocks of 2 MiB aren't shared by processes, but a footprint need not be whole blocks.
    const std::uint64_t first = pages * t / tenants, end = pages * (t + 1) / tenants;
    w.tenants.push_back({first, end - first});
  }
  w.fill = [=, tenants = w.tenants](std::uint64_t, Phase& phase) {
    begin(phase, pages);
    double sum = 0;
    for (std::size_t t = 0; t < tenants.size(); ++t) {
      sum += std::pow(s.at("skew"), -static_cast<double>(t));
      const auto cold = static_cast<std::uint8_t>(2 * t);
      hot_set(phase, tenants[t].first, tenants[t].pages, cold, static_cast<std::uint8_t>(cold + 1),
              s.at("hot"), 0, Ranks(tenants[t].pages, s.at("grain"), spread(seed) + t));
    }
    // Only now does every page have its class.
    for (std::size_t t = 0; t < tenants.size(); ++t)
      give_hot_set(phase, 2 * t, 2 * t + 1, s.at("access"),
                   std::pow(s.at("skew"), -static_cast<double>(t)) / sum);
  };
  return w;
}

}  // namespace

double Workload::phase_start(std::uint64_t number) const {
  if (number == 0) return 0;
  if (first_phase_s <= 0) return kForever;
  if (number == 1) return first_phase_s;
  return later_phase_s <= 0 ? kForever
                            : first_phase_s + static_cast<double>(number - 1) * later_phase_s;
}

const std::vector<WorkloadKind>& workload_kinds() {
  static const std::vector<WorkloadKind> kKinds = {
      {"uniform", "all pages alike", {}, uniform},
      {"zipf",
       "the page of rank r has a weight of r^-exponent",
       {{"exponent", "of the power law", 0.99, 0, 3, 0.6, 1.3}, kGrain},
       zipf},
      {"hotset", "a hot set that stays", {kHot, kAccess, kGrain}, hotset},
      {"moving",
       "a hot set that is somewhere else each period",
       {kHot,
        kAccess,
        kGrain,
        kPeriod,
        {"overlap", "share of the hot set that stays hot", 0, 0, 0.99, 0.01, 0.9}},
       moving},
      {"phases",
       "several hot sets that take turns",
       {kHot, kAccess, kGrain, kPeriod, {"sets", "hot sets", 3, 2, 64, 2, 6, true}},
       phases},
      {"scan",
       "reads all pages in order, over and over",
       {{"stream", "share of the accesses that does so; the rest goes anywhere", 1, 0, 1, 0.5, 1},
        kLines},
       scan},
      {"scan-loop",
       "reads all pages in order at first, then loops over a hot set",
       {{"scan", "seconds of the first part", 20, 0.1, 1e6, 5, 40}, kHot, kAccess, kGrain, kLines},
       scan_loop},
      {"changes",
       "a hot set, a scan, another hot set, uniform, a loop, and again",
       {kHot,
        kAccess,
        kGrain,
        {"loop", "share of the pages in the loop", 0.1, 0.001, 1, 0.02, 0.3},
        kLines,
        kPeriod},
       changes},
      {"graph",
       "vertices by a power law, edges as a stream",
       {{"vertices", "share of the pages that holds vertices", 0.2, 0.001, 0.999, 0.05, 0.5},
        {"exponent", "of the vertices' power law", 0.8, 0, 3, 0.5, 1.2},
        {"stream", "share of the accesses that goes to edges", 0.3, 0, 1, 0.1, 0.6},
        kGrain,
        kLines},
       graph},
      {"llm",
       "weights as a stream, and a key-value cache whose youngest part is hot",
       {{"weights", "share of the pages that holds weights", 0.6, 0.001, 0.999, 0.3, 0.8},
        {"stream", "share of the accesses that goes to weights", 0.6, 0, 1, 0.2, 0.8},
        {"hot", "share of the cache that is hot", 0.2, 0.001, 1, 0.05, 0.5},
        {"access", "share of the cache's accesses that goes there", 0.9, 0, 1, 0.6, 0.99},
        {"period", "seconds until the hot part goes on", 10, 0.1, 1e6, 5, 30},
        {"turn", "share of the cache by which it goes on", 0.02, 0.0001, 1, 0.005, 0.1},
        kLines},
       llm},
      {"multi-tenant",
       "processes with a hot set each, one busier than the next",
       {{"tenants", "processes", 3, 1, 64, 2, 6, true},
        {"skew", "how many times busier each is than the next", 2, 1, 100, 1, 6},
        kHot,
        kAccess,
        kGrain},
       multi_tenant},
  };
  return kKinds;
}

Result<const WorkloadKind*> find_workload(std::string_view name) {
  std::vector<std::string> names;
  for (const WorkloadKind& kind : workload_kinds()) {
    if (kind.name == name) return &kind;
    names.emplace_back(kind.name);
  }
  const std::string near = nearest_word(name, names);
  if (!near.empty())
    return fail(ErrorKind::kUsage, "there is no workload called \"{}\"; did you mean {}?",
                printable(name), near);
  return fail(ErrorKind::kUsage, "there is no workload called \"{}\"; there are {}",
              printable(name), fmt::join(names, ", "));
}

Result<double> parse_setting(std::string_view key, std::string_view text, double least, double most,
                             bool whole) {
  double value = 0;
  const std::string copy(text);
  char* end = nullptr;
  value = std::strtod(copy.c_str(), &end);
  if (copy.empty() || end != copy.c_str() + copy.size() || !(value >= least && value <= most) ||
      (whole && value != std::floor(value)))
    return fail(ErrorKind::kUsage, "{} is \"{}\"; give a {}number from {} to {}", key,
                printable(text), whole ? "whole " : "", least, most);
  return value;
}

Status set_workload_key(WorkloadChoice& choice, std::string_view key, double value) {
  std::vector<std::string> names;
  for (const WorkloadKey& known : choice.kind->keys) {
    names.emplace_back(known.name);
    if (known.name != key) continue;
    TC_TRY(parse_setting(key, fmt::format("{}", value), known.least, known.most, known.whole));
    choice.settings[std::string(key)] = value;
    return {};
  }
  const std::string near = nearest_word(key, names);
  if (!near.empty())
    return fail(ErrorKind::kUsage, "workload {} has no key \"{}\"; did you mean {}?",
                choice.kind->name, printable(key), near);
  return fail(ErrorKind::kUsage, "workload {} has no key \"{}\"; it has {}", choice.kind->name,
              printable(key), names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
}

Result<WorkloadChoice> parse_workload(std::string_view text) {
  const auto colon = text.find(':');
  WorkloadChoice choice;
  TC_ASSIGN(choice.kind, find_workload(text.substr(0, colon)));
  for (const WorkloadKey& key : choice.kind->keys) choice.settings.emplace(key.name, key.usual);
  if (colon == std::string_view::npos) return choice;
  for (const std::string_view item : split(text.substr(colon + 1), ',')) {
    const auto equals = item.find('=');
    if (equals == std::string_view::npos)
      return fail(ErrorKind::kUsage, "\"{}\" in the workload \"{}\" is not key=value",
                  printable(item), printable(text));
    const std::string_view key = item.substr(0, equals);
    double value = 0;
    for (const WorkloadKey& known : choice.kind->keys) {
      if (known.name != key) continue;
      TC_ASSIGN(value,
                parse_setting(key, item.substr(equals + 1), known.least, known.most, known.whole));
    }
    TC_TRY(set_workload_key(choice, key, value));
  }
  return choice;
}

std::string to_text(const WorkloadChoice& choice) {
  std::string text(choice.kind->name);
  for (const WorkloadKey& key : choice.kind->keys) {
    text += text.size() == choice.kind->name.size() ? ':' : ',';
    text += fmt::format("{}={:.6g}", key.name, choice.settings.at(std::string(key.name)));
  }
  return text;
}

Workload make_workload(const WorkloadChoice& choice, std::uint64_t pages, std::uint64_t seed) {
  return choice.kind->make(choice.settings, pages, seed);
}

}  // namespace thermocline::sim
