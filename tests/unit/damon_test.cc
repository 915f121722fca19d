// SPDX-License-Identifier: Apache-2.0
// The damon tracker on settings, a ring and a page map that a test keeps: whose DAMON it takes,
// what it leaves behind, and what it makes of regions. tracker_compliance holds it to the contract
// on real ones.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/perf_event.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>

#include "tracking/damon_control.h"
#include "tracking/damon_events.h"
#include "tracking/damon_tracker.h"
#include "tracking/record.h"

namespace thermocline {
namespace {

const std::string kAll = "/sys/kernel/mm/damon/admin/kdamonds/";
const std::string kCount = kAll + "nr_kdamonds";
const std::string kPattern = kAll + "0/contexts/0/schemes/0/access_pattern/";
constexpr const char* kFormat =
    "name: damon_aggregated\nID: 9\nformat:\n"
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
    "\tfield:unsigned long target_id;\toffset:8;\tsize:8;\tsigned:0;\n"
    "\tfield:unsigned int nr_regions;\toffset:16;\tsize:4;\tsigned:0;\n"
    "\tfield:unsigned long start;\toffset:24;\tsize:8;\tsigned:0;\n"
    "\tfield:unsigned long end;\toffset:32;\tsize:8;\tsigned:0;\n"
    "\tfield:unsigned int nr_accesses;\toffset:40;\tsize:4;\tsigned:0;\n"
    "\tfield:unsigned int age;\toffset:44;\tsize:4;\tsigned:0;\n";
constexpr Vpn kBase{0x10000};
constexpr std::uint64_t kPages = 400;

struct Event {
  std::uint16_t type = 9;
  std::uint8_t flags = 0, preempt = 0;
  std::int32_t pid = 0;
  std::uint64_t target = 0;
  std::uint32_t regions = 0, hole = 0;
  std::uint64_t start = 0, end = 0;
  std::uint32_t accesses = 0, age = 0;
};

std::string stat_line(int pid, std::uint64_t start) {
  return fmt::format("{} (db) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {} 1000000 100\n", pid,
                     start);
}

/// A machine with one node, DAMON that nobody uses, and process 42 with one private mapping.
class Machine final : public System {
 public:
  Machine() {
    files[kCount] = "0\n";
    files["/sys/devices/system/node/has_memory"] = "0\n";
    files["/sys/kernel/tracing/events/damon/damon_aggregated/id"] = "9\n";
    files["/sys/kernel/tracing/events/damon/damon_aggregated/format"] = kFormat;
    files["/proc/42/stat"] = stat_line(42, 4711);
    files["/proc/42/maps"] = fmt::format("{:x}-{:x} rw-p 00000000 00:00 0\n", kBase.address(),
                                         (kBase + PageCount(kPages)).address());
    files[fmt::format("/proc/{}/stat", ::getpid())] = stat_line(::getpid(), 99);
  }
  Result<std::string> read_file(const std::string& path) const override {
    const auto at = files.find(path);
    if (at == files.end()) return fail_errno(ENOENT, "can't read " + path);
    return at->second;
  }
  Status write_file(const std::string& path, std::string_view text) override {
    if (path == refuses) return fail_errno(EINVAL, "can't write " + path);
    if (path == kCount) {
      if (files.contains(kAll + "0/state") && files[kAll + "0/state"] == "on")
        return fail_errno(EBUSY, "busy");
      std::erase_if(files, [](const auto& f) { return f.first.starts_with(kAll + "0/"); });
      if (text != "0") {
        files[kAll + "0/state"] = "off";
        files[kAll + "0/pid"] = "77\n";
      }
    }
    files[path] = text;
    return {};
  }
  Result<std::vector<std::string>> list_dir(const std::string& path) const override {
    return fail_errno(ENOENT, "can't list " + path);
  }
  bool exists(const std::string& path) const override { return files.contains(path); }
  Result<std::string> read_link_name(const std::string& p) const override {
    return fail_errno(ENOENT, "no " + p);
  }
  Nanoseconds now() const override { return time; }
  Nanoseconds process_cpu_time() const override { return {}; }
  Result<UniqueFd> open_device(const std::string&, int) override { return fd(); }
  Result<UniqueFd> pidfd_open(Pid) override { return fd(); }
  Result<UniqueFd> open_tracepoint(std::uint64_t id, Pid thread) override {
    EXPECT_EQ(id, 9u);
    EXPECT_EQ(thread, Pid(77));
    return fd();
  }
  Result<SharedMapping> map_device(int, std::size_t bytes) override {
    void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ring = {static_cast<std::byte*>(p), bytes};
    return SharedMapping(ring);
  }
  int ioctl(int, unsigned long, void*) override { return -ENOTTY; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -ENOSYS;
  }
  /// Every page is there; the process's alone, but for the last.
  long pread(int, std::span<std::byte> into, std::uint64_t offset) const override {
    if (gone) return 0;
    for (std::size_t i = 0; i < into.size() / 8; ++i) {
      std::uint64_t entry = std::uint64_t{1} << 63 | 0x1000;
      if (offset / 8 + i + 1 != (kBase + PageCount(kPages)).get()) entry |= std::uint64_t{1} << 56;
      std::memcpy(into.data() + i * 8, &entry, 8);
    }
    return static_cast<long>(into.size());
  }
  bool pidfd_exited(int) const override { return gone; }

  /// DAMON ends an aggregation of one target with these regions.
  void aggregate(std::vector<Event> events) {
    for (Event& event : events) {
      event.regions = static_cast<std::uint32_t>(events.size());
      sample(event);
    }
  }
  void sample(const Event& event) {
    struct {
      perf_event_header header;
      std::uint64_t time;
      std::uint32_t size;
      std::byte raw[sizeof(Event) + 4];
    } entry{};
    entry.header = {PERF_RECORD_SAMPLE, 0, sizeof(entry)};
    entry.time = static_cast<std::uint64_t>(time.count());
    entry.size = sizeof(entry.raw);
    std::memcpy(entry.raw, &event, sizeof(event));
    put(&entry, sizeof(entry));
  }
  void lose() {
    struct {
      perf_event_header header;
      std::uint64_t id, lost;
    } entry{{PERF_RECORD_LOST, 0, 24}, 0, 5};
    put(&entry, sizeof(entry));
  }

  std::map<std::string, std::string> files;
  std::string refuses;
  Nanoseconds time = std::chrono::seconds(100);
  bool gone = false;
  std::span<std::byte> ring;

 private:
  void put(const void* bytes, std::size_t n) {
    auto* page = reinterpret_cast<perf_event_mmap_page*>(ring.data());
    const std::size_t data = ring.size() - kPageSize;
    for (std::size_t i = 0; i < n; ++i)
      ring[kPageSize + (page->data_head + i) % data] = static_cast<const std::byte*>(bytes)[i];
    page->data_head += n;
  }
  static Result<UniqueFd> fd() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }
};

Event region(std::uint64_t first, std::uint64_t end, std::uint32_t accesses, std::uint32_t age) {
  Event event;
  event.start = (kBase + PageCount(first)).address();
  event.end = (kBase + PageCount(end)).address();
  event.accesses = accesses;
  event.age = age;
  return event;
}

class Damon : public testing::Test {
 protected:
  void open() {
    auto made = damon_tracker_factory().make(machine_, {});
    ASSERT_TRUE(made) << made.error().message;
    tracker_ = std::move(*made);
    auto identity = identify_process(machine_, Pid(42));
    ASSERT_TRUE(identity);
    process_ = *identity;
    const Status attached = tracker_->attach(process_);
    ASSERT_TRUE(attached) << attached.error().message;
  }
  /// A letter a page: touched, idle, unknown.
  std::string scan() {
    std::string told(kPages, '.');
    ScanRequest request;
    request.asid = process_.asid;
    const auto stats = tracker_->scan(request, [&](std::span<const std::byte> bytes) {
      RecordReader reader(bytes);
      while (const auto record = reader.next()) {
        EXPECT_FALSE(record->cleared) << "nothing is";
        for (std::uint32_t i = 0; i < record->count; ++i)
          told[(record->first - kBase).get() + i] = record->accessed.test(i)     ? 't'
                                                    : record->observable.test(i) ? 'i'
                                                                                 : '?';
      }
      EXPECT_FALSE(reader.error());
    });
    EXPECT_TRUE(stats) << stats.error().message;
    return told;
  }
  static std::string pages(std::initializer_list<std::pair<int, char>> runs) {
    std::string text;
    for (const auto& [n, c] : runs) text += std::string(static_cast<std::size_t>(n), c);
    return text;
  }

  Machine machine_;
  ProcessIdentity process_;
  std::unique_ptr<Tracker> tracker_;
};

TEST_F(Damon, SettingsAreAsBeforeWhenItEnds) {
  const auto before = machine_.files;
  open();
  EXPECT_EQ(machine_.files[kAll + "0/state"], "on");
  EXPECT_EQ(machine_.files[kAll + "0/contexts/0/operations"], "vaddr");
  EXPECT_EQ(machine_.files[kAll + "0/contexts/0/targets/0/pid_target"], "42");
  tracker_.reset();
  EXPECT_EQ(machine_.files[kCount], "0");
  machine_.files[kCount] = "0\n";
  EXPECT_EQ(machine_.files, before);
}

TEST_F(Damon, SomebodyElsesSettingsAreLeftAlone) {
  machine_.files[kCount] = "1\n";
  machine_.files[kAll + "0/state"] = "on";
  const auto before = machine_.files;
  const Status works = damon_tracker_factory().probe(machine_, {});
  ASSERT_FALSE(works);
  EXPECT_EQ(works.error().kind, ErrorKind::kUnsupported);
  EXPECT_NE(works.error().message.find("somebody else"), std::string::npos);
  EXPECT_FALSE(damon_tracker_factory().make(machine_, {}));
  EXPECT_EQ(machine_.files, before);
}

TEST_F(Damon, OneThatReclaimsIsLeftAlone) {
  machine_.files["/sys/module/damon_reclaim/parameters/enabled"] = "N\n";
  EXPECT_TRUE(damon_tracker_factory().probe(machine_, {}));
  machine_.files["/sys/module/damon_reclaim/parameters/enabled"] = "Y\n";
  EXPECT_FALSE(damon_tracker_factory().probe(machine_, {}));
}

TEST_F(Damon, WhatAKilledOneLeftIsClearedAwayAndThatOfALivingOneIsNot) {
  open();
  const auto in_use = machine_.files;
  const Status second = damon_tracker_factory().probe(machine_, {});
  EXPECT_FALSE(second) << "this process lives";
  tracker_.reset();
  // Another process has the number now.
  machine_.files = in_use;
  machine_.files[fmt::format("/proc/{}/stat", ::getpid())] = stat_line(::getpid(), 100);
  EXPECT_TRUE(damon_tracker_factory().probe(machine_, {}));
  EXPECT_EQ(machine_.files[kAll + "0/state"], "on") << "a probe changes nothing";
  open();
  EXPECT_EQ(machine_.files[kPattern + "nr_accesses/min"], "100");
}

TEST_F(Damon, WhatCannotBeSetUpIsGivenBack) {
  machine_.refuses = kAll + "0/contexts/0/operations";
  EXPECT_FALSE(damon_tracker_factory().make(machine_, {}));
  EXPECT_EQ(machine_.files[kCount], "0");
}

TEST_F(Damon, AKernelWithoutItIsUnsupported) {
  machine_.files.erase(kCount);
  const Status works = damon_tracker_factory().probe(machine_, {});
  ASSERT_FALSE(works);
  EXPECT_EQ(works.error().kind, ErrorKind::kUnsupported);
  machine_.files[kCount] = "0\n";
  machine_.files.erase("/sys/kernel/tracing/events/damon/damon_aggregated/id");
  EXPECT_FALSE(damon_tracker_factory().probe(machine_, {}));
}

TEST_F(Damon, BusyIsTouchedLongIdleIsIdleAndTheRestIsUnknown) {
  open();
  EXPECT_EQ(scan(), pages({{400, '?'}})) << "nothing is known at first";
  machine_.aggregate({region(0, 100, 20, 0), region(100, 150, 10, 0), region(150, 200, 9, 0),
                      region(200, 300, 0, 2), region(300, 350, 0, 1)});
  // Twice the same: nothing is cleared.
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(scan(), pages({{150, 't'}, {50, '?'}, {100, 'i'}, {100, '?'}}));
  machine_.aggregate({region(0, 400, 0, 2)});
  EXPECT_EQ(scan(), pages({{399, 'i'}, {1, '?'}})) << "another may have touched what is shared";
  machine_.aggregate({region(0, 400, 20, 0)});
  EXPECT_EQ(scan(), pages({{400, 't'}}));
}

TEST_F(Damon, OldAndHalfAnAggregationAreNotTold) {
  open();
  Event half = region(0, 200, 20, 0);
  half.regions = 2;
  machine_.sample(half);
  EXPECT_EQ(scan(), pages({{400, '?'}}));
  Event rest = region(200, 400, 20, 0);
  rest.regions = 2;
  machine_.sample(rest);
  EXPECT_EQ(scan(), pages({{400, 't'}}));
  machine_.time += std::chrono::seconds(2);
  EXPECT_EQ(scan(), pages({{400, '?'}})) << "too old";
  machine_.sample(half);
  machine_.lose();
  machine_.sample(rest);
  EXPECT_EQ(scan(), pages({{400, '?'}})) << "something between was lost";
  machine_.aggregate({region(0, 400, 20, 0)});
  EXPECT_EQ(scan(), pages({{400, 't'}}));
}

TEST_F(Damon, TheRingMayGoAroundManyTimes) {
  open();
  for (int i = 0; i < 3000; ++i) {
    machine_.aggregate(std::vector<Event>(20, region(0, 1, 0, 0)));
    if (i % 100 == 0) (void)scan();
  }
  machine_.aggregate({region(0, 400, 20, 0)});
  EXPECT_EQ(scan(), pages({{400, 't'}}));
}

TEST_F(Damon, AnAddressSpaceThatIsGoneIsNotFoundAndDamonStops) {
  open();
  machine_.gone = true;
  ScanRequest request;
  request.asid = process_.asid;
  const auto gone = tracker_->scan(request, [](std::span<const std::byte>) {});
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().kind, ErrorKind::kNotFound);
  tracker_->detach(process_.asid);
  EXPECT_EQ(machine_.files[kAll + "0/state"], "off");
}

TEST(DamonEventFormat, WantsAllFieldsOfASizeThatANumberHas) {
  EXPECT_TRUE(DamonEventFormat::parse(kFormat));
  std::string other = kFormat;
  other.replace(other.find("nr_accesses"), 11, "nr_accessed");
  EXPECT_FALSE(DamonEventFormat::parse(other));
  other = kFormat;
  other.replace(other.find("offset:44;\tsize:4"), 17, "offset:44;\tsize:3");
  EXPECT_FALSE(DamonEventFormat::parse(other));
  other = kFormat;
  other.replace(other.find("offset:44"), 9, "offset:4094");
  EXPECT_FALSE(DamonEventFormat::parse(other));
  EXPECT_FALSE(DamonEventFormat::parse(""));
}

}  // namespace
}  // namespace thermocline
