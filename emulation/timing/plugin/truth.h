// SPDX-License-Identifier: GPL-2.0
// Ground truth: which pages the last-level cache's misses went to, exactly, by time slice and
// between marks; written to a file whose format docs/emulation.md describes. The caller serialises
// calls.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "emulation/timing/plugin/plan.h"

namespace timing_plugin {

class Truth {
 public:
  /// False with a sentence in `error` when the file can't be written.
  bool open(const Plan& plan, std::string& error);
  [[nodiscard]] bool active() const { return file_ != nullptr; }

  enum class Why { kLoad, kStore, kPrefetch };
  /// One miss to page frame `frame` of range `range`, for a virtual page of an address space
  /// (0: the kernel's own).
  void miss(std::uint64_t range, std::uint64_t frame, std::uint64_t vpn, std::uint32_t space,
            Why why) {
    const Range& r = ranges_[range];
    Counts& counts = tiers_[r.tier];
    ++(why == Why::kLoad ? counts.loads : why == Why::kStore ? counts.stores : counts.prefetched);
    if (frames_.empty()) return;
    const std::uint64_t slot = first_slot_[range] + frame - (r.start >> kPageShift);
    Frame& f = frames_[slot];
    if (f.count++ == 0) touched_.push_back(slot);
    if (!virtual_) return;
    const std::uint64_t owner = vpn << 24 | space;
    if (f.owner != owner) hand_over(f, owner, r.tier);
    ++f.of_owner;
  }
  void write_back(std::uint64_t tier) { ++tiers_[tier].write_backs; }
  /// Samples of a kernel that is at something, or of an address space's user code.
  void sample_kernel(Purpose purpose, std::uint64_t samples) {
    kernel_samples_[static_cast<std::size_t>(Purpose::kNone)] += samples;
    if (purpose != Purpose::kNone) kernel_samples_[static_cast<std::size_t>(purpose)] += samples;
  }
  void sample_user(std::uint32_t space, std::uint64_t samples) { user_samples_[space] += samples; }
  void waited(std::uint64_t tier, std::uint64_t ps) { tiers_[tier].latency_ps += ps; }

  /// Number of the address space with this page-table root; 0 for none.
  std::uint32_t space_of(std::uint64_t root);

  struct Instant {
    std::uint64_t ns = 0;  ///< guest time
    std::uint64_t instructions = 0;
    std::uint64_t kernel_instructions = 0;
    std::uint64_t walks = 0;
    std::uint64_t stalled_ps = 0;
    std::uint64_t idle_ps = 0;
  };
  [[nodiscard]] std::uint64_t slice_ends_ns() const { return slice_ends_ns_; }
  void end_slice(const Instant& at) {
    close(at, "slice");
    begin_ = at;
    slice_ends_ns_ = (at.ns / slice_ns_ + 1) * slice_ns_;
  }
  void mark(const Instant& at, const std::string& name, std::uint32_t space);
  void finish(const Instant& at);

 private:
  struct Frame {
    std::uint64_t owner = 0;
    std::uint32_t of_owner = 0;
    std::uint32_t count = 0;
  };
  struct Counts {
    std::uint64_t loads = 0;
    std::uint64_t stores = 0;
    std::uint64_t prefetched = 0;
    std::uint64_t write_backs = 0;
    std::uint64_t latency_ps = 0;
  };

  void hand_over(Frame& frame, std::uint64_t owner, std::uint64_t tier);
  void close(const Instant& at, const std::string& why);
  void write_profile(const Instant& at);

  std::FILE* file_ = nullptr;
  std::vector<Range> ranges_;
  std::vector<std::uint64_t> first_slot_;  ///< by range, into frames_
  std::vector<Frame> frames_;              ///< empty: pages are not asked for
  std::vector<std::uint64_t> touched_;     ///< slots with a count in this slice
  bool virtual_ = false;
  std::unordered_map<std::uint64_t, std::uint64_t>
      virtual_counts_;  ///< of owners that lost a frame, by owner and tier (above its 60 bits)
  std::unordered_map<std::uint64_t, std::uint32_t> spaces_;  ///< by page-table root
  std::vector<Counts> tiers_;
  std::uint64_t profile_ps_ = 0;                                      ///< between samples; 0: none
  std::array<std::uint64_t, kPurposeNames.size()> kernel_samples_{};  ///< kNone: all
  std::map<std::uint32_t, std::uint64_t> user_samples_;               ///< by address space
  Instant begin_;
  std::uint64_t slice_ns_ = 0;
  std::uint64_t slice_ends_ns_ = ~std::uint64_t{0};
  std::uint64_t slices_ = 0;
};

}  // namespace timing_plugin
