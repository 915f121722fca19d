// SPDX-License-Identifier: Apache-2.0
// Breadth-first search from one random source after the other, top-down.
#include <algorithm>
#include <vector>

#include "bench/workloads/random.h"
#include "bench/workloads/suite/families.h"
#include "bench/workloads/suite/graph.h"

namespace thermocline::workloads {

namespace {

constexpr std::uint32_t kNone = ~0u;

class Bfs final : public Workload {
 public:
  Bfs(Graph graph, std::span<std::uint32_t> parents, std::span<std::uint32_t> queue,
      std::uint64_t seed)
      : graph_(graph), parents_(parents), queue_(queue), random_(seed, 10) {}

  void fill() override {
    graph_.fill();
    start();
  }
  void run(unsigned /*phase*/, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) {
      if (head_ == tail_) {
        sum_ = mix64(sum_ ^ tail_);
        start();
      }
      expand();
    }
    vertices_done_ += count;
  }
  [[nodiscard]] std::uint64_t checksum() const override {
    std::uint64_t sum = sum_;
    for (const std::uint32_t parent : parents_) sum = sum * 3 + parent;
    return sum;
  }
  /// Graph500's checks of the last tree: levels of a tree edge differ by one, those of any edge by
  /// at most one, and no edge leads out of what was reached.
  Status verify(std::uint64_t operations) override {
    if (vertices_done_ != operations)
      return fail(ErrorKind::kFailure, "{} vertices were expanded instead of {}", vertices_done_,
                  operations);
    TC_TRY(graph_.verify());
    for (; head_ != tail_; expand())
      if (queue_[head_] >= graph_.vertices())
        return fail(ErrorKind::kFailure, "the queue names vertex {}, which isn't there",
                    queue_[head_]);
    constexpr std::uint32_t kUnreached = 1u << 31;
    std::vector<std::uint32_t> level(graph_.vertices(), kUnreached);
    level[source_] = 0;
    for (std::uint32_t i = 1; i < tail_; ++i) {
      const std::uint32_t v = queue_[i];
      const std::uint32_t parent = v < graph_.vertices() ? parents_[v] : v;
      if (parent >= graph_.vertices() || level[parent] == kUnreached || level[v] != kUnreached)
        return fail(ErrorKind::kFailure, "vertex {} is not in the tree once", v);
      level[v] = level[parent] + 1;
    }
    for (std::uint32_t v = 0; v < graph_.vertices(); ++v) {
      bool hangs = v == source_ || level[v] == kUnreached;
      if (hangs && parents_[v] != (v == source_ ? v : kNone))
        return fail(ErrorKind::kFailure, "vertex {} has a parent and was not reached", v);
      for (const std::uint32_t u : graph_.of(v)) {
        if (level[u] + 1 - level[v] > 2)
          return fail(ErrorKind::kFailure, "the search missed the edge from {} to {}", v, u);
        hangs |= u == parents_[v];
      }
      if (!hangs) return fail(ErrorKind::kFailure, "vertex {} hangs on none of its neighbours", v);
    }
    return {};
  }

 private:
  void start() {
    source_ = graph_.draw_source(random_);
    std::fill(parents_.begin(), parents_.end(), kNone);
    parents_[source_] = source_;
    queue_[0] = source_;
    head_ = 0;
    tail_ = 1;
  }
  void expand() {
    const std::uint32_t v = queue_[head_++];
    for (const std::uint32_t u : graph_.of(v))
      if (parents_[u] == kNone && tail_ < queue_.size()) {
        parents_[u] = v;
        queue_[tail_++] = u;
      }
  }
  Graph graph_;
  std::span<std::uint32_t> parents_;
  std::span<std::uint32_t> queue_;
  Random random_;
  std::uint32_t source_ = 0, head_ = 0, tail_ = 0;
  std::uint64_t vertices_done_ = 0;
  std::uint64_t sum_ = 0;
};

Result<std::unique_ptr<Workload>> bfs(const Instance& instance) {
  TC_ASSIGN(const Graph graph, make_graph(instance, 2 * sizeof(std::uint32_t)));
  TC_ASSIGN(const auto parents, instance.memory.allocate<std::uint32_t>(graph.vertices()));
  TC_ASSIGN(const auto queue, instance.memory.allocate<std::uint32_t>(graph.vertices()));
  return std::make_unique<Bfs>(graph, parents, queue, instance.seed);
}

}  // namespace

std::vector<WorkloadSpec> bfs_workloads() {
  return {{"bfs",
           "expands one vertex of a breadth-first search; searches follow one another",
           "Graph500; GAP Benchmark Suite, 2015 (top-down)",
           16,
           {},
           bfs}};
}

}  // namespace thermocline::workloads
