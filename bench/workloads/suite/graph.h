// SPDX-License-Identifier: Apache-2.0
// The graph that bfs, pagerank and bc work on: a Kronecker graph with Graph500's parameters, laid
// out as the GAP Benchmark Suite has it (Beamer, Asanović and Patterson, 2015): 64-bit offsets,
// 32-bit neighbours, both directions of each edge. Numbers of vertices are shuffled; double edges
// stay, as Graph500 allows, loops are drawn again.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "bench/workloads/suite/permutation.h"
#include "bench/workloads/suite/workload.h"

namespace thermocline::workloads {

class Graph {
 public:
  /// `offsets`: one more than vertices, whose number is a power of two. `neighbours`: two an edge.
  /// *Requires*: at least two vertices.
  Graph(std::span<std::uint64_t> offsets, std::span<std::uint32_t> neighbours, std::uint64_t seed)
      : offsets_(offsets),
        neighbours_(neighbours),
        seed_(seed),
        numbers_(offsets.size() - 1, seed ^ 9) {}

  [[nodiscard]] std::uint32_t vertices() const {
    return static_cast<std::uint32_t>(offsets_.size() - 1);
  }
  [[nodiscard]] std::span<const std::uint32_t> of(std::uint32_t v) const {
    return neighbours_.subspan(offsets_[v], offsets_[v + 1] - offsets_[v]);
  }
  /// A random vertex that has neighbours.
  [[nodiscard]] std::uint32_t draw_source(Random& random) const;

  /// While it runs, it takes 4 bytes a vertex beside the spans.
  void fill();
  /// kFailure when it is not as fill() left it; after that, of() may not be asked.
  [[nodiscard]] Status verify() const;

 private:
  template <class Body>
  void each_source(const Body& body) const;
  [[nodiscard]] std::uint64_t digest() const;

  std::span<std::uint64_t> offsets_;
  std::span<std::uint32_t> neighbours_;
  std::uint64_t seed_;
  Permutation numbers_;  ///< of a vertex by its place in the Kronecker product
  std::uint64_t digest_ = 0;
};

/// A graph that leaves `per_vertex` bytes a vertex for the algorithm: at least 16 edges a vertex;
/// what the next power of two of vertices leaves of the footprint becomes more edges.
[[nodiscard]] Result<Graph> make_graph(const Instance& instance, std::uint64_t per_vertex);

}  // namespace thermocline::workloads
