// SPDX-License-Identifier: Apache-2.0
// A device counts by its own addresses and knows no processes: page frames of the processes
// (/proc/PID/pagemap) tell whose page a hot unit is. It doesn't see the memory beside it, so pages
// elsewhere are unknown; and a page that it doesn't list is idle only when the list is complete:
// with a threshold, or after an overflow, it was merely less hot than others.
#include "tracking/hmu_tracker.h"

#include <algorithm>
#include <optional>

#include "tracking/hot_list.h"
#include "tracking/proc_tracker.h"

namespace thermocline {

namespace {

/// A list that stays the same for longer is not told: whoever wrote it is gone.
constexpr Nanoseconds kFresh = std::chrono::seconds(10);

class HmuTracker final : public ProcTracker {
 public:
  HmuTracker(System& system, PresentPages pages, std::string path)
      : ProcTracker(system, std::move(pages)), path_(std::move(path)) {}

  const std::string& name() const override {
    static const std::string kName = "hmu";
    return kName;
  }

 private:
  Status look(Scan& scan) override {
    TC_TRY(read_list(scan.header.scan_time));
    scan.header.cleared = false;
    const bool fresh = scan.header.scan_time - since_ <= kFresh;
    const auto judge = [&](const PageStretch& stretch, std::span<Evidence> into) {
      if (!fresh) return;
      for (std::size_t i = 0; i < into.size(); ++i) {
        const std::uint64_t frame = stretch.entries[i].pfn;
        if (frame < list_->first_frame || frame - list_->first_frame >= list_->frames) continue;
        if (std::binary_search(hot_.begin(), hot_.end(), frame))
          into[i] = Evidence::kTouched;
        else if (list_->complete())
          into[i] = Evidence::kIdleToAll;
      }
    };
    return tell(scan, judge);
  }
  /// The device begins its epochs by itself.
  Status clear(const FollowedProcess&) override { return {}; }

  Status read_list(Nanoseconds now) {
    TC_ASSIGN(const std::string text, system_.read_file(path_));
    auto list = parse_hot_list(text);
    if (!list) return fail(list.error().kind, "{}: {}", path_, list.error().message);
    if (!list_ || list_->epoch != list->epoch) since_ = now;
    list_ = std::move(*list);
    hot_ = list_->hot_frames();
    return {};
  }

  std::string path_;
  std::optional<HotList> list_;
  std::vector<std::uint64_t> hot_;  ///< page frames, sorted
  Nanoseconds since_{};             ///< when this epoch's list was first seen
};

Status probe(System& system, const TrackerOptions& options) {
  if (options.hmu_list.empty())
    return fail(ErrorKind::kUnsupported,
                "no hot list is named: set tracker.hmu_list to the file that a stand-in for the "
                "device writes");
  TC_ASSIGN(const std::string text, system.read_file(options.hmu_list));
  const auto list = parse_hot_list(text);
  if (!list) return fail(list.error().kind, "{}: {}", options.hmu_list, list.error().message);
  return require_page_frames(system);
}

}  // namespace

TrackerFactory hmu_tracker_factory() {
  TrackerFactory factory;
  factory.name = "hmu";
  factory.summary =
      "pages of the slow tier that a CXL device counts as hot; emulated: the device's list is a "
      "file that a stand-in writes";
  factory.abilities.clears_ranges = true;
  factory.abilities.knows_nodes = true;
  factory.abilities.marks = TrackerAbilities::Marks::kNone;
  factory.abilities.privilege = "root; a hot list in the file tracker.hmu_list";
  factory.abilities.cannot_see =
      "memory that is not the device's (the fast tier); what was accessed, but not enough to be "
      "listed; what happened in a certain window, as the device counts by epochs of its own; huge "
      "pages are told as small ones";
  factory.automatic = false;
  factory.probe = probe;
  factory.make = [](System& system,
                    const TrackerOptions& options) -> Result<std::unique_ptr<Tracker>> {
    TC_TRY(probe(system, options));
    TC_ASSIGN(PresentPages pages, PresentPages::make(system));
    return std::make_unique<HmuTracker>(system, std::move(pages), options.hmu_list);
  };
  return factory;
}

}  // namespace thermocline
