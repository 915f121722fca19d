// SPDX-License-Identifier: Apache-2.0
// Any text as a device's hot list: what is taken lies in the device's memory, sorted, each frame
// once.
#include <algorithm>
#include <cstdlib>

#include "tracking/hot_list.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace thermocline;
  const auto list = parse_hot_list({reinterpret_cast<const char*>(data), size});
  if (!list) return 0;
  const auto frames = list->hot_frames();
  if (!std::is_sorted(frames.begin(), frames.end())) std::abort();
  if (std::adjacent_find(frames.begin(), frames.end()) != frames.end()) std::abort();
  for (const std::uint64_t frame : frames)
    if (frame < list->first_frame || frame - list->first_frame >= list->frames) std::abort();
  return 0;
}
