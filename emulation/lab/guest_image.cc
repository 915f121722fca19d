// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/guest_image.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/text.h"
#include "emulation/lab/cpio.h"
#include "emulation/lab/files.h"
#include "emulation/lab/guest_scripts.h"
#include "emulation/lab/libraries.h"

namespace thermocline::lab {

namespace fs = std::filesystem;

namespace {

/// Raised when the base's layout changes, so that old ones in the cache are not used.
constexpr int kBaseFormat = 1;

constexpr std::string_view kProgramDir = "/opt/thermocline/bin";

/// Modules of every profile and of --out: in the base, so that `modprobe` works in a guest as well.
constexpr std::array<std::string_view, 21> kBaseModules = {
    "virtio_pci",    "9pnet_virtio", "9p",      "libnvdimm",  "nfit",       "nd_pmem",
    "dax_pmem",      "device_dax",   "kmem",    "cxl_acpi",   "cxl_port",   "cxl_pci",
    "cxl_mem",       "cxl_pmem",     "dax_cxl", "virtio_blk", "virtio_net", "zram",
    "crc32_generic", "crc32_pclmul", "dummy"};

/// A module's path without the suffix of its compression: it lies unpacked in the guest.
std::string unpacked_name(std::string_view file) {
  return std::string(file.substr(0, file.rfind(".ko") + 3));
}

Status add_modules(const GuestKernel& kernel, std::span<const std::string> files,
                   CpioWriter& cpio) {
  for (const std::string& file : files) {
    TC_ASSIGN(const std::string content, read_module(kernel.modules / file));
    cpio.add_file("/lib/modules/" + kernel.release + "/" + unpacked_name(file), content);
  }
  return {};
}

/// Program or library content without debug information, which a guest has no use for; kept in the
/// cache.
Result<std::string> stripped(const fs::path& path) {
  TC_ASSIGN(const std::uint64_t key, file_fingerprint(path));
  const fs::path kept = cache_dir() / "lab" / "stripped" / fmt::format("{:016x}", key);
  if (fs::exists(kept)) return read_kept(kept);
  const fs::path half = kept.string() + fmt::format(".{}", ::getpid());
  std::error_code ec;
  fs::create_directories(kept.parent_path(), ec);
  const auto output = run_program({"strip", "--strip-debug", "-o", half.string(), path.string()});
  if (!output || output->exit_code != 0) {
    fs::remove(half, ec);
    return read_whole(path);  // carried as it is: larger, but the same program
  }
  fs::rename(half, kept, ec);
  if (ec) return fail_errno(ec.value(), "can't write " + kept.string());
  return read_whole(kept);
}

Result<fs::path> find_in_path(std::string_view name) {
  const char* path = std::getenv("PATH");
  for (const std::string_view dir : split(path != nullptr ? path : "/usr/bin:/bin", ':')) {
    const fs::path candidate = fs::path(dir) / name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return fail(ErrorKind::kNotFound, "the program {} is not on this machine's PATH", name);
}

/// Adds a file, what it needs to run (libraries, interpreter), or a folder with all that is in it.
/// Of scripts in a folder, such as a library of Python, not every interpreter must be there.
Status add_host_file(const fs::path& source, const std::string& place, bool own, CpioWriter& cpio,
                     bool in_folder = false) {
  std::error_code ec;
  if (fs::is_directory(source, ec)) {
    cpio.add_dir(place);
    for (const auto& entry : fs::directory_iterator(source, ec))
      TC_TRY(add_host_file(entry.path(), place + "/" + entry.path().filename().string(), own, cpio,
                           true));
    if (ec) return fail_errno(ec.value(), "can't list " + source.string());
    return {};
  }
  if (cpio.has(place)) return {};
  struct stat info {};
  if (::stat(source.c_str(), &info) != 0)
    return fail_errno(errno, "can't carry " + source.string() + " into the guest");
  TC_ASSIGN(std::string content, read_whole(source));
  if (is_elf(content)) {
    TC_ASSIGN(const std::vector<fs::path> libraries, library_closure(source));
    for (const fs::path& library : libraries) {
      if (cpio.has(library.string())) continue;
      TC_ASSIGN(const std::string bytes, read_whole(library));
      cpio.add_file(library.string(), bytes, 0755);
    }
    if (own) {
      TC_ASSIGN(content, stripped(source));
    }
  } else if (const std::string_view interpreter = script_interpreter(content);
             !interpreter.empty() && interpreter != "/bin/sh") {
    // The guest's only shell is busybox; another interpreter comes along.
    fs::path program(interpreter);
    if (!program.is_absolute()) {
      const Result<fs::path> found = find_in_path(interpreter);
      if (!found && !in_folder) return tl::unexpected(found.error());
      if (found) program = *found;
    }
    if (!in_folder || fs::exists(program, ec))
      TC_TRY(add_host_file(program, program.string(), false, cpio));
  }
  cpio.add_file(place, content, info.st_mode & 0777);
  return {};
}

/// Every program in a folder of the build tree, none of its libraries or CMake's files.
Status add_programs_of(const fs::path& dir, CpioWriter& cpio) {
  std::error_code ec;
  if (!fs::is_directory(dir, ec)) return {};
  for (const auto& entry : fs::directory_iterator(dir)) {
    const std::string name = entry.path().filename().string();
    const bool library = name.ends_with(".so");
    if (!entry.is_regular_file(ec) || name.ends_with(".a")) continue;
    if (!library && ::access(entry.path().c_str(), X_OK) != 0) continue;
    TC_TRY(add_host_file(entry.path(), fmt::format("{}/{}", kProgramDir, name), true, cpio));
  }
  return {};
}

/// Debian's busybox prefers its applets to programs on PATH, in shell scripts as well. The command
/// itself is started by its path.
void warn_of_applet(const fs::path& source, const fs::path& place,
                    const std::vector<std::string>& command) {
  std::error_code ec;
  const std::string name = place.filename().string();
  if (!fs::is_regular_file(source, ec) || ::access(source.c_str(), X_OK) != 0) return;
  if (!command.empty() && fs::path(command.front()).filename() == name) return;
  const Result<ProgramOutput> applets = run_program({"/bin/busybox", "--list"});
  if (!applets) return;
  const std::vector<std::string_view> names = words(applets->text);
  if (std::find(names.begin(), names.end(), name) != names.end())
    fmt::print(
        stderr,
        "thermocline: lab: busybox has a {0} of its own, which scripts in the guest get when "
        "they say just {0}: write {1} there\n",
        name, place.string());
}

Status add_own_programs(CpioWriter& cpio) {
  std::error_code ec;
  const fs::path self = fs::read_symlink("/proc/self/exe", ec);
  if (ec) return fail_errno(ec.value(), "can't find this program's own file");
  TC_TRY(add_host_file(self, fmt::format("{}/thermocline", kProgramDir), true, cpio));
  const fs::path build = build_dir();
  // Where the daemon looks for it.
  const fs::path host =
      (build.empty() ? installed_dir() : build / "policies/plugin") / "thermocline-policy-host";
  if (fs::exists(host, ec))
    TC_TRY(add_host_file(host, "/opt/thermocline/lib/thermocline/thermocline-policy-host", true,
                         cpio));
  if (build.empty()) {
    for (const char* program : {"bin/timing_probe", "bin/timing_mark", "sbin/thermoclined"})
      if (const fs::path file = self.parent_path().parent_path() / program; fs::exists(file))
        TC_TRY(add_host_file(file, fmt::format("{}/{}", kProgramDir, file.filename().string()),
                             true, cpio));
    return {};
  }
  for (const char* dir :
       {"userspace/daemon", "bench/workloads", "bench/calibrate", "bench/trackers", "tests/lab"})
    TC_TRY(add_programs_of(build / dir, cpio));
  return {};
}

}  // namespace

std::string shell_quote(std::string_view word) {
  std::string quoted = "'";
  for (const char c : word) {
    if (c == '\'')
      quoted += "'\\''";
    else
      quoted += c;
  }
  return quoted + "'";
}

fs::path build_dir() {
  std::error_code ec;
  const fs::path self = fs::read_symlink("/proc/self/exe", ec);
  for (fs::path dir = self.parent_path(); dir.has_relative_path(); dir = dir.parent_path())
    if (fs::exists(dir / "CMakeCache.txt", ec)) return dir;
  return {};
}

fs::path installed_dir() {
  std::error_code ec;
  return fs::read_symlink("/proc/self/exe", ec).parent_path().parent_path() / "lib/thermocline";
}

fs::path module_file(const GuestKernel& kernel) {
  if (!is_known_kernel(kernel.name)) return {};
  const fs::path build = build_dir();
  if (!build.empty()) return build / "kmod" / kernel.name / "thermocline.ko";
  return installed_dir() / kernel.release / "thermocline.ko";
}

Result<std::string> base_archive(const GuestKernel& kernel) {
  const fs::path busybox = "/bin/busybox";
  const Result<std::uint64_t> busybox_key = file_fingerprint(busybox);
  if (!busybox_key)
    return fail(ErrorKind::kUnsupported,
                "there is no {}; run emulation/lab/setup.sh (or ./test) as root once",
                busybox.string());
  std::uint64_t key =
      fingerprint(fmt::format("{} {} {}", kBaseFormat, *busybox_key, kernel.modules.string()));
  if (!kernel.modules.empty()) {
    TC_ASSIGN(const std::uint64_t modules_key, file_fingerprint(kernel.modules / "modules.dep"));
    key = fingerprint(fmt::format("{}", modules_key), key);
  }
  for (const std::string_view name : kBaseModules) key = fingerprint(name, key);
  for (const GuestScript& script : guest_scripts()) key = fingerprint(script.text, key);
  const fs::path kept = cache_dir() / "lab" / fmt::format("base-{:016x}.cpio", key);
  if (fs::exists(kept)) return read_kept(kept);

  CpioWriter cpio;
  for (const char* dir :
       {"/dev", "/proc", "/sys", "/tmp", "/root", "/run", "/lab", "/lib/thermocline"})
    cpio.add_dir(dir);
  TC_ASSIGN(const std::string program, read_whole(busybox));
  cpio.add_file("/bin/busybox", program, 0755);
  TC_ASSIGN(const ProgramOutput applets, run_program({busybox.string(), "--list-full"}));
  for (const std::string_view applet : words(applets.text))
    if (applet != "bin/busybox") cpio.add_symlink(applet, "/bin/busybox");
  for (const GuestScript& script : guest_scripts()) {
    if (script.name == "init")
      cpio.add_file("/init", script.text, 0755);
    else
      cpio.add_file(fmt::format("/opt/thermocline/lab/{}", script.name), script.text);
  }
  if (!kernel.modules.empty()) {
    TC_ASSIGN(const ModuleTree tree, ModuleTree::load(kernel.modules));
    std::vector<std::string> names;
    for (const std::string_view name : kBaseModules)
      if (tree.has(name)) names.emplace_back(name);
    TC_ASSIGN(const std::vector<std::string> files, tree.load_order(names));
    TC_TRY(add_modules(kernel, files, cpio));
    // modprobe's list, of the modules that are there, under the names they have there.
    TC_ASSIGN(const std::string dep, read_whole(kernel.modules / "modules.dep"));
    std::string guest_dep;
    for (const std::string_view line : split(dep, '\n')) {
      const std::string_view file = line.substr(0, line.find(':'));
      if (std::find(files.begin(), files.end(), file) == files.end()) continue;
      guest_dep += unpacked_name(file) + ":";
      for (const std::string_view need : words(line.substr(file.size() + 1)))
        guest_dep += " " + unpacked_name(need);
      guest_dep += "\n";
    }
    cpio.add_file("/lib/modules/" + kernel.release + "/modules.dep", guest_dep);
  }
  std::string archive = cpio.finish();
  TC_TRY(write_whole(kept, archive));
  prune_cache(cache_dir() / "lab");
  return archive;
}

Result<std::string> run_archive(const ImageSpec& spec) {
  CpioWriter cpio;
  std::string modules;
  if (!spec.modules.empty()) {
    if (spec.kernel.modules.empty())
      return fail(ErrorKind::kUsage,
                  "this profile needs modules, but the kernel {} comes without; give them as "
                  "VMLINUZ:MODULES_DIR",
                  spec.kernel.name);
    TC_ASSIGN(const ModuleTree tree, ModuleTree::load(spec.kernel.modules));
    TC_ASSIGN(const std::vector<std::string> files, tree.load_order(spec.modules));
    std::vector<std::string> more;
    for (const std::string& file : files) {
      const std::string name = module_name(file);
      if (std::find(kBaseModules.begin(), kBaseModules.end(), name) == kBaseModules.end())
        more.push_back(file);
      modules += unpacked_name(file) + "\n";
    }
    TC_TRY(add_modules(spec.kernel, more, cpio));
  }
  std::string command = "set --";
  for (const std::string& word : spec.command) command += " " + shell_quote(word);
  cpio.add_file("/.tc/command", command + "\n");
  cpio.add_file("/.tc/config", spec.config);
  cpio.add_file("/.tc/modules", modules);
  cpio.add_file("/.tc/nonce", spec.nonce + "\n", 0600);
  TC_TRY(add_own_programs(cpio));
  if (const fs::path module = module_file(spec.kernel); !module.empty() && fs::exists(module)) {
    TC_ASSIGN(const std::string content, stripped(module));
    cpio.add_file("/lib/thermocline/thermocline.ko", content);
  }
  for (const std::string& file : spec.files) {
    const auto colon = file.find(":/");
    const fs::path source = file.substr(0, colon);
    if (!fs::exists(source))
      return fail(ErrorKind::kUsage, "--with: there is no file {}", source.string());
    const std::string place =
        colon != std::string::npos
            ? file.substr(colon + 1)
            : "/lab/" + fs::absolute(source).lexically_normal().filename().string();
    TC_TRY(add_host_file(source, place, false, cpio));
    warn_of_applet(source, place, spec.command);
  }
  return cpio.finish();
}

}  // namespace thermocline::lab
