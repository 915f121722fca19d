// SPDX-License-Identifier: Apache-2.0
// A batch through the mover against the bare system call, over this process's own pages.
//
// Pages go back and forth between the first two nodes that have memory. On a machine with one node
// no page can move: the call then finds every page where it should be, and what is measured is the
// cost of asking, not of moving. The label says which.
#include <benchmark/benchmark.h>
#include <numa.h>
#include <numaif.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "base/system.h"
#include "mover/mover.h"

namespace thermocline::bench {
namespace {

constexpr Asid kSelf{1};

class Pages {
 public:
  explicit Pages(std::size_t count) : count_(count) {
    memory_ = ::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) std::abort();
    ::madvise(memory_, bytes(), MADV_NOHUGEPAGE);
    std::memset(memory_, 1, bytes());
    for (int node = 0; node <= numa_max_node() && nodes_.size() < 2; ++node)
      if (numa_node_size64(node, nullptr) > 0) nodes_.push_back(node);
  }
  ~Pages() { ::munmap(memory_, bytes()); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  [[nodiscard]] char* page(std::size_t i) const {
    return static_cast<char*>(memory_) + i * kPageSize;
  }
  /// Where the pages go in round `round`.
  [[nodiscard]] int node(std::uint64_t round) const { return nodes_[round % nodes_.size()]; }
  [[nodiscard]] const char* label() const {
    return nodes_.size() > 1 ? "moving between two nodes" : "one node: asking only, nothing moves";
  }

 private:
  [[nodiscard]] std::size_t bytes() const { return count_ * kPageSize; }
  std::size_t count_;
  void* memory_ = nullptr;
  std::vector<int> nodes_;
};

void finish(benchmark::State& state, const Pages& pages) {
  state.SetLabel(pages.label());
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void BareMovePages(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  const Pages pages(count);
  std::vector<void*> addresses;
  for (std::size_t i = 0; i < count; ++i) addresses.push_back(pages.page(i));
  std::vector<int> nodes(count), status(count);
  std::uint64_t round = 0;
  for (auto _ : state) {
    nodes.assign(count, pages.node(++round));
    if (::move_pages(0, count, addresses.data(), nodes.data(), status.data(), MPOL_MF_MOVE) != 0)
      state.SkipWithError("move_pages failed");
  }
  finish(state, pages);
}
BENCHMARK(BareMovePages)->Arg(64)->Arg(512)->Unit(benchmark::kMicrosecond);

void MoverBatch(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  const Pages pages(count);
  const auto system = make_real_system();
  const auto mover = make_kernel_mover(*system, {[](Asid) { return Pid(::getpid()); }, {}});
  std::vector<PageMove> moves(count);
  std::vector<MoveOutcome> outcomes(count);
  std::uint64_t round = 0;
  for (auto _ : state) {
    ++round;
    for (std::size_t i = 0; i < count; ++i)
      moves[i] = {kSelf, Vpn::of_address(reinterpret_cast<std::uintptr_t>(pages.page(i))), kOrder4K,
                  NodeId(pages.node(round))};
    mover->execute(moves, outcomes);
    for (const MoveOutcome outcome : outcomes)
      if (outcome != MoveOutcome::kMoved) state.SkipWithError("a page did not move");
  }
  finish(state, pages);
}
BENCHMARK(MoverBatch)->Arg(64)->Arg(512)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace thermocline::bench
