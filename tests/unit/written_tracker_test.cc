// SPDX-License-Identifier: Apache-2.0
// The written tracker, and the list of present pages that it and damon share, on a page map that a
// test keeps. tracker_compliance holds it to the contract on real ones.
#include "tracking/written_tracker.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "tracking/record.h"

namespace thermocline {
namespace {

constexpr std::uint64_t kPresent = std::uint64_t{1} << 63, kAlone = std::uint64_t{1} << 56,
                        kSoftDirty = std::uint64_t{1} << 55;

/// Process 42 with three mappings, on one node or on two: memory block 0 is node 0's, block 1 node
/// 1's.
class Machine final : public System {
 public:
  Result<std::string> read_file(const std::string& path) const override {
    const auto at = files.find(path);
    if (at == files.end()) return fail_errno(ENOENT, "can't read " + path);
    return at->second;
  }
  Status write_file(const std::string& path, std::string_view text) override {
    written.push_back(path + "=" + std::string(text));
    return {};
  }
  Result<std::vector<std::string>> list_dir(const std::string& path) const override {
    if (path == "/sys/devices/system/node") return std::vector<std::string>{"node0", "node1"};
    if (path == "/sys/devices/system/node/node0") return std::vector<std::string>{"memory0"};
    if (path == "/sys/devices/system/node/node1") return std::vector<std::string>{"memory1"};
    return fail_errno(ENOENT, "can't list " + path);
  }
  bool exists(const std::string&) const override { return true; }
  Result<std::string> read_link_name(const std::string& p) const override {
    return fail_errno(ENOENT, "no " + p);
  }
  Nanoseconds now() const override { return Nanoseconds(1000); }
  Nanoseconds process_cpu_time() const override { return {}; }
  Result<UniqueFd> open_device(const std::string&, int) override { return fd(); }
  Result<UniqueFd> pidfd_open(Pid) override { return fd(); }
  int ioctl(int, unsigned long, void*) override { return -ENOTTY; }
  long move_pages(Pid, std::span<void* const> pages, std::span<const int>, std::span<int> status,
                  int) override {
    for (std::size_t i = 0; i < pages.size(); ++i) status[i] = asked_node;
    return 0;
  }
  long pread(int, std::span<std::byte> into, std::uint64_t offset) const override {
    for (std::size_t i = 0; i < into.size() / 8; ++i) {
      const auto at = pagemap.find(offset / 8 + i);
      const std::uint64_t entry = at != pagemap.end() ? at->second : others;
      std::memcpy(into.data() + i * 8, &entry, 8);
    }
    return static_cast<long>(into.size());
  }
  bool pidfd_exited(int) const override { return false; }

  std::map<std::string, std::string> files{
      {"/proc/42/stat", "42 (db) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 1000000 100\n"},
      {"/proc/42/maps",
       "10000000-10008000 rw-p 00000000 00:00 0\n"
       "20000000-20004000 rw-s 00000000 00:01 7 /dev/shm/x\n"
       "100000000000-180000000000 rw-p 00000000 00:00 0\n"},
      {"/proc/42/statm", "100 20 0 0 0 0 0\n"},
      {"/sys/devices/system/node/has_memory", "0\n"},
      {"/sys/devices/system/memory/block_size_bytes", "8000000\n"}};
  std::map<std::uint64_t, std::uint64_t> pagemap;
  std::uint64_t others = kPresent | kSoftDirty;  ///< entries that `pagemap` doesn't have
  int asked_node = 1;
  std::vector<std::string> written;

 private:
  static Result<UniqueFd> fd() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }
};

struct Told {
  bool observable = false, accessed = false;
  int node = -1;
  bool operator==(const Told&) const = default;
  friend void PrintTo(const Told& t, std::ostream* out) {
    *out << "observable " << t.observable << " accessed " << t.accessed << " node " << t.node;
  }
};

class Written : public testing::Test {
 protected:
  void open() {
    auto made = written_tracker_factory().make(machine_, {});
    ASSERT_TRUE(made) << made.error().message;
    tracker_ = std::move(*made);
    process_ = *identify_process(machine_, Pid(42));
    ASSERT_TRUE(tracker_->attach(process_));
    machine_.others = 0;
  }
  std::map<std::uint64_t, Told> scan(bool clear = true, std::span<const ScanRange> ranges = {}) {
    std::map<std::uint64_t, Told> told;
    ScanRequest request;
    request.asid = process_.asid;
    request.clear = clear;
    request.ranges = ranges;
    const auto stats = tracker_->scan(request, [&](std::span<const std::byte> bytes) {
      RecordReader reader(bytes);
      while (const auto record = reader.next()) {
        EXPECT_TRUE(record->writes_only);
        EXPECT_EQ(record->cleared, clear);
        std::uint32_t run = 0, left = record->node_run(0).count;
        for (std::uint32_t i = 0; i < record->count; ++i, --left) {
          if (left == 0) left = record->node_run(++run).count;
          if (!record->present.test(i)) continue;
          const auto node = record->node_run(run).node;
          told[record->first.get() + i] = {record->observable.test(i), record->accessed.test(i),
                                           node ? node->get() : -1};
        }
      }
      EXPECT_FALSE(reader.error());
    });
    EXPECT_TRUE(stats) << stats.error().message;
    if (stats) stats_ = *stats;
    return told;
  }

  Machine machine_;
  ProcessIdentity process_;
  std::unique_ptr<Tracker> tracker_;
  ScanStats stats_;
};

TEST_F(Written, AKernelThatNotesNoWritesIsUnsupported) {
  machine_.others = kPresent;
  const Status works = written_tracker_factory().probe(machine_);
  ASSERT_FALSE(works);
  EXPECT_EQ(works.error().kind, ErrorKind::kUnsupported);
  EXPECT_TRUE(machine_.written.empty()) << "a probe clears nothing";
}

TEST_F(Written, WritesAreTouchesAndOfSharedMemoryOnlyTheyCount) {
  open();
  machine_.pagemap = {{0x10001, kPresent | kAlone | kSoftDirty},
                      {0x10002, kPresent | kAlone},
                      {0x10004, kPresent},  // shared with a fork, or the zero page
                      {0x10005, kPresent | kSoftDirty},
                      {0x20000, kPresent | kAlone},
                      {0x20001, kPresent | kAlone | kSoftDirty}};
  const std::map<std::uint64_t, Told> wanted{
      {0x10001, {true, true, 0}}, {0x10002, {true, false, 0}},  {0x10004, {false, false, 0}},
      {0x10005, {true, true, 0}}, {0x20000, {false, false, 0}}, {0x20001, {true, true, 0}}};
  EXPECT_EQ(scan(false), wanted);
  EXPECT_TRUE(machine_.written.empty());
  EXPECT_EQ(scan(), wanted);
  EXPECT_EQ(machine_.written, std::vector<std::string>{"/proc/42/clear_refs=4"});
  EXPECT_EQ(stats_.accessed, 3u);
  EXPECT_EQ(stats_.records, 2u);
  EXPECT_EQ(stats_.entries, 12u);
  EXPECT_EQ(stats_.skipped, pages_of(Bytes(std::uint64_t{0x80000000000}))) << "a range set aside";
}

TEST_F(Written, OnlyTheRangesAreListed) {
  open();
  machine_.others = kPresent | kAlone;
  const ScanRange ranges[] = {{Vpn(0xfff0), PageCount(0x12)},
                              {Vpn(0x10004), PageCount(1)},
                              {Vpn(0x10007), PageCount(0x10000 - 6)}};
  std::vector<std::uint64_t> pages;
  for (const auto& [page, told] : scan(true, ranges)) pages.push_back(page);
  EXPECT_EQ(pages, (std::vector<std::uint64_t>{0x10000, 0x10001, 0x10004, 0x10007, 0x20000}));
}

TEST_F(Written, NodesAreThoseOfThePageFramesOrTheKernelIsAsked) {
  machine_.files["/sys/devices/system/node/has_memory"] = "0-1\n";
  open();
  machine_.pagemap = {{0x10000, kPresent | kAlone | 5},
                      {0x10001, kPresent | kAlone | 0x8005},
                      {0x10002, kPresent | kAlone},             // a user who may not know frames
                      {0x10003, kPresent | kAlone | 0x99999}};  // no memory of a node
  auto told = scan();
  EXPECT_EQ(told[0x10000].node, 0);
  EXPECT_EQ(told[0x10001].node, 1);
  EXPECT_EQ(told[0x10002].node, 1);
  EXPECT_EQ(told[0x10003].node, -1);
  machine_.asked_node = -14;
  EXPECT_EQ(scan()[0x10002].node, -1);
}

}  // namespace
}  // namespace thermocline
