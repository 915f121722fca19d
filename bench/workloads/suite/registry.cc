// SPDX-License-Identifier: Apache-2.0
#include <iterator>

#include "base/text.h"
#include "bench/workloads/suite/families.h"

namespace thermocline::workloads {

const std::vector<WorkloadSpec>& all_workloads() {
  static const std::vector<WorkloadSpec> kAll = [] {
    std::vector<WorkloadSpec> all;
    for (const auto family :
         {gups_workloads, pattern_workloads, chase_workloads, stream_workloads, llm_workloads,
          ycsb_workloads, btree_workloads, xsbench_workloads, bfs_workloads, pagerank_workloads,
          bc_workloads, key_value_workloads, sqlite_workloads}) {
      std::vector<WorkloadSpec> some = family();
      std::move(some.begin(), some.end(), std::back_inserter(all));
    }
    return all;
  }();
  return kAll;
}

Result<const WorkloadSpec*> find_workload(const std::string& name) {
  std::vector<std::string> names;
  for (const WorkloadSpec& spec : all_workloads()) {
    if (spec.name == name) return &spec;
    names.push_back(spec.name);
  }
  const std::string near = nearest_word(name, names);
  return fail(ErrorKind::kUsage, "there is no workload \"{}\"{}; see workload list",
              printable(name), near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near));
}

}  // namespace thermocline::workloads
