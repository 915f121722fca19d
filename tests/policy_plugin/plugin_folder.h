// SPDX-License-Identifier: Apache-2.0
// A folder of policy plug-ins as a daemon would accept it, whatever the umask of the build was.
#pragma once

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "policies/plugin/plugin_policy.h"

namespace thermocline {

class PluginFolder {
 public:
  PluginFolder() {
    std::string pattern = std::filesystem::temp_directory_path() / "policy-plugins-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no folder for plug-ins");
    path_ = pattern;
    ::chmod(path_.c_str(), 0755);
  }
  PluginFolder(const PluginFolder&) = delete;
  PluginFolder& operator=(const PluginFolder&) = delete;
  ~PluginFolder() { std::filesystem::remove_all(path_); }

  /// Copies a plug-in that was built for the tests; `as`: its name here.
  PluginFile add(const std::string& name, const std::string& as = "") {
    const PluginFile file{as.empty() ? name : as, path_ / ((as.empty() ? name : as) + ".so")};
    std::filesystem::copy_file(std::filesystem::path(THERMOCLINE_TEST_PLUGINS) / (name + ".so"),
                               file.path);
    ::chmod(file.path.c_str(), 0755);
    return file;
  }
  [[nodiscard]] std::string path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace thermocline
