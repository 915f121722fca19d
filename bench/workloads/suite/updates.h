// SPDX-License-Identifier: Apache-2.0
// Workloads made of updates of one region: each phase says which words are updated, and every
// update is counted in the word itself (gups.h), so any damage shows.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bench/workloads/gups.h"
#include "bench/workloads/suite/workload.h"

namespace thermocline::workloads {

struct UpdatePhase {
  std::string name;
  HotSet set;
  /// Share of updates that go to a random word of set.hot, the others to one of set.cold.
  double hot_share = 0;
  /// Instead: one word of every cache line of set.hot, page after page, over and over.
  bool sweep = false;
};

class Updates final : public Workload {
 public:
  /// `words` holds whole pages, and every page of the phases.
  Updates(std::span<std::uint64_t> words, std::uint64_t seed, std::vector<UpdatePhase> phases)
      : memory_(words, seed),
        pages_(words.size() / kWordsPerPage),
        phases_(std::move(phases)),
        random_(seed, 1) {}

  [[nodiscard]] std::vector<std::string> phases() const override {
    std::vector<std::string> names;
    for (const UpdatePhase& phase : phases_) names.push_back(phase.name);
    return names;
  }
  void fill() override {
    for (std::uint64_t page = 0; page < pages_; ++page)
      memory_.fill_page(static_cast<std::uint32_t>(page));
  }
  void run(unsigned phase, std::uint64_t count) override {
    const UpdatePhase& p = phases_[phase];
    if (p.sweep)
      memory_.sweep(p.set.hot, line_, count);
    else
      memory_.update(p.set, p.hot_share, count, 0, 1, random_);
  }
  [[nodiscard]] std::uint64_t checksum() const override { return memory_.checksum(); }
  [[nodiscard]] Status verify(std::uint64_t operations) override {
    return memory_.verify(operations);
  }

 private:
  GupsMemory memory_;
  std::uint64_t pages_;
  std::vector<UpdatePhase> phases_;
  Random random_;
  std::uint64_t line_ = 0;  ///< of the next sweep's update, from the start of its set
};

/// An Updates over the whole footprint of `instance`.
[[nodiscard]] Result<std::unique_ptr<Workload>> make_updates(const Instance& instance,
                                                             std::vector<UpdatePhase> phases);
/// Whole pages of the footprint.
[[nodiscard]] PageCount pages_of_footprint(const Instance& instance);
/// All pages, none of them hot.
[[nodiscard]] HotSet every_page_alike(PageCount pages);

}  // namespace thermocline::workloads
