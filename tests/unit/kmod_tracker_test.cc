// SPDX-License-Identifier: Apache-2.0
// The tracker of thermocline.ko against a scripted module: what it asks for, and what it makes of
// each answer.
#include "tracking/kmod_tracker.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>
#include <deque>

#include "fake_ring.h"
#include "tracking/record.h"
#include "tracking/rounds.h"
#include "uapi/thermocline.h"

namespace thermocline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// What the module answers to one SCAN.
struct Answer {
  int rc = 0;
  std::uint64_t bytes = 0, resume_page = 0;
};

class ScriptedModule : public System {
 public:
  Result<std::string> read_file(const std::string& p) const override { return none(p); }
  Result<std::vector<std::string>> list_dir(const std::string& p) const override { return none(p); }
  bool exists(const std::string&) const override { return false; }
  Result<std::string> read_link_name(const std::string& p) const override { return none(p); }
  Nanoseconds now() const override { return {}; }
  Nanoseconds process_cpu_time() const override { return {}; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -ENOSYS;
  }
  Result<UniqueFd> pidfd_open(Pid) override { return none("pidfd"); }
  bool pidfd_exited(int) const override { return false; }

  Result<UniqueFd> open_device(const std::string& path, int) override {
    if (open_error != 0) return fail_errno(open_error, path);
    return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
  }
  int ioctl(int, unsigned long request, void* argument) override {
    if (request == THERMOCLINE_IOC_INFO) {
      *static_cast<thermocline_info*>(argument) = info;
      return 0;
    }
    if (request == THERMOCLINE_IOC_ATTACH) {
      attached = *static_cast<thermocline_attach*>(argument);
      return attach_rc;
    }
    if (request == THERMOCLINE_IOC_STATS) return -ENOTTY;
    auto& scan = *static_cast<thermocline_scan*>(argument);
    scans.push_back(scan);
    if (answers.empty()) return -EIO;
    const Answer answer = answers.front();
    answers.pop_front();
    if (answer.rc != 0) return answer.rc;  // as the module: nothing is written back
    std::memset(reinterpret_cast<void*>(scan.buffer), 'a' + static_cast<int>(scans.size()),
                answer.bytes);
    scan.bytes = answer.bytes;
    scan.records = 1;
    scan.entries = 512;
    scan.accessed = 7;
    scan.skipped_pages = 3;
    scan.elapsed_ns = 1000;
    scan.max_lock_ns = 100 * scans.size();
    scan.resume_page = answer.resume_page;
    return 0;
  }

  int open_error = 0, attach_rc = 0;
  thermocline_info info = [] {
    thermocline_info i{};
    i.abi_version = THERMOCLINE_ABI_VERSION;
    i.record_version = THERMOCLINE_RECORD_VERSION;
    i.features = THERMOCLINE_FEATURE_SCAN | THERMOCLINE_FEATURE_FLUSH;
    return i;
  }();
  thermocline_attach attached{};
  std::deque<Answer> answers;
  std::vector<thermocline_scan> scans;

 private:
  static tl::unexpected<Error> none(const std::string& what) {
    return fail(ErrorKind::kNotFound, "no {}", what);
  }
};

class KmodTrackerTest : public testing::Test {
 protected:
  std::unique_ptr<Tracker> make(const TrackerOptions& options = {}) {
    auto tracker = kmod_tracker_factory().make(module_, options);
    EXPECT_TRUE(tracker->get()->attach(process_));
    return std::move(*tracker);
  }
  Result<ScanStats> scan(Tracker& tracker, const ScanRequest& request) {
    return tracker.scan(request, [this](std::span<const std::byte> bytes) {
      received_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    });
  }
  ScanRequest whole() const {
    ScanRequest request;
    request.asid = process_.asid;
    return request;
  }
  ScriptedModule module_;
  ProcessIdentity process_{Pid(42), 4711, Asid(9), "redis-server"};
  std::string received_;
};

TEST_F(KmodTrackerTest, AttachesToTheProcessAndItsStartTime) {
  (void)make();
  EXPECT_EQ(module_.attached.pid, 42);
  EXPECT_EQ(module_.attached.start_ticks, 4711u);
  EXPECT_EQ(module_.attached.asid, 9u);
}

TEST_F(KmodTrackerTest, AsksAgainUntilThePassIsComplete) {
  const auto tracker = make();
  module_.answers = {{0, 3, 1000}, {0, 0, 2000}, {0, 2, 0}};
  const auto stats = scan(*tracker, whole());
  ASSERT_TRUE(stats) << stats.error().message;
  ASSERT_EQ(module_.scans.size(), 3u);
  EXPECT_EQ(module_.scans[0].resume_page, 0u);
  EXPECT_EQ(module_.scans[1].resume_page, 1000u);
  EXPECT_EQ(module_.scans[2].resume_page, 2000u);
  EXPECT_EQ(received_, "bbbdd") << "each buffer once, in order, nothing of the empty one";
  EXPECT_EQ(stats->records, 3u);
  EXPECT_EQ(stats->entries, 3 * 512u);
  EXPECT_EQ(stats->accessed, 21u);
  EXPECT_EQ(stats->bytes, 5u);
  EXPECT_EQ(stats->skipped, PageCount(9));
  EXPECT_EQ(stats->elapsed, Nanoseconds(3000));
  EXPECT_EQ(stats->longest_lock, Nanoseconds(300));
}

/// The module writes nothing back with an error: what is in the request then is the call before.
TEST_F(KmodTrackerTest, AnInterruptedScanIsAnErrorNotAnEmptyPass) {
  const auto tracker = make();
  module_.answers = {{-EINTR, 0, 0}};
  EXPECT_FALSE(scan(*tracker, whole()));
  EXPECT_EQ(received_, "");

  module_.answers = {{0, 3, 1000}, {-EINTR, 0, 0}};
  EXPECT_FALSE(scan(*tracker, whole()));
  EXPECT_EQ(received_.size(), 3u) << "what was whole before is handed on, once";
  EXPECT_EQ(module_.scans.size(), 3u) << "nobody asks again";
}

TEST_F(KmodTrackerTest, AnAddressSpaceThatIsGoneIsNotFound) {
  const auto tracker = make();
  module_.answers = {{0, 3, 1000}, {-ESRCH, 0, 0}};
  const auto stats = scan(*tracker, whole());
  ASSERT_FALSE(stats);
  EXPECT_EQ(stats.error().kind, ErrorKind::kNotFound);
  tracker->detach(process_.asid);
  const auto detached = scan(*tracker, whole());
  ASSERT_FALSE(detached);
  EXPECT_EQ(detached.error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(module_.scans.size(), 2u);
}

TEST_F(KmodTrackerTest, PassesOnRangesFlagsAndWindow) {
  TrackerOptions options;
  options.flush = TrackerOptions::Flush::kOn;
  const auto tracker = make(options);
  const std::vector<ScanRange> ranges{{Vpn(10), PageCount(5)}, {Vpn(100), PageCount(1)}};
  ScanRequest request = whole();
  request.ranges = ranges;
  request.epoch = Epoch(12);
  request.window = Nanoseconds(34);
  module_.answers = {{0, 0, 0}, {0, 0, 0}};
  ASSERT_TRUE(scan(*tracker, request));
  const thermocline_scan& asked = module_.scans.front();
  EXPECT_EQ(asked.flags, THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH);
  EXPECT_EQ(asked.range_count, 2u);
  EXPECT_EQ(asked.epoch, 12u);
  EXPECT_EQ(asked.window_ns, 34u);
  EXPECT_GE(asked.buffer_size, THERMOCLINE_SCAN_MIN_BUFFER);
  request.clear = false;
  ASSERT_TRUE(scan(*tracker, request));
  EXPECT_EQ(module_.scans.back().flags, 0u) << "a flush without clearing is refused";
}

TEST_F(KmodTrackerTest, AModuleThatCannotBeUsedIsSaidToBe) {
  const TrackerFactory factory = kmod_tracker_factory();
  EXPECT_TRUE(factory.probe(module_, {}));
  const auto refusal = [&] {
    const Status status = factory.probe(module_, {});
    return status ? std::string("it works") : status.error().message;
  };
  module_.info.abi_version = THERMOCLINE_ABI_VERSION + 1;
  EXPECT_THAT(refusal(), HasSubstr("interface"));
  module_.info.abi_version = THERMOCLINE_ABI_VERSION;
  module_.info.features = 0;
  EXPECT_THAT(refusal(), HasSubstr("can't scan"));
  module_.open_error = ENOENT;
  EXPECT_THAT(refusal(), HasSubstr("insmod"));
  module_.open_error = EACCES;
  EXPECT_THAT(refusal(), HasSubstr("root"));
}

/// One that scans by itself: its device can be polled, and each START makes a ring.
class ContinuousModule : public ScriptedModule {
 public:
  ContinuousModule() {
    info.features |= THERMOCLINE_FEATURE_CONTINUOUS | THERMOCLINE_FEATURE_PRUNE;
  }
  Result<std::string> read_file(const std::string& p) const override {
    if (p == "/proc/42/statm") return fmt::format("999999 {} 3 4 5 6 7\n", resident_pages);
    return ScriptedModule::read_file(p);
  }
  Result<UniqueFd> open_device(const std::string&, int) override {
    device = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return UniqueFd(device);
  }
  int ioctl(int fd, unsigned long request, void* argument) override {
    switch (request) {
      case THERMOCLINE_IOC_START: {
        auto& start = *static_cast<thermocline_start*>(argument);
        schedules.push_back(start.schedule);
        if (round_rc != 0) return round_rc;
        if (start.ring_bytes > room) return -ENOMEM;
        ++starts;
        FakeRing made(start.ring_bytes);
        ring_bytes = start.ring_bytes;
        next_ring = made.release();
        start.map_bytes = next_ring.size();
        return 0;
      }
      case THERMOCLINE_IOC_CONFIGURE:
        schedules.push_back(*static_cast<thermocline_schedule*>(argument));
        return round_rc;
      case THERMOCLINE_IOC_STOP:
        ++stops;
        return 0;
      case THERMOCLINE_IOC_STATS:
        *static_cast<thermocline_stats*>(argument) = {};
        static_cast<thermocline_stats*>(argument)->cpu_ns = cpu_ns;
        static_cast<thermocline_stats*>(argument)->holds[12] = holds;
        return 0;
      default:
        return ScriptedModule::ioctl(fd, request, argument);
    }
  }
  Result<SharedMapping> map_device(int, std::size_t bytes) override {
    EXPECT_EQ(bytes, next_ring.size());
    if (no_mapping) return fail(ErrorKind::kFailure, "can't be mapped");
    ring = next_ring;
    return SharedMapping(ring);
  }
  /// Publishes, and wakes who polls.
  void publish(std::span<const std::byte> bytes) {
    produce(ring, bytes);
    ASSERT_EQ(::eventfd_write(device, 1), 0);
  }
  void publish(const thermocline_mark& mark) { publish(std::as_bytes(std::span(&mark, 1))); }

  std::uint64_t resident_pages = 1, ring_bytes = 0, cpu_ns = 0, holds = 0;
  std::uint64_t room = ~std::uint64_t{0};  ///< the largest ring that there is memory for
  std::vector<thermocline_schedule> schedules;
  int starts = 0, stops = 0, round_rc = 0, device = -1;
  bool no_mapping = false;
  std::span<std::byte> ring, next_ring;
};

class KmodRoundsTest : public testing::Test, protected RoundSink {
 protected:
  void make(const TrackerOptions& options = {}) {
    auto tracker = kmod_tracker_factory().make(module_, options);
    ASSERT_TRUE(tracker);
    tracker_ = std::move(*tracker);
    ASSERT_TRUE(tracker_->attach({Pid(42), 4711, Asid(9), "redis-server"}));
  }
  RoundSource& rounds() { return *tracker_->rounds(); }
  static RoundRequest request(std::uint64_t epoch = 5) {
    RoundRequest r;
    r.asid = Asid(9);
    r.epoch = Epoch(epoch);
    r.windows = 3;
    r.window = Nanoseconds(2'000'000);
    r.cpu_share = 0.03;
    r.cpu_burst = Nanoseconds(7000);
    return r;
  }
  void on_records(Asid asid, std::span<const std::byte> bytes) override {
    EXPECT_EQ(asid, Asid(9));
    RecordReader reader(bytes);
    while (const auto record = reader.next()) sequences_.push_back(record->sequence);
    EXPECT_FALSE(reader.error());
  }
  void on_pass(Asid, const RoundPass& pass) override { passes_.push_back(pass); }
  void on_gone(Asid, const Error& why) override { gone_.push_back(why.kind); }

  ContinuousModule module_;
  std::unique_ptr<Tracker> tracker_;
  std::vector<std::uint64_t> sequences_;
  std::vector<RoundPass> passes_;
  std::vector<ErrorKind> gone_;
};

TEST_F(KmodRoundsTest, AThreadWhoseRingCanNotBeMappedIsStopped) {
  make();
  module_.no_mapping = true;
  EXPECT_FALSE(rounds().begin_round(request()));
  EXPECT_EQ(module_.stops, 1);
  module_.no_mapping = false;
  EXPECT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.starts, 2);
}

TEST_F(KmodRoundsTest, OnlyWhereTheModuleCanAndTheUserWants) {
  make();
  EXPECT_NE(tracker_->rounds(), nullptr);
  TrackerOptions options;
  options.continuous = false;
  make(options);
  EXPECT_EQ(tracker_->rounds(), nullptr);
  module_.info.features = THERMOCLINE_FEATURE_SCAN;
  make();
  EXPECT_EQ(tracker_->rounds(), nullptr);
}

TEST_F(KmodRoundsTest, TheScheduleIsWhatWasAskedFor) {
  make();
  ASSERT_TRUE(rounds().begin_round(request()));
  ASSERT_TRUE(rounds().begin_round(request(6)));
  EXPECT_EQ(module_.starts, 1) << "the second round is another schedule for the same thread";
  ASSERT_EQ(module_.schedules.size(), 2u);
  const thermocline_schedule& s = module_.schedules.front();
  EXPECT_EQ(s.flags, THERMOCLINE_SCHEDULE_ROUND | THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH |
                         THERMOCLINE_SCAN_PRUNE);
  EXPECT_EQ(s.windows, 3u);
  EXPECT_EQ(s.window_ns, 2'000'000u);
  EXPECT_EQ(s.period_ns, 0u);
  EXPECT_EQ(s.epoch, 5u);
  EXPECT_EQ(s.budget_ppm, 30'000u);
  EXPECT_EQ(s.burst_ns, 7000u);
  EXPECT_EQ(module_.schedules.back().epoch, 6u);
}

TEST_F(KmodRoundsTest, PrunesOnlyWhereTheModuleCanAndTheUserWants) {
  TrackerOptions options;
  options.prune = false;
  make(options);
  ASSERT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.schedules.back().flags,
            THERMOCLINE_SCHEDULE_ROUND | THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH);
  module_.info.features &= ~THERMOCLINE_FEATURE_PRUNE;
  make();
  ASSERT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.schedules.back().flags & THERMOCLINE_SCAN_PRUNE, 0u);
}

TEST_F(KmodRoundsTest, TheFirstPassPrunesWhereThatMissesNothing) {
  using Flush = TrackerOptions::Flush;
  const auto prunes_first = [&](bool whole, Flush flush = Flush::kAuto) {
    TrackerOptions options;
    options.flush = flush;
    make(options);
    RoundRequest asked = request();
    asked.whole = whole;
    EXPECT_TRUE(rounds().begin_round(asked));
    return (module_.schedules.back().flags & THERMOCLINE_SCHEDULE_PRUNE_FIRST) != 0;
  };
  EXPECT_FALSE(prunes_first(false)) << "an older module";
  module_.info.features |= THERMOCLINE_FEATURE_PRUNE_FIRST;
  EXPECT_TRUE(prunes_first(false));
  EXPECT_FALSE(prunes_first(true));
  EXPECT_FALSE(prunes_first(false, Flush::kOff)) << "cached upper-level entries hide touches";
}

TEST_F(KmodRoundsTest, FlushesUnlessToldNotToOrNotAble) {
  using Flush = TrackerOptions::Flush;
  const auto flushes = [&](Flush flush) {
    TrackerOptions options;
    options.flush = flush;
    make(options);
    EXPECT_TRUE(rounds().begin_round(request()));
    return (module_.schedules.back().flags & THERMOCLINE_SCAN_FLUSH) != 0;
  };
  EXPECT_TRUE(flushes(Flush::kAuto));
  EXPECT_TRUE(flushes(Flush::kOn));
  EXPECT_FALSE(flushes(Flush::kOff));
  module_.info.features &= ~THERMOCLINE_FEATURE_FLUSH;
  EXPECT_FALSE(flushes(Flush::kAuto));
  TrackerOptions options;
  options.flush = Flush::kOn;
  const auto refused = kmod_tracker_factory().make(module_, options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("tracker.flush"));
}

TEST_F(KmodRoundsTest, AsksForSharedPagesOnlyWhereTheModuleTellsThem) {
  make();
  RoundRequest shared = request();
  shared.shared = true;
  ASSERT_TRUE(rounds().begin_round(shared));
  EXPECT_EQ(module_.schedules.back().flags & THERMOCLINE_SCAN_SHARED, 0u) << "an older module";
  module_.info.features |= THERMOCLINE_FEATURE_SHARED;
  make();
  ASSERT_TRUE(rounds().begin_round(shared));
  EXPECT_NE(module_.schedules.back().flags & THERMOCLINE_SCAN_SHARED, 0u);
  ASSERT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.schedules.back().flags & THERMOCLINE_SCAN_SHARED, 0u);
}

TEST_F(KmodRoundsTest, HandsOnRecordsPassesAndTheThreadsTime) {
  make();
  rounds().drain(*this);
  ASSERT_TRUE(rounds().begin_round(request()));
  module_.publish(record_of(Asid(9), 0));
  module_.publish(record_of(Asid(9), 1));
  thermocline_mark mark = mark_of(0, 1);
  mark.epoch = 5;
  mark.entries = 1024;
  mark.max_lock_ns = 77;
  module_.publish(mark);
  rounds().drain(*this);
  EXPECT_THAT(sequences_, ElementsAre(0, 1));
  ASSERT_EQ(passes_.size(), 1u);
  EXPECT_EQ(passes_[0].epoch, Epoch(5));
  EXPECT_EQ(passes_[0].stats.entries, 1024u);
  EXPECT_EQ(passes_[0].stats.longest_lock, Nanoseconds(77));
  EXPECT_EQ(passes_[0].cpu, Nanoseconds(0)) << "told with the last pass of a round";
  module_.cpu_ns = 1000;
  module_.holds = 7;
  module_.publish(mark_of(1, 1));
  rounds().drain(*this);
  module_.cpu_ns = 1500;
  module_.holds = 9;
  module_.publish(mark_of(1, 1));
  rounds().drain(*this);
  ASSERT_EQ(passes_.size(), 3u);
  EXPECT_EQ(passes_[1].cpu, Nanoseconds(1000));
  EXPECT_EQ(passes_[2].cpu, Nanoseconds(500)) << "what came to it since";
  EXPECT_EQ(passes_[0].stats.lock_holds[12], 0u);
  EXPECT_EQ(passes_[1].stats.lock_holds[12], 7u);
  EXPECT_EQ(passes_[2].stats.lock_holds[12], 2u);
  EXPECT_TRUE(gone_.empty());
}

TEST_F(KmodRoundsTest, ARingThatLostRecordsIsReplacedByALargerOne) {
  make();
  ASSERT_TRUE(rounds().begin_round(request()));
  const std::uint64_t before = module_.ring_bytes;
  thermocline_mark mark = mark_of(1, 3);
  mark.dropped_records = 2;
  module_.publish(mark);
  rounds().drain(*this);
  ASSERT_EQ(passes_.size(), 1u);
  EXPECT_EQ(passes_[0].lost_records, 2u);
  ASSERT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.stops, 1);
  EXPECT_EQ(module_.ring_bytes, 2 * before);
  ASSERT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.starts, 2) << "the new one lost nothing";
  module_.publish(record_of(Asid(9), 8));
  rounds().drain(*this);
  EXPECT_THAT(sequences_, ElementsAre(8)) << "and is the one that is read";
}

TEST_F(KmodRoundsTest, TheRingGrowsWithTheProcess) {
  make();
  ASSERT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.ring_bytes, THERMOCLINE_RING_MIN_BYTES);
  module_.resident_pages = 256 * 1024;  // 1 GiB: 512 tables, 4 passes, 1 KiB each
  ASSERT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.ring_bytes, 4u << 20);
  module_.resident_pages = 1;
  ASSERT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.starts, 2) << "a smaller process keeps it";
  module_.resident_pages = ~std::uint64_t{0};
  ASSERT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.ring_bytes, 16u << 20) << "there is a largest";
}

TEST_F(KmodRoundsTest, WithoutMemoryForALargerRingTheRoundsGoOnWithTheOldSize) {
  make();
  module_.resident_pages = 64 * 1024;  // 256 MiB: 1 MiB of ring
  ASSERT_TRUE(rounds().begin_round(request()));
  const std::uint64_t before = module_.ring_bytes;
  module_.room = before;
  module_.resident_pages = 512 * 1024;  // 2 GiB
  ASSERT_TRUE(rounds().begin_round(request())) << "no reason to lose the target";
  EXPECT_EQ(module_.ring_bytes, before);
  module_.publish(record_of(Asid(9), 8));
  rounds().drain(*this);
  EXPECT_THAT(sequences_, ElementsAre(8)) << "the ring that there is is read";

  const int starts = module_.starts;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.starts, starts) << "not tried over and over";
  module_.room = ~std::uint64_t{0};
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(rounds().begin_round(request()));
  EXPECT_EQ(module_.ring_bytes, 8u << 20) << "but once more after a while";

  module_.room = 0;
  make();
  const Status none = rounds().begin_round(request());
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, HasSubstr("can't start"));
}

TEST_F(KmodRoundsTest, AnAddressSpaceThatIsGoneIsNotFoundAndABrokenRingIsTold) {
  make();
  ASSERT_TRUE(rounds().begin_round(request()));
  const std::vector<std::uint64_t> rubbish(8, 0x1234567);
  module_.publish(std::as_bytes(std::span(rubbish)));
  rounds().drain(*this);
  EXPECT_THAT(gone_, ElementsAre(ErrorKind::kCorrupt));
  module_.round_rc = -ESRCH;
  const Status gone = rounds().begin_round(request());
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().kind, ErrorKind::kNotFound);
  tracker_->detach(Asid(9));
  const Status detached = rounds().begin_round(request());
  ASSERT_FALSE(detached);
  EXPECT_EQ(detached.error().kind, ErrorKind::kNotFound);
  rounds().drain(*this);
  EXPECT_EQ(gone_.size(), 1u);
}

}  // namespace
}  // namespace thermocline
