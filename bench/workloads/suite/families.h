// SPDX-License-Identifier: Apache-2.0
// What each file of workloads adds to the list; only registry.cc calls these.
#pragma once

#include <vector>

#include "bench/workloads/suite/workload.h"

namespace thermocline::workloads {

[[nodiscard]] std::vector<WorkloadSpec> gups_workloads();
[[nodiscard]] std::vector<WorkloadSpec> pattern_workloads();
[[nodiscard]] std::vector<WorkloadSpec> chase_workloads();
[[nodiscard]] std::vector<WorkloadSpec> stream_workloads();
[[nodiscard]] std::vector<WorkloadSpec> llm_workloads();
[[nodiscard]] std::vector<WorkloadSpec> ycsb_workloads();
[[nodiscard]] std::vector<WorkloadSpec> btree_workloads();
[[nodiscard]] std::vector<WorkloadSpec> xsbench_workloads();
[[nodiscard]] std::vector<WorkloadSpec> bfs_workloads();
[[nodiscard]] std::vector<WorkloadSpec> pagerank_workloads();
[[nodiscard]] std::vector<WorkloadSpec> bc_workloads();
[[nodiscard]] std::vector<WorkloadSpec> key_value_workloads();
[[nodiscard]] std::vector<WorkloadSpec> sqlite_workloads();

}  // namespace thermocline::workloads
