// SPDX-License-Identifier: Apache-2.0
#include "tracking/tracker.h"

#include <algorithm>

#include "base/text.h"
#include "tracking/bpf_tracker.h"
#include "tracking/damon_tracker.h"
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

const std::vector<TrackerFactory>& tracker_factories() {
  static const std::vector<TrackerFactory> factories{
      kmod_tracker_factory(), bpf_tracker_factory(), damon_tracker_factory(),
      refs_tracker_factory(), written_tracker_factory()};
  return factories;
}

Result<std::unique_ptr<Tracker>> make_tracker(System& system, const std::string& name,
                                              const TrackerOptions& options) {
  std::string reasons;
  // Of several reasons, the one that the user can mend at once decides how this ends.
  ErrorKind kind = ErrorKind::kUnsupported;
  std::vector<std::string> names;
  for (const TrackerFactory& factory : tracker_factories()) {
    names.push_back(factory.name);
    if (name != "auto" && name != factory.name) continue;
    const Status works = factory.probe(system);
    if (works) return factory.make(system, options);
    if (name == factory.name) return tl::make_unexpected(works.error());
    if (works.error().kind == ErrorKind::kPermission) kind = ErrorKind::kPermission;
    reasons +=
        fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", factory.name, works.error().message);
  }
  if (name == "auto") return fail(kind, "no way to track page accesses works here: {}", reasons);
  const std::string near = nearest_word(name, names);
  return fail(ErrorKind::kUsage, "there is no tracker \"{}\"{}; known: auto, {}", name,
              near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near),
              fmt::join(names, ", "));
}

}  // namespace thermocline
