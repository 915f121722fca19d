// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/sign_of_life.h"

#include <fmt/format.h>

namespace thermocline::lab {

namespace {

constexpr std::chrono::seconds kLong{5};
constexpr std::chrono::seconds kTick{1};
constexpr const char* kEraseLine = "\r\033[K";

}  // namespace

std::string SignOfLife::begin(std::string doing, Time now) {
  const bool erase = shown_ && terminal_;
  shown_ = false;
  doing_ = std::move(doing);
  since_ = now;
  next_ = doing_.empty() ? Time::max() : now + (terminal_ ? kTick : kLong);
  return erase ? kEraseLine : "";
}

std::string SignOfLife::tell(Time now) {
  if (now < next_) return "";
  next_ = terminal_ ? now + kTick : Time::max();
  shown_ = true;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - since_).count();
  return fmt::format("{}thermocline: lab: {} ({} s){}", terminal_ ? kEraseLine : "", doing_,
                     seconds, terminal_ ? "" : "\n");
}

}  // namespace thermocline::lab
