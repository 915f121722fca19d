// SPDX-License-Identifier: Apache-2.0
#include "tracking/replay_tracker.h"

#include <algorithm>

#include "tracking/recording.h"

namespace thermocline {

Result<std::unique_ptr<ReplayTracker>> ReplayTracker::open(std::vector<std::byte> records) {
  std::unique_ptr<ReplayTracker> tracker(new ReplayTracker(std::move(records)));
  std::map<Asid, std::size_t> current;  // number of the pass that each list of passes ends with
  std::size_t offset = 0;
  TC_TRY(for_each_record(tracker->records_, [&](const RecordView& record, std::size_t number) {
    std::vector<Pass>& passes = tracker->passes_[record.asid];
    if (passes.empty() || current[record.asid] != number) passes.push_back({record.scan_time, {}});
    current[record.asid] = number;
    std::vector<Chunk>& chunks = passes.back().chunks;
    if (!chunks.empty() && chunks.back().offset + chunks.back().size == offset)
      chunks.back().size += record.size;
    else
      chunks.push_back({offset, record.size});
    offset += record.size;
  }));
  return tracker;
}

std::vector<Asid> ReplayTracker::address_spaces() const {
  std::vector<Asid> result;
  for (const auto& [asid, passes] : passes_) result.push_back(asid);
  return result;
}

std::optional<Nanoseconds> ReplayTracker::next_time(Asid asid) {
  const auto next = attachments_.find(asid);
  if (!next || **next == passes_.at(asid).size()) return std::nullopt;
  return passes_.at(asid)[**next].time;
}

const std::string& ReplayTracker::name() const {
  static const std::string kName = "replay";
  return kName;
}

Status ReplayTracker::attach(const ProcessIdentity& process) {
  if (!passes_.contains(process.asid))
    return fail(ErrorKind::kNotFound, "nothing of address space {:#x} was recorded",
                process.asid.get());
  attachments_.put(process.asid, 0);
  return {};
}

Result<ScanStats> ReplayTracker::scan(const ScanRequest& request, const RecordSink& sink) {
  TC_ASSIGN(std::size_t * next, attachments_.find(request.asid));
  const std::vector<Pass>& passes = passes_.at(request.asid);
  if (*next == passes.size())
    return fail(ErrorKind::kNotFound, "the recording of address space {:#x} is through",
                request.asid.get());
  const auto wanted = [&](const RecordView& record) {
    const Vpn end = record.first + record.pages();
    return request.ranges.empty() ||
           std::any_of(request.ranges.begin(), request.ranges.end(), [&](const ScanRange& r) {
             return r.first < end && record.first < r.first + r.count;
           });
  };
  ScanStats stats;
  for (const Chunk& chunk : passes[*next].chunks) {
    const auto bytes = std::span(records_).subspan(chunk.offset, chunk.size);
    RecordReader reader(bytes);
    std::size_t from = 0, to = 0;  // what is wanted and not handed on yet
    while (const auto record = reader.next()) {
      if (!wanted(*record)) {
        if (to > from) sink(bytes.subspan(from, to - from));
        from = to = reader.offset();
        continue;
      }
      to = reader.offset();
      stats.entries += record->count;
      stats.accessed += record->accessed.population();
      ++stats.records;
      stats.bytes += record->size;
    }
    if (to > from) sink(bytes.subspan(from, to - from));
  }
  if (request.clear) ++*next;
  return stats;
}

}  // namespace thermocline
