// SPDX-License-Identifier: Apache-2.0
// The contract of what carries out moves, and the mover that asks the kernel (move_pages(2)).
// A mover has no opinions: it moves what it is given, in that order, and says what became of each
// page.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"

namespace thermocline {

/// What became of one page. Every value but the first is a failure with its reason.
enum class MoveOutcome : std::uint8_t {
  kMoved,     ///< it is where it was to go
  kGone,      ///< no such page any more: unmapped, split, or the process has exited (ENOENT,
              ///< EFAULT, ESRCH)
  kBusy,      ///< in use by the kernel or by a device right now (EBUSY, EAGAIN); worth another try
  kNoMemory,  ///< the destination has no free page (ENOMEM)
  kDenied,    ///< not allowed: others map the page, cpuset (EACCES, EPERM)
  kRefused,   ///< the kernel refuses the destination or the page for good (EINVAL, ENODEV, other)
};
inline constexpr std::size_t kMoveOutcomes = 6;

/// Stable name, also the JSON key: "moved", "gone", "busy", "no_memory", "denied",
/// "refused".
[[nodiscard]] std::string_view outcome_name(MoveOutcome outcome);

/// Which processes may map a page that is moved.
enum class Owners : std::uint8_t {
  kOne,    ///< only the one it is moved in (MPOL_MF_MOVE): if others map it, it is left alone
  kForks,  ///< if others map it, they are forks of that process: then all of them
           ///< (MPOL_MF_MOVE_ALL)
  kAll,    ///< any; and when this one doesn't map it just now, another one does
};

struct PageMove {
  Asid asid;
  Vpn vpn;  ///< of a huge page: its first
  PageOrder order;
  NodeId to;
  Owners owners = Owners::kOne;
};

/// Where a process may map a page.
struct PagePlace {
  Asid asid;
  Vpn vpn;
  bool operator==(const PagePlace&) const = default;
};

class Mover {
 public:
  virtual ~Mover() = default;
  /// Moves every page, all of one address space, and fills `outcomes` (same size). One call blocks
  /// for as long as the kernel takes: callers bound it by the batch they hand in.
  virtual void execute(std::span<const PageMove> moves, std::span<MoveOutcome> outcomes) = 0;
};

/// What a mover has to be told of address spaces.
struct AddressSpaces {
  /// The process of one, or Pid(0) when it has gone.
  std::function<Pid(Asid)> pid_of;
  /// Where else a page of Owners::kAll may be mapped, likeliest first. May be empty: nowhere.
  std::function<std::vector<PagePlace>(PagePlace)> others;
};

/// Moves pages with move_pages(2). A page of kAll that its process doesn't map is looked for at
/// some of the others; when none of them has it either, it is kGone. The kernel moves pages against
/// the memory policy of their area all the same: trackers report such pages as unobservable, so
/// that nobody plans to move them. Requires CAP_SYS_NICE for processes of other users, and for
/// pages that several processes map (kDenied without).
[[nodiscard]] std::unique_ptr<Mover> make_kernel_mover(System& system, AddressSpaces spaces);

}  // namespace thermocline
