// SPDX-License-Identifier: Apache-2.0
// Bytes as entries of /proc/PID/pagemap and as page-table pages: every way to read a table says the
// same, and what isn't present has no page frame.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "tracking/page_table_bits.h"
#include "tracking/proc_maps.h"

namespace {

using namespace thermocline;

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::array<std::uint64_t, kTableEntries> table{};
  std::array<std::uint64_t, 2> frames{};  // the node's first and one past its last
  if (size >= sizeof(frames)) std::memcpy(frames.data(), data, sizeof(frames));
  std::memcpy(table.data(), data, std::min(size, sizeof(table)));
  for (const std::uint64_t raw : table) {
    const PagemapEntry entry = parse_pagemap(raw);
    require(entry.present || entry.pfn == 0);
    require(entry.pfn < std::uint64_t{1} << 55);
    require(pte::pfn(raw) < std::uint64_t{1} << 40);
  }
  const std::uint64_t first = frames[0] >> 24, end = frames[1] >> 24;
  const auto ways = table_readings();
  const TableBits truth = ways.front().read(table, first, end);
  for (const TableReading& way : ways) {
    const TableBits bits = way.read(table, first, end);
    require(bits.present == truth.present && bits.accessed == truth.accessed);
    require(bits.dirty == truth.dirty && bits.special == truth.special && bits.near == truth.near);
  }
  return 0;
}
