// SPDX-License-Identifier: Apache-2.0
// What the trackers share that list the pages of a process through /proc: attaching, the checks
// that what was read is of the address space that is meant, numbering, handing the records on.
#pragma once

#include <span>
#include <vector>

#include "tracking/attachments.h"
#include "tracking/followed_process.h"
#include "tracking/present_pages.h"
#include "tracking/tracker.h"

namespace thermocline {

class ProcTracker : public Tracker {
 public:
  Status attach(const ProcessIdentity& process) override;
  void detach(Asid asid) override { attachments_.erase(asid); }
  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) final;

 protected:
  struct Attachment {
    FollowedProcess process;
    std::uint64_t sequence = 0;
  };

  /// A scan that is under way.
  struct Scan {
    const ScanRequest& request;
    const FollowedProcess& process;
    std::vector<Mapping> mappings;
    RecordHeader header;
    std::uint64_t sequence = 0;  ///< of the next record
    ScanStats stats;
    std::vector<std::byte>& out;
  };

  ProcTracker(System& system, PresentPages pages) : system_(system), pages_(std::move(pages)) {}

  /// Appends the records, usually with tell().
  [[nodiscard]] virtual Status look(Scan& scan) = 0;
  /// Opens the next window, once the records are handed on.
  [[nodiscard]] virtual Status clear(const FollowedProcess& process) = 0;

  [[nodiscard]] Status tell(Scan& scan, const Judge& judge) {
    return pages_.tell(scan.process, scan.mappings, scan.request.ranges, scan.header, judge,
                       scan.sequence, scan.stats, scan.out);
  }

  System& system_;
  PresentPages pages_;
  Attachments<Attachment> attachments_;

 private:
  std::vector<std::byte> bytes_;  ///< kept from scan to scan
};

}  // namespace thermocline
