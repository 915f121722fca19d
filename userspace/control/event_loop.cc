// SPDX-License-Identifier: Apache-2.0
#include "control/event_loop.h"

#include <liburing.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <map>
#include <vector>

#include "base/system.h"

namespace thermocline {

namespace {

struct Watch {
  bool writable = false;
  std::function<void()> ready;
  std::uint64_t serial = 0;  ///< tells a descriptor from a later one with the same number
};

/// Everything that both kinds share: which callback belongs to what became ready.
class LoopBase : public EventLoop {
 protected:
  /// Callbacks may change the map, so the callback is copied before it runs.
  void call(int fd, std::uint64_t serial) {
    const auto watch = watches_.find(fd);
    if (watch == watches_.end() || watch->second.serial != serial) return;
    const std::function<void()> ready = watch->second.ready;
    ready();
  }

  std::map<int, Watch> watches_;
  std::uint64_t next_serial_ = 1;
};

class UringLoop final : public LoopBase {
 public:
  static constexpr unsigned kEntries = 256;

  UringLoop() = default;
  ~UringLoop() override {
    if (ready_) io_uring_queue_exit(&ring_);
  }

  Status init() {
    const int rc = io_uring_queue_init(kEntries, &ring_, 0);
    if (rc < 0) return fail_errno(-rc, "io_uring is not available");
    ready_ = true;
    // A descriptor is polled one shot at a time and a deadline is a timeout: both must be known.
    io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
    const bool known = probe != nullptr &&
                       io_uring_opcode_supported(probe, IORING_OP_POLL_ADD) != 0 &&
                       io_uring_opcode_supported(probe, IORING_OP_POLL_REMOVE) != 0 &&
                       io_uring_opcode_supported(probe, IORING_OP_TIMEOUT) != 0;
    if (probe != nullptr) io_uring_free_probe(probe);
    if (!known)
      return fail(ErrorKind::kUnsupported, "this kernel's io_uring can't poll with a timeout");
    return {};
  }

  std::string name() const override { return "io_uring"; }

  Status watch(int fd, bool writable, std::function<void()> ready) override {
    watches_[fd] = Watch{writable, std::move(ready), next_serial_++};
    return arm(fd);
  }

  void unwatch(int fd) override {
    const auto watch = watches_.find(fd);
    if (watch == watches_.end()) return;
    if (io_uring_sqe* sqe = next_sqe()) {
      io_uring_prep_poll_remove(sqe, tag(fd, watch->second.serial));
      io_uring_sqe_set_data64(sqe, 0);
    }
    watches_.erase(watch);
    io_uring_submit(&ring_);
  }

  Status run_once(Nanoseconds deadline) override {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(deadline);
    __kernel_timespec until{};
    until.tv_sec = seconds.count();
    until.tv_nsec = (deadline - seconds).count();
    io_uring_sqe* sqe = next_sqe();
    if (sqe == nullptr) return fail(ErrorKind::kFailure, "the io_uring queue is full");
    // Completes at the deadline or with the first other completion, whichever comes first.
    io_uring_prep_timeout(sqe, &until, 1, IORING_TIMEOUT_ABS);
    io_uring_sqe_set_data64(sqe, 0);
    const int rc = io_uring_submit_and_wait(&ring_, 1);
    if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
      return fail_errno(-rc, "can't wait in io_uring");

    std::vector<std::pair<int, std::uint64_t>> fired;
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      const std::uint64_t data = io_uring_cqe_get_data64(cqe);
      const bool cancelled = cqe->res == -ECANCELED;
      io_uring_cqe_seen(&ring_, cqe);
      if (data == 0 || cancelled) continue;
      fired.emplace_back(static_cast<int>(data & 0xffffffffu), data >> 32);
    }
    for (const auto& [fd, serial] : fired) {
      call(fd, serial);
      const auto watch = watches_.find(fd);
      if (watch != watches_.end() && watch->second.serial == serial) TC_TRY(arm(fd));
    }
    return {};
  }

 private:
  static std::uint64_t tag(int fd, std::uint64_t serial) {
    return (serial << 32) | static_cast<std::uint32_t>(fd);
  }

  io_uring_sqe* next_sqe() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) {
      io_uring_submit(&ring_);
      sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
  }

  Status arm(int fd) {
    const Watch& watch = watches_.at(fd);
    io_uring_sqe* sqe = next_sqe();
    if (sqe == nullptr) return fail(ErrorKind::kFailure, "the io_uring queue is full");
    io_uring_prep_poll_add(sqe, fd, watch.writable ? POLLOUT : POLLIN);
    io_uring_sqe_set_data64(sqe, tag(fd, watch.serial));
    return {};
  }

  io_uring ring_{};
  bool ready_ = false;
};

class EpollLoop final : public LoopBase {
 public:
  Status init() {
    epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!epoll_ || !timer_) return fail_errno(errno, "can't set up epoll");
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = 0;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, timer_.get(), &event) < 0)
      return fail_errno(errno, "can't set up epoll");
    return {};
  }

  std::string name() const override { return "epoll"; }

  Status watch(int fd, bool writable, std::function<void()> ready) override {
    const bool known = watches_.contains(fd);
    const std::uint64_t serial = next_serial_++;
    watches_[fd] = Watch{writable, std::move(ready), serial};
    epoll_event event{};
    event.events = writable ? EPOLLOUT : EPOLLIN;
    event.data.u64 = (serial << 32) | static_cast<std::uint32_t>(fd);
    if (::epoll_ctl(epoll_.get(), known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) < 0) {
      watches_.erase(fd);
      return fail_errno(errno, "can't watch a file descriptor");
    }
    return {};
  }

  void unwatch(int fd) override {
    if (watches_.erase(fd) != 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  }

  Status run_once(Nanoseconds deadline) override {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(deadline);
    itimerspec until{};
    until.it_value.tv_sec = seconds.count();
    until.it_value.tv_nsec = (deadline - seconds).count();
    if (until.it_value.tv_sec == 0 && until.it_value.tv_nsec == 0) until.it_value.tv_nsec = 1;
    ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &until, nullptr);
    std::array<epoll_event, 64> events;
    const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    if (n < 0 && errno != EINTR) return fail_errno(errno, "can't wait in epoll");
    for (int i = 0; i < n; ++i) {
      const std::uint64_t data = events[static_cast<std::size_t>(i)].data.u64;
      if (data == 0) {
        std::uint64_t expirations = 0;
        [[maybe_unused]] const ssize_t got =
            ::read(timer_.get(), &expirations, sizeof(expirations));
        continue;
      }
      call(static_cast<int>(data & 0xffffffffu), data >> 32);
    }
    return {};
  }

 private:
  UniqueFd epoll_, timer_;
};

}  // namespace

Result<std::unique_ptr<EventLoop>> make_event_loop_named(const std::string& name) {
  if (name == "io_uring") {
    auto loop = std::make_unique<UringLoop>();
    TC_TRY(loop->init());
    return loop;
  }
  auto loop = std::make_unique<EpollLoop>();
  TC_TRY(loop->init());
  return loop;
}

Result<std::unique_ptr<EventLoop>> make_event_loop(std::string& why_not) {
  auto loop = make_event_loop_named("io_uring");
  if (loop) return loop;
  why_not = loop.error().message;
  return make_event_loop_named("epoll");
}

}  // namespace thermocline
