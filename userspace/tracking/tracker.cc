// SPDX-License-Identifier: Apache-2.0
#include "tracking/tracker.h"

#include <algorithm>

#include "base/text.h"
#include "tracking/bpf_tracker.h"
#include "tracking/combine_tracker.h"
#include "tracking/damon_tracker.h"
#include "tracking/hmu_tracker.h"
#include "tracking/idle_tracker.h"
#include "tracking/kmod_tracker.h"
#include "tracking/refs_tracker.h"
#include "tracking/written_tracker.h"

namespace thermocline {

ScanStats& ScanStats::operator+=(const ScanStats& o) {
  entries += o.entries;
  accessed += o.accessed;
  records += o.records;
  bytes += o.bytes;
  skipped += o.skipped;
  elapsed += o.elapsed;
  longest_lock = std::max(longest_lock, o.longest_lock);
  for (std::size_t i = 0; i < lock_holds.size(); ++i) lock_holds[i] += o.lock_holds[i];
  return *this;
}

std::string_view to_string(TrackerOptions::Clear clear) {
  switch (clear) {
    case TrackerOptions::Clear::kClearRefs:
      return "clear_refs";
    case TrackerOptions::Clear::kCold:
      return "cold";
    case TrackerOptions::Clear::kAuto:
      break;
  }
  return "auto";
}

std::string_view to_string(TrackerAbilities::Grain grain) {
  switch (grain) {
    case TrackerAbilities::Grain::kMapping:
      return "mapping";
    case TrackerAbilities::Grain::kRegion:
      return "region";
    case TrackerAbilities::Grain::kPage:
      break;
  }
  return "page";
}

namespace {

/// A name in the list for what a program that simulates makes by itself.
TrackerFactory for_simulation(const char* name, const char* summary, const char* cannot_see,
                              const char* why_not) {
  TrackerFactory factory;
  factory.name = name;
  factory.summary = summary;
  factory.abilities.marks = TrackerAbilities::Marks::kNone;
  factory.abilities.knows_nodes = true;
  factory.abilities.privilege = "nothing";
  factory.abilities.cannot_see = cannot_see;
  factory.automatic = false;
  factory.probe = [why_not](System&, const TrackerOptions&) -> Status {
    return fail(ErrorKind::kUnsupported, "{}: it is there for programs that simulate", why_not);
  };
  factory.make = [probe = factory.probe](
                     System& system,
                     const TrackerOptions& options) -> Result<std::unique_ptr<Tracker>> {
    return tl::make_unexpected(probe(system, options).error());
  };
  return factory;
}

}  // namespace

const std::vector<TrackerFactory>& tracker_factories() {
  static const std::vector<TrackerFactory> factories{
      kmod_tracker_factory(),
      bpf_tracker_factory(),
      idle_tracker_factory(),
      damon_tracker_factory(),
      refs_tracker_factory(),
      written_tracker_factory(),
      hmu_tracker_factory(),
      combine_tracker_factory(),
      for_simulation("replay", "access records that were kept, played again",
                     "any process of this machine; what the recording doesn't tell",
                     "it plays address spaces of the past, so it can't follow a process"),
      for_simulation("synthetic", "touches of a made address space, drawn by a seed",
                     "any process of this machine; what it is asked to miss",
                     "it makes its touches up, so it can't follow a process")};
  return factories;
}

AutoOrder auto_order(const System& system, std::span<const ProcessIdentity> targets) {
  AutoOrder order;
  for (const TrackerFactory& factory : tracker_factories())
    if (factory.automatic) order.factories.push_back(&factory);
  const auto guest = std::find_if(
      targets.begin(), targets.end(),
      [&](const ProcessIdentity& process) { return has_second_mmu(system, process.pid); });
  if (guest == targets.end()) return order;
  order.second_mmu = *guest;
  std::stable_partition(order.factories.begin(), order.factories.end(),
                        [](const TrackerFactory* factory) { return factory->name == "damon"; });
  return order;
}

std::string second_mmu_sentence(const ProcessIdentity& process) {
  return fmt::format(
      "process {} ({}) runs a virtual machine, whose touches accessed bits of the process don't "
      "show: \"auto\" prefers damon, which asks the second MMU too",
      process.pid.get(), process.command);
}

Result<std::unique_ptr<Tracker>> make_tracker(System& system, const std::string& name,
                                              const TrackerOptions& options,
                                              std::span<const ProcessIdentity> targets) {
  std::vector<std::string> names;
  for (const TrackerFactory& factory : tracker_factories()) {
    names.push_back(factory.name);
    if (name != factory.name) continue;
    TC_TRY(factory.probe(system, options));
    return factory.make(system, options);
  }
  if (name != "auto") {
    const std::string near = nearest_word(name, names);
    return fail(ErrorKind::kUsage, "there is no tracker \"{}\"{}; known: auto, {}", name,
                near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near),
                fmt::join(names, ", "));
  }
  std::string reasons;
  // Of several reasons, the one that the user can mend at once decides how this ends.
  ErrorKind kind = ErrorKind::kUnsupported;
  for (const TrackerFactory* factory : auto_order(system, targets).factories) {
    const Status works = factory->probe(system, options);
    if (works) return factory->make(system, options);
    if (works.error().kind == ErrorKind::kPermission) kind = ErrorKind::kPermission;
    reasons +=
        fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", factory->name, works.error().message);
  }
  return fail(kind, "no way to track page accesses works here: {}", reasons);
}

}  // namespace thermocline
