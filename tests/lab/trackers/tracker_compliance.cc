// SPDX-License-Identifier: Apache-2.0
// What the contract of userspace/tracking/tracker.h says, for every source that works on this
// machine; those that don't are skipped, with their reason. Real processes, real page tables.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <numaif.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <optional>

#include "target.h"
#include "tracking/combine_tracker.h"
#include "tracking/record.h"
#include "tracking/tracker.h"

namespace thermocline {

/// In the names that ctest shows.
void PrintTo(const TrackerFactory& factory, std::ostream* out) {
  *out << factory.name;
}

}  // namespace thermocline

namespace thermocline::labtest {
namespace {

/// What one scan told of one present 4 KiB page.
struct Seen {
  bool observable = false, accessed = false;
  std::optional<NodeId> node;
};

struct Scan {
  std::map<Vpn, Seen> pages;
  std::vector<std::uint64_t> sequences;
  std::string malformed;  ///< empty: the records keep to their format, order and header
  ScanStats stats;
};

/// Pages of a region that a scan told as...
struct Count {
  std::uint64_t present = 0, idle = 0, touched = 0, unknown = 0;
  bool operator==(const Count&) const = default;
  friend void PrintTo(const Count& c, std::ostream* out) {
    *out << c.present << " present: " << c.touched << " touched, " << c.idle << " idle, "
         << c.unknown << " unknown";
  }
};

/// It samples by a clock of its own: what a test touched once may not be seen.
bool samples(const TrackerFactory& factory) {
  return factory.abilities.grain == TrackerAbilities::Grain::kRegion;
}

class TrackerCompliance : public testing::TestWithParam<TrackerFactory> {
 protected:
  void SetUp() override {
    const Status works = GetParam().probe(*system_, {});
    if (!works) GTEST_SKIP() << works.error().message;
    auto made = GetParam().make(*system_, {});
    ASSERT_TRUE(made) << made.error().message;
    tracker_ = std::move(*made);
    for (std::size_t i = 0; i < Target::kRegions; ++i) target_.touch(i);
    auto identity = identify_process(*system_, target_.pid());
    ASSERT_TRUE(identity) << identity.error().message;
    process_ = *identity;
  }
  void attach() {
    const Status attached = tracker_->attach(process_);
    ASSERT_TRUE(attached) << attached.error().message;
  }

  [[nodiscard]] const TrackerAbilities& can() const { return GetParam().abilities; }

  ScanRequest request(bool clear = true) const {
    ScanRequest r;
    r.asid = process_.asid;
    r.clear = clear;
    r.epoch = Epoch(7);
    r.window = std::chrono::milliseconds(5);
    return r;
  }

  Result<Scan> try_scan(const ScanRequest& r) {
    Scan result;
    Vpn cursor(0);
    const auto stats = tracker_->scan(r, [&](std::span<const std::byte> bytes) {
      RecordReader reader(bytes);
      while (const auto record = reader.next()) {
        const auto wrong = [&](const char* what) {
          if (result.malformed.empty()) result.malformed = what;
        };
        if (record->asid != process_.asid) wrong("address space");
        if (record->epoch != r.epoch) wrong("epoch");
        if (record->window != r.window) wrong("window");
        if (record->cleared != (r.clear && !samples(GetParam()))) wrong("cleared");
        if (record->writes_only == can().sees_reads) wrong("writes only");
        if (record->first < cursor) wrong("records do not rise");
        if (record->scan_time.count() <= 0) wrong("no time");
        cursor = record->first + record->pages();
        result.sequences.push_back(record->sequence);
        std::uint32_t run = 0, left = record->node_run(0).count;
        for (std::uint32_t i = 0; i < record->count; ++i, --left) {
          if (left == 0) left = record->node_run(++run).count;
          if (!record->present.test(i)) continue;
          const std::uint64_t pages = record->order.pages().get();
          for (std::uint64_t p = 0; p < pages; ++p)
            result.pages[record->first + PageCount(i * pages + p)] = {
                record->observable.test(i), record->accessed.test(i), record->node_run(run).node};
        }
      }
      if (reader.error()) result.malformed = reader.error()->message;
    });
    if (!stats) return tl::make_unexpected(stats.error());
    result.stats = *stats;
    return result;
  }
  Scan scan(const ScanRequest& r) {
    auto result = try_scan(r);
    EXPECT_TRUE(result) << result.error().message;
    if (!result) return {};
    EXPECT_EQ(result->malformed, "");
    return std::move(*result);
  }

  Count count(const Scan& seen, std::size_t region, std::uint64_t first = 0,
              std::uint64_t pages = Target::kPages) const {
    Count result;
    for (std::uint64_t p = first; p < first + pages; ++p) {
      const auto at = seen.pages.find(counted_->first(region) + PageCount(p));
      if (at == seen.pages.end()) continue;
      ++result.present;
      ++(!at->second.observable ? result.unknown
         : at->second.accessed  ? result.touched
                                : result.idle);
    }
    return result;
  }
  static constexpr std::uint64_t kAll = Target::kPages;
  static constexpr Count kTouched{kAll, 0, kAll, 0}, kIdle{kAll, kAll, 0, 0}, kAbsent{};

  std::unique_ptr<System> system_ = make_real_system();
  Target target_;
  const Target* counted_ = &target_;  ///< whose regions count() means
  ProcessIdentity process_;
  std::unique_ptr<Tracker> tracker_;
};

/// Of sources that tell what was touched between two scans.
class WindowCompliance : public TrackerCompliance {};

/// Of sources that sample.
class SamplingCompliance : public TrackerCompliance {
 protected:
  /// Scans until one is as wanted, for a minute at most.
  template <class Wanted>
  Scan scan_until(const Wanted& wanted) {
    Scan seen;
    for (int i = 0; i < 600; ++i) {
      ::usleep(100'000);
      seen = scan(request(i % 2 == 0));
      if (HasFailure() || wanted(seen)) break;
    }
    return seen;
  }
};

TEST_P(TrackerCompliance, HasTheNameOfItsFactoryAndSaysWhatItNeedsAndCannotSee) {
  EXPECT_EQ(tracker_->name(), GetParam().name);
  EXPECT_NE(GetParam().summary, "");
  EXPECT_NE(can().privilege, "");
  EXPECT_NE(can().cannot_see, "");
  if (can().cost) {
    EXPECT_NE(can().cost->source, "");
  }
}

TEST_P(TrackerCompliance, AProcessThatIsNotTheOneMeantIsNotFound) {
  ProcessIdentity other = process_;
  ++other.start_ticks;
  const Status reused = tracker_->attach(other);
  ASSERT_FALSE(reused);
  EXPECT_EQ(reused.error().kind, ErrorKind::kNotFound) << reused.error().message;
  target_.kill();
  const Status gone = tracker_->attach(process_);
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().kind, ErrorKind::kNotFound) << gone.error().message;
}

TEST_P(TrackerCompliance, AnAddressSpaceThatIsNotAttachedIsNotFound) {
  tracker_->detach(Asid(99));
  const auto never = try_scan(request());
  ASSERT_FALSE(never);
  EXPECT_EQ(never.error().kind, ErrorKind::kNotFound);
  attach();
  ASSERT_TRUE(try_scan(request()));
  tracker_->detach(process_.asid);
  const auto detached = try_scan(request());
  ASSERT_FALSE(detached);
  EXPECT_EQ(detached.error().kind, ErrorKind::kNotFound);
  attach();
  EXPECT_TRUE(try_scan(request())) << "and again";
}

TEST_P(WindowCompliance, TheNextScanAfterAClearShowsWhatWasTouchedAndNothingElse) {
  attach();
  (void)scan(request());
  target_.touch(1);
  const Scan second = scan(request());
  EXPECT_EQ(count(second, 0), kIdle);
  EXPECT_EQ(count(second, 1), kTouched);
  EXPECT_EQ(count(second, 2), kIdle);
  const Scan third = scan(request());
  for (std::size_t i = 0; i < Target::kRegions; ++i) EXPECT_EQ(count(third, i), kIdle) << i;
}

TEST_P(WindowCompliance, AMappingTouchedInPartIsToldByThePageOrUnknown) {
  attach();
  (void)scan(request());
  target_.touch(1, 3);
  const Scan seen = scan(request());
  if (can().grain == TrackerAbilities::Grain::kMapping) {
    EXPECT_EQ(count(seen, 1), (Count{kAll, 0, 0, kAll})) << "unknown is not cold, and not hot";
  } else {
    for (std::uint64_t p = 0; p < kAll; ++p) {
      const auto at = seen.pages.find(target_.first(1) + PageCount(p));
      ASSERT_NE(at, seen.pages.end()) << p;
      ASSERT_TRUE(at->second.observable) << p;
      ASSERT_EQ(at->second.accessed, p % 3 == 0) << p;
    }
  }
  EXPECT_EQ(count(seen, 0), kIdle);
}

TEST_P(WindowCompliance, ReadingAloneClearsNothing) {
  attach();
  (void)scan(request());
  target_.touch(2);
  for (int i = 0; i < 2; ++i) {
    const Scan seen = scan(request(false));
    EXPECT_EQ(count(seen, 2), kTouched);
    EXPECT_EQ(count(seen, 0), kIdle);
  }
  EXPECT_EQ(count(scan(request()), 2), kTouched);
  EXPECT_EQ(count(scan(request()), 2), kIdle);
}

TEST_P(WindowCompliance, RangesAreKeptTo) {
  attach();
  (void)scan(request());
  for (std::size_t i = 0; i < Target::kRegions; ++i) target_.touch(i);
  // A part of one region that begins and ends inside a table page, and a part of another.
  const std::vector<ScanRange> ranges{{target_.first(0) + PageCount(5), PageCount(700)},
                                      {target_.first(2) + PageCount(kAll - 1), PageCount(40)}};
  ScanRequest some = request();
  some.ranges = ranges;
  const Scan seen = scan(some);
  EXPECT_EQ(seen.pages.size(), 701u) << "and nothing beyond";
  EXPECT_EQ(count(seen, 0, 5, 700), (Count{700, 0, 700, 0}));
  EXPECT_EQ(count(seen, 2, kAll - 1, 1), (Count{1, 0, 1, 0}));
  if (!can().clears_ranges) return;
  const Scan all = scan(request());
  EXPECT_EQ(count(all, 0), (Count{kAll, 700, kAll - 700, 0}));
  EXPECT_EQ(count(all, 1), kTouched) << "outside the ranges nothing was cleared";
  EXPECT_EQ(count(all, 2), (Count{kAll, 1, kAll - 1, 0}));
}

TEST_P(SamplingCompliance, BusyMemoryIsTouchedIdleMemoryIsIdleAndIdleMemoryMayBecomeBusy) {
  attach();
  const Scan first = scan(request());
  EXPECT_EQ(count(first, 0), (Count{kAll, 0, 0, kAll}))
      << "nothing is known before the first samples";
  // A region of the source may reach over a border for a while, but not by much, and not for long.
  constexpr std::uint64_t kMost = kAll * 9 / 10;
  for (const std::size_t busy : {1u, 2u}) {
    target_.keep_touching(busy);
    const std::size_t idle = 3 - busy;
    const Scan seen = scan_until([&](const Scan& s) {
      return count(s, busy).touched >= kMost && count(s, idle).idle >= kMost &&
             count(s, 0).idle >= kMost;
    });
    EXPECT_GE(count(seen, busy).touched, kMost) << busy;
    EXPECT_GE(count(seen, idle).idle, kMost) << busy;
    EXPECT_GE(count(seen, 0).idle, kMost) << busy;
    EXPECT_EQ(count(seen, 0).present, kAll);
  }
  target_.touch(0);
  const Scan after = scan_until([&](const Scan& s) { return count(s, 2).idle >= kMost; });
  EXPECT_GE(count(after, 2).idle, kMost) << "what was busy becomes idle";
}

TEST_P(SamplingCompliance, RangesAreKeptTo) {
  attach();
  const std::vector<ScanRange> ranges{{target_.first(0) + PageCount(5), PageCount(700)},
                                      {target_.first(2) + PageCount(kAll - 1), PageCount(40)}};
  ScanRequest some = request();
  some.ranges = ranges;
  const Scan seen = scan(some);
  EXPECT_EQ(seen.pages.size(), 701u) << "and nothing beyond";
  EXPECT_EQ(count(seen, 0, 5, 700).present, 700u);
}

TEST_P(SamplingCompliance, TwoProcessesAreToldApart) {
  Target other;
  other.touch(0);
  auto identity = identify_process(*system_, other.pid());
  ASSERT_TRUE(identity);
  attach();
  const Status attached = tracker_->attach(*identity);
  ASSERT_TRUE(attached) << attached.error().message;
  target_.keep_touching(1);
  const auto known = [&](const Scan& s) { return count(s, 1).touched >= kAll / 2; };
  EXPECT_TRUE(known(scan_until(known)));
  tracker_->detach(process_.asid);
  process_ = *identity;
  counted_ = &other;
  const auto idle = [&](const Scan& s) { return count(s, 0).idle >= kAll * 9 / 10; };
  const Scan seen = scan_until(idle);
  EXPECT_TRUE(idle(seen));
  EXPECT_EQ(count(seen, 1).present, 0u) << "it never touched that";
}

TEST_P(TrackerCompliance, RecordsAreNumberedFromZeroWithoutGaps) {
  attach();
  std::uint64_t next = 0;
  for (int i = 0; i < 3; ++i) {
    const Scan seen = scan(request(i != 1));
    EXPECT_EQ(seen.stats.records, seen.sequences.size());
    EXPECT_GT(seen.stats.records, 0u);
    EXPECT_GT(seen.stats.bytes, 0u);
    EXPECT_GE(seen.stats.entries, Target::kRegions * kAll);
    for (const std::uint64_t sequence : seen.sequences) ASSERT_EQ(sequence, next++);
  }
}

TEST_P(TrackerCompliance, WhatIsUnmappedIsNotPresent) {
  attach();
  EXPECT_EQ(count(scan(request()), 1).present, kAll);
  target_.unmap(1);
  const Scan seen = scan(request());
  EXPECT_EQ(count(seen, 1), kAbsent);
  EXPECT_EQ(count(seen, 2).present, kAll);
}

TEST_P(TrackerCompliance, NodesAreThoseThatTheKernelTells) {
  attach();
  const Scan seen = scan(request());
  std::vector<void*> pages;
  for (std::uint64_t p = 0; p < kAll; ++p)
    pages.push_back(reinterpret_cast<void*>((target_.first(0) + PageCount(p)).address()));
  std::vector<int> nodes(pages.size());
  ASSERT_EQ(::move_pages(target_.pid().get(), pages.size(), pages.data(), nullptr, nodes.data(), 0),
            0);
  for (std::uint64_t p = 0; p < kAll; ++p) {
    const auto at = seen.pages.find(target_.first(0) + PageCount(p));
    ASSERT_NE(at, seen.pages.end());
    if (can().knows_nodes)
      ASSERT_EQ(at->second.node, std::optional(NodeId(nodes[p]))) << p;
    else
      ASSERT_EQ(at->second.node, std::nullopt) << p;
  }
}

TEST_P(TrackerCompliance, AProcessThatExitsIsNotFound) {
  attach();
  (void)scan(request());
  target_.kill();
  const auto after = try_scan(request());
  ASSERT_FALSE(after);
  EXPECT_EQ(after.error().kind, ErrorKind::kNotFound) << after.error().message;
  tracker_->detach(process_.asid);
}

TEST_P(TrackerCompliance, AnotherImageIsAnotherAddressSpace) {
  attach();
  (void)scan(request());
  target_.exec();
  const auto after = try_scan(request());
  ASSERT_FALSE(after);
  EXPECT_EQ(after.error().kind, ErrorKind::kNotFound) << after.error().message;
  tracker_->detach(process_.asid);
  attach();
  EXPECT_GT(scan(request()).pages.size(), 0u) << "the new image has memory too";
}

/// refs, beside a device that has none of this machine's memory, and so knows nothing: together
/// they must keep what refs promises.
TrackerFactory combined() {
  struct ListFile {
    std::string path = testing::TempDir() + fmt::format("hot_list.{}", ::getpid());
    ~ListFile() { ::unlink(path.c_str()); }
  };
  static const ListFile list;
  std::ofstream(list.path) << "thermocline-hot-list 1\nepoch 1\nunit_bytes 4096\n"
                              "base 4503599627366400\nunits 1\nthreshold 1\noverflow 0\nhot 0 1\n";
  TrackerOptions options;
  options.hmu_list = list.path;
  options.sources = {"hmu", "refs"};
  TrackerFactory factory = combine_tracker_factory();
  factory.abilities.grain = TrackerAbilities::Grain::kMapping;
  factory.probe = [options, probe = factory.probe](System& system, const TrackerOptions&) {
    return probe(system, options);
  };
  factory.make = [options, make = factory.make](System& system, const TrackerOptions&) {
    return make(system, options);
  };
  return factory;
}

/// Those that follow processes with nothing else set up.
std::vector<TrackerFactory> all_sources() {
  std::vector<TrackerFactory> result{combined()};
  for (const TrackerFactory& factory : tracker_factories())
    if (factory.automatic) result.push_back(factory);
  return result;
}

std::vector<TrackerFactory> sources(bool that_sample) {
  std::vector<TrackerFactory> result;
  for (const TrackerFactory& factory : all_sources())
    if (samples(factory) == that_sample) result.push_back(factory);
  return result;
}

constexpr auto kName = [](const auto& source) { return source.param.name; };
INSTANTIATE_TEST_SUITE_P(All, TrackerCompliance, testing::ValuesIn(all_sources()), kName);
INSTANTIATE_TEST_SUITE_P(All, WindowCompliance, testing::ValuesIn(sources(false)), kName);
INSTANTIATE_TEST_SUITE_P(All, SamplingCompliance, testing::ValuesIn(sources(true)), kName);

}  // namespace
}  // namespace thermocline::labtest
