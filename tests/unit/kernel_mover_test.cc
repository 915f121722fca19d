// SPDX-License-Identifier: Apache-2.0
// The mover against a model of what move_pages(2) does, with its gaps in the statuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <numaif.h>

#include <cerrno>
#include <map>
#include <set>

#include "mover/mover.h"

namespace thermocline {
namespace {

using testing::Each;
using testing::ElementsAre;

/// do_pages_move(): runs end at another destination or at a page that can't be isolated; a run with
/// a page that doesn't migrate ends the call, and its statuses are not written.
class ModelKernel : public System {
 public:
  Result<std::string> read_file(const std::string& p) const override {
    return fail(ErrorKind::kNotFound, "no {}", p);
  }
  Result<std::vector<std::string>> list_dir(const std::string& p) const override {
    return fail(ErrorKind::kNotFound, "no {}", p);
  }
  bool exists(const std::string&) const override { return false; }
  Result<std::string> read_link_name(const std::string& p) const override {
    return fail(ErrorKind::kNotFound, "no {}", p);
  }
  Nanoseconds now() const override { return {}; }
  Nanoseconds process_cpu_time() const override { return {}; }
  Result<UniqueFd> open_device(const std::string&, int) override {
    return fail(ErrorKind::kNotFound, "none");
  }
  int ioctl(int, unsigned long, void*) override { return -ENOTTY; }
  Result<UniqueFd> pidfd_open(Pid) override { return fail(ErrorKind::kNotFound, "none"); }
  bool pidfd_exited(int) const override { return false; }

  long move_pages(Pid pid, std::span<void* const> pages, std::span<const int> nodes,
                  std::span<int> status, int flags) override {
    ++calls;
    if (dead) return -ESRCH;
    asked = pid;
    const bool all = flags == MPOL_MF_MOVE_ALL;
    if (nodes.empty()) {
      for (std::size_t i = 0; i < pages.size(); ++i) status[i] = query(vpn(pages[i]));
      return 0;
    }
    std::vector<std::size_t> run;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      if (!run.empty() && nodes[run.front()] != nodes[i]) {
        const long rc = flush(pages, nodes, status, run, i);
        if (rc != 0) return rc;
      }
      const std::uint64_t page = vpn(pages[i]);
      int error = 0;
      if (!where.contains(page)) error = -EFAULT;
      if (unmapped.contains({pid, page}))
        error = -ENOENT;
      else if (shared.contains(page) && !all)
        error = -EACCES;
      if (all) moved_for_all.insert(page);
      if (error == 0 && where[page] != nodes[i]) {
        run.push_back(i);
        continue;
      }
      status[i] = error != 0 ? error : nodes[i];
      const long rc = flush(pages, nodes, status, run, i);
      if (rc != 0) return rc > 0 ? rc - 1 : rc;
    }
    return flush(pages, nodes, status, run, pages.size());
  }

  std::map<std::uint64_t, int> where;  // page -> node
  std::set<std::uint64_t> busy, shared, hinted;
  std::set<std::pair<Pid, std::uint64_t>> unmapped;  // by that process, the others have the page
  std::set<std::uint64_t> moved_for_all;             // or tried
  Pid asked;                                         // last
  std::set<std::uint64_t> huge;                      // first pages of 2 MiB pages
  int free_pages = 1 << 20;
  bool dead = false;
  unsigned calls = 0;

 private:
  static std::uint64_t vpn(void* page) {
    return reinterpret_cast<std::uintptr_t>(page) >> kPageShift;
  }
  int query(std::uint64_t page) {
    if (hinted.contains(page)) return -ENOENT;  // Linux 6.1 under NUMA hinting
    return where.contains(page) ? where[page] : -EFAULT;
  }
  long flush(std::span<void* const> pages, std::span<const int> nodes, std::span<int> status,
             std::vector<std::size_t>& run, std::size_t i) {
    long failed = 0;
    for (const std::size_t k : run) {
      const std::uint64_t page = vpn(pages[k]);
      if (busy.contains(page)) {
        ++failed;
      } else if (free_pages == 0) {
        return -ENOMEM;
      } else {
        --free_pages;
        for (std::uint64_t n = 0; n < (huge.contains(page) ? 512u : 1u); ++n)
          where[page + n] = nodes[k];
      }
    }
    if (failed > 0) return failed + static_cast<long>(pages.size() - i);
    for (const std::size_t k : run) status[k] = nodes[k];
    run.clear();
    return 0;
  }
};

class KernelMoverTest : public testing::Test {
 protected:
  KernelMoverTest() {
    for (std::uint64_t page = 0; page < 64; ++page) kernel_.where[page] = 1;
  }
  std::vector<MoveOutcome> move(std::uint64_t first, std::uint64_t count, int to = 0) {
    std::vector<PageMove> moves;
    for (std::uint64_t i = 0; i < count; ++i)
      moves.push_back({Asid(1), Vpn(first + i), kOrder4K, NodeId(to)});
    std::vector<MoveOutcome> outcomes(count, MoveOutcome::kRefused);
    mover_->execute(moves, outcomes);
    return outcomes;
  }
  ModelKernel kernel_;
  Pid pid_{42};
  std::unique_ptr<Mover> mover_ = make_kernel_mover(kernel_, {[this](Asid) { return pid_; }, {}});
};

TEST_F(KernelMoverTest, MovesABatchInOneCall) {
  EXPECT_THAT(move(0, 64), Each(MoveOutcome::kMoved));
  EXPECT_EQ(kernel_.calls, 1u);
  for (const auto& [page, node] : kernel_.where) EXPECT_EQ(node, 0) << page;
}

TEST_F(KernelMoverTest, ABusyPageCostsOnlyItself) {
  kernel_.busy = {10, 40};
  const auto outcomes = move(0, 64);
  for (std::uint64_t page = 0; page < 64; ++page) {
    const bool busy = kernel_.busy.contains(page);
    EXPECT_EQ(outcomes[page], busy ? MoveOutcome::kBusy : MoveOutcome::kMoved) << page;
    EXPECT_EQ(kernel_.where[page], busy ? 1 : 0) << page;
  }
}

TEST_F(KernelMoverTest, SharedUnmappedAndBusyTogether) {
  kernel_.shared = {1};
  kernel_.where.erase(3);
  kernel_.busy = {5};
  EXPECT_THAT(move(0, 8),
              ElementsAre(MoveOutcome::kMoved, MoveOutcome::kDenied, MoveOutcome::kMoved,
                          MoveOutcome::kGone, MoveOutcome::kMoved, MoveOutcome::kBusy,
                          MoveOutcome::kMoved, MoveOutcome::kMoved));
}

TEST_F(KernelMoverTest, BusyBeforeAPageThatEndsTheRun) {
  kernel_.busy = {0};
  kernel_.shared = {2};
  EXPECT_THAT(move(0, 5), ElementsAre(MoveOutcome::kBusy, MoveOutcome::kMoved, MoveOutcome::kDenied,
                                      MoveOutcome::kMoved, MoveOutcome::kMoved));
}

TEST_F(KernelMoverTest, AFullDestinationSaysNoMemoryForTheRest) {
  kernel_.free_pages = 3;
  const auto outcomes = move(0, 8);
  for (std::size_t i = 0; i < 8; ++i)
    EXPECT_EQ(outcomes[i], i < 3 ? MoveOutcome::kMoved : MoveOutcome::kNoMemory) << i;
}

TEST_F(KernelMoverTest, AlreadyThereCountsAsMoved) {
  EXPECT_THAT(move(0, 4, 1), Each(MoveOutcome::kMoved));
}

TEST_F(KernelMoverTest, AHintedPageIsNotTakenForGone) {
  kernel_.busy = {2};
  kernel_.hinted = {2};
  EXPECT_EQ(move(0, 4)[2], MoveOutcome::kBusy);
}

TEST_F(KernelMoverTest, AHugePageThatWasSplitIsNotTakenForMoved) {
  for (std::uint64_t page = 512; page < 4 * 512; ++page) kernel_.where[page] = 1;
  kernel_.huge = {512, 1536};
  kernel_.hinted = {2047};
  const std::vector<PageMove> moves{{Asid(1), Vpn(512), kOrder2M, NodeId(0)},
                                    {Asid(1), Vpn(1024), kOrder2M, NodeId(0)},
                                    {Asid(1), Vpn(1536), kOrder2M, NodeId(0)}};
  std::vector<MoveOutcome> outcomes(moves.size(), MoveOutcome::kRefused);
  mover_->execute(moves, outcomes);
  EXPECT_THAT(outcomes, ElementsAre(MoveOutcome::kMoved, MoveOutcome::kGone, MoveOutcome::kMoved));
}

TEST_F(KernelMoverTest, OnlySharedMemoryIsMovedForAll) {
  kernel_.shared = {1, 2, 3};
  std::vector<PageMove> moves;
  for (std::uint64_t page = 0; page < 6; ++page)
    moves.push_back({Asid(1), Vpn(page), kOrder4K, NodeId(0)});
  moves[1].owners = moves[4].owners = Owners::kAll;
  moves[2].owners = moves[5].owners = Owners::kForks;
  std::vector<MoveOutcome> outcomes(moves.size(), MoveOutcome::kRefused);
  mover_->execute(moves, outcomes);
  EXPECT_THAT(outcomes,
              ElementsAre(MoveOutcome::kMoved, MoveOutcome::kMoved, MoveOutcome::kMoved,
                          MoveOutcome::kDenied, MoveOutcome::kMoved, MoveOutcome::kMoved));
  EXPECT_THAT(kernel_.moved_for_all, ElementsAre(1u, 2u, 4u))
      << "a fork's only when it was refused, and what may be a stranger's never";
}

TEST_F(KernelMoverTest, WhatItsProcessDoesNotMapIsMovedInAnotherOne) {
  // Address space 1 is process 42, and so on; pages 0..7 are 32..39 to the others.
  for (std::uint64_t page = 0; page < 8; ++page) kernel_.unmapped.insert({Pid(42), page});
  kernel_.unmapped.insert({Pid(43), 33});
  kernel_.unmapped.insert({Pid(43), 34});
  kernel_.unmapped.insert({Pid(44), 34});
  unsigned asked = 0;
  const auto mover = make_kernel_mover(
      kernel_, {[](Asid asid) { return Pid(static_cast<std::int32_t>(41 + asid.get())); },
                [&](PagePlace page) {
                  ++asked;
                  EXPECT_EQ(page.asid, Asid(1));
                  return std::vector{PagePlace{Asid(2), Vpn(page.vpn.get() + 32)},
                                     PagePlace{Asid(3), Vpn(page.vpn.get() + 32)}};
                }});
  std::vector<PageMove> moves;
  for (const std::uint64_t page : {0, 1, 2, 3})
    moves.push_back({Asid(1), Vpn(page), kOrder4K, NodeId(0), Owners::kAll});
  moves[3].owners = Owners::kOne;
  std::vector<MoveOutcome> outcomes(moves.size(), MoveOutcome::kRefused);
  mover->execute(moves, outcomes);
  EXPECT_THAT(outcomes, ElementsAre(MoveOutcome::kMoved, MoveOutcome::kMoved, MoveOutcome::kGone,
                                    MoveOutcome::kGone));
  EXPECT_EQ(kernel_.where[32], 0);
  EXPECT_EQ(kernel_.where[33], 0);
  EXPECT_EQ(kernel_.where[34], 1);
  EXPECT_EQ(asked, 3u);
}

TEST_F(KernelMoverTest, AnExitedProcessIsGone) {
  kernel_.dead = true;
  EXPECT_THAT(move(0, 4), Each(MoveOutcome::kGone));
  pid_ = Pid(0);
  EXPECT_THAT(move(0, 4), Each(MoveOutcome::kGone));
}

}  // namespace
}  // namespace thermocline
