// SPDX-License-Identifier: Apache-2.0
// The files of /proc that tell of a process's memory, well-formed and not.
#include "tracking/proc_maps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace thermocline {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

std::string seed(const std::string& name) {
  std::ifstream in(std::string(THERMOCLINE_SOURCE_DIR) + "/tests/fuzz/corpus/maps/" + name);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(ProcMaps, MapsAndSmapsTellTheSameMappings) {
  const auto maps = parse_maps(seed("maps"));
  const auto smaps = parse_smaps(seed("smaps"));
  ASSERT_TRUE(maps) << maps.error().message;
  ASSERT_TRUE(smaps) << smaps.error().message;
  ASSERT_THAT(*maps, SizeIs(3)) << "vsyscall is the kernel's";
  ASSERT_THAT(*smaps, SizeIs(3));
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ((*smaps)[i].mapping, (*maps)[i]);
  const MappingUse& text = (*smaps)[0];
  EXPECT_EQ(text.mapping.first, Vpn(0x5600a));
  EXPECT_TRUE(text.mapping.file);
  EXPECT_EQ(text.resident, 8_KiB);
  EXPECT_EQ(text.referenced, 4_KiB);
  EXPECT_FALSE((*smaps)[1].mapping.file);
  EXPECT_FALSE((*smaps)[1].unscannable);
  EXPECT_TRUE((*smaps)[2].unscannable) << "hugetlbfs";
  EXPECT_TRUE((*smaps)[2].mapping.shared);
}

TEST(ProcMaps, NamesMayHoldAnything) {
  const auto smaps = parse_smaps(
      "1000-2000 rw-p 00000000 08:01 9    /tmp/Rss:  9 kB 3000-4000 rw-p \xff\x01:\n"
      "Rss:  4 kB\nNew:  7 things\nReferenced:  0 kB\n");
  ASSERT_TRUE(smaps) << smaps.error().message;
  ASSERT_THAT(*smaps, SizeIs(1));
  EXPECT_EQ((*smaps)[0].resident, 4_KiB);
}

TEST(ProcMaps, FilesAreNamedByDeviceInodeAndName) {
  const auto maps = parse_maps(
      "1000-2000 r-xp 00003000 08:01 9   /usr/lib/libc.so.6\n"
      "2000-3000 rw-s 00000000 00:01 9   /memfd:a (deleted)\n"
      "3000-4000 r--s 00001000 00:01 9   /memfd:a (deleted)\n"
      "4000-5000 rw-s 00000000 00:01 9   /memfd:b (deleted)\n"
      "5000-6000 rw-s 00000000 00:01 0   /SYSV0052e2c1 (deleted)\n"
      "6000-7000 rw-p 00000000 00:00 0   [heap]\n");
  ASSERT_TRUE(maps) << maps.error().message;
  ASSERT_THAT(*maps, SizeIs(6));
  const auto same = [&](std::size_t a, std::size_t b) {
    return (*maps)[a].device == (*maps)[b].device && (*maps)[a].inode == (*maps)[b].inode &&
           (*maps)[a].name == (*maps)[b].name;
  };
  EXPECT_TRUE((*maps)[0].executable);
  EXPECT_FALSE((*maps)[0].writable);
  EXPECT_EQ((*maps)[0].offset, PageCount(3));
  EXPECT_EQ((*maps)[0].device, 0x800000001u);
  EXPECT_TRUE(same(1, 2));
  EXPECT_EQ((*maps)[2].offset, PageCount(1));
  EXPECT_FALSE((*maps)[2].writable);
  EXPECT_FALSE(same(1, 3)) << "numbers of an IPC name space and of memfd may be the same";
  EXPECT_TRUE((*maps)[4].sysv) << "the first segment of all has the inode 0";
  EXPECT_FALSE((*maps)[4].file);
  EXPECT_EQ((*maps)[5].name, 0u);
}

TEST(ProcMaps, WhatTheKernelWouldNotWriteIsRefused) {
  const std::string good = "1000-2000 rw-p 00000000 00:00 0\n",
                    use = "Rss: 4 kB\nReferenced: 0 kB\n";
  EXPECT_TRUE(parse_maps(good));
  EXPECT_TRUE(parse_smaps(good + use));
  for (const std::string& bad :
       {std::string("hello\n"), std::string("1000 rw-p 0 0:0 0\n"),
        std::string("2000-1000 rw-p 0 0:0 0\n"), std::string("1000-1000 rw-p 0 0:0 0\n"),
        std::string("1001-2000 rw-p 0 0:0 0\n"),
        std::string("1000-fffffffffffff000 rw-p 0 0:0 0\n"), std::string("1000-2000 rw 0 0:0 0\n"),
        std::string("1000-2000 rw-p 0 0:0 x\n"), std::string("1000-2000 rw-p x 0:0 0\n"),
        std::string("1000-2000 rw-p 0 00 0\n"), good + good, std::string("1000-2000\n"),
        std::string("10000000000001000-2000 rw-p 0 0:0 0\n")}) {
    const auto result = parse_maps(bad);
    ASSERT_FALSE(result) << bad;
    EXPECT_EQ(result.error().kind, ErrorKind::kCorrupt) << bad;
  }
  for (const std::string& bad : {good, good + "Rss: 4 kB\n", good + "Referenced: 0 kB\n",
                                 good + "Rss: 8 kB\nReferenced: 0 kB\n",
                                 good + "Rss: 4 kB\nReferenced: 18446744073709551615 kB\n",
                                 good + "Rss: 4\nReferenced: 0 kB\n"}) {
    const auto result = parse_smaps(bad);
    ASSERT_FALSE(result) << bad;
    EXPECT_EQ(result.error().kind, ErrorKind::kCorrupt) << bad;
    EXPECT_THAT(result.error().message, HasSubstr("line "));
  }
}

TEST(ProcMaps, PagemapEntries) {
  EXPECT_FALSE(parse_pagemap(0).present);
  EXPECT_FALSE(parse_pagemap(std::uint64_t{1} << 62 | 77).present) << "swapped";
  EXPECT_EQ(parse_pagemap(std::uint64_t{1} << 62 | 77).pfn, 0u);
  const PagemapEntry mapped = parse_pagemap(std::uint64_t{1} << 63 | std::uint64_t{1} << 55 | 77);
  EXPECT_TRUE(mapped.present);
  EXPECT_EQ(mapped.pfn, 77u);
}

}  // namespace
}  // namespace thermocline
