// SPDX-License-Identifier: Apache-2.0
// Runs one workload: memory, first touch, warm-up, phases, latencies, marks for the timing model,
// verification. Threads share nothing: each has an instance of its own with its share of the
// footprint and of the operations (as SPEC's rate runs), so every workload takes any number of
// them.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"
#include "bench/workloads/suite/workload.h"

namespace thermocline::workloads {

struct RunOptions {
  std::string name;
  Bytes footprint{std::uint64_t{128} << 20};
  std::uint64_t seed = 1;
  unsigned threads = 1;
  /// Of all threads and phases; 0: run for `duration_s` instead.
  std::uint64_t operations = 0;
  double duration_s = 10;
  /// Before the measured part, in the manner of the first phase: operations when `operations` is
  /// given, otherwise seconds.
  double warm_up = 0;
  /// Operations done so far are told at every multiple of it, in seconds; 0: not at all.
  double samples_s = 0;
  std::map<std::string, double> settings;  ///< changed ones only
  bool huge_pages = false;
  std::string program;  ///< of a workload that has one: the file to run; empty: from PATH
  /// Is made when the memory holds its starting content; says whose memory that is ("PID NAME").
  /// Empty: none.
  std::string ready_file;
  std::string wait_file;  ///< is then waited for; empty: none
};

struct PhaseResult {
  std::string name;
  double start_s = 0;  ///< since the start of the measured part
  double end_s = 0;
  std::uint64_t operations = 0;
};

struct RunResult {
  RunOptions options;                      ///< as asked for
  std::map<std::string, double> settings;  ///< as used
  TieredProcess process;                   ///< `resident`: what it had when filled
  unsigned sample_every = 1;
  double start_monotonic_s = 0;
  std::vector<PhaseResult> phases;
  std::vector<std::uint64_t> samples;  ///< operations at samples_s, 2 * samples_s, and so on
  std::uint64_t p50_ns = 0;
  std::uint64_t p99_ns = 0;
  std::uint64_t checksum = 0;
  Status verified;
  bool stopped = false;  ///< a signal ended the run early

  [[nodiscard]] std::uint64_t operations() const;
  [[nodiscard]] double seconds() const;
};

/// kUsage, in one sentence, for what can't be; the result's `verified` says what was found wrong.
[[nodiscard]] Result<RunResult> run_workload(const RunOptions& options, const System& system);

/// Keys: docs/workloads.md.
[[nodiscard]] nlohmann::ordered_json to_json(const RunResult& result);
[[nodiscard]] nlohmann::ordered_json list_json();

}  // namespace thermocline::workloads
