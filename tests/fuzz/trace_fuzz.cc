// SPDX-License-Identifier: Apache-2.0
// Any bytes as a trace: refused in a sentence or read, in memory that the file's size bounds; and
// what is read by its index is what is read by walking. Checksums are mended first, or nothing
// behind them would ever be reached.
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "trace/format.h"
#include "trace/trace_reader.h"
#include "tracking/record.h"

namespace {

using namespace thermocline;
using namespace thermocline::trace;

template <class T>
T at(const std::vector<std::byte>& bytes, std::size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}
template <class T>
void put(std::vector<std::byte>& bytes, std::size_t offset, const T& value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
}

void mend(std::vector<std::byte>& bytes) {
  if (bytes.size() < sizeof(FileHeader)) return;
  auto header = at<FileHeader>(bytes, 0);
  header.checksum = XXH64(&header, offsetof(FileHeader, checksum), 0);
  put(bytes, 0, header);
  std::size_t offset = sizeof(header);
  while (bytes.size() - offset >= sizeof(FrameHead)) {
    auto head = at<FrameHead>(bytes, offset);
    const std::size_t rest = bytes.size() - offset - sizeof(head);
    if (head.magic != kFrameMagic || head.stored_size > rest) break;
    head.checksum =
        frame_checksum(head, std::span(bytes).subspan(offset + sizeof(head), head.stored_size));
    put(bytes, offset, head);
    offset += sizeof(head) + head.stored_size;
  }
  if (bytes.size() - offset == sizeof(EndMark)) {
    auto mark = at<EndMark>(bytes, offset);
    mark.checksum = XXH64(&mark, offsetof(EndMark, checksum), 0);
    put(bytes, offset, mark);
  }
}

/// Bytes of records; nothing when a frame is damaged.
std::optional<std::vector<std::byte>> read_all(TraceReader& reader) {
  std::vector<std::byte> all;
  for (std::size_t i = 0; i < reader.pieces() && all.size() < (16u << 20); ++i) {
    const auto piece = reader.piece(i);
    if (!piece) {
      if (piece.error().message.empty()) std::abort();
      return std::nullopt;
    }
    if (piece->size() > kMaxContent) std::abort();
    RecordReader records(*piece);
    while (records.next()) {
    }
    all.insert(all.end(), piece->begin(), piece->end());
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto raw = std::as_bytes(std::span(data, size));
  std::vector<std::byte> bytes(raw.begin(), raw.end());
  (void)TraceReader::open(memory_input(bytes), "raw");
  mend(bytes);
  const auto reader = TraceReader::open(memory_input(bytes), "mended");
  if (!reader) {
    if (reader.error().message.find("mended") == std::string::npos) std::abort();
    return 0;
  }
  if ((*reader)->frames_end() + (*reader)->torn_bytes() > size) std::abort();
  const auto read = read_all(**reader);
  if (!read || (*reader)->walked()) return 0;
  // The same without the index.
  bytes.resize((*reader)->frames_end());
  const auto walked = TraceReader::open(memory_input(bytes), "mended");
  if (!walked) return 0;
  const auto again = read_all(**walked);
  if (again && *again != *read) std::abort();
  return 0;
}
