// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/suite/graph.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "bench/workloads/random.h"

namespace thermocline::workloads {

namespace {

constexpr std::uint64_t kEdgeFactor = 16;

/// At each level of the product, the odds that the source's bit is set: C + D of Graph500's A =
/// 0.57, B = C = 0.19, D = 0.05.
constexpr double kSourceBit = 0.24;

/// The place of an edge's target, given its source's: all levels at once, 32 coins at a throw. A
/// bit is set with odds B : A = 1 : 3 where the source's isn't: two heads. Where it is, with D : C
/// = 5 : 19, which is 5/6 of the above: 1/2 + 1/2 (1/2 + 1/2 (1/2 (1/2 + ...))), here to 0.828.
std::uint32_t draw_target(std::uint32_t source, Random& random) {
  std::uint32_t coins[8];
  for (int i = 0; i < 8; i += 2) {
    const std::uint64_t two = random.next();
    coins[i] = static_cast<std::uint32_t>(two);
    coins[i + 1] = static_cast<std::uint32_t>(two >> 32);
  }
  const std::uint32_t five_sixths =
      coins[2] | coins[3] | (coins[4] & (coins[5] | (coins[6] & coins[7])));
  return coins[0] & coins[1] & (~source | five_sixths);
}

}  // namespace

/// body(number of the vertex, its place in the product, how many edges it is the source of), for
/// each vertex. That many edges are expected of it when each is drawn alone; they are dealt out so
/// that every vertex has its share, rounded up or down, and all are dealt.
template <class Body>
void Graph::each_source(const Body& body) const {
  const auto scale = static_cast<unsigned>(std::countr_zero(vertices()));
  const std::uint64_t edges = neighbours_.size() / 2;
  double expected[32];
  for (unsigned ones = 0; ones <= scale; ++ones)
    expected[ones] = static_cast<double>(edges) * std::pow(kSourceBit, ones) *
                     std::pow(1 - kSourceBit, scale - ones);
  double due = 0;
  std::uint64_t dealt = 0;
  for (std::uint32_t v = 0; v < vertices(); ++v) {
    const auto place = static_cast<std::uint32_t>(numbers_.inverse(v));
    due += expected[std::popcount(place)];
    const std::uint64_t until =
        v + 1 == vertices() ? edges : std::min(edges, static_cast<std::uint64_t>(due));
    body(v, place, until - dealt);
    dealt = until;
  }
}

/// Each edge is drawn once. Targets are kept in the upper half of the neighbours until it is known
/// how often each vertex is one; a list then holds its vertex's sources first, its targets last. In
/// a modelled guest a random access costs as much time of the host as hundreds of instructions, so
/// there are three an edge and no more.
void Graph::fill() {
  Random random(seed_, 9);
  const std::uint32_t mask = vertices() - 1;
  std::vector<std::uint32_t> sources(vertices(), 0);  // how many each has
  std::uint32_t* drawn = neighbours_.data() + neighbours_.size() / 2;
  each_source([&](std::uint32_t, std::uint32_t place, std::uint64_t count) {
    for (; count > 0; --count) {
      std::uint32_t target;
      do target = draw_target(place, random) & mask;
      while (target == place);
      *drawn = static_cast<std::uint32_t>(numbers_(target));
      ++sources[*drawn++];
    }
  });

  // Lists move down only, each behind the ones before it, so none is overwritten.
  std::uint64_t at = 0;
  drawn = neighbours_.data() + neighbours_.size() / 2;
  each_source([&](std::uint32_t v, std::uint32_t, std::uint64_t count) {
    at += sources[v];
    offsets_[v] = at;
    std::memmove(neighbours_.data() + at, drawn, count * sizeof *drawn);
    drawn += count;
    at += count;
  });
  offsets_.back() = at;

  // Offsets are now where a list's targets begin; its sources, put before them from behind, leave
  // them where the list begins.
  at = 0;
  each_source([&](std::uint32_t v, std::uint32_t, std::uint64_t count) {
    at += sources[v];
    for (; count > 0; --count) neighbours_[--offsets_[neighbours_[at++]]] = v;
  });
  digest_ = digest();
}

std::uint32_t Graph::draw_source(Random& random) const {
  for (;;)
    if (const auto v = static_cast<std::uint32_t>(random.below(vertices())); !of(v).empty())
      return v;
}

Status Graph::verify() const {
  if (digest() != digest_) return fail(ErrorKind::kFailure, "the graph has changed");
  return {};
}

std::uint64_t Graph::digest() const {
  std::uint64_t sum = 0;
  for (const std::uint64_t offset : offsets_) sum = sum * 3 + offset;
  for (std::size_t i = 0; i < neighbours_.size(); i += 2) {
    std::uint64_t two;
    std::memcpy(&two, &neighbours_[i], sizeof two);
    sum = sum * 3 + two;
  }
  return sum;
}

Result<Graph> make_graph(const Instance& instance, std::uint64_t per_vertex) {
  const std::uint64_t each = per_vertex + sizeof(std::uint64_t);
  const std::uint64_t all = instance.footprint.get();
  const std::uint64_t vertices =
      std::min(std::bit_floor(all / (each + 2 * kEdgeFactor * sizeof(std::uint32_t))),
               std::uint64_t{1} << 31);
  const std::uint64_t edges = (all - vertices * each) / (2 * sizeof(std::uint32_t));
  TC_ASSIGN(const auto offsets, instance.memory.allocate<std::uint64_t>(vertices + 1));
  TC_ASSIGN(const auto neighbours, instance.memory.allocate<std::uint32_t>(2 * edges));
  return Graph(offsets, neighbours, instance.seed);
}

}  // namespace thermocline::workloads
