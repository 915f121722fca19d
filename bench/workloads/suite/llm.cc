// SPDX-License-Identifier: Apache-2.0
// The memory traffic of decoding tokens with a transformer: each token streams all weights, layer
// by layer, and reads the keys and values of all earlier positions of its sequence, then appends
// its own (Vaswani et al., 2017; a cache per layer and sequence as llama.cpp has it). Sequences
// take turns in bursts, so a cache grows, rests, and is visited again. They begin with prompts of
// different lengths in their caches, so that some are short and some soon full (a full one starts
// anew). Whole numbers stand for the arithmetic.
#include <algorithm>

#include "bench/workloads/random.h"
#include "bench/workloads/suite/families.h"

namespace thermocline::workloads {

namespace {

constexpr std::uint64_t kLayers = 16;
constexpr std::uint64_t kEntryWords =
    128;  ///< of one position in one layer: 64 of key, 64 of value
constexpr std::uint64_t kPositionWords = kLayers * kEntryWords;

class Llm final : public Workload {
 public:
  Llm(std::span<std::uint64_t> weights, std::span<std::uint64_t> cache, std::uint64_t sequences,
      std::uint64_t burst, double prompt, std::uint64_t seed)
      : weights_(weights),
        cache_(cache),
        capacity_(cache.size() / kPositionWords / sequences),
        burst_(burst),
        seed_(seed),
        sequences_(sequences),
        random_(seed, 5) {
    const auto longest = static_cast<std::uint64_t>(2 * prompt * static_cast<double>(capacity_));
    for (Sequence& sequence : sequences_)
      sequence.length = std::min(capacity_, longest == 0 ? 0 : random_.below(longest));
  }

  void fill() override {
    for (std::uint64_t i = 0; i < weights_.size(); ++i) weights_[i] = mix64(seed_ + i);
    std::fill(cache_.begin(), cache_.end(), 0);
    for (std::uint64_t s = 0; s < sequences_.size(); ++s)
      for (std::uint64_t layer = 0; layer < kLayers; ++layer)
        for (std::uint64_t p = 0; p < sequences_[s].length; ++p) append(s, layer, p);
  }

  void run(unsigned /*phase*/, std::uint64_t count) override {
    for (std::uint64_t i = 0; i < count; ++i) token();
  }

  [[nodiscard]] std::uint64_t checksum() const override { return state_; }

  Status verify(std::uint64_t operations) override {
    if (tokens_ != operations)
      return fail(ErrorKind::kFailure, "{} tokens were made instead of {}", tokens_, operations);
    for (std::uint64_t i = 0; i < weights_.size(); ++i)
      if (weights_[i] != mix64(seed_ + i))
        return fail(ErrorKind::kFailure, "weight {} has changed", i);
    for (std::uint64_t s = 0; s < sequences_.size(); ++s)
      for (std::uint64_t layer = 0; layer < kLayers; ++layer)
        for (std::uint64_t p = 0; p < sequences_[s].length; ++p)
          for (std::uint64_t j = 0; j < kEntryWords; ++j)
            if (entry(s, layer, p)[j] != tag(s, layer, p) + j)
              return fail(ErrorKind::kFailure,
                          "position {} of sequence {} is not what was appended in layer {}", p, s,
                          layer);
    return {};
  }

 private:
  struct Sequence {
    std::uint64_t length = 0;  ///< positions in the cache
    std::uint64_t restarts = 0;
  };

  void token() {
    if (tokens_++ % burst_ == 0) now_ = random_.below(sequences_.size());
    Sequence& sequence = sequences_[now_];
    if (sequence.length == capacity_) sequence = {0, sequence.restarts + 1};
    const std::uint64_t words = weights_.size() / kLayers;
    for (std::uint64_t layer = 0; layer < kLayers; ++layer) {
      std::uint64_t sum = state_;
      for (const std::uint64_t word : weights_.subspan(layer * words, words)) sum += word * state_;
      for (std::uint64_t p = 0; p < sequence.length; ++p) {
        const std::uint64_t* const at = entry(now_, layer, p);
        std::uint64_t score = 0;
        for (std::uint64_t j = 0; j < kEntryWords / 2; ++j) score += at[j] * sum;
        for (std::uint64_t j = kEntryWords / 2; j < kEntryWords; ++j) sum += at[j] ^ score;
      }
      append(now_, layer, sequence.length);
      state_ = mix64(sum) | 1;
    }
    ++sequence.length;
  }

  void append(std::uint64_t sequence, std::uint64_t layer, std::uint64_t position) {
    std::uint64_t* const at = entry(sequence, layer, position);
    for (std::uint64_t j = 0; j < kEntryWords; ++j) at[j] = tag(sequence, layer, position) + j;
  }
  [[nodiscard]] std::uint64_t* entry(std::uint64_t sequence, std::uint64_t layer,
                                     std::uint64_t position) const {
    return &cache_[((sequence * kLayers + layer) * capacity_ + position) * kEntryWords];
  }
  [[nodiscard]] std::uint64_t tag(std::uint64_t sequence, std::uint64_t layer,
                                  std::uint64_t position) const {
    return mix64(mix64(seed_ + sequence) ^
                 mix64((sequences_[sequence].restarts << 36) + (position << 5) + layer));
  }

  std::span<std::uint64_t> weights_;
  std::span<std::uint64_t> cache_;
  std::uint64_t capacity_;  ///< positions of a sequence
  std::uint64_t burst_;
  std::uint64_t seed_;
  std::vector<Sequence> sequences_;
  Random random_;
  std::uint64_t tokens_ = 0;
  std::uint64_t now_ = 0;
  std::uint64_t state_ = 1;
};

Result<std::unique_ptr<Workload>> llm_decode(const Instance& instance) {
  const auto sequences = static_cast<std::uint64_t>(instance["sequences"]);
  const std::uint64_t all = instance.footprint.get() / sizeof(std::uint64_t);
  const auto wanted = static_cast<std::uint64_t>(instance["kv_share"] * static_cast<double>(all));
  const std::uint64_t positions =
      std::max<std::uint64_t>(1, wanted / kPositionWords / sequences) * sequences;
  const std::uint64_t cache_words = positions * kPositionWords;
  TC_ASSIGN(const auto weights,
            instance.memory.allocate<std::uint64_t>((all - cache_words) / kLayers * kLayers));
  TC_ASSIGN(const auto cache, instance.memory.allocate<std::uint64_t>(cache_words));
  return std::make_unique<Llm>(weights, cache, sequences,
                               static_cast<std::uint64_t>(instance["burst"]), instance["prompt"],
                               instance.seed);
}

}  // namespace

std::vector<WorkloadSpec> llm_workloads() {
  return {{"llm-decode",
           "one token: reads all weights and one sequence's cache, appends to it",
           "Vaswani et al., NeurIPS 2017; llama.cpp's layout",
           1,
           {{"kv_share", 0.5, 0.1, 0.9, "share of the footprint that the caches take"},
            {"sequences", 8, 1, 32, "that take turns"},
            {"burst", 16, 1, 1000000, "tokens of a sequence in a row"},
            {"prompt", 0.5, 0, 1, "mean share of a cache that is full at first"}},
           llm_decode}};
}

}  // namespace thermocline::workloads
