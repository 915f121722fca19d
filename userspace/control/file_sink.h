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
#include "base/units.h"

namespace thermocline {

/// How many of the bytes at the start of a file are whole entries of its kind: what follows was cut
/// off, when a daemon was killed while it wrote. kCorrupt when they are something else.
using WholeEntries = Result<std::size_t> (*)(std::span<const std::byte> content);

/// JSON lines that begin with "{".
[[nodiscard]] Result<std::size_t> whole_lines(std::span<const std::byte> content);
/// Access records (tracking/record.h).
[[nodiscard]] Result<std::size_t> whole_records(std::span<const std::byte> content);

class FileSink {
 public:
  /// Opens `path` for appending, or creates it. What an earlier run left stays; an entry that it
  /// left half-written is cut off, so that the file stays readable. kUsage when `path` is not a
  /// regular file or holds something else than such entries, kFailure with the errno text
  /// otherwise.
  [[nodiscard]] static Result<std::unique_ptr<FileSink>> open(
      const std::string& path, Bytes max_size, WholeEntries whole_entries,
      std::function<void(const std::string&)> log);
  /// All of `bytes` or nothing: what a failing write left behind is cut off again. Nothing either
  /// when the file would grow beyond its largest size.
  void append(std::span<const std::byte> bytes);
  void set_max_size(Bytes max_size);
  [[nodiscard]] std::uint64_t dropped_bytes() const { return dropped_; }

 private:
  FileSink(UniqueFd fd, std::uint64_t size, std::string path, Bytes max_size,
           std::function<void(const std::string&)> log);
  UniqueFd fd_;
  std::uint64_t size_;  ///< where the next entry goes
  std::string path_;
  Bytes max_size_;
  std::function<void(const std::string&)> log_;
  bool told_failure_ = false, told_limit_ = false;
  std::uint64_t dropped_ = 0;
};

}  // namespace thermocline
