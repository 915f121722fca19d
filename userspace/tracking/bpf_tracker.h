// SPDX-License-Identifier: Apache-2.0
// The tracker that reads page tables from a BPF program: no module, every page told apart. Needs
// root and a kernel with BTF. BPF can't write, so the kernel itself is asked to clear.
#pragma once

#include "tracking/node_map.h"
#include "tracking/page_table_reader.h"
#include "tracking/tracker.h"

namespace thermocline {

[[nodiscard]] TrackerFactory bpf_tracker_factory();

/// For tests: the same tracker on tables from elsewhere.
[[nodiscard]] std::unique_ptr<Tracker> make_bpf_tracker(System& system,
                                                        const TrackerOptions& options,
                                                        NodeMap nodes,
                                                        std::unique_ptr<PageTableReader> reader);

}  // namespace thermocline
