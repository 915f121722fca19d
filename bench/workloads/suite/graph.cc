// SPDX-License-Identifier: Apache-2.0
// Breadth-first search and PageRank on a Kronecker graph, laid out as the GAP Benchmark Suite has
// it (Beamer, Asanović and Patterson, 2015): 64-bit offsets, 32-bit neighbours, both directions of
// each edge. The generator is Graph500's: A = 0.57, B = C = 0.19, numbers of vertices shuffled;
// double edges stay, as its specification allows, loops are drawn again. There are at least 16
// edges a vertex; what the next power of two of vertices leaves of the footprint becomes more
// edges.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "bench/workloads/random.h"
#include "bench/workloads/suite/families.h"

namespace thermocline::workloads {

namespace {

constexpr std::uint64_t kEdgeFactor = 16;

class Graph {
 public:
  Graph(std::span<std::uint64_t> offsets, std::span<std::uint32_t> neighbours, std::uint64_t seed)
      : offsets_(offsets), neighbours_(neighbours), seed_(seed) {}

  [[nodiscard]] std::uint32_t vertices() const {
    return static_cast<std::uint32_t>(offsets_.size() - 1);
  }
  [[nodiscard]] std::span<const std::uint32_t> of(std::uint32_t v) const {
    return neighbours_.subspan(offsets_[v], offsets_[v + 1] - offsets_[v]);
  }

  /// Draws the edges twice, to count and to place them, so no list of edges is kept.
  void fill() {
    std::fill(offsets_.begin(), offsets_.end(), 0);
    each_edge([this](std::uint32_t u, std::uint32_t v) { ++offsets_[u], ++offsets_[v]; });
    std::partial_sum(offsets_.begin(), offsets_.end(), offsets_.begin());
    // offsets_[v] is now the end of v's list; placing from behind leaves it at the start.
    each_edge([this](std::uint32_t u, std::uint32_t v) {
      neighbours_[--offsets_[u]] = v;
      neighbours_[--offsets_[v]] = u;
    });
    digest_ = digest();
  }
  [[nodiscard]] Status verify() const {
    if (digest() != digest_) return fail(ErrorKind::kFailure, "the graph has changed");
    return {};
  }

 private:
  template <class Body>
  void each_edge(const Body& body) const {
    const auto scale = static_cast<unsigned>(std::countr_zero(vertices()));
    const std::uint32_t mask = vertices() - 1;
    Random random(seed_, 9);
    // Odd factors and shifts permute the numbers below a power of two.
    const auto shuffled = [&](std::uint32_t v) {
      v = (v * 0x9e3779b1u + static_cast<std::uint32_t>(seed_)) & mask;
      v ^= v >> (scale / 2 + 1);
      return (v * 0x85ebca6bu) & mask;
    };
    for (std::uint64_t edge = 0; edge < neighbours_.size() / 2;) {
      std::uint32_t u = 0, v = 0;
      std::uint64_t bits = 0;
      for (unsigned level = 0; level < scale; ++level) {
        if (level % 4 == 0) bits = random.next();  // 16 bits a level
        const auto dice = static_cast<std::uint32_t>(bits & 0xffff);
        bits >>= 16;
        constexpr std::uint32_t kA = 37356, kAB = 49807, kABC = 62259;  // of 65536
        u = u << 1 | (dice >= kAB);
        v = v << 1 | ((dice >= kA && dice < kAB) || dice >= kABC);
      }
      if (u == v) continue;
      body(shuffled(u), shuffled(v));
      ++edge;
    }
  }
  [[nodiscard]] std::uint64_t digest() const {
    std::uint64_t sum = 0;
    for (const std::uint64_t offset : offsets_) sum = sum * 3 + offset;
    for (const std::uint32_t v : neighbours_) sum = sum * 3 + v;
    return sum;
  }

  std::span<std::uint64_t> offsets_;
  std::span<std::uint32_t> neighbours_;
  std::uint64_t seed_;
  std::uint64_t digest_ = 0;
};

struct Room {
  std::uint64_t vertices;
  Graph graph;
};
/// A graph that leaves `per_vertex` bytes a vertex for the algorithm.
Result<Room> make_graph(const Instance& instance, std::uint64_t per_vertex) {
  const std::uint64_t each = per_vertex + sizeof(std::uint64_t);
  const std::uint64_t all = instance.footprint.get();
  const std::uint64_t vertices =
      std::min(std::bit_floor(all / (each + 2 * kEdgeFactor * sizeof(std::uint32_t))),
               std::uint64_t{1} << 31);
  const std::uint64_t edges = (all - vertices * each) / (2 * sizeof(std::uint32_t));
  TC_ASSIGN(const auto offsets, instance.memory.allocate<std::uint64_t>(vertices + 1));
  TC_ASSIGN(const auto neighbours, instance.memory.allocate<std::uint32_t>(2 * edges));
  return Room{vertices, Graph(offsets, neighbours, instance.seed)};
}

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
    for (std::uint64_t i = 0; i < count; ++i) {
      set(vertex_, score(vertex_));
      ++vertices_done_;
      if (++vertex_ == graph_.vertices()) turn();
    }
  }
  [[nodiscard]] std::uint64_t checksum() const override {
    double sum = 0;
    for (std::uint32_t v = 0; v < graph_.vertices(); ++v)
      sum += static_cast<double>(scores_[v]) * (v + 1);
    return std::bit_cast<std::uint64_t>(sum);
  }
  Status verify(std::uint64_t operations) override {
    if (vertices_done_ != operations)
      return fail(ErrorKind::kFailure, "{} vertices were done instead of {}", vertices_done_,
                  operations);
    TC_TRY(graph_.verify());
    while (vertex_ != 0 || vertices_done_ == 0) run(0, 1);
    double sum = 0;
    for (const float score : scores_) sum += static_cast<double>(score);
    if (!(std::abs(sum - 1.0) < 1e-3))
      return fail(ErrorKind::kFailure, "the scores add up to {} instead of 1", sum);
    return {};
  }

 private:
  static constexpr float kDamping = 0.85f;

  [[nodiscard]] float score(std::uint32_t v) const {
    float sum = 0;
    for (const std::uint32_t u : graph_.of(v)) sum += now_[u];
    return base_ + kDamping * sum;
  }
  void set(std::uint32_t v, float score) {
    scores_[v] = score;
    const std::size_t degree = graph_.of(v).size();
    if (degree == 0) dangling_ += static_cast<double>(score);
    next_[v] = degree == 0 ? 0.0f : score / static_cast<float>(degree);
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
  std::span<float> scores_, now_, next_;  ///< scores; what each vertex gives to a neighbour
  std::uint32_t vertex_ = 0;
  std::uint64_t vertices_done_ = 0;
  float base_ = 0;
  double dangling_ = 0;
};

Result<std::unique_ptr<Workload>> pagerank(const Instance& instance) {
  TC_ASSIGN(const Room room, make_graph(instance, 3 * sizeof(float)));
  TC_ASSIGN(const auto scores, instance.memory.allocate<float>(room.vertices));
  TC_ASSIGN(const auto now, instance.memory.allocate<float>(room.vertices));
  TC_ASSIGN(const auto next, instance.memory.allocate<float>(room.vertices));
  return std::make_unique<PageRank>(room.graph, scores, now, next);
}

class Bfs final : public Workload {
 public:
  Bfs(Graph graph, std::span<std::int32_t> parents, std::span<std::uint32_t> queue,
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
    for (const std::int32_t parent : parents_) sum = sum * 3 + static_cast<std::uint32_t>(parent);
    return sum;
  }
  /// Graph500's checks of the last tree: levels of a tree edge differ by one, those of any edge by
  /// at most one, and no edge leads out of what was reached.
  Status verify(std::uint64_t operations) override {
    if (vertices_done_ != operations)
      return fail(ErrorKind::kFailure, "{} vertices were expanded instead of {}", vertices_done_,
                  operations);
    TC_TRY(graph_.verify());
    while (head_ != tail_) expand();
    std::vector<std::int32_t> level(graph_.vertices(), -1);
    level[source_] = 0;
    for (std::uint32_t i = 1; i < tail_; ++i) {
      const std::uint32_t v = queue_[i];
      const auto parent = static_cast<std::uint32_t>(parents_[v]);
      const auto near = graph_.of(v);
      if (parent >= graph_.vertices() || level[parent] < 0 || level[v] >= 0 ||
          std::find(near.begin(), near.end(), parent) == near.end())
        return fail(ErrorKind::kFailure, "vertex {} hangs on none of its neighbours", v);
      level[v] = level[parent] + 1;
    }
    for (std::uint32_t v = 0; v < graph_.vertices(); ++v)
      for (const std::uint32_t u : graph_.of(v))
        if ((level[v] < 0) != (level[u] < 0) || std::abs(level[v] - level[u]) > 1)
          return fail(ErrorKind::kFailure, "the search missed the edge from {} to {}", v, u);
    return {};
  }

 private:
  void start() {
    do source_ = static_cast<std::uint32_t>(random_.below(graph_.vertices()));
    while (graph_.of(source_).empty());
    std::fill(parents_.begin(), parents_.end(), -1);
    parents_[source_] = static_cast<std::int32_t>(source_);
    queue_[0] = source_;
    head_ = 0;
    tail_ = 1;
  }
  void expand() {
    const std::uint32_t v = queue_[head_++];
    for (const std::uint32_t u : graph_.of(v))
      if (parents_[u] < 0) {
        parents_[u] = static_cast<std::int32_t>(v);
        queue_[tail_++] = u;
      }
  }

  Graph graph_;
  std::span<std::int32_t> parents_;
  std::span<std::uint32_t> queue_;
  Random random_;
  std::uint32_t source_ = 0, head_ = 0, tail_ = 0;
  std::uint64_t vertices_done_ = 0;
  std::uint64_t sum_ = 0;
};

Result<std::unique_ptr<Workload>> bfs(const Instance& instance) {
  TC_ASSIGN(const Room room, make_graph(instance, sizeof(std::int32_t) + sizeof(std::uint32_t)));
  TC_ASSIGN(const auto parents, instance.memory.allocate<std::int32_t>(room.vertices));
  TC_ASSIGN(const auto queue, instance.memory.allocate<std::uint32_t>(room.vertices));
  return std::make_unique<Bfs>(room.graph, parents, queue, instance.seed);
}

}  // namespace

std::vector<WorkloadSpec> graph_workloads() {
  return {{"bfs",
           "expands one vertex of a breadth-first search; searches follow one another",
           "Graph500; GAP Benchmark Suite, 2015 (top-down)",
           16,
           {},
           bfs},
          {"pagerank",
           "gathers the score of one vertex from its neighbours",
           "GAP Benchmark Suite, 2015 (pull, damping 0.85)",
           16,
           {},
           pagerank}};
}

}  // namespace thermocline::workloads
