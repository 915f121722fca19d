// SPDX-License-Identifier: Apache-2.0
#include "cli/page_carrier.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <map>

#include "tree_system.h"

namespace thermocline {
namespace {

using testing::HasSubstr;

/// A process with a page map and pages on nodes, and a kernel that moves them while there is room.
class Kernel final : public TreeSystem {
 public:
  Kernel() {
    files["/proc/9/stat"] = "9 (app) S 1 9 9 0 -1 4194304 0 0 0 0 1 1 0 0 20 0 1 0 77 0 0\n";
    files["/proc/9/maps"] =
        "200000-600000 rw-p 00000000 00:00 0 \n800000-803000 rw-p 00000000 00:00 0 \n"
        "900000-901000 r-xp 00000000 00:00 0 [vdso]\n";
    node[0x900] = 2;  // that of the kernel: nobody's to move
    files["/proc/9/statm"] = "2000 1500 0 0 0 0 0\n";
    for (std::uint64_t page = 0x200; page < 0x600; ++page) node[page] = 1;
    for (std::uint64_t page = 0x800; page < 0x803; ++page) node[page] = 0;
  }
  Result<UniqueFd> open_device(const std::string&, int) override {
    return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  Result<UniqueFd> pidfd_open(Pid) override {
    return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  bool pidfd_exited(int) const override { return false; }
  long pread(int, std::span<std::byte> into, std::uint64_t offset) const override {
    for (std::size_t i = 0; i * 8 < into.size(); ++i) {
      const std::uint64_t page = offset / 8 + i;
      // No page frames: where a page lies has to be asked.
      const std::uint64_t entry = node.contains(page) ? std::uint64_t{1} << 63 : 0;
      std::memcpy(into.data() + i * 8, &entry, 8);
    }
    return static_cast<long>(into.size());
  }
  long move_pages(Pid, std::span<void* const> pages, std::span<const int> nodes,
                  std::span<int> status, int flags) override {
    for (std::size_t i = 0; i < pages.size(); ++i) {
      const std::uint64_t page = reinterpret_cast<std::uint64_t>(pages[i]) >> kPageShift;
      const auto found = node.find(page);
      status[i] = found == node.end() ? -ENOENT : found->second;
      if (nodes.empty() || found == node.end() || found->second == nodes[i]) continue;
      if (room == 0) return -ENOMEM;
      --room;
      status[i] = found->second = nodes[i];
      flags_seen |= flags;
    }
    return 0;
  }
  [[nodiscard]] std::uint64_t on(int which) const {
    std::uint64_t n = 0;
    for (const auto& [page, where] : node) n += where == which;
    return n;
  }

  std::map<std::uint64_t, int> node;
  std::uint64_t room = 1 << 20;
  int flags_seen = 0;
};

class PageCarrier : public testing::Test {
 protected:
  CarryResult carry(const CarryRequest& request, const CarryProgress& progress = nullptr) {
    const auto process = identify_process(kernel_, Pid(9));
    EXPECT_TRUE(process);
    const auto result = carry_pages(kernel_, *process, request, progress);
    EXPECT_TRUE(result) << result.error().message;
    return result.value_or(CarryResult{});
  }
  Kernel kernel_;
};

TEST_F(PageCarrier, MovesWhatIsElsewhereAndCountsWhatIsThere) {
  CarryRequest request;
  request.to = NodeId(0);
  request.dry_run = true;
  EXPECT_EQ(carry(request).asked, PageCount(1024));
  EXPECT_EQ(kernel_.on(0), 3u) << "a dry run moves nothing";
  request.dry_run = false;
  const CarryResult result = carry(request);
  EXPECT_EQ(result.already, PageCount(3));
  EXPECT_EQ(result.of(MoveOutcome::kMoved), PageCount(1024));
  EXPECT_EQ(kernel_.on(0), 1027u);
  EXPECT_EQ(carry(request).asked, PageCount(0));
}

TEST_F(PageCarrier, RangesAndNodesAreKeptTo) {
  CarryRequest request;
  request.to = NodeId(0);
  request.ranges = {{Vpn(0x1f0), PageCount(0x20)}, {Vpn(0x5ff), PageCount(1000)}};
  EXPECT_EQ(carry(request).of(MoveOutcome::kMoved), PageCount(0x11));
  EXPECT_EQ(kernel_.node[0x20f], 0);
  EXPECT_EQ(kernel_.node[0x210], 1);
  EXPECT_EQ(kernel_.node[0x5ff], 0);
  request.ranges.clear();
  request.from = NodeId(3);
  EXPECT_EQ(carry(request).asked, PageCount(0));
}

TEST_F(PageCarrier, AFullNodeEndsIt) {
  kernel_.files["/proc/9/maps"] = "200000-e00000 rw-p 00000000 00:00 0 \n";
  for (std::uint64_t page = 0x200; page < 0xe00; ++page) kernel_.node[page] = 1;
  kernel_.room = 100;
  CarryRequest request;
  request.to = NodeId(0);
  const CarryResult result = carry(request);
  EXPECT_TRUE(result.full);
  EXPECT_EQ(result.of(MoveOutcome::kMoved), PageCount(100));
  EXPECT_EQ(kernel_.on(0), 100u);
}

TEST_F(PageCarrier, StopsWhenItIsToldTo) {
  CarryRequest request;
  request.to = NodeId(0);
  int calls = 0;
  const CarryResult result = carry(request, [&](const CarryResult&) { return ++calls < 1; });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(result.of(MoveOutcome::kMoved), result.asked) << "what was begun is finished";
}

TEST(ParseRanges, SortsJoinsAndRounds) {
  const std::vector<std::string> texts{"0x5000-6001", "1000-2000", "1800-4000"};
  const auto ranges = parse_ranges(texts);
  ASSERT_TRUE(ranges);
  ASSERT_EQ(ranges->size(), 2u);
  EXPECT_EQ((*ranges)[0].first, Vpn(1));
  EXPECT_EQ((*ranges)[0].count, PageCount(3));
  EXPECT_EQ((*ranges)[1].first, Vpn(5));
  EXPECT_EQ((*ranges)[1].count, PageCount(2));
  EXPECT_TRUE(parse_ranges({})->empty());
}

TEST(ParseRanges, RefusesWhatIsNone) {
  for (const std::string text : {"", "-", "5", "5-", "-5", "5-5", "6-5", "x-y", "1000-2000-3000",
                                 "1 000-2000", "0-fffffffffffffffff", "0-ffffffffffffffff"}) {
    const auto ranges = parse_ranges(std::vector<std::string>{text});
    ASSERT_FALSE(ranges) << text;
    EXPECT_EQ(ranges.error().kind, ErrorKind::kUsage);
    EXPECT_THAT(ranges.error().message, HasSubstr("/proc/PID/maps"));
  }
}

}  // namespace
}  // namespace thermocline
