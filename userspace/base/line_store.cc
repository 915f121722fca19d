// SPDX-License-Identifier: Apache-2.0
#include "base/line_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace thermocline {

Result<std::string> read_all(int fd, const std::string& path) {
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t n = ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(text.size()));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "can't read " + path);
    if (n == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
}

Result<UniqueFd> open_line_store(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0)
    return fail(ErrorKind::kUsage, "can't write results to {}: {}", path, errno_text(errno));
  if (!S_ISREG(status.st_mode))
    return fail(ErrorKind::kUsage, "can't write results to {}: it is not a regular file", path);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
    return fail(ErrorKind::kUsage,
                "another run is writing its results to {}; wait for its end or name another --out",
                path);
  return fd;
}

Status cut_line_store(int fd, const std::string& path, std::size_t bytes) {
  if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0)
    return fail(ErrorKind::kUsage, "can't write results to {}: {}", path, errno_text(errno));
  return {};
}

Status append_line(int fd, const std::string& path, std::string_view line) {
  const std::string whole = std::string(line) + "\n";
  struct stat before {};
  if (::fstat(fd, &before) != 0) return fail_errno(errno, "can't write " + path);
  ssize_t n = 0;
  do n = ::write(fd, whole.data(), whole.size());
  while (n < 0 && errno == EINTR);
  int error = n < 0 ? errno : static_cast<std::size_t>(n) < whole.size() ? ENOSPC : 0;
  if (error == 0 && ::fsync(fd) != 0) error = errno;
  if (error != 0) {
    // A part of a line would spoil the next one.
    if (::ftruncate(fd, before.st_size) != 0) error = errno;
    return fail_errno(error, "can't write " + path);
  }
  return {};
}

}  // namespace thermocline
