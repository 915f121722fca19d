// SPDX-License-Identifier: Apache-2.0
// The kernel's rules (Documentation/admin-guide/mm/idle_page_tracking.rst), and what follows:
//   a bit that is set: nobody touched the page since it was marked -> idle, to all who use it;
//   a bit that is not: touched, or never marked. Only pages on an LRU list can be marked, and a
//   huge page only as a whole, by its first frame: /proc/kpageflags tells both. What could not be
//   marked is unknown.
// Pages are marked frame by frame of the followed process; others' marks stay as they are.
#include "tracking/idle_tracker.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <map>

#include "tracking/proc_tracker.h"

namespace thermocline {

namespace {

const std::string kBitmap = "/sys/kernel/mm/page_idle/bitmap";
const std::string kFlags = "/proc/kpageflags";
constexpr std::uint64_t kLru = std::uint64_t{1} << 5, kTail = std::uint64_t{1} << 16;
/// The first frame of a huge page is looked for so far back: 2 MiB.
constexpr std::uint64_t kMostBack = 512;

/// Words of a file of 8-byte words that is read in the order in which it is asked for, mostly
/// rising: a few at a time, as those in between are not wanted.
class Words {
 public:
  Words(const System& system, int fd) : system_(system), fd_(fd) {}
  /// Also at an error, and beyond the end: 0. Then the page is unknown.
  std::uint64_t at(std::uint64_t index) {
    if (index < first_ || index - first_ >= count_) {
      first_ = index / buffer_.size() * buffer_.size();
      const long n = system_.pread(fd_, std::as_writable_bytes(std::span(buffer_)), first_ * 8);
      count_ = n < 0 ? 0 : static_cast<std::uint64_t>(n) / 8;
    }
    return index - first_ < count_ ? buffer_[index - first_] : 0;
  }

 private:
  const System& system_;
  int fd_;
  std::array<std::uint64_t, 64> buffer_{};
  std::uint64_t first_ = 0, count_ = 0;
};

class IdleTracker final : public ProcTracker {
 public:
  IdleTracker(System& system, PresentPages pages, UniqueFd bitmap, UniqueFd flags)
      : ProcTracker(system, std::move(pages)),
        bitmap_(std::move(bitmap)),
        flags_(std::move(flags)) {}

  const std::string& name() const override {
    static const std::string kName = "idle";
    return kName;
  }

  void detach(Asid asid) override {
    ProcTracker::detach(asid);
    unmarked_.erase(asid);
  }

 private:
  Status look(Scan& scan) override {
    // One word of the bitmap at a time: to read a bit costs a walk of all who map the page.
    Words flags(system_, flags_.get());
    std::map<std::uint64_t, std::uint64_t> marks;
    std::vector<std::uint64_t>& unmarked = unmarked_[scan.request.asid];
    std::vector<std::uint64_t> unmarked_now;
    mark_.clear();
    TC_TRY(tell(scan, [&](const PageStretch& stretch, std::span<Evidence> into) {
      for (std::size_t i = 0; i < into.size(); ++i) {
        if (!stretch.entries[i].present || stretch.entries[i].pfn == 0) continue;
        const std::uint64_t frame = first_frame(flags, stretch.entries[i].pfn);
        if ((flags.at(frame) & kLru) == 0) {
          unmarked_now.push_back(frame);
          continue;
        }
        if (mark_.empty() || mark_.back() != frame) mark_.push_back(frame);
        const auto [word, is_new] = marks.try_emplace(frame / 64);
        if (is_new) word->second = read_word(frame / 64);
        if (((word->second >> (frame % 64)) & 1) != 0)
          into[i] = Evidence::kIdleToAll;
        else if (!std::binary_search(unmarked.begin(), unmarked.end(), frame))
          into[i] = Evidence::kTouched;
      }
    }));
    if (!scan.request.clear) return {};
    // A scan of a part says nothing of the rest.
    if (!scan.request.ranges.empty())
      unmarked_now.insert(unmarked_now.end(), unmarked.begin(), unmarked.end());
    std::sort(unmarked_now.begin(), unmarked_now.end());
    unmarked = std::move(unmarked_now);
    return {};
  }

  Status clear(const FollowedProcess&) override {
    std::sort(mark_.begin(), mark_.end());
    for (auto at = mark_.begin(); at != mark_.end();) {
      const std::uint64_t index = *at / 64;
      std::uint64_t word = 0;
      for (; at != mark_.end() && *at / 64 == index; ++at) word |= std::uint64_t{1} << (*at % 64);
      const long n =
          system_.pwrite(bitmap_.get(), std::as_bytes(std::span(&word, 1)), index * sizeof(word));
      if (n < 0) return fail_errno(static_cast<int>(-n), "can't write " + kBitmap);
    }
    return {};
  }

  [[nodiscard]] std::uint64_t read_word(std::uint64_t index) const {
    std::uint64_t word = 0;
    const long n = system_.pread(bitmap_.get(), std::as_writable_bytes(std::span(&word, 1)),
                                 index * sizeof(word));
    return n == sizeof(word) ? word : 0;
  }

  static std::uint64_t first_frame(Words& flags, std::uint64_t frame) {
    for (std::uint64_t back = 0; back < kMostBack && back <= frame; ++back)
      if ((flags.at(frame - back) & kTail) == 0) return frame - back;
    return frame;
  }

  UniqueFd bitmap_, flags_;
  std::vector<std::uint64_t> mark_;  ///< frames that the scan under way has told
  /// Frames that the last clearing scan could not mark, sorted.
  std::map<Asid, std::vector<std::uint64_t>> unmarked_;
};

Status probe(System& system, const TrackerOptions&) {
  if (!system.exists(kBitmap))
    return fail(ErrorKind::kUnsupported,
                "this kernel has no {}: it was built without CONFIG_IDLE_PAGE_TRACKING (Debian's "
                "are)",
                kBitmap);
  TC_TRY(system.open_device(kBitmap, O_RDWR));
  TC_TRY(system.open_device(kFlags, O_RDONLY));
  return require_page_frames(system);
}

}  // namespace

TrackerFactory idle_tracker_factory() {
  TrackerFactory factory;
  factory.name = "idle";
  factory.summary = "accessed bits, by the kernel's bitmap of idle pages";
  factory.abilities.clears_ranges = true;
  factory.abilities.knows_nodes = true;
  factory.abilities.privilege =
      "root; a kernel with IDLE_PAGE_TRACKING (Debian's have it off); nobody else who marks pages "
      "idle (DAMON)";
  factory.abilities.cannot_see =
      "pages that are on no LRU list (hugetlbfs, devices; new pages for a moment); touches through "
      "translations that a CPU has cached, and between reading and marking; huge pages are told as "
      "small ones";
  factory.probe = probe;
  factory.make = [](System& system,
                    const TrackerOptions& options) -> Result<std::unique_ptr<Tracker>> {
    if (options.flush == TrackerOptions::Flush::kOn)
      return fail(ErrorKind::kUsage,
                  "tracker.flush = true, but the tracker idle can't flush: leave it out");
    TC_TRY(probe(system, options));
    TC_ASSIGN(UniqueFd bitmap, system.open_device(kBitmap, O_RDWR));
    TC_ASSIGN(UniqueFd flags, system.open_device(kFlags, O_RDONLY));
    TC_ASSIGN(PresentPages pages, PresentPages::make(system));
    return std::make_unique<IdleTracker>(system, std::move(pages), std::move(bitmap),
                                         std::move(flags));
  };
  return factory;
}

}  // namespace thermocline
