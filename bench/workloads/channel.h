// SPDX-License-Identifier: Apache-2.0
// A connected stream socket between a workload and the program that serves it: whole writes, reads
// of whatever has come. Not thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/system.h"

namespace thermocline::workloads {

class Channel {
 public:
  explicit Channel(UniqueFd socket) : fd_(std::move(socket)), buffer_(std::size_t{64} << 10) {}
  /// Fails with the errno of connect(2): ENOENT or ECONNREFUSED while nobody listens there yet.
  [[nodiscard]] static Result<Channel> connect_unix(const std::string& path);

  [[nodiscard]] Status send(std::string_view bytes);
  /// At least one byte; valid until the next call. kFailure when the other side has closed.
  [[nodiscard]] Result<std::string_view> receive();

 private:
  UniqueFd fd_;
  std::vector<char> buffer_;
};

}  // namespace thermocline::workloads
