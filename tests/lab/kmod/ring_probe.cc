// SPDX-License-Identifier: Apache-2.0
// The part of kmod_probe that is about continuous mode: the thread, its ring, poll, and what
// happens to them when everybody misbehaves.
#include <liburing.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>

#include "probe.h"

namespace thermocline::labtest {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kLong = 60000;  ///< ms in which a thing happens even on a slow, emulated machine

bool eventually(const std::function<bool()>& what) {
  const auto end = Clock::now() + std::chrono::milliseconds(kLong);
  while (!what()) {
    if (Clock::now() > end) return false;
    usleep(2000);
  }
  return true;
}

bool thread_exists(int tid) {
  return access(("/proc/" + std::to_string(tid)).c_str(), F_OK) == 0;
}

/// CPU time of a task by the scheduler's own count, nanoseconds.
std::uint64_t cpu_ns(int tid) {
  std::ifstream file("/proc/" + std::to_string(tid) + "/schedstat");
  std::uint64_t ns = 0;
  file >> ns;
  return ns;
}

class KmodRing : public Kmod {
 protected:
  /// Attaches to this process, starts, maps.
  void begin(thermocline_start start, const std::vector<Range>& ranges) {
    if (!attached_) {
      ASSERT_NO_FATAL_FAILURE(attach_to_self());
    }
    attached_ = true;
    ranges_.clear();
    for (const Range& r : ranges) ranges_.push_back({r.first, r.count});
    start.schedule.range_count = static_cast<std::uint32_t>(ranges_.size());
    start.schedule.ranges = reinterpret_cast<std::uintptr_t>(ranges_.data());
    ASSERT_EQ(device_.start(start), 0);
    schedule_ = start.schedule;
    ring_ = std::make_unique<Ring>(device_, start.map_bytes);
    ASSERT_TRUE(ring_->mapped()) << std::strerror(ring_->error());
  }
  /// A round, and its passes.
  std::vector<RingPass> round() {
    std::vector<RingPass> passes;
    EXPECT_EQ(device_.round(schedule_), 0);
    EXPECT_EQ(device_.poll(kLong), POLLIN);
    EXPECT_TRUE(ring_->take(passes)) << ring_->malformed();
    return passes;
  }

  thermocline_schedule schedule_{};
  std::vector<thermocline_range> ranges_;
  std::unique_ptr<Ring> ring_;
  bool attached_ = false;
};

std::set<std::uint64_t> accessed(const RingPass& pass, const Region& region) {
  std::set<std::uint64_t> chosen;
  for (const auto& [first, page] : pass.pages)
    if (page.accessed) chosen.insert(first - region.first());
  return chosen;
}

// ------------------------------------------------------------------ what it tells

TEST_F(KmodRing, SaysTheSameAsAScan) {
  const Region region(16 << 20);
  const Region huge(8 << 20, MADV_HUGEPAGE);
  region.write_all();
  huge.write_all();
  std::vector<Range> ranges = region.range();
  ranges.push_back(huge.range()[0]);
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.first < b.first; });
  begin(valid_start(), ranges);
  const Device other;
  ASSERT_EQ(other.attach(getpid()), 0);
  std::uint64_t sequence = 0;
  for (unsigned n = 0; n < 10; ++n) {
    for (const std::uint64_t i : random_pages(1 + n * 100, region.pages(), n))
      n % 2 ? region.write(i) : region.read(i);
    if (n % 3 == 0) madvise(region.page(n * 64), 16 * kPage, MADV_DONTNEED);
    const Pass scanned = other.scan(0, ranges);
    expect_good(scanned);
    const auto passes = round();
    ASSERT_EQ(passes.size(), 1u);
    const RingPass& pass = passes[0];
    EXPECT_EQ(pass.pages, scanned.pages) << "round " << n;
    EXPECT_GE(pass.records, 5u);  // not as many as the scan: letting the lock go parts a record
    EXPECT_EQ(pass.missing, 0u);
    EXPECT_EQ(pass.mark.records, pass.records);
    EXPECT_EQ(pass.mark.dropped_records, 0u);
    EXPECT_EQ(pass.mark.entries, scanned.entries);
    EXPECT_EQ(pass.mark.accessed, scanned.accessed);
    EXPECT_EQ(pass.mark.skipped_pages, scanned.skipped);
    EXPECT_EQ(pass.mark.asid, 1u);
    EXPECT_EQ(pass.mark.epoch, 1u) << "each schedule says which epoch is next";
    EXPECT_EQ(pass.mark.pass, 0u);
    EXPECT_EQ(pass.mark.flags, THERMOCLINE_RECORD_CLEARED);
    sequence += pass.records;
    EXPECT_EQ(pass.mark.sequence, sequence);
    EXPECT_EQ(other.scan(0, ranges).accessed, 0u) << "cleared";
  }
  const thermocline_stats stats = device_.stats();
  EXPECT_EQ(stats.rounds, 10u);
  EXPECT_EQ(stats.passes, 10u);
  EXPECT_EQ(stats.records, sequence);
  EXPECT_EQ(stats.dropped_records, 0u);
  EXPECT_EQ(stats.bad_positions, 0u);
  EXPECT_EQ(ring_->header()->rounds, 10u);
  std::uint64_t holds = 0;
  for (const std::uint64_t n : stats.holds) holds += n;
  EXPECT_EQ(holds, stats.passes + stats.lock_drops);
  EXPECT_GT(stats.cpu_ns, 0u);
  EXPECT_GT(stats.max_lock_ns, 0u);
}

TEST_F(KmodRing, AWholeOtherProcess) {
  const Child child([] {
    void* p = mmap(nullptr, 8 << 20, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED) _exit(1);
  });
  const Device other;
  ASSERT_EQ(other.attach(child.pid()), 0);
  ASSERT_EQ(device_.attach(child.pid(), 7), 0);
  thermocline_start start = valid_start();
  ASSERT_EQ(device_.start(start), 0);
  Ring ring(device_, start.map_bytes);
  ASSERT_TRUE(ring.mapped());
  const Pass scanned = other.scan(0);
  expect_good(scanned);
  std::vector<RingPass> passes;
  ASSERT_EQ(device_.round(start.schedule), 0);
  ASSERT_EQ(device_.poll(kLong), POLLIN);
  ASSERT_TRUE(ring.take(passes)) << ring.malformed();
  ASSERT_EQ(passes.size(), 1u);
  EXPECT_EQ(passes[0].pages, scanned.pages);
  EXPECT_GT(passes[0].pages.size(), 100u);
  EXPECT_EQ(passes[0].mark.asid, 7u);
}

TEST_F(KmodRing, WindowsOfARound) {
  const Region region(8 << 20);
  region.write_all();
  thermocline_start start = valid_start();
  start.schedule.windows = 3;
  start.schedule.window_ns = 300'000'000;
  start.schedule.epoch = 41;
  begin(start, region.range());
  ring_->header()->doorbell = 1;  // wake at every pass
  ASSERT_EQ(device_.round(schedule_), 0);
  std::vector<RingPass> passes;
  std::set<std::uint64_t> touched;
  for (std::size_t pass = 0; pass <= 3; ++pass) {
    ASSERT_TRUE(eventually([&] {
      EXPECT_TRUE(ring_->take(passes)) << ring_->malformed();
      return passes.size() > pass;
    }));
    ASSERT_EQ(passes.size(), pass + 1) << "this machine is too slow for this test";
    const thermocline_mark& mark = passes[pass].mark;
    EXPECT_EQ(mark.pass, pass);
    EXPECT_EQ(mark.windows, 3u);
    EXPECT_EQ(mark.epoch, 41u);
    if (pass > 0) {
      EXPECT_EQ(accessed(passes[pass], region), touched) << "pass " << pass;
      EXPECT_GE(mark.window_ns, schedule_.window_ns);
      EXPECT_NEAR(static_cast<double>(mark.window_ns),
                  static_cast<double>(mark.began_ns - passes[pass - 1].mark.began_ns), 5e6)
          << "from the begin of one clearing pass to that of the next";
    } else {
      EXPECT_EQ(accessed(passes[pass], region).size(), region.pages());
      EXPECT_EQ(mark.window_ns, 0u);
    }
    touched = random_pages(50 * (pass + 1), region.pages(), static_cast<unsigned>(pass));
    for (const std::uint64_t i : touched) region.read(i);
  }
}

/// As the daemon asks for them: all flags, and idle memory is read in some rounds only.
TEST_F(KmodRing, RoundsReadWhatIsInUse) {
  thermocline_info info{};
  ASSERT_EQ(device_.control(THERMOCLINE_IOC_INFO, &info), 0);
  ASSERT_NE(info.features & THERMOCLINE_FEATURE_PRUNE_FIRST, 0u);
  const Region region(64 << 20);
  region.write_all();
  thermocline_start start = valid_start();
  start.schedule.flags = THERMOCLINE_SCAN_FLAGS_ALL;
  begin(start, region.range());
  const auto pass = [&](bool prune_first) {
    schedule_.flags =
        THERMOCLINE_SCAN_FLAGS_ALL | (prune_first ? THERMOCLINE_SCHEDULE_PRUNE_FIRST : 0u);
    std::vector<RingPass> passes = round();
    EXPECT_EQ(passes.size(), 1u);
    return passes.empty() ? RingPass{} : std::move(passes[0]);
  };
  EXPECT_EQ(accessed(pass(false), region).size(), region.pages());
  EXPECT_EQ(pass(false).mark.entries, region.pages()) << "told whole again";
  EXPECT_EQ(pass(true).mark.entries, region.pages()) << "nothing known of the upper entries yet";
  std::mt19937_64 random(3);
  for (unsigned n = 0; n < 20; ++n) {
    EXPECT_EQ(pass(true).mark.entries, 0u) << "round " << n;
    std::set<std::uint64_t> touched, blocks;
    for (std::uint64_t count = 1 + random() % 20; count > 0; --count) {
      const std::uint64_t i = random() % region.pages();
      touched.insert(i);
      blocks.insert(i / 512);
      random() % 2 ? region.read(i) : region.write(i);
    }
    const bool whole = n % 4 == 0;
    const RingPass found = pass(!whole);
    EXPECT_EQ(accessed(found, region), touched) << "round " << n;
    EXPECT_EQ(found.mark.entries, whole ? region.pages() : blocks.size() * 512);
    // A block that was in use is read once more before it is left out.
    EXPECT_EQ(pass(true).mark.entries, blocks.size() * 512) << "round " << n;
  }
}

TEST_F(KmodRing, PeriodicRoundsCountTheirEpochs) {
  const Region region(4 << 20);
  region.write_all();
  thermocline_start start = valid_start();
  start.schedule.period_ns = 5'000'000;
  start.schedule.epoch = 100;
  begin(start, region.range());
  std::vector<RingPass> passes;
  ASSERT_TRUE(eventually([&] {
    EXPECT_TRUE(ring_->take(passes)) << ring_->malformed();
    return passes.size() >= 10;
  }));
  for (std::size_t i = 0; i < passes.size(); ++i) {
    EXPECT_EQ(passes[i].mark.epoch, 100 + i);
    EXPECT_EQ(passes[i].pages.size(), region.pages());
    const std::uint64_t due = i > 0 ? passes[i - 1].mark.began_ns + start.schedule.period_ns : 0;
    EXPECT_GE(passes[i].mark.began_ns, due);
  }
  // Another period, other ranges, while it runs.
  thermocline_schedule schedule = schedule_;
  const thermocline_range part{region.first() + 512, 100};
  schedule.ranges = reinterpret_cast<std::uintptr_t>(&part);
  schedule.epoch = 500;
  schedule.period_ns = 7'000'000;
  ASSERT_EQ(device_.control(THERMOCLINE_IOC_CONFIGURE, &schedule), 0);
  ASSERT_TRUE(eventually([&] {
    passes.clear();
    EXPECT_TRUE(ring_->take(passes)) << ring_->malformed();
    return !passes.empty() && passes.back().mark.epoch >= 500;
  }));
  EXPECT_EQ(passes.back().pages.size(), 100u);
  EXPECT_EQ(device_.stop(), 0);
  EXPECT_EQ(device_.stats().state, static_cast<unsigned>(THERMOCLINE_STATE_IDLE));
}

TEST_F(KmodRing, ARequestIsNotLost) {
  const Region region(2 << 20);
  region.write_all();
  begin(valid_start(), region.range());
  // Each schedule takes the place of the one before, but the round it asked for is made.
  for (std::uint64_t i = 1; i <= 20; ++i) {
    ASSERT_EQ(device_.round(schedule_), 0);
    ASSERT_EQ(device_.control(THERMOCLINE_IOC_CONFIGURE, &schedule_), 0);
    ASSERT_TRUE(eventually([&] { return ring_->header()->rounds >= i; })) << i;
  }
}

// ------------------------------------------------------------------ waiting

TEST_F(KmodRing, PollEpollAndIoUringWake) {
  const Region region(4 << 20);
  region.write_all();
  EXPECT_EQ(device_.poll(0), 0) << "nothing before the first START";
  thermocline_start start = valid_start();
  start.schedule.windows = 1;
  start.schedule.window_ns = 50'000'000;
  begin(start, region.range());
  EXPECT_EQ(device_.poll(0), 0) << "nothing before the first round";

  const UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, device_.fd(), &event), 0);
  ASSERT_EQ(epoll_wait(epoll.get(), &event, 1, 0), 0);
  io_uring uring{};
  ASSERT_EQ(io_uring_queue_init(4, &uring, 0), 0);
  const auto arm = [&] {
    io_uring_prep_poll_add(io_uring_get_sqe(&uring), device_.fd(), POLLIN);
    ASSERT_EQ(io_uring_submit(&uring), 1);
  };
  const auto wait_in_epoll = [&] {
    int n = 0;
    do {  // what completes in io_uring interrupts it
      n = epoll_wait(epoll.get(), &event, 1, kLong);
    } while (n < 0 && errno == EINTR);
    return n;
  };
  const auto completed = [&] {
    __kernel_timespec time{kLong / 1000, 0};
    io_uring_cqe* cqe = nullptr;
    if (io_uring_wait_cqe_timeout(&uring, &cqe, &time) != 0) return -1;
    const int result = cqe->res;
    io_uring_cqe_seen(&uring, cqe);
    return result;
  };

  std::vector<RingPass> passes;
  for (int n = 0; n < 5; ++n) {
    arm();
    ASSERT_EQ(device_.round(schedule_), 0);
    EXPECT_EQ(wait_in_epoll(), 1);
    EXPECT_EQ(event.events, static_cast<unsigned>(EPOLLIN));
    EXPECT_EQ(completed(), POLLIN);
    EXPECT_EQ(device_.poll(0), POLLIN) << "level-triggered";
    passes.clear();
    ASSERT_TRUE(ring_->take(passes)) << ring_->malformed();
    EXPECT_EQ(passes.size(), 2u) << "woken at the end of the round, not before";
    EXPECT_EQ(device_.poll(0), 0);
    EXPECT_EQ(epoll_wait(epoll.get(), &event, 1, 0), 0);
  }
  // The doorbell: in the middle of a round.
  ring_->header()->doorbell = 1;
  start.schedule.window_ns = schedule_.window_ns = 2'000'000'000;
  arm();
  ASSERT_EQ(device_.round(schedule_), 0);
  EXPECT_EQ(completed(), POLLIN);
  passes.clear();
  ASSERT_TRUE(ring_->take(passes)) << ring_->malformed();
  EXPECT_LE(passes.size(), 1u);
  io_uring_queue_exit(&uring);
}

TEST_F(KmodRing, TheEndOfTheAddressSpaceHangsUp) {
  for (const bool periodic : {false, true}) {
    const Device device;
    Child child([] {});
    ASSERT_EQ(device.attach(child.pid()), 0);
    thermocline_start start = valid_start();
    start.schedule.period_ns = periodic ? 2'000'000 : 0;
    ASSERT_EQ(device.start(start), 0);
    Ring ring(device, start.map_bytes);
    ASSERT_TRUE(ring.mapped());
    const int tid = device.stats().tid;
    ASSERT_GT(tid, 0);
    io_uring uring{};
    ASSERT_EQ(io_uring_queue_init(4, &uring, 0), 0);
    child.end();
    io_uring_prep_poll_add(io_uring_get_sqe(&uring), device.fd(), POLLPRI);
    io_uring_cqe* cqe = nullptr;
    ASSERT_EQ(io_uring_submit_and_wait(&uring, 1), 1);
    ASSERT_EQ(io_uring_peek_cqe(&uring, &cqe), 0);
    EXPECT_TRUE((cqe->res & POLLHUP) != 0) << cqe->res;
    io_uring_queue_exit(&uring);
    EXPECT_TRUE((device.poll(kLong) & POLLHUP) != 0);
    EXPECT_TRUE(eventually([&] { return !thread_exists(tid); })) << "it ends by itself";
    EXPECT_EQ(device.stats().state, static_cast<unsigned>(THERMOCLINE_STATE_GONE));
    EXPECT_EQ(device.round(start.schedule), ESRCH);
    EXPECT_EQ(device.scan(0).error, ESRCH);
    start.map_bytes = 0;
    EXPECT_EQ(device.start(start), EBUSY);
    EXPECT_EQ(device.stop(), 0);
    EXPECT_EQ(device.stop(), ENOTCONN);
    start.map_bytes = 0;
    EXPECT_EQ(device.start(start), ESRCH);
    EXPECT_EQ(device.scan(0).error, ESRCH);
  }
}

TEST_F(KmodRing, ExecHangsUp) {
  const Child child([] {});
  int go[2];
  ASSERT_EQ(pipe(go), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    char c = 0;
    if (read(go[0], &c, 1) != 1) _exit(3);
    execl("/proc/self/exe", "kmod_probe", "--wait", nullptr);
    _exit(3);
  }
  ASSERT_EQ(device_.attach(pid), 0);
  thermocline_start start = valid_start();
  start.schedule.period_ns = 1'000'000;
  ASSERT_EQ(device_.start(start), 0);
  ASSERT_TRUE(eventually([&] { return device_.stats().rounds > 3; }));
  ASSERT_EQ(write(go[1], "x", 1), 1);
  EXPECT_TRUE(eventually([&] { return (device_.poll(100) & POLLHUP) != 0; }));
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  close(go[0]);
  close(go[1]);
}

// ------------------------------------------------------------------ loss

TEST_F(KmodRing, LossIsCountedAndTheGapsAddUp) {
  const Region region(64 << 20);
  region.write_all();
  for (std::uint64_t i = 0; i < region.pages(); i += 3)
    ASSERT_EQ(madvise(region.page(i), kPage, MADV_DONTNEED), 0);
  thermocline_start start = valid_start();
  start.ring_bytes = THERMOCLINE_RING_MIN_BYTES;
  start.schedule.windows = 3;
  start.schedule.window_ns = 1'000'000;
  begin(start, region.range());
  std::vector<RingPass> passes;
  std::uint64_t rounds = 0;
  for (std::uint64_t overflows = 1; overflows <= 3; ++overflows) {
    // A reader that sleeps, then reads it all.
    while (ring_->header()->overflows < overflows) {
      ASSERT_LT(rounds, 10000u);
      ASSERT_EQ(device_.round(schedule_), 0);
      ++rounds;
      ASSERT_TRUE(eventually([&] { return ring_->header()->rounds >= rounds; }));
    }
    ASSERT_TRUE(ring_->take(passes, false)) << ring_->malformed();
  }
  ASSERT_EQ(device_.round(schedule_), 0);
  ++rounds;
  ASSERT_TRUE(eventually([&] { return ring_->header()->rounds >= rounds; }));
  ASSERT_TRUE(ring_->take(passes, false)) << ring_->malformed();
  std::uint64_t read = 0, missing = 0, dropped = 0;
  for (const RingPass& pass : passes) {
    read += pass.records;
    missing += pass.missing;
    dropped += pass.mark.dropped_records;
    EXPECT_EQ(pass.mark.records, pass.records + pass.missing);
    EXPECT_EQ(pass.mark.dropped_records, pass.missing);
  }
  const thermocline_stats stats = device_.stats();
  EXPECT_EQ(stats.dropped_marks, 0u) << "marks of one round have room of their own";
  EXPECT_EQ(passes.size(), rounds * 4);
  EXPECT_GT(missing, 0u);
  EXPECT_EQ(missing, stats.dropped_records);
  EXPECT_EQ(dropped, stats.dropped_records);
  EXPECT_EQ(ring_->header()->dropped_records, stats.dropped_records);
  EXPECT_EQ(ring_->header()->dropped_bytes, stats.dropped_bytes);
  EXPECT_GE(stats.dropped_bytes, stats.dropped_records * sizeof(thermocline_record));
  EXPECT_EQ(read + missing, stats.records);
  EXPECT_EQ(passes.back().mark.sequence, stats.records);
  EXPECT_GE(stats.overflows, 3u);
}

TEST_F(KmodRing, AReaderThatLivesLaggingSeesEveryGap) {
  const Region region(64 << 20);
  region.write_all();
  thermocline_start start = valid_start();
  start.ring_bytes = THERMOCLINE_RING_MIN_BYTES;
  start.schedule.period_ns = 1'000'000;
  begin(start, region.range());
  std::vector<RingPass> passes;
  std::uint64_t read = 0, missing = 0;
  std::mt19937 random(1);
  const auto end = Clock::now() + std::chrono::seconds(3);
  while (Clock::now() < end) {
    usleep(static_cast<useconds_t>(random() % 200000));
    ASSERT_TRUE(ring_->take(passes, false)) << ring_->malformed();
  }
  ASSERT_EQ(device_.stop(), 0);
  ASSERT_TRUE(ring_->take(passes, false)) << ring_->malformed();
  // What was dropped at the very end shows in the next ring's first number.
  const thermocline_stats stats = device_.stats();
  for (const RingPass& pass : passes) {
    read += pass.records;
    missing += pass.missing;
  }
  EXPECT_LE(read + missing, stats.records);
  EXPECT_LE(missing, stats.dropped_records);
  start.schedule.period_ns = 0;
  begin(start, region.range());
  const auto next = round();
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(next[0].mark.sequence - next[0].records, stats.records);
}

TEST_F(KmodRing, AHostileReaderHarmsItselfOnly) {
  const Region region(32 << 20);
  region.write_all();
  thermocline_start start = valid_start();
  start.ring_bytes = THERMOCLINE_RING_MIN_BYTES;
  start.schedule.period_ns = 1'000'000;
  begin(start, region.range());
  std::atomic<bool> stop{false};
  std::thread scribbler([&] {
    std::mt19937_64 random(3);
    auto* words = reinterpret_cast<volatile std::uint64_t*>(ring_->header());
    const std::uint64_t all = (kPage + 2 * start.ring_bytes) / 8;
    while (!stop) {
      for (int i = 0; i < 100; ++i) words[random() % (random() % 2 ? all : 512)] = random();
      ring_->header()->consumed = random() % 3 ? random() : random() % 200000;
      ring_->header()->doorbell = random() % 3 ? random() : random() % 1000;
    }
  });
  std::thread poller([&] {
    while (!stop) (void)device_.poll(1);
  });
  const auto end = Clock::now() + std::chrono::seconds(5);
  while (Clock::now() < end) {
    (void)device_.stats();
    usleep(10000);
  }
  stop = true;
  scribbler.join();
  poller.join();
  const thermocline_stats stats = device_.stats();
  EXPECT_EQ(stats.state, static_cast<unsigned>(THERMOCLINE_STATE_RUNNING));
  EXPECT_GT(stats.rounds, 20u);
  EXPECT_GT(stats.bad_positions, 0u);
  ASSERT_EQ(device_.stop(), 0);
  // The next ring is as good as ever.
  begin(valid_start(), region.range());
  (void)round();
  const auto touched = random_pages(100, region.pages(), 5);
  for (const std::uint64_t i : touched) region.write(i);
  const auto passes = round();
  ASSERT_EQ(passes.size(), 1u);
  EXPECT_EQ(accessed(passes[0], region), touched);
}

// ------------------------------------------------------------------ beginnings and ends

TEST_F(KmodRing, OneScannerAFile) {
  thermocline_schedule schedule = valid_start().schedule;
  thermocline_start start = valid_start();
  EXPECT_EQ(device_.start(start), ENOTCONN);
  EXPECT_EQ(device_.stop(), ENOTCONN);
  EXPECT_EQ(device_.round(schedule), ENOTCONN);
  EXPECT_EQ(mmap(nullptr, kPage, PROT_READ, MAP_SHARED, device_.fd(), 0), MAP_FAILED);
  EXPECT_EQ(errno, ENOTCONN);
  attach_to_self();
  EXPECT_EQ(device_.round(schedule), ENOTCONN);
  EXPECT_EQ(device_.stats().state, static_cast<unsigned>(THERMOCLINE_STATE_IDLE));
  ASSERT_EQ(device_.start(start), 0);
  start.map_bytes = 0;
  EXPECT_EQ(device_.start(start), EBUSY);
  EXPECT_EQ(device_.scan(0).error, EBUSY);
  EXPECT_EQ(device_.round(schedule), 0);
  EXPECT_EQ(device_.stop(), 0);
  EXPECT_EQ(device_.stop(), ENOTCONN);
  expect_good(device_.scan(0));
}

TEST_F(KmodRing, StartRefusals) {
  attach_to_self();
  const auto refused = [&](const std::function<void(thermocline_start&)>& spoil) {
    thermocline_start start = valid_start();
    spoil(start);
    return device_.start(start);
  };
  using S = thermocline_start;
  const std::uint64_t most = THERMOCLINE_SCHEDULE_MAX_NS;
  const thermocline_range empty{1, 0};
  const std::vector<std::function<void(S&)>> bad{
      [](S& s) { s.ring_bytes = 0; },
      [](S& s) { s.ring_bytes = THERMOCLINE_RING_MIN_BYTES / 2; },
      [](S& s) { s.ring_bytes = THERMOCLINE_RING_MAX_BYTES * 2ull; },
      [](S& s) { s.ring_bytes = 100000; },
      [](S& s) { s.ring_bytes = (1ull << 40) + (1 << 20); },
      [](S& s) { s.map_bytes = 1; },
      [](S& s) { s.reserved[3] = 1; },
      [](S& s) { s.schedule.flags |= 1u << 31; },
      [](S& s) { s.schedule.flags = THERMOCLINE_SCAN_FLUSH; },
      [](S& s) { s.schedule.flags |= THERMOCLINE_SCHEDULE_PRUNE_FIRST; },
      [](S& s) { s.schedule.windows = THERMOCLINE_SCHEDULE_MAX_WINDOWS + 1; },
      [](S& s) { s.schedule.windows = 1; },
      [](S& s) { s.schedule.window_ns = 1'000'000; },
      [&](S& s) { s.schedule.windows = 1, s.schedule.window_ns = most + 1; },
      [](S& s) {
        s.schedule.windows = 1, s.schedule.window_ns = THERMOCLINE_SCHEDULE_MIN_WINDOW_NS - 1;
      },
      [](S& s) { s.schedule.period_ns = THERMOCLINE_SCHEDULE_MIN_PERIOD_NS - 1; },
      [&](S& s) { s.schedule.period_ns = most + 1; },
      [](S& s) { s.schedule.budget_ppm = 1000001; },
      [](S& s) { s.schedule.budget_ppm = THERMOCLINE_SCHEDULE_MIN_BUDGET_PPM - 1; },
      [](S& s) { s.schedule.burst_ns = 1; },
      [&](S& s) { s.schedule.budget_ppm = 1000, s.schedule.burst_ns = most + 1; },
      [](S& s) { s.schedule.nice = -1; },
      [](S& s) { s.schedule.nice = 20; },
      [](S& s) { s.schedule.reserved0 = 1; },
      [](S& s) { s.schedule.reserved[0] = 1; },
      [](S& s) { s.schedule.range_count = THERMOCLINE_SCAN_MAX_RANGES + 1; },
      [&](S& s) {
        s.schedule.range_count = 1;
        s.schedule.ranges = reinterpret_cast<std::uintptr_t>(&empty);
      },
  };
  for (std::size_t i = 0; i < bad.size(); ++i) EXPECT_EQ(refused(bad[i]), EINVAL) << "case " << i;
  EXPECT_EQ(refused([](S& s) { s.schedule.range_count = 1; }), EFAULT);
  for (const unsigned long request :
       {THERMOCLINE_IOC_START, THERMOCLINE_IOC_CONFIGURE, THERMOCLINE_IOC_STATS})
    EXPECT_EQ(device_.control(request, reinterpret_cast<void*>(8)), EFAULT);
  EXPECT_EQ(device_.stats().state, static_cast<unsigned>(THERMOCLINE_STATE_IDLE));

  thermocline_start start = valid_start();
  start.schedule.windows = THERMOCLINE_SCHEDULE_MAX_WINDOWS;
  start.schedule.window_ns = start.schedule.period_ns = start.schedule.burst_ns = most;
  start.schedule.budget_ppm = 1000000;
  start.schedule.nice = 19;
  ASSERT_EQ(device_.start(start), 0) << "the largest values are good";
  const auto map = [&](std::uint64_t bytes, int flags, off_t offset) {
    void* p = mmap(nullptr, bytes, PROT_READ, flags, device_.fd(), offset);
    if (p == MAP_FAILED) return errno;
    munmap(p, bytes);
    return 0;
  };
  EXPECT_EQ(map(start.map_bytes, MAP_SHARED, 0), 0);
  EXPECT_EQ(map(start.map_bytes, MAP_PRIVATE, 0), EINVAL);
  EXPECT_EQ(map(start.map_bytes, MAP_SHARED, kPage), EINVAL);
  EXPECT_EQ(map(start.map_bytes + kPage, MAP_SHARED, 0), EINVAL);
  EXPECT_EQ(map(start.map_bytes - kPage, MAP_SHARED, 0), EINVAL);
  EXPECT_EQ(map(kPage, MAP_SHARED, 0), EINVAL);
  const int tid = device_.stats().tid;
  EXPECT_TRUE(eventually([&] { return getpriority(PRIO_PROCESS, static_cast<id_t>(tid)) == 19; }));
}

TEST_F(KmodRing, TheThreadLivesAsLongAsTheFile) {
  const auto started = [&](Device& device, thermocline_start& start) {
    EXPECT_EQ(device.attach(getpid()), 0);
    start = valid_start();
    start.schedule.period_ns = 1'000'000;
    EXPECT_EQ(device.start(start), 0);
    return device.stats().tid;
  };
  int tid = 0, copy = -1;
  thermocline_start start{};
  {
    Device device;
    tid = started(device, start);
    copy = dup(device.fd());
    ASSERT_GE(copy, 0);
  }
  EXPECT_TRUE(thread_exists(tid)) << "the other descriptor is open";
  kill(tid, SIGKILL);
  usleep(50000);
  EXPECT_TRUE(thread_exists(tid)) << "nobody else ends it";
  close(copy);
  EXPECT_TRUE(eventually([&] { return !thread_exists(tid); }));
  {
    Device device;
    tid = started(device, start);
    copy = dup(device.fd());
  }
  void* map = mmap(nullptr, start.map_bytes, PROT_READ, MAP_SHARED, copy, 0);
  ASSERT_NE(map, MAP_FAILED);
  close(copy);
  EXPECT_TRUE(thread_exists(tid)) << "a mapping keeps the file open";
  munmap(map, start.map_bytes);
  EXPECT_TRUE(eventually([&] { return !thread_exists(tid); }));
  {
    // The owner's child has both; then it is the last that has them.
    pid_t child = 0;
    {
      Device device;
      tid = started(device, start);
      const Ring ring(device, start.map_bytes);
      ASSERT_TRUE(ring.mapped());
      child = fork();
      if (child == 0)
        for (;;) pause();
    }
    EXPECT_TRUE(thread_exists(tid)) << "the child has it open";
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    EXPECT_TRUE(eventually([&] { return !thread_exists(tid); }));
  }
}

TEST_F(KmodRing, MappingsOutliveTheirRing) {
  const Region region(4 << 20);
  region.write_all();
  begin(valid_start(), region.range());
  (void)round();
  const std::unique_ptr<Ring> old = std::move(ring_);
  ASSERT_EQ(device_.stop(), 0);
  begin(valid_start(), region.range());
  (void)round();
  EXPECT_EQ(old->header()->rounds, 1u) << "the old one is as it was";
  std::memset(static_cast<void*>(old->header()), 0xff, kPage);
  (void)round();
  // Pages that the reader throws away are gone, for it alone.
  const pid_t child = fork();
  if (child == 0) {
    madvise(ring_->header(), kPage, MADV_DONTNEED);
    ring_->header()->consumed = 1;
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) << status;
  (void)round();
  ring_.reset();  // nobody reads: it is counted, nothing else
  for (int i = 0; i < 3; ++i) {
    const std::uint64_t rounds = device_.stats().rounds;
    ASSERT_EQ(device_.round(schedule_), 0);
    ASSERT_TRUE(eventually([&] { return device_.stats().rounds > rounds; }));
  }
}

TEST_F(KmodRing, TwoAttachmentsOnOneProcess) {
  const Region region(16 << 20);
  region.write_all();
  thermocline_start start = valid_start();
  start.schedule.period_ns = 2'000'000;
  start.ring_bytes = 4 << 20;
  begin(start, region.range());
  const Device other;
  ASSERT_EQ(other.attach(getpid(), 2), 0);
  thermocline_start second = start;
  second.schedule.ranges = schedule_.ranges;
  second.schedule.range_count = schedule_.range_count;
  ASSERT_EQ(other.start(second), 0);
  Ring ring(other, second.map_bytes);
  ASSERT_TRUE(ring.mapped());
  std::vector<RingPass> first, of_other;
  ASSERT_TRUE(eventually([&] {
    EXPECT_TRUE(ring_->take(first)) << ring_->malformed();
    EXPECT_TRUE(ring.take(of_other)) << ring.malformed();
    return first.size() >= 5 && of_other.size() >= 5;
  }));
  for (const RingPass& pass : first) EXPECT_EQ(pass.pages.size(), region.pages());
  for (const RingPass& pass : of_other) EXPECT_EQ(pass.pages.size(), region.pages());
  EXPECT_EQ(of_other[0].mark.asid, 2u);
}

TEST_F(KmodRing, EverythingAtOnce) {
  const Region region(8 << 20);
  region.write_all();
  attach_to_self();
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> starts{0}, stops{0}, plans{0}, maps{0};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i)
    threads.emplace_back([&, i] {
      std::mt19937 random(i);
      while (!stop) {
        thermocline_start start = valid_start();
        start.ring_bytes = THERMOCLINE_RING_MIN_BYTES << random() % 3;
        start.schedule.period_ns = random() % 2 ? 1'000'000 : 0;
        start.schedule.windows = static_cast<std::uint32_t>(random() % 3);
        start.schedule.window_ns = start.schedule.windows != 0 ? 200'000 : 0;
        int error = 0;
        switch (random() % 6) {
          case 0:
            error = device_.start(start);
            EXPECT_TRUE(error == 0 || error == EBUSY) << error;
            starts += error == 0;
            break;
          case 1:
            error = device_.stop();
            EXPECT_TRUE(error == 0 || error == ENOTCONN) << error;
            stops += error == 0;
            break;
          case 2:
            error = device_.round(start.schedule);
            EXPECT_TRUE(error == 0 || error == ENOTCONN) << error;
            plans += error == 0;
            break;
          case 3: {
            const std::uint64_t bytes = kPage + 2 * start.ring_bytes;
            void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, device_.fd(), 0);
            if (p == MAP_FAILED) {
              EXPECT_TRUE(errno == EINVAL || errno == ENOTCONN) << errno;
              break;
            }
            ++maps;
            std::memset(p, static_cast<int>(random()), bytes);
            munmap(p, bytes);
            break;
          }
          case 4:
            (void)device_.poll(0);
            error = device_.scan(0, region.range(), 1 << 20, 0, false).error;
            EXPECT_TRUE(error == 0 || error == EBUSY) << error;
            break;
          default:
            (void)device_.stats();
        }
        usleep(static_cast<useconds_t>(random() % 500));
      }
    });
  usleep(5000000);
  stop = true;
  for (auto& thread : threads) thread.join();
  EXPECT_GT(starts, 0u);
  EXPECT_GT(stops, 0u);
  EXPECT_GT(plans, 0u);
  EXPECT_GT(maps, 0u);
}

// ------------------------------------------------------------------ manners

TEST_F(KmodRing, TheBudgetIsKept) {
  const Region region(128 << 20);
  region.write_all();
  thermocline_start start = valid_start();
  start.schedule.flags = THERMOCLINE_SCAN_CLEAR;
  start.schedule.period_ns = THERMOCLINE_SCHEDULE_MIN_PERIOD_NS;
  begin(start, region.range());
  const int tid = device_.stats().tid;
  const auto share = [&](int seconds) {
    const std::uint64_t cpu = cpu_ns(tid);
    const auto began = Clock::now();
    usleep(static_cast<useconds_t>(seconds) * 1000000);
    const std::chrono::duration<double, std::nano> passed = Clock::now() - began;
    return static_cast<double>(cpu_ns(tid) - cpu) / passed.count();
  };
  const double free = share(2);
  schedule_.budget_ppm = 50000;
  ASSERT_EQ(device_.control(THERMOCLINE_IOC_CONFIGURE, &schedule_), 0);
  usleep(500000);
  const thermocline_stats before = device_.stats();
  const double kept = share(6);
  const thermocline_stats after = device_.stats();
  std::printf("  share of a CPU: %.4f without a budget, %.4f with one of 0.0500\n", free, kept);
  EXPECT_GT(free, 0.1) << "there must be something to keep";
  EXPECT_LT(kept, 0.055);
  EXPECT_GT(kept, 0.025) << "it isn't stingy either";
  EXPECT_GT(after.stretched_ns, before.stretched_ns);
  EXPECT_GT(after.rounds, before.rounds);
}

TEST_F(KmodRing, ABurstIsSavedUp) {
  const Region region(64 << 20);
  region.write_all();
  thermocline_start start = valid_start();
  start.schedule.flags = THERMOCLINE_SCAN_CLEAR;
  start.schedule.budget_ppm = 1000;
  start.schedule.burst_ns = 10'000'000'000;
  begin(start, region.range());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(round().size(), 1u);
  EXPECT_EQ(device_.stats().stretched_ns, 0u) << "saved CPU time is there to be used";
  start.schedule.burst_ns = 0;
  ASSERT_EQ(device_.stop(), 0);
  begin(start, region.range());
  EXPECT_EQ(round().size(), 1u);
  EXPECT_EQ(round().size(), 1u);
  EXPECT_GT(device_.stats().stretched_ns, 0u);
}

TEST_F(KmodRing, StopsWhileOthersWantTheMmapLock) {
  const Child child(
      [] {
        for (;;) {
          void* p = mmap(nullptr, 64 << 20, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
          if (p != MAP_FAILED) munmap(p, 64 << 20);
        }
      },
      Child::Start::kDoNotWait);
  ASSERT_EQ(device_.attach(child.pid()), 0);
  for (int i = 0; i < 20; ++i) {
    thermocline_start start = valid_start();
    start.schedule.period_ns = 1'000'000;
    ASSERT_EQ(device_.start(start), 0);
    usleep(20000);
    ASSERT_EQ(device_.stop(), 0);
  }
}

TEST_F(KmodRing, ThreadsFreeze) {
  std::ofstream test("/sys/power/pm_test");
  if (!(test << "freezer" << std::flush)) GTEST_SKIP() << "this kernel can't test the freezer";
  const Region region(4 << 20);
  region.write_all();
  thermocline_start start = valid_start();
  start.schedule.period_ns = 1'000'000;
  begin(start, region.range());
  const Child sleeper([] {});
  const Device idle;  // one that sleeps between rounds
  ASSERT_EQ(idle.attach(sleeper.pid()), 0);
  thermocline_start never = valid_start();
  ASSERT_EQ(idle.start(never), 0);
  std::ofstream state("/sys/power/state");
  state << "freeze" << std::flush;
  EXPECT_TRUE(state.good()) << "processes didn't freeze: " << std::strerror(errno);
  const std::uint64_t rounds = device_.stats().rounds;
  EXPECT_TRUE(eventually([&] { return device_.stats().rounds > rounds; })) << "and thaw";
  test << "none" << std::flush;
}

}  // namespace
}  // namespace thermocline::labtest
