// SPDX-License-Identifier: Apache-2.0
#include "tracking/proc_tracker.h"

namespace thermocline {

Status ProcTracker::attach(const ProcessIdentity& process) {
  TC_ASSIGN(FollowedProcess followed, FollowedProcess::open(system_, process));
  attachments_.put(process.asid, Attachment{std::move(followed)});
  return {};
}

Result<ScanStats> ProcTracker::scan(const ScanRequest& request, const RecordSink& sink) {
  TC_ASSIGN(Attachment * attachment, attachments_.find(request.asid));
  const FollowedProcess& process = attachment->process;
  const Nanoseconds begin = system_.now();
  TC_TRY(process.check(system_));
  TC_ASSIGN(auto mappings, read_mappings(system_, process));
  bytes_.clear();
  Scan scan{request, process, std::move(mappings), header_of(request, begin), attachment->sequence,
            {},      bytes_};
  TC_TRY(look(scan));
  // What was read is of this address space only if it is still there.
  TC_TRY(process.check(system_));
  attachment->sequence = scan.sequence;
  if (!bytes_.empty()) sink(bytes_);
  if (request.clear) TC_TRY(clear(process));
  scan.stats.elapsed = system_.now() - begin;
  return scan.stats;
}

}  // namespace thermocline
