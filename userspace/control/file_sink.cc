// SPDX-License-Identifier: Apache-2.0
#include "control/file_sink.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "tracking/record.h"

namespace thermocline {

namespace {

/// A file's content as bytes, for as long as this lives.
class Mapping {
 public:
  Mapping(int fd, std::size_t size)
      : size_(size), data_(::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0)) {}
  ~Mapping() {
    if (data_ != MAP_FAILED) ::munmap(data_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  [[nodiscard]] bool works() const { return data_ != MAP_FAILED; }
  [[nodiscard]] std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(data_), size_};
  }

 private:
  std::size_t size_;
  void* data_;
};

std::uint64_t size_of(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

}  // namespace

Result<std::size_t> whole_lines(std::span<const std::byte> content) {
  const std::string_view text(reinterpret_cast<const char*>(content.data()), content.size());
  const std::string_view first = text.substr(0, text.find('\n'));
  if (!first.starts_with('{') || !nlohmann::json::accept(first))
    return fail(ErrorKind::kCorrupt, "it does not begin with a line of JSON");
  const auto last = std::find(content.rbegin(), content.rend(), std::byte{'\n'});
  return static_cast<std::size_t>(content.rend() - last);
}

Result<std::size_t> whole_records(std::span<const std::byte> content) {
  RecordReader reader(content);
  while (reader.next()) {
  }
  if (reader.error() && !reader.truncated()) return tl::make_unexpected(*reader.error());
  return reader.offset();
}

FileSink::FileSink(UniqueFd fd, std::uint64_t size, std::string path, Bytes max_size,
                   std::function<void(const std::string&)> log)
    : fd_(std::move(fd)),
      size_(size),
      path_(std::move(path)),
      max_size_(max_size),
      log_(std::move(log)) {}

Result<std::unique_ptr<FileSink>> FileSink::open(const std::string& path, Bytes max_size,
                                                 WholeEntries whole_entries,
                                                 std::function<void(const std::string&)> log) {
  // O_NONBLOCK: a pipe without a reader must not stop the daemon's start.
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, "can't write " + path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail_errno(errno, "can't write " + path);
  if (!S_ISREG(info.st_mode))
    return fail(ErrorKind::kUsage,
                "{} is not a regular file: writing to it could stop tiering; name another file",
                path);
  auto size = static_cast<std::size_t>(info.st_size);
  if (size > 0) {
    const Mapping old(fd.get(), size);
    if (!old.works()) return fail_errno(errno, "can't read " + path);
    const auto whole = whole_entries(old.bytes());
    // Without a whole entry nothing tells that the file is ours to cut.
    if (!whole || *whole == 0)
      return fail(ErrorKind::kUsage, "{} can't be continued, {}: move it away or name another file",
                  path, whole ? "it holds nothing whole" : whole.error().message);
    if (*whole < size) {
      if (::ftruncate(fd.get(), static_cast<off_t>(*whole)) != 0)
        return fail_errno(errno, "can't write " + path);
      log(fmt::format("{}: cut off {} bytes that an earlier run left half-written", path,
                      size - *whole));
      size = *whole;
    }
  }
  return std::unique_ptr<FileSink>(
      new FileSink(std::move(fd), size, path, max_size, std::move(log)));
}

void FileSink::set_max_size(Bytes max_size) {
  told_limit_ = told_limit_ && max_size == max_size_;
  max_size_ = max_size;
}

void FileSink::append(std::span<const std::byte> bytes) {
  // Someone may have emptied the file. Where it ends otherwise we know better than a network file
  // system: 9p of Linux 6.12 has been seen to append, with O_APPEND, before the end.
  if (size_of(fd_.get()) == 0) size_ = 0;
  if (size_ + bytes.size() > max_size_.get()) {
    if (!told_limit_)
      log_(
          fmt::format("{} has reached its largest size of {} (max_size): nothing more is written "
                      "to it; tiering goes on",
                      path_, format_bytes(max_size_)));
    told_limit_ = true;
    dropped_ += bytes.size();
    return;
  }
  std::span<const std::byte> rest = bytes;
  int why = 0;
  while (!rest.empty()) {
    const ssize_t n = ::pwrite(fd_.get(), rest.data(), rest.size(),
                               static_cast<off_t>(size_ + bytes.size() - rest.size()));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      why = n < 0 ? errno : ENOSPC;
      break;
    }
    rest = rest.subspan(static_cast<std::size_t>(n));
  }
  if (rest.empty()) {
    size_ += bytes.size();
    return;
  }
  if (rest.size() != bytes.size() && ::ftruncate(fd_.get(), static_cast<off_t>(size_)) != 0)
    why = errno;
  if (!told_failure_)
    log_(fmt::format("can't write {}: {}; tiering goes on, and writing goes on when there is room",
                     path_, errno_text(why)));
  told_failure_ = true;
  dropped_ += bytes.size();
}

}  // namespace thermocline
