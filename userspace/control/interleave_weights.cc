// SPDX-License-Identifier: Apache-2.0
#include "control/interleave_weights.h"

#include <algorithm>

#include "base/text.h"

namespace thermocline {

namespace {

constexpr const char* kFolder = "/sys/kernel/mm/mempolicy/weighted_interleave";

}  // namespace

InterleaveWeights::~InterleaveWeights() {
  restore();
}

Result<bool> InterleaveWeights::set(std::span<const NodeWeight> weights) {
  if (weights.empty()) {
    const bool had_some = !before_.empty();
    restore();
    return had_some;
  }
  if (!system_.exists(kFolder)) return false;
  const bool first = before_.empty();
  // Linux 6.16 and later may work them out by itself; a weight that is written ends that.
  if (const auto automatic = system_.read_file(std::string(kFolder) + "/auto"); first && automatic)
    before_.emplace_back(std::string(kFolder) + "/auto", std::string(trim(*automatic)));
  for (const NodeWeight& weight : weights) {
    const std::string file = fmt::format("{}/node{}", kFolder, weight.node.get());
    const bool kept = std::any_of(before_.begin(), before_.end(),
                                  [&](const auto& entry) { return entry.first == file; });
    const auto now = system_.read_file(file);
    const Status written = now ? system_.write_file(file, fmt::format("{}", weight.weight))
                               : tl::make_unexpected(now.error());
    if (!written) {
      restore();
      return tl::make_unexpected(written.error());
    }
    if (!kept) before_.emplace_back(file, std::string(trim(*now)));
  }
  return true;
}

void InterleaveWeights::restore() {
  // Last set first, so that "auto" comes back when the nodes have.
  for (auto entry = before_.rbegin(); entry != before_.rend(); ++entry)
    (void)system_.write_file(entry->first, entry->second);
  before_.clear();
}

}  // namespace thermocline
