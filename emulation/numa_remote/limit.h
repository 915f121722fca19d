// SPDX-License-Identifier: Apache-2.0
// Makes a node's memory scarce without a process that holds it: a tiering system would move such a
// hog's pages away. Takes whole memory blocks offline, and the rest into the node's pool of
// huge pages. cgroups have no limit by node.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"
#include "emulation/numa_remote/journal.h"

namespace thermocline::numa_remote {

/// What limit_fast() needs of its caller.
struct LimitHooks {
  /// Writes the journal down; called before each kind of change.
  std::function<Status(const Journal&)> save;
  /// Long steps, for a person.
  std::function<void(const std::string&)> progress;
  /// Whoever wanted it has gone: stop.
  std::function<bool()> stopped;
};

struct Limit {
  Bytes before;    ///< what programs could fill of the node
  Bytes left;      ///< what they can now
  Bytes offlined;  ///< in memory blocks
  Bytes held;      ///< in 2 MiB pages
};

/// What programs can fill of a node: free memory above the low watermark and without what low zones
/// keep for devices. Reads meminfo and zoneinfo.
[[nodiscard]] Result<Bytes> fillable(const System& system, NodeId node);

/// What a node holds of files, which the kernel gives up for memory that is bound to the node. Not
/// for other memory, while another node has some.
[[nodiscard]] Bytes cached_files(const System& system, NodeId node);

/// "programs can fill 2 GiB of node 0 now", and how to free more.
[[nodiscard]] std::string fillable_text(const System& system, NodeId node, Bytes fillable);

/// Leaves `wanted` of journal.who.fast to fill. The result is within 4 MiB, or 1 %, of it; else
/// kFailure says how far it went, and the journal holds what has to be put back. kUsage when the
/// node has less to begin with.
[[nodiscard]] Result<Limit> limit_fast(System& system, Journal& journal, Bytes wanted,
                                       const LimitHooks& hooks);

}  // namespace thermocline::numa_remote
