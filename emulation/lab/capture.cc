// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/capture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <set>

#include "base/system.h"
#include "base/text.h"
#include "emulation/lab/files.h"

namespace thermocline::lab {

namespace fs = std::filesystem;

namespace {

/// Attributes that say nothing about topology, or more about the owner than a report should.
bool is_skipped(const std::string& name) {
  static const std::set<std::string> kSkipped = {
      "power",    "firmware_node",      "uevent",      "serial",
      "security", "cache_disable",      "microcode",   "cpufreq",
      "cpuidle",  "thermal_throttle",   "crash_notes", "hotplug",
      "compact",  "trigger_poison_list"};
  return kSkipped.contains(name);
}

class Capture {
 public:
  Capture(std::string root, fs::path out) : root_(std::move(root)), out_(std::move(out)) {}

  /// A file; what can't be read isn't there for a reader of the capture either.
  Status file(const std::string& path) {
    if (!done_.insert(path).second) return {};
    struct stat info {};
    if (::lstat((root_ + path).c_str(), &info) != 0 || (info.st_mode & 0444) == 0) return {};
    if (S_ISLNK(info.st_mode)) return link(path);
    const UniqueFd fd(::open((root_ + path).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd) return {};
    std::string content;
    std::array<char, 16384> buffer;
    for (;;) {
      const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
      if (n < 0) return {};
      if (n == 0) break;
      content.append(buffer.data(), static_cast<std::size_t>(n));
      if (content.size() > (1u << 20)) return {};
    }
    ++count_.files;
    return write_whole(fs::path(out_.string() + path), content);
  }

  Status link(const std::string& path) {
    std::error_code ec;
    const fs::path target = fs::read_symlink(root_ + path, ec);
    const fs::path copy = out_.string() + path;
    fs::create_directories(copy.parent_path(), ec);
    fs::create_symlink(target, copy, ec);
    if (ec && ec != std::errc::file_exists)
      return fail_errno(ec.value(), "can't write " + copy.string());
    ++count_.links;
    return {};
  }

  /// A folder down to `depth` more levels; links stay links.
  Status tree(const std::string& path, int depth, bool (*wanted)(const std::string&) = nullptr) {
    std::error_code ec;
    if (!fs::is_directory(root_ + path, ec)) return {};
    fs::create_directories(out_.string() + path, ec);
    if (ec) return fail_errno(ec.value(), "can't write to " + out_.string());
    for (const auto& entry : fs::directory_iterator(root_ + path, ec)) {
      const std::string name = entry.path().filename().string();
      if (is_skipped(name) || (wanted != nullptr && !wanted(name))) continue;
      const std::string inner = path + "/" + name;
      if (entry.is_symlink(ec))
        TC_TRY(link(inner));
      else if (entry.is_directory(ec)) {
        if (depth > 0) TC_TRY(tree(inner, depth - 1));
      } else if (entry.is_regular_file(ec)) {
        TC_TRY(file(inner));
      }
    }
    return {};
  }

  /// A bus: its links, and the folders under /sys/devices they lead to.
  Status bus(const std::string& path) {
    std::error_code ec;
    if (!fs::is_directory(root_ + path, ec)) return {};
    for (const auto& entry : fs::directory_iterator(root_ + path, ec)) {
      const std::string name = path + "/" + entry.path().filename().string();
      TC_TRY(link(name));
      const std::string target =
          (fs::path(path) / fs::read_symlink(root_ + name, ec)).lexically_normal();
      TC_TRY(tree(target, 1));
    }
    return {};
  }

  [[nodiscard]] CaptureCount count() const { return count_; }

 private:
  std::string root_;
  fs::path out_;
  std::set<std::string> done_;
  CaptureCount count_;
};

bool is_node_attribute(const std::string& name) {
  // node0/memory32 are links to memory blocks, thousands on a large machine.
  return !(name.starts_with("memory") && name.size() > 6 && name[6] >= '0' && name[6] <= '9');
}

bool is_cpu_attribute(const std::string& name) {
  return name == "topology" || name == "cache" || name == "online" || name.starts_with("node");
}

/// The digits after a prefix, for "node12" and "cpu3" but not for "cpufreq".
bool is_numbered(const std::string& name, std::string_view prefix) {
  return name.starts_with(prefix) && name.size() > prefix.size() &&
         name.find_first_not_of("0123456789", prefix.size()) == std::string::npos;
}

Status capture_numbered(Capture& capture, const std::string& root, const std::string& dir,
                        std::string_view prefix, bool (*wanted)(const std::string&), int depth) {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(root + dir, ec)) {
    const std::string name = entry.path().filename().string();
    if (is_numbered(name, prefix))
      TC_TRY(capture.tree(dir + "/" + name, depth, wanted));
    else if (entry.is_regular_file(ec) && !is_skipped(name))
      TC_TRY(capture.file(dir + "/" + name));
  }
  return {};
}

/// The cpuset of the process that captures, all the way up: a container or a job may see fewer
/// nodes.
Status capture_cgroup(Capture& capture, const std::string& root) {
  TC_TRY(capture.file("/proc/self/cgroup"));
  const Result<std::string> own = read_whole(root + "/proc/self/cgroup");
  if (!own) return {};
  for (const std::string_view line : split(*own, '\n')) {
    if (!line.starts_with("0::/")) continue;
    std::string path = "/sys/fs/cgroup" + std::string(trim(line.substr(3)));
    while (path.size() >= std::string_view("/sys/fs/cgroup").size()) {
      while (path.ends_with('/')) path.pop_back();
      for (const char* name : {"cpuset.cpus", "cpuset.cpus.effective", "cpuset.mems",
                               "cpuset.mems.effective", "cgroup.controllers", "memory.max"})
        TC_TRY(capture.file(path + "/" + name));
      path.erase(path.rfind('/'));
    }
  }
  return {};
}

}  // namespace

Result<CaptureCount> capture_machine(const std::string& root, const fs::path& out) {
  std::error_code ec;
  if (fs::exists(out, ec) && !fs::is_empty(out, ec))
    return fail(ErrorKind::kUsage, "{} is not empty; give a new folder for the capture",
                out.string());
  fs::create_directories(out, ec);
  if (ec) return fail_errno(ec.value(), "can't make the folder " + out.string());
  Capture capture(root, out);
  // access0 and memory_side_cache lie one and two levels below a node.
  TC_TRY(capture_numbered(capture, root, "/sys/devices/system/node", "node", is_node_attribute, 2));
  TC_TRY(capture_numbered(capture, root, "/sys/devices/system/cpu", "cpu", is_cpu_attribute, 2));
  for (const char* file : {"block_size_bytes", "auto_online_blocks"})
    TC_TRY(capture.file(std::string("/sys/devices/system/memory/") + file));
  TC_TRY(capture.tree("/sys/devices/virtual/memory_tiering", 1));
  TC_TRY(capture.bus("/sys/bus/cxl/devices"));
  TC_TRY(capture.bus("/sys/bus/dax/devices"));
  TC_TRY(capture.bus("/sys/bus/nd/devices"));
  TC_TRY(capture.tree("/sys/kernel/mm/numa", 0));
  for (const char* file :
       {"/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/mm/lru_gen/enabled",
        "/sys/devices/virtual/dmi/id/sys_vendor", "/sys/devices/virtual/dmi/id/product_name",
        "/proc/meminfo", "/proc/cpuinfo", "/proc/self/status", "/proc/version",
        "/proc/sys/kernel/numa_balancing", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/ostype",
        "/proc/vmstat", "/proc/zoneinfo"})
    TC_TRY(capture.file(file));
  TC_TRY(capture_cgroup(capture, root));
  return capture.count();
}

}  // namespace thermocline::lab
