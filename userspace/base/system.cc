// SPDX-License-Identifier: Apache-2.0
#include "base/system.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <numa.h>
#include <numaif.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/text.h"

namespace thermocline {

UniqueFd& UniqueFd::operator=(UniqueFd&& o) noexcept {
  if (this != &o) reset(o.release());
  return *this;
}

int UniqueFd::release() {
  return std::exchange(fd_, -1);
}

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

SharedMapping& SharedMapping::operator=(SharedMapping&& o) noexcept {
  std::swap(bytes_, o.bytes_);
  return *this;
}

SharedMapping::~SharedMapping() {
  if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
}

Result<SharedMapping> System::map_device(int, std::size_t) {
  return fail(ErrorKind::kUnsupported, "this machine's devices can't be mapped");
}

Result<std::vector<NodeId>> System::allowed_nodes() const {
  constexpr std::string_view kKey = "Mems_allowed_list:";
  TC_ASSIGN(const std::string status, read_file("/proc/self/status"));
  for (const std::string_view line : split(status, '\n')) {
    if (!line.starts_with(kKey)) continue;
    const auto list = parse_list(line.substr(kKey.size()));
    if (!list)
      return fail(ErrorKind::kCorrupt, "can't parse Mems_allowed_list in /proc/self/status: {}",
                  list.error().message);
    std::vector<NodeId> nodes;
    for (const std::uint32_t node : *list) nodes.emplace_back(static_cast<std::int32_t>(node));
    return nodes;
  }
  return fail(ErrorKind::kNotFound, "/proc/self/status has no line Mems_allowed_list");
}

Status System::write_file(const std::string& path, std::string_view) {
  return fail(ErrorKind::kUnsupported, "{}: this machine can only be read", path);
}

long System::pread(int, std::span<std::byte>, std::uint64_t) const {
  return -ENOSYS;
}

long System::pwrite(int, std::span<const std::byte>, std::uint64_t) {
  return -ENOSYS;
}

Result<UniqueFd> System::open_tracepoint(std::uint64_t, Pid) {
  return fail(ErrorKind::kUnsupported, "this machine has no tracepoints");
}

long System::process_madvise(int, std::span<const AddressRange>, int) {
  return -ENOSYS;
}

namespace {

Nanoseconds read_clock(clockid_t id) {
  timespec ts{};
  ::clock_gettime(id, &ts);
  return std::chrono::seconds(ts.tv_sec) + Nanoseconds(ts.tv_nsec);
}

class RealSystem final : public System {
 public:
  explicit RealSystem(std::string sysroot) : sysroot_(std::move(sysroot)) {}

  std::optional<std::string> root() const override { return sysroot_; }

  Result<std::vector<NodeId>> allowed_nodes() const override {
    if (!sysroot_.empty()) return System::allowed_nodes();
    if (::numa_available() < 0)
      return fail(ErrorKind::kUnsupported, "this kernel was built without NUMA support");
    std::vector<NodeId> nodes;
    const std::unique_ptr<bitmask, void (*)(bitmask*)> allowed(::numa_get_mems_allowed(),
                                                               ::numa_bitmask_free);
    for (unsigned node = 0; node < allowed->size; ++node)
      if (::numa_bitmask_isbitset(allowed.get(), node) != 0)
        nodes.emplace_back(static_cast<std::int32_t>(node));
    return nodes;
  }

  Result<std::string> read_file(const std::string& path) const override {
    const UniqueFd fd(::open((sysroot_ + path).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return fail_errno(errno, "can't read " + sysroot_ + path);
    std::string content;
    std::array<char, 16384> buffer;
    for (;;) {
      const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "can't read " + sysroot_ + path);
      if (n == 0) return content;
      content.append(buffer.data(), static_cast<std::size_t>(n));
    }
  }

  Status write_file(const std::string& path, std::string_view text) override {
    const UniqueFd fd(::open((sysroot_ + path).c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd || ::write(fd.get(), text.data(), text.size()) < 0)
      return fail_errno(errno, fmt::format("can't write \"{}\" to {}{}", text, sysroot_, path));
    return {};
  }

  Result<std::vector<std::string>> list_dir(const std::string& path) const override {
    DIR* dir = ::opendir((sysroot_ + path).c_str());
    if (dir == nullptr) return fail_errno(errno, "can't list " + sysroot_ + path);
    std::vector<std::string> names;
    while (const dirent* entry = ::readdir(dir)) {
      std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(std::move(name));
    }
    ::closedir(dir);
    std::sort(names.begin(), names.end());
    return names;
  }

  bool exists(const std::string& path) const override {
    return ::access((sysroot_ + path).c_str(), F_OK) == 0;
  }

  Result<std::string> read_link_name(const std::string& path) const override {
    std::array<char, 4096> target;
    const ssize_t n = ::readlink((sysroot_ + path).c_str(), target.data(), target.size());
    if (n < 0) return fail_errno(errno, "can't read the link " + sysroot_ + path);
    std::string text(target.data(), static_cast<std::size_t>(n));
    const auto slash = text.rfind('/');
    return slash == std::string::npos ? text : text.substr(slash + 1);
  }

  Nanoseconds now() const override { return read_clock(CLOCK_MONOTONIC); }
  Nanoseconds process_cpu_time() const override { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }

  Result<UniqueFd> open_device(const std::string& path, int flags) override {
    UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC));
    if (!fd) return fail_errno(errno, "can't open " + path);
    return fd;
  }

  Result<SharedMapping> map_device(int fd, std::size_t bytes) override {
    void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return fail_errno(errno, fmt::format("can't map {} bytes", bytes));
    return SharedMapping({static_cast<std::byte*>(p), bytes});
  }

  int ioctl(int fd, unsigned long request, void* argument) override {
    const int rc = ::ioctl(fd, request, argument);
    return rc < 0 ? -errno : rc;
  }

  long move_pages(Pid pid, std::span<void* const> pages, std::span<const int> nodes,
                  std::span<int> status, int flags) override {
    const long rc = ::move_pages(pid.get(), pages.size(), const_cast<void**>(pages.data()),
                                 nodes.empty() ? nullptr : nodes.data(), status.data(), flags);
    return rc < 0 ? -errno : rc;
  }

  long pread(int fd, std::span<std::byte> into, std::uint64_t offset) const override {
    const ssize_t n = ::pread(fd, into.data(), into.size(), static_cast<off_t>(offset));
    return n < 0 ? -errno : n;
  }

  long pwrite(int fd, std::span<const std::byte> from, std::uint64_t offset) override {
    const ssize_t n = ::pwrite(fd, from.data(), from.size(), static_cast<off_t>(offset));
    return n < 0 ? -errno : n;
  }

  long process_madvise(int pidfd, std::span<const AddressRange> ranges, int advice) override {
    std::vector<iovec> vectors;
    for (const AddressRange& range : ranges)
      vectors.push_back({reinterpret_cast<void*>(range.address), range.length.get()});
    const long rc =
        ::syscall(SYS_process_madvise, pidfd, vectors.data(), vectors.size(), advice, 0);
    return rc < 0 ? -errno : rc;
  }

  Result<UniqueFd> open_tracepoint(std::uint64_t id, Pid thread) override {
    perf_event_attr attr{};
    attr.size = sizeof(attr);
    attr.type = PERF_TYPE_TRACEPOINT;
    attr.config = id;
    attr.sample_period = 1;
    attr.sample_type = PERF_SAMPLE_TIME | PERF_SAMPLE_RAW;
    attr.use_clockid = 1;
    attr.clockid = CLOCK_MONOTONIC;
    UniqueFd fd(static_cast<int>(
        ::syscall(SYS_perf_event_open, &attr, thread.get(), -1, -1, PERF_FLAG_FD_CLOEXEC)));
    if (!fd)
      return fail_errno(errno,
                        fmt::format("can't watch tracepoint {} of thread {}", id, thread.get()));
    return fd;
  }

  Result<UniqueFd> pidfd_open(Pid pid) override {
    UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid.get(), 0)));
    if (!fd) return fail_errno(errno, fmt::format("can't follow process {}", pid.get()));
    return fd;
  }

  bool pidfd_exited(int pidfd) const override {
    pollfd p{pidfd, POLLIN, 0};
    return ::poll(&p, 1, 0) > 0;
  }

 private:
  std::string sysroot_;
};

}  // namespace

std::unique_ptr<System> make_real_system(std::string sysroot) {
  while (!sysroot.empty() && sysroot.back() == '/') sysroot.pop_back();
  return std::make_unique<RealSystem>(std::move(sysroot));
}

}  // namespace thermocline
