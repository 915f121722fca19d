// SPDX-License-Identifier: Apache-2.0
// What a scan told of each present page.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <ostream>

#include "tracking/record.h"
#include "tracking/tracker.h"

namespace thermocline {

struct Told {
  bool observable = false, accessed = false;
  int node = -1;
  bool operator==(const Told&) const = default;
  friend void PrintTo(const Told& t, std::ostream* out) {
    *out << "observable " << t.observable << " accessed " << t.accessed << " node " << t.node;
  }
};

/// By page number; a huge page is told by its first. The records must keep to their format, and
/// rise.
inline std::map<std::uint64_t, Told> told_in(std::span<const std::byte> bytes) {
  std::map<std::uint64_t, Told> told;
  RecordReader reader(bytes);
  Vpn after{0};
  while (const auto record = reader.next()) {
    EXPECT_GE(record->first, after);
    after = record->first + record->pages();
    const auto entries = entries_of(*record);
    for (std::size_t i = 0; i < entries.size(); ++i)
      if (entries[i].present)
        told[record->first.get() + i * record->order.pages().get()] = {
            entries[i].observable, entries[i].accessed,
            entries[i].node ? entries[i].node->get() : -1};
  }
  EXPECT_FALSE(reader.error()) << reader.error()->message;
  return told;
}

struct Scanned {
  std::map<std::uint64_t, Told> pages;
  std::vector<std::byte> bytes;
  ScanStats stats;
};

inline Scanned scan_with(Tracker& tracker, const ScanRequest& request) {
  Scanned result;
  const auto stats = tracker.scan(request, [&](std::span<const std::byte> bytes) {
    result.bytes.insert(result.bytes.end(), bytes.begin(), bytes.end());
  });
  EXPECT_TRUE(stats) << stats.error().message;
  if (stats) result.stats = *stats;
  result.pages = told_in(result.bytes);
  return result;
}

inline ScanRequest request_for(Asid asid, bool clear = true,
                               std::span<const ScanRange> ranges = {}) {
  ScanRequest request;
  request.asid = asid;
  request.ranges = ranges;
  request.clear = clear;
  return request;
}

}  // namespace thermocline
