// SPDX-License-Identifier: Apache-2.0
// What the demo's files say: one table, and whether the demo showed what it promises. Pure: takes
// the JSON that hotset, zipf_client, `thermocline status` and `thermocline oracle` wrote.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace thermocline::demo {

/// The files of the demo, by the names that in_guest.sh gives them.
struct Inputs {
  nlohmann::json hotset_without, hotset_with;  ///< hotset --json
  nlohmann::json hotset_status;                ///< status at the end of hotset
  nlohmann::json redis_without, redis_with;    ///< zipf_client --json
  nlohmann::json redis_settled, redis_status;  ///< status once moves are done, and at the end
  nlohmann::json oracle;                       ///< of the record taken with moves off
  std::uint64_t hotset_kernel_moves = 0;       ///< pgmigrate_success, end minus start
  std::uint64_t redis_kernel_moves = 0;
};

/// What the demo must show.
struct Limits {
  double hot_share = 0.95;          ///< of hotset's hot pages on the fast node at the end
  double best_static_share = 0.95;  ///< redis: of what the best static placement would have caught
  double cold_start_share = 0.05;   ///< at most so many hot pages may start on the fast node
  double least_hot_set = 0.80;      ///< hot set as a share of the fast tier
  double largest_hot_set = 0.90;
  double largest_set_share = 0.50;  ///< redis: pages that a window finds set
};

struct Check {
  bool passed = false;
  std::string text;  ///< what was wanted and what was seen
};

struct Verdict {
  nlohmann::json
      table;  ///< {"title", "note", "columns", "rows"}, as `thermocline report --table` reads it
  std::vector<Check> checks;
  [[nodiscard]] bool passed() const;
};

/// Fails (kCorrupt) when a file lacks what is needed.
[[nodiscard]] Result<Verdict> judge(const Inputs& inputs, const Limits& limits);

/// The table with its columns aligned.
[[nodiscard]] std::string table_text(const nlohmann::json& table);

}  // namespace thermocline::demo
