// SPDX-License-Identifier: Apache-2.0
// The reader of the module's ring against memory that the test writes as the kernel would, or not.
#include "tracking/ring_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "tracking/record.h"

namespace thermocline {
namespace {

using testing::ElementsAre;

class RingReaderTest : public testing::Test {
 protected:
  static constexpr std::size_t kPage = 4096;
  static constexpr std::uint64_t kData = THERMOCLINE_RING_MIN_BYTES;

  RingReaderTest() : memory_((kPage + 2 * kData) / 8) {
    header()->data_offset = kPage;
    header()->data_bytes = kData;
  }
  thermocline_ring_header* header() {
    return reinterpret_cast<thermocline_ring_header*>(memory_.data());
  }
  std::span<std::byte> mapping() { return std::as_writable_bytes(std::span(memory_)); }
  /// As the kernel's two mappings of the same pages: what is written is in both halves.
  void produce(std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) {
      const std::uint64_t at = header()->produced++ % kData;
      mapping()[kPage + at] = mapping()[kPage + kData + at] = b;
    }
  }
  std::vector<std::byte> record(std::uint64_t sequence, std::size_t entries = 512) {
    std::vector<std::byte> bytes;
    std::vector<EntryObservation> pages(entries, {NodeId(0), true, true, sequence % 2 != 0, false});
    RecordHeader head;
    head.asid = Asid(1);
    RecordWriter(bytes).append(head, sequence, Vpn(sequence * 512), kOrder4K, pages);
    return bytes;
  }
  void produce_mark(std::uint32_t pass) {
    thermocline_mark mark{};
    mark.magic = THERMOCLINE_MARK_MAGIC;
    mark.version = THERMOCLINE_MARK_VERSION;
    mark.header_size = sizeof(mark);
    mark.size = sizeof(mark);
    mark.pass = pass;
    produce(std::as_bytes(std::span(&mark, 1)));
  }
  Status drain(RingReader& reader) {
    return reader.drain(
        [&](std::span<const std::byte> bytes) {
          RecordReader records(bytes);
          while (const auto r = records.next()) seen_.push_back(static_cast<int>(r->sequence));
          if (records.error()) ++bad_;
        },
        [&](const thermocline_mark& mark) { seen_.push_back(-1 - static_cast<int>(mark.pass)); });
  }

  std::vector<std::uint64_t> memory_;
  std::vector<int> seen_;  ///< sequence numbers, and -1 - pass for a mark
  int bad_ = 0;
};

TEST_F(RingReaderTest, HandsOnRecordsAndMarksInTheirOrder) {
  auto reader = RingReader::open(mapping());
  ASSERT_TRUE(reader);
  ASSERT_TRUE(drain(*reader));
  EXPECT_TRUE(seen_.empty());
  produce(record(0));
  produce(record(1));
  produce_mark(0);
  produce(record(2));
  ASSERT_TRUE(drain(*reader));
  EXPECT_THAT(seen_, ElementsAre(0, 1, -1, 2));
  EXPECT_EQ(header()->consumed, header()->produced);
  produce_mark(1);
  ASSERT_TRUE(drain(*reader));
  EXPECT_THAT(seen_, ElementsAre(0, 1, -1, 2, -2));
}

TEST_F(RingReaderTest, GoesRoundAndRound) {
  auto reader = RingReader::open(mapping());
  ASSERT_TRUE(reader);
  std::mt19937 random(1);
  int next = 0;
  while (header()->produced < 20 * kData) {
    seen_.clear();
    const int first = next;
    while (header()->produced - header()->consumed < kData - 1024)
      produce(record(static_cast<std::uint64_t>(next++), 1 + random() % 512));
    ASSERT_TRUE(drain(*reader));
    ASSERT_EQ(seen_.size(), static_cast<std::size_t>(next - first));
    for (int i = first; i < next; ++i) EXPECT_EQ(seen_[static_cast<std::size_t>(i - first)], i);
  }
  EXPECT_EQ(bad_, 0);
}

TEST_F(RingReaderTest, RefusesAHeaderThatDoesNotFit) {
  const auto refused = [&](auto spoil) {
    const std::vector<std::uint64_t> before = memory_;
    spoil(*header());
    const bool is_refused = !RingReader::open(mapping());
    memory_ = before;
    return is_refused;
  };
  EXPECT_FALSE(refused([](thermocline_ring_header&) {}));
  EXPECT_TRUE(refused([](thermocline_ring_header& h) { h.data_bytes *= 2; }));
  EXPECT_TRUE(refused([](thermocline_ring_header& h) { h.data_bytes /= 2; }));
  EXPECT_TRUE(refused([](thermocline_ring_header& h) { h.data_bytes = 0; }));
  EXPECT_TRUE(refused([](thermocline_ring_header& h) { h.data_bytes = 1ull << 63; }));
  EXPECT_TRUE(refused([](thermocline_ring_header& h) { h.data_bytes += 8; }));
  EXPECT_TRUE(refused([](thermocline_ring_header& h) { h.data_offset = 0; }));
  EXPECT_TRUE(refused([](thermocline_ring_header& h) { h.data_offset = ~0ull; }));
  EXPECT_FALSE(RingReader::open({}));
  EXPECT_FALSE(RingReader::open(mapping().first(kPage)));
}

TEST_F(RingReaderTest, ABrokenFrameIsAnErrorAndWhatFollowsIsReadAgain) {
  for (const std::uint32_t size : {0u, 8u, 20u, 1u << 20, 0xfffffff8u}) {
    auto reader = RingReader::open(mapping());
    ASSERT_TRUE(reader);
    header()->produced = header()->consumed = 0;
    seen_.clear();
    produce(record(0));
    std::vector<std::byte> bad = record(1);
    std::memcpy(bad.data() + offsetof(thermocline_record, size), &size, sizeof(size));
    produce(bad);
    produce(record(2));
    EXPECT_FALSE(drain(*reader)) << size;
    EXPECT_THAT(seen_, ElementsAre(0)) << "what came before it is good";
    EXPECT_EQ(header()->consumed, header()->produced) << "the rest is passed over";
    produce(record(3));
    EXPECT_TRUE(drain(*reader));
    EXPECT_THAT(seen_, ElementsAre(0, 3));
  }
}

TEST_F(RingReaderTest, ACutFrameIsAnError) {
  auto reader = RingReader::open(mapping());
  ASSERT_TRUE(reader);
  const std::vector<std::byte> whole = record(0);
  produce(std::span(whole).first(whole.size() - 8));
  EXPECT_FALSE(drain(*reader)) << "the kernel publishes whole ones only";
  EXPECT_TRUE(seen_.empty());
}

TEST_F(RingReaderTest, AnImpossiblePositionIsAnError) {
  auto reader = RingReader::open(mapping());
  ASSERT_TRUE(reader);
  header()->produced = kData + 8;
  EXPECT_FALSE(drain(*reader));
  EXPECT_TRUE(drain(*reader)) << "and is passed over";
  header()->produced -= 16;
  EXPECT_FALSE(drain(*reader)) << "it doesn't go back";
}

TEST_F(RingReaderTest, RandomBytesDoNoHarm) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 2000; ++i) {
    auto reader = RingReader::open(mapping());
    ASSERT_TRUE(reader);
    header()->consumed = header()->produced = 0;
    std::vector<std::uint64_t> words(1 + random() % 512);
    for (auto& word : words) word = random() % 4 ? random() % 4096 : random();
    // Sometimes a size that leads further in.
    if (i % 2 == 0) words[1 % words.size()] = 64;
    produce(std::as_bytes(std::span(words)));
    (void)drain(*reader);
    EXPECT_EQ(header()->consumed, header()->produced);
  }
}

}  // namespace
}  // namespace thermocline
