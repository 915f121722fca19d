// SPDX-License-Identifier: Apache-2.0
// Access records that were kept (a trace, or the file of thermoclined.toml's [record]), played as a
// source: each scan tells the next pass over its address space as it was recorded. For programs
// that simulate. The bytes are untrusted.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "tracking/attachments.h"
#include "tracking/record_source.h"
#include "tracking/tracker.h"

namespace thermocline {

class ReplayTracker final : public Tracker {
 public:
  /// What is known of a pass before it is told.
  struct PassHead {
    std::size_t number = 0;  ///< in the recording, over all address spaces
    Epoch epoch;
    Nanoseconds time{};    ///< CLOCK_MONOTONIC of the machine it was recorded on
    Nanoseconds window{};  ///< 0 = not known
    bool cleared = false;
  };

  /// Reads all once, to find the passes. kCorrupt, with the offset, for bytes that are no records;
  /// a cut-off last one is left out.
  [[nodiscard]] static Result<std::unique_ptr<ReplayTracker>> open(
      std::unique_ptr<RecordSource> source);

  /// What was recorded, in order of their numbers.
  [[nodiscard]] std::vector<Asid> address_spaces() const;
  /// The pass that the next scan tells; nullopt when there is none, or it isn't attached.
  [[nodiscard]] std::optional<PassHead> next_pass(Asid asid);
  /// All of an address space, in order; empty when nothing of it was recorded.
  [[nodiscard]] std::vector<PassHead> passes(Asid asid) const;

  [[nodiscard]] const std::string& name() const override;
  /// kNotFound for an address space that the recording doesn't have. Begins at its first pass.
  [[nodiscard]] Status attach(const ProcessIdentity& process) override;
  void detach(Asid asid) override { attachments_.erase(asid); }
  /// Tells the records as they are, with their own epochs, windows and numbers; with ranges, those
  /// that overlap one. A clearing scan goes on to the next pass; kNotFound after the last.
  [[nodiscard]] Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override;

 private:
  /// Neighbouring records of one pass.
  struct Chunk {
    std::size_t piece = 0, offset = 0, size = 0;
  };
  struct Pass {
    PassHead head;
    std::vector<Chunk> chunks;
  };

  explicit ReplayTracker(std::unique_ptr<RecordSource> source) : source_(std::move(source)) {}

  std::unique_ptr<RecordSource> source_;
  std::map<Asid, std::vector<Pass>> passes_;
  Attachments<std::size_t> attachments_;  ///< number of the next pass
};

}  // namespace thermocline
