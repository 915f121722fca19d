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
  /// First page and count of 4 KiB pages of idle records; those that join are one: a record ends
  /// where the lock was let go.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> idle;
  std::uint64_t idle_pages = 0;
  std::uint64_t calls = 0, records = 0, bytes = 0, entries = 0, accessed = 0, skipped = 0;
  std::uint64_t elapsed_ns = 0, max_lock_ns = 0, lock_drops = 0;
  std::uint64_t first_sequence = 0, next_sequence = 0;
  std::vector<std::uint64_t> windows;  ///< one a record
  std::uint64_t scan_ns = 0;           ///< of the last record
  std::uint64_t shared_records = 0;    ///< with pages that others map, too
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
  /// 0 or the errno; `start.map_bytes` is set.
  [[nodiscard]] int start(thermocline_start& start) const;
  [[nodiscard]] int stop() const { return control(THERMOCLINE_IOC_STOP, nullptr); }
  /// Asks for a round; 0 or the errno.
  [[nodiscard]] int round(thermocline_schedule schedule) const;
  [[nodiscard]] thermocline_stats stats() const;
  /// Waits until poll(2) tells one of `events`; what it told, 0 after `milliseconds`.
  [[nodiscard]] int poll(int milliseconds) const;
  [[nodiscard]] Pass scan(std::uint32_t flags, const std::vector<Range>& ranges = {},
                          std::size_t buffer_bytes = 1 << 20, std::uint64_t window_ns = 0,
                          bool expand = true) const;

 private:
  UniqueFd fd_;
  int error_ = 0;
};

/// A pass as the ring tells it: what stood before its mark.
struct RingPass {
  thermocline_mark mark{};
  Pages pages;                ///< present entries only; empty when not expanded
  std::uint64_t records = 0;  ///< that were in the ring
  std::uint64_t missing = 0;  ///< sequence numbers that were not
};

/// The mapping of a thread's ring, read with bare loads and stores.
class Ring {
 public:
  /// Maps what the last START made; mapped() tells whether that worked, error() the errno.
  Ring(const Device& device, std::uint64_t map_bytes);
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring();
  [[nodiscard]] bool mapped() const { return header_ != nullptr; }
  [[nodiscard]] int error() const { return error_; }
  [[nodiscard]] thermocline_ring_header* header() const { return header_; }
  [[nodiscard]] std::uint64_t unread() const;
  /// Takes out what is there; whole passes are appended to `passes`, the rest is kept for the next
  /// call. False when something isn't as the interface says; malformed() tells what.
  [[nodiscard]] bool take(std::vector<RingPass>& passes, bool expand = true);
  [[nodiscard]] const std::string& malformed() const { return malformed_; }

 private:
  bool refuse(std::string why);
  thermocline_ring_header* header_ = nullptr;
  std::uint64_t map_bytes_, next_sequence_ = 0;
  int error_ = 0;
  bool started_ = false;
  RingPass open_;
  std::string malformed_;
};

/// thermocline.ko in memory, so that it can be loaded over and over.
class KernelModule {
 public:
  /// False: there is nothing to read at `path`.
  [[nodiscard]] bool read_file(const char* path);
  /// 0 or the errno.
  [[nodiscard]] int load() const;
  /// 0 or the errno; never waits for those who use it.
  [[nodiscard]] static int unload();

 private:
  std::string bytes_;
};

/// What the kernel is tainted by, of bad page, oops, WARN and lock-up; 0 = none of them.
[[nodiscard]] std::uint64_t kernel_trouble();

/// Most of a request, ready to be broken by a test.
[[nodiscard]] thermocline_scan valid_scan(std::vector<std::uint64_t>& buffer);
/// A START of rounds of one pass, that clear and flush, one when asked for.
[[nodiscard]] thermocline_start valid_start();

}  // namespace thermocline::labtest
