// SPDX-License-Identifier: Apache-2.0
// The contract of every source of access records.
// A tracker looks at one machine; targets are attached one by one. It reports what it saw and
// decides nothing. Called by the engine, from one thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"
#include "tracking/process.h"

namespace thermocline {

struct ScanRange {
  Vpn first;
  PageCount count;
};

struct ScanRequest {
  Asid asid;
  /// Sorted, not overlapping; empty = the whole address space.
  std::span<const ScanRange> ranges;
  bool clear = true;
  Epoch epoch;
  /// Window to write into the records; 0 = the source's own knowledge.
  Nanoseconds window{};
};

/// What one scan did. Adds up.
struct ScanStats {
  std::uint64_t entries = 0;   ///< leaf entries visited
  std::uint64_t accessed = 0;  ///< of these, found accessed
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  PageCount skipped;           ///< pages the source can't look at
  Nanoseconds elapsed{};       ///< time inside the source
  Nanoseconds longest_lock{};  ///< longest hold of the target's mmap lock; 0 = takes none
  ScanStats& operator+=(const ScanStats& o);
};

/// Receives whole records, in the layout of kmod/uapi/thermocline.h. The bytes are valid in the
/// call.
using RecordSink = std::function<void(std::span<const std::byte>)>;

class Tracker {
 public:
  virtual ~Tracker() = default;
  [[nodiscard]] virtual const std::string& name() const = 0;

  /// Start following a process. kNotFound when it is gone or its pid was reused.
  [[nodiscard]] virtual Status attach(const ProcessIdentity& process) = 0;
  /// Stop following it; unknown ids are ignored.
  virtual void detach(Asid asid) = 0;
  /// Read (and clear). kNotFound when the address space is gone: exit or exec; detach then.
  [[nodiscard]] virtual Result<ScanStats> scan(const ScanRequest& request,
                                               const RecordSink& sink) = 0;
};

struct TrackerOptions {
  /// Flush the TLBs of the target's CPUs after clearing. Default false, as the kernel's own ageing.
  /// Requires a source that can; others refuse it (kUsage).
  bool flush = false;
};

/// How a source is made, and whether it works here.
struct TrackerFactory {
  std::string name;
  std::string summary;  ///< one line for `thermocline trackers`
  /// Ok, or a sentence that says why it doesn't work here and what to do.
  std::function<Status(System&)> probe;
  std::function<Result<std::unique_ptr<Tracker>>(System&, const TrackerOptions&)> make;
};

/// All sources, best first.
[[nodiscard]] const std::vector<TrackerFactory>& tracker_factories();

/// Make the named source; "auto" takes the first whose probe succeeds. kUsage for an unknown name,
/// kPermission or kUnsupported, with every reason, when none works here.
[[nodiscard]] Result<std::unique_ptr<Tracker>> make_tracker(System& system, const std::string& name,
                                                            const TrackerOptions& options);

}  // namespace thermocline
