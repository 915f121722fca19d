// SPDX-License-Identifier: Apache-2.0
// What the workload programs share: the hand-shake with a script, where pages live, a stop signal,
// and the frame of main(). Never sets a memory policy: placement is the kernel's and Thermocline's.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"

namespace thermocline::workloads {

/// Set by SIGTERM and SIGINT once catch_stop_signals() was called; programs then finish early and
/// still report.
extern std::atomic<bool> stop_requested;
void catch_stop_signals();

/// CLOCK_MONOTONIC in seconds.
[[nodiscard]] double monotonic_seconds(const System& system);

/// Creates `path` (empty: does nothing), with its content from the start, so that a script knows
/// that this program is ready.
[[nodiscard]] Status write_ready_file(const std::string& path, std::string_view content = {});
/// Returns when `path` exists (empty: at once) or a stop was requested.
void wait_for_file(const std::string& path);

/// Writes `json` to `path` (empty: does nothing; "-": standard output), as write_whole() does.
[[nodiscard]] Status write_json(const std::string& path, const nlohmann::json& json);
[[nodiscard]] Status write_json(const std::string& path, const nlohmann::ordered_json& json);

/// How many of a set of pages each node holds.
struct Placement {
  std::map<int, std::uint64_t> pages_on_node;
  /// Pages whose node the kernel didn't tell. Linux 6.1 answers -ENOENT for a page that is under a
  /// NUMA hint, although it is present; so these are neither fast nor slow.
  std::uint64_t unknown = 0;

  /// Share of all the pages, unknown ones included, that are on `node`; 0 when there is none.
  [[nodiscard]] double share(int node) const;
  [[nodiscard]] nlohmann::json to_json() const;
  /// "node 0: 12 (0.1 %), node 1: 8180 (99.9 %)".
  [[nodiscard]] std::string to_text() const;
};

/// Asks the kernel where pages of this process live, without touching them (move_pages(2), query).
/// `pages` are page numbers from `base` on.
[[nodiscard]] Result<Placement> query_placement(System& system, const std::byte* base,
                                                std::span<const std::uint32_t> pages);

/// True when the kernel has the node; an error that says which nodes there are otherwise (kUsage).
[[nodiscard]] Status check_node(const System& system, int node);

/// Runs `body` and turns its error, or that standard output could not be written, into one sentence
/// "NAME: ..." and an exit code.
[[nodiscard]] int run_program(const char* name, const std::function<Result<int>()>& body);

}  // namespace thermocline::workloads
