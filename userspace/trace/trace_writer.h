// SPDX-License-Identifier: Apache-2.0
// Writes traces (.tct, docs/trace-format.md), frame by frame and without waiting for the disk
// (async_file.h). Used by recorders and importers. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "trace/async_file.h"
#include "trace/trace_reader.h"

struct ZSTD_CCtx_s;

namespace thermocline::trace {

class TraceWriter {
 public:
  struct Options {
    /// Go on with a trace that is there. Default false: a file that is there is refused.
    bool append = false;
    /// Records of a frame, before compression. Default 1 MiB, at most 2 MiB.
    Bytes frame = Bytes(1u << 20);
    /// zstd's level. Default 1: records compress well, and the recorder's CPU time counts.
    int level = 1;
    /// What may wait for the disk; beyond it records are lost, and counted. Default 256 MiB.
    Bytes backlog = Bytes(256u << 20);
    /// Default true. False: as on a kernel without.
    bool use_io_uring = true;
  };

  /// kUsage when `path` is there and is not to be continued, is no regular file or has another
  /// writer; kCorrupt when it is no trace that can be continued, and then it stays as it is.
  [[nodiscard]] static Result<std::unique_ptr<TraceWriter>> open(const std::string& path,
                                                                 const Options& options);
  ~TraceWriter();
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;

  /// What is told of the recording; ends the frame of records that is open. At most 1 MiB of text.
  void info(const nlohmann::ordered_json& json);
  /// Whole records. Never waits for the disk.
  void append(std::span<const std::byte> records);
  /// Ends the frame that is open.
  void flush();
  /// kFailure once a write has failed: what was written before stays readable.
  [[nodiscard]] Status check();
  /// Waits for the disk, and writes index and end mark. Without it, or when it fails, the trace is
  /// still one, up to its last frame that is whole.
  [[nodiscard]] Status finish();

  [[nodiscard]] std::uint64_t lost_records() const { return lost_records_; }
  [[nodiscard]] Bytes size() const { return Bytes(offset_); }
  /// Bytes cut off at the end of a continued file, that a killed writer had left half-written.
  [[nodiscard]] std::uint64_t cut_bytes() const { return cut_; }
  [[nodiscard]] std::string io_name() const { return file_->name(); }

 private:
  TraceWriter(std::string path, const Options& options);
  [[nodiscard]] Status take_over(int fd);
  void put_frame(FramePlace place, std::span<const std::byte> content);
  [[nodiscard]] tl::unexpected<Error> write_error(int errno_value) const;

  std::string path_;
  Options options_;
  ZSTD_CCtx_s* zstd_;
  std::unique_ptr<AsyncFile> file_;
  int fd_ = -1;  ///< the file's, which it owns
  std::uint64_t offset_ = 0;
  std::uint64_t cut_ = 0;
  std::vector<FramePlace> places_;
  std::vector<std::byte> open_;  ///< records of the frame that is open
  FramePlace open_place_;
  std::uint64_t lost_records_ = 0;
};

}  // namespace thermocline::trace
