// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/libraries.h"

#include "base/text.h"
#include "emulation/lab/files.h"

namespace thermocline::lab {

namespace fs = std::filesystem;

bool is_elf(std::string_view content) {
  return content.starts_with("\177ELF");
}

std::string_view script_interpreter(std::string_view content) {
  if (!content.starts_with("#!")) return {};
  content.remove_prefix(2);
  const auto line = words(content.substr(0, content.find('\n')));
  if (line.empty()) return {};
  if (line.size() > 1 && line[0].ends_with("/env")) return line[1];
  return line[0];
}

Result<std::vector<fs::path>> parse_ldd(std::string_view output, const std::string& program) {
  std::vector<fs::path> libraries;
  for (const std::string_view line : split(output, '\n')) {
    const auto parts = words(line);
    if (parts.empty()) continue;
    if (line.find("=> not found") != std::string_view::npos)
      return fail(ErrorKind::kFailure,
                  "{} needs the library {}, which is not on this machine; install it", program,
                  parts[0]);
    if (parts.size() >= 3 && parts[1] == "=>" && parts[2].starts_with('/'))
      libraries.emplace_back(parts[2]);
    else if (parts[0].starts_with('/') && parts.size() >= 2)
      libraries.emplace_back(parts[0]);  // the loader
  }
  return libraries;
}

Result<std::vector<fs::path>> library_closure(const fs::path& elf) {
  TC_ASSIGN(const ProgramOutput ldd, run_program({"ldd", fs::absolute(elf).string()}));
  if (ldd.exit_code != 0) return std::vector<fs::path>{};  // "not a dynamic executable"
  TC_ASSIGN(std::vector<fs::path> libraries, parse_ldd(ldd.text, elf.string()));
  for (const fs::path& library : libraries) {
    if (library.filename() != "libc.so.6") continue;
    const fs::path unwinder = library.parent_path() / "libgcc_s.so.1";
    if (fs::exists(unwinder)) libraries.push_back(unwinder);
    break;
  }
  return libraries;
}

}  // namespace thermocline::lab
