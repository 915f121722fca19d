// SPDX-License-Identifier: Apache-2.0
#include "trace/recorder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/text.h"

namespace thermocline::trace {

namespace {

constexpr Nanoseconds kRefresh = std::chrono::milliseconds(500);
/// What a killed recorder loses is at most this old.
constexpr Nanoseconds kFlush = std::chrono::seconds(1);
/// Pauses between passes are so many times as long as a pass, at least.
constexpr int kPause = 3;
/// Of a process; with more, the description would be too long for a frame.
constexpr std::size_t kMostRanges = 4096;

}  // namespace

std::vector<NamedRange> named_ranges(std::string_view maps) {
  constexpr std::uint64_t kEnd = std::uint64_t{1} << 57;
  std::vector<NamedRange> ranges;
  for (const std::string_view line : split(maps, '\n')) {
    // 7f00-7f10 rw-p 00000000 00:00 0     /a file
    const auto fields = words(line);
    if (fields.size() < 5) continue;
    const auto dash = fields[0].find('-');
    if (dash == std::string_view::npos) continue;
    const auto from = parse_u64(fields[0].substr(0, dash), 16);
    const auto to = parse_u64(fields[0].substr(dash + 1), 16);
    if (!from || !to || *to <= *from || *to > kEnd) continue;
    const std::string name =
        fields.size() > 5
            ? printable(line.substr(static_cast<std::size_t>(fields[5].data() - line.data())))
            : "";
    const Vpn first = Vpn::of_address(*from), end = Vpn::of_address(*to);
    if (!ranges.empty() && ranges.back().name == name &&
        ranges.back().first + ranges.back().pages == first)
      ranges.back().pages += end - first;
    else if (ranges.empty() || ranges.back().first + ranges.back().pages <= first)
      ranges.push_back({first, end - first, name});
    if (ranges.size() >= kMostRanges) break;
  }
  return ranges;
}

void describe_machine(const System& system, SessionInfo& session) {
  const auto line_after = [&](const std::string& path, std::string_view key) -> std::string {
    const auto text = system.read_file(path);
    if (!text) return "";
    for (const std::string_view line : split(*text, '\n'))
      if (line.starts_with(key))
        return printable(trim(line.substr(std::min(line.size(), line.find(':') + 1))));
    return "";
  };
  session.kernel = line_after("/proc/sys/kernel/osrelease", "");
  session.cpu = line_after("/proc/cpuinfo", "model name");
  const std::string total = line_after("/proc/meminfo", "MemTotal");
  if (const auto kib = parse_u64(std::string_view(total).substr(0, total.find(' '))))
    session.memory = Bytes(*kib * 1024);
}

Result<Nanoseconds> Recorder::step(Nanoseconds now) {
  if (begun_ && now < due_) return due_;
  if (!begun_ || now - refreshed_ >= kRefresh) {
    refresh_targets();
    refreshed_ = now;
  }
  const std::uint64_t numbered = counts_.windows + 1;
  counts_.entries = counts_.accessed = 0;
  const Nanoseconds begin = parts_.system.now();
  counts_.windows = numbered;
  for (auto& [pid, target] : targets_)
    if (target.attached) scan(target);
  counts_.pass = parts_.system.now() - begin;
  if (!begun_ || now - flushed_ >= kFlush) {
    parts_.writer.flush();
    flushed_ = now;
  }
  begun_ = true;
  TC_TRY(parts_.writer.check());
  due_ = now + std::max(window_, counts_.pass * (1 + kPause));
  return due_;
}

void Recorder::refresh_targets() {
  auto found = parts_.targets();
  if (!found) {
    if (found.error().kind != ErrorKind::kNotFound) trouble_ = found.error();
    found = std::vector<ProcessIdentity>();
  }
  std::set<Pid> seen;
  for (const ProcessIdentity& process : *found) {
    seen.insert(process.pid);
    Target& target = targets_[process.pid];
    const bool same = target.process.start_ticks == process.start_ticks;
    const bool other_image = same && has_another_image(target.process, process);
    if (target.attached && same && !other_image) {
      tell_process(target);
      continue;
    }
    if (target.attached) parts_.tracker->detach(target.process.asid);
    if (!same) target = Target{};
    if (target.attached && other_image) ++target.generation;
    attach(target, process);
  }
  counts_.processes = 0;
  for (auto it = targets_.begin(); it != targets_.end();) {
    if (!seen.contains(it->first)) {
      parts_.tracker->detach(it->second.process.asid);
      it = targets_.erase(it);
      continue;
    }
    counts_.processes += it->second.attached ? 1 : 0;
    ++it;
  }
}

void Recorder::attach(Target& target, const ProcessIdentity& found) {
  target.process = found;
  target.process.asid = make_asid(found.pid, found.start_ticks, target.generation);
  target.last_clear = {};
  target.maps_hash = 0;
  const Status attached = parts_.tracker->attach(target.process);
  target.attached = attached.has_value();
  if (attached) {
    tell_process(target);
    return;
  }
  if (attached.error().kind == ErrorKind::kNotFound) return;  // it has gone meanwhile
  trouble_ = attached.error();
  if (!std::exchange(target.refused, true)) parts_.log(attached.error().message);
}

void Recorder::tell_process(Target& target) {
  const auto maps = parts_.system.read_file(fmt::format("/proc/{}/maps", target.process.pid.get()));
  const std::size_t hash = (maps ? std::hash<std::string>{}(*maps) : 0) | 1;
  if (std::exchange(target.maps_hash, hash) == hash) return;
  parts_.writer.info(
      to_json(ProcessInfo{target.process.asid, target.process.pid, target.process.command,
                          maps ? named_ranges(*maps) : std::vector<NamedRange>()}));
}

void Recorder::scan(Target& target) {
  ScanRequest request;
  request.asid = target.process.asid;
  request.clear = true;
  request.epoch = Epoch(counts_.windows);
  const Nanoseconds now = parts_.system.now();
  if (target.last_clear.count() > 0) request.window = now - target.last_clear;
  const auto stats = parts_.tracker->scan(
      request, [&](std::span<const std::byte> records) { parts_.writer.append(records); });
  if (stats) {
    target.last_clear = now;
    counts_.records += stats->records;
    counts_.entries += stats->entries;
    counts_.accessed += stats->accessed;
    return;
  }
  // Exit or exec. If it is still there when targets are looked for, it has a new image.
  if (stats.error().kind != ErrorKind::kNotFound) {
    trouble_ = stats.error();
    if (!std::exchange(target.refused, true)) parts_.log(stats.error().message);
  }
  parts_.tracker->detach(target.process.asid);
  target.attached = false;
  ++target.generation;
  --counts_.processes;
  refreshed_ = {};  // look at once
}

}  // namespace thermocline::trace
