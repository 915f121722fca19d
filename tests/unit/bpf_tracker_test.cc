// SPDX-License-Identifier: Apache-2.0
// The bpf tracker on page tables that a test writes: what it makes of each kind of entry and area,
// and what it asks the kernel to clear. tracker_compliance holds it to the contract on real ones.
#include "tracking/bpf_tracker.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "tracking/page_table_bits.h"
#include "tracking/record.h"
#include "tree_system.h"

namespace thermocline {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::uint64_t kUser = pte::kPresent | pte::kWrite | 0x4;
constexpr Vpn kBase{512 * 512 * 4};  // at 4 GiB

std::uint64_t entry(std::uint64_t pfn, std::uint64_t flags = 0) {
  return pfn << kPageShift | kUser | flags;
}

/// A machine with 1 GiB on each of two nodes, and process 42.
class Machine final : public System {
 public:
  Result<std::string> read_file(const std::string& path) const override {
    if (path == "/sys/devices/system/memory/block_size_bytes") return "40000000\n";
    if (path == "/proc/42/stat") {
      std::string text = "42 (db) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711";
      return text + " 1000000 100 0 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
    }
    return fail(ErrorKind::kNotFound, "no {}", path);
  }
  Result<std::vector<std::string>> list_dir(const std::string& path) const override {
    if (path == "/sys/devices/system/node") return std::vector<std::string>{"node0", "node1"};
    if (path == "/sys/devices/system/node/node0") return std::vector<std::string>{"memory0"};
    if (path == "/sys/devices/system/node/node1") return std::vector<std::string>{"memory1"};
    return fail(ErrorKind::kNotFound, "no {}", path);
  }
  bool exists(const std::string&) const override { return false; }
  Result<std::string> read_link_name(const std::string& p) const override {
    return fail(ErrorKind::kNotFound, "no {}", p);
  }
  Status write_file(const std::string& path, std::string_view text) override {
    written.push_back(path + "=" + std::string(text));
    return {};
  }
  Nanoseconds now() const override { return Nanoseconds(1000); }
  Nanoseconds process_cpu_time() const override { return {}; }
  Result<UniqueFd> open_device(const std::string&, int) override { return fd(); }
  int ioctl(int, unsigned long, void*) override { return -ENOTTY; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -ENOSYS;
  }
  long pread(int, std::span<std::byte> into, std::uint64_t) const override {
    return gone ? 0 : static_cast<long>(into.size());
  }
  long process_madvise(int, std::span<const AddressRange> ranges, int) override {
    long done = 0;
    for (const AddressRange& range : ranges) {
      if (range.address == refuses.address()) return done > 0 ? done : -EINVAL;
      cold.push_back({Vpn::of_address(range.address), pages_of(range.length)});
      done += static_cast<long>(range.length.get());
    }
    return done;
  }
  Result<UniqueFd> pidfd_open(Pid) override { return fd(); }
  bool pidfd_exited(int) const override { return gone; }

  std::vector<std::string> written;
  std::vector<ScanRange> cold;
  Vpn refuses{1};
  bool gone = false;

 private:
  static Result<UniqueFd> fd() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }
};

using Table = std::array<std::uint64_t, kTableEntries>;

struct Tables {
  std::vector<MemoryArea> areas;
  std::map<Vpn, Table> upper, lower;
  bool second_mmu = false;
};

class ScriptedTables final : public PageTables {
 public:
  explicit ScriptedTables(const Tables& tables) : tables_(tables) {}
  Result<std::vector<MemoryArea>> areas() override { return tables_.areas; }
  Result<TableRun> read(Vpn from, Vpn to) override {
    TableRun run;
    run.second_mmu = tables_.second_mmu;
    run.next = to;
    const Vpn gib(from.get() / (512 * 512) * 512 * 512);
    for (auto up = tables_.upper.lower_bound(gib); up != tables_.upper.end() && up->first < to;
         ++up) {
      run.pages.push_back({up->first, true, up->second});
      for (const auto& [first, table] : tables_.lower)
        if (first >= from && first < to && first >= up->first &&
            first < up->first + PageCount(512 * 512))
          run.pages.push_back({first, false, table});
    }
    return run;
  }

 private:
  const Tables& tables_;
};

class ScriptedReader final : public PageTableReader {
 public:
  explicit ScriptedReader(const Tables& tables) : tables_(tables) {}
  Result<std::unique_ptr<PageTables>> open(Pid) override {
    return std::make_unique<ScriptedTables>(tables_);
  }

 private:
  const Tables& tables_;
};

struct Told {
  PageOrder order;
  bool observable = false, accessed = false, dirty = false;
  int node = -1;
  bool operator==(const Told&) const = default;
};

class BpfTracker : public testing::Test {
 protected:
  BpfTracker() {
    tables_.upper[kBase] = {};
    table() = {};
    area_ = {kBase, kBase + PageCount(2048)};
  }
  Table& table(std::uint64_t n = 0) { return tables_.lower[kBase + PageCount(n * kTableEntries)]; }
  /// What a scan tells of present entries.
  std::map<std::uint64_t, Told> scan(std::vector<ScanRange> ranges = {}) {
    if (tables_.areas.empty()) tables_.areas = {area_};
    if (!tracker_) {
      auto nodes = NodeMap::read(machine_);
      EXPECT_TRUE(nodes) << nodes.error().message;
      tracker_ = make_bpf_tracker(machine_, options_, std::move(*nodes),
                                  std::make_unique<ScriptedReader>(tables_));
      EXPECT_TRUE(tracker_->attach(process_));
    }
    std::map<std::uint64_t, Told> told;
    ScanRequest request;
    request.asid = process_.asid;
    request.ranges = ranges;
    records_.clear();
    const auto stats = tracker_->scan(request, [&](std::span<const std::byte> bytes) {
      RecordReader reader(bytes);
      while (const auto record = reader.next()) {
        records_.push_back({record->first, PageCount(record->count)});
        std::uint32_t run = 0, left = record->node_run(0).count;
        for (std::uint32_t i = 0; i < record->count; ++i, --left) {
          if (left == 0) left = record->node_run(++run).count;
          const auto node = record->node_run(run).node;
          if (!record->present.test(i)) {
            EXPECT_FALSE(node) << i;
            continue;
          }
          told[(record->first - kBase).get() + (std::uint64_t{i} << record->order.get())] = {
              record->order, record->observable.test(i), record->accessed.test(i),
              record->dirty.test(i), node ? node->get() : -1};
        }
      }
      EXPECT_FALSE(reader.error()) << reader.error()->message;
    });
    EXPECT_TRUE(stats) << stats.error().message;
    if (stats) stats_ = *stats;
    return told;
  }

  Machine machine_;
  Tables tables_;
  MemoryArea area_;
  TrackerOptions options_;
  ProcessIdentity process_{Pid(42), 4711, Asid(9), "db"};
  std::unique_ptr<Tracker> tracker_;
  std::vector<ScanRange> records_;
  ScanStats stats_;
};

TEST_F(BpfTracker, EveryKindOfSmallPage) {
  table()[3] = entry(100);
  table()[4] = entry(101, pte::kAccessed);
  table()[70] = entry(0x40000 + 5, pte::kAccessed | pte::kDirty);
  table()[71] = entry(102, pte::kSpecial | pte::kAccessed);  // zero page
  table()[72] = entry(0x90000, pte::kAccessed);              // nobody's memory
  table()[73] = (~std::uint64_t{0} & (std::uint64_t{0x40001} ^ 0xffffffffff) << kPageShift &
                 0x000ffffffffff000) |
                pte::kProtNone | pte::kAccessed;  // NUMA hint on node 1
  table()[74] = 0x1234000 << 9;                   // swapped
  const auto told = scan();
  EXPECT_EQ(told, (std::map<std::uint64_t, Told>{
                      {3, {kOrder4K, true, false, false, 0}},
                      {4, {kOrder4K, true, true, false, 0}},
                      {70, {kOrder4K, true, true, true, 1}},
                      {71, {kOrder4K, false, false, false, -1}},
                      {72, {kOrder4K, false, false, false, -1}},
                      {73, {kOrder4K, true, true, false, 1}},
                  }));
  EXPECT_EQ(stats_.accessed, 3u);
  ASSERT_THAT(records_, SizeIs(1));
  EXPECT_EQ(records_[0].first, kBase + PageCount(3)) << "no longer than what is present";
  EXPECT_EQ(records_[0].count, PageCount(71));
}

TEST_F(BpfTracker, HugePagesComeBetweenTablesInOrder) {
  Table& upper = tables_.upper[kBase];
  upper[0] = entry(1);  // the table of the fixture
  upper[1] = entry(0x200, pte::kLeaf | pte::kAccessed | pte::kDirty);
  upper[2] = entry(0x40000, pte::kLeaf);
  upper[3] = entry(2);
  table(0)[511] = entry(7);
  table(3)[0] = entry(8, pte::kAccessed);
  const auto told = scan();
  EXPECT_EQ(told, (std::map<std::uint64_t, Told>{
                      {511, {kOrder4K, true, false, false, 0}},
                      {512, {kOrder2M, true, true, true, 0}},
                      {1024, {kOrder2M, true, false, false, 1}},
                      {1536, {kOrder4K, true, true, false, 0}},
                  }));
  ASSERT_THAT(records_, SizeIs(3));
  EXPECT_LT(records_[0].first, records_[1].first);
  EXPECT_LT(records_[1].first, records_[2].first);
}

TEST_F(BpfTracker, PagesOfATableThatCouldNotBeReadAreThereAndUnknown) {
  Table& upper = tables_.upper[kBase];
  upper[0] = entry(1);
  upper[1] = entry(2);  // whose table is not among those that were copied
  upper[2] = entry(3);
  table(0)[511] = entry(7);
  table(2)[0] = entry(8, pte::kAccessed);
  const auto told = scan();
  ASSERT_THAT(records_, SizeIs(3));
  EXPECT_EQ(records_[1].first, kBase + PageCount(512));
  EXPECT_EQ(records_[1].count, PageCount(512));
  EXPECT_EQ(told.at(512), (Told{kOrder4K, false, false, false, -1}));
  EXPECT_EQ(told.at(1023), (Told{kOrder4K, false, false, false, -1}));
  EXPECT_EQ(told.at(1024), (Told{kOrder4K, true, true, false, 0}));
  records_.clear();
  (void)scan({{kBase + PageCount(600), PageCount(5)}});
  ASSERT_THAT(records_, SizeIs(1));
  EXPECT_EQ(records_[0].first, kBase + PageCount(600));
  EXPECT_EQ(records_[0].count, PageCount(5));
}

TEST_F(BpfTracker, TheHugeZeroPageHasNoNodeAndTellsNothing) {
  tables_.upper[kBase][1] = 0x200000 | pte::kPresent | pte::kLeaf | pte::kAccessed;
  EXPECT_EQ(scan(), (std::map<std::uint64_t, Told>{{512, {kOrder2M, false, false, false, -1}}}));
}

TEST_F(BpfTracker, AHugePageThatTwoRangesShareIsToldOnce) {
  tables_.upper[kBase][1] = entry(0x200, pte::kLeaf);
  EXPECT_THAT(
      scan({{kBase + PageCount(600), PageCount(5)}, {kBase + PageCount(700), PageCount(5)}}),
      SizeIs(1));
  EXPECT_THAT(records_, SizeIs(1));
}

TEST_F(BpfTracker, RangesAreKeptToWithinATable) {
  for (std::uint64_t i = 0; i < kTableEntries; ++i) table()[i] = entry(i, pte::kAccessed);
  const auto told =
      scan({{kBase + PageCount(65), PageCount(3)}, {kBase + PageCount(500), PageCount(9)}});
  EXPECT_THAT(told, SizeIs(12));
  EXPECT_TRUE(told.contains(65) && told.contains(67) && told.contains(500) && told.contains(508));
  EXPECT_EQ(stats_.entries, 12u);
}

TEST_F(BpfTracker, WhatOthersMayTouchIsNeverIdle) {
  table()[0] = entry(0);
  table()[1] = entry(1, pte::kAccessed);
  area_.file = true;
  const std::map<std::uint64_t, Told> expected{{0, {kOrder4K, false, false, false, 0}},
                                               {1, {kOrder4K, true, true, false, 0}}};
  EXPECT_EQ(scan(), expected) << "a file";
  tables_.areas[0].file = false;
  tables_.second_mmu = true;
  EXPECT_EQ(scan(), expected) << "a second MMU";
}

TEST_F(BpfTracker, AreasOfTheProgramsOwnPolicyAndNewOnesAreUnknown) {
  table()[0] = entry(0, pte::kAccessed);
  table()[300] = entry(1, pte::kAccessed);
  area_.end = kBase + PageCount(200);
  area_.placed = true;
  tables_.areas = {area_, {kBase + PageCount(400), kBase + PageCount(500)}};
  EXPECT_EQ(scan(), (std::map<std::uint64_t, Told>{{0, {kOrder4K, false, false, false, 0}},
                                                   {300, {kOrder4K, false, false, false, 0}}}));
  EXPECT_EQ(stats_.accessed, 0u);
}

TEST_F(BpfTracker, UnscannableAreasAreSkippedAndCounted) {
  table()[0] = entry(0);
  table()[300] = entry(1);
  area_.end = kBase + PageCount(200);
  area_.unscannable = true;
  tables_.areas = {area_, {kBase + PageCount(200), kBase + PageCount(512)}};
  EXPECT_THAT(scan(), ElementsAre(testing::Key(300)));
  EXPECT_EQ(stats_.skipped, PageCount(200));
}

TEST_F(BpfTracker, SmallProcessesAreClearedAtOnceAndOnlyWhenTouched) {
  table()[0] = entry(0);
  (void)scan();
  EXPECT_THAT(machine_.written, IsEmpty()) << "nothing to clear";
  table()[1] = entry(1, pte::kAccessed);
  (void)scan();
  EXPECT_THAT(machine_.written, ElementsAre("/proc/42/clear_refs=1"));
  EXPECT_THAT(machine_.cold, IsEmpty());
}

TEST_F(BpfTracker, ColdClearsTouchedBlocksOnlyAndDistrustsWhatItLeavesAlone) {
  options_.clear = TrackerOptions::Clear::kCold;
  table(0)[0] = entry(0, pte::kAccessed);
  table(1)[0] = entry(1, pte::kAccessed);
  table(2)[0] = entry(2);
  table(3)[0] = entry(3, pte::kAccessed);
  MemoryArea locked{kBase + PageCount(1536), kBase + PageCount(2048)};
  locked.locked = true;
  area_.end = locked.first;
  tables_.areas = {area_, locked};
  const auto told = scan();
  EXPECT_FALSE(told.at(1536).observable) << "MADV_COLD leaves locked memory alone";
  EXPECT_THAT(machine_.written, IsEmpty());
  ASSERT_THAT(machine_.cold, SizeIs(1));
  EXPECT_EQ(machine_.cold[0].first, kBase);
  EXPECT_EQ(machine_.cold[0].count, PageCount(1024)) << "two blocks in one range, not the idle one";
}

TEST_F(BpfTracker, ARangeThatCannotBeMadeColdDoesNotStopTheRest) {
  options_.clear = TrackerOptions::Clear::kCold;
  area_.end = kBase + PageCount(4096);
  for (const std::uint64_t n : {0, 2, 4}) table(n)[0] = entry(n, pte::kAccessed);
  machine_.refuses = kBase + PageCount(1024);
  (void)scan();
  ASSERT_THAT(machine_.cold, SizeIs(2));
  EXPECT_EQ(machine_.cold[1].first, kBase + PageCount(2048));
}

TEST_F(BpfTracker, AnAddressSpaceThatIsGoneIsNotFound) {
  (void)scan();
  machine_.gone = true;
  ScanRequest request;
  request.asid = process_.asid;
  const auto after = tracker_->scan(request, [](std::span<const std::byte>) {});
  ASSERT_FALSE(after);
  EXPECT_EQ(after.error().kind, ErrorKind::kNotFound);
}

TEST(PageTableBits, EveryWayReadsTheSame) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    std::array<std::uint64_t, kTableEntries> table;
    for (auto& e : table) e = random() & random() & 0xffff0fffffffffff;
    const std::uint64_t first = random() % (1ull << 40), end = first + random() % (1ull << 39);
    const auto ways = table_readings();
    ASSERT_EQ(ways.front().name, "scalar");
    const TableBits truth = ways.front().read(table, first, end);
    for (const TableReading& way : ways) {
      const TableBits bits = way.read(table, first, end);
      EXPECT_EQ(bits.present, truth.present) << way.name;
      EXPECT_EQ(bits.accessed, truth.accessed) << way.name;
      EXPECT_EQ(bits.dirty, truth.dirty) << way.name;
      EXPECT_EQ(bits.special, truth.special) << way.name;
      EXPECT_EQ(bits.near, truth.near) << way.name;
    }
  }
}

TEST(NodeMap, BlocksOfOneNodeAreOneRange) {
  TreeSystem system;
  system.files["/sys/devices/system/memory/block_size_bytes"] = "8000000\n";
  for (const char* block : {"node0/memory0", "node0/memory1", "node1/memory2", "node0/memory40"})
    system.files[std::string("/sys/devices/system/node/") + block + "/"];
  const auto map = NodeMap::read(system);
  ASSERT_TRUE(map) << map.error().message;
  ASSERT_NE(map->find(0), nullptr);
  EXPECT_EQ(map->find(0)->end, 2u * 32768);
  ASSERT_NE(map->find(2 * 32768), nullptr);
  EXPECT_EQ(map->find(2 * 32768)->node, NodeId(1));
  EXPECT_EQ(map->find(3 * 32768), nullptr);
  EXPECT_EQ(map->end(), 41u * 32768);
}

TEST(NodeMap, ZonesServeWhereThereAreNoBlocks) {
  TreeSystem system;
  system.files["/proc/zoneinfo"] =
      "Node 0, zone      DMA\n        spanned  4095\n  start_pfn:           1\n"
      "Node 0, zone   Normal\n        spanned  5000\n  start_pfn:           4096\n"
      "Node 1, zone   Normal\n        spanned  18446744073709551615\n  start_pfn:  9\n"
      "Node 1, zone  Movable\n        spanned  0\n";
  const auto map = NodeMap::read(system);
  ASSERT_TRUE(map) << map.error().message;
  EXPECT_EQ(map->find(0), nullptr);
  EXPECT_EQ(map->find(4095), map->find(9000));
  EXPECT_EQ(map->end(), 9096u) << "a zone that can't be is none";
}

TEST(NodeMap, OverlappingNodesAreRefused) {
  TreeSystem system;
  EXPECT_FALSE(NodeMap::read(system));
  system.files["/proc/zoneinfo"] =
      "Node 0, zone   Normal\n        spanned  100\n  start_pfn:           0\n"
      "Node 1, zone   Normal\n        spanned  100\n  start_pfn:           50\n";
  const auto map = NodeMap::read(system);
  ASSERT_FALSE(map);
  EXPECT_EQ(map.error().kind, ErrorKind::kUnsupported);
}

}  // namespace
}  // namespace thermocline
