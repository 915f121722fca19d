// SPDX-License-Identifier: Apache-2.0
#include "tracking/record.h"

#include <array>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstring>

#include "uapi/thermocline.h"

static_assert(std::endian::native == std::endian::little,
              "records are little-endian and read in place");
static_assert(sizeof(thermocline_record) == 80);
static_assert(THERMOCLINE_NODE_NONE == thermocline::kNoNode);
static_assert(sizeof(thermocline_node_run) == 4 && offsetof(thermocline_node_run, node) == 0 &&
              offsetof(thermocline_node_run, count) == 2);

namespace thermocline {

namespace {

/// User-space addresses have at most 57 bits: a record that claims more is corrupt.
constexpr std::uint64_t kMaxVpn = std::uint64_t{1} << (57 - kPageShift);

constexpr std::size_t round_up_8(std::size_t n) {
  return (n + 7) & ~std::size_t{7};
}

/// The lowest n bits, all of them from 64 on.
constexpr std::uint64_t low_bits(std::uint64_t n) {
  return n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
}

}  // namespace

std::uint32_t RecordMap::population() const {
  std::uint32_t n = 0;
  for (std::uint32_t w = 0; w < words(); ++w)
    n += static_cast<std::uint32_t>(std::popcount(word(w)));
  return n;
}

bool RecordReader::refuse(std::string_view why) {
  error_ = Error{ErrorKind::kCorrupt,
                 fmt::format("the access record at byte {} is not valid: {}", offset_, why), 0};
  return false;
}

std::optional<RecordView> RecordReader::next() {
  // Read in place: a copy of the view costs more than half of the checks.
  std::optional<RecordView> record(std::in_place);
  if (error_ || offset_ == bytes_.size() || !read(*record)) record.reset();
  return record;
}

bool RecordReader::read(RecordView& view) {
  const std::span<const std::byte> rest = bytes_.subspan(offset_);
  thermocline_record header;
  if (rest.size() < sizeof(header)) {
    truncated_ = true;
    return refuse("it is cut off");
  }
  std::memcpy(&header, rest.data(), sizeof(header));
  if (header.magic != THERMOCLINE_RECORD_MAGIC) return refuse("wrong magic number");
  if (header.version != THERMOCLINE_RECORD_VERSION) return refuse("unknown version");
  if (header.header_size < sizeof(header) || header.header_size % 8 != 0)
    return refuse("bad header size");
  if (header.size < header.header_size || header.size % 8 != 0) return refuse("bad size");
  if ((header.flags & ~THERMOCLINE_RECORD_FLAGS_ALL) != 0) return refuse("unknown flags");
  if (header.asid == 0) return refuse("no address space");
  if (header.order != THERMOCLINE_ORDER_4K && header.order != THERMOCLINE_ORDER_2M &&
      header.order != THERMOCLINE_ORDER_1G)
    return refuse("unknown page order");
  if (header.count == 0 || header.count > THERMOCLINE_RECORD_MAX_ENTRIES)
    return refuse("bad entry count");
  if (header.first_page & ((std::uint64_t{1} << header.order) - 1))
    return refuse("the first page is not aligned to the page order");
  if (header.first_page >= kMaxVpn ||
      (std::uint64_t{header.count} << header.order) > kMaxVpn - header.first_page)
    return refuse("pages past the end of the address space");
  for (const auto reserved : header.reserved)
    if (reserved != 0) return refuse("reserved bytes are not zero");
  const bool idle = (header.flags & THERMOCLINE_RECORD_IDLE) != 0;
  if (header.node_runs > header.count || (header.node_runs == 0) != idle)
    return refuse("bad node runs");

  const std::size_t map_bytes = std::size_t{(header.count + 63) / 64} * 8;
  const std::array<std::uint8_t, 4> kinds{header.present_map, header.observable_map,
                                          header.accessed_map, header.dirty_map};
  std::size_t need = header.header_size;
  for (const std::uint8_t kind : kinds) {
    if (kind > THERMOCLINE_MAP_BITS) return refuse("unknown map encoding");
    if (idle && kind != THERMOCLINE_MAP_ZEROS) return refuse("an idle record with a map");
    if (kind == THERMOCLINE_MAP_BITS) need += map_bytes;
  }
  const std::size_t runs_at = need;
  need = round_up_8(need + std::size_t{header.node_runs} * sizeof(thermocline_node_run));
  if (need != header.size) return refuse("its size does not match its content");
  if (rest.size() < header.size) {
    truncated_ = true;
    return refuse("it is cut off");
  }

  view.asid = Asid(header.asid);
  view.epoch = Epoch(header.epoch);
  view.sequence = header.sequence;
  view.scan_time = Nanoseconds(static_cast<std::int64_t>(header.scan_ns));
  view.window = Nanoseconds(static_cast<std::int64_t>(header.window_ns));
  view.cleared = (header.flags & THERMOCLINE_RECORD_CLEARED) != 0;
  view.writes_only = (header.flags & THERMOCLINE_RECORD_WRITES_ONLY) != 0;
  view.idle = idle;
  view.shared = (header.flags & THERMOCLINE_RECORD_SHARED) != 0;
  view.first = Vpn(header.first_page);
  view.count = header.count;
  view.order = PageOrder(header.order);

  std::size_t at = header.header_size;
  const std::array<RecordMap*, 4> maps{&view.present, &view.observable, &view.accessed,
                                       &view.dirty};
  for (std::size_t i = 0; i < maps.size(); ++i) {
    switch (kinds[i]) {
      case THERMOCLINE_MAP_ZEROS:
        *maps[i] = RecordMap::zeros(header.count);
        break;
      case THERMOCLINE_MAP_ONES:
        *maps[i] = RecordMap::ones(header.count);
        break;
      default:
        *maps[i] = RecordMap::bits(header.count, rest.data() + at);
        if (header.count % 64 != 0) {
          std::uint64_t last = 0;
          std::memcpy(&last, rest.data() + at + map_bytes - 8, 8);
          if (last >> (header.count % 64) != 0) return refuse("map bits past the last entry");
        }
        at += map_bytes;
        break;
    }
  }
  for (std::uint32_t w = 0; w < (view.present.is_ones() ? 0 : view.present.words()); ++w) {
    const std::uint64_t other =
        view.observable.word(w) | view.accessed.word(w) | view.dirty.word(w);
    if ((other & ~view.present.word(w)) != 0) return refuse("bits of pages that are not present");
  }
  view.node_runs = rest.data() + runs_at;
  view.node_run_count = header.node_runs;
  std::uint64_t covered = 0;
  for (std::uint32_t i = 0; i < header.node_runs; ++i) {
    thermocline_node_run run;
    std::memcpy(&run, view.node_runs + std::size_t{i} * sizeof(run), sizeof(run));
    if (run.count == 0) return refuse("an empty node run");
    covered += run.count;
  }
  if (!idle && covered != header.count)
    return refuse("the node runs do not add up to the entry count");

  view.size = header.size;
  offset_ += header.size;
  return true;
}

std::vector<EntryObservation> entries_of(const RecordView& record) {
  std::vector<EntryObservation> entries(record.count);
  std::uint32_t at = 0;
  for (std::uint32_t r = 0; r < record.node_run_count; ++r) {
    const NodeRun run = record.node_run(r);
    for (const std::uint32_t end = at + run.count; at < end; ++at)
      entries[at] = {run.node, record.present.test(at), record.observable.test(at),
                     record.accessed.test(at), record.dirty.test(at)};
  }
  return entries;
}

namespace {

thermocline_record raw_header(const RecordHeader& header, std::uint64_t sequence, Vpn first,
                              PageOrder order, std::uint32_t count) {
  thermocline_record raw{};
  raw.magic = THERMOCLINE_RECORD_MAGIC;
  raw.version = THERMOCLINE_RECORD_VERSION;
  raw.header_size = sizeof(raw);
  raw.flags = (header.cleared ? THERMOCLINE_RECORD_CLEARED : 0u) |
              (header.writes_only ? THERMOCLINE_RECORD_WRITES_ONLY : 0u) |
              (header.shared ? THERMOCLINE_RECORD_SHARED : 0u);
  raw.asid = header.asid.get();
  raw.epoch = header.epoch.get();
  raw.sequence = sequence;
  raw.scan_ns = static_cast<std::uint64_t>(header.scan_time.count());
  raw.window_ns = static_cast<std::uint64_t>(header.window.count());
  raw.first_page = first.get();
  raw.count = count;
  raw.order = order.get();
  return raw;
}

}  // namespace

void RecordWriter::append_idle(const RecordHeader& header, std::uint64_t sequence, Vpn first,
                               PageOrder order, std::uint32_t count) {
  assert(count > 0 && count <= THERMOCLINE_RECORD_MAX_ENTRIES);
  thermocline_record raw = raw_header(header, sequence, first, order, count);
  raw.size = sizeof(raw);
  raw.flags |= THERMOCLINE_RECORD_IDLE;
  const std::size_t at = out_.size();
  out_.resize(at + sizeof(raw));
  std::memcpy(out_.data() + at, &raw, sizeof(raw));
}

void RecordWriter::append(const RecordHeader& header, std::uint64_t sequence, Vpn first,
                          PageOrder order, std::span<const EntryObservation> entries) {
  const auto count = static_cast<std::uint32_t>(entries.size());
  const std::size_t words = (entries.size() + 63) / 64;
  std::array<std::vector<std::uint64_t>, 4> maps;
  for (auto& map : maps) map.assign(words, 0);
  std::vector<NodeRun> runs;
  for (std::uint32_t i = 0; i < count; ++i) {
    const EntryObservation& e = entries[i];
    const std::uint64_t bit = std::uint64_t{1} << (i % 64);
    const std::size_t w = i / 64;
    if (e.present) {
      maps[0][w] |= bit;
      if (e.observable) maps[1][w] |= bit;
      if (e.accessed) maps[2][w] |= bit;
      if (e.dirty) maps[3][w] |= bit;
    }
    const auto node = e.present ? e.node : std::nullopt;
    if (!runs.empty() && runs.back().node == node)
      ++runs.back().count;
    else
      runs.push_back({node, 1});
  }
  append(header, sequence, first, order, count, {maps[0], maps[1], maps[2], maps[3]}, runs);
}

void RecordWriter::append(const RecordHeader& header, std::uint64_t sequence, Vpn first,
                          PageOrder order, std::uint32_t count, const RecordMaps& given,
                          std::span<const NodeRun> runs) {
  assert(count > 0 && count <= THERMOCLINE_RECORD_MAX_ENTRIES);
  static_assert(THERMOCLINE_RECORD_MAX_ENTRIES <= 65535, "a node run holds any count");
  const std::size_t words = (count + 63) / 64;
  const std::array<std::span<const std::uint64_t>, 4> maps{given.present, given.observable,
                                                           given.accessed, given.dirty};
  thermocline_record raw = raw_header(header, sequence, first, order, count);
  raw.node_runs = static_cast<std::uint32_t>(runs.size());
  std::array<std::uint8_t, 4> kinds{};
  std::size_t size = sizeof(raw);
  for (std::size_t m = 0; m < maps.size(); ++m) {
    assert(maps[m].size() == words);
    std::uint64_t set = 0, clear = 0;
    for (std::size_t w = 0; w < words; ++w) {
      const std::uint64_t all = low_bits(count - w * 64);
      set |= maps[m][w];
      clear |= maps[m][w] ^ all;
    }
    kinds[m] = set == 0     ? THERMOCLINE_MAP_ZEROS
               : clear == 0 ? THERMOCLINE_MAP_ONES
                            : THERMOCLINE_MAP_BITS;
    if (kinds[m] == THERMOCLINE_MAP_BITS) size += words * 8;
  }
  raw.present_map = kinds[0];
  raw.observable_map = kinds[1];
  raw.accessed_map = kinds[2];
  raw.dirty_map = kinds[3];
  size = round_up_8(size + runs.size() * sizeof(thermocline_node_run));
  raw.size = static_cast<std::uint32_t>(size);

  std::size_t at = out_.size();
  out_.resize(at + size);
  const auto put = [&](const void* data, std::size_t n) {
    std::memcpy(out_.data() + at, data, n);
    at += n;
  };
  put(&raw, sizeof(raw));
  for (std::size_t m = 0; m < maps.size(); ++m)
    if (kinds[m] == THERMOCLINE_MAP_BITS) put(maps[m].data(), words * 8);
  for (const NodeRun& run : runs) {
    const thermocline_node_run stored{run.node ? static_cast<std::uint16_t>(run.node->get())
                                               : static_cast<std::uint16_t>(THERMOCLINE_NODE_NONE),
                                      static_cast<std::uint16_t>(run.count)};
    put(&stored, sizeof(stored));
  }
}

}  // namespace thermocline
