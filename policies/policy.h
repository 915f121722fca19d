// SPDX-License-Identifier: Apache-2.0
// The contract of a policy: from what is known (View) to what should be done (Plan).
//
// decide() makes no system call, reads no clock, keeps no state outside the object, and for the
// same sequence of views and the same seed gives the same plans, on every machine: decisions are
// taken in integers. It doesn't know whether it runs in the daemon, in a replay or in a simulator.
//
// What a policy need not do: quotas, rate limits, watermarks, filters, budgets and the ping-pong
// guard belong to the engine and hold for every policy. A plan may ask for more than will be done;
// the engine takes moves from the front, demotions and promotions each in the order given.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "heat/heat_map.h"

namespace thermocline {

/// A tier as a policy sees it.
struct TierView {
  TierId id;
  /// Pages of our targets that the tier can hold: what they hold now plus what is free, less
  /// headroom.
  PageCount capacity;
  PageCount used;                    ///< held by our targets now
  PageCount free;                    ///< free on the tier's nodes, less headroom
  std::uint64_t latency_ns = 0;      ///< read latency when idle (nominal), 0 = not known
  std::uint64_t bandwidth_mbps = 0;  ///< read bandwidth, MB/s, 0 = not known
  /// Read latency as it is now, under load; 0 = the host doesn't measure it.
  std::uint64_t loaded_latency_ns = 0;
};

/// What became of the last plan, and how the last epoch went.
struct Feedback {
  PageCount promoted, demoted;      ///< applied
  PageCount failed;                 ///< tried and failed, all reasons
  PageCount regretted;              ///< demoted lately and hot again, or promoted and cold again
  std::uint64_t windows = 0;        ///< windows that were counted in the last epoch
  Nanoseconds window{};             ///< their length
  Nanoseconds epoch{};              ///< of the epoch before, with its rest; 0 = there was none
  Nanoseconds page_move{};          ///< CPU time of moving a page, mean of late; 0 = not known
  PageCount accessed_page_windows;  ///< sum over the windows of accessed pages
  PageCount accessed_page_windows_fast;  ///< of these on tier 0
  PageCount present_page_windows;        ///< sum over the windows of observable present pages
  /// What was hot in an address space isn't any more: its heat was quartered early in the epoch.
  bool changed = false;
};

/// What a policy may ask for in one epoch.
struct Budget {
  PageCount moves;  ///< pages the rate limit lets through in an epoch, both directions together
};

struct View {
  Epoch epoch;
  const HeatMap& heat;
  std::span<const TierView> tiers;  ///< fastest first, at least one
  /// Edge of the hot set for tier 0's capacity, from the ageing pass of this epoch.
  Threshold threshold;
  Feedback feedback;
  Budget budget;
};

struct Move {
  Asid asid;
  Vpn vpn;
  PageOrder order;
  TierId from, to;
  Heat heat;              ///< score it was chosen by
  std::uint8_t rule = 0;  ///< index into Policy::rules(): why
};

/// What the policy would like to be told next.
struct ScanAdvice {
  /// Factor for the window length, in eighths: 8 = keep, 4 = halve, 16 = double. The engine bounds
  /// it.
  unsigned window_eighths = 8;
};

/// How new pages of programs that ask for weighted interleaving should be spread.
struct InterleaveAdvice {
  /// Weight of each tier, fastest first, 1..255; empty = no advice, leave it as it is.
  std::vector<std::uint8_t> tier_weights;
};

struct Plan {
  std::vector<Move> demotions;   ///< to a slower tier, best first
  std::vector<Move> promotions;  ///< to a faster tier, best first
  /// More demotions from tier 0, in case those above make less room than they should: what they
  /// free goes to per-CPU lists first, from which the kernel takes nothing while free memory is
  /// low. Taken only while promotions wait for room; not part of the budget. Best first, may be
  /// empty.
  std::vector<Move> spares;
  ScanAdvice advice;
  InterleaveAdvice interleave;
};

/// How a policy is doing that runs in a process of its own (plugin/plugin_policy.h).
struct PluginHealth {
  std::string deciding;         ///< whose plans are followed now: its own name, or its stand-in's
  std::uint64_t decisions = 0;  ///< plans of its own that were followed
  std::uint64_t failures = 0;   ///< times that it crashed, was late or told nonsense
  std::uint64_t restarts = 0;   ///< of its process
  std::string last_failure;     ///< one sentence; empty = none so far
  Nanoseconds cpu{};            ///< CPU time of its processes
};

class Policy {
 public:
  virtual ~Policy() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  /// Why a page was moved, in words; Move::rule indexes it. Never empty unless the policy never
  /// moves.
  [[nodiscard]] virtual std::span<const std::string_view> rules() const = 0;
  [[nodiscard]] virtual Plan decide(const View& view) = 0;
  /// Whether the heat map shall keep when pages were touched (HeatMap::keep_touches()).
  [[nodiscard]] virtual bool needs_touches() const { return false; }
  /// Whether the host shall measure TierView::loaded_latency_ns, which costs it a little.
  [[nodiscard]] virtual bool needs_loaded_latency() const { return false; }
  /// Bytes that it keeps from one decision to the next: 64 for each page of the fastest tier and
  /// 256 KiB at most, however many pages there are.
  [[nodiscard]] virtual Bytes memory() const { return Bytes(0); }
  /// Only of a policy that runs in a process of its own.
  [[nodiscard]] virtual std::optional<PluginHealth> plugin_health() const { return std::nullopt; }
};

/// For hosts whose figures are those of the policy alone: kFailure with the sentence of its last
/// failure when a policy with a process of its own had one.
[[nodiscard]] Status decided_itself(const Policy& policy);

/// Options of a policy from the config, as text; the policy checks keys and values (kUsage, naming
/// the key and the valid ones).
struct PolicyOption {
  std::string key, value;
};

/// An option as people are told of it.
struct PolicyOptionHelp {
  std::string key, meaning, default_text;
};

struct PolicyFactory {
  std::string name;
  std::string summary;  ///< one line for `thermocline policies`
  std::string source;   ///< paper or origin
  std::vector<PolicyOptionHelp> option_help;
  std::function<Result<std::unique_ptr<Policy>>(std::span<const PolicyOption>, std::uint64_t seed)>
      make;
};

class PolicyRegistry {
 public:
  /// A duplicate name is a programmer's error and aborts.
  void add(PolicyFactory factory);
  [[nodiscard]] const std::vector<PolicyFactory>& factories() const { return factories_; }
  /// kUsage for an unknown name, with the nearest known one.
  [[nodiscard]] Result<std::unique_ptr<Policy>> make(const std::string& name,
                                                     std::span<const PolicyOption> options,
                                                     std::uint64_t seed) const;

 private:
  std::vector<PolicyFactory> factories_;
};

/// The policies that are built in, in the order they are listed to people.
void register_builtin_policies(PolicyRegistry& registry);

}  // namespace thermocline
