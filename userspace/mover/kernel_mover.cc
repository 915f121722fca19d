// SPDX-License-Identifier: Apache-2.0
#include <numaif.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "mover/mover.h"

namespace thermocline {

namespace {

/// A status that the kernel never writes: the page was not reported on.
constexpr int kNotReported = INT32_MIN;

/// So many other owners are asked for a page that isn't where it was to be moved.
constexpr std::size_t kMostOthers = 8;

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
  KernelMover(System& system, AddressSpaces spaces) : system_(system), spaces_(std::move(spaces)) {}

  void execute(std::span<const PageMove> moves, std::span<MoveOutcome> outcomes) override {
    assert(moves.size() == outcomes.size());
    if (moves.empty()) return;
    // What others may map goes in calls of its own.
    const auto all_owners = [](const PageMove& m) { return m.owners == Owners::kAll; };
    for (std::size_t i = 0; i < moves.size();) {
      std::size_t end = i + 1;
      while (end < moves.size() && all_owners(moves[end]) == all_owners(moves[i])) ++end;
      move(moves.subspan(i, end - i), outcomes.subspan(i, end - i),
           all_owners(moves[i]) ? MPOL_MF_MOVE_ALL : MPOL_MF_MOVE);
      i = end;
    }
    again(moves, outcomes, MPOL_MF_MOVE_ALL, [&](std::size_t i) {
      return moves[i].owners == Owners::kForks && outcomes[i] == MoveOutcome::kDenied
                 ? std::optional(PagePlace{moves[i].asid, moves[i].vpn})
                 : std::nullopt;
    });
    look_elsewhere(moves, outcomes);
  }

 private:
  /// Tries another time those moves for which `where` tells a place.
  template <class Where>
  void again(std::span<const PageMove> moves, std::span<MoveOutcome> outcomes, int flag,
             Where where) {
    std::map<Asid, std::vector<std::size_t>> by_space;
    std::vector<PageMove> tries(moves.begin(), moves.end());
    for (std::size_t i = 0; i < moves.size(); ++i) {
      const std::optional<PagePlace> place = where(i);
      if (!place) continue;
      tries[i].asid = place->asid;
      tries[i].vpn = place->vpn;
      by_space[place->asid].push_back(i);
    }
    for (const auto& [asid, indices] : by_space) {
      std::vector<PageMove> batch;
      for (const std::size_t i : indices) batch.push_back(tries[i]);
      std::vector<MoveOutcome> results(batch.size(), MoveOutcome::kRefused);
      move(batch, results, flag);
      for (std::size_t k = 0; k < indices.size(); ++k) outcomes[indices[k]] = results[k];
    }
  }

  /// What its process doesn't map is looked for at the others that share it.
  void look_elsewhere(std::span<const PageMove> moves, std::span<MoveOutcome> outcomes) {
    if (!spaces_.others) return;
    std::map<std::size_t, std::vector<PagePlace>> others;
    for (std::size_t i = 0; i < moves.size(); ++i)
      if (moves[i].owners == Owners::kAll && outcomes[i] == MoveOutcome::kGone)
        others[i] = spaces_.others({moves[i].asid, moves[i].vpn});
    for (std::size_t round = 0; round < kMostOthers && !others.empty(); ++round) {
      again(moves, outcomes, MPOL_MF_MOVE_ALL, [&](std::size_t i) -> std::optional<PagePlace> {
        const auto found = others.find(i);
        if (found == others.end() || outcomes[i] != MoveOutcome::kGone) return std::nullopt;
        if (round >= found->second.size()) return std::nullopt;
        return found->second[round];
      });
      std::erase_if(others, [&](const auto& entry) {
        return outcomes[entry.first] != MoveOutcome::kGone || entry.second.size() <= round + 1;
      });
    }
  }

  /// All of one address space.
  void move(std::span<const PageMove> moves, std::span<MoveOutcome> outcomes, int flag) {
    const Pid pid = spaces_.pid_of(moves.front().asid);
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
      const long rc = system_.move_pages(pid, pages_, nodes_, status_, flag);
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
  AddressSpaces spaces_;
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

std::unique_ptr<Mover> make_kernel_mover(System& system, AddressSpaces spaces) {
  return std::make_unique<KernelMover>(system, std::move(spaces));
}

}  // namespace thermocline
