// SPDX-License-Identifier: Apache-2.0
// A process that touches exactly what it is told to, and sleeps in between: what trackers are
// tested on. Forked from the test, so its memory lies where the test mapped it.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>

#include "base/units.h"

namespace thermocline::labtest {

class Target {
 public:
  /// Anonymous private mappings of 4 KiB pages, apart from each other, untouched at first.
  static constexpr std::size_t kRegions = 3;
  static constexpr std::uint64_t kPages = 1024;

  Target();
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  ~Target();

  [[nodiscard]] Pid pid() const { return Pid(pid_); }
  [[nodiscard]] Vpn first(std::size_t region) const;

  /// Writes to every `step`th page of a region, from the first on. Before it, the translations that
  /// the CPU has cached of that region are dropped, so that each touch walks the page tables.
  void touch(std::size_t region, std::uint64_t step = 1);
  /// Touches all of a region over and over, until the next order (or kill()).
  void keep_touching(std::size_t region);
  void unmap(std::size_t region);
  /// Another image in the same process; it sleeps.
  void exec();
  void kill();

 private:
  struct Order {
    char what;
    std::size_t region;
    std::uint64_t step;
  };
  void write_to(char* region, std::uint64_t step) const;
  [[noreturn]] void obey(int orders, int answers) const;
  void tell(Order order);

  std::array<char*, kRegions> regions_{};
  pid_t pid_ = -1;
  int orders_ = -1, answers_ = -1;
};

}  // namespace thermocline::labtest
