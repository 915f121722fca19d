// SPDX-License-Identifier: Apache-2.0
#include "trace/trace_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/system.h"
#include "base/text.h"
#include "trace/format.h"
#include "uapi/thermocline.h"

namespace thermocline::trace {

namespace {

/// Of what is told of a recording, as text: parsed, it is some times larger.
constexpr std::uint64_t kMaxInfoSum = 64u << 20;

class MemoryInput final : public TraceInput {
 public:
  explicit MemoryInput(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  std::uint64_t size() const override { return bytes_.size(); }
  Status read(std::uint64_t offset, std::span<std::byte> into) const override {
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), into.size(), into.begin());
    return {};
  }

 private:
  std::vector<std::byte> bytes_;
};

class FileInput final : public TraceInput {
 public:
  FileInput(UniqueFd fd, std::uint64_t size, std::string path)
      : fd_(std::move(fd)), size_(size), path_(std::move(path)) {}
  std::uint64_t size() const override { return size_; }
  Status read(std::uint64_t offset, std::span<std::byte> into) const override {
    while (!into.empty()) {
      const ssize_t n = ::pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "can't read " + path_);
      if (n == 0)
        return fail(ErrorKind::kFailure, "{} has become shorter while it was read", path_);
      into = into.subspan(static_cast<std::size_t>(n));
      offset += static_cast<std::uint64_t>(n);
    }
    return {};
  }

 private:
  UniqueFd fd_;
  std::uint64_t size_;
  std::string path_;
};

template <class T>
Result<T> read_as(const TraceInput& input, std::uint64_t offset) {
  T value;
  TC_TRY(input.read(offset, std::as_writable_bytes(std::span(&value, 1))));
  return value;
}

std::uint32_t largest_content(std::uint16_t kind) {
  switch (static_cast<FrameKind>(kind)) {
    case FrameKind::kInfo:
      return kMaxInfo;
    case FrameKind::kIndex:
      return kMaxIndex;
    case FrameKind::kRecords:
      break;
  }
  return kMaxContent;
}

/// Why a head can't be one, or nothing.
std::string_view fault_of(const FrameHead& head) {
  if (head.magic != kFrameMagic) return "no frame begins there";
  if (head.head_size != sizeof(FrameHead) || head.flags != 0)
    return "its head is not of this version";
  if (head.content_size == 0 || head.content_size > largest_content(head.kind) ||
      head.stored_size > ZSTD_compressBound(head.content_size))
    return "it is larger than a frame may be";
  return {};
}

FramePlace place_of(std::uint64_t offset, const FrameHead& head) {
  return {offset,    head.stored_size,           head.content_size,        head.records,
          head.kind, Nanoseconds(head.first_ns), Nanoseconds(head.last_ns)};
}

bool is_kind(const FramePlace& place, FrameKind kind) {
  return place.kind == static_cast<std::uint16_t>(kind);
}

}  // namespace

std::unique_ptr<TraceInput> memory_input(std::vector<std::byte> bytes) {
  return std::make_unique<MemoryInput>(std::move(bytes));
}

Result<std::unique_ptr<TraceInput>> file_input(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "can't read " + path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail_errno(errno, "can't read " + path);
  if (!S_ISREG(info.st_mode))
    return fail(ErrorKind::kUsage, "{} is not a regular file: a recording is read at any place",
                path);
  return std::make_unique<FileInput>(std::move(fd), static_cast<std::uint64_t>(info.st_size), path);
}

std::uint64_t FramePlace::end() const {
  return offset + sizeof(FrameHead) + stored_size;
}

tl::unexpected<Error> TraceReader::damaged(std::uint64_t offset, std::string_view why) const {
  return fail(ErrorKind::kCorrupt, "{}: the frame at byte {} is damaged: {}", name_, offset, why);
}

Result<std::unique_ptr<TraceReader>> TraceReader::open(std::unique_ptr<TraceInput> input,
                                                       std::string name) {
  std::unique_ptr<TraceReader> reader(new TraceReader(std::move(input), std::move(name)));
  TC_TRY(reader->read_header());
  TC_ASSIGN(const bool indexed, reader->read_index());
  if (!indexed) TC_TRY(reader->walk());
  TC_TRY(reader->read_info());
  std::copy_if(reader->all_.begin(), reader->all_.end(), std::back_inserter(reader->frames_),
               [](const FramePlace& place) { return is_kind(place, FrameKind::kRecords); });
  return reader;
}

Status TraceReader::read_header() {
  const auto refuse = [&](std::string_view why) {
    return fail(ErrorKind::kCorrupt, "{} {}", name_, why);
  };
  std::array<unsigned char, sizeof(FileHeader)> bytes{};
  const std::size_t there = std::min<std::uint64_t>(input_->size(), bytes.size());
  TC_TRY(input_->read(0, std::as_writable_bytes(std::span(bytes).first(there))));
  if (there == 0) return refuse("is empty, no trace");
  if (there < 4 || std::memcmp(bytes.data(), kMagic, 4) != 0)
    return refuse("is no trace: it begins with something else");
  if (there < bytes.size()) return refuse("is cut off within its header: nothing of it is left");
  FileHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0)
    return refuse("was damaged by a transfer that rewrote its line ends: copy it again, as binary");
  if (header.byte_order == __builtin_bswap32(kByteOrder))
    return refuse("was written in big-endian byte order: traces are little-endian");
  if (header.byte_order != kByteOrder) return refuse("has a damaged header");
  if (header.version != kVersion)
    return fail(ErrorKind::kCorrupt,
                "{} is of trace format {}, and this thermocline reads format {}: use {} one", name_,
                header.version, kVersion, header.version > kVersion ? "a newer" : "an older");
  if (header.checksum != XXH64(&header, offsetof(FileHeader, checksum), 0) ||
      header.header_size != sizeof(header) || header.flags != 0)
    return refuse("has a damaged header");
  if (header.record_version != THERMOCLINE_RECORD_VERSION)
    return fail(ErrorKind::kCorrupt,
                "{} holds access records of version {}, and this thermocline reads version {}",
                name_, header.record_version, THERMOCLINE_RECORD_VERSION);
  created_ns_ = header.created_ns;
  return {};
}

Result<bool> TraceReader::read_index() {
  const std::uint64_t size = input_->size();
  if (size < sizeof(FileHeader) + sizeof(FrameHead) + sizeof(EndMark)) return false;
  const std::uint64_t end = size - sizeof(EndMark);
  TC_ASSIGN(const EndMark mark, read_as<EndMark>(*input_, end));
  if (mark.magic != kEndMagic || mark.size != sizeof(EndMark) ||
      mark.checksum != XXH64(&mark, offsetof(EndMark, checksum), 0) ||
      mark.index_offset < sizeof(FileHeader) || mark.index_offset > end - sizeof(FrameHead))
    return false;
  TC_ASSIGN(const FrameHead head, read_as<FrameHead>(*input_, mark.index_offset));
  const FramePlace place = place_of(mark.index_offset, head);
  if (!fault_of(head).empty() || !is_kind(place, FrameKind::kIndex) || place.end() != end)
    return false;
  const std::uint64_t entries = head.content_size / sizeof(IndexEntry);
  if (head.content_size % sizeof(IndexEntry) != 0 || head.records != entries ||
      entries > size / sizeof(FrameHead))
    return false;
  if (!load(place)) return false;
  std::uint64_t at = sizeof(FileHeader);
  std::vector<FramePlace> all;
  for (std::size_t i = 0; i < entries; ++i) {
    IndexEntry entry;
    std::memcpy(&entry, content_.data() + i * sizeof(entry), sizeof(entry));
    const FramePlace frame{
        entry.offset, entry.stored_size,           entry.content_size,        entry.records,
        entry.kind,   Nanoseconds(entry.first_ns), Nanoseconds(entry.last_ns)};
    if (frame.offset != at || frame.end() > place.offset ||
        frame.content_size > largest_content(frame.kind))
      return false;
    at = frame.end();
    all.push_back(frame);
  }
  if (at != place.offset) return false;
  all_ = std::move(all);
  frames_end_ = place.offset;
  torn_from_ = size;
  return true;
}

Status TraceReader::walk() {
  walked_ = true;
  const std::uint64_t size = input_->size();
  std::uint64_t at = sizeof(FileHeader);
  while (at < size) {
    if (size - at < sizeof(FrameHead)) break;  // torn, or what an end mark left
    TC_ASSIGN(const FrameHead head, read_as<FrameHead>(*input_, at));
    if (const std::string_view fault = fault_of(head); !fault.empty()) {
      // A machine that went down may leave zeros where the last frame was to be.
      std::vector<std::byte> rest(std::min<std::uint64_t>(size - at, 1u << 20));
      TC_TRY(input_->read(at, rest));
      const bool zeros =
          std::all_of(rest.begin(), rest.end(), [](std::byte b) { return b == std::byte{0}; });
      if (zeros) break;
      return damaged(at, fault);
    }
    const FramePlace place = place_of(at, head);
    if (place.end() > size) break;
    // Behind an index stands its end mark, and nothing else.
    if (is_kind(place, FrameKind::kIndex) && size - place.end() <= sizeof(EndMark)) {
      torn_from_ = size;
      break;
    }
    if (place.end() == size && !load(place)) break;
    all_.push_back(place);
    at = place.end();
  }
  frames_end_ = at;
  if (torn_from_ == 0) torn_from_ = at;
  return {};
}

Status TraceReader::read_info() {
  std::uint64_t sum = 0;
  for (const FramePlace& place : all_) {
    if (!is_kind(place, FrameKind::kInfo)) continue;
    sum += place.content_size;
    if (sum > kMaxInfoSum)
      return damaged(place.offset, "more is told of the recording than a trace may hold");
    TC_TRY(load(place));
    const std::string_view text(reinterpret_cast<const char*>(content_.data()), content_.size());
    if (const Status added = add_info(text, info_); !added)
      return damaged(place.offset, added.error().message);
  }
  return {};
}

Status TraceReader::load(const FramePlace& place) {
  loaded_ = 0;
  TC_ASSIGN(const FrameHead head, read_as<FrameHead>(*input_, place.offset));
  if (const std::string_view fault = fault_of(head); !fault.empty())
    return damaged(place.offset, fault);
  if (head.stored_size != place.stored_size || head.content_size != place.content_size ||
      head.kind != place.kind)
    return damaged(place.offset, "the index tells something else of it");
  stored_.resize(head.stored_size);
  TC_TRY(input_->read(place.offset + sizeof(head), stored_));
  if (frame_checksum(head, stored_) != head.checksum)
    return damaged(place.offset, "its checksum is wrong");
  content_.resize(head.content_size);
  const std::size_t got =
      ZSTD_decompress(content_.data(), content_.size(), stored_.data(), stored_.size());
  if (ZSTD_isError(got) != 0 || got != content_.size())
    return damaged(place.offset, "it can't be decompressed");
  loaded_ = place.offset;
  return {};
}

std::size_t TraceReader::seek(Nanoseconds time) const {
  const auto found = std::partition_point(frames_.begin(), frames_.end(),
                                          [&](const FramePlace& f) { return f.last < time; });
  return static_cast<std::size_t>(found - frames_.begin());
}

Result<std::span<const std::byte>> TraceReader::piece(std::size_t number) {
  const FramePlace& place = frames_.at(number);
  if (loaded_ != place.offset) TC_TRY(load(place));
  return std::span<const std::byte>(content_);
}

Result<Recording> open_recording(const std::string& path) {
  TC_ASSIGN(auto input, file_input(path));
  std::uint32_t magic = 0;
  if (input->size() >= sizeof(magic)) {
    TC_ASSIGN(magic, read_as<std::uint32_t>(*input, 0));
  }
  Recording recording;
  if (magic == THERMOCLINE_RECORD_MAGIC) {
    std::vector<std::byte> bytes(input->size());
    TC_TRY(input->read(0, bytes));
    recording.source = std::make_unique<MemoryRecords>(std::move(bytes));
    return recording;
  }
  TC_ASSIGN(auto reader, TraceReader::open(std::move(input), path));
  recording.info = reader->info();
  recording.torn_bytes = reader->torn_bytes();
  recording.source = std::move(reader);
  return recording;
}

}  // namespace thermocline::trace
