// SPDX-License-Identifier: Apache-2.0
#include "base/output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "base/system.h"

namespace thermocline {

int write_fully(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    content.remove_prefix(static_cast<std::size_t>(n));
  }
  return 0;
}

namespace {

Status write_in_place(const std::string& path, int flags, std::string_view content) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666));
  int error = fd ? write_fully(fd.get(), content) : errno;
  // Some file systems tell only here that there was no room.
  if (fd && ::close(fd.release()) != 0 && error == 0) error = errno;
  if (error != 0) return fail_errno(error, "can't write " + path);
  return {};
}

}  // namespace

Status write_whole(const std::string& path, std::string_view content) {
  struct stat old {};
  const bool exists = ::stat(path.c_str(), &old) == 0;
  if (!exists && errno != ENOENT) return fail_errno(errno, "can't write " + path);
  if (exists && !S_ISREG(old.st_mode)) return write_in_place(path, O_NOCTTY, content);

  std::string target = path;
  if (exists) {
    const std::unique_ptr<char, decltype(&std::free)> resolved(::realpath(path.c_str(), nullptr),
                                                               &std::free);
    if (!resolved) return fail_errno(errno, "can't write " + path);
    target = resolved.get();
  } else if (struct stat link{}; ::lstat(path.c_str(), &link) == 0) {
    // A link to nothing: the system finds the place, and there is no old content to lose.
    return write_in_place(path, O_CREAT, content);
  }
  const std::string partial = fmt::format("{}.part.{}", target, ::getpid());
  ::unlink(partial.c_str());  // of a process that was killed
  Status written = write_in_place(partial, O_CREAT | O_EXCL | O_NOFOLLOW, content);
  if (written && exists && ::chmod(partial.c_str(), old.st_mode & 07777) != 0)
    written = fail_errno(errno, "can't write " + path);
  if (written && std::rename(partial.c_str(), target.c_str()) != 0)
    written = fail_errno(errno, "can't write " + path);
  if (!written) ::unlink(partial.c_str());
  return written;
}

Status finish_stdout() {
  errno = 0;
  const bool lost = std::fflush(stdout) != 0;
  const int error = errno;
  if (!lost && std::ferror(stdout) == 0) return {};
  if (error == 0)
    return fail(ErrorKind::kFailure, "standard output could not be written completely");
  return fail_errno(error, "can't write to standard output");
}

}  // namespace thermocline
