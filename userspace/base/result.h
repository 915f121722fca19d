// SPDX-License-Identifier: Apache-2.0
// Errors as values. Every function that can fail for a reason outside the program returns
// Result<T>; exceptions are for programmer errors only.
#pragma once

#include <fmt/format.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace thermocline {

/// What a program exits with (docs/man): the same four numbers everywhere.
enum class ExitCode : int {
  kOk = 0,
  kFailure = 1,
  kUsage = 2,
  kUnsupported = 77,  ///< this machine lacks what the command needs
};

/// Why something failed, coarse enough to act on.
enum class ErrorKind {
  kFailure,      ///< tried and failed; exit 1
  kUsage,        ///< the caller asked for something that can't be; exit 2
  kUnsupported,  ///< not available on this machine; exit 77
  kNotFound,     ///< the named object is not there (any more); exit 1
  kPermission,   ///< not allowed; exit 1
  kCorrupt,      ///< untrusted bytes that don't follow their format; exit 1
};

/// One sentence for a person: what failed, on which object, the errno text, what to do next.
struct Error {
  ErrorKind kind = ErrorKind::kFailure;
  std::string message;
  int errno_value = 0;  ///< 0 when no system call was involved

  [[nodiscard]] ExitCode exit_code() const;
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

template <class... Args>
[[nodiscard]] tl::unexpected<Error> fail(ErrorKind kind, fmt::format_string<Args...> format,
                                         Args&&... args) {
  return tl::make_unexpected(Error{kind, fmt::format(format, std::forward<Args>(args)...), 0});
}

/// As fail(), with ": " and the text of `errno_value` appended; the kind follows from the errno
/// (ENOENT, ESRCH, ENODEV: kNotFound; EPERM, EACCES: kPermission; ENOSYS, EOPNOTSUPP:
/// kUnsupported).
[[nodiscard]] tl::unexpected<Error> fail_errno(int errno_value, std::string what);

/// Text of an errno, thread-safe.
[[nodiscard]] std::string errno_text(int errno_value);

}  // namespace thermocline

/// Propagate an error: `TC_TRY(status_expression);`
#define TC_TRY(expression)                                                            \
  do {                                                                                \
    auto tc_try_result = (expression);                                                \
    if (!tc_try_result) return tl::make_unexpected(std::move(tc_try_result).error()); \
  } while (false)

#define TC_CONCAT_INNER(a, b) a##b
#define TC_CONCAT(a, b) TC_CONCAT_INNER(a, b)
/// Bind or propagate: `TC_ASSIGN(auto value, result_expression);`
#define TC_ASSIGN(declaration, expression)                                          \
  auto TC_CONCAT(tc_result_, __LINE__) = (expression);                              \
  if (!TC_CONCAT(tc_result_, __LINE__))                                             \
    return tl::make_unexpected(std::move(TC_CONCAT(tc_result_, __LINE__)).error()); \
  declaration = std::move(*TC_CONCAT(tc_result_, __LINE__))
