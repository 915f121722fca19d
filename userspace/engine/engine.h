// SPDX-License-Identifier: Apache-2.0
// The epoch loop: watch windows go by, decide, move, and hold every policy to its limits.
//
// One epoch:  arm │ window │ window │ … │ decide │ moves in batches │ rest ┊ next epoch
//
// "Arm" is a clearing scan whose evidence is not counted (its window is as long as the rest was).
// Then come windows_per_epoch windows, each closed by a clearing scan that opens the next one. The
// policy decides on what they showed, and the plan is carried out batch by batch under the rate
// limit; what is not done when the next epoch is due is dropped, because its evidence is old.
//
// Where the tracker watches windows by itself (tracking/rounds.h), arming and the windows are one
// request, and the engine sleeps until all of it has been seen; everything else is the same.
//
// The engine knows no clock and no machine of its own: step() is told the time and says when it
// wants to be called again. The daemon drives it with real time, tests and the simulator with
// theirs. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"
#include "engine/ledger.h"
#include "engine/lookout.h"
#include "engine/shared_pages.h"
#include "engine/tenants.h"
#include "heat/heat_map.h"
#include "mover/mover.h"
#include "policies/policy.h"
#include "tracking/process.h"
#include "tracking/record.h"
#include "tracking/rounds.h"
#include "tracking/tracker.h"

namespace thermocline {

enum class EngineMode : std::uint8_t {
  kManage,   ///< decide and move
  kObserve,  ///< decide and report, move nothing
};

struct EngineOptions {
  EngineMode mode = EngineMode::kManage;
  /// Decision period while pages are to be moved. Default 2 s. Longer while there is little to
  /// move, and when the CPU budget asks for it.
  Nanoseconds epoch = std::chrono::seconds(2);
  /// Length of a window. Default 10 ms to start with.
  Nanoseconds window = std::chrono::milliseconds(10);
  /// Follow the policy's advice on the window length, between 1 ms and epoch / windows. Default
  /// true.
  bool window_auto = true;
  /// Watch an address space section by section, each for all windows of an epoch, when a pass over
  /// the whole would take longer than a window; not with a tracker that can't scan ranges. Whoever
  /// keeps the records wants whole passes. Default true.
  bool sections = true;
  /// Windows an epoch, 1..64. Default 8.
  unsigned windows_per_epoch = 8;
  /// Share of one core that tracking and deciding may take, 0.0001..1; kept by stretching the
  /// epoch. While there is little to move, a quarter of it is taken. Default 0.05.
  double cpu_budget = 0.05;
  /// What was not taken of the budget is saved up for so long at most, for the time when much is to
  /// be moved. The engine starts with all of it. Default 10 s.
  Nanoseconds cpu_burst = std::chrono::seconds(10);
  /// Bytes per second that may be moved, both directions together. Default 256 MiB/s.
  Bytes rate_limit = Bytes(256ull << 20);
  /// Pages a call to the mover, 1..4096. Default 512.
  PageCount batch{512};
  /// Epochs in which a moved page is not moved again, 0..3. Default 3.
  unsigned cooldown = 3;
  /// Pages kept free on every tier beyond what its nodes keep back themselves (their high
  /// watermark). Default 512.
  PageCount headroom{512};
  /// Free memory of the fastest tier, beyond its nodes' high watermark, below which its coldest
  /// pages are demoted whatever the policy plans, and nothing is promoted. Default 0: it is left to
  /// the policy.
  PageCount oom_headroom{0};
};

/// A node as the host of the engine knows it now.
struct NodeState {
  NodeId id;
  PageCount free;       ///< free pages, as the kernel's watermarks see them
  PageCount cpu_lists;  ///< free pages on the CPUs' own lists, not in `free`
  PageCount floor;      ///< `free` below this makes the kernel reclaim or refuse
  PageCount reserve;    ///< pages the kernel keeps back
};

struct TierState {
  TierId id;
  std::vector<NodeState> nodes;
  std::uint64_t latency_ns = 0;         ///< 0 = not known
  std::uint64_t bandwidth_mbps = 0;     ///< 0 = not known
  std::uint64_t loaded_latency_ns = 0;  ///< measured now; 0 = not measured
};

/// Counters since the start. Every number is in the man page of `thermocline status`.
struct EngineCounters {
  std::uint64_t epochs = 0;
  std::uint64_t windows = 0;
  ScanStats scans;
  std::uint64_t scan_calls = 0;
  std::uint64_t scan_errors = 0;
  std::uint64_t corrupt_records = 0;
  std::uint64_t lost_records = 0;  ///< that the tracker had no room for
  Nanoseconds tracking_cpu{};      ///< CPU time of scanning, heat and deciding
  Nanoseconds source_cpu{};        ///< of it, outside this process: the tracker's own threads
  Nanoseconds deciding_cpu{};      ///< of it, the policy's, and its plug-in's process
  Nanoseconds moving_cpu{};        ///< CPU time of carrying out plans
  Nanoseconds longest_batch{};     ///< wall time of the longest mover call
  PageCount accessed_page_windows, accessed_page_windows_fast, present_page_windows;
  std::uint64_t epochs_stretched = 0;  ///< epochs made longer to keep the CPU budget
  std::uint64_t epochs_calm = 0;       ///< epochs with little to move, after which the engine rests
  std::uint64_t looks = 0;             ///< at a few hot pages, while it rests
  std::uint64_t epochs_early = 0;  ///< epochs begun because such a look found them no longer hot
};

struct TargetStatus {
  ProcessIdentity process;
  Occupancy occupancy;  ///< shared pages are in that of one target only
  PageCount shared;     ///< pages in memory that it maps together with other targets
  PageCount pinned;     ///< pages that were busy at every try: a device holds them, or the like
  std::size_t sections = 1;  ///< that it is watched in, one after the other
  bool unseen = false;       ///< uses CPU, but for long no page of it has been found accessed
};

/// Planned moves, in their order.
class MoveQueue {
 public:
  void push(const Move& move);
  [[nodiscard]] bool empty() const { return moves_.empty(); }
  /// Not when empty.
  [[nodiscard]] const Move& front() const { return moves_.front(); }
  [[nodiscard]] PageCount pages() const { return pages_; }
  /// Takes what one call of a mover can do: the first move, and after it those of the same address
  /// space to the same tier, up to `limit` pages. The others keep their order.
  void take(PageCount limit, std::vector<Move>& out);
  /// Puts the moves from a tier before all others, in their order. False when there are none.
  bool bring_forward(TierId from);
  /// Forgets the moves to a tier, and tells how many pages they were.
  PageCount drop(TierId to);
  void clear();

 private:
  std::deque<Move> moves_;
  PageCount pages_;
};

/// What is told at the end of each epoch.
struct EpochReport {
  Epoch epoch;
  Nanoseconds time{};      ///< when it began, of the clock given to step()
  Nanoseconds duration{};  ///< since the one before
  Nanoseconds window{};
  Threshold threshold;
  PageCount promoted, demoted, failed;
  PageCount accessed_page_windows, accessed_page_windows_fast, present_page_windows;
};

/// Wishes and sinks of the host; all optional.
struct EngineHooks {
  /// Whole records as they arrive (record files, agents).
  std::function<void(std::span<const std::byte>)> on_records;
  std::function<void(const EpochReport&)> on_epoch;
  /// The policy's advice for new pages, when it has become another one; not while observing.
  std::function<void(const InterleaveAdvice&)> on_interleave;
  /// One sentence for the log.
  std::function<void(const std::string&)> log;
};

class Engine : private RoundSink {
 public:
  struct Parts {
    System& system;
    std::unique_ptr<Tracker> tracker;
    std::unique_ptr<Policy> policy;
    std::unique_ptr<Mover> mover;
    /// Asked once an epoch and after every batch of moves.
    std::function<Result<std::vector<TierState>>()> tiers;
    /// Asked once an epoch: the processes to look after.
    std::function<Result<std::vector<ProcessIdentity>>()> targets;
    EngineHooks hooks;
    /// Asked once an epoch, after targets: who shares the fast tier. Not set: nobody is held to
    /// anything.
    std::function<std::vector<TenantMembers>()> tenants = {};
  };

  Engine(Parts parts, const EngineOptions& options);
  ~Engine() override;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Do what is due. Bounded by one scan of one target or one batch of moves. Returns the time at
  /// which it wants to be called again (at once when <= now).
  Nanoseconds step(Nanoseconds now);
  /// A descriptor whose being readable is a reason to call step() before that; -1 = none.
  [[nodiscard]] int ready_fd() const { return rounds_ != nullptr ? rounds_->ready_fd() : -1; }

  /// From the next epoch on; but from manage to observe moving stops at once.
  void set_options(const EngineOptions& options);
  void set_policy(std::unique_ptr<Policy> policy) { next_policy_ = std::move(policy); }
  /// Drop the rest of the plan and move no more; tracking goes on. For shutdown.
  void stop_moving();

  [[nodiscard]] const EngineOptions& options() const { return options_; }
  [[nodiscard]] const EngineCounters& counters() const { return counters_; }
  [[nodiscard]] const Ledger& ledger() const { return ledger_; }
  [[nodiscard]] const HeatMap& heat() const { return heat_; }
  [[nodiscard]] const Tracker& tracker() const { return *parts_.tracker; }
  [[nodiscard]] const Policy& policy() const { return *parts_.policy; }
  [[nodiscard]] Nanoseconds window() const { return window_; }
  [[nodiscard]] Nanoseconds last_epoch_duration() const { return last_epoch_duration_; }
  [[nodiscard]] Threshold threshold() const { return threshold_; }
  [[nodiscard]] const std::vector<TierState>& tiers() const { return tiers_; }
  [[nodiscard]] std::vector<TargetStatus> targets() const;
  /// As of the last decision.
  [[nodiscard]] const std::vector<TenantStatus>& tenants() const { return tenant_status_; }
  /// The process of an address space, or Pid(0) once it has exited, so that a pid that was reused
  /// is never taken for it.
  [[nodiscard]] Pid pid_of(Asid asid) const;
  /// Where else a page may be mapped, see AddressSpaces.
  [[nodiscard]] std::vector<PagePlace> others(PagePlace page) const { return shared_.others(page); }

 private:
  enum class Phase : std::uint8_t { kRest, kScan, kWindow, kRound, kDecide, kMove };

  /// A node and the pages that may still come to it. Node -1: the tier has none.
  struct NodeRoom {
    NodeId node{-1};
    PageCount pages;
  };

  /// How far the records of a pass have come.
  struct Pass {
    Vpn cursor{0};       ///< what lies before has been told
    bool intact = true;  ///< nothing is missing so far
  };

  struct Target {
    ProcessIdentity process;
    UniqueFd pidfd;
    unsigned generation = 0;
    bool attach_failed = false;  ///< said so in the log already
    bool attached = false;
    Nanoseconds last_clear{};      ///< when its bits were last cleared
    bool accessed = false;         ///< a page was found accessed in this epoch
    unsigned idle_epochs = 0;      ///< in a row without such a page
    std::uint64_t seen_ticks = 0;  ///< its CPU time when there was one
    bool unseen = false;
    PageCount touched;      ///< page-windows of this epoch in which a page was found accessed
    bool fade_due = false;  ///< its hot pages are hardly touched any more
    /// What an epoch watches one after the other; empty: all of it at once.
    std::vector<ScanRange> sections;
    std::size_t section = 0;        ///< that is or was watched last
    std::size_t sections_told = 0;  ///< as a whole in this epoch, all up to one
    Nanoseconds scan_time{};        ///< of all passes of this epoch
    bool known = false;        ///< all of it was looked at in some epoch, and no record lost since
    unsigned part_epochs = 0;  ///< since then, in which idle memory was left out
    bool whole = true;         ///< the rounds of this epoch look at all of it
    Pass pass;
    std::uint64_t maps_hash = 0;  ///< of its /proc/PID/maps when that was read last; 0 = never
    std::uint64_t maps_turn = 0;  ///< when that was, in order
    bool told_pinned = false;     ///< the log has said that some of its pages can't be moved
    Nanoseconds maps_due{};       ///< not before, as it took long the last time
    bool in_round = false;        ///< one was asked for, and is not over
    Epoch round{0};               ///< in which it was
    unsigned late = 0;            ///< epochs that didn't live to see its end
    unsigned passes = 0;          ///< of the round, that are over
    bool in_look = false;         ///< one was asked for, and is not over
    bool look_armed = false;      ///< its first pass is over: what comes is evidence
    std::uint64_t sequence = 0;   ///< of the record to come, in rounds; 0 = not known
  };

  struct Resting {
    unsigned epochs = 0;
    Epoch until{0};     ///< the last epoch of the rest
    unsigned busy = 0;  ///< times in a row that it was
    PageOrder order;
  };

  void begin_epoch(Nanoseconds now);
  /// In this epoch, as a whole.
  [[nodiscard]] static bool was_told(const Target& target);
  /// Whether this epoch looks at all of it, or only where something was touched.
  static void choose_reach(Target& target);
  /// Cuts targets into sections, as passes over the whole of each take longer than a window.
  void cut_targets();
  void begin_section(Nanoseconds now);
  /// The windows of a section are over.
  void end_section(Nanoseconds now);
  /// It has a part in the section that is watched now, which it then enters.
  bool enter_section(Target& target);
  [[nodiscard]] bool is_watched(const Target& target) const;
  /// Its section, for a scan; none: all.
  [[nodiscard]] static std::span<const ScanRange> ranges_of(const Target& target);
  [[nodiscard]] static Vpn begin_of_section(const Target& target);
  [[nodiscard]] bool may_cut() const;
  /// While the engine rests: looks at a few hot pages now and then. Returns when to come again.
  Nanoseconds keep_watch(Nanoseconds now);
  void begin_look(Nanoseconds now);
  void end_look(Nanoseconds now);
  /// Scans what the lookout wants to see of a target.
  void look_at(Target& target, const Lookout::Part& part, bool count);
  void refresh_targets();
  /// Reads the memory maps of targets, those first that wait for longest, as far as a share of the
  /// CPU budget allows: in one epoch, and of each over time. Of new ones in any case.
  void refresh_mappings(Nanoseconds now);
  void read_mappings(Target& target);
  void look_for_fork(const Target& target);
  void refresh_tiers();
  /// Once an epoch: a process that runs touches memory, so something hides it if we never see that.
  void look_for_unseen(Target& target, std::uint64_t cpu_ticks);
  void scan_target(Target& target, Nanoseconds now, bool count);
  /// Records of the pass that is under way. `numbered`: a gap in their sequence is a loss.
  void take_records(Target& target, std::span<const std::byte> bytes, bool count, bool numbered);
  /// What no record of the pass covered is not mapped any more.
  void end_pass(Target& target, bool whole);
  /// Exit or exec. If the process is still there in the next epoch, it has a new image.
  void lose(Target& target, const Error& why);
  void begin_rounds(Nanoseconds now);
  /// Takes what the tracker has seen by itself.
  void drain(Nanoseconds now);
  [[nodiscard]] bool rounds_are_over() const;
  /// The epoch goes on without the rounds that aren't over; without a decision when none is.
  void give_up_rounds();
  Target* find(Asid asid);
  void on_records(Asid asid, std::span<const std::byte> records) override;
  void on_pass(Asid asid, const RoundPass& pass) override;
  void on_look(Target& target, const RoundPass& pass);
  void on_gone(Asid asid, const Error& why) override;
  void decide();
  /// No policy gets pages of the ranges that stay where they are. Returns those that are to be
  /// brought to the first tier.
  std::vector<Move> hold_ranges(const View& view);
  /// What holds whatever the policy plans: ranges, shares, headroom against running out of memory.
  void overrule(const View& view, std::vector<Move> kept_fast, Plan& plan);
  void queue_plan(Plan plan);
  /// What is hot seems to have changed: the next epochs follow each other at once.
  void look_closer();
  /// Sets next_epoch_ by what the plan holds and what this epoch cost.
  void pace();
  /// What moving a page costs, of late.
  void learn_page_move();
  /// One batch; false when nothing is left to do.
  bool move_batch(Nanoseconds now);
  void end_epoch(Nanoseconds now);
  void run_moves(MoveQueue& queue, const NodeRoom& where, Direction direction, Nanoseconds now);
  void drop_plan();
  /// No policy gets the page of a move that failed just now, for longer each time.
  void rest(const Move& move, bool busy);
  void keep_resting();
  /// Pages that were busy so often that something holds them for good.
  [[nodiscard]] static bool is_pinned(const Resting& resting);
  /// Says once a target that there are some, and takes those that are cold off what a tier can hold
  /// and holds: no policy can win their room.
  void allow_for_pinned(std::vector<TierView>& views);
  /// Pages that may still come to a node of a tier of so many nodes, when so much of the tier's
  /// headroom is lent.
  [[nodiscard]] PageCount room(const NodeState& node, std::size_t nodes,
                               PageCount lent = PageCount(0)) const;
  [[nodiscard]] PageCount room(const TierState& tier) const;
  [[nodiscard]] NodeRoom roomiest_node(TierId tier, PageCount lent = PageCount(0)) const;
  /// Whose hottest pages are looked at while the engine rests.
  [[nodiscard]] TierId tier_to_watch() const;
  void log(const std::string& text) const;
  /// What rests is known by where it is kept.
  void follow_hand_over(Asid from, Vpn first, PageCount count, Asid to, Vpn to_first);

  Parts parts_;
  EngineOptions options_, next_options_;
  std::unique_ptr<Policy> next_policy_;
  HeatMap heat_;
  SharedPages shared_;
  Ledger ledger_;
  EngineCounters counters_;
  std::map<Pid, Target> targets_;
  std::map<std::pair<Asid, Vpn>, Resting> resting_;  ///< pages that failed lately, rested or not
  std::vector<TierState> tiers_;
  std::vector<TenantMembers> tenants_;
  std::vector<TenantStatus> tenant_status_;
  InterleaveAdvice interleave_;   ///< as told last
  Nanoseconds plugin_cpu_{};      ///< of the policy's process, as counted so far
  std::int64_t page_moves_ = 0;   ///< tried of late, times 1024
  Nanoseconds page_moves_cpu_{};  ///< CPU time of these, times 1024
  PageCount page_moves_known_;    ///< tried when that was learned
  Nanoseconds moving_cpu_known_{};
  std::uint64_t maps_turn_ = 0;

  RoundSource* rounds_;                       ///< of the tracker; null = it scans when it is asked
  std::vector<std::pair<Asid, Error>> gone_;  ///< told by a drain
  Nanoseconds drained_at_{};

  Phase phase_ = Phase::kRest;
  Epoch epoch_{0};
  Nanoseconds epoch_start_{};
  Nanoseconds next_epoch_{};
  Nanoseconds moves_end_{};  ///< what is not moved by then is left to the next plan
  Nanoseconds deadline_{};   ///< end of the window that is open, or when the rounds should be over
  Nanoseconds patience_{};   ///< until then a sign of life of a round is waited for
  Nanoseconds window_;
  std::size_t section_ = 0;    ///< that is watched now
  bool cut_in_vain_ = false;   ///< passes over a target are longer than a window all the same
  unsigned windows_done_ = 0;  ///< in this section
  bool arming_ = false;
  bool just_decided_ = false;  ///< the step before was the decision
  std::vector<Pid> scan_queue_;
  Threshold threshold_;
  Nanoseconds last_epoch_duration_{};
  Nanoseconds tracking_cpu_epoch_{};
  Nanoseconds credit_{};      ///< CPU time that tracking may take, as of epoch_start_
  unsigned calm_epochs_ = 0;  ///< in a row, up to kMostCalm
  Epoch young_until_{0}, next_look_{0}, next_again_{0};
  unsigned unpaid_ = 0;  ///< times that the engine has looked closer since that paid last
  /// Page-windows on tier 0 and all, before what looking closer found is moved; 0: nothing yet.
  std::pair<std::uint64_t, std::uint64_t> hope_{0, 0};
  std::uint64_t accessed_before_ = 0, served_before_ = 0;  ///< page-windows of the epoch before
  Nanoseconds longest_scan_{};
  Lookout lookout_;
  bool looking_ = false;
  unsigned looks_pending_ = 0;  ///< rounds of the look that aren't over
  Nanoseconds look_due_{};      ///< when the next one may begin, or this one should be over
  Nanoseconds look_cpu_{};      ///< tracking_cpu_epoch_ when it began
  Nanoseconds charged_{};       ///< of tracking_cpu_epoch_, taken off credit_ already

  MoveQueue demotions_, promotions_, spares_;
  bool moving_stopped_ = false;
  double tokens_ = 0;  ///< bytes that may be moved now
  Nanoseconds tokens_at_{};
  Nanoseconds burst_{};             ///< time for which tokens are saved up at most
  EngineCounters epoch_base_;       ///< counters when the epoch began
  LedgerTotals epoch_base_ledger_;  ///< the same of the ledger
  Feedback feedback_;
  std::vector<PageMove> batch_;
  std::vector<Move> batch_moves_;
  std::vector<MoveOutcome> outcomes_;
};

}  // namespace thermocline
