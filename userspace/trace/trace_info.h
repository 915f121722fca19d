// SPDX-License-Identifier: Apache-2.0
// What a trace tells of itself beside its records: who recorded what, where and how. In the file it
// is JSON (docs/trace-format.md), an object a frame; it is read as untrusted input.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline::trace {

/// Memory of a process under one name, "[heap]" or a path; "" for memory without one.
struct NamedRange {
  Vpn first;
  PageCount pages;
  std::string name;
  bool operator==(const NamedRange&) const = default;
};

/// An address space that records are about.
struct ProcessInfo {
  Asid asid;
  Pid pid;
  std::string command;
  std::vector<NamedRange> mappings;  ///< by address; the last that was told
  bool operator==(const ProcessInfo&) const = default;
};

struct TierInfo {
  std::string name;
  std::vector<NodeId> nodes;
  Bytes total;
  bool operator==(const TierInfo&) const = default;
};

/// One run of a recorder; a file that was continued has several.
struct SessionInfo {
  std::string made_by;  ///< "thermocline 0.1.0"
  std::string source;   ///< tracker, or format that it was imported from
  std::string grain;    ///< what the source tells apart: "page", "mapping", "region", "sample"
  bool sees_reads = true;
  Nanoseconds window{};       ///< that was asked for
  std::uint64_t unix_ns = 0;  ///< CLOCK_REALTIME at its begin
  std::string kernel, cpu;
  Bytes memory;
  std::vector<TierInfo> tiers;       ///< fastest first; empty = not known
  std::vector<std::string> command;  ///< that was run; empty = none
  bool operator==(const SessionInfo&) const = default;
};

/// How a session ended; a killed recorder leaves none.
struct EndInfo {
  std::string reason;
  std::uint64_t windows = 0;
  std::uint64_t lost_records = 0;  ///< that the disk was too slow for
  bool operator==(const EndInfo&) const = default;
};

struct TraceInfo {
  std::vector<SessionInfo> sessions;
  std::map<Asid, ProcessInfo> processes;
  std::vector<EndInfo> ends;
  bool operator==(const TraceInfo&) const = default;
};

[[nodiscard]] nlohmann::ordered_json to_json(const SessionInfo& session);
[[nodiscard]] nlohmann::ordered_json to_json(const ProcessInfo& process);
[[nodiscard]] nlohmann::ordered_json to_json(const EndInfo& end);

/// Adds what one frame tells; a process takes the place of what was told of it before. Unknown keys
/// are passed over. kCorrupt when it is no such JSON.
[[nodiscard]] Status add_info(std::string_view json, TraceInfo& info);

}  // namespace thermocline::trace
