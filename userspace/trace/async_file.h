// SPDX-License-Identifier: Apache-2.0
// Appends to a file without waiting for the disk: buffers are handed to io_uring, one write at a
// time and in order, so that a file which ends early is the begin of what was meant. Where there is
// no io_uring, it waits. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/system.h"

namespace thermocline::trace {

class AsyncFile {
 public:
  virtual ~AsyncFile() = default;
  /// "io_uring" or "pwrite".
  [[nodiscard]] virtual std::string name() const = 0;
  /// Queues a buffer behind those before it. Nothing is written any more after a write failed.
  virtual void append(std::vector<std::byte> bytes) = 0;
  /// Takes what has been written off the queue and goes on with the next buffer. Never waits.
  virtual void poll() = 0;
  /// Waits until all is written. The first error of a write, as an errno; 0 = none.
  [[nodiscard]] virtual int drain() = 0;
  [[nodiscard]] virtual int error() const = 0;
  [[nodiscard]] virtual std::uint64_t pending_bytes() const = 0;
  /// End of the last buffer that was written whole.
  [[nodiscard]] virtual std::uint64_t written_to() const = 0;
};

/// Takes over a regular file that is open for writing, and appends from `offset` on.
/// `use_io_uring` false: as where there is none.
[[nodiscard]] std::unique_ptr<AsyncFile> make_async_file(UniqueFd fd, std::uint64_t offset,
                                                         bool use_io_uring = true);

}  // namespace thermocline::trace
