// SPDX-License-Identifier: Apache-2.0
// PageRank: each vertex pulls from its neighbours, iteration after iteration, for as long as the
// run takes.
#include <bit>
#include <cmath>

#include "bench/workloads/suite/families.h"
#include "bench/workloads/suite/graph.h"
#include "bench/workloads/suite/tally.h"

namespace thermocline::workloads {

namespace {

class PageRank final : public Workload {
 public:
  PageRank(Graph graph, std::span<float> scores, std::span<float> now, std::span<float> next)
      : graph_(graph), scores_(scores), now_(now), next_(next) {}

  void fill() override {
    graph_.fill();
    const std::uint32_t n = graph_.vertices();
    for (std::uint32_t v = 0; v < n; ++v) set(v, 1.0f / static_cast<float>(n));
    turn();
  }
  void run(unsigned /*phase*/, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) step();
    vertices_done_ += count;
  }
  [[nodiscard]] std::uint64_t checksum() const override {
    double sum = 0;
    for (std::uint32_t v = 0; v < graph_.vertices(); ++v)
      sum += static_cast<double>(scores_[v]) * (v + 1);
    return std::bit_cast<std::uint64_t>(sum);
  }
  /// What was pulled from is as it was written; of this iteration every score is then computed
  /// again or, for the rest of it, first.
  Status verify(std::uint64_t operations) override {
    if (vertices_done_ != operations)
      return fail(ErrorKind::kFailure, "{} vertices were done instead of {}", vertices_done_,
                  operations);
    TC_TRY(graph_.verify());
    if (!scores_.intact() || !now_.intact() || !next_.intact())
      return fail(ErrorKind::kFailure, "a score is not what was written");
    for (std::uint32_t v = 0; v < vertex_; ++v)
      if (scores_[v] != score(v) || next_[v] != share(v))
        return fail(ErrorKind::kFailure,
                    "the score of vertex {} doesn't follow from its neighbours", v);
    do step();
    while (vertex_ != 0);
    double sum = 0;
    for (std::uint32_t v = 0; v < graph_.vertices(); ++v) sum += static_cast<double>(scores_[v]);
    if (!(std::abs(sum - 1.0) < 1e-3))
      return fail(ErrorKind::kFailure, "the scores add up to {} instead of 1", sum);
    return {};
  }

 private:
  static constexpr float kDamping = 0.85f;

  void step() {
    set(vertex_, score(vertex_));
    if (++vertex_ == graph_.vertices()) turn();
  }
  [[nodiscard]] float score(std::uint32_t v) const {
    float sum = 0;
    for (const std::uint32_t u : graph_.of(v)) sum += now_[u];
    return base_ + kDamping * sum;
  }
  /// What a vertex gives to each neighbour.
  [[nodiscard]] float share(std::uint32_t v) const {
    const std::size_t degree = graph_.of(v).size();
    return degree == 0 ? 0.0f : scores_[v] / static_cast<float>(degree);
  }
  void set(std::uint32_t v, float score) {
    scores_.set(v, score);
    if (graph_.of(v).empty()) dangling_ += static_cast<double>(score);
    next_.set(v, share(v));
  }
  /// An iteration is over. What vertices without edges hold is shared among all.
  void turn() {
    vertex_ = 0;
    std::swap(now_, next_);
    base_ = static_cast<float>(
        (1.0 - static_cast<double>(kDamping) + static_cast<double>(kDamping) * dangling_) /
        graph_.vertices());
    dangling_ = 0;
  }

  Graph graph_;
  Tally scores_, now_, next_;  ///< scores; shares of the last iteration and of this one
  std::uint32_t vertex_ = 0;
  std::uint64_t vertices_done_ = 0;
  float base_ = 0;
  double dangling_ = 0;
};

Result<std::unique_ptr<Workload>> pagerank(const Instance& instance) {
  TC_ASSIGN(const Graph graph, make_graph(instance, 3 * sizeof(float)));
  TC_ASSIGN(const auto scores, instance.memory.allocate<float>(graph.vertices()));
  TC_ASSIGN(const auto now, instance.memory.allocate<float>(graph.vertices()));
  TC_ASSIGN(const auto next, instance.memory.allocate<float>(graph.vertices()));
  return std::make_unique<PageRank>(graph, scores, now, next);
}

}  // namespace

std::vector<WorkloadSpec> pagerank_workloads() {
  return {{"pagerank",
           "gathers the score of one vertex from its neighbours",
           "GAP Benchmark Suite, 2015 (pull, damping 0.85)",
           16,
           {},
           pagerank}};
}

}  // namespace thermocline::workloads
