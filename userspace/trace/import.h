// SPDX-License-Identifier: Apache-2.0
// Makes records of what other tools recorded as text: times with addresses, `perf script` of memory
// samples, `damo report raw`. Read line by line as untrusted input.
//
// Samples are gathered into windows of one length: a page that has a sample in a window was touched
// in it. Pages are there from their first sample on. A page without a sample may have been touched
// all the same: a recording of samples tells less than one of accessed bits. DAMON's snapshots are
// taken as they are: a region in which it saw an access was touched, as a whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <istream>
#include <span>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "trace/trace_info.h"

namespace thermocline::trace {

enum class ImportFormat {
  kTimeAddress,  ///< "SECONDS ADDRESS [r|w]" a line, parted by blanks, commas or semicolons
  kPerf,         ///< perf script -F comm,pid,time,event,addr, or what it prints by itself
  kDamon,        ///< damo report raw
};
/// "time-address", "perf", "damon"; kUsage for another, with the nearest.
[[nodiscard]] Result<ImportFormat> parse_import_format(const std::string& text);
[[nodiscard]] std::string_view to_string(ImportFormat format);

struct ImportOptions {
  ImportFormat format = ImportFormat::kTimeAddress;
  /// Length of the windows; DAMON's have their own.
  Nanoseconds window = std::chrono::milliseconds(100);
  std::uint64_t max_windows = 1'000'000;
  /// Of address space with samples in it, in blocks of 2 MiB; of DAMON's regions of a snapshot.
  PageCount max_pages = PageCount(std::uint64_t{1} << 30);
};

struct ImportCounts {
  std::uint64_t lines = 0;
  std::uint64_t samples = 0;      ///< that were taken; DAMON: regions
  std::uint64_t passed_over = 0;  ///< without an address, or with one of the kernel
  std::uint64_t windows = 0;
};

struct ImportSink {
  std::function<void(std::span<const std::byte>)> records;  ///< whole ones
  std::function<void(const ProcessInfo&)> process;          ///< a new address space
};

/// kCorrupt, "NAME:LINE: why", for a line that can't be understood or time that goes back, and for
/// more than the options allow; kCorrupt when there is nothing in it.
[[nodiscard]] Result<ImportCounts> import_text(std::istream& in, const std::string& name,
                                               const ImportOptions& options,
                                               const ImportSink& sink);

}  // namespace thermocline::trace
