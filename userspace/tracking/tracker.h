// SPDX-License-Identifier: Apache-2.0
// The contract of every source of access records.
// A tracker looks at one machine; targets are attached one by one. It reports what it saw and
// decides nothing. Called by the engine, from one thread.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
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
  /// The caller puts together what all that map this process's shared memory do with it: a source
  /// that would call such pages unobservable reads them, and marks their records (see record.h).
  bool shared = false;
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
  /// Holds of it: [i] lasted 2^i ns or more and less than twice that, the last also longer. All 0 =
  /// not known.
  std::array<std::uint64_t, 32> lock_holds{};
  ScanStats& operator+=(const ScanStats& o);
};

/// Receives whole records, in the layout of kmod/uapi/thermocline.h. The bytes are valid in the
/// call.
using RecordSink = std::function<void(std::span<const std::byte>)>;

class RoundSource;

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
  /// A scan of some ranges clears only them, and costs what they do.
  [[nodiscard]] virtual bool scans_ranges() const { return false; }
  /// For a source that can watch windows by itself (rounds.h), while this tracker lives; else null.
  [[nodiscard]] virtual RoundSource* rounds() { return nullptr; }
};

struct TrackerOptions {
  /// Whether to flush the TLBs of the target's CPUs after clearing. Default kAuto.
  enum class Flush {
    kAuto,  ///< rounds (rounds.h) do where the source can, scans don't, as the kernel's own ageing
    kOn,    ///< both do. Requires a source that can; others refuse it (kUsage).
    kOff,   ///< neither does
  };
  Flush flush = Flush::kAuto;
  /// How a source that can't clear by itself has the kernel do it. Default kAuto: kClearRefs while
  /// that stops the target for 10 ms at most, else kCold.
  /// Requires a source that leaves the choice; others ignore it.
  enum class Clear {
    kAuto,
    kClearRefs,  ///< /proc/PID/clear_refs: all at once; faults and mmap of the target wait
                 ///< meanwhile
    kCold,       ///< process_madvise(MADV_COLD): in parts; exact; reclaim takes those pages first
  };
  Clear clear = Clear::kAuto;
  /// Let a source that can watch windows by itself do so. Default true.
  bool continuous = true;
  /// Let such a source leave out large blocks that an upper-level accessed bit shows to be idle, in
  /// all but the first pass of a round. Default true.
  bool prune = true;
  /// Where the source hmu finds the hot list of its device. Default none: it doesn't work then.
  std::string hmu_list = {};
  /// The two sources that combine merges. Default none: it doesn't work then.
  std::vector<std::string> sources = {};
};

[[nodiscard]] std::string_view to_string(TrackerOptions::Clear clear);

/// What a pass over 1 GiB of 4 KiB pages costs, in CPU time, and who says so.
struct ScanCost {
  Nanoseconds read_per_gib{};
  Nanoseconds clear_per_gib{};  ///< on top of reading
  std::string source;  ///< "measured on ...", "modelled ...": costs differ between machines
};

/// What a source can and can't tell, wherever it runs. The compliance suite holds it to this.
struct TrackerAbilities {
  enum class Grain {
    kPage,     ///< every entry of the page tables is told apart
    kMapping,  ///< a whole mapping (a line of /proc/PID/maps) is: all touched, none touched,
               ///< unknown
    kRegion,   ///< samples of a region stand for it, by the source's own clock, not the caller's
               ///< window: busy, idle for long, unknown. Nothing is ever cleared
  };
  /// What the kernel keeps of a page and a clearing scan takes away: two sources that take the same
  /// spoil each other's windows.
  enum class Marks { kNone, kAccessed, kWritten };
  bool sees_reads = true;  ///< false: writes only; its records carry RecordView::writes_only
  Grain grain = Grain::kPage;
  /// A bit is cleared as it is read. If not, a touch between the reading and the clearing is lost.
  bool one_pass = false;
  /// A clearing scan clears in its ranges only. If not, in the whole address space.
  bool clears_ranges = false;
  bool knows_nodes = false;  ///< records tell each present page's node
  Marks marks = Marks::kAccessed;
  std::optional<ScanCost> cost;  ///< nullopt: neither measured on hardware nor modelled
  std::string privilege;         ///< what it needs of the user and the machine
  std::string cannot_see;        ///< what stays unknown or unseen, for a person
};

[[nodiscard]] std::string_view to_string(TrackerAbilities::Grain grain);

/// How a source is made, and whether it works here.
struct TrackerFactory {
  std::string name;
  std::string summary;  ///< one line for `thermocline trackers`
  TrackerAbilities abilities;
  /// Ok, or a sentence that says why it doesn't work here with these options and what to do.
  std::function<Status(System&, const TrackerOptions&)> probe;
  std::function<Result<std::unique_ptr<Tracker>>(System&, const TrackerOptions&)> make;
  bool automatic = true;  ///< false: chosen by its name only
};

/// All sources, best first, then those that are chosen by name only.
[[nodiscard]] const std::vector<TrackerFactory>& tracker_factories();

/// What "auto" tries for these processes, in this order: the sources as they come; but damon first
/// when one of them has a second MMU, whose touches only the kernel's own sampling sees.
struct AutoOrder {
  std::vector<const TrackerFactory*> factories;
  std::optional<ProcessIdentity> second_mmu;  ///< a process that is why it isn't the usual order
};
[[nodiscard]] AutoOrder auto_order(const System& system, std::span<const ProcessIdentity> targets);
/// Why the order is another one for this process, for a person.
[[nodiscard]] std::string second_mmu_sentence(const ProcessIdentity& process);

/// Make the named source; "auto" takes the first whose probe succeeds. kUsage for an unknown name,
/// kPermission or kUnsupported, with every reason, when none works here.
[[nodiscard]] Result<std::unique_ptr<Tracker>> make_tracker(
    System& system, const std::string& name, const TrackerOptions& options,
    std::span<const ProcessIdentity> targets = {});

}  // namespace thermocline
