// SPDX-License-Identifier: Apache-2.0
#include "bench/workloads/gups.h"

namespace thermocline::workloads {

namespace {
/// Inverse of an odd number modulo 2^64, by Newton's iteration (each step doubles the valid bits).
constexpr std::uint64_t inverse(std::uint64_t odd) {
  std::uint64_t x = odd;
  for (int i = 0; i < 6; ++i) x *= 2 - odd * x;
  return x;
}
}  // namespace

void GupsMemory::fill_page(std::uint32_t page) {
  const std::uint64_t first = std::uint64_t{page} * kWordsPerPage;
  for (std::uint64_t w = first; w < first + kWordsPerPage; ++w) words_[w] = start_of(w);
}

void GupsMemory::update(const HotSet& set, double hot_share, std::uint64_t operations,
                        unsigned thread, unsigned threads, Random& random) {
  const std::uint32_t first_word = thread * kWordsPerPage / threads;
  const std::uint32_t word_count = (thread + 1) * kWordsPerPage / threads - first_word;
  // One random number an operation: 23 bits choose the side, 32 the page, 9 the word.
  const auto hot_limit = static_cast<std::uint32_t>(hot_share * (1u << 23));
  const std::uint32_t* const pages[2] = {set.cold.data(), set.hot.data()};
  const std::uint64_t counts[2] = {set.cold.size(), set.hot.size()};
  for (std::uint64_t i = 0; i < operations; ++i) {
    const std::uint64_t r = random.next();
    const bool hot = (r >> 41) < hot_limit;
    const std::uint32_t page = pages[hot][((r & 0xffffffff) * counts[hot]) >> 32];
    const std::uint64_t word = first_word + ((((r >> 32) & 511) * word_count) >> 9);
    words_[std::uint64_t{page} * kWordsPerPage + word] += kStep;
  }
}

void GupsMemory::sweep(std::span<const std::uint32_t> pages, std::uint64_t& line,
                       std::uint64_t operations) {
  constexpr std::uint64_t kLineWords = 8;
  constexpr std::uint64_t kLines = kWordsPerPage / kLineWords;
  const std::uint64_t lines = pages.size() * kLines;
  for (std::uint64_t i = 0; i < operations; ++i) {
    if (line >= lines) line = 0;
    words_[pages[line / kLines] * std::uint64_t{kWordsPerPage} + line % kLines * kLineWords] +=
        kStep;
    ++line;
  }
}

std::uint64_t GupsMemory::checksum() const {
  std::uint64_t sum = 0;
  for (std::uint64_t w = 0; w < words_.size(); ++w) sum += words_[w] * (2 * w + 1);
  return mix64(sum);
}

std::uint64_t GupsMemory::count_of(std::uint64_t word) const {
  static_assert(kStep * inverse(kStep) == 1);
  return (words_[word] - start_of(word)) * inverse(kStep);
}

Status GupsMemory::verify(std::uint64_t operations) const {
  std::uint64_t sum = 0;
  for (std::uint64_t w = 0; w < words_.size(); ++w) {
    const std::uint64_t count = count_of(w);
    if (count > operations)
      return fail(ErrorKind::kFailure, "word {} of page {} holds a value that no operation wrote",
                  w % kWordsPerPage, w / kWordsPerPage);
    sum += count;
  }
  if (sum != operations)
    return fail(ErrorKind::kFailure, "the memory has seen {} operations, but {} were done", sum,
                operations);
  return {};
}

}  // namespace thermocline::workloads
