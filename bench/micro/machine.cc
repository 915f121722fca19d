// SPDX-License-Identifier: Apache-2.0
#include "bench/micro/machine.h"

#include <unistd.h>

#include <cstdio>
#include <map>
#include <random>

namespace thermocline::bench {

const std::vector<std::byte>& window_records(int active_of_ten) {
  static std::map<int, std::vector<std::byte>> made;
  std::vector<std::byte>& bytes = made[active_of_ten];
  if (!bytes.empty()) return bytes;
  std::mt19937_64 rng(1);
  RecordWriter writer(bytes);
  std::vector<EntryObservation> entries(kBlockEntries);
  RecordHeader header;
  header.asid = Asid(1);
  header.cleared = true;
  for (std::uint64_t b = 0; b < kBlocks; ++b) {
    const std::uint64_t kind = rng() % 10;
    const bool active = static_cast<int>(b % 10) < active_of_ten;
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < kBlockEntries; ++i) {
      if (i % 16 == 0) bits = rng();
      const bool second = kind == 9 ? i / 64 % 2 == 1 : kind >= 3;
      const bool accessed = active && bits % 16 < 3;
      bits >>= 4;
      entries[i] = {NodeId(second ? 1 : 0), true, true, accessed, false};
    }
    writer.append(header, b, Vpn(b * kBlockEntries), kOrder4K, entries);
  }
  bytes.shrink_to_fit();
  return bytes;
}

std::size_t resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  unsigned long long size = 0, resident = 0;
  const int fields = std::fscanf(file, "%llu %llu", &size, &resident);
  std::fclose(file);
  return fields == 2 ? resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

}  // namespace thermocline::bench
