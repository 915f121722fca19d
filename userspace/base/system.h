// SPDX-License-Identifier: Apache-2.0
// The one door to the machine: /sys, /proc, the system calls with an effect, and the clock.
// Production code gets a RealSystem; tests hand in a captured tree or a scripted machine.
// Nothing above this layer opens a file of the kernel's or makes such a call by itself.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/units.h"

namespace thermocline {

/// A file descriptor that closes itself.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& o) noexcept : fd_(o.release()) {}
  UniqueFd& operator=(UniqueFd&& o) noexcept;
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] explicit operator bool() const { return fd_ >= 0; }
  [[nodiscard]] int release();
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

/// Addresses of some process; never dereferenced here.
struct AddressRange {
  std::uint64_t address = 0;
  Bytes length;
};

/// Memory that a device file shares with this process. Unmaps itself.
class SharedMapping {
 public:
  SharedMapping() = default;
  /// Takes over what mmap(2) returned.
  explicit SharedMapping(std::span<std::byte> bytes) : bytes_(bytes) {}
  SharedMapping(SharedMapping&& o) noexcept : bytes_(std::exchange(o.bytes_, {})) {}
  SharedMapping& operator=(SharedMapping&& o) noexcept;
  SharedMapping(const SharedMapping&) = delete;
  SharedMapping& operator=(const SharedMapping&) = delete;
  ~SharedMapping();
  [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

/// Thread-safety: const methods may be called from any thread.
class System {
 public:
  virtual ~System() = default;

  /// Directory of this host that stands for the machine's "/": "" for the real one, a captured
  /// tree's folder for a sysroot, nothing for a scripted machine. For libraries that read /sys by
  /// themselves (hwloc); everyone else goes through the calls below.
  [[nodiscard]] virtual std::optional<std::string> root() const { return std::nullopt; }
  /// NUMA nodes that the cpuset of this process lets it allocate from, as the kernel tells it: may
  /// name nodes that are offline. From /proc/self/status, or libnuma on the real machine.
  [[nodiscard]] virtual Result<std::vector<NodeId>> allowed_nodes() const;

  /// Whole content of a file such as /sys/devices/system/node/online. `path` is absolute; a system
  /// with a sysroot prefixes it. Fails with kNotFound, kPermission or kFailure.
  [[nodiscard]] virtual Result<std::string> read_file(const std::string& path) const = 0;
  /// Names in a directory, sorted, without "." and "..".
  [[nodiscard]] virtual Result<std::vector<std::string>> list_dir(
      const std::string& path) const = 0;
  [[nodiscard]] virtual bool exists(const std::string& path) const = 0;
  /// Last component of what a symbolic link points to.
  [[nodiscard]] virtual Result<std::string> read_link_name(const std::string& path) const = 0;

  /// Writes `text` in one go to a file that is there, as the kernel's switches want it. Fails with
  /// the kernel's errno; EINTR when a signal came. A system that can only be read refuses
  /// (kUnsupported).
  [[nodiscard]] virtual Status write_file(const std::string& path, std::string_view text);

  /// CLOCK_MONOTONIC.
  [[nodiscard]] virtual Nanoseconds now() const = 0;
  /// CPU time of this process, all threads (CLOCK_PROCESS_CPUTIME_ID).
  [[nodiscard]] virtual Nanoseconds process_cpu_time() const = 0;

  /// open(2) of a device node; O_CLOEXEC is added.
  [[nodiscard]] virtual Result<UniqueFd> open_device(const std::string& path, int flags) = 0;
  /// ioctl(2): returns 0 or more, or -errno.
  [[nodiscard]] virtual int ioctl(int fd, unsigned long request, void* argument) = 0;
  /// mmap(2) of a device from its begin, shared, to read and write. A system without one refuses
  /// (kUnsupported).
  [[nodiscard]] virtual Result<SharedMapping> map_device(int fd, std::size_t bytes);
  /// move_pages(2): returns 0 or more, or -errno. `nodes` empty = query. `status` has one int a
  /// page.
  [[nodiscard]] virtual long move_pages(Pid pid, std::span<void* const> pages,
                                        std::span<const int> nodes, std::span<int> status,
                                        int flags) = 0;
  /// pread(2): bytes read, or -errno.
  [[nodiscard]] virtual long pread(int fd, std::span<std::byte> into, std::uint64_t offset) const;
  /// pwrite(2): bytes written, or -errno.
  [[nodiscard]] virtual long pwrite(int fd, std::span<const std::byte> from, std::uint64_t offset);
  /// process_madvise(2) on ranges of another process: bytes advised, which may be fewer, or -errno.
  [[nodiscard]] virtual long process_madvise(int pidfd, std::span<const AddressRange> ranges,
                                             int advice);
  /// perf_event_open(2) on a tracepoint (its "id" in tracefs) as one thread passes it: every time,
  /// as a sample with the time of CLOCK_MONOTONIC and the raw event. For map_device(); ends with
  /// the descriptor.
  [[nodiscard]] virtual Result<UniqueFd> open_tracepoint(std::uint64_t id, Pid thread);
  /// pidfd_open(2).
  [[nodiscard]] virtual Result<UniqueFd> pidfd_open(Pid pid) = 0;
  /// True once the process behind a pidfd has exited.
  [[nodiscard]] virtual bool pidfd_exited(int pidfd) const = 0;
};

/// The machine this program runs on. `sysroot` ("" = the real one) is put before every path that is
/// read or written, so that a captured tree can stand in for /sys and /proc; system calls are real.
[[nodiscard]] std::unique_ptr<System> make_real_system(std::string sysroot = "");

}  // namespace thermocline
