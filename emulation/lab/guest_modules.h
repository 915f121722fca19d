// SPDX-License-Identifier: Apache-2.0
// Kernel modules of a guest kernel: which ones a module needs and in what order they load.
#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace thermocline::lab {

/// One lib/modules/RELEASE folder, from its modules.dep and modules.builtin.
class ModuleTree {
 public:
  /// `dir` holds modules.dep (run depmod on it first).
  [[nodiscard]] static Result<ModuleTree> load(const std::filesystem::path& dir);
  /// From the texts of the two files; for tests.
  [[nodiscard]] static ModuleTree parse(std::string_view modules_dep,
                                        std::string_view modules_builtin);

  /// True when the kernel has the module, built in or loadable. '-' and '_' are the same in names.
  [[nodiscard]] bool has(std::string_view name) const;
  /// Files (relative to the folder) to load for `names`, dependencies first, each once; built-in
  /// ones need none. Fails with kNotFound for a name the kernel doesn't have.
  [[nodiscard]] Result<std::vector<std::string>> load_order(
      std::span<const std::string> names) const;

 private:
  struct Module {
    std::string file;
    std::vector<std::string> needs;  ///< files, as modules.dep lists them: nearest first
  };
  std::map<std::string, Module, std::less<>> modules_;
  std::set<std::string, std::less<>> builtin_;
};

/// "kernel/drivers/dax/device_dax.ko.xz" -> "device_dax".
[[nodiscard]] std::string module_name(std::string_view file);

/// Content of a module file, decompressed when its name ends in .xz, .zst or .gz.
[[nodiscard]] Result<std::string> read_module(const std::filesystem::path& file);

}  // namespace thermocline::lab
