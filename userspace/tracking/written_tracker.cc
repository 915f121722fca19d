// SPDX-License-Identifier: Apache-2.0
// To clear, the kernel takes the right to write from every page of the process; the first write to
// a page then faults, and sets its soft-dirty bit. So each window costs the program a short fault
// for each page that it writes. Accessed bits stay as they are: the kernel's own page ageing
// notices nothing.
//
// The other way to see writes, userfaultfd's asynchronous write protection with PAGEMAP_SCAN (6.7),
// is not open to an observer: a userfaultfd belongs to the address space of the process that made
// it, so only the program itself could register its memory.
#include "tracking/written_tracker.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <map>

#include "tracking/followed_process.h"
#include "tracking/present_pages.h"
#include "tracking/record.h"

namespace thermocline {

namespace {

struct Attachment {
  FollowedProcess process;
  std::uint64_t sequence = 0;
};

class WrittenTracker final : public Tracker {
 public:
  WrittenTracker(System& system, PresentPages pages) : system_(system), pages_(std::move(pages)) {}

  const std::string& name() const override {
    static const std::string kName = "written";
    return kName;
  }

  Status attach(const ProcessIdentity& process) override {
    TC_ASSIGN(FollowedProcess followed, FollowedProcess::open(system_, process));
    attachments_.insert_or_assign(process.asid, Attachment{std::move(followed)});
    return {};
  }

  void detach(Asid asid) override { attachments_.erase(asid); }

  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override {
    const auto found = attachments_.find(request.asid);
    if (found == attachments_.end())
      return fail(ErrorKind::kNotFound, "address space {:#x} is not attached", request.asid.get());
    Attachment& attachment = found->second;
    const FollowedProcess& process = attachment.process;
    const Nanoseconds begin = system_.now();
    TC_TRY(process.check(system_));
    TC_ASSIGN(const auto mappings, read_mappings(system_, process));
    RecordHeader header;
    header.asid = request.asid;
    header.epoch = request.epoch;
    header.scan_time = begin;
    header.window = request.window;
    header.cleared = request.clear;
    header.writes_only = true;
    const auto judge = [](const PageStretch& stretch, std::span<Evidence> into) {
      for (std::size_t i = 0; i < into.size(); ++i)
        into[i] = stretch.entries[i].soft_dirty ? Evidence::kTouched : Evidence::kIdle;
    };
    ScanStats stats;
    bytes_.clear();
    std::uint64_t sequence = attachment.sequence;
    TC_TRY(pages_.tell(process, mappings, request.ranges, header, judge, sequence, stats, bytes_));
    // What was read is of this address space only if it is still there.
    TC_TRY(process.check(system_));
    attachment.sequence = sequence;
    if (!bytes_.empty()) sink(bytes_);
    if (request.clear) TC_TRY(system_.write_file(process.proc_path("clear_refs"), "4"));
    stats.elapsed = system_.now() - begin;
    return stats;
  }

 private:
  System& system_;
  PresentPages pages_;
  std::map<Asid, Attachment> attachments_;
  std::vector<std::byte> bytes_;
};

/// A page that was just written is soft-dirty, if this kernel keeps such bits: nothing is cleared
/// here.
Status probe(System& system) {
  if (!system.exists("/proc/self/clear_refs"))
    return fail(ErrorKind::kUnsupported, "this kernel has no /proc/PID/clear_refs");
  TC_ASSIGN(const UniqueFd pagemap, system.open_device("/proc/self/pagemap", O_RDONLY));
  alignas(kPageSize) static std::array<volatile char, kPageSize> page;
  page[0] = 1;
  std::uint64_t raw = 0;
  const Vpn vpn = Vpn::of_address(reinterpret_cast<std::uintptr_t>(page.data()));
  const long n = system.pread(pagemap.get(), std::as_writable_bytes(std::span(&raw, 1)),
                              vpn.get() * sizeof(raw));
  if (n < 0) return fail_errno(static_cast<int>(-n), "can't read /proc/self/pagemap");
  const PagemapEntry entry = parse_pagemap(n == sizeof(raw) ? raw : 0);
  if (!entry.present || !entry.soft_dirty)
    return fail(ErrorKind::kUnsupported,
                "this kernel doesn't note writes to pages: it was built without "
                "CONFIG_MEM_SOFT_DIRTY (Debian's have it)");
  return {};
}

}  // namespace

TrackerFactory written_tracker_factory() {
  TrackerFactory factory;
  factory.name = "written";
  factory.summary = "pages that were written, by the kernel's soft-dirty bits";
  factory.abilities.sees_reads = false;
  factory.abilities.knows_nodes = true;
  factory.abilities.privilege =
      "nothing for processes of the same user, else root; a kernel with MEM_SOFT_DIRTY; nobody "
      "else "
      "who uses soft-dirty bits of that process (CRIU)";
  factory.abilities.cannot_see =
      "reads, so what was not written is never called cold; huge pages are told as small ones; a "
      "mapping made or enlarged in the window looks written as a whole; writes between reading and "
      "clearing; hugetlbfs";
  factory.probe = probe;
  factory.make = [](System& system,
                    const TrackerOptions& options) -> Result<std::unique_ptr<Tracker>> {
    if (options.flush)
      return fail(
          ErrorKind::kUsage,
          "tracker.flush = true, but clearing soft-dirty bits flushes anyway: leave it out");
    TC_TRY(probe(system));
    TC_ASSIGN(PresentPages pages, PresentPages::make(system));
    return std::make_unique<WrittenTracker>(system, std::move(pages));
  };
  return factory;
}

}  // namespace thermocline
