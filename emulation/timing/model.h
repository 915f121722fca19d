// SPDX-License-Identifier: Apache-2.0
// A memory-timing model: what a guest's memory should cost. Read from a small TOML file (or one of
// the presets that are compiled in), checked as a whole before any guest boots, and turned into the
// plan that the QEMU plug-in follows. Pure but for reading the file.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline::timing {

/// Model times are finer than nanoseconds.
using Picoseconds = Quantity<struct PicosecondsTag>;
/// Bandwidth in 10^6 bytes per second.
using MegabytesPerSecond = Quantity<struct MegabytesPerSecondTag>;

struct CacheModel {
  Bytes size;
  unsigned ways = 0;
  Picoseconds latency;
};

/// The memory of one NUMA node.
struct NodeModel {
  std::optional<NodeId> node;  ///< none: every node that no other entry names ("rest")
  Picoseconds latency;         ///< idle, from a CPU's miss to its data
  /// By the CPU's node, where it differs: named nodes, the memory's own one, all others.
  std::map<NodeId, Picoseconds> latency_from;
  std::optional<Picoseconds> latency_own;
  std::optional<Picoseconds> latency_rest;
  MegabytesPerSecond bandwidth;
  MegabytesPerSecond background;  ///< of it taken by others
  double share = 1;               ///< of the device that is the guest's: its traffic weighs 1/share
  /// Mean wait of a line when the device is half busy; at load r it is queue * r / (1 - r).
  Picoseconds queue;
  /// Physical addresses, where the machine's own are not meant: first and last byte.
  std::optional<std::pair<std::uint64_t, std::uint64_t>> range;
  unsigned line = 0;  ///< in the file, for messages
};

struct Model {
  std::string file;  ///< for messages
  std::string name;
  std::string source;
  Picoseconds instruction{300};  ///< some 1.1 instructions a cycle at 3 GHz
  unsigned window = 224;         ///< instructions that may pass a load that has not come back
  unsigned in_flight = 12;       ///< misses of one CPU at a time
  unsigned prefetch = 16;        ///< lines that a stream is prefetched ahead; 0: no prefetcher
  Picoseconds pause{40'000};     ///< a `pause` instruction: some 140 cycles since Skylake
  Picoseconds counter{8'000};    ///< a read of the time-stamp counter
  CacheModel l2{Bytes(512 << 10), 8, Picoseconds(4'000)};
  CacheModel llc{Bytes(2 << 20), 16, Picoseconds(15'000)};
  unsigned tlb_entries = 1536;
  unsigned tlb_ways = 12;
  Picoseconds walk{25'000};
  std::vector<NodeModel> nodes;
};

/// Names of the presets, fastest first, and one's text; empty when there is none of that name.
[[nodiscard]] std::vector<std::string> preset_names();
[[nodiscard]] std::string_view preset_text(std::string_view name);

/// `text` is a preset's name or the path of a file. Every mistake is kUsage: "FILE:LINE: what".
[[nodiscard]] Result<Model> load_model(const std::string& text);
[[nodiscard]] Result<Model> parse_model(const std::string& text, const std::string& file);

/// "250ns", "0.4ns", "1.5us"; kUsage for anything else.
[[nodiscard]] Result<Picoseconds> parse_time(std::string_view text);
/// "25GB/s", "800MB/s" (10^9, 10^6 bytes); kUsage for anything else.
[[nodiscard]] Result<MegabytesPerSecond> parse_bandwidth(std::string_view text);

/// How the clock is driven.
enum class Mode {
  kReference,  ///< one CPU, deterministic
  kParallel,   ///< any number of CPUs, a bounded time apart
  kReport,     ///< not at all: counts only
};
[[nodiscard]] Result<Mode> parse_mode(std::string_view text);
[[nodiscard]] std::string_view mode_name(Mode mode);

/// Where a guest's memory is, as the emulated machine places it.
struct GuestMemory {
  struct Range {
    NodeId node;
    std::uint64_t start = 0;  ///< physical
    Bytes size;
  };
  std::vector<Range> ranges;
  std::vector<NodeId> cpu_node;  ///< by CPU
};

/// What is to be counted, and where it goes.
struct TruthOptions {
  std::string file;  ///< empty: nowhere
  Nanoseconds slice{0};
  std::string pages = "physical";  ///< none, physical or virtual
  /// Guest time between samples of what the kernel is at (profile.h); 0: none. *Requires* a file.
  Nanoseconds profile{0};
};

/// The plan for a guest. kUsage, with file and line, when the model speaks of a node that the guest
/// lacks, leaves one out, or its ranges overlap, lie outside their node or leave out some of it.
[[nodiscard]] Result<std::string> make_plan(const Model& model, const GuestMemory& memory,
                                            Mode mode, const TruthOptions& truth);

/// Idle latency of memory on `memory`, which `entry` describes, for CPUs of `cpu`.
[[nodiscard]] Picoseconds latency_between(const NodeModel& entry, NodeId memory, NodeId cpu);

/// The model of a node of the guest, or nullptr.
[[nodiscard]] const NodeModel* model_of(const Model& model, NodeId node);

}  // namespace thermocline::timing
