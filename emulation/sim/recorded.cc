// SPDX-License-Identifier: Apache-2.0
#include "emulation/sim/recorded.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "base/text.h"
#include "emulation/sim/spread.h"
#include "heat/block_bits.h"
#include "tracking/recording.h"

namespace thermocline::sim {

namespace {

/// A slice of time has at least so many windows of an address space, unless fewer were recorded,
/// and at most so many.
constexpr unsigned kFewestWindows = 8, kMostWindows = 64;
constexpr std::size_t kNoSlice = ~std::size_t{0};
constexpr int kLongest = 3;
/// Of a recording, and of a phase: each costs a look at all pages.
constexpr double kLeastSeconds = 0.01;

/// Classes 1 to 255 are rates from kLeastRate on, evenly by their logarithm: off by 5 % at most.
constexpr double kLeastRate = 1e-4, kMostRate = 1e7;

std::uint8_t class_of(double rate) {
  const double part = std::log(rate / kLeastRate) / std::log(kMostRate / kLeastRate);
  return static_cast<std::uint8_t>(1 + std::lround(254 * std::clamp(part, 0.0, 1.0)));
}

double rate_of(std::size_t cls) {
  if (cls == 0) return 0;
  return kLeastRate * std::pow(kMostRate / kLeastRate, static_cast<double>(cls - 1) / 254);
}

double median(std::vector<double>& of) {
  const auto middle = of.begin() + static_cast<std::ptrdiff_t>(of.size() / 2);
  std::nth_element(of.begin(), middle, of.end());
  return *middle;
}

/// Times in seconds as floating point: a recording may claim any.
struct Pass {
  Epoch epoch;
  double time = 0, window = 0;
  bool cleared = false;
  std::size_t slice = kNoSlice;
};

double seconds_of(Nanoseconds time) {
  return static_cast<double>(time.count()) * 1e-9;
}

/// A stretch of time of one address space.
struct Slice {
  double begin = 0, watched = 0;  ///< when it begins, and the windows' lengths together; seconds
  unsigned windows = 0;
  std::vector<std::uint8_t> classes;  ///< of each of the address space's pages
};

struct Block {
  std::uint64_t number = 0;
  BlockBits present{};
  std::uint64_t first = 0;  ///< number of its first page that was there, among the address space's
};

struct Space {
  std::map<std::size_t, Pass> passes;  ///< by number
  std::map<std::uint64_t, BlockBits> present;
  std::vector<Block> blocks;
  std::uint64_t pages = 0;
  std::vector<Slice> slices;
  // While slices are filled.
  std::size_t open = kNoSlice;
  std::vector<std::uint8_t> touched;
};

/// Calls visit(number of a block of 2 MiB, bits that are set in it) for one map of a record; false
/// ends it.
template <class Visit>
void for_each_block(const RecordView& record, const RecordMap& map, Visit visit) {
  if (record.order != kOrder4K) {
    const std::uint64_t blocks = record.order.pages().get() / kBlockEntries;
    BlockBits all;
    all.fill(~std::uint64_t{0});
    for (std::uint32_t e = 0; e < record.count; ++e) {
      const std::uint64_t first = record.first.get() / kBlockEntries + e * blocks;
      for (std::uint64_t b = 0; map.test(e) && b < blocks; ++b)
        if (!visit(first + b, all)) return;
    }
    return;
  }
  for (std::uint64_t entry = 0; entry < record.count;) {
    const std::uint64_t page = record.first.get() + entry, low = page % kBlockEntries;
    const std::uint64_t n = std::min<std::uint64_t>(kBlockEntries - low, record.count - entry);
    const BlockBits bits = block_bits(map, entry, low, n);
    if (any_set(bits) && !visit(page / kBlockEntries, bits)) return;
    entry += n;
  }
}

class Reading {
 public:
  Reading(RecordSource& source, Bytes largest_memory) : source_(source), largest_(largest_memory) {}

  Status read_pages() {
    // A page takes a byte at least.
    const std::uint64_t most = std::min(kMostPages, largest_.get()) / kBlockEntries;
    std::uint64_t blocks = 0;
    TC_TRY(for_each_record(source_, [&](const RecordView& record, const RecordPlace& place) {
      Space& space = spaces[record.asid];
      space.passes.try_emplace(
          place.pass, Pass{record.epoch, seconds_of(record.scan_time), seconds_of(record.window),
                           record.cleared, kNoSlice});
      for_each_block(record, record.present, [&](std::uint64_t number, const BlockBits& bits) {
        const auto [it, is_new] = space.present.try_emplace(number);
        it->second = combine(it->second, bits, kOr);
        blocks += is_new;
        return blocks <= most;
      });
    }));
    for (auto& [asid, space] : spaces) {
      for (const auto& [number, present] : space.present) {
        space.blocks.push_back({number, present, space.pages});
        for (const std::uint64_t word : present)
          space.pages += static_cast<std::uint64_t>(std::popcount(word));
      }
      space.present.clear();
      pages += space.pages;
    }
    std::erase_if(spaces, [](const auto& entry) { return entry.second.pages == 0; });
    if (blocks > most)
      return fail(ErrorKind::kFailure, "tells of more than {} pages, which no simulation takes",
                  most * kBlockEntries);
    if (pages < kFewestPages)
      return fail(ErrorKind::kFailure, "tells of {} pages; a simulation wants {} at least", pages,
                  kFewestPages);
    return {};
  }

  Status cut_time() {
    std::vector<double> lengths;
    for (const auto& [asid, space] : spaces)
      for (const auto& [number, pass] : space.passes)
        if (pass.cleared && pass.window > 0) lengths.push_back(pass.window);
    if (lengths.empty())
      return fail(ErrorKind::kFailure,
                  "has no window of known length: nothing tells how often pages were touched");
    const double longest = kLongest * median(lengths);
    double last = -std::numeric_limits<double>::infinity();
    begin = std::numeric_limits<double>::infinity();
    for (auto& [asid, space] : spaces) {
      Epoch epoch;
      for (auto& [number, pass] : space.passes) {
        if (!pass.cleared || pass.window <= 0 || pass.window > longest) continue;
        const bool full = !space.slices.empty() &&
                          (space.slices.back().windows >= kMostWindows ||
                           (pass.epoch != epoch && space.slices.back().windows >= kFewestWindows));
        if (space.slices.empty() || full)
          space.slices.push_back({pass.time - pass.window, 0, 0, {}});
        Slice& slice = space.slices.back();
        ++slice.windows;
        slice.watched += pass.window;
        epoch = pass.epoch;
        pass.slice = space.slices.size() - 1;
        last = std::max(last, pass.time);
        begin = std::min(begin, slice.begin);
      }
    }
    seconds = last - begin;
    if (!(seconds >= kLeastSeconds))
      return fail(ErrorKind::kFailure, "tells of {:.3g} s only, too little to simulate",
                  std::max(seconds, 0.0));
    return {};
  }

  Status check_memory() const {
    std::uint64_t need = 0, slices = 0;
    for (const auto& [asid, space] : spaces) {
      need += space.pages * (space.slices.size() + 1);
      slices = std::max(slices, space.slices.size());
    }
    if (need <= largest_.get()) return {};
    return fail(ErrorKind::kFailure,
                "has {} pages and up to {} slices of time, which takes {} of memory, more than {}; "
                "record fewer processes or a shorter time",
                pages, slices, format_bytes(Bytes(need)), format_bytes(largest_));
  }

  Status read_touches() {
    TC_TRY(for_each_record(source_, [&](const RecordView& record, const RecordPlace& place) {
      const auto found = spaces.find(record.asid);
      if (found == spaces.end()) return;
      Space& space = found->second;
      const std::size_t slice = space.passes.at(place.pass).slice;
      if (slice == kNoSlice) return;
      if (slice != space.open) {
        close(space);
        space.open = slice;
        space.touched.assign(space.pages, 0);
      }
      auto at = space.blocks.begin();
      for_each_block(record, record.accessed, [&](std::uint64_t number, const BlockBits& bits) {
        at = std::lower_bound(at, space.blocks.end(), number,
                              [](const Block& b, std::uint64_t n) { return b.number < n; });
        std::uint64_t page = at->first;
        for (std::size_t w = 0; w < kBlockWords; ++w) {
          for (std::uint64_t word = bits[w]; word != 0; word &= word - 1) {
            const std::uint64_t below = (word & -word) - 1;
            ++space.touched[page +
                            static_cast<std::uint64_t>(std::popcount(at->present[w] & below))];
          }
          page += static_cast<std::uint64_t>(std::popcount(at->present[w]));
        }
        return true;
      });
    }));
    for (auto& [asid, space] : spaces) close(space);
    return {};
  }

  std::map<Asid, Space> spaces;
  std::uint64_t pages = 0;
  double begin = 0;    ///< of the first window that counts
  double seconds = 0;  ///< from there to the end of the last

 private:
  static void close(Space& space) {
    if (space.open == kNoSlice) return;
    Slice& slice = space.slices[space.open];
    const double windows = slice.windows;
    const double length = slice.watched / windows;
    std::array<std::uint8_t, 256> of{};
    for (std::size_t k = 1; k < of.size(); ++k) {
      const double share = std::min(static_cast<double>(k), windows - 0.5) / windows;
      of[k] = class_of(-std::log1p(-share) / length);
    }
    slice.classes.resize(space.pages);
    std::transform(space.touched.begin(), space.touched.end(), slice.classes.begin(),
                   [&](std::uint8_t k) { return of[k]; });
    space.open = kNoSlice;
  }

  RecordSource& source_;
  Bytes largest_;
};

/// What is played: all address spaces' slices, and when they begin.
struct Tape {
  struct Track {
    Tenant tenant;
    std::vector<double> begins;  ///< seconds
    std::vector<std::vector<std::uint8_t>> classes;
  };
  std::vector<Track> tracks;
  std::uint64_t pages = 0;
  double phase_s = 0;
  std::uint64_t phases = 1;

  /// The slices that are played in the middle of a phase.
  void fill(std::uint64_t number, Phase& phase) const {
    const double time = (static_cast<double>(number % phases) + 0.5) * phase_s;
    phase.classes.resize(pages);
    phase.sweeps.clear();
    for (const Track& track : tracks) {
      const auto next = std::upper_bound(track.begins.begin(), track.begins.end(), time);
      const auto slice = std::max<std::ptrdiff_t>(next - track.begins.begin(), 1) - 1;
      std::copy(track.classes[static_cast<std::size_t>(slice)].begin(),
                track.classes[static_cast<std::size_t>(slice)].end(),
                phase.classes.begin() + static_cast<std::ptrdiff_t>(track.tenant.first));
    }
    const double all = rate(phase.classes);
    for (std::size_t c = 0; c < kClasses; ++c) phase.share[c] = all > 0 ? rate_of(c) / all : 0;
    if (all <= 0) phase.share[0] = 1 / static_cast<double>(pages);
  }

  static double rate(const std::vector<std::uint8_t>& classes) {
    std::array<std::uint64_t, kClasses> of{};
    for (const std::uint8_t c : classes) ++of[c];
    double all = 0;
    for (std::size_t c = 0; c < kClasses; ++c) all += rate_of(c) * static_cast<double>(of[c]);
    return all;
  }

  /// Mean over `seconds`; a slice lasts until the next one.
  [[nodiscard]] double mean_rate(double seconds) const {
    double all = 0;
    for (const Track& track : tracks)
      for (std::size_t s = 0; s < track.begins.size(); ++s) {
        const double from = s == 0 ? 0 : track.begins[s];
        const double to =
            std::min(seconds, s + 1 < track.begins.size() ? track.begins[s + 1] : seconds);
        all += rate(track.classes[s]) * std::max(0.0, to - from);
      }
    return all / seconds;
  }
};

Tape tape_of(Reading& reading) {
  Tape tape;
  tape.pages = reading.pages;
  std::vector<double> steps;
  std::size_t most = 1;
  std::uint64_t first = 0;
  for (auto& [asid, space] : reading.spaces) {
    Tape::Track track;
    track.tenant = {first, space.pages};
    first += space.pages;
    for (Slice& slice : space.slices) {
      track.begins.push_back(slice.begin - reading.begin);
      if (track.begins.size() > 1)
        steps.push_back(track.begins.back() - track.begins[track.begins.size() - 2]);
      // A slice whose passes told of nothing.
      slice.classes.resize(space.pages);
      track.classes.push_back(std::move(slice.classes));
    }
    // All its windows were too long to count: nothing is known of it.
    if (track.classes.empty()) track.begins = {0}, track.classes.emplace_back(space.pages, 0);
    most = std::max(most, track.begins.size());
    tape.tracks.push_back(std::move(track));
  }
  if (!steps.empty()) {
    const double step = std::max(median(steps), kLeastSeconds);
    constexpr double kFiner = 4;  // than slices on average, at most
    tape.phases = static_cast<std::uint64_t>(
        std::clamp(std::floor(reading.seconds / step), 1.0, kFiner * static_cast<double>(most)));
  }
  tape.phase_s = reading.seconds / static_cast<double>(tape.phases);
  return tape;
}

}  // namespace

Result<std::shared_ptr<const Recorded>> read_recorded(RecordSource& source, const std::string& file,
                                                      Bytes largest_memory) {
  Reading reading(source, largest_memory);
  TC_TRY(reading.read_pages());
  TC_TRY(reading.cut_time());
  TC_TRY(reading.check_memory());
  TC_TRY(reading.read_touches());
  const auto tape = std::make_shared<const Tape>(tape_of(reading));

  const auto recorded = std::make_shared<Recorded>();
  std::uint64_t mark = tape->pages;
  for (const Tape::Track& track : tape->tracks)
    for (const auto& classes : track.classes)
      for (const std::uint8_t c : classes) mark = spread(mark ^ c);
  recorded->name = fmt::format("trace:{}@{:08x}", file.substr(file.rfind('/') + 1), mark >> 32);
  recorded->pages = tape->pages;
  recorded->processes = tape->tracks.size();
  recorded->phases = tape->phases;
  recorded->seconds = reading.seconds;
  recorded->least_rate = tape->mean_rate(reading.seconds);
  if (!(recorded->least_rate > 0))
    return fail(ErrorKind::kFailure, "tells of no touch: there is nothing to simulate");
  recorded->kind.name = recorded->name;
  recorded->kind.summary = "what was recorded";
  recorded->kind.make = [tape, name = recorded->name](const Settings&, std::uint64_t,
                                                      std::uint64_t) {
    Workload workload;
    workload.kind = name;
    workload.pages = tape->pages;
    for (const Tape::Track& track : tape->tracks) workload.tenants.push_back(track.tenant);
    if (tape->phases > 1) workload.first_phase_s = workload.later_phase_s = tape->phase_s;
    workload.fill = [tape](std::uint64_t number, Phase& into) { tape->fill(number, into); };
    return workload;
  };
  return recorded;
}

double think_ns_for(const Machine& machine, AccessRate rate) {
  const double stall = machine.tiers.front().latency_ns / machine.mlp;
  return std::max(0.0, machine.threads / rate * 1e9 - stall);
}

}  // namespace thermocline::sim
