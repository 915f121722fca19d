// SPDX-License-Identifier: Apache-2.0
#include "emulation/timing/profile.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <array>

#include "base/text.h"

namespace thermocline::timing {

namespace {

struct Function {
  Purpose purpose;
  const char* pattern;  ///< of fnmatch(3)
};

// Linux 6.1 to 6.12. Of a function that compilers inline, those that it calls are listed as well.
constexpr Function kFunctions[] = {
    // NUMA balancing: unmapping for hint faults, the faults, what they are counted in.
    {Purpose::kTracker, "task_numa_work"},
    {Purpose::kTracker, "change_prot_numa"},
    {Purpose::kTracker, "do_numa_page"},
    {Purpose::kTracker, "do_huge_pmd_numa_page"},
    {Purpose::kTracker, "numa_migrate_check"},
    {Purpose::kTracker, "numa_migrate_prep"},
    {Purpose::kTracker, "numa_rebuild_*_mapping"},
    {Purpose::kTracker, "task_numa_fault"},
    {Purpose::kPolicy, "mpol_misplaced"},
    {Purpose::kPolicy, "should_numa_migrate_memory"},
    {Purpose::kMover, "migrate_misplaced_folio"},
    {Purpose::kMover, "migrate_misplaced_folio_prepare"},
    {Purpose::kMover, "migrate_misplaced_page"},
    // DAMON: what its thread does besides applying schemes is tracking.
    {Purpose::kTracker, "kdamond_fn"},
    {Purpose::kTracker, "kdamond_merge_regions"},
    {Purpose::kTracker, "kdamond_split_regions"},
    {Purpose::kTracker, "damon_*_prepare_access_checks"},
    {Purpose::kTracker, "damon_*_check_accesses"},
    {Purpose::kPolicy, "kdamond_apply_schemes"},
    {Purpose::kPolicy, "damon_do_apply_schemes"},
    {Purpose::kPolicy, "damos_apply_scheme"},
    {Purpose::kPolicy, "damos_adjust_quota"},
    {Purpose::kPolicy, "damon_*_apply_scheme"},
    {Purpose::kPolicy, "damon_*_scheme_score"},
    {Purpose::kMover, "damon_*_migrate*"},
    {Purpose::kMover, "__damon_*_migrate*"},
    {Purpose::kMover, "reclaim_pages"},
    // Moving on request.
    {Purpose::kMover, "*_sys_move_pages"},
    {Purpose::kMover, "kernel_move_pages"},
    {Purpose::kMover, "do_pages_move"},
    {Purpose::kMover, "*_sys_migrate_pages"},
    {Purpose::kMover, "kernel_migrate_pages"},
    {Purpose::kMover, "do_migrate_pages"},
    {Purpose::kMover, "migrate_pages"},
    {Purpose::kMover, "migrate_pages_batch"},
    {Purpose::kMover, "migrate_pages_sync"},
    // Making room, by demotion where that is on.
    {Purpose::kMover, "kswapd"},
    {Purpose::kMover, "balance_pgdat"},
    {Purpose::kMover, "shrink_node"},
    {Purpose::kMover, "demote_folio_list"},
    {Purpose::kMover, "demote_page_list"},
    // Moves that are no tiering: compaction, memory that goes offline.
    {Purpose::kApart, "compact_zone"},
    {Purpose::kApart, "do_migrate_range"},
};

/// Of the unwinder (ORC): where its tables lie.
constexpr std::array<const char*, 3> kTables = {"__start_orc_unwind_ip", "__stop_orc_unwind_ip",
                                                "__start_orc_unwind"};

constexpr std::array<Purpose, 3> kNeeded = {Purpose::kTracker, Purpose::kPolicy, Purpose::kMover};

}  // namespace

std::string_view purpose_name(Purpose purpose) {
  switch (purpose) {
    case Purpose::kTracker:
      return "tracker";
    case Purpose::kPolicy:
      return "policy";
    case Purpose::kMover:
      return "mover";
    case Purpose::kApart:
      break;
  }
  return "apart";
}

std::optional<Purpose> purpose_of(std::string_view function) {
  const std::string name(function.substr(0, function.find('.')));
  for (const Function& known : kFunctions)
    if (::fnmatch(known.pattern, name.c_str(), 0) == 0) return known.purpose;
  return std::nullopt;
}

std::string symbol_filter() {
  std::string names;
  for (const Function& known : kFunctions) {
    if (!names.empty()) names += '|';
    for (const char* c = known.pattern; *c != '\0'; ++c)
      names += *c == '*' ? std::string("[a-z0-9_]*") : std::string(1, *c);
  }
  std::string tables;
  for (const char* table : kTables) tables += fmt::format("{}{}", tables.empty() ? "" : "|", table);
  // A function ends where the next one begins; names of one and the same address are one function.
  return "$3 ~ /^(" + tables +
         ")$/ { print $1, $1, $3 }\n"
         "$2 !~ /^[tT]$/ || NF != 3 { next }\n"
         "name != \"\" && $1 != start { print start, $1, name; name = \"\" }\n"
         "$3 ~ /^(" +
         names + ")(\\.|$)/ { start = $1; name = $3 }\n";
}

Result<std::string> profile_plan(std::string_view symbols, std::string_view kernel,
                                 Nanoseconds period) {
  std::string plan = fmt::format("profile {}\n", period.count());
  std::array<std::size_t, kNeeded.size() + 1> found{};
  std::array<std::uint64_t, kTables.size()> tables{};
  for (const std::string_view line : split(symbols, '\n')) {
    const auto parts = words(line);
    if (parts.empty()) continue;
    const std::uint64_t start = parse_u64(parts.front(), 16).value_or(0);
    if (const auto* const table = std::find(kTables.begin(), kTables.end(), parts.back());
        table != kTables.end()) {
      tables[static_cast<std::size_t>(table - kTables.begin())] = start;
      continue;
    }
    // A line of another form has no purpose.
    const auto purpose = purpose_of(parts.back());
    const std::uint64_t end = parts.size() == 3 ? parse_u64(parts[1], 16).value_or(0) : 0;
    if (!purpose.has_value() || start == 0 || end <= start)
      return fail(ErrorKind::kCorrupt, "the kernel {} has a damaged list of functions: {}", kernel,
                  line);
    ++found[static_cast<std::size_t>(*purpose)];
    plan += fmt::format("text {} {} {}\n", purpose_name(*purpose), start, end - start);
  }
  for (const Purpose purpose : kNeeded)
    if (found[static_cast<std::size_t>(purpose)] == 0)
      return fail(ErrorKind::kUnsupported,
                  "the kernel {} shows no function of the {}, so its time can't be told; use one "
                  "with NUMA balancing and /proc/kallsyms, or leave --truth-profile out",
                  kernel, purpose_name(purpose));
  if (tables[0] == 0 || tables[1] <= tables[0] || tables[2] == 0)
    return fail(ErrorKind::kUnsupported,
                "the kernel {} shows no unwind tables, so callers can't be told; use one with "
                "CONFIG_UNWINDER_ORC and CONFIG_KALLSYMS_ALL, or leave --truth-profile out",
                kernel);
  return plan + fmt::format("unwind {} {} {}\n", tables[0], tables[1], tables[2]);
}

}  // namespace thermocline::timing
