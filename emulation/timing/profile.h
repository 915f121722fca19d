// SPDX-License-Identifier: Apache-2.0
// What a kernel's functions do for memory tiering, by their names: the plug-in samples a guest's
// kernel stacks and tells by the functions on them what the kernel was at. Used by the lab to turn
// a kernel's symbols into lines of a plan. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/units.h"

namespace thermocline::timing {

enum class Purpose {
  kTracker,  ///< finds out which pages are used: hint faults, accessed bits
  kPolicy,   ///< decides
  kMover,    ///< moves pages, or makes room where they go
  kApart,    ///< moves pages for other reasons (compaction): none of the above
};
[[nodiscard]] std::string_view purpose_name(Purpose purpose);

/// What a function is for; compilers' suffixes (".isra.0", ".cold") don't matter.
[[nodiscard]] std::optional<Purpose> purpose_of(std::string_view function);

/// A program for awk that picks the functions with a purpose, and where the unwinder's tables lie,
/// out of /proc/kallsyms: lines "START END NAME", addresses in hexadecimal.
[[nodiscard]] std::string symbol_filter();

/// Lines for the end of a plan. `symbols` is what symbol_filter() prints; functions that a kernel
/// lacks or has inlined may be missing. kCorrupt for lines of another form; kUnsupported when one
/// of tracker, policy and mover has no function at all: its share would read as zero; or when the
/// kernel's unwind tables are missing.
[[nodiscard]] Result<std::string> profile_plan(std::string_view symbols, std::string_view kernel,
                                               Nanoseconds period);

}  // namespace thermocline::timing
