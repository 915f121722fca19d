// SPDX-License-Identifier: GPL-2.0
#include "emulation/timing/plugin/truth.h"

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <compare>
#include <cstring>

namespace timing_plugin {

namespace {

/// A frame's owner: a page number of 36 bits above an address space.
constexpr unsigned kSpaceBits = 24;
constexpr unsigned kOwnerBits = kSpaceBits + 36;
constexpr std::uint64_t kSpaces = (std::uint64_t{1} << kSpaceBits) - 1;
constexpr std::uint64_t kOwners = (std::uint64_t{1} << kOwnerBits) - 1;

struct VirtualPage {
  std::uint64_t space, number, tier, count;
  auto operator<=>(const VirtualPage&) const = default;
};

}  // namespace

bool Truth::open(const Plan& plan, std::string& error) {
  ranges_ = plan.ranges;
  tiers_.resize(plan.tiers.size());
  if (plan.truth_path.empty()) return true;
  file_ = std::fopen(plan.truth_path.c_str(), "we");
  if (file_ == nullptr) {
    error = "can't write the ground truth to " + plan.truth_path + ": " + std::strerror(errno);
    return false;
  }
  const char* const modes[] = {"reference", "parallel", "report"};
  std::fprintf(file_, "thermocline-truth 1\nmode %s\n", modes[static_cast<int>(plan.mode)]);
  for (std::size_t i = 0; i < ranges_.size(); ++i)
    std::fprintf(file_,
                 "range tier %" PRIu64 " node %" PRIu64 " first_frame 0x%" PRIx64 " frames %" PRIu64
                 "\n",
                 ranges_[i].tier, plan.tiers[ranges_[i].tier].node, ranges_[i].start >> kPageShift,
                 ranges_[i].size >> kPageShift);
  if (plan.profile_ns != 0) std::fprintf(file_, "profile_period_ns %" PRIu64 "\n", plan.profile_ns);
  profile_ps_ = plan.profile_ns * 1000;
  slice_ns_ = plan.slice_ns;
  if (slice_ns_ != 0) slice_ends_ns_ = slice_ns_;
  if (plan.pages == "none") return true;
  std::uint64_t slots = 0;
  for (const Range& range : ranges_) {
    first_slot_.push_back(slots);
    slots += range.size >> kPageShift;
  }
  frames_.resize(slots);
  virtual_ = plan.pages == "virtual";
  return true;
}

std::uint32_t Truth::space_of(std::uint64_t root) {
  if (root == 0) return 0;
  const auto [it, fresh] =
      spaces_.try_emplace(root, static_cast<std::uint32_t>(spaces_.size()) + 1);
  if (fresh && file_ != nullptr)
    std::fprintf(file_, "space %u root_frame 0x%" PRIx64 "\n", it->second, root >> kPageShift);
  return it->second;
}

void Truth::hand_over(Frame& frame, std::uint64_t owner, std::uint64_t tier) {
  if (frame.of_owner != 0) virtual_counts_[frame.owner | tier << kOwnerBits] += frame.of_owner;
  frame.owner = owner;
  frame.of_owner = 0;
}

void Truth::write_profile(const Instant& at) {
  if (profile_ps_ == 0) return;
  const auto of = [this](Purpose purpose) {
    return kernel_samples_[static_cast<std::size_t>(purpose)];
  };
  std::uint64_t user = 0;
  for (const auto& [space, samples] : user_samples_) user += samples;
  std::fprintf(file_,
               "profile tracker %" PRIu64 " mover %" PRIu64 " policy %" PRIu64 " kernel %" PRIu64
               " user %" PRIu64 " idle %" PRIu64 "\n",
               of(Purpose::kTracker), of(Purpose::kMover), of(Purpose::kPolicy), of(Purpose::kNone),
               user, at.idle_ps / profile_ps_ - begin_.idle_ps / profile_ps_);
  for (const auto& [space, samples] : user_samples_)
    std::fprintf(file_, "profile_space %" PRIu32 " user %" PRIu64 "\n", space, samples);
  kernel_samples_ = {};
  user_samples_.clear();
}

void Truth::close(const Instant& at, const std::string& why) {
  if (file_ == nullptr) return;
  std::fprintf(file_,
               "slice %" PRIu64 " begin_ns %" PRIu64 " end_ns %" PRIu64
               " closed_by %s instructions %" PRIu64 " kernel_instructions %" PRIu64
               " walks %" PRIu64 " stalled_ns %" PRIu64 "\n",
               slices_++, begin_.ns, at.ns, why.c_str(), at.instructions - begin_.instructions,
               at.kernel_instructions - begin_.kernel_instructions, at.walks - begin_.walks,
               (at.stalled_ps - begin_.stalled_ps) / 1000);
  for (std::size_t tier = 0; tier < tiers_.size(); ++tier) {
    Counts& c = tiers_[tier];
    std::fprintf(file_,
                 "misses tier %zu loads %" PRIu64 " stores %" PRIu64 " prefetched %" PRIu64
                 " write_backs %" PRIu64 " latency_ns %" PRIu64 "\n",
                 tier, c.loads, c.stores, c.prefetched, c.write_backs, c.latency_ps / 1000);
    c = {};
  }
  write_profile(at);
  // In the order of addresses: a file is the same in every run, and easy to search.
  std::sort(touched_.begin(), touched_.end());
  std::size_t range = 0;
  for (const std::uint64_t slot : touched_) {
    while (range + 1 < ranges_.size() && slot >= first_slot_[range + 1]) ++range;
    Frame& frame = frames_[slot];
    const std::uint64_t number = slot - first_slot_[range] + (ranges_[range].start >> kPageShift);
    std::fprintf(file_, "f %" PRIx64 " %u\n", number, frame.count);
    frame.count = 0;
    if (virtual_) hand_over(frame, 0, ranges_[range].tier);
  }
  touched_.clear();
  if (!virtual_) return;
  std::vector<VirtualPage> pages;
  for (const auto& [key, count] : virtual_counts_)
    pages.push_back({key & kSpaces, (key & kOwners) >> kSpaceBits, key >> kOwnerBits, count});
  std::sort(pages.begin(), pages.end());
  for (const VirtualPage& page : pages)
    std::fprintf(file_, "v %" PRIu64 " %" PRIx64 " %" PRIu64 " %" PRIu64 "\n", page.space,
                 page.number, page.count, page.tier);
  virtual_counts_.clear();
}

void Truth::mark(const Instant& at, const std::string& name, std::uint32_t space) {
  if (file_ == nullptr) return;
  close(at, "mark");
  begin_ = at;
  std::fprintf(file_, "mark %s at_ns %" PRIu64 " space %u\n", name.c_str(), at.ns, space);
  // What a run did up to its last mark is in the file even if it is killed.
  std::fflush(file_);
}

void Truth::finish(const Instant& at) {
  if (file_ == nullptr) return;
  close(at, "end");
  std::fclose(file_);
  file_ = nullptr;
}

}  // namespace timing_plugin
