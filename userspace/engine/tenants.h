// SPDX-License-Identifier: Apache-2.0
// Who may hold how much of the fast tier. A tenant is one target or several (a cgroup, a command);
// this works out what each is entitled to and bends a policy's plan to it, whatever the policy
// thinks of tenants. Called by the engine; pure, and in integers.
//
// Entitlement. Tenants share the fast tier in proportion to their weights, but each gets its floor
// at least and its ceiling at most, and nobody gets more than it wants: the pages it has touched
// lately. What one doesn't want the others share in the same way. So: entitlement = clamp(level *
// weight, min(floor, wanted), min(ceiling, wanted)), with one level for all at which they add up to
// the capacity. (Weighted max-min fairness: Bertsekas, Gallager, Data Networks, 1992, section 6.5.)
//
//   worked example: capacity 100, A and B want 100 each, weights 3 and 1: 75 and 25; with a floor
//   of 40 for B: 60 and 40; when A wants only 30: 30 and 70.
//
// Enforcement. Nobody is held to its entitlement while there is room for all that is wanted. Else a
// tenant above its own gives the coldest pages away that those below want, theirs that are hottest
// first; and no policy's plan takes from a tenant what it is entitled to. A ceiling holds always.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/units.h"
#include "heat/heat_map.h"
#include "policies/policy.h"

namespace thermocline {

/// What a tenant may hold of the fast tier.
struct TenantLimits {
  std::string name;                      ///< for people
  unsigned weight = 100;                 ///< 1..10000. Default 100.
  PageCount floor{0};                    ///< before weights count. Default 0.
  PageCount ceiling{~std::uint64_t{0}};  ///< never more. Default: no ceiling.
};

struct TenantStatus {
  TenantLimits limits;
  std::size_t processes = 0;
  PageCount fast;      ///< that it holds
  PageCount wanted;    ///< touched lately, wherever they are
  PageCount entitled;  ///< of the fast tier's capacity
};

/// What is known of a tenant when its share is worked out.
struct TenantNeed {
  unsigned weight = 100;
  PageCount floor, ceiling, wanted;
};

/// What each tenant is entitled to of `capacity`. Floors that don't fit shrink alike.
[[nodiscard]] std::vector<PageCount> entitlements(PageCount capacity,
                                                  std::span<const TenantNeed> tenants);

/// Rule of a move that the engine planned, whatever the policy: Move::rule.
inline constexpr std::uint8_t kEngineRule = 255;

struct Tenant {
  TenantLimits limits;
  std::set<Asid> spaces;
};

/// Pages [first, end) of the address space of each process of a tenant.
struct PageRange {
  Vpn first, end;
  bool operator==(const PageRange&) const = default;
};

/// A tenant as the host knows it.
struct TenantMembers {
  TenantLimits limits;
  std::vector<Pid> members;
  std::vector<PageRange> never_move;  ///< left where they are, whatever the policy plans
  std::vector<PageRange> keep_fast;   ///< brought to the first tier, and left there
  bool shares = true;                 ///< false: it has ranges, but nobody's limits count
};

/// Bends `plan` so that tenants come to hold what they are entitled to of the first tier, within
/// the budget of the view, and tells what that is. Nothing is changed with fewer than two tenants
/// and no ceiling. Pages of address spaces of no tenant are the policy's alone.
std::vector<TenantStatus> enforce_shares(const View& view, std::span<const Tenant> tenants,
                                         Plan& plan);

/// Adds demotions of the coldest pages of the first tier, `pages` at most and as far as budget and
/// the next tier's room go.
void demote_coldest(const View& view, PageCount pages, Plan& plan);

/// `missing` pages of the first tier are to become free: takes promotions to it off the plan, and
/// adds demotions until it frees as many.
void make_headroom(const View& view, PageCount missing, Plan& plan);

}  // namespace thermocline
