// SPDX-License-Identifier: Apache-2.0
// Traces: what is written is read, and whatever happens to the bytes is told in one sentence.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "trace/format.h"
#include "trace/trace_reader.h"
#include "trace/trace_writer.h"
#include "tracking/recording.h"

namespace thermocline::trace {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// One pass, told in records of 512 pages.
std::vector<std::byte> pass(std::uint64_t number, std::size_t blocks = 40) {
  std::vector<std::byte> bytes;
  RecordHeader header{.asid = Asid(7),
                      .epoch = Epoch(number),
                      .scan_time = Nanoseconds(static_cast<std::int64_t>(number) * 1000),
                      .window = Nanoseconds(1000),
                      .cleared = true};
  std::vector<EntryObservation> entries(512);
  for (std::size_t block = 0; block < blocks; ++block) {
    for (std::size_t i = 0; i < entries.size(); ++i)
      entries[i] = {NodeId(0), true, true, (i * 31 + block * 7 + number) % 5 == 0, false};
    RecordWriter(bytes).append(header, number * blocks + block, Vpn(512 * (block + 1)), kOrder4K,
                               entries);
  }
  return bytes;
}

SessionInfo session() {
  SessionInfo s;
  s.made_by = "thermocline test";
  s.source = "refs";
  s.grain = "mapping";
  s.window = std::chrono::milliseconds(100);
  s.unix_ns = 123;
  s.kernel = "6.12";
  s.cpu = "some \"CPU\"";
  s.memory = 1_GiB;
  s.tiers = {{"fast", {NodeId(0)}, 1_GiB}, {"slow", {NodeId(1), NodeId(2)}, 2_GiB}};
  s.command = {"redis-server", "--port", "1"};
  return s;
}

class Trace : public testing::Test {
 protected:
  Trace() : path_(fs::temp_directory_path() / ("trace-test-" + std::to_string(::getpid()))) {
    fs::remove(path_);
  }
  ~Trace() override { fs::remove(path_); }

  std::unique_ptr<TraceWriter> writer(TraceWriter::Options options = {}) {
    auto opened = TraceWriter::open(path_, options);
    EXPECT_TRUE(opened) << opened.error().message;
    return opened ? std::move(*opened) : nullptr;
  }
  /// Four frames of one pass each.
  void write_four(bool finish = true) {
    const auto w = writer({.frame = Bytes(8192)});
    w->info(to_json(session()));
    for (std::uint64_t n = 1; n <= 4; ++n) {
      w->append(pass(n));
      w->flush();
    }
    if (finish) {
      const Status done = w->finish();
      ASSERT_TRUE(done) << done.error().message;
    }
  }
  [[nodiscard]] std::vector<std::byte> content() const {
    std::ifstream in(path_, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    const auto bytes = std::as_bytes(std::span(text));
    return {bytes.begin(), bytes.end()};
  }
  void put(std::span<const std::byte> bytes) const {
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  static std::string error_of(std::vector<std::byte> bytes) {
    const auto reader = TraceReader::open(memory_input(std::move(bytes)), "t.tct");
    return reader ? "" : reader.error().message;
  }
  static std::vector<std::byte> all_records(TraceReader& reader) {
    std::vector<std::byte> records;
    for (std::size_t i = 0; i < reader.pieces(); ++i) {
      const auto piece = reader.piece(i);
      EXPECT_TRUE(piece) << piece.error().message;
      if (piece) records.insert(records.end(), piece->begin(), piece->end());
    }
    return records;
  }
  std::unique_ptr<TraceReader> reader() {
    auto input = file_input(path_);
    EXPECT_TRUE(input);
    auto opened = TraceReader::open(std::move(*input), "t.tct");
    EXPECT_TRUE(opened) << opened.error().message;
    return opened ? std::move(*opened) : nullptr;
  }

  std::string path_;
};

std::vector<std::byte> passes(std::uint64_t from, std::uint64_t to) {
  std::vector<std::byte> all;
  for (std::uint64_t n = from; n <= to; ++n) {
    const auto one = pass(n);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

TEST_F(Trace, GivesBackWhatWasWritten) {
  const auto w = writer();
  const ProcessInfo process{Asid(7), Pid(42), "db", {{Vpn(512), PageCount(9), "[heap]"}}};
  w->info(to_json(session()));
  w->info(to_json(process));
  for (std::uint64_t n = 1; n <= 200; ++n) w->append(pass(n));
  w->info(to_json(EndInfo{"exited", 200, 0}));
  ASSERT_TRUE(w->finish());
  const auto r = reader();
  EXPECT_EQ(all_records(*r), passes(1, 200));
  EXPECT_GT(r->frames().size(), 1u);
  EXPECT_FALSE(r->walked());
  EXPECT_EQ(r->torn_bytes(), 0u);
  EXPECT_EQ(r->info().sessions, std::vector{session()});
  EXPECT_EQ(r->info().processes.at(Asid(7)), process);
  EXPECT_EQ(r->info().ends, (std::vector{EndInfo{"exited", 200, 0}}));
  EXPECT_EQ(w->size(), Bytes(fs::file_size(path_)));
}

TEST_F(Trace, WithoutIoUringTheFileIsTheSame) {
  write_four();
  const auto with = content();
  fs::remove(path_);
  const auto w = writer({.frame = Bytes(8192), .use_io_uring = false});
  EXPECT_EQ(w->io_name(), "pwrite");
  w->info(to_json(session()));
  for (std::uint64_t n = 1; n <= 4; ++n) {
    w->append(pass(n));
    w->flush();
  }
  ASSERT_TRUE(w->finish());
  EXPECT_TRUE(std::equal(with.begin() + 64, with.end(), content().begin() + 64))
      << "but for the time in its header";
}

TEST_F(Trace, SeeksByTime) {
  write_four();
  const auto r = reader();
  const auto first_of = [&](std::int64_t time) -> std::int64_t {
    const std::size_t frame = r->seek(Nanoseconds(time));
    return frame == r->pieces() ? -1 : r->frames()[frame].last.count();
  };
  EXPECT_EQ(first_of(0), 1000);
  EXPECT_EQ(first_of(2500), 3000);
  EXPECT_EQ(first_of(4000), 4000);
  EXPECT_EQ(first_of(4001), -1);
}

TEST_F(Trace, IsContinued) {
  write_four();
  const auto w = writer({.append = true});
  w->info(to_json(session()));
  w->append(pass(5));
  ASSERT_TRUE(w->finish());
  const auto r = reader();
  EXPECT_EQ(all_records(*r), passes(1, 5));
  EXPECT_EQ(r->info().sessions.size(), 2u);
  EXPECT_FALSE(r->walked());
}

TEST_F(Trace, ThatIsThereIsNotOverwritten) {
  write_four();
  const auto before = content();
  const auto again = TraceWriter::open(path_, {});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(again.error().message, HasSubstr("--append"));
  const auto w = writer({.append = true});
  EXPECT_THAT(TraceWriter::open(path_, {.append = true}).error().message,
              HasSubstr("by another process"));
  ASSERT_TRUE(w->finish());
  EXPECT_EQ(content(), before);
}

TEST_F(Trace, OtherFilesAreNotContinued) {
  for (const std::string text : {"some text of mine\n", "\x89TC", "{\"epoch\":1}\n"}) {
    std::ofstream(path_) << text;
    const auto w = TraceWriter::open(path_, {.append = true});
    ASSERT_FALSE(w);
    EXPECT_THAT(w.error().message, HasSubstr("it stays as it is"));
    EXPECT_EQ(fs::file_size(path_), text.size());
  }
  const auto device = TraceWriter::open("/dev/null", {.append = true});
  EXPECT_EQ(device.error().kind, ErrorKind::kUsage);
}

// Wherever a killed writer stops: all frames that are whole are there, without the index.
TEST_F(Trace, ATornTailLosesNoMoreThanItsFrame) {
  write_four();
  const auto whole = content();
  const auto r = TraceReader::open(memory_input(whole), "t.tct");
  ASSERT_TRUE(r);
  const std::vector<FramePlace> frames = (*r)->frames();
  for (std::size_t size = 64; size < whole.size(); size += size < 70 ? 1 : 61) {
    auto cut = whole;
    cut.resize(size);
    const auto torn = TraceReader::open(memory_input(cut), "t.tct");
    ASSERT_TRUE(torn) << size << ": " << torn.error().message;
    EXPECT_TRUE((*torn)->walked());
    std::size_t expected = 0;
    for (const FramePlace& frame : frames) expected += frame.end() <= size ? 1 : 0;
    ASSERT_EQ((*torn)->pieces(), expected) << size;
    if (expected > 0) {
      EXPECT_EQ(all_records(**torn), passes(1, expected));
    }
  }
  for (std::size_t size = 0; size < 64; ++size) {
    auto cut = whole;
    cut.resize(size);
    EXPECT_THAT(error_of(cut), HasSubstr(size == 0  ? "is empty"
                                         : size < 4 ? "is no trace"
                                                    : "cut off within its header"));
  }
}

TEST_F(Trace, ATornTailIsCutOffWhenItIsContinued) {
  write_four(false);
  auto bytes = content();
  const auto end = bytes.size();
  bytes.resize(end - 100);
  put(bytes);
  const auto w = writer({.append = true});
  EXPECT_GT(w->cut_bytes(), 0u);
  w->append(pass(4));
  ASSERT_TRUE(w->finish());
  EXPECT_EQ(all_records(*reader()), passes(1, 4));
}

TEST_F(Trace, ZerosThatACrashLeftAreATornTail) {
  write_four(false);
  auto bytes = content();
  bytes.resize(bytes.size() + 5000);
  const auto r = TraceReader::open(memory_input(bytes), "t.tct");
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ((*r)->pieces(), 4u);
  EXPECT_EQ((*r)->torn_bytes(), 5000u);
}

// Every byte, one at a time: found, or of no consequence because the rest tells the same.
TEST_F(Trace, ABrokenByteIsNamedOrHarmless) {
  write_four();
  const auto whole = content();
  const auto expected = passes(1, 4);
  std::size_t refused = 0, harmless = 0;
  for (std::size_t i = 0; i < whole.size(); i += i < 200 || i + 300 > whole.size() ? 1 : 37) {
    auto bytes = whole;
    bytes[i] ^= std::byte{0x10};
    const auto r = TraceReader::open(memory_input(bytes), "t.tct");
    if (!r) {
      ++refused;
      EXPECT_THAT(r.error().message, HasSubstr("t.tct"));
      continue;
    }
    bool failed = false;
    std::vector<std::byte> records;
    for (std::size_t n = 0; n < (*r)->pieces(); ++n) {
      const auto piece = (*r)->piece(n);
      failed = failed || !piece;
      if (piece) records.insert(records.end(), piece->begin(), piece->end());
      if (!piece) {
        EXPECT_THAT(piece.error().message, HasSubstr("the frame at byte"));
      }
    }
    if (failed) continue;
    ++harmless;
    EXPECT_EQ(records, expected) << "byte " << i;
  }
  EXPECT_GT(refused, 100u);
  EXPECT_GT(harmless, 50u) << "a broken index is walked past";
}

TEST_F(Trace, AForeignHeaderIsToldInOneSentence) {
  write_four();
  const auto whole = content();
  const auto with = [&](auto change) {
    FileHeader header;
    std::memcpy(&header, whole.data(), sizeof(header));
    change(header);
    auto bytes = whole;
    std::memcpy(bytes.data(), &header, sizeof(header));
    return error_of(bytes);
  };
  const auto seal = [](FileHeader& h) {
    h.checksum = XXH64(&h, offsetof(FileHeader, checksum), 0);
  };
  EXPECT_EQ(with([](FileHeader& h) { h.byte_order = __builtin_bswap32(h.byte_order); }),
            "t.tct was written in big-endian byte order: traces are little-endian");
  EXPECT_EQ(with([](FileHeader& h) { h.version = 2; }),
            "t.tct is of trace format 2, and this thermocline reads format 1: use a newer one");
  EXPECT_EQ(with([](FileHeader& h) { h.magic[4] = '\n'; }),
            "t.tct was damaged by a transfer that rewrote its line ends: copy it again, as binary");
  EXPECT_EQ(with([](FileHeader& h) { h.created_ns = 1; }), "t.tct has a damaged header");
  EXPECT_EQ(with([&](FileHeader& h) {
              h.record_version = 9;
              seal(h);
            }),
            "t.tct holds access records of version 9, and this thermocline reads version 1");
  EXPECT_EQ(error_of({std::byte{'{'}, std::byte{'}'}, std::byte{'\n'}, std::byte{'\n'}}),
            "t.tct is no trace: it begins with something else");
}

/// A frame whose head claims what it likes, with a good checksum.
void append_frame(std::vector<std::byte>& bytes, FrameHead head,
                  std::span<const std::byte> stored) {
  head.magic = kFrameMagic;
  head.head_size = sizeof(head);
  head.stored_size = static_cast<std::uint32_t>(stored.size());
  head.checksum = frame_checksum(head, stored);
  const auto raw = std::as_bytes(std::span(&head, 1));
  bytes.insert(bytes.end(), raw.begin(), raw.end());
  bytes.insert(bytes.end(), stored.begin(), stored.end());
}

TEST_F(Trace, AHostileFrameIsRefusedBeforeMemoryIsTaken) {
  write_four(false);
  auto bytes = content();
  FrameHead head{};
  head.kind = static_cast<std::uint16_t>(FrameKind::kRecords);
  head.content_size = 0xffffffff;
  append_frame(bytes, head, std::vector<std::byte>(10));
  bytes.resize(bytes.size() + 100, std::byte{1});
  EXPECT_THAT(error_of(bytes), HasSubstr("larger than a frame may be"));

  bytes = content();
  head.content_size = 100;
  append_frame(bytes, head, std::vector<std::byte>(50, std::byte{3}));
  const auto again = bytes;
  append_frame(bytes, head, std::vector<std::byte>(50, std::byte{3}));
  const auto r = TraceReader::open(memory_input(bytes), "t.tct");
  ASSERT_TRUE(r);
  const auto piece = (*r)->piece(4);
  ASSERT_FALSE(piece);
  EXPECT_THAT(piece.error().message, HasSubstr("can't be decompressed"));
}

TEST_F(Trace, FramesOfAKindThatIsNotKnownArePassedOver) {
  write_four(false);
  auto bytes = content();
  FrameHead head{};
  head.kind = 77;
  head.content_size = 3;
  append_frame(bytes, head, std::vector<std::byte>(3));
  const std::vector<std::byte> tail(bytes.end() - 51, bytes.end());
  bytes.insert(bytes.end(), tail.begin(), tail.end());
  const auto r = TraceReader::open(memory_input(bytes), "t.tct");
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ((*r)->pieces(), 4u);
}

TEST_F(Trace, InfoIsUntrusted) {
  TraceInfo info;
  EXPECT_TRUE(add_info(R"({"something":1})", info));
  for (
      const char* bad :
      {"", "[", "{\"session\":3}", R"({"process":{"asid":-1}})", R"({"process":{}})",
       R"({"process":{"asid":1,"mappings":[{"first_page":9,"pages":0}]}})",
       R"({"process":{"asid":1,"mappings":[{"first_page":9,"pages":2},{"first_page":10,"pages":2}]}})",
       R"({"process":{"asid":1,"mappings":[{"first_page":1,"pages":99999999999999999}]}})",
       R"({"end":{"reason":7}})"})
    EXPECT_FALSE(add_info(bad, info)) << bad;
}

TEST_F(Trace, AFullDiskKeepsWhatWasWritten) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto w = writer({.frame = Bytes(8192)});
  w->append(pass(1));
  w->flush();
  while (w->check() && w->size().get() == 0) {
  }
  const auto limit = w->size().get() + 300;
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = limit;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  w->append(pass(2));
  const Status done = w->finish();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("what was written before is kept"));
  EXPECT_EQ(all_records(*reader()), pass(1));
  EXPECT_EQ(reader()->torn_bytes(), 0u);
}

TEST_F(Trace, ABacklogThatIsTooLongLosesRecordsAndCountsThem) {
  const auto w = writer({.frame = Bytes(8192), .backlog = Bytes(0), .use_io_uring = true});
  if (w->io_name() != "io_uring") GTEST_SKIP() << "no io_uring here";
  std::uint64_t made = 0;
  for (std::uint64_t n = 1; n <= 50; ++n) {
    w->append(pass(n));
    made += 40;
  }
  ASSERT_TRUE(w->finish());
  std::uint64_t kept = 0;
  const auto r = reader();
  for (const FramePlace& frame : r->frames()) kept += frame.records;
  EXPECT_EQ(kept + w->lost_records(), made);
}

TEST_F(Trace, IsTheSameSourceAsPlainRecords) {
  write_four();
  const auto trace = open_recording(path_);
  ASSERT_TRUE(trace) << trace.error().message;
  std::vector<std::size_t> numbers;
  ASSERT_TRUE(for_each_record(*trace->source, [&](const RecordView&, const RecordPlace& place) {
    numbers.push_back(place.pass);
  }));
  ASSERT_EQ(numbers.size(), 160u);
  EXPECT_EQ(numbers.back(), 3u);
  put(passes(1, 4));
  const auto plain = open_recording(path_);
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_EQ(*plain->source->piece(0)->data(), *passes(1, 4).data());
  EXPECT_FALSE(open_recording("/dev/zero"));
  EXPECT_EQ(open_recording("/no/such").error().kind, ErrorKind::kNotFound);
}

}  // namespace
}  // namespace thermocline::trace
