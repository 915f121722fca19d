// SPDX-License-Identifier: Apache-2.0
// DAMON looks at one page of each region in each sample, and counts in how many samples of an
// aggregation that page had been accessed. Pages of a region share its answer as far as one can be
// given:
//   at least half of the samples found one   -> every page was touched
//   none did, in 60 samples or more          -> every page is idle: with a chance of 95 %, less
//   than
//                                               1 page in 20 is touched in the time of a sample
//   anything between                         -> seldom touched, or only a part of it: unknown.
//
// Results come through the tracepoint damon_aggregated, not through tried_regions in sysfs: that
// has the writer wait for the end of an aggregation and then for a timer of 100 ms, with everything
// else that this process does, and is four files to open for each region. The ring is read without
// a wait, and its descriptor ends with this process.
#include "tracking/damon_tracker.h"

#include <algorithm>
#include <map>

#include "base/text.h"
#include "tracking/damon_control.h"
#include "tracking/damon_events.h"
#include "tracking/proc_tracker.h"

namespace thermocline {

namespace {

constexpr unsigned kSamples = DamonControl::kSamples;
constexpr std::uint64_t kIdleSamples = 60;
/// Older results are not told: the thread is late, or they were lost.
constexpr Nanoseconds kFresh = 5 * DamonControl::kSample * kSamples;
/// Some 2 s of 1000 regions.
constexpr std::size_t kRingBytes = kPageSize + 1024 * 1024;

const std::string kEvent = "/sys/kernel/tracing/events/damon/damon_aggregated/";

Evidence evidence_of(const DamonRegion& region) {
  if (region.accesses >= kSamples / 2) return Evidence::kTouched;
  const bool idle =
      region.accesses == 0 && (std::uint64_t{region.aggregations} + 1) * kSamples >= kIdleSamples;
  return idle ? Evidence::kIdle : Evidence::kUnknown;
}

/// What DAMON tells of one address space.
struct Regions {
  std::vector<DamonRegion> coming;  ///< of the aggregation that is being told
  std::vector<DamonRegion> last;    ///< of the last one that was told whole, by rising address
  Nanoseconds time{};               ///< of `last`
};

struct Tracepoint {
  std::uint64_t id = 0;
  DamonEventFormat format;
};

Result<Tracepoint> find_tracepoint(const System& system) {
  const auto id = system.read_file(kEvent + "id");
  if (!id && id.error().kind == ErrorKind::kNotFound)
    return fail(ErrorKind::kUnsupported,
                "tracefs is not mounted, or lacks DAMON's tracepoint: mount -t tracefs tracefs "
                "/sys/kernel/tracing");
  if (!id) return tl::make_unexpected(id.error());
  TC_ASSIGN(const std::uint64_t number, parse_u64(trim(*id)));
  TC_ASSIGN(const std::string text, system.read_file(kEvent + "format"));
  TC_ASSIGN(DamonEventFormat format, DamonEventFormat::parse(text));
  return Tracepoint{number, format};
}

class DamonTracker final : public ProcTracker {
 public:
  DamonTracker(System& system, Tracepoint tracepoint, PresentPages pages, DamonControl control)
      : ProcTracker(system, std::move(pages)),
        tracepoint_(tracepoint),
        control_(std::move(control)) {}

  const std::string& name() const override {
    static const std::string kName = "damon";
    return kName;
  }

  Status attach(const ProcessIdentity& process) override {
    TC_TRY(ProcTracker::attach(process));
    const Status watched = watch();
    if (watched) return {};
    TC_ASSIGN(const Attachment* attachment, attachments_.find(process.asid));
    const Status there = attachment->process.check(system_);
    attachments_.erase(process.asid);
    (void)watch();
    return there ? watched : there;
  }

  void detach(Asid asid) override {
    const auto attachment = attachments_.find(asid);
    if (!attachment) return;
    // One that has exited is skipped by DAMON: to begin anew for it would forget what is known of
    // others.
    const bool lives = (*attachment)->process.check(system_).has_value();
    attachments_.erase(asid);
    regions_.erase(asid);
    if (lives || attachments_.empty()) (void)watch();
  }

 private:
  static void paint(std::span<const DamonRegion> regions, const PageStretch& stretch,
                    std::span<Evidence> into) {
    const Vpn end = stretch.first + PageCount(into.size());
    auto region = std::upper_bound(regions.begin(), regions.end(), stretch.first,
                                   [](Vpn at, const DamonRegion& r) { return at < r.end; });
    for (; region != regions.end() && region->first < end; ++region) {
      const auto from = (std::max(region->first, stretch.first) - stretch.first).get();
      const auto to = (std::min(region->end, end) - stretch.first).get();
      std::fill(into.begin() + static_cast<std::ptrdiff_t>(from),
                into.begin() + static_cast<std::ptrdiff_t>(to), evidence_of(*region));
    }
  }

  Status look(Scan& scan) override {
    drain();
    scan.header.cleared = false;
    const auto found = regions_.find(scan.request.asid);
    const bool fresh =
        found != regions_.end() && scan.header.scan_time - found->second.time <= kFresh;
    return tell(scan, [&](const PageStretch& stretch, std::span<Evidence> into) {
      if (fresh) paint(found->second.last, stretch, into);
    });
  }
  /// Nothing has to be.
  Status clear(const FollowedProcess&) override { return {}; }

  [[nodiscard]] Status watch();
  void drain();
  void take(Nanoseconds time, const DamonRegion& region);

  Tracepoint tracepoint_;
  DamonControl control_;
  std::map<Asid, Regions> regions_;  ///< of those that DAMON was asked to watch
  std::vector<Asid> targets_;        ///< what DAMON's target numbers stand for
  UniqueFd fd_;
  SharedMapping mapping_;
  std::optional<PerfRing> ring_;
};

/// Has DAMON watch what is attached and lives.
Status DamonTracker::watch() {
  ring_.reset();
  mapping_ = SharedMapping();
  fd_.reset();
  targets_.clear();
  std::vector<Pid> pids;
  regions_.clear();
  for (const auto& [asid, attachment] : attachments_) {
    if (!attachment.process.check(system_)) continue;
    regions_[asid];
    targets_.push_back(asid);
    pids.push_back(attachment.process.identity().pid);
  }
  TC_TRY(control_.watch(pids));
  if (pids.empty()) return {};
  TC_ASSIGN(const Pid thread, control_.thread());
  TC_ASSIGN(fd_, system_.open_tracepoint(tracepoint_.id, thread));
  TC_ASSIGN(mapping_, system_.map_device(fd_.get(), kRingBytes));
  TC_ASSIGN(ring_, PerfRing::open(mapping_.bytes()));
  return {};
}

void DamonTracker::drain() {
  if (!ring_) return;
  const bool lost = ring_->drain([this](Nanoseconds time, std::span<const std::byte> raw) {
    if (const auto region = tracepoint_.format.region(raw)) take(time, *region);
  });
  if (!lost) return;
  for (auto& [asid, regions] : regions_) regions.coming.clear();
}

void DamonTracker::take(Nanoseconds time, const DamonRegion& region) {
  if (region.target >= targets_.size()) return;
  const auto found = regions_.find(targets_[region.target]);
  if (found == regions_.end()) return;
  Regions& regions = found->second;
  auto& coming = regions.coming;
  // They come by rising address: one that does not begins the next aggregation.
  if (!coming.empty() &&
      (region.first < coming.back().end || region.regions != coming.back().regions))
    coming.clear();
  coming.push_back(region);
  if (coming.size() < region.regions) return;
  std::swap(regions.last, coming);
  coming.clear();
  regions.time = time;
}

Status probe(System& system, const TrackerOptions&) {
  TC_TRY(DamonControl::probe(system));
  TC_TRY(find_tracepoint(system));
  return {};
}

}  // namespace

TrackerFactory damon_tracker_factory() {
  TrackerFactory factory;
  factory.name = "damon";
  factory.summary =
      "regions that the kernel's DAMON finds busy or idle by looking at single pages of them";
  factory.abilities.grain = TrackerAbilities::Grain::kRegion;
  factory.abilities.clears_ranges = true;
  factory.abilities.knows_nodes = true;
  factory.abilities.privilege =
      "root; a kernel with DAMON_VADDR and DAMON_SYSFS (Debian's since 6.12); DAMON used by nobody "
      "else";
  factory.abilities.cannot_see =
      "which pages of a region were touched: one where less than half of the samples found a touch "
      "is "
      "unknown, until none did for 0.6 s; what happened in a certain window, as it samples by a "
      "clock of "
      "its own; idle memory of a file or shared; huge pages are told as small ones";
  factory.probe = probe;
  factory.make = [](System& system,
                    const TrackerOptions& options) -> Result<std::unique_ptr<Tracker>> {
    if (options.flush == TrackerOptions::Flush::kOn)
      return fail(ErrorKind::kUsage,
                  "tracker.flush = true, but the tracker damon can't flush: leave it out");
    TC_ASSIGN(const Tracepoint tracepoint, find_tracepoint(system));
    TC_ASSIGN(PresentPages pages, PresentPages::make(system));
    TC_ASSIGN(DamonControl control, DamonControl::take(system));
    return std::make_unique<DamonTracker>(system, tracepoint, std::move(pages), std::move(control));
  };
  return factory;
}

}  // namespace thermocline
