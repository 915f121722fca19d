// SPDX-License-Identifier: Apache-2.0
#include "tracking/replay_tracker.h"

#include <algorithm>

#include "tracking/recording.h"

namespace thermocline {

Result<std::unique_ptr<ReplayTracker>> ReplayTracker::open(std::unique_ptr<RecordSource> source) {
  std::unique_ptr<ReplayTracker> tracker(new ReplayTracker(std::move(source)));
  std::map<Asid, std::size_t> current;  // number of the pass that each list of passes ends with
  TC_TRY(
      for_each_record(*tracker->source_, [&](const RecordView& record, const RecordPlace& place) {
        std::vector<Pass>& passes = tracker->passes_[record.asid];
        if (passes.empty() || current[record.asid] != place.pass)
          passes.push_back(
              {{place.pass, record.epoch, record.scan_time, record.window, record.cleared}, {}});
        current[record.asid] = place.pass;
        std::vector<Chunk>& chunks = passes.back().chunks;
        if (!chunks.empty() && chunks.back().piece == place.piece &&
            chunks.back().offset + chunks.back().size == place.offset)
          chunks.back().size += record.size;
        else
          chunks.push_back({place.piece, place.offset, record.size});
      }));
  return tracker;
}

std::vector<Asid> ReplayTracker::address_spaces() const {
  std::vector<Asid> result;
  for (const auto& [asid, passes] : passes_) result.push_back(asid);
  return result;
}

std::optional<ReplayTracker::PassHead> ReplayTracker::next_pass(Asid asid) {
  const auto next = attachments_.find(asid);
  if (!next || **next == passes_.at(asid).size()) return std::nullopt;
  return passes_.at(asid)[**next].head;
}

std::vector<ReplayTracker::PassHead> ReplayTracker::passes(Asid asid) const {
  std::vector<PassHead> heads;
  if (const auto found = passes_.find(asid); found != passes_.end())
    for (const Pass& pass : found->second) heads.push_back(pass.head);
  return heads;
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
    TC_ASSIGN(const auto piece, source_->piece(chunk.piece));
    const auto bytes = piece.subspan(chunk.offset, chunk.size);
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
