// SPDX-License-Identifier: Apache-2.0
// Pointer chase: each load needs the one before, so time per hop is latency (lmbench's lat_mem_rd,
// McVoy and Staelin, USENIX 1996). Nodes are one cache line; their order is one random cycle
// (Sattolo, 1986), or two: one through hot pages, one through the others.
#include <utility>

#include "bench/workloads/hot_set.h"
#include "bench/workloads/random.h"
#include "bench/workloads/suite/families.h"

namespace thermocline::workloads {

namespace {

constexpr std::uint64_t kSalts = 6;

/// Linked by address, not by number: only so does the timing model see that a hop must wait for the
/// one before.
struct alignas(64) Node {
  Node* next;
  std::uint64_t coin;  ///< decides which cycle the next hop follows
  std::uint64_t salt[kSalts];
};
constexpr std::uint32_t kNodesPerPage = kPageSize / sizeof(Node);

class Chase final : public Workload {
 public:
  Chase(std::span<Node> nodes, std::uint64_t seed, HotSet set, double hot_share)
      : nodes_(nodes),
        seed_(seed),
        cycles_{std::move(set.cold), std::move(set.hot)},
        hot_limit_(cycles_[1].empty() ? 0 : static_cast<std::uint64_t>(hot_share * 0x1p32)) {}

  void fill() override {
    for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
      nodes_[i].coin = mix64(seed_ ^ i);
      for (std::uint64_t k = 0; k < kSalts; ++k) nodes_[i].salt[k] = salt(i, k);
    }
    Random random(seed_, 4);
    for (const std::vector<std::uint32_t>& pages : cycles_) {
      const std::uint64_t count = pages.size() * kNodesPerPage;
      for (std::uint64_t i = 0; i < count; ++i) node(pages, i).next = &node(pages, i);
      for (std::uint64_t i = count; i > 1; --i)
        std::swap(node(pages, i - 1).next, node(pages, random.below(i - 1)).next);
    }
    for (int side = 0; side < 2; ++side)
      if (!cycles_[side].empty()) at_[side] = &node(cycles_[side], 0);
  }

  void run(unsigned /*phase*/, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) {
      // The node just reached has a say, so neither cycle can run ahead of the other.
      turn_ += 0x9e3779b9u + static_cast<std::uint32_t>(coin_);
      const unsigned side = turn_ < hot_limit_;
      const Node* const reached = at_[side] = at_[side]->next;
      coin_ = reached->coin;
      sum_ += reached->salt[0];
    }
  }

  [[nodiscard]] std::uint64_t checksum() const override { return sum_; }

  Status verify(std::uint64_t /*operations*/) override {
    for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
      bool intact = nodes_[i].coin == mix64(seed_ ^ i);
      for (std::uint64_t k = 0; k < kSalts; ++k) intact = intact && nodes_[i].salt[k] == salt(i, k);
      if (!intact || !is_node(nodes_[i].next))
        return fail(ErrorKind::kFailure, "node {} does not hold what was written", i);
    }
    for (const std::vector<std::uint32_t>& pages : cycles_) {
      if (pages.empty()) continue;
      const std::uint64_t count = pages.size() * kNodesPerPage;
      const Node* const first = &node(pages, 0);
      const Node* reached = first;
      std::uint64_t hops = 0;
      do reached = reached->next;
      while (++hops < count && reached != first);
      if (reached != first || hops != count)
        return fail(ErrorKind::kFailure, "a cycle of {} nodes does not close after as many hops",
                    count);
    }
    return {};
  }

 private:
  Node& node(const std::vector<std::uint32_t>& pages, std::uint64_t i) {
    return nodes_[std::uint64_t{pages[i / kNodesPerPage]} * kNodesPerPage + i % kNodesPerPage];
  }
  /// Memory that was written over must not be followed anywhere.
  [[nodiscard]] bool is_node(const Node* at) const {
    const auto offset =
        reinterpret_cast<std::uintptr_t>(at) - reinterpret_cast<std::uintptr_t>(nodes_.data());
    return offset < nodes_.size_bytes() && offset % sizeof(Node) == 0;
  }
  [[nodiscard]] std::uint64_t salt(std::uint32_t i, std::uint64_t k) const {
    return mix64(seed_ + i) + k;
  }

  std::span<Node> nodes_;
  std::uint64_t seed_;
  std::vector<std::uint32_t> cycles_[2];  ///< pages of the cold and of the hot one
  std::uint64_t hot_limit_;
  const Node* at_[2] = {nullptr, nullptr};
  std::uint32_t turn_ = 0;
  std::uint64_t coin_ = 0;
  std::uint64_t sum_ = 0;
};

Result<std::unique_ptr<Workload>> chase(const Instance& instance) {
  const PageCount pages = pages_of(instance.footprint);
  // 32-bit numbers of nodes; 256 GiB are far beyond what a guest has.
  if (pages.get() > (std::uint64_t{1} << 32) / kNodesPerPage)
    return fail(ErrorKind::kUsage, "chase takes at most 256 GiB a thread");
  HotSet set;
  if (instance["hot"] > 0) {
    TC_ASSIGN(
        auto sets,
        choose_hot_sets({.pages = pages, .hot_fraction = instance["hot"], .seed = instance.seed}));
    set = std::move(sets[0]);
  } else {
    for (std::uint32_t page = 0; page < pages.get(); ++page) set.cold.push_back(page);
  }
  TC_ASSIGN(const auto nodes, instance.memory.allocate<Node>(pages.get() * kNodesPerPage));
  return std::make_unique<Chase>(nodes, instance.seed, std::move(set), instance["hot_share"]);
}

}  // namespace

std::vector<WorkloadSpec> chase_workloads() {
  return {{"chase",
           "follows one pointer to a random cache line",
           "lmbench, USENIX 1996",
           256,
           {{"hot", 0, 0, 0.9, "share of the pages in a cycle of their own; 0: one cycle"},
            {"hot_share", 0.9, 0, 1, "share of the hops in that cycle"}},
           chase}};
}

}  // namespace thermocline::workloads
