// SPDX-License-Identifier: GPL-2.0
#include "emulation/timing/plugin/plan.h"

#include <algorithm>
#include <sstream>

namespace timing_plugin {

namespace {

bool read_cache(std::istringstream& in, CacheSpec& cache) {
  return static_cast<bool>(in >> cache.bytes >> cache.ways >> cache.latency_ps);
}

bool read_line(const std::string& key, std::istringstream& in, Plan& plan) {
  if (key == "mode") {
    std::string mode;
    in >> mode;
    plan.mode = mode == "reference"  ? Mode::kReference
                : mode == "parallel" ? Mode::kParallel
                                     : Mode::kReport;
    return mode == "reference" || mode == "parallel" || mode == "report";
  }
  if (key == "core")
    return static_cast<bool>(in >> plan.ps_per_instruction >> plan.window >> plan.in_flight >>
                             plan.pause_ps >> plan.counter_ps >> plan.prefetch);
  if (key == "l2") return read_cache(in, plan.l2);
  if (key == "llc") return read_cache(in, plan.llc);
  if (key == "tlb")
    return static_cast<bool>(in >> plan.tlb_entries >> plan.tlb_ways >> plan.walk_ps);
  if (key == "tier") {
    TierSpec tier;
    if (!(in >> tier.node >> tier.bandwidth >> tier.background >> tier.share_ppm >> tier.queue_ps))
      return false;
    for (std::uint64_t latency = 0; in >> latency;) tier.latency_ps.push_back(latency);
    plan.tiers.push_back(tier);
    return !tier.latency_ps.empty() && tier.share_ppm > 0 && tier.background < tier.bandwidth;
  }
  if (key == "range") {
    Range range;
    if (!(in >> range.start >> range.size >> range.tier)) return false;
    plan.ranges.push_back(range);
    return range.size != 0;
  }
  if (key == "cpus") {
    for (std::uint64_t node = 0; in >> node;) plan.cpu_node.push_back(node);
    return !plan.cpu_node.empty();
  }
  if (key == "truth") {
    // The path is the rest of the line: it may hold blanks.
    return (in >> plan.slice_ns >> plan.pages) && in.get() == ' ' &&
           std::getline(in, plan.truth_path);
  }
  if (key == "profile") return static_cast<bool>(in >> plan.profile_ns) && plan.profile_ns != 0;
  if (key == "unwind")
    return in >> plan.places >> plan.places_end >> plan.entries && plan.places < plan.places_end;
  if (key == "text") {
    Text text;
    std::string purpose;
    if (!(in >> purpose >> text.start >> text.size)) return false;
    const auto* const known = std::find(kPurposeNames.begin(), kPurposeNames.end(), purpose);
    if (known == kPurposeNames.end()) return false;
    text.purpose = static_cast<Purpose>(known - kPurposeNames.begin());
    plan.texts.push_back(text);
    return text.size != 0;
  }
  return false;
}

bool whole(const Plan& plan) {
  const auto power_of_two = [](std::uint64_t n) { return n != 0 && (n & (n - 1)) == 0; };
  for (const CacheSpec* cache : {&plan.l2, &plan.llc})
    if (cache->ways == 0 || !power_of_two(cache->bytes / (cache->ways << kLineShift))) return false;
  if (plan.tlb_ways == 0 || !power_of_two(plan.tlb_entries / plan.tlb_ways)) return false;
  if (plan.in_flight == 0 || plan.in_flight > kMaxInFlight) return false;
  std::uint64_t end = 0;
  for (const Range& range : plan.ranges) {
    if (range.start < end || range.tier >= plan.tiers.size()) return false;
    end = range.start + range.size;
  }
  for (const TierSpec& tier : plan.tiers)
    for (const std::uint64_t node : plan.cpu_node)
      if (node >= tier.latency_ps.size()) return false;
  return !plan.ranges.empty() && !plan.cpu_node.empty();
}

}  // namespace

bool read_plan(const std::string& text, Plan& plan, std::string& error) {
  std::istringstream lines(text);
  std::string line;
  if (!std::getline(lines, line) || line != "thermocline-plan 1") {
    error = "the plan is not of version 1: the plug-in and the command are of different builds";
    return false;
  }
  while (std::getline(lines, line)) {
    std::istringstream in(line);
    std::string key;
    in >> key;
    if (!read_line(key, in, plan)) {
      error = "the plan has a damaged line: " + line;
      return false;
    }
  }
  if (!whole(plan)) error = "the plan is not complete";
  return error.empty();
}

}  // namespace timing_plugin
