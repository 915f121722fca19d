// SPDX-License-Identifier: Apache-2.0
// A source that watches windows by itself: it is asked for a round, and tells pass by pass what it
// saw while its caller slept. Tracker::rounds() says whether a tracker can; the engine drives it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "base/units.h"
#include "tracking/tracker.h"

namespace thermocline {

/// A clearing pass that opens the first window, then `windows` more, each closing one.
struct RoundRequest {
  Asid asid;
  Epoch epoch;
  /// Sorted, not overlapping; empty = the whole address space. Valid in the call.
  std::span<const ScanRange> ranges;
  bool shared = false;  ///< see ScanRequest
  /// The first pass looks at everything. If not, a source may leave out what nothing was touched in
  /// since its last round, and tell it as idle: where pages lie there is then as last told.
  bool whole = true;
  unsigned windows = 1;  ///< 1..64
  Nanoseconds window{};  ///< from the end of a pass to the begin of the next, 100 us..1 h
  /// Share of one core that the source may take for this address space, 0.0001..1, and what it may
  /// save up of it. It keeps to it by beginning the round later.
  double cpu_share = 1.0;
  Nanoseconds cpu_burst{};
};

/// The end of a pass. All its records have been handed out before.
struct RoundPass {
  Epoch epoch;
  unsigned pass = 0;               ///< 0: its window was the time since the round before
  unsigned windows = 0;            ///< number of the round's last pass
  std::uint64_t lost_records = 0;  ///< of this pass; what they covered is not known
  ScanStats stats;
  Nanoseconds cpu{};  ///< CPU time of the whole round outside this process; with its last pass only
};

class RoundSink {
 public:
  virtual ~RoundSink() = default;
  /// Whole records, in the layout of kmod/uapi/thermocline.h. The bytes are valid in the call.
  virtual void on_records(Asid asid, std::span<const std::byte> records) = 0;
  virtual void on_pass(Asid asid, const RoundPass& pass) = 0;
  /// The address space is gone, or can't be followed any more. Not called for a detached one.
  virtual void on_gone(Asid asid, const Error& why) = 0;
};

class RoundSource {
 public:
  virtual ~RoundSource() = default;
  /// Ask for a round; one under way ends first. kNotFound when the address space is gone.
  [[nodiscard]] virtual Status begin_round(const RoundRequest& request) = 0;
  /// Hand out what has come since the last call, of all address spaces. The sink must not call
  /// back.
  virtual void drain(RoundSink& sink) = 0;
  /// Readable while drain() has something to hand out: a descriptor to poll, or -1.
  [[nodiscard]] virtual int ready_fd() const = 0;
};

}  // namespace thermocline
