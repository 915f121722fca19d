// SPDX-License-Identifier: Apache-2.0
// Reads traces (.tct, docs/trace-format.md) as untrusted input: memory is bounded by a frame, the
// index and what is told of the recording, none of which can be larger than the file has bytes for
// or than the format allows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "trace/trace_info.h"
#include "tracking/record_source.h"

namespace thermocline::trace {

/// Bytes of a file, wherever they lie.
class TraceInput {
 public:
  virtual ~TraceInput() = default;
  [[nodiscard]] virtual std::uint64_t size() const = 0;
  /// Fills `into` from `offset` on; offset + into.size() <= size().
  [[nodiscard]] virtual Status read(std::uint64_t offset, std::span<std::byte> into) const = 0;
};
[[nodiscard]] std::unique_ptr<TraceInput> memory_input(std::vector<std::byte> bytes);
/// A regular file: kUsage for anything else, kNotFound, kPermission.
[[nodiscard]] Result<std::unique_ptr<TraceInput>> file_input(const std::string& path);

/// Where a frame is, and what its head tells.
struct FramePlace {
  std::uint64_t offset = 0;  ///< of its head
  std::uint32_t stored_size = 0, content_size = 0, records = 0;
  std::uint16_t kind = 0;
  Nanoseconds first{}, last{};  ///< when its first and last record were made
  [[nodiscard]] std::uint64_t end() const;
};

class TraceReader final : public RecordSource {
 public:
  /// Reads the header, the places of the frames and what is told of the recording. kCorrupt, in one
  /// sentence that begins with `name`, when it isn't a trace of this version and byte order, or its
  /// frames were changed since. A torn tail, as a killed recorder leaves it, is not an error.
  [[nodiscard]] static Result<std::unique_ptr<TraceReader>> open(std::unique_ptr<TraceInput> input,
                                                                 std::string name);

  [[nodiscard]] const TraceInfo& info() const { return info_; }
  /// The frames of records, by their place in the file.
  [[nodiscard]] const std::vector<FramePlace>& frames() const { return frames_; }
  /// Those and all others.
  [[nodiscard]] const std::vector<FramePlace>& all_frames() const { return all_; }
  /// The first frame of records made at `time` or later; frames().size() when there is none.
  [[nodiscard]] std::size_t seek(Nanoseconds time) const;
  /// Found by walking: there was no index, or it was damaged.
  [[nodiscard]] bool walked() const { return walked_; }
  /// At the end of the file, of a frame that isn't whole. Only when walked.
  [[nodiscard]] std::uint64_t torn_bytes() const { return input_->size() - torn_from_; }
  /// Behind the last whole frame: where a writer goes on.
  [[nodiscard]] std::uint64_t frames_end() const { return frames_end_; }
  [[nodiscard]] std::uint64_t created_unix_ns() const { return created_ns_; }

  [[nodiscard]] std::size_t pieces() const override { return frames_.size(); }
  [[nodiscard]] Result<std::span<const std::byte>> piece(std::size_t number) override;

 private:
  TraceReader(std::unique_ptr<TraceInput> input, std::string name)
      : input_(std::move(input)), name_(std::move(name)) {}

  [[nodiscard]] Status read_header();
  /// False when there is no good index.
  [[nodiscard]] Result<bool> read_index();
  [[nodiscard]] Status walk();
  [[nodiscard]] Status read_info();
  /// Checks and decompresses it into `content_`.
  [[nodiscard]] Status load(const FramePlace& place);
  [[nodiscard]] tl::unexpected<Error> damaged(std::uint64_t offset, std::string_view why) const;

  std::unique_ptr<TraceInput> input_;
  std::string name_;
  std::uint64_t created_ns_ = 0;
  std::vector<FramePlace> all_, frames_;
  TraceInfo info_;
  bool walked_ = false;
  std::uint64_t frames_end_ = 0, torn_from_ = 0;
  std::vector<std::byte> stored_, content_;
  std::uint64_t loaded_ = 0;  ///< offset of the frame that content_ is of; 0 = none
};

/// A trace, or a file of plain records as the daemon writes it ([record]): both are told by their
/// first bytes. kCorrupt when it is neither.
struct Recording {
  std::unique_ptr<RecordSource> source;
  TraceInfo info;                ///< empty for plain records
  std::uint64_t torn_bytes = 0;  ///< see TraceReader
};
[[nodiscard]] Result<Recording> open_recording(const std::string& path);

}  // namespace thermocline::trace
