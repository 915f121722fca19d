// SPDX-License-Identifier: Apache-2.0
// What hwloc adds to sysfs: which CPUs are nearest to a node without CPUs, and which packages those
// CPUs sit in. hwloc walks cache, die, package and NUMA levels and the initiators of HMAT; doing
// that again here would be a second, worse hwloc. Internal to this layer.
#pragma once

#include <vector>

#include "topology/topology.h"

namespace thermocline {

/// Fills local_cpus and packages of `nodes`; a node without CPUs of which firmware declares no
/// initiators gets the CPUs of the nearest nodes by distance. A machine that hwloc can't read (a
/// scripted System, a tree without /sys/devices/system/cpu) leaves local_cpus = cpus and packages
/// empty: nothing decides by them.
void add_locality(const System& system, std::vector<Node>& nodes);

}  // namespace thermocline
