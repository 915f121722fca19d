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

#include "tracking/proc_tracker.h"

namespace thermocline {

namespace {

class WrittenTracker final : public ProcTracker {
 public:
  WrittenTracker(System& system, PresentPages pages) : ProcTracker(system, std::move(pages)) {}

  const std::string& name() const override {
    static const std::string kName = "written";
    return kName;
  }

 private:
  Status look(Scan& scan) override {
    scan.header.writes_only = true;
    return tell(scan, [](const PageStretch& stretch, std::span<Evidence> into) {
      for (std::size_t i = 0; i < into.size(); ++i)
        into[i] = stretch.entries[i].soft_dirty ? Evidence::kTouched : Evidence::kIdle;
    });
  }
  Status clear(const FollowedProcess& process) override {
    return system_.write_file(process.proc_path("clear_refs"), "4");
  }
};

/// A page that was just written is soft-dirty, if this kernel keeps such bits: nothing is cleared
/// here.
Status probe(System& system, const TrackerOptions& = {}) {
  if (!system.exists("/proc/self/clear_refs"))
    return fail(ErrorKind::kUnsupported, "this kernel has no /proc/PID/clear_refs");
  TC_ASSIGN(const OwnPage own, look_at_own_page(system));
  if (!own.entry.present || !own.entry.soft_dirty)
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
  factory.abilities.marks = TrackerAbilities::Marks::kWritten;
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
    if (options.flush == TrackerOptions::Flush::kOn)
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
