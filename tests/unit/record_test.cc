// SPDX-License-Identifier: Apache-2.0
#include "tracking/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "uapi/thermocline.h"

namespace thermocline {
namespace {

using testing::HasSubstr;

std::vector<EntryObservation> random_entries(std::mt19937& rng, std::size_t count) {
  std::vector<EntryObservation> entries(count);
  for (EntryObservation& e : entries) {
    e.present = rng() % 4 != 0;
    if (!e.present) continue;
    e.observable = rng() % 8 != 0;
    e.accessed = rng() % 2 == 0;
    e.dirty = rng() % 3 == 0;
    if (rng() % 16 != 0) e.node = NodeId(static_cast<std::int32_t>(rng() % 3));
  }
  return entries;
}

RecordHeader header() {
  RecordHeader h;
  h.asid = Asid(42);
  h.epoch = Epoch(7);
  h.scan_time = Nanoseconds(1000);
  h.window = Nanoseconds(500);
  h.cleared = true;
  return h;
}

TEST(Record, RoundTripKeepsEveryEntry) {
  std::mt19937 rng(1);
  for (int round = 0; round < 200; ++round) {
    const auto entries = random_entries(rng, 1 + rng() % 600);
    std::vector<std::byte> bytes;
    RecordWriter(bytes).append(header(), 3, Vpn(1024), kOrder4K, entries);
    RecordReader reader(bytes);
    const auto view = reader.next();
    ASSERT_TRUE(view) << reader.error()->message;
    ASSERT_EQ(view->count, entries.size());
    EXPECT_EQ(view->asid, Asid(42));
    EXPECT_EQ(view->sequence, 3u);
    EXPECT_TRUE(view->cleared);
    std::uint32_t i = 0;
    for (std::uint32_t r = 0; r < view->node_run_count; ++r) {
      const NodeRun run = view->node_run(r);
      for (std::uint32_t k = 0; k < run.count; ++k, ++i) {
        ASSERT_EQ(run.node, entries[i].node);
        ASSERT_EQ(view->present.test(i), entries[i].present);
        ASSERT_EQ(view->observable.test(i), entries[i].observable);
        ASSERT_EQ(view->accessed.test(i), entries[i].accessed);
        ASSERT_EQ(view->dirty.test(i), entries[i].dirty);
      }
    }
    EXPECT_EQ(i, entries.size());
    EXPECT_FALSE(reader.next());
    EXPECT_FALSE(reader.error());
  }
}

TEST(Record, UniformMapsTakeNoSpace) {
  const std::vector<EntryObservation> entries(512, {NodeId(1), true, true, false, false});
  std::vector<std::byte> bytes;
  RecordWriter(bytes).append(header(), 0, Vpn(512), kOrder4K, entries);
  EXPECT_EQ(bytes.size(), sizeof(thermocline_record) + 8);
}

TEST(Record, TruncationIsToldApartFromCorruption) {
  std::mt19937 rng(2);
  std::vector<std::byte> bytes;
  RecordWriter(bytes).append(header(), 0, Vpn(0), kOrder4K, random_entries(rng, 512));
  for (std::size_t n = 1; n < bytes.size(); ++n) {
    RecordReader reader(std::span<const std::byte>{bytes}.first(n));
    EXPECT_FALSE(reader.next());
    ASSERT_TRUE(reader.error());
    EXPECT_TRUE(reader.truncated());
  }
}

TEST(Record, EveryCorruptedHeaderIsRefusedOrConsistent) {
  // One flipped byte anywhere must never read out of bounds (the sanitizers watch) and what is
  // accepted must still add up.
  std::mt19937 rng(3);
  std::vector<std::byte> good;
  RecordWriter(good).append(header(), 0, Vpn(2048), kOrder4K, random_entries(rng, 300));
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<std::byte> bad = good;
      bad[at] ^= static_cast<std::byte>(1 << bit);
      RecordReader reader(bad);
      const auto view = reader.next();
      if (!view) {
        ASSERT_TRUE(reader.error());
        EXPECT_EQ(reader.error()->kind, ErrorKind::kCorrupt);
        continue;
      }
      std::uint64_t covered = 0;
      for (std::uint32_t r = 0; r < view->node_run_count; ++r) covered += view->node_run(r).count;
      EXPECT_EQ(covered, view->count);
      EXPECT_LE(view->accessed.population(), view->present.population());
    }
  }
}

TEST(Record, IdleRoundTrip) {
  std::vector<std::byte> bytes;
  RecordWriter writer(bytes);
  writer.append_idle(header(), 3, Vpn(1024), kOrder2M, THERMOCLINE_RECORD_MAX_ENTRIES);
  EXPECT_EQ(bytes.size(), sizeof(thermocline_record));
  writer.append(header(), 4, Vpn(0), kOrder4K, std::vector<EntryObservation>(3));
  RecordReader reader(bytes);
  const auto idle = reader.next();
  ASSERT_TRUE(idle) << reader.error()->message;
  EXPECT_TRUE(idle->idle);
  EXPECT_TRUE(idle->cleared);
  EXPECT_EQ(idle->first, Vpn(1024));
  EXPECT_EQ(idle->pages(), PageCount(std::uint64_t{THERMOCLINE_RECORD_MAX_ENTRIES} * 512));
  EXPECT_EQ(idle->present.population(), 0u);
  EXPECT_EQ(idle->node_run_count, 0u);
  const auto other = reader.next();
  ASSERT_TRUE(other) << reader.error()->message;
  EXPECT_FALSE(other->idle);
}

TEST(Record, IdleWithContentIsRefused) {
  const auto refusal = [](const std::vector<std::byte>& bytes) {
    RecordReader reader(bytes);
    return reader.next() ? std::string() : reader.error()->message;
  };
  std::vector<std::byte> full, idle;
  RecordWriter(full).append(header(), 0, Vpn(512), kOrder4K,
                            std::vector<EntryObservation>(512, {NodeId(1), true, true, true}));
  RecordWriter(idle).append_idle(header(), 0, Vpn(512), kOrder2M, 1);
  EXPECT_EQ(refusal(full), "");
  EXPECT_EQ(refusal(idle), "");
  full[offsetof(thermocline_record, flags)] |= std::byte{THERMOCLINE_RECORD_IDLE};
  EXPECT_THAT(refusal(full), HasSubstr("bad node runs"));
  std::vector<std::byte> with_map = idle;
  with_map[offsetof(thermocline_record, accessed_map)] = std::byte{THERMOCLINE_MAP_ONES};
  EXPECT_THAT(refusal(with_map), HasSubstr("an idle record with a map"));
  // Without the flag it would be a record that tells no entry's node.
  idle[offsetof(thermocline_record, flags)] &= ~std::byte{THERMOCLINE_RECORD_IDLE};
  EXPECT_THAT(refusal(idle), HasSubstr("bad node runs"));
}

TEST(Record, TellsWhetherOthersMapSomeOfItsPages) {
  for (const bool shared : {false, true}) {
    std::vector<std::byte> bytes;
    RecordHeader with = header();
    with.shared = shared;
    RecordWriter(bytes).append(with, 0, Vpn(0), kOrder4K, std::vector<EntryObservation>(4));
    EXPECT_EQ(RecordReader(bytes).next()->shared, shared);
  }
}

TEST(Record, RefusalNamesTheOffset) {
  std::vector<std::byte> bytes;
  const std::vector<EntryObservation> entries(4);
  RecordWriter(bytes).append(header(), 0, Vpn(0), kOrder4K, entries);
  const std::size_t second = bytes.size();
  bytes.resize(second + 200, std::byte{0x55});
  RecordReader reader(bytes);
  EXPECT_TRUE(reader.next());
  EXPECT_FALSE(reader.next());
  EXPECT_THAT(reader.error()->message, HasSubstr(std::to_string(second)));
}

}  // namespace
}  // namespace thermocline
