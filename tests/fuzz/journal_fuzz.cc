// SPDX-License-Identifier: Apache-2.0
// The journal of `thermocline emulate numa-remote` from any bytes: what is accepted names only what
// the program itself would write to, and comes out as it went in.
#include <cstdlib>
#include <string>

#include "emulation/numa_remote/journal.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline::numa_remote;
  const auto journal = parse_journal(std::string(reinterpret_cast<const char*>(data), size));
  if (!journal) return 0;
  for (const std::string& group : {journal->group, journal->group_back})
    if (!group.empty() &&
        (!group.starts_with("/sys/fs/cgroup") || group.find("/..") != std::string::npos))
      std::abort();
  const auto again = parse_journal(journal_text(*journal));
  if (!again || !(*again == *journal)) std::abort();
  return 0;
}
