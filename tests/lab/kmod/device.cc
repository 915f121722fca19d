// SPDX-License-Identifier: Apache-2.0
#include "device.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
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
    std::uint64_t records = 0, idle_pages = 0;
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
      if (record->idle) {
        if ((flags & THERMOCLINE_SCAN_PRUNE) == 0) pass.malformed = "idle without being asked";
        if (!pass.idle.empty() &&
            pass.idle.back().first + pass.idle.back().second == record->first.get())
          pass.idle.back().second += record->pages().get();
        else
          pass.idle.emplace_back(record->first.get(), record->pages().get());
        idle_pages += record->pages().get();
      } else if (record->present.population() == 0) {
        pass.malformed = "a record of nothing";
      }
      if (expand && !record->idle) expand_record(*record, pass.pages);
      ++records;
      pass.shared_records += record->shared ? 1 : 0;
    }
    if (reader.error()) pass.malformed = reader.error()->message;
    if (records != call.records) pass.malformed = "the record count is wrong";
    if (idle_pages != call.idle_pages) pass.malformed = "the count of idle pages is wrong";
    pass.idle_pages += idle_pages;
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

int Device::start(thermocline_start& start) const {
  return control(THERMOCLINE_IOC_START, &start);
}

int Device::round(thermocline_schedule schedule) const {
  schedule.flags |= THERMOCLINE_SCHEDULE_ROUND;
  return control(THERMOCLINE_IOC_CONFIGURE, &schedule);
}

thermocline_stats Device::stats() const {
  thermocline_stats stats{};
  if (control(THERMOCLINE_IOC_STATS, &stats) != 0) stats.state = ~0u;
  return stats;
}

int Device::poll(int milliseconds) const {
  pollfd what{fd_.get(), POLLIN, 0};
  return ::poll(&what, 1, milliseconds) < 0 ? -errno : what.revents;
}

Ring::Ring(const Device& device, std::uint64_t map_bytes) : map_bytes_(map_bytes) {
  void* p = mmap(nullptr, map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, device.fd(), 0);
  if (p == MAP_FAILED)
    error_ = errno;
  else
    header_ = static_cast<thermocline_ring_header*>(p);
}

Ring::~Ring() {
  if (header_ != nullptr) munmap(header_, map_bytes_);
}

std::uint64_t Ring::unread() const {
  return __atomic_load_n(&header_->produced, __ATOMIC_ACQUIRE) - header_->consumed;
}

bool Ring::refuse(std::string why) {
  malformed_ = std::move(why);
  return false;
}

bool Ring::take(std::vector<RingPass>& passes, bool expand) {
  const std::uint64_t size = header_->data_bytes;
  if (header_->data_offset + 2 * size != map_bytes_) return refuse("the header doesn't fit");
  const auto* data = reinterpret_cast<const std::byte*>(header_) + header_->data_offset;
  const std::uint64_t produced = __atomic_load_n(&header_->produced, __ATOMIC_ACQUIRE);
  std::uint64_t at = header_->consumed;
  if (produced - at > size) return refuse("more was produced than the ring holds");
  while (at < produced) {
    const std::byte* here = data + at % size;
    const std::uint64_t left = produced - at;
    thermocline_mark& mark = open_.mark;
    if (left < 16) return refuse("a frame is cut");
    std::memcpy(&mark, here, 16);
    if (mark.size % 8 != 0 || mark.size < 16 || mark.size > left) return refuse("a bad size");
    const bool is_mark = mark.magic == THERMOCLINE_MARK_MAGIC;
    std::uint64_t sequence = 0;
    if (is_mark) {
      if (mark.size != sizeof(mark)) return refuse("a mark of another size");
      std::memcpy(&mark, here, sizeof(mark));
      sequence = mark.sequence;
    } else {
      RecordReader reader(std::span(here, mark.size));
      const auto record = reader.next();
      if (!record) return refuse(reader.error() ? reader.error()->message : "no record");
      sequence = record->sequence;
      if (expand) expand_record(*record, open_.pages);
      ++open_.records;
    }
    if (!started_) next_sequence_ = sequence;
    started_ = true;
    if (sequence < next_sequence_) return refuse("the sequence goes back");
    open_.missing += sequence - next_sequence_;
    next_sequence_ = sequence + (is_mark ? 0 : 1);
    at += mark.size;
    if (!is_mark) continue;
    passes.push_back(std::move(open_));
    open_ = {};
  }
  __atomic_store_n(&header_->consumed, at, __ATOMIC_RELEASE);
  return true;
}

bool KernelModule::read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  bytes_.assign(std::istreambuf_iterator<char>(file), {});
  return !bytes_.empty();
}

int KernelModule::load() const {
  return syscall(SYS_init_module, bytes_.data(), bytes_.size(), "") < 0 ? errno : 0;
}

int KernelModule::unload() {
  return syscall(SYS_delete_module, "thermocline", O_NONBLOCK) < 0 ? errno : 0;
}

std::uint64_t kernel_trouble() {
  std::ifstream file("/proc/sys/kernel/tainted");
  std::uint64_t tainted = 0;
  file >> tainted;
  return tainted & (1u << 5 | 1u << 7 | 1u << 9 | 1u << 14);
}

thermocline_start valid_start() {
  thermocline_start start{};
  start.schedule.flags = THERMOCLINE_SCAN_CLEAR | THERMOCLINE_SCAN_FLUSH;
  start.schedule.epoch = 1;
  start.ring_bytes = 1 << 20;
  return start;
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
