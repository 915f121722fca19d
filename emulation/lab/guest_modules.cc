// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/guest_modules.h"

#include <algorithm>

#include "base/text.h"
#include "emulation/lab/files.h"

namespace thermocline::lab {

namespace fs = std::filesystem;

std::string module_name(std::string_view file) {
  const auto slash = file.rfind('/');
  if (slash != std::string_view::npos) file.remove_prefix(slash + 1);
  std::string name(file.substr(0, file.find(".ko")));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

ModuleTree ModuleTree::parse(std::string_view modules_dep, std::string_view modules_builtin) {
  ModuleTree tree;
  for (const std::string_view line : split(modules_dep, '\n')) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    Module module{std::string(line.substr(0, colon)), {}};
    for (const std::string_view need : words(line.substr(colon + 1)))
      module.needs.emplace_back(need);
    tree.modules_[module_name(module.file)] = std::move(module);
  }
  for (const std::string_view line : words(modules_builtin))
    tree.builtin_.insert(module_name(line));
  return tree;
}

Result<ModuleTree> ModuleTree::load(const fs::path& dir) {
  TC_ASSIGN(const std::string dep, read_whole(dir / "modules.dep"));
  const Result<std::string> builtin = read_whole(dir / "modules.builtin");
  return parse(dep, builtin ? *builtin : std::string());
}

bool ModuleTree::has(std::string_view name) const {
  const std::string key = module_name(name);
  return modules_.contains(key) || builtin_.contains(key);
}

Result<std::vector<std::string>> ModuleTree::load_order(std::span<const std::string> names) const {
  std::vector<std::string> order;
  std::set<std::string> placed;
  for (const std::string& name : names) {
    const auto found = modules_.find(module_name(name));
    if (found == modules_.end()) {
      if (has(name)) continue;
      return fail(ErrorKind::kNotFound, "the guest kernel has no module '{}'", name);
    }
    // modules.dep lists everything that is needed, nearest first: the last one loads first.
    const Module& module = found->second;
    for (auto need = module.needs.rbegin(); need != module.needs.rend(); ++need)
      if (placed.insert(*need).second) order.push_back(*need);
    if (placed.insert(module.file).second) order.push_back(module.file);
  }
  return order;
}

Result<std::string> read_module(const fs::path& file) {
  const std::string suffix = file.extension().string();
  std::string program;
  if (suffix == ".xz") program = "xz";
  if (suffix == ".zst") program = "zstd";
  if (suffix == ".gz") program = "gzip";
  if (program.empty()) return read_whole(file);
  TC_ASSIGN(ProgramOutput output, run_program({program, "-dcq", file.string()}));
  if (output.exit_code != 0)
    return fail(ErrorKind::kFailure, "can't unpack the module {} with {}", file.string(), program);
  return std::move(output.text);
}

}  // namespace thermocline::lab
