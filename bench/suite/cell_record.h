// SPDX-License-Identifier: Apache-2.0
// One cell of the benchmark table: a system that ran one workload at one ratio with one seed, and
// the file that keeps the finished ones, a JSON line each, so that a run goes on where the last
// one stopped. Figures of time are modelled.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"

namespace thermocline::suite {

/// What tells a cell from every other one.
struct CellKey {
  std::string workload;
  std::string ratio;   ///< "1:2", fast to slow; "-" where there is no such thing
  std::string system;  ///< "thermocline:auto", "numab@tuned", "all-fast"
  std::string timing;  ///< preset or file of the timing model
  std::string mode;    ///< "reference" or "parallel"
  std::string kernel;  ///< "6.12"
  std::uint64_t seed = 0;

  bool operator==(const CellKey&) const = default;
  bool operator<(const CellKey& other) const;
};

/// "gups-hot 1:2 numab@tuned, seed 1 (cxl-asic, reference, 6.12)"
[[nodiscard]] std::string to_text(const CellKey& key);

/// Names of figures are the JSON keys; none: the system has no such figure.
struct CellRecord {
  CellKey key;
  std::string setting;  ///< PlannedCell::setting; "" in records of builds that had none
  std::optional<std::string> policy;
  bool done = false;  ///< "status": "done", or "failed"
  std::string error;  ///< of a failed cell, one sentence
  std::string log;    ///< of a failed cell: path relative to the folder of the store

  std::optional<double> ops_per_s;         ///< of the whole measured part; a done cell has it
  std::optional<double> steady_ops_per_s;  ///< last third of it; with phases: last half of each
  std::optional<double> ns_per_access;     ///< mean latency of a last-level miss
  std::optional<double> p50_ns, p99_ns;    ///< of an operation
  std::optional<double> fast_hit_ratio;  ///< share of the last-level misses that hit the fast node
  std::optional<double> steady_fast_hit_ratio;
  std::optional<Bytes> promoted_bytes, demoted_bytes;
  std::optional<double> ping_pong_share;  ///< of the moves: back to where the page was 2 s ago
  /// Shares of the processors' time, over the measured part.
  std::optional<double> tracker_cpu_share, policy_cpu_share, mover_cpu_share;
  std::optional<double> overhead_cpu_share;  ///< the kernel's and the daemon's, tiering or not
  std::optional<double> reconverge_s;  ///< after the last phase change; none: never, or no change
  std::optional<Bytes> fast_bytes;     ///< free on the fast node at the start
  std::optional<double> fast_share;    ///< of the footprint: the ratio that really held
  std::optional<Bytes> footprint_bytes;
  std::optional<std::uint64_t> operations;
  std::optional<double> seconds;
  std::optional<bool> verified;  ///< the workload's own check of its result
  std::optional<double> wall_s;  ///< of the host (measured)
  std::string version;
};

enum class Range { kAny, kNotNegative, kShare };

/// A key that holds a number with a fraction.
struct FigureKey {
  const char* key;
  std::optional<double> CellRecord::*member;
  Range range;
};
[[nodiscard]] std::span<const FigureKey> figure_keys();

/// All keys, always in the same order; null where there is no figure.
[[nodiscard]] nlohmann::ordered_json to_json(const CellRecord& record);

/// What a record must be to be stored: names that are words, a throughput above 0 in a done cell, a
/// sentence in a failed one, shares of a whole within 0 and 1, no figure that isn't finite.
/// kCorrupt with the key that is wrong.
[[nodiscard]] Status check(const CellRecord& record);

/// A line without its newline. kCorrupt for anything that to_json() doesn't make; keys of figures
/// may be missing and then are null, keys of no meaning are refused.
[[nodiscard]] Result<CellRecord> parse_line(std::string_view line);

struct Cells {
  std::vector<CellRecord>
      records;  ///< one a key, in the order of their first ones: the last done one, else the last
  std::vector<std::string> notes;  ///< what was left out and why, for the user
  std::size_t whole_bytes = 0;     ///< length of the text up to the end of its last whole line
};

/// A store's text. A last line without a newline is what a killed run leaves: dropped with a note.
/// Any other line that is no record is kCorrupt, "NAME:LINE: why".
[[nodiscard]] Result<Cells> parse_cells(std::string_view text, const std::string& name);

/// To look at only; another process may be appending. kNotFound when there is no such file.
[[nodiscard]] Result<Cells> read_cells(const std::string& path);

/// The file while a run appends to it. One process at a time.
class Store {
 public:
  /// Makes the file if it isn't there and takes a torn last line off it. kUsage when it can't be
  /// written or another process has it open; kCorrupt as parse_cells().
  [[nodiscard]] static Result<Store> open(const std::string& path);

  [[nodiscard]] const std::vector<CellRecord>& records() const { return records_; }
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  /// The record of a cell that is done, or null. A failed one is worth another try.
  [[nodiscard]] const CellRecord* done(const CellKey& key) const;
  /// On the disk when it returns, or not in the file at all. A failed record does not take the
  /// place of a done one.
  [[nodiscard]] Status append(const CellRecord& record);

 private:
  std::string path_;
  UniqueFd fd_;  ///< locked
  std::vector<CellRecord> records_;
  std::map<CellKey, std::size_t> places_;
  std::vector<std::string> notes_;
};

}  // namespace thermocline::suite
