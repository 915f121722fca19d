// SPDX-License-Identifier: Apache-2.0
#include "control/file_sink.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace thermocline {

FileSink::FileSink(UniqueFd fd, std::string path, std::function<void(const std::string&)> log)
    : fd_(std::move(fd)), path_(std::move(path)), log_(std::move(log)) {}

Result<std::unique_ptr<FileSink>> FileSink::open(const std::string& path,
                                                 std::function<void(const std::string&)> log) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, "can't write " + path);
  return std::unique_ptr<FileSink>(new FileSink(std::move(fd), path, std::move(log)));
}

void FileSink::append(std::span<const std::byte> bytes) {
  std::span<const std::byte> rest = bytes;
  int why = 0;
  while (!rest.empty()) {
    const ssize_t n = ::write(fd_.get(), rest.data(), rest.size());
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
  if (rest.size() != bytes.size() && ::ftruncate(fd_.get(), static_cast<off_t>(size_)) == 0)
    ::lseek(fd_.get(), static_cast<off_t>(size_), SEEK_SET);
  if (dropped_ == 0)
    log_(fmt::format("can't write {}: {}; tiering goes on, and writing goes on when there is room",
                     path_, errno_text(why)));
  dropped_ += bytes.size();
}

}  // namespace thermocline
