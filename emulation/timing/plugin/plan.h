// SPDX-License-Identifier: GPL-2.0
// What the plug-in has to do, as the host worked it out (../plan.cc writes it): lines of words,
// "KEY VALUE...". The host has checked the model; here only damage is noticed. Times are
// picoseconds, so that nothing is rounded on the way.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "emulation/timing/plugin/profile.h"

namespace timing_plugin {

constexpr unsigned kLineShift = 6;
constexpr unsigned kPageShift = 12;
constexpr unsigned kMaxInFlight = 32;

enum class Mode {
  kReference,  ///< the clock is instructions and stalls of one vCPU: the same in every run
  kParallel,   ///< every vCPU has a clock of its own; they may be a bounded time apart
  kReport,     ///< the clock is left alone; only counts
};

struct CacheSpec {
  std::uint64_t bytes = 0;
  std::uint64_t ways = 0;
  std::uint64_t latency_ps = 0;
};

struct TierSpec {
  std::uint64_t node = 0;
  std::uint64_t bandwidth = 0;   ///< of the device, MB/s
  std::uint64_t background = 0;  ///< of it used by others, MB/s
  std::uint64_t share_ppm = 0;   ///< of the device that is this guest's: its traffic counts 1/share
  std::uint64_t queue_ps = 0;    ///< mean wait at half load; load r waits queue * r / (1 - r)
  std::vector<std::uint64_t> latency_ps;  ///< by the node of the CPU
};

struct Range {
  std::uint64_t start = 0;
  std::uint64_t size = 0;
  std::uint64_t tier = 0;
};

struct Plan {
  Mode mode = Mode::kReport;
  std::uint64_t ps_per_instruction = 0;
  std::uint64_t window = 0;      ///< instructions that may pass a load that has not come back
  std::uint64_t in_flight = 0;   ///< misses at a time
  std::uint64_t prefetch = 0;    ///< lines that a stream is prefetched ahead; 0: none
  std::uint64_t pause_ps = 0;    ///< a `pause` instruction
  std::uint64_t counter_ps = 0;  ///< a read of the time-stamp counter
  CacheSpec l2, llc;
  std::uint64_t tlb_entries = 0;
  std::uint64_t tlb_ways = 0;
  std::uint64_t walk_ps = 0;
  std::vector<TierSpec> tiers;
  std::vector<Range> ranges;            ///< sorted, apart from each other
  std::vector<std::uint64_t> cpu_node;  ///< by vCPU
  std::string truth_path;               ///< empty: none
  std::uint64_t slice_ns = 0;           ///< 0: only marks close a slice
  std::string pages;                    ///< none, physical or virtual
  std::uint64_t profile_ns = 0;         ///< between samples; 0: none
  std::vector<Text> texts;              ///< kernel functions with a purpose
  /// The kernel's tables for the unwinder, 0: none; places are as many as entries.
  std::uint64_t places = 0;
  std::uint64_t places_end = 0;
  std::uint64_t entries = 0;
};

/// False with a sentence in `error` when the text is not a plan.
bool read_plan(const std::string& text, Plan& plan, std::string& error);

}  // namespace timing_plugin
