// SPDX-License-Identifier: Apache-2.0
// The memory that hotset updates, and the proof that nothing happened to it.
//
// Word i of the region starts as mix64(seed + i). One operation adds kStep to one word. Because
// kStep is odd it has an inverse modulo 2^64, so the number of operations that a word has seen can
// be read back: (word - start) / kStep. A word that was damaged, or holds another word's content,
// gives a huge random count; a lost or doubled update leaves the sum of the counts wrong.
// Worked example: two operations on word 7 leave mix64(seed + 7) + 2 * kStep there, and
// count_of() gives 2.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "base/units.h"
#include "bench/workloads/hot_set.h"
#include "bench/workloads/random.h"

namespace thermocline::workloads {

inline constexpr std::uint32_t kWordsPerPage = kPageSize / sizeof(std::uint64_t);

class GupsMemory {
 public:
  /// `words` is borrowed and holds whole pages.
  GupsMemory(std::span<std::uint64_t> words, std::uint64_t seed) : words_(words), seed_(seed) {}

  /// Writes the starting content of one page.
  void fill_page(std::uint32_t page);
  /// `operations` random updates: with probability `hot_share` of a page of `set.hot`, otherwise of
  /// `set.cold`, uniformly. Threads update disjoint words of every page: thread t of n has the
  /// words [t * 512 / n, (t + 1) * 512 / n), so no update needs a lock.
  void update(const HotSet& set, double hot_share, std::uint64_t operations, unsigned thread,
              unsigned threads, Random& random);
  /// `operations` updates of one word of each cache line of `pages`, page after page and again from
  /// the first one. `line` counts on from call to call.
  void sweep(std::span<const std::uint32_t> pages, std::uint64_t& line, std::uint64_t operations);
  /// Of every word and its place.
  [[nodiscard]] std::uint64_t checksum() const;
  /// Fails (kFailure) unless every word's count is at most `operations` and the counts add up to
  /// it.
  [[nodiscard]] Status verify(std::uint64_t operations) const;

 private:
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15;
  [[nodiscard]] std::uint64_t start_of(std::uint64_t word) const { return mix64(seed_ + word); }
  [[nodiscard]] std::uint64_t count_of(std::uint64_t word) const;

  std::span<std::uint64_t> words_;
  std::uint64_t seed_;
};

}  // namespace thermocline::workloads
