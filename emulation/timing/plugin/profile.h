// SPDX-License-Identifier: GPL-2.0
// What a guest's kernel is at, told from outside: when a sample is due, and what the functions on a
// kernel stack are for. Pure; main.cc reads the guest's registers and memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "emulation/timing/plugin/unwind.h"

namespace timing_plugin {

/// Later ones win: of a hint fault that moves a page, the move counts.
enum class Purpose : std::uint8_t { kNone, kTracker, kPolicy, kMover, kApart };
inline constexpr std::array<std::string_view, 5> kPurposeNames = {"none", "tracker", "policy",
                                                                  "mover", "apart"};

/// A piece of kernel text.
struct Text {
  std::uint64_t start = 0;
  std::uint64_t size = 0;
  Purpose purpose = Purpose::kNone;
};

class KernelText {
 public:
  void add(const Text& text) {
    texts_.insert(std::upper_bound(texts_.begin(), texts_.end(), text,
                                   [](const Text& a, const Text& b) { return a.start < b.start; }),
                  text);
  }
  [[nodiscard]] Purpose at(std::uint64_t address) const {
    const auto after = std::upper_bound(
        texts_.begin(), texts_.end(), address,
        [](std::uint64_t wanted, const Text& text) { return wanted < text.start; });
    if (after == texts_.begin()) return Purpose::kNone;
    const Text& text = *(after - 1);
    return address - text.start < text.size ? text.purpose : Purpose::kNone;
  }

  /// What the kernel is at, by where it is and who called; `stack` are the words from `frame.sp`
  /// on, `read` as in Unwinder::up(). Behind a function whose caller is not told (a module's), the
  /// first word that leads all the way up is taken for its caller.
  template <class Read>
  [[nodiscard]] Purpose of(Frame frame, std::span<const std::uint64_t> stack,
                           const Unwinder& unwinder, Read read) const {
    const std::uint64_t lowest = frame.sp;
    Purpose purpose = at(frame.pc);
    bool told = climb(frame, purpose, true, unwinder, read);
    for (std::size_t i = (frame.sp - lowest) / 8; !told && i < stack.size(); ++i) {
      if (!is_text(stack[i])) continue;
      Purpose above = at(stack[i] - 1);
      Frame caller{stack[i], lowest + 8 * (i + 1), frame.bp};
      told = climb(caller, above, false, unwinder, read);
      if (told) purpose = std::max(purpose, above);
    }
    return purpose == Purpose::kApart ? Purpose::kNone : purpose;
  }

 private:
  static constexpr unsigned kDeepest = 100;  ///< calls; tables may be misread

  static bool is_text(std::uint64_t word) { return word >> 31 == kTextHalf; }

  /// From `frame` to the outermost caller; false where one of them is not told. A return address
  /// lies behind its call, which may be a function's last instruction.
  template <class Read>
  bool climb(Frame& frame, Purpose& purpose, bool innermost, const Unwinder& unwinder,
             Read read) const {
    for (unsigned depth = 0; depth < kDeepest; ++depth) {
      const Unwinder::Step step = unwinder.up(frame, innermost, read);
      if (step != Unwinder::Step::kCaller) return step == Unwinder::Step::kEnd;
      purpose = std::max(purpose, at(frame.pc - 1));
      innermost = false;
    }
    return false;
  }

  static constexpr std::uint64_t kTextHalf = 0x1'ffff'ffff;  ///< the top 2 GiB: kernel and modules
  std::vector<Text> texts_;                                  ///< by start
};

/// When samples are due in the time of one vCPU without its idle time: a period apart on average,
/// by up to half of it sooner or later, so that nothing periodic hides from them. The same in every
/// run.
class Sampler {
 public:
  void shape(std::uint64_t period_ps, std::uint64_t seed) {
    period_ps_ = period_ps;
    random_ = seed;
    if (period_ps != 0) next_ps_ = period_ps;
  }
  [[nodiscard]] std::uint64_t next_ps() const { return next_ps_; }
  /// Whether the next one is due within `reach` of `busy_ps`.
  [[nodiscard]] bool is_near(std::uint64_t busy_ps, std::uint64_t reach) const {
    return next_ps_ <= busy_ps || next_ps_ - busy_ps <= reach;
  }
  /// Samples that are due: more than one after a wait that took long.
  std::uint64_t take(std::uint64_t busy_ps) {
    std::uint64_t samples = 0;
    for (; next_ps_ <= busy_ps; ++samples) {
      // Knuth's MMIX generator; its high bits are the good ones.
      random_ = random_ * 6364136223846793005u + 1442695040888963407u;
      next_ps_ += period_ps_ / 2 + (random_ >> 16) % period_ps_;
    }
    return samples;
  }

 private:
  std::uint64_t period_ps_ = 0;
  std::uint64_t next_ps_ = ~std::uint64_t{0};
  std::uint64_t random_ = 0;
};

}  // namespace timing_plugin
