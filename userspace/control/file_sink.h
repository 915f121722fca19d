// SPDX-License-Identifier: Apache-2.0
// Files that the daemon appends to while it works: history and records. A full disk must never stop
// or slow tiering: the first failure is told once, the rest is counted and dropped.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "base/system.h"

namespace thermocline {

class FileSink {
 public:
  /// Creates `path` or empties it. kFailure with the errno text when that is not possible.
  [[nodiscard]] static Result<std::unique_ptr<FileSink>> open(
      const std::string& path, std::function<void(const std::string&)> log);
  /// All of `bytes` or nothing: what a failing write left behind is cut off again.
  void append(std::span<const std::byte> bytes);
  [[nodiscard]] std::uint64_t dropped_bytes() const { return dropped_; }

 private:
  FileSink(UniqueFd fd, std::string path, std::function<void(const std::string&)> log);
  UniqueFd fd_;
  std::string path_;
  std::function<void(const std::string&)> log_;
  std::uint64_t size_ = 0;
  std::uint64_t dropped_ = 0;
};

}  // namespace thermocline
