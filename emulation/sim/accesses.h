// SPDX-License-Identifier: Apache-2.0
// What was accessed in a window, page by page: all that the simulated tracker knows of a program.
// World draws it from a generator's rates; a recorded trace may take its place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace thermocline::sim {

class Accesses {
 public:
  virtual ~Accesses() = default;
  /// Ends the window of a tenant, at the time that it is, and begins the next one. touched() tells
  /// of the window that was ended last.
  virtual void close_window(std::size_t tenant) = 0;
  /// Bit i of words[w] is page first + 64 * w + i of the workload, of that tenant; `first` is a
  /// multiple of 64 from its first page on. Bits past `pages` are 0. May be called from any thread.
  virtual void touched(std::size_t tenant, std::uint64_t first, std::size_t pages,
                       std::uint64_t* words) const = 0;
};

}  // namespace thermocline::sim
