// SPDX-License-Identifier: Apache-2.0
#include "base/result.h"

#include <cerrno>
#include <system_error>

namespace thermocline {

ExitCode Error::exit_code() const {
  switch (kind) {
    case ErrorKind::kUsage:
      return ExitCode::kUsage;
    case ErrorKind::kUnsupported:
      return ExitCode::kUnsupported;
    case ErrorKind::kFailure:
    case ErrorKind::kNotFound:
    case ErrorKind::kPermission:
    case ErrorKind::kCorrupt:
      return ExitCode::kFailure;
  }
  return ExitCode::kFailure;
}

std::string errno_text(int errno_value) {
  return std::generic_category().message(errno_value);
}

tl::unexpected<Error> fail_errno(int errno_value, std::string what) {
  ErrorKind kind = ErrorKind::kFailure;
  switch (errno_value) {
    case ENOENT:
    case ESRCH:
    case ENODEV:
    case ENXIO:
      kind = ErrorKind::kNotFound;
      break;
    case EPERM:
    case EACCES:
      kind = ErrorKind::kPermission;
      break;
    case ENOSYS:
    case EOPNOTSUPP:
      kind = ErrorKind::kUnsupported;
      break;
    default:
      break;
  }
  what += ": ";
  what += errno_text(errno_value);
  return tl::make_unexpected(Error{kind, std::move(what), errno_value});
}

}  // namespace thermocline
