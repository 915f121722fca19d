// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/suite/bc.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "bench/workloads/random.h"
#include "bench/workloads/suite/families.h"

namespace thermocline::workloads {

namespace {
constexpr std::uint32_t kUnreached = 1u << 31;
}

Betweenness::Betweenness(Graph graph, Room room, std::uint64_t seed)
    : graph_(graph),
      depths_(room.depths),
      paths_(room.paths),
      worths_(room.worths),
      scores_(room.scores),
      queue_(room.queue),
      random_(seed, 13) {}

void Betweenness::fill() {
  graph_.fill();
  start();
}

void Betweenness::run(unsigned /*phase*/, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) step();
  vertices_done_ += count;
}

std::uint64_t Betweenness::checksum() const {
  std::uint64_t sum = sources_done_ + source_;
  for (std::uint32_t v = 0; v < graph_.vertices(); ++v)
    sum = sum * 3 + std::bit_cast<std::uint32_t>(scores_[v]);
  return mix64(sum ^ std::bit_cast<std::uint64_t>(paths_[queue_[tail_ - 1]]));
}

void Betweenness::start() {
  source_ = graph_.draw_source(random_);
  std::fill(depths_.begin(), depths_.end(), kUnreached);
  std::fill(paths_.begin(), paths_.end(), 0.0);
  depths_[source_] = 0;
  paths_[source_] = 1;
  queue_[0] = source_;
  head_ = 0;
  tail_ = returned_ = 1;
}

/// Out to every vertex, then back to each but the source.
void Betweenness::step() {
  if (head_ != tail_) {
    expand();
    returned_ = tail_;
    return;
  }
  const std::uint32_t v = queue_[--returned_];
  worths_[v] = worth(v);
  if (returned_ > 0) {
    scores_.set(v, scores_[v] + worths_[v]);
  } else {
    ++sources_done_;
    start();
  }
}

void Betweenness::expand() {
  const std::uint32_t v = queue_[head_++];
  const std::uint32_t next = depths_[v] + 1;
  for (const std::uint32_t u : graph_.of(v)) {
    if (depths_[u] == kUnreached && tail_ < queue_.size()) {
      depths_[u] = next;
      queue_[tail_++] = u;
    }
    if (depths_[u] == next) paths_[u] += paths_[v];
  }
}

/// Of the paths from the source to each vertex behind v, the share that leads through v.
float Betweenness::worth(std::uint32_t v) const {
  const std::uint32_t next = depths_[v] + 1;
  double sum = 0;
  for (const std::uint32_t u : graph_.of(v))
    if (depths_[u] == next) sum += (1 + static_cast<double>(worths_[u])) / paths_[u];
  return static_cast<float>(sum * paths_[v]);
}

Status Betweenness::verify(std::uint64_t operations) {
  if (vertices_done_ != operations)
    return fail(ErrorKind::kFailure, "{} vertices were done instead of {}", vertices_done_,
                operations);
  TC_TRY(graph_.verify());
  if (!scores_.intact()) return fail(ErrorKind::kFailure, "a score is not what was written");
  for (std::uint32_t i = 0; i < tail_; ++i)
    if (queue_[i] >= graph_.vertices())
      return fail(ErrorKind::kFailure, "the queue names vertex {}, which isn't there", queue_[i]);
  while (head_ != tail_) step();
  return check_search();
}

/// Every vertex against its neighbours: depths differ by one at most, paths are those of the
/// neighbours before it, and on the way back the worth follows from the neighbours behind it.
Status Betweenness::check_search() const {
  std::vector<bool> returned(graph_.vertices());
  for (std::uint32_t i = returned_; i < tail_; ++i) returned[queue_[i]] = true;
  std::uint32_t reached = 0;
  for (std::uint32_t v = 0; v < graph_.vertices(); ++v) {
    const std::uint32_t depth = depths_[v];
    const auto wrong = [v](const char* what) {
      return fail(ErrorKind::kFailure, "the {} of vertex {} doesn't follow from its neighbours",
                  what, v);
    };
    double paths = v == source_ ? 1 : 0;
    for (const std::uint32_t u : graph_.of(v)) {
      // 0: one nearer to the source; 1: as far; 2: one farther. Unreached ones know only such.
      const std::uint32_t step = depths_[u] + 1 - depth;
      if (step > 2) return wrong("depth");
      if (step == 0) paths += paths_[u];
    }
    reached += depth != kUnreached;
    if ((depth == 0) != (v == source_)) return wrong("depth");
    // Counts are whole numbers, so up to 2^53 their sums are exact in any order.
    if (!(std::abs(paths - paths_[v]) <= 1e-12 * paths)) return wrong("number of paths");
    if ((paths > 0) != (depth != kUnreached)) return wrong("depth");
    if (returned[v] && worths_[v] != worth(v)) return wrong("worth");
  }
  if (reached != tail_)
    return fail(ErrorKind::kFailure, "{} vertices were reached, but {} are in the queue", reached,
                tail_);
  return {};
}

namespace {

Result<std::unique_ptr<Workload>> bc(const Instance& instance) {
  TC_ASSIGN(const Graph graph, make_graph(instance, Betweenness::kBytesPerVertex));
  const std::uint64_t n = graph.vertices();
  Betweenness::Room room;
  TC_ASSIGN(room.depths, instance.memory.allocate<std::uint32_t>(n));
  TC_ASSIGN(room.paths, instance.memory.allocate<double>(n));
  TC_ASSIGN(room.worths, instance.memory.allocate<float>(n));
  TC_ASSIGN(room.scores, instance.memory.allocate<float>(n));
  TC_ASSIGN(room.queue, instance.memory.allocate<std::uint32_t>(n));
  return std::make_unique<Betweenness>(graph, room, instance.seed);
}

}  // namespace

std::vector<WorkloadSpec> bc_workloads() {
  return {{"bc",
           "expands one vertex of a search, or gathers its betweenness on the way back",
           "Brandes, 2001; GAP Benchmark Suite, 2015",
           16,
           {},
           bc}};
}

}  // namespace thermocline::workloads
