// SPDX-License-Identifier: Apache-2.0
// The graph of bfs, pagerank and bc, and what they compute on it, on graphs small enough to check
// by hand's methods.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

#include "bench/workloads/suite/bc.h"
#include "bench/workloads/suite/graph.h"

namespace thermocline::workloads {
namespace {

struct SmallGraph {
  SmallGraph(std::uint32_t vertices, std::uint64_t edges, std::uint64_t seed)
      : offsets(vertices + 1), neighbours(2 * edges), graph(offsets, neighbours, seed) {}
  std::vector<std::uint64_t> offsets;
  std::vector<std::uint32_t> neighbours;
  Graph graph;
};

/// How often each pair stands in the lists.
std::map<std::pair<std::uint32_t, std::uint32_t>, unsigned> edges_of(const Graph& graph) {
  std::map<std::pair<std::uint32_t, std::uint32_t>, unsigned> edges;
  for (std::uint32_t v = 0; v < graph.vertices(); ++v)
    for (const std::uint32_t u : graph.of(v)) ++edges[{v, u}];
  return edges;
}

TEST(KroneckerGraph, HasEveryEdgeInBothDirectionsAndNoLoop) {
  for (const std::uint32_t vertices : {2u, 16u, 1024u})
    for (const std::uint64_t seed : {1ul, 2ul, 3ul}) {
      SmallGraph small(vertices, vertices * 17, seed);
      small.graph.fill();
      EXPECT_EQ(small.offsets.front(), 0u);
      EXPECT_EQ(small.offsets.back(), small.neighbours.size());
      const auto edges = edges_of(small.graph);
      std::uint64_t sum = 0;
      for (const auto& [pair, count] : edges) {
        sum += count;
        EXPECT_NE(pair.first, pair.second);
        const auto back = edges.find({pair.second, pair.first});
        ASSERT_NE(back, edges.end());
        EXPECT_EQ(back->second, count);
      }
      EXPECT_EQ(sum, small.neighbours.size());
      EXPECT_TRUE(small.graph.verify());
    }
}

TEST(KroneckerGraph, HasGraph500sDegrees) {
  // Of the places in the product, a share of C(10, k) 0.76^(10-k) 0.24^k of all ends of edges
  // belongs to those with k bits set; without loops those with few have a little less.
  constexpr std::uint32_t kVertices = 1024;
  SmallGraph small(kVertices, kVertices * 400, 5);
  small.graph.fill();
  std::vector<std::uint64_t> degrees;
  for (std::uint32_t v = 0; v < kVertices; ++v) degrees.push_back(small.graph.of(v).size());
  std::sort(degrees.rbegin(), degrees.rend());
  const auto all = static_cast<double>(small.neighbours.size());
  std::size_t at = 0;
  double choose = 1;
  for (unsigned bits = 0; bits <= 4; ++bits) {
    const auto size = static_cast<std::size_t>(std::lround(choose));
    double ends = 0;
    for (std::size_t i = 0; i < size; ++i) ends += static_cast<double>(degrees[at++]);
    const double wanted = choose * std::pow(0.76, 10 - bits) * std::pow(0.24, bits) * all;
    EXPECT_NEAR(ends, wanted, 0.06 * wanted) << bits;
    choose = choose * (10 - bits) / (bits + 1);
  }
}

TEST(KroneckerGraph, FollowsFromItsSeedAndNoticesAChange) {
  SmallGraph a(256, 4096, 1), b(256, 4096, 1), c(256, 4096, 2);
  for (SmallGraph* one : {&a, &b, &c}) one->graph.fill();
  EXPECT_EQ(a.neighbours, b.neighbours);
  EXPECT_NE(a.neighbours, c.neighbours);
  a.neighbours[5000] ^= 1;
  EXPECT_FALSE(a.graph.verify());
}

struct SmallBetweenness {
  SmallBetweenness(std::uint32_t vertices, std::uint64_t edges)
      : small(vertices, edges, 3),
        depths(vertices),
        paths(vertices),
        worths(vertices),
        scores(vertices),
        queue(vertices),
        bc(small.graph, {depths, paths, worths, scores, queue}, 1) {
    bc.fill();
  }
  SmallGraph small;
  std::vector<std::uint32_t> depths;
  std::vector<double> paths;
  std::vector<float> worths, scores;
  std::vector<std::uint32_t> queue;
  Betweenness bc;
};

TEST(Betweenness, IsWhatEnumerationOfShortestPathsGives) {
  constexpr std::uint32_t n = 64;
  SmallBetweenness small(n, 100);  // so sparse that there are detours, and parts of their own
  std::vector<std::uint32_t> sources;
  std::uint64_t operations = 0;
  while (small.bc.sources_done() < 100) {
    if (sources.size() == small.bc.sources_done()) sources.push_back(small.bc.source());
    small.bc.run(0, 1);
    ++operations;
  }
  // Distances and numbers of paths by growing the set of vertices that may lie between.
  const auto edges = edges_of(small.small.graph);
  constexpr double kFar = 1e9;
  std::vector<std::vector<double>> distance(n, std::vector<double>(n, kFar));
  std::vector<std::vector<double>> paths(n, std::vector<double>(n, 0));
  for (std::uint32_t v = 0; v < n; ++v) {
    distance[v][v] = 0;
    paths[v][v] = 1;
  }
  for (const auto& [pair, count] : edges) {
    distance[pair.first][pair.second] = 1;
    paths[pair.first][pair.second] = count;
  }
  for (std::uint32_t k = 0; k < n; ++k)
    for (std::uint32_t s = 0; s < n; ++s)
      for (std::uint32_t t = 0; t < n; ++t) {
        if (k == s || k == t || s == t) continue;
        const double through = distance[s][k] + distance[k][t];
        if (through >= kFar) continue;
        if (through < distance[s][t]) paths[s][t] = 0;
        if (through <= distance[s][t]) {
          distance[s][t] = through;
          paths[s][t] += paths[s][k] * paths[k][t];
        }
      }
  double sum = 0;
  for (std::uint32_t v = 0; v < n; ++v) {
    double wanted = 0;
    for (const std::uint32_t s : sources)
      for (std::uint32_t t = 0; t < n; ++t)
        if (v != s && v != t && distance[s][t] < kFar &&
            distance[s][v] + distance[v][t] == distance[s][t])
          wanted += paths[s][v] * paths[v][t] / paths[s][t];
    EXPECT_NEAR(static_cast<double>(small.bc.score(v)), wanted, 1e-4 * wanted + 1e-4) << v;
    sum += wanted;
  }
  EXPECT_GT(sum, 100);
  EXPECT_TRUE(small.bc.verify(operations));
}

TEST(Betweenness, VerificationSeesEachWrongNumber) {
  // On the way out and on the way back: the search reaches most of 256 vertices.
  for (const std::uint64_t operations : {100ul, 400ul, 1000ul}) {
    SmallBetweenness fine(256, 4096);
    fine.bc.run(0, operations);
    EXPECT_TRUE(fine.bc.verify(operations)) << operations;
    EXPECT_FALSE(fine.bc.verify(operations + 1));

    const auto damaged = [&](const auto& damage) {
      SmallBetweenness one(256, 4096);
      one.bc.run(0, operations);
      damage(one, one.queue[1]);
      return !one.bc.verify(operations);
    };
    EXPECT_TRUE(damaged([](auto& one, auto) { one.scores[77] += 1e-6f; }));
    EXPECT_TRUE(damaged([](auto& one, auto v) { one.paths[v] += 1; }));
    EXPECT_TRUE(damaged([](auto& one, auto v) { one.depths[v] += 1; }));
    EXPECT_TRUE(damaged([](auto& one, auto) { one.queue[0] ^= 1u << 30; }));
    EXPECT_TRUE(damaged([](auto& one, auto) { one.small.neighbours[9] ^= 1; }));
  }
  SmallBetweenness back(256, 4096);
  std::uint64_t operations = 0;
  while (back.bc.sources_done() == 0) {
    back.bc.run(0, 1);
    ++operations;
  }
  // The second search on its way back: those farthest from the source have come.
  back.bc.run(0, operations - 20);
  const auto last =
      std::find_if(back.worths.begin(), back.worths.end(), [](float worth) { return worth > 0; });
  ASSERT_NE(last, back.worths.end());
  *last *= 1.001f;
  EXPECT_FALSE(back.bc.verify(2 * operations - 20));
}

}  // namespace
}  // namespace thermocline::workloads
