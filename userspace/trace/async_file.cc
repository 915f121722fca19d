// SPDX-License-Identifier: Apache-2.0
#include "trace/async_file.h"

#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <span>
#include <utility>

namespace thermocline::trace {

namespace {

/// Linux writes no more in one call.
constexpr std::size_t kLargestWrite = 1u << 30;

class QueuedFile : public AsyncFile {
 public:
  int error() const override { return error_; }
  std::uint64_t pending_bytes() const override { return pending_; }
  std::uint64_t written_to() const override { return written_to_; }

 protected:
  QueuedFile(UniqueFd fd, std::uint64_t offset) : fd_(std::move(fd)), written_to_(offset) {}

  void enqueue(std::vector<std::byte> bytes) {
    if (error_ != 0 || bytes.empty()) return;
    pending_ += bytes.size();
    queue_.push_back(std::move(bytes));
  }
  [[nodiscard]] std::span<const std::byte> next() const {
    const auto rest = std::span(queue_.front()).subspan(done_);
    return rest.first(std::min(rest.size(), kLargestWrite));
  }
  [[nodiscard]] std::uint64_t next_offset() const { return written_to_ + done_; }
  /// What a write of next() came to: bytes, or -errno.
  void account(long result) {
    if (result == -EINTR || result == -EAGAIN) return;
    if (result <= 0) {
      error_ = result < 0 ? static_cast<int>(-result) : ENOSPC;
      queue_.clear();
      pending_ = 0;
      return;
    }
    done_ += static_cast<std::size_t>(result);
    if (done_ < queue_.front().size()) return;
    written_to_ += queue_.front().size();
    pending_ -= queue_.front().size();
    queue_.pop_front();
    done_ = 0;
  }

  UniqueFd fd_;
  std::deque<std::vector<std::byte>> queue_;

 private:
  std::size_t done_ = 0;  ///< bytes of the first buffer that are written
  std::uint64_t written_to_;
  std::uint64_t pending_ = 0;
  int error_ = 0;
};

class WaitingFile final : public QueuedFile {
 public:
  WaitingFile(UniqueFd fd, std::uint64_t offset) : QueuedFile(std::move(fd), offset) {}
  std::string name() const override { return "pwrite"; }
  void append(std::vector<std::byte> bytes) override {
    enqueue(std::move(bytes));
    while (!queue_.empty()) {
      const auto buffer = next();
      const ssize_t n =
          ::pwrite(fd_.get(), buffer.data(), buffer.size(), static_cast<off_t>(next_offset()));
      account(n < 0 ? -errno : n);
    }
  }
  void poll() override {}
  int drain() override { return error(); }
};

class UringFile final : public QueuedFile {
 public:
  UringFile(UniqueFd fd, std::uint64_t offset, io_uring ring)
      : QueuedFile(std::move(fd), offset), ring_(ring) {}
  ~UringFile() override {
    (void)drain();  // the kernel reads the buffers until then
    io_uring_queue_exit(&ring_);
  }
  std::string name() const override { return "io_uring"; }

  void append(std::vector<std::byte> bytes) override {
    enqueue(std::move(bytes));
    poll();
  }

  void poll() override {
    io_uring_cqe* cqe = nullptr;
    if (in_flight_ && io_uring_peek_cqe(&ring_, &cqe) == 0) take(cqe);
    submit();
  }

  int drain() override {
    submit();
    while (in_flight_) {
      io_uring_cqe* cqe = nullptr;
      const int rc = io_uring_wait_cqe(&ring_, &cqe);
      if (rc == -EINTR) continue;
      if (rc < 0) {
        in_flight_ = false;
        account(rc);
        break;
      }
      take(cqe);
      submit();
    }
    return error();
  }

 private:
  void take(io_uring_cqe* cqe) {
    const long result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    in_flight_ = false;
    account(result);
  }

  void submit() {
    while (!in_flight_ && !queue_.empty()) {
      io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
      const auto buffer = next();
      io_uring_prep_write(sqe, fd_.get(), buffer.data(), static_cast<unsigned>(buffer.size()),
                          next_offset());
      // A worker of the kernel copies it: the page cache may make a writer wait.
      io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
      int rc = 0;
      do {
        rc = io_uring_submit(&ring_);
      } while (rc == -EINTR || rc == -EAGAIN);
      in_flight_ = rc == 1;
      if (!in_flight_) account(rc < 0 ? rc : -EIO);
    }
  }

  io_uring ring_;
  bool in_flight_ = false;
};

}  // namespace

std::unique_ptr<AsyncFile> make_async_file(UniqueFd fd, std::uint64_t offset, bool use_io_uring) {
  io_uring ring{};
  if (use_io_uring && io_uring_queue_init(4, &ring, 0) == 0)
    return std::make_unique<UringFile>(std::move(fd), offset, ring);
  return std::make_unique<WaitingFile>(std::move(fd), offset);
}

}  // namespace thermocline::trace
