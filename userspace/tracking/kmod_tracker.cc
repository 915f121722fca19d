// SPDX-License-Identifier: Apache-2.0
#include "tracking/kmod_tracker.h"

#include <fcntl.h>

#include <cerrno>
#include <map>

#include "uapi/thermocline.h"

namespace thermocline {

namespace {

/// Room for the records of about 1 GiB of mixed 4 KiB pages a call: large enough that the system
/// call doesn't count, small enough to stay in the cache.
constexpr std::size_t kBufferBytes = 256 * 1024;

std::uint64_t user_pointer(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

Result<UniqueFd> open_module(System& system) {
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
    return fd;
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
  return fd;
}

class KmodTracker final : public Tracker {
 public:
  KmodTracker(System& system, const TrackerOptions& options, UniqueFd module)
      : system_(system),
        options_(options),
        module_(std::move(module)),
        buffer_(kBufferBytes / sizeof(std::uint64_t)) {}

  const std::string& name() const override {
    static const std::string kName = "kmod";
    return kName;
  }

  Status attach(const ProcessIdentity& process) override {
    TC_ASSIGN(UniqueFd fd, open_module(system_));
    thermocline_attach request{};
    request.pid = process.pid.get();
    request.start_ticks = process.start_ticks;
    request.asid = process.asid.get();
    const int rc = system_.ioctl(fd.get(), THERMOCLINE_IOC_ATTACH, &request);
    if (rc < 0)
      return fail_errno(
          -rc, fmt::format("can't attach to process {} ({})", process.pid.get(), process.command));
    attachments_[process.asid] = std::move(fd);
    return {};
  }

  void detach(Asid asid) override { attachments_.erase(asid); }

  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override {
    const auto attachment = attachments_.find(request.asid);
    if (attachment == attachments_.end())
      return fail(ErrorKind::kNotFound, "address space {:#x} is not attached", request.asid.get());
    if (request.ranges.size() > THERMOCLINE_SCAN_MAX_RANGES)
      return fail(ErrorKind::kUsage, "a scan takes at most {} ranges, not {}",
                  THERMOCLINE_SCAN_MAX_RANGES, request.ranges.size());
    ranges_.clear();
    for (const ScanRange& range : request.ranges)
      ranges_.push_back({range.first.get(), range.count.get()});

    thermocline_scan call{};
    call.flags = (request.clear ? THERMOCLINE_SCAN_CLEAR : 0u) |
                 (request.clear && options_.flush ? THERMOCLINE_SCAN_FLUSH : 0u);
    call.range_count = static_cast<std::uint32_t>(ranges_.size());
    call.ranges = user_pointer(ranges_.data());
    call.epoch = request.epoch.get();
    call.window_ns = static_cast<std::uint64_t>(request.window.count());
    call.buffer = user_pointer(buffer_.data());
    call.buffer_size = buffer_.size() * sizeof(std::uint64_t);

    ScanStats stats;
    do {
      const int rc = system_.ioctl(attachment->second.get(), THERMOCLINE_IOC_SCAN, &call);
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
    return stats;
  }

 private:
  System& system_;
  TrackerOptions options_;
  UniqueFd module_;  // keeps the module in place while there is nothing to attach to
  std::map<Asid, UniqueFd> attachments_;
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
  factory.abilities.privilege = "CAP_SYS_ADMIN and the module";
  factory.abilities.cannot_see =
      "what a second MMU touches (a KVM guest, a device), hugetlbfs, and read() or write() of "
      "files "
      "that are not mapped; a touch through a translation that a CPU has cached, unless "
      "tracker.flush is set";
  factory.probe = [](System& system) -> Status {
    TC_TRY(open_module(system));
    return {};
  };
  factory.make = [](System& system,
                    const TrackerOptions& options) -> Result<std::unique_ptr<Tracker>> {
    TC_ASSIGN(UniqueFd module, open_module(system));
    return std::make_unique<KmodTracker>(system, options, std::move(module));
  };
  return factory;
}

}  // namespace thermocline
