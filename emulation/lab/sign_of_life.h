// SPDX-License-Identifier: Apache-2.0
// What somebody who waits for a guest is told: on a terminal a line that counts the seconds and
// goes away, elsewhere one line when it takes long. Pure: the caller has the clock and the stream.
#pragma once

#include <chrono>
#include <string>

namespace thermocline::lab {

class SignOfLife {
 public:
  using Time = std::chrono::steady_clock::time_point;

  SignOfLife(bool terminal, Time now) : terminal_(terminal), since_(now) {}

  /// From now on, this is what is waited for ("booting the guest"); empty: nothing. The text takes
  /// the last phase's line away.
  [[nodiscard]] std::string begin(std::string doing, Time now);
  /// When tell() has something to say; Time::max(): never.
  [[nodiscard]] Time next() const { return next_; }
  /// What to write now, perhaps nothing.
  [[nodiscard]] std::string tell(Time now);

 private:
  bool terminal_;
  bool shown_ = false;
  std::string doing_;
  Time since_;
  Time next_ = Time::max();
};

}  // namespace thermocline::lab
