// SPDX-License-Identifier: Apache-2.0
// /dev/thermocline as the module's tests use it: bare ioctls, records expanded to pages.
// Goes round the tracker on purpose: what is tested here is the contract of uapi/thermocline.h.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/system.h"
#include "uapi/thermocline.h"

namespace thermocline::labtest {

/// What a scan said of one entry; the key of a Pages map is the entry's first 4 KiB page.
struct Page {
  unsigned order = 0;
  bool observable = false, accessed = false, dirty = false;
  int node = -1;  ///< -1 = none told
  bool operator==(const Page&) const = default;
};
using Pages = std::map<std::uint64_t, Page>;

/// A whole pass: all calls until resume_page is 0.
struct Pass {
  int error = 0;          ///< errno of the call that failed; what is below is of those before it
  std::string malformed;  ///< not empty: the records don't follow the format, and how
  Pages pages;            ///< present entries only
  std::uint64_t calls = 0, records = 0, bytes = 0, entries = 0, accessed = 0, skipped = 0;
  std::uint64_t elapsed_ns = 0, max_lock_ns = 0, lock_drops = 0;
  std::uint64_t first_sequence = 0, next_sequence = 0;
  std::vector<std::uint64_t> windows;  ///< one a record
  std::uint64_t scan_ns = 0;           ///< of the last record
};

struct Range {
  std::uint64_t first, count;
};

/// Start time of a process, field 22 of its stat file; 0 when there is none.
[[nodiscard]] std::uint64_t start_ticks(pid_t pid);

class Device {
 public:
  /// Opens the device; opened() tells whether that worked, error() the errno.
  Device();
  [[nodiscard]] bool opened() const { return static_cast<bool>(fd_); }
  [[nodiscard]] int error() const { return error_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  /// ioctl: 0 or the errno.
  [[nodiscard]] int control(unsigned long request, void* argument) const;
  /// 0 or the errno. `ticks` 0 = read them from /proc.
  [[nodiscard]] int attach(pid_t pid, std::uint64_t asid = 1, std::uint64_t ticks = 0) const;
  /// `expand` false: records are counted and checked, pages stays empty.
  [[nodiscard]] Pass scan(std::uint32_t flags, const std::vector<Range>& ranges = {},
                          std::size_t buffer_bytes = 1 << 20, std::uint64_t window_ns = 0,
                          bool expand = true) const;

 private:
  UniqueFd fd_;
  int error_ = 0;
};

/// Most of a request, ready to be broken by a test.
[[nodiscard]] thermocline_scan valid_scan(std::vector<std::uint64_t>& buffer);

}  // namespace thermocline::labtest
