// SPDX-License-Identifier: Apache-2.0
#include <numaif.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdint>
#include <vector>

#include "mover/mover.h"

namespace thermocline {

namespace {

/// A status that the kernel never writes: the page was not reported on.
constexpr int kNotReported = INT32_MIN;

MoveOutcome outcome_of_errno(int errno_value) {
  switch (errno_value) {
    case ENOENT:
    case EFAULT:
    case ESRCH:
      return MoveOutcome::kGone;
    case EBUSY:
    case EAGAIN:
      return MoveOutcome::kBusy;
    case ENOMEM:
      return MoveOutcome::kNoMemory;
    case EACCES:
    case EPERM:
      return MoveOutcome::kDenied;
    default:
      return MoveOutcome::kRefused;
  }
}

class KernelMover final : public Mover {
 public:
  KernelMover(System& system, std::function<Pid(Asid)> pid_of)
      : system_(system), pid_of_(std::move(pid_of)) {}

  void execute(std::span<const PageMove> moves, std::span<MoveOutcome> outcomes) override {
    assert(moves.size() == outcomes.size());
    if (moves.empty()) return;
    const Pid pid = pid_of_(moves.front().asid);
    if (pid.get() <= 0) {
      std::fill(outcomes.begin(), outcomes.end(), MoveOutcome::kGone);
      return;
    }
    // The kernel works through the pages in runs with one destination. When a page of a run can't
    // be migrated, the call ends with that run: it returns how many pages were not migrated or not
    // tried, and writes no status for the run although most of its pages have moved
    // (do_pages_move() in mm/migrate.c). So: ask where the pages of that run are now, and go on
    // behind it. Running out of memory on the destination ends the call with -ENOMEM, with pages
    // moved all the same.
    std::size_t start = 0;
    while (start < moves.size()) {
      const std::span<const PageMove> rest = moves.subspan(start);
      pages_.clear();
      nodes_.clear();
      for (const PageMove& move : rest) {
        pages_.push_back(reinterpret_cast<void*>(move.vpn.address()));
        nodes_.push_back(move.to.get());
      }
      status_.assign(rest.size(), kNotReported);
      const long rc = system_.move_pages(pid, pages_, nodes_, status_, MPOL_MF_MOVE);
      std::size_t done = rest.size();
      if (rc > 0) {
        done = end_of_failed_run(rest);
        ask_where(pid, rest.first(done), -EBUSY);
      } else if (rc < 0) {
        ask_where(pid, rest, static_cast<int>(rc));
      }
      for (std::size_t i = 0; i < done; ++i) {
        const int status = status_[i];
        outcomes[start + i] = status == rest[i].to.get() ? MoveOutcome::kMoved
                              : status >= 0              ? MoveOutcome::kBusy
                                                         : outcome_of_errno(-status);
      }
      start += done;
    }
    look_for_split(pid, moves, outcomes);
  }

 private:
  /// A huge page is moved by its first address. Was it split since the scan, then only 4 KiB came
  /// along, and the kernel's status of them doesn't tell: where the last ones are does.
  void look_for_split(Pid pid, std::span<const PageMove> moves, std::span<MoveOutcome> outcomes) {
    std::vector<void*> last;
    std::vector<std::size_t> index;
    for (std::size_t i = 0; i < moves.size(); ++i) {
      if (moves[i].order == kOrder4K || outcomes[i] != MoveOutcome::kMoved) continue;
      const Vpn page = moves[i].vpn + (moves[i].order.pages() - PageCount(1));
      last.push_back(reinterpret_cast<void*>(page.address()));
      index.push_back(i);
    }
    if (last.empty()) return;
    std::vector<int> where(last.size(), kNotReported);
    if (system_.move_pages(pid, last, {}, where, 0) != 0) return;
    // An errno is no proof: Linux 6.1 answers -ENOENT for pages under a NUMA hint.
    for (std::size_t k = 0; k < index.size(); ++k)
      if (where[k] >= 0 && where[k] != moves[index[k]].to.get())
        outcomes[index[k]] = MoveOutcome::kGone;
  }

  /// Index behind the run whose statuses were not written, and behind the page that ended it.
  [[nodiscard]] std::size_t end_of_failed_run(std::span<const PageMove> moves) const {
    std::size_t i = 0;
    while (i < moves.size() && status_[i] != kNotReported) ++i;
    const std::size_t first = i;
    while (i < moves.size() && status_[i] == kNotReported && moves[i].to == moves[first].to) ++i;
    if (i < moves.size() && status_[i] != kNotReported) ++i;
    return i;
  }

  /// Fills the statuses that the kernel didn't write: the page's node when it has arrived,
  /// otherwise `reason` (an errno, negative), or the kernel's own word when the page is gone.
  void ask_where(Pid pid, std::span<const PageMove> moves, int reason) {
    std::vector<void*> pages;
    std::vector<std::size_t> index;
    for (std::size_t i = 0; i < moves.size(); ++i) {
      if (status_[i] != kNotReported) continue;
      pages.push_back(reinterpret_cast<void*>(moves[i].vpn.address()));
      index.push_back(i);
    }
    if (pages.empty()) return;
    std::vector<int> where(pages.size(), reason);
    const long rc = system_.move_pages(pid, pages, {}, where, 0);
    for (std::size_t k = 0; k < index.size(); ++k) {
      const int node = where[k];
      int status = reason;
      if (rc < 0) {
        if (rc == -ESRCH) status = -ESRCH;
      } else if (node == moves[index[k]].to.get() || node == -EFAULT) {
        status = node;
      }
      // -ENOENT is not taken for "gone": Linux 6.1 answers so for pages under a NUMA hint.
      status_[index[k]] = status;
    }
  }

  System& system_;
  std::function<Pid(Asid)> pid_of_;
  std::vector<void*> pages_;
  std::vector<int> nodes_;
  std::vector<int> status_;
};

}  // namespace

std::string_view outcome_name(MoveOutcome outcome) {
  static constexpr std::array<std::string_view, kMoveOutcomes> kNames{
      "moved", "gone", "busy", "no_memory", "denied", "refused"};
  return kNames[static_cast<std::size_t>(outcome)];
}

std::unique_ptr<Mover> make_kernel_mover(System& system, std::function<Pid(Asid)> pid_of) {
  return std::make_unique<KernelMover>(system, std::move(pid_of));
}

}  // namespace thermocline
