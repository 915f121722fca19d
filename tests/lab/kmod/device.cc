// SPDX-License-Identifier: Apache-2.0
#include "device.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>

#include "tracking/record.h"

namespace thermocline::labtest {

namespace {

std::uint64_t pointer(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

void expand_record(const RecordView& record, Pages& pages) {
  std::uint32_t run = 0, left = 0;
  int node = -1;
  for (std::uint32_t i = 0; i < record.count; ++i, --left) {
    while (left == 0) {
      const NodeRun next = record.node_run(run++);
      left = next.count;
      node = next.node ? next.node->get() : -1;
    }
    if (!record.present.test(i)) continue;
    const std::uint64_t first = record.first.get() + (std::uint64_t{i} << record.order.get());
    pages[first] = Page{record.order.get(), record.observable.test(i), record.accessed.test(i),
                        record.dirty.test(i), node};
  }
}

}  // namespace

std::uint64_t start_ticks(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream rest(line.substr(name_end + 1));
  std::string word;
  for (int field = 3; field <= 22; ++field) rest >> word;
  return std::stoull(word);
}

Device::Device() {
  const int fd = open(THERMOCLINE_DEVICE, O_RDWR | O_CLOEXEC);
  if (fd < 0)
    error_ = errno;
  else
    fd_.reset(fd);
}

int Device::control(unsigned long request, void* argument) const {
  return ioctl(fd_.get(), request, argument) < 0 ? errno : 0;
}

int Device::attach(pid_t pid, std::uint64_t asid, std::uint64_t ticks) const {
  thermocline_attach request{};
  request.pid = pid;
  request.start_ticks = ticks != 0 ? ticks : start_ticks(pid);
  request.asid = asid;
  return control(THERMOCLINE_IOC_ATTACH, &request);
}

Pass Device::scan(std::uint32_t flags, const std::vector<Range>& ranges, std::size_t buffer_bytes,
                  std::uint64_t window_ns, bool expand) const {
  std::vector<std::uint64_t> buffer(buffer_bytes / 8);
  thermocline_scan call = valid_scan(buffer);
  call.flags = flags;
  call.range_count = static_cast<std::uint32_t>(ranges.size());
  call.ranges = pointer(ranges.data());
  call.window_ns = window_ns;

  Pass pass;
  std::uint64_t last_end = 0;
  do {
    pass.error = control(THERMOCLINE_IOC_SCAN, &call);
    if (pass.error != 0) break;
    ++pass.calls;
    RecordReader reader(std::as_bytes(std::span(buffer)).first(call.bytes));
    std::uint64_t records = 0;
    while (const auto record = reader.next()) {
      if (pass.records + records == 0)
        pass.first_sequence = record->sequence;
      else if (record->sequence != pass.next_sequence)
        pass.malformed = "a gap in the sequence";
      pass.next_sequence = record->sequence + 1;
      if (record->first.get() < last_end) pass.malformed = "records don't rise";
      last_end = record->first.get() + record->pages().get();
      pass.windows.push_back(static_cast<std::uint64_t>(record->window.count()));
      pass.scan_ns = static_cast<std::uint64_t>(record->scan_time.count());
      if (record->cleared != ((flags & THERMOCLINE_SCAN_CLEAR) != 0))
        pass.malformed = "the cleared flag doesn't match the request";
      if (record->present.population() == 0) pass.malformed = "a record of nothing";
      if (expand) expand_record(*record, pass.pages);
      ++records;
    }
    if (reader.error()) pass.malformed = reader.error()->message;
    if (records != call.records) pass.malformed = "the record count is wrong";
    pass.records += records;
    pass.bytes += call.bytes;
    pass.entries += call.entries;
    pass.accessed += call.accessed;
    pass.skipped += call.skipped_pages;
    pass.elapsed_ns += call.elapsed_ns;
    pass.max_lock_ns = std::max<std::uint64_t>(pass.max_lock_ns, call.max_lock_ns);
    pass.lock_drops += call.lock_drops;
  } while (call.resume_page != 0);
  return pass;
}

thermocline_scan valid_scan(std::vector<std::uint64_t>& buffer) {
  thermocline_scan call{};
  call.flags = THERMOCLINE_SCAN_CLEAR;
  call.epoch = 1;
  call.buffer = pointer(buffer.data());
  call.buffer_size = buffer.size() * 8;
  return call;
}

}  // namespace thermocline::labtest
