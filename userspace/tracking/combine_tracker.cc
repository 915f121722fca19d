// SPDX-License-Identifier: Apache-2.0
#include "tracking/combine_tracker.h"

#include <algorithm>
#include <array>

#include "tracking/attachments.h"
#include "tracking/record.h"
#include "uapi/thermocline.h"

namespace thermocline {

namespace {

/// The entries of a scan's records, one after the other. What isn't present is passed over.
class Entries {
 public:
  explicit Entries(std::span<const std::byte> bytes) : reader_(bytes) { settle(); }

  [[nodiscard]] bool done() const { return done_; }
  [[nodiscard]] Vpn first() const { return first_; }
  [[nodiscard]] Vpn end() const { return first_ + order_.pages(); }
  [[nodiscard]] PageOrder order() const { return order_; }
  [[nodiscard]] const EntryObservation& entry() const { return entries_[at_]; }
  void next() {
    ++at_;
    settle();
  }
  [[nodiscard]] Status status() const {
    if (reader_.error()) return tl::make_unexpected(*reader_.error());
    if (falls_) return fail(ErrorKind::kCorrupt, "the records of a scan do not rise");
    return {};
  }

 private:
  void settle() {
    while (at_ == entries_.size() || !entries_[at_].present) {
      if (at_ < entries_.size()) {
        ++at_;
        continue;
      }
      const auto record = reader_.next();
      falls_ = falls_ || (record && record->first < after_);
      done_ = !record || falls_;
      if (done_) return;
      after_ = record->first + record->pages();
      record_first_ = record->first;
      order_ = record->order;
      entries_ = entries_of(*record);
      // What was not written may have been read.
      for (EntryObservation& entry : entries_)
        entry.observable = entry.observable && (!record->writes_only || entry.accessed);
      at_ = 0;
    }
    first_ = record_first_ + PageCount(at_ * order_.pages().get());
  }

  RecordReader reader_;
  std::vector<EntryObservation> entries_;
  std::size_t at_ = 0;
  Vpn record_first_{0}, first_{0}, after_{0};
  PageOrder order_{0};
  bool done_ = false, falls_ = false;
};

/// Builds records of neighbouring entries of one size.
class Joiner {
 public:
  Joiner(const RecordHeader& header, std::uint64_t& sequence, ScanStats& stats,
         std::vector<std::byte>& out)
      : header_(header), sequence_(sequence), stats_(stats), out_(out) {}
  void add(Vpn first, PageOrder order, const EntryObservation& entry) {
    const Vpn end = first_ + PageCount(entries_.size() * order_.pages().get());
    if (!entries_.empty() &&
        (first != end || order != order_ || entries_.size() == THERMOCLINE_RECORD_MAX_ENTRIES))
      flush();
    if (entries_.empty()) {
      first_ = first;
      order_ = order;
    }
    entries_.push_back(entry);
    ++stats_.entries;
    stats_.accessed += entry.accessed;
  }
  void flush() {
    if (entries_.empty()) return;
    const std::size_t before = out_.size();
    RecordWriter(out_).append(header_, sequence_++, first_, order_, entries_);
    ++stats_.records;
    stats_.bytes += out_.size() - before;
    entries_.clear();
  }

 private:
  const RecordHeader& header_;
  std::uint64_t& sequence_;
  ScanStats& stats_;
  std::vector<std::byte>& out_;
  std::vector<EntryObservation> entries_;
  Vpn first_{0};
  PageOrder order_{0};
};

/// An entry, with all of the other source's that lie in it.
EntryObservation merged(const Entries& whole, Entries& parts) {
  EntryObservation entry = whole.entry();
  PageCount known;
  for (; !parts.done() && parts.first() < whole.end(); parts.next()) {
    const EntryObservation& part = parts.entry();
    if (part.observable) known += parts.order().pages();
    entry.accessed = entry.accessed || part.accessed;
    entry.dirty = entry.dirty || part.dirty;
    if (!entry.node) entry.node = part.node;
  }
  entry.observable = entry.observable || entry.accessed || known == whole.order().pages();
  return entry;
}

class CombineTracker final : public Tracker {
 public:
  CombineTracker(System& system, std::unique_ptr<Tracker> a, std::unique_ptr<Tracker> b)
      : system_(system), sources_{std::move(a), std::move(b)} {}

  const std::string& name() const override {
    static const std::string kName = "combine";
    return kName;
  }

  Status attach(const ProcessIdentity& process) override {
    TC_TRY(sources_[0]->attach(process));
    const Status second = sources_[1]->attach(process);
    if (second)
      attachments_.put(process.asid, 0);
    else
      sources_[0]->detach(process.asid);
    return second;
  }

  void detach(Asid asid) override {
    for (const auto& source : sources_) source->detach(asid);
    attachments_.erase(asid);
  }

  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override {
    TC_ASSIGN(std::uint64_t * sequence, attachments_.find(request.asid));
    const Nanoseconds begin = system_.now();
    ScanStats stats;
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      bytes_[i].clear();
      TC_ASSIGN(const ScanStats own,
                sources_[i]->scan(request, [this, i](std::span<const std::byte> records) {
                  bytes_[i].insert(bytes_[i].end(), records.begin(), records.end());
                }));
      stats.skipped = i == 0 ? own.skipped : std::min(stats.skipped, own.skipped);
      stats.longest_lock = std::max(stats.longest_lock, own.longest_lock);
    }
    out_.clear();
    TC_TRY(merge_records(bytes_[0], bytes_[1], header_of(request, begin), *sequence, stats, out_));
    if (!out_.empty()) sink(out_);
    stats.elapsed = system_.now() - begin;
    return stats;
  }

 private:
  System& system_;
  std::array<std::unique_ptr<Tracker>, 2> sources_;
  Attachments<std::uint64_t> attachments_;  ///< number of the next record
  std::array<std::vector<std::byte>, 2> bytes_;
  std::vector<std::byte> out_;
};

using Sources = std::array<const TrackerFactory*, 2>;

Result<Sources> find_sources(const TrackerOptions& options) {
  if (options.sources.empty())
    return fail(ErrorKind::kUnsupported,
                "no sources are named: set tracker.sources to two of them, such as [\"hmu\", "
                "\"refs\"]");
  Sources sources{};
  if (options.sources.size() != sources.size())
    return fail(ErrorKind::kUsage, "tracker.sources wants two sources, not {}",
                options.sources.size());
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const auto& all = tracker_factories();
    const auto found = std::find_if(all.begin(), all.end(), [&](const TrackerFactory& factory) {
      return factory.name == options.sources[i] && factory.name != "combine";
    });
    if (found == all.end())
      return fail(ErrorKind::kUsage,
                  "tracker.sources: \"{}\" can't be combined; see `thermocline trackers`",
                  options.sources[i]);
    sources[i] = &*found;
  }
  const auto [a, b] = sources;
  if (a == b || (a->abilities.marks == b->abilities.marks &&
                 a->abilities.marks != TrackerAbilities::Marks::kNone))
    return fail(ErrorKind::kUsage,
                "tracker.sources: {} and {} take the same marks from the pages, so each would "
                "spoil the other's windows",
                a->name, b->name);
  return sources;
}

}  // namespace

Status merge_records(std::span<const std::byte> a_bytes, std::span<const std::byte> b_bytes,
                     const RecordHeader& header, std::uint64_t& sequence, ScanStats& stats,
                     std::vector<std::byte>& out) {
  Entries a(a_bytes), b(b_bytes);
  Joiner joiner(header, sequence, stats, out);
  while (!a.done() || !b.done()) {
    Entries& early = b.done() || (!a.done() && a.first() < b.first()) ? a : b;
    Entries& late = &early == &a ? b : a;
    // Sizes are powers of two and aligned: of two entries that overlap, one lies in the other.
    const bool swap = !late.done() && late.first() == early.first() && late.order() > early.order();
    Entries& whole = swap ? late : early;
    Entries& parts = swap ? early : late;
    joiner.add(whole.first(), whole.order(), merged(whole, parts));
    whole.next();
  }
  joiner.flush();
  TC_TRY(a.status());
  return b.status();
}

std::unique_ptr<Tracker> make_combine_tracker(System& system, std::unique_ptr<Tracker> a,
                                              std::unique_ptr<Tracker> b) {
  return std::make_unique<CombineTracker>(system, std::move(a), std::move(b));
}

TrackerFactory combine_tracker_factory() {
  TrackerFactory factory;
  factory.name = "combine";
  factory.summary = "two of these merged, so that each tells what the other can't see";
  factory.abilities.knows_nodes = true;
  factory.abilities.privilege = "what its two sources need; their names in tracker.sources";
  factory.abilities.cannot_see = "what neither of its sources can";
  factory.automatic = false;
  factory.probe = [](System& system, const TrackerOptions& options) -> Status {
    TC_ASSIGN(const Sources sources, find_sources(options));
    for (const TrackerFactory* source : sources) {
      const Status works = source->probe(system, options);
      if (!works) return fail(works.error().kind, "{}: {}", source->name, works.error().message);
    }
    return {};
  };
  factory.make = [](System& system,
                    const TrackerOptions& options) -> Result<std::unique_ptr<Tracker>> {
    TC_ASSIGN(const Sources sources, find_sources(options));
    TC_ASSIGN(auto a, sources[0]->make(system, options));
    TC_ASSIGN(auto b, sources[1]->make(system, options));
    return make_combine_tracker(system, std::move(a), std::move(b));
  };
  return factory;
}

}  // namespace thermocline
