// SPDX-License-Identifier: Apache-2.0
// Plays a recording to a policy: the daemon's engine, heat map, policies and ledger on recorded
// accesses and virtual tiers. What was touched is measured; where it lies, and what moving it would
// have changed, is modelled. The trace knows nothing of time: a page that would have been slower is
// touched in the same window all the same.
//
// Pages are placed by first touch, whatever node they were recorded on. An epoch is so many windows
// of the recording, one after the other; all of them are evidence, and moves are done between them
// in no time, as far as the rate limit lets through.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "engine/ledger.h"
#include "policies/policy.h"
#include "tracking/record_source.h"

namespace thermocline::replay {

/// fast:slow, "1:2".
struct Ratio {
  unsigned fast = 1, slow = 1;
};
/// kUsage for anything but two whole numbers from 1 to 1024 with a ":" between them.
[[nodiscard]] Result<Ratio> parse_ratio(const std::string& text);

/// What there is to play, found by reading all of it once.
struct Survey {
  Nanoseconds median_window{};
  std::size_t windows = 0;           ///< passes that are evidence: see counts()
  std::size_t windows_left_out = 0;  ///< of unknown length, not clearing, or pauses
  std::size_t address_spaces = 0;
  PageCount footprint;  ///< most pages that were there at one time, all address spaces together
  /// Of a pass: it cleared, and its window is known and at most three times the median.
  [[nodiscard]] bool counts(bool cleared, Nanoseconds window) const;
};
/// kCorrupt as for_each_record(); kUsage for records of pruned scans, which don't tell where every
/// page is; kFailure when nothing is evidence.
[[nodiscard]] Result<Survey> survey(RecordSource& source);

struct Options {
  Ratio ratio{};
  std::string policy = "auto";
  std::vector<PolicyOption> policy_options{};
  const PolicyRegistry* registry = nullptr;  ///< that knows `policy`; nullptr = the built-in ones
  std::uint64_t seed = 1;
  unsigned windows_per_epoch = 8;  ///< 1..64
  Bytes rate_limit = Bytes(256ull << 20);
};

/// The fast tier's share of a footprint.
[[nodiscard]] PageCount fast_pages(PageCount footprint, Ratio ratio);

struct EpochOutcome {
  std::uint64_t epoch = 0;
  Nanoseconds time{};  ///< of its last pass, CLOCK_MONOTONIC of the recording machine
  PageCount accessed_page_windows, accessed_page_windows_fast;
  PageCount promoted, demoted, failed, regretted;
};

struct Outcome {
  std::string policy;
  PageCount fast, slow;  ///< what the tiers can hold
  PageCount accessed_page_windows, accessed_page_windows_fast;
  LedgerTotals moves;
  std::vector<EpochOutcome> epochs;
  [[nodiscard]] double hit_ratio() const;
  /// Pages moved back within Ledger::kRegretEpochs, as a share of all that were moved.
  [[nodiscard]] double ping_pong_share() const;
};

/// kUsage for a policy or option that isn't known, and for a fast tier without a page; kFailure
/// when a plug-in didn't decide every epoch.
[[nodiscard]] Result<Outcome> play(std::unique_ptr<RecordSource> source, const Survey& survey,
                                   const Options& options);

}  // namespace thermocline::replay
