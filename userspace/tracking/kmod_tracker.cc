// SPDX-License-Identifier: Apache-2.0
#include "tracking/kmod_tracker.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <optional>

#include "base/text.h"
#include "tracking/attachments.h"
#include "tracking/ring_reader.h"
#include "tracking/rounds.h"
#include "uapi/thermocline.h"

namespace thermocline {

namespace {

/// Room for the records of about 1 GiB of mixed 4 KiB pages a call: large enough that the system
/// call doesn't count, small enough to stay in the cache.
constexpr std::size_t kBufferBytes = 256 * 1024;

/// A ring holds a whole round, so that a daemon that doesn't get a CPU loses nothing: so many bytes
/// for the records of a table page (512 pages) and pass. It is replaced by a larger one when the
/// process has grown, or when records were lost all the same, up to the largest.
constexpr std::uint64_t kRingBytesATable = 1024;
constexpr std::uint64_t kLargestRing = 16 * 1024 * 1024;
/// When there was no memory for a larger one.
constexpr unsigned kRoundsBeforeGrowing = 16;

std::uint64_t user_pointer(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

/// An open module, and what it can do.
struct Module {
  UniqueFd fd;
  std::uint64_t features = 0;
};

Result<Module> open_module(System& system) {
  auto fd = system.open_device(THERMOCLINE_DEVICE, O_RDWR);
  if (!fd) {
    if (fd.error().kind == ErrorKind::kNotFound)
      return fail(ErrorKind::kUnsupported,
                  "the module is not loaded ({} is not there): load it with `insmod "
                  "thermocline.ko`, built by `make -C kmod`",
                  THERMOCLINE_DEVICE);
    if (fd.error().kind == ErrorKind::kPermission)
      return fail(ErrorKind::kPermission,
                  "not allowed to open {}: run as root; it is root's own, and needs CAP_SYS_ADMIN",
                  THERMOCLINE_DEVICE);
    return tl::make_unexpected(fd.error());
  }
  thermocline_info info{};
  const int rc = system.ioctl(fd->get(), THERMOCLINE_IOC_INFO, &info);
  if (rc < 0)
    return fail_errno(-rc, fmt::format("{} does not answer as thermocline.ko", THERMOCLINE_DEVICE));
  if (info.abi_version != THERMOCLINE_ABI_VERSION ||
      info.record_version != THERMOCLINE_RECORD_VERSION)
    return fail(ErrorKind::kUnsupported,
                "the loaded module speaks interface {} with records {}, this program {} with {}: "
                "load the module that came with this program",
                info.abi_version, info.record_version, THERMOCLINE_ABI_VERSION,
                THERMOCLINE_RECORD_VERSION);
  if ((info.features & THERMOCLINE_FEATURE_SCAN) == 0)
    return fail(ErrorKind::kUnsupported, "the loaded module can't scan on this kernel");
  return Module{std::move(*fd), info.features};
}

ScanStats stats_of(const thermocline_mark& mark) {
  ScanStats stats;
  stats.entries = mark.entries;
  stats.accessed = mark.accessed;
  stats.records = mark.records;
  stats.bytes = mark.bytes;
  stats.skipped = PageCount(mark.skipped_pages);
  stats.elapsed = Nanoseconds(static_cast<std::int64_t>(mark.elapsed_ns));
  stats.longest_lock = Nanoseconds(static_cast<std::int64_t>(mark.max_lock_ns));
  return stats;
}

using LockHolds = decltype(ScanStats::lock_holds);
static_assert(std::tuple_size_v<LockHolds> == THERMOCLINE_STATS_HOLDS);

/// One address space: a file of the module's, and its thread's ring once a round was asked for.
struct Attachment {
  UniqueFd fd;
  SharedMapping mapping;
  std::optional<RingReader> ring;
  Pid pid;
  std::uint64_t ring_bytes = 0;  ///< 0: no ring yet
  unsigned rest = 0;             ///< rounds before another try for a larger one
  bool lost = false;             ///< records, since the ring was made
  Nanoseconds cpu{};             ///< of the thread, as far as it was told
  LockHolds lock_holds{};        ///< as far as they were told
};

/// Their records fit the smallest ring.
constexpr PageCount kFewPages{1024};

class KmodTracker final : public Tracker, public RoundSource {
 public:
  KmodTracker(System& system, const TrackerOptions& options, Module module)
      : system_(system),
        options_(options),
        module_(std::move(module.fd)),
        can_flush_((module.features & THERMOCLINE_FEATURE_FLUSH) != 0),
        can_prune_((module.features & THERMOCLINE_FEATURE_PRUNE) != 0),
        prune_first_flag_((module.features & THERMOCLINE_FEATURE_PRUNE_FIRST) != 0
                              ? THERMOCLINE_SCHEDULE_PRUNE_FIRST
                              : 0u),
        shared_flag_((module.features & THERMOCLINE_FEATURE_SHARED) != 0 ? THERMOCLINE_SCAN_SHARED
                                                                         : 0u),
        buffer_(kBufferBytes / sizeof(std::uint64_t)) {
    if (options.continuous && (module.features & THERMOCLINE_FEATURE_CONTINUOUS) != 0)
      ready_.reset(::epoll_create1(EPOLL_CLOEXEC));
  }

  const std::string& name() const override {
    static const std::string kName = "kmod";
    return kName;
  }

  Status attach(const ProcessIdentity& process) override {
    TC_ASSIGN(Module module, open_module(system_));
    thermocline_attach request{};
    request.pid = process.pid.get();
    request.start_ticks = process.start_ticks;
    request.asid = process.asid.get();
    const int rc = system_.ioctl(module.fd.get(), THERMOCLINE_IOC_ATTACH, &request);
    if (rc < 0)
      return fail_errno(
          -rc, fmt::format("can't attach to process {} ({})", process.pid.get(), process.command));
    Attachment& attachment = attachments_.put(process.asid, {});
    attachment.fd = std::move(module.fd);
    attachment.pid = process.pid;
    if (!ready_) return {};
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = process.asid.get();
    if (::epoll_ctl(ready_.get(), EPOLL_CTL_ADD, attachment.fd.get(), &event) == 0) return {};
    const int error = errno;
    attachments_.erase(process.asid);
    return fail_errno(error, "can't wait for the module");
  }

  void detach(Asid asid) override { attachments_.erase(asid); }

  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override {
    TC_ASSIGN(Attachment * attachment, attachments_.find(request.asid));
    TC_TRY(set_ranges(request.ranges));

    thermocline_scan call{};
    call.flags =
        (request.clear ? THERMOCLINE_SCAN_CLEAR : 0u) |
        (request.clear && options_.flush == TrackerOptions::Flush::kOn ? THERMOCLINE_SCAN_FLUSH
                                                                       : 0u) |
        (request.shared ? shared_flag_ : 0u);
    call.range_count = static_cast<std::uint32_t>(ranges_.size());
    call.ranges = user_pointer(ranges_.data());
    call.epoch = request.epoch.get();
    call.window_ns = static_cast<std::uint64_t>(request.window.count());
    call.buffer = user_pointer(buffer_.data());
    call.buffer_size = buffer_.size() * sizeof(std::uint64_t);

    ScanStats stats;
    do {
      const int rc = system_.ioctl(attachment->fd.get(), THERMOCLINE_IOC_SCAN, &call);
      if (rc < 0)
        return fail_errno(-rc, fmt::format("can't scan address space {:#x}", request.asid.get()));
      stats.entries += call.entries;
      stats.accessed += call.accessed;
      stats.records += call.records;
      stats.bytes += call.bytes;
      stats.skipped += PageCount(call.skipped_pages);
      stats.elapsed += Nanoseconds(static_cast<std::int64_t>(call.elapsed_ns));
      stats.longest_lock =
          std::max(stats.longest_lock, Nanoseconds(static_cast<std::int64_t>(call.max_lock_ns)));
      if (call.bytes > 0)
        sink(std::as_bytes(std::span(buffer_)).first(static_cast<std::size_t>(call.bytes)));
    } while (call.resume_page != 0);
    stats.lock_holds = grown(*attachment).lock_holds;
    return stats;
  }

  bool scans_ranges() const override { return true; }
  RoundSource* rounds() override { return ready_ ? this : nullptr; }
  int ready_fd() const override { return ready_.get(); }

  Status begin_round(const RoundRequest& request) override {
    TC_ASSIGN(Attachment * found, attachments_.find(request.asid));
    Attachment& attachment = *found;
    thermocline_schedule schedule{};
    // The thread scans without a change of address space, so translations that the target's CPU has
    // cached would stay, and hide what is touched most: it flushes unless told not to. Without
    // that, a CPU that has an upper-level entry cached hides a whole block: then each round looks
    // at all.
    const bool flushes = options_.flush != TrackerOptions::Flush::kOff && can_flush_;
    const bool prunes = options_.prune && can_prune_;
    schedule.flags = THERMOCLINE_SCHEDULE_ROUND | THERMOCLINE_SCAN_CLEAR |
                     (flushes ? THERMOCLINE_SCAN_FLUSH : 0u) |
                     (prunes ? THERMOCLINE_SCAN_PRUNE : 0u) |
                     (prunes && flushes && !request.whole ? prune_first_flag_ : 0u) |
                     (request.shared ? shared_flag_ : 0u);
    TC_TRY(set_ranges(request.ranges));
    schedule.range_count = static_cast<std::uint32_t>(ranges_.size());
    schedule.ranges = user_pointer(ranges_.data());
    schedule.windows = request.windows;
    schedule.window_ns = static_cast<std::uint64_t>(request.window.count());
    schedule.epoch = request.epoch.get();
    schedule.budget_ppm =
        std::clamp(static_cast<std::uint32_t>(request.cpu_share * 1e6),
                   std::uint32_t{THERMOCLINE_SCHEDULE_MIN_BUDGET_PPM}, std::uint32_t{1000000});
    schedule.burst_ns = std::min<std::uint64_t>(
        static_cast<std::uint64_t>(request.cpu_burst.count()), THERMOCLINE_SCHEDULE_MAX_NS);
    // A few pages fit any ring; a section of the address space may be large.
    const bool few = !request.ranges.empty() &&
                     (request.ranges.size() > 1 || request.ranges.front().count <= kFewPages);
    const std::uint64_t wanted =
        !few ? std::max(ring_bytes(attachment.pid, request),
                        std::min((attachment.lost ? 2 : 1) * attachment.ring_bytes, kLargestRing))
             : std::max(attachment.ring_bytes, std::uint64_t{THERMOCLINE_RING_MIN_BYTES});
    if (attachment.rest > 0) --attachment.rest;
    if (attachment.ring && wanted > attachment.ring_bytes && attachment.rest == 0) {
      attachment.ring.reset();
      const int rc = system_.ioctl(attachment.fd.get(), THERMOCLINE_IOC_STOP, nullptr);
      if (rc < 0) return fail_errno(-rc, "can't stop a scanning thread");
    }
    if (!attachment.ring) return start(attachment, schedule, wanted);
    const int rc = system_.ioctl(attachment.fd.get(), THERMOCLINE_IOC_CONFIGURE, &schedule);
    if (rc < 0)
      return fail_errno(-rc, fmt::format("can't scan address space {:#x}", request.asid.get()));
    return {};
  }

  void drain(RoundSink& sink) override {
    std::array<epoll_event, 64> events;
    const int n = ::epoll_wait(ready_.get(), events.data(), static_cast<int>(events.size()), 0);
    for (int i = 0; i < n; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      const Asid asid(event.data.u64);
      const auto found = attachments_.find(asid);
      if (!found) continue;
      if ((*found)->ring) drain_one(asid, **found, sink);
      if ((event.events & EPOLLHUP) != 0)
        sink.on_gone(asid, Error{ErrorKind::kNotFound,
                                 fmt::format("address space {:#x} is gone", asid.get())});
    }
  }

 private:
  Status set_ranges(std::span<const ScanRange> ranges) {
    if (ranges.size() > THERMOCLINE_SCAN_MAX_RANGES)
      return fail(ErrorKind::kUsage, "a scan takes at most {} ranges, not {}",
                  THERMOCLINE_SCAN_MAX_RANGES, ranges.size());
    ranges_.clear();
    for (const ScanRange& range : ranges) ranges_.push_back({range.first.get(), range.count.get()});
    return {};
  }

  /// For the process as large as it is now.
  std::uint64_t ring_bytes(Pid pid, const RoundRequest& request) const {
    std::uint64_t pages = 0;
    if (const auto statm = system_.read_file(fmt::format("/proc/{}/statm", pid.get()))) {
      const auto fields = split(*statm, ' ');
      if (fields.size() > 1) pages = parse_u64(fields[1]).value_or(0);
    }
    // A page count that can't be is no reason to overflow.
    const std::uint64_t tables = std::min(pages / 512 + 1, kLargestRing);
    const std::uint64_t round = tables * kRingBytesATable * (request.windows + 1);
    return std::clamp(std::bit_ceil(round), std::uint64_t{THERMOCLINE_RING_MIN_BYTES},
                      kLargestRing);
  }

  /// With a ring of @p bytes, or, when memory is short, of what there is room for: a round that
  /// loses records tells more than none.
  Status start(Attachment& attachment, const thermocline_schedule& schedule, std::uint64_t bytes) {
    thermocline_start request{};
    request.schedule = schedule;
    request.ring_bytes = bytes;
    int rc = system_.ioctl(attachment.fd.get(), THERMOCLINE_IOC_START, &request);
    while (rc == -ENOMEM && request.ring_bytes > THERMOCLINE_RING_MIN_BYTES) {
      request.ring_bytes /= 2;
      attachment.rest = kRoundsBeforeGrowing;
      rc = system_.ioctl(attachment.fd.get(), THERMOCLINE_IOC_START, &request);
    }
    if (rc < 0) return fail_errno(-rc, "can't start a scanning thread");
    attachment.ring_bytes = request.ring_bytes;
    attachment.lost = false;
    const Status mapped = map_ring(attachment, static_cast<std::size_t>(request.map_bytes));
    // A thread that nobody listens to would go on clearing bits.
    if (!mapped) (void)system_.ioctl(attachment.fd.get(), THERMOCLINE_IOC_STOP, nullptr);
    return mapped;
  }

  Status map_ring(Attachment& attachment, std::size_t bytes) {
    TC_ASSIGN(attachment.mapping, system_.map_device(attachment.fd.get(), bytes));
    TC_ASSIGN(attachment.ring, RingReader::open(attachment.mapping.bytes()));
    return {};
  }

  void drain_one(Asid asid, Attachment& attachment, RoundSink& sink) {
    const Status drained = attachment.ring->drain(
        [&](std::span<const std::byte> records) { sink.on_records(asid, records); },
        [&](const thermocline_mark& mark) {
          RoundPass pass;
          pass.epoch = Epoch(mark.epoch);
          pass.pass = mark.pass;
          pass.windows = mark.windows;
          pass.lost_records = mark.dropped_records;
          pass.stats = stats_of(mark);
          if (mark.pass == mark.windows) {
            const Growth since = grown(attachment);
            pass.cpu = since.cpu;
            pass.stats.lock_holds = since.lock_holds;
          }
          attachment.lost = attachment.lost || mark.dropped_records > 0;
          sink.on_pass(asid, pass);
        });
    if (!drained) sink.on_gone(asid, drained.error());
  }

  struct Growth {
    Nanoseconds cpu{};  ///< of the thread
    LockHolds lock_holds{};
  };
  /// Of the module's counts, since this was asked last.
  Growth grown(Attachment& attachment) {
    thermocline_stats stats{};
    if (system_.ioctl(attachment.fd.get(), THERMOCLINE_IOC_STATS, &stats) < 0) return {};
    Growth growth{Nanoseconds(static_cast<std::int64_t>(stats.cpu_ns)) - attachment.cpu, {}};
    attachment.cpu += growth.cpu;
    for (std::size_t i = 0; i < growth.lock_holds.size(); ++i)
      growth.lock_holds[i] =
          stats.holds[i] - std::exchange(attachment.lock_holds[i], stats.holds[i]);
    return growth;
  }

  System& system_;
  TrackerOptions options_;
  UniqueFd module_;  // keeps the module in place while there is nothing to attach to
  bool can_flush_;
  bool can_prune_;
  std::uint32_t prune_first_flag_;
  std::uint32_t shared_flag_;
  UniqueFd ready_;  // epoll of all attachments; none without continuous mode
  Attachments<Attachment> attachments_;
  std::vector<thermocline_range> ranges_;
  std::vector<std::uint64_t> buffer_;  // 8-byte aligned, as the module asks
};

}  // namespace

TrackerFactory kmod_tracker_factory() {
  TrackerFactory factory;
  factory.name = "kmod";
  factory.summary = "accessed bits, read and cleared by thermocline.ko";
  factory.abilities.one_pass = true;
  factory.abilities.clears_ranges = true;
  factory.abilities.knows_nodes = true;
  // Of docs/performance.md, all accessed: 3.4 ns to read an entry, 13.8 ns to clear it as well.
  factory.abilities.cost = ScanCost{std::chrono::microseconds(890), std::chrono::microseconds(2700),
                                    "modelled (memory 100 ns away, Linux 6.12), all pages touched; "
                                    "of pages that weren't, 870 us in all: kmod-instructions in "
                                    "docs/performance.md"};
  factory.abilities.privilege = "CAP_SYS_ADMIN and the module";
  factory.abilities.cannot_see =
      "what a second MMU touches (a KVM guest, a device), hugetlbfs, and read() or write() of "
      "files that are not mapped; where it doesn't flush (scans by system call, unless "
      "tracker.flush "
      "= true), a touch through a translation that a CPU has cached";
  factory.probe = [](System& system, const TrackerOptions&) -> Status {
    TC_TRY(open_module(system));
    return {};
  };
  factory.make = [](System& system,
                    const TrackerOptions& options) -> Result<std::unique_ptr<Tracker>> {
    TC_ASSIGN(Module module, open_module(system));
    if (options.flush == TrackerOptions::Flush::kOn &&
        (module.features & THERMOCLINE_FEATURE_FLUSH) == 0)
      return fail(
          ErrorKind::kUsage,
          "tracker.flush = true, but the module can't flush with this kernel and processor: "
          "leave it out");
    return std::make_unique<KmodTracker>(system, options, std::move(module));
  };
  return factory;
}

}  // namespace thermocline
