// SPDX-License-Identifier: Apache-2.0
#include "tracking/synthetic_tracker.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tracking/attachments.h"
#include "tracking/record.h"
#include "uapi/thermocline.h"

namespace thermocline {

namespace {

/// splitmix64 (Steele, Lea, Flood 2014): a step of it spreads any number over 64 bits.
std::uint64_t spread(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// True with this chance, drawn by three numbers.
bool drawn(double chance, std::uint64_t seed, std::uint64_t a, std::uint64_t b) {
  constexpr double kOne = 9007199254740992.0;  // 2^53: what a double holds exactly
  const std::uint64_t lot = spread(spread(spread(seed) ^ a) ^ b) >> 11;
  return static_cast<double>(lot) < chance * kOne;
}

/// Pages of one record.
constexpr std::uint64_t kRecordPages = 4096;
static_assert(kRecordPages <= THERMOCLINE_RECORD_MAX_ENTRIES);

/// Seeds of lots that have nothing to do with each other.
constexpr std::uint64_t kHotLots = 1, kMissedLots = 2, kRankLots = 3;

class SyntheticTracker final : public Tracker {
 public:
  explicit SyntheticTracker(SyntheticLoad load) : load_(std::move(load)) {}

  const std::string& name() const override {
    static const std::string kName = "synthetic";
    return kName;
  }

  Status attach(const ProcessIdentity& process) override {
    attachments_.put(process.asid, {});
    return {};
  }
  void detach(Asid asid) override { attachments_.erase(asid); }

  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override {
    TC_ASSIGN(Attachment * attachment, attachments_.find(request.asid));
    const RecordHeader header = header_of(request, attachment->time + request.window);
    const ScanRange all{load_.first, load_.pages};
    ScanStats stats;
    bytes_.clear();
    for (const ScanRange& range : request.ranges.empty() ? std::span(&all, 1) : request.ranges) {
      const Vpn end = std::min(range.first + range.count, load_.first + load_.pages);
      for (Vpn at = std::max(range.first, load_.first); at < end;) {
        const Vpn next = std::min(end, at + PageCount(kRecordPages));
        entries_.clear();
        for (Vpn page = at; page < next; page = page + PageCount(1))
          entries_.push_back(look((page - load_.first).get(), attachment->window));
        stats.entries += entries_.size();
        stats.accessed += static_cast<std::uint64_t>(
            std::count_if(entries_.begin(), entries_.end(),
                          [](const EntryObservation& e) { return e.accessed; }));
        RecordWriter(bytes_).append(header, attachment->sequence++, at, kOrder4K, entries_);
        ++stats.records;
        at = next;
      }
    }
    stats.bytes = bytes_.size();
    if (!bytes_.empty()) sink(bytes_);
    if (!request.clear) return stats;
    ++attachment->window;
    attachment->time = header.scan_time;
    return stats;
  }

 private:
  struct Attachment {
    std::uint64_t window = 0, sequence = 0;
    Nanoseconds time{};  ///< when the window began
  };

  [[nodiscard]] EntryObservation look(std::uint64_t page, std::uint64_t window) const {
    EntryObservation entry;
    entry.present = true;
    if (load_.node_of) entry.node = load_.node_of(page);
    entry.observable = window >= load_.delay;
    if (!entry.observable) return entry;
    const std::uint64_t then = window - load_.delay;
    entry.accessed = load_.touched(page, then) &&
                     !drawn(load_.missed, spread(load_.seed) + kMissedLots, page, then);
    return entry;
  }

  SyntheticLoad load_;
  Attachments<Attachment> attachments_;
  std::vector<EntryObservation> entries_;
  std::vector<std::byte> bytes_;
};

}  // namespace

TouchChance uniform_touches(double chance) {
  return [chance](std::uint64_t, std::uint64_t) { return chance; };
}

TouchChance hot_set_touches(double share, double hot, double cold, std::uint64_t seed) {
  return [=](std::uint64_t page, std::uint64_t) {
    return drawn(share, spread(seed) + kHotLots, page, 0) ? hot : cold;
  };
}

TouchChance moving_touches(double share, double hot, double cold, std::uint64_t stay,
                           std::uint64_t seed) {
  return [=](std::uint64_t page, std::uint64_t window) {
    return drawn(share, spread(seed) + kHotLots, page, window / stay) ? hot : cold;
  };
}

TouchChance zipf_touches(PageCount pages, double accesses, double exponent, std::uint64_t seed) {
  double weights = 0;
  for (std::uint64_t r = 1; r <= pages.get(); ++r)
    weights += std::pow(static_cast<double>(r), -exponent);
  // Pages in a row, but for a step that has no factor in common with their number, so that each
  // rank is given once.
  std::uint64_t step = (spread(spread(seed) + kRankLots) % pages.get()) | 1;
  while (std::gcd(step, pages.get()) != 1) step += 2;
  return [=](std::uint64_t page, std::uint64_t) {
    const std::uint64_t rank = page * step % pages.get();
    const double share = std::pow(static_cast<double>(rank + 1), -exponent) / weights;
    return 1 - std::exp(-accesses * share);
  };
}

TouchChance scan_touches(PageCount pages, PageCount step) {
  return [=](std::uint64_t page, std::uint64_t window) {
    const std::uint64_t from = (window % pages.get()) * (step.get() % pages.get()) % pages.get();
    return (page + pages.get() - from) % pages.get() < step.get() ? 1.0 : 0.0;
  };
}

bool SyntheticLoad::touched(std::uint64_t page, std::uint64_t window) const {
  return drawn(chance(page, window), seed, page, window);
}

std::unique_ptr<Tracker> make_synthetic_tracker(SyntheticLoad load) {
  return std::make_unique<SyntheticTracker>(std::move(load));
}

}  // namespace thermocline
