// SPDX-License-Identifier: Apache-2.0
// What the daemon waits in: file descriptors, one deadline. io_uring where the kernel lets us,
// epoll behind the same interface where it doesn't (seccomp, sysctl kernel.io_uring_disabled).
// Not thread-safe; callbacks run inside run_once() and may add and remove descriptors.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/units.h"

namespace thermocline {

class EventLoop {
 public:
  virtual ~EventLoop() = default;
  /// "io_uring" or "epoll".
  [[nodiscard]] virtual std::string name() const = 0;
  /// Call `ready` whenever `fd` can be read (or written, with `writable`) until it is removed.
  [[nodiscard]] virtual Status watch(int fd, bool writable, std::function<void()> ready) = 0;
  virtual void unwatch(int fd) = 0;
  /// Wait until a descriptor is ready or CLOCK_MONOTONIC reaches `deadline`; run the callbacks.
  [[nodiscard]] virtual Status run_once(Nanoseconds deadline) = 0;
};

/// io_uring if it works here, else epoll; `why_not` then holds the reason in one sentence.
[[nodiscard]] Result<std::unique_ptr<EventLoop>> make_event_loop(std::string& why_not);
/// One of them by name, for tests: "io_uring" or "epoll".
[[nodiscard]] Result<std::unique_ptr<EventLoop>> make_event_loop_named(const std::string& name);

}  // namespace thermocline
