// SPDX-License-Identifier: Apache-2.0
#include "trace/trace_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "trace/format.h"
#include "tracking/record.h"
#include "uapi/thermocline.h"

namespace thermocline::trace {

namespace {

std::span<const std::byte> bytes_of_text(const std::string& text) {
  return std::as_bytes(std::span(text));
}

template <class T>
std::vector<std::byte> as_bytes_of(const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {bytes.begin(), bytes.end()};
}

FileHeader make_header() {
  FileHeader header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.byte_order = kByteOrder;
  header.version = kVersion;
  header.header_size = sizeof(header);
  header.record_version = THERMOCLINE_RECORD_VERSION;
  header.created_ns = static_cast<std::uint64_t>(
      std::chrono::duration_cast<Nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
  header.checksum = XXH64(&header, offsetof(FileHeader, checksum), 0);
  return header;
}

}  // namespace

TraceWriter::TraceWriter(std::string path, const Options& options)
    : path_(std::move(path)), options_(options), zstd_(ZSTD_createCCtx()) {
  options_.frame = std::clamp(options_.frame, Bytes(4096), Bytes(kMaxContent / 2));
  ZSTD_CCtx_setParameter(zstd_, ZSTD_c_compressionLevel, options_.level);
}

TraceWriter::~TraceWriter() {
  ZSTD_freeCCtx(zstd_);
}

Result<std::unique_ptr<TraceWriter>> TraceWriter::open(const std::string& path,
                                                       const Options& options) {
  std::unique_ptr<TraceWriter> writer(new TraceWriter(path, options));
  const int flags = O_RDWR | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  UniqueFd fd(::open(path.c_str(), options.append ? flags : flags | O_EXCL, 0644));
  if (!fd && errno == EEXIST)
    return fail(ErrorKind::kUsage,
                "{} is there already: name another file (record --append continues a trace)", path);
  if (!fd) return fail_errno(errno, "can't write " + path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail_errno(errno, "can't write " + path);
  if (!S_ISREG(info.st_mode))
    return fail(ErrorKind::kUsage, "{} is not a regular file: name another one", path);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
    return fail(ErrorKind::kUsage, "{} is being written by another process", path);
  if (info.st_size > 0) TC_TRY(writer->take_over(fd.get()));
  writer->fd_ = fd.get();
  writer->file_ = make_async_file(std::move(fd), writer->offset_, options.use_io_uring);
  if (info.st_size == 0) {
    writer->file_->append(as_bytes_of(make_header()));
    writer->offset_ = sizeof(FileHeader);
  }
  return writer;
}

Status TraceWriter::take_over(int fd) {
  TC_ASSIGN(auto input, file_input(path_));
  const auto reader = TraceReader::open(std::move(input), path_);
  if (!reader)
    return fail(reader.error().kind, "{}, so it can't be continued; it stays as it is",
                reader.error().message);
  places_ = (*reader)->all_frames();
  offset_ = (*reader)->frames_end();
  cut_ = (*reader)->torn_bytes();
  // From here on the file has no index until finish(), and is walked.
  if (::ftruncate(fd, static_cast<off_t>(offset_)) != 0)
    return fail_errno(errno, "can't write " + path_);
  return {};
}

void TraceWriter::put_frame(FramePlace place, std::span<const std::byte> content) {
  FrameHead head{};
  std::vector<std::byte> bytes(sizeof(head) + ZSTD_compressBound(content.size()));
  const std::size_t stored =
      ZSTD_compress2(zstd_, bytes.data() + sizeof(head), bytes.size() - sizeof(head),
                     content.data(), content.size());
  // The room is what zstd asks for, so only a lack of memory is left; then nothing is as it should.
  if (ZSTD_isError(stored) != 0) std::abort();
  bytes.resize(sizeof(head) + stored);
  bytes.shrink_to_fit();
  place.offset = offset_;
  place.stored_size = static_cast<std::uint32_t>(stored);
  place.content_size = static_cast<std::uint32_t>(content.size());
  head.magic = kFrameMagic;
  head.kind = place.kind;
  head.head_size = sizeof(head);
  head.stored_size = place.stored_size;
  head.content_size = place.content_size;
  head.records = place.records;
  head.first_ns = place.first.count();
  head.last_ns = place.last.count();
  head.checksum = frame_checksum(head, std::span(bytes).subspan(sizeof(head)));
  std::memcpy(bytes.data(), &head, sizeof(head));
  offset_ = place.end();
  places_.push_back(place);
  file_->append(std::move(bytes));
}

void TraceWriter::info(const nlohmann::ordered_json& json) {
  flush();
  const std::string text =
      json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  FramePlace place;
  place.kind = static_cast<std::uint16_t>(FrameKind::kInfo);
  if (text.size() <= kMaxInfo) put_frame(place, bytes_of_text(text));
}

void TraceWriter::append(std::span<const std::byte> records) {
  file_->poll();
  RecordReader reader(records);
  std::size_t from = 0;  // of what is not in open_ yet
  const auto take = [&](std::size_t to) {
    open_.insert(open_.end(), records.begin() + static_cast<std::ptrdiff_t>(from),
                 records.begin() + static_cast<std::ptrdiff_t>(to));
    from = to;
  };
  while (const auto record = reader.next()) {
    if (open_place_.records == 0) open_place_.first = record->scan_time;
    ++open_place_.records;
    open_place_.last = record->scan_time;
    if (open_.size() + reader.offset() - from < options_.frame.get()) continue;
    take(reader.offset());
    flush();
  }
  take(reader.offset());
}

void TraceWriter::flush() {
  if (open_.empty()) return;
  open_place_.kind = static_cast<std::uint16_t>(FrameKind::kRecords);
  if (file_->pending_bytes() > options_.backlog.get())
    lost_records_ += open_place_.records;
  else
    put_frame(open_place_, open_);
  open_.clear();
  open_place_ = {};
}

tl::unexpected<Error> TraceWriter::write_error(int errno_value) const {
  return fail(ErrorKind::kFailure, "can't write {}: {}; what was written before is kept", path_,
              errno_text(errno_value));
}

Status TraceWriter::check() {
  file_->poll();
  if (file_->error() != 0) return write_error(file_->error());
  return {};
}

Status TraceWriter::finish() {
  flush();
  std::vector<IndexEntry> entries;
  for (const FramePlace& p : places_)
    entries.push_back({p.offset, p.stored_size, p.content_size, p.records, p.kind, 0,
                       p.first.count(), p.last.count()});
  int error = file_->drain();
  const std::uint64_t frames_end = offset_;
  if (error == 0 && !entries.empty() && entries.size() * sizeof(IndexEntry) <= kMaxIndex) {
    FramePlace place;
    place.kind = static_cast<std::uint16_t>(FrameKind::kIndex);
    place.records = static_cast<std::uint32_t>(entries.size());
    put_frame(place, std::as_bytes(std::span(entries)));
    EndMark mark{kEndMagic, sizeof(EndMark), frames_end, 0};
    mark.checksum = XXH64(&mark, offsetof(EndMark, checksum), 0);
    file_->append(as_bytes_of(mark));
    offset_ += sizeof(mark);
    error = file_->drain();
  }
  if (error == 0 && ::fsync(fd_) != 0) error = errno;
  if (error == 0) return {};
  // Frames only: a part of one, or of the index, is of no use.
  const std::uint64_t keep = std::min(file_->written_to(), frames_end);
  (void)!::ftruncate(fd_, static_cast<off_t>(keep));
  return write_error(error);
}

}  // namespace thermocline::trace
