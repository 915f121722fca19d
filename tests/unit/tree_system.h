// SPDX-License-Identifier: Apache-2.0
// A captured machine (tests/fixtures/machines/NAME.machine) as a System, in memory: tests change a
// file and look again. Has no clock and makes no system calls.
#pragma once

#include <cerrno>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "base/system.h"
#include "base/text.h"

namespace thermocline {

class TreeSystem : public System {
 public:
  /// The format of ./capture: "=== PATH" and its content; "=== DIR/"; "=== LINK -> TARGET".
  static TreeSystem of_machine(const std::string& name) {
    std::ifstream in(std::string(THERMOCLINE_SOURCE_DIR) + "/tests/fixtures/machines/" + name +
                     ".machine");
    if (!in) throw std::runtime_error("no such machine: " + name);
    TreeSystem system;
    std::string* content = nullptr;
    for (std::string line; std::getline(in, line);) {
      if (!line.starts_with("=== ")) {
        if (content != nullptr) *content += line + "\n";
        continue;
      }
      const std::string path = line.substr(4);
      const auto arrow = path.find(" -> ");
      content = nullptr;
      if (arrow != std::string::npos) {
        system.links[path.substr(0, arrow)] = path.substr(arrow + 4);
      } else if (path.back() == '/') {
        system.files[path];
      } else {
        content = &system.files[path];
      }
    }
    return system;
  }

  std::map<std::string, std::string> files;  ///< a directory of its own ends in "/"
  std::map<std::string, std::string> links;

  Result<std::string> read_file(const std::string& path) const override {
    const auto at = files.find(path);
    if (at == files.end()) return fail_errno(ENOENT, "can't read " + path);
    return at->second;
  }
  Result<std::vector<std::string>> list_dir(const std::string& path) const override {
    std::vector<std::string> names;
    const auto add = [&](const std::string& full) {
      if (!full.starts_with(path + "/") || full.size() == path.size() + 1) return;
      const std::string rest = full.substr(path.size() + 1);
      const std::string name = rest.substr(0, rest.find('/'));
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    };
    for (const auto& [full, content] : files) add(full);
    for (const auto& [full, target] : links) add(full);
    if (names.empty()) return fail_errno(ENOENT, "can't list " + path);
    return names;
  }
  bool exists(const std::string& path) const override {
    if (files.contains(path) || links.contains(path)) return true;
    const auto below = files.lower_bound(path + "/");
    return below != files.end() && below->first.starts_with(path + "/");
  }
  Result<std::string> read_link_name(const std::string& path) const override {
    const auto at = links.find(path);
    if (at == links.end()) return fail_errno(ENOENT, "can't read the link " + path);
    return at->second.substr(at->second.rfind('/') + 1);
  }
  Nanoseconds now() const override { return {}; }
  Nanoseconds process_cpu_time() const override { return {}; }
  Result<UniqueFd> open_device(const std::string& path, int) override { return refuse(path); }
  int ioctl(int, unsigned long, void*) override { return -ENOSYS; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -ENOSYS;
  }
  Result<UniqueFd> pidfd_open(Pid) override { return refuse("pidfd"); }
  bool pidfd_exited(int) const override { return true; }

 private:
  static tl::unexpected<Error> refuse(const std::string& what) {
    return fail(ErrorKind::kUnsupported, "{}: a captured machine only reads", what);
  }
};

}  // namespace thermocline
