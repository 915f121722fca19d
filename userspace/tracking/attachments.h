// SPDX-License-Identifier: Apache-2.0
// What every tracker does alike: keeps something of each address space that it follows, and heads
// the records of a scan.
#pragma once

#include <map>
#include <utility>

#include "base/result.h"
#include "base/units.h"
#include "tracking/record.h"
#include "tracking/tracker.h"

namespace thermocline {

/// The header of the records of a scan, as it was asked for.
[[nodiscard]] inline RecordHeader header_of(const ScanRequest& request, Nanoseconds now) {
  RecordHeader header;
  header.asid = request.asid;
  header.epoch = request.epoch;
  header.scan_time = now;
  header.window = request.window;
  header.cleared = request.clear;
  return header;
}

template <class T>
class Attachments {
 public:
  /// Takes the place of one that is there already.
  T& put(Asid asid, T attachment) {
    return map_.insert_or_assign(asid, std::move(attachment)).first->second;
  }
  void erase(Asid asid) { map_.erase(asid); }
  [[nodiscard]] bool empty() const { return map_.empty(); }
  /// kNotFound when it is not attached. Valid until it is erased.
  [[nodiscard]] Result<T*> find(Asid asid) {
    const auto found = map_.find(asid);
    if (found == map_.end())
      return fail(ErrorKind::kNotFound, "address space {:#x} is not attached", asid.get());
    return &found->second;
  }
  [[nodiscard]] auto begin() { return map_.begin(); }
  [[nodiscard]] auto end() { return map_.end(); }

 private:
  std::map<Asid, T> map_;
};

}  // namespace thermocline
