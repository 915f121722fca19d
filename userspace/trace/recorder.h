// SPDX-License-Identifier: Apache-2.0
// Records processes into a trace: window after window, without a pause between them. It decides
// nothing and moves nothing.
//
// A pass over all processes clears their accessed bits and tells the window that it ends. The next
// one comes a window later; or, when a pass takes long, as much later as keeps tracking down to a
// quarter of one core. What the windows really were is in the records.
//
// step() is told the time and says when it wants to be called again. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"
#include "trace/trace_writer.h"
#include "tracking/process.h"
#include "tracking/tracker.h"

namespace thermocline::trace {

class Recorder {
 public:
  struct Parts {
    System& system;
    std::unique_ptr<Tracker> tracker;
    TraceWriter& writer;
    /// Asked about twice a second: the processes to record.
    std::function<Result<std::vector<ProcessIdentity>>()> targets;
    /// One sentence for a person.
    std::function<void(const std::string&)> log;
  };
  struct Counts {
    std::uint64_t windows = 0;
    std::uint64_t records = 0;
    std::uint64_t accessed = 0;  ///< entries found accessed in the last pass
    std::uint64_t entries = 0;   ///< looked at in the last pass
    Nanoseconds pass{};          ///< how long that took
    std::size_t processes = 0;   ///< that are followed now
  };

  Recorder(Parts parts, Nanoseconds window) : parts_(std::move(parts)), window_(window) {}

  /// A pass, when it is due. kFailure when the trace can't be written any more.
  [[nodiscard]] Result<Nanoseconds> step(Nanoseconds now);
  [[nodiscard]] const Counts& counts() const { return counts_; }
  /// Why the process that was to be followed last can't be; nothing when all could.
  [[nodiscard]] const std::optional<Error>& trouble() const { return trouble_; }

 private:
  struct Target {
    ProcessIdentity process;
    unsigned generation = 0;  ///< counts its execs
    bool attached = false;
    bool refused = false;      ///< said so already
    Nanoseconds last_clear{};  ///< 0 = not yet
    std::size_t maps_hash = 0;
  };

  void refresh_targets();
  void attach(Target& target, const ProcessIdentity& found);
  void tell_process(Target& target);
  void scan(Target& target);

  Parts parts_;
  Nanoseconds window_;
  std::map<Pid, Target> targets_;
  Counts counts_;
  std::optional<Error> trouble_;
  Nanoseconds due_{}, refreshed_{}, flushed_{};
  bool begun_ = false;
};

/// The mappings of /proc/PID/maps with their names; neighbours of one name are one. Lines that
/// can't be understood are left out.
[[nodiscard]] std::vector<NamedRange> named_ranges(std::string_view maps);

/// What a session tells of this machine: kernel, processor, memory.
void describe_machine(const System& system, SessionInfo& session);

}  // namespace thermocline::trace
