// SPDX-License-Identifier: Apache-2.0
// Betweenness centrality by Brandes' algorithm (2001) on a graph without weights, from one random
// source after the other: first a breadth-first search that counts shortest paths, then back along
// it, each vertex gathering what the paths through it are worth. A class of its own so that a test
// can hold it against plain enumeration.
#pragma once

#include <cstdint>
#include <span>

#include "bench/workloads/suite/graph.h"
#include "bench/workloads/suite/tally.h"

namespace thermocline::workloads {

class Betweenness final : public Workload {
 public:
  /// All as long as the graph has vertices.
  struct Room {
    std::span<std::uint32_t> depths;
    std::span<double> paths;
    std::span<float> worths;
    std::span<float> scores;  ///< *Requires*: all 0
    std::span<std::uint32_t> queue;
  };
  static constexpr std::uint64_t kBytesPerVertex =
      2 * sizeof(std::uint32_t) + sizeof(double) + 2 * sizeof(float);

  Betweenness(Graph graph, Room room, std::uint64_t seed);

  void fill() override;
  void run(unsigned phase, std::uint64_t count) override;
  [[nodiscard]] std::uint64_t checksum() const override;
  [[nodiscard]] Status verify(std::uint64_t operations) override;

  /// Of this search.
  [[nodiscard]] std::uint32_t source() const { return source_; }
  /// How many searches have come all the way back.
  [[nodiscard]] std::uint64_t sources_done() const { return sources_done_; }
  /// Sum over the sources so far, as double edges have it: a shortest path for each of them.
  [[nodiscard]] float score(std::uint32_t v) const { return scores_[v]; }

 private:
  void start();
  void step();
  void expand();
  [[nodiscard]] float worth(std::uint32_t v) const;
  [[nodiscard]] Status check_search() const;

  Graph graph_;
  std::span<std::uint32_t> depths_;  ///< from the source
  std::span<double> paths_;          ///< shortest ones from the source
  std::span<float> worths_;          ///< of the vertices from returned_ on in the queue
  Tally scores_;
  std::span<std::uint32_t> queue_;
  Random random_;
  std::uint32_t source_ = 0;
  std::uint32_t head_ = 0, tail_ = 0;  ///< of what the search has still to expand
  std::uint32_t returned_ = 0;
  std::uint64_t sources_done_ = 0;
  std::uint64_t vertices_done_ = 0;
};

}  // namespace thermocline::workloads
