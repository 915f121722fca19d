// SPDX-License-Identifier: Apache-2.0
// The reader of the module's ring against memory that the test writes as the kernel would, or not.
#include "tracking/ring_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "fake_ring.h"
#include "tracking/record.h"

namespace thermocline {
namespace {

using testing::ElementsAre;

class RingReaderTest : public testing::Test {
 protected:
  static constexpr std::size_t kPage = FakeRing::kPage;
  static constexpr std::uint64_t kData = THERMOCLINE_RING_MIN_BYTES;

  thermocline_ring_header* header() { return ring_.header(); }
  std::span<std::byte> mapping() { return ring_.mapping(); }
  void produce(std::span<const std::byte> bytes) { thermocline::produce(mapping(), bytes); }
  static std::vector<std::byte> record(std::uint64_t sequence, std::size_t entries = 512) {
    return record_of(Asid(1), sequence, entries);
  }
  void produce_mark(std::uint32_t pass) {
    const thermocline_mark mark = mark_of(pass);
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

  FakeRing ring_;
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
    const thermocline_ring_header before = *header();
    spoil(*header());
    const bool is_refused = !RingReader::open(mapping());
    *header() = before;
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
