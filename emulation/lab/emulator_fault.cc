// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/emulator_fault.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/system.h"
#include "base/text.h"
#include "emulation/lab/files.h"

namespace thermocline::lab {

namespace fs = std::filesystem;
using std::string_view_literals::operator""sv;

namespace {

constexpr std::array<std::string_view, 8> kAccessors = {"access_ldb", "access_ldw", "access_ldl",
                                                        "access_ldq", "access_stb", "access_stw",
                                                        "access_stl", "access_stq"};

constexpr std::string_view kTwoNops = "\x90\x90";

/// Longer than any of the eight functions.
constexpr std::uint64_t kMostCode = 1024;

template <class T>
Result<T> structure_at(std::string_view file, std::uint64_t offset) {
  T value;
  if (offset > file.size() || file.size() - offset < sizeof value)
    return fail(ErrorKind::kCorrupt, "the program file ends before the table at {:#x}", offset);
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

/// Start of the program's first mapping, once its code is mapped executable.
std::optional<std::uint64_t> load_address(const std::string& maps, const std::string& program) {
  std::optional<std::uint64_t> first;
  for (const std::string_view line : split(maps, '\n')) {
    if (!line.ends_with(" " + program)) continue;
    const auto parts = words(line);
    if (!first) first = parse_u64(parts[0].substr(0, parts[0].find('-')), 16).value_or(0);
    if (parts[1].find('x') != std::string_view::npos) return first;
  }
  return {};
}

/// Where the child's program is loaded, once it has replaced ours.
Result<std::uint64_t> wait_for_program(pid_t child) {
  std::error_code ec;
  const fs::path own = fs::read_symlink("/proc/self/exe", ec);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  while (std::chrono::steady_clock::now() < deadline) {
    const fs::path program = fs::read_symlink(fmt::format("/proc/{}/exe", child), ec);
    if (ec) return fail_errno(ec.value(), "its program can't be read");
    if (program != own) {
      const auto maps = read_whole(fmt::format("/proc/{}/maps", child));
      if (const auto address = maps ? load_address(*maps, program.string()) : std::nullopt)
        return *address;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return fail(ErrorKind::kFailure, "its memory map can't be read");
}

}  // namespace

Result<std::vector<FunctionRange>> exported_functions(std::string_view elf,
                                                      std::span<const std::string_view> names) {
  TC_ASSIGN(const auto header, structure_at<Elf64_Ehdr>(elf, 0));
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine != EM_X86_64)
    return std::vector<FunctionRange>{};
  std::vector<FunctionRange> found;
  for (std::uint64_t i = 0; i < header.e_shnum; ++i) {
    TC_ASSIGN(const auto section,
              structure_at<Elf64_Shdr>(elf, header.e_shoff + i * sizeof(Elf64_Shdr)));
    if (section.sh_type != SHT_DYNSYM) continue;
    TC_ASSIGN(const auto strings,
              structure_at<Elf64_Shdr>(elf, header.e_shoff + section.sh_link * sizeof(Elf64_Shdr)));
    for (std::uint64_t at = 0; at + sizeof(Elf64_Sym) <= section.sh_size; at += sizeof(Elf64_Sym)) {
      TC_ASSIGN(const auto symbol, structure_at<Elf64_Sym>(elf, section.sh_offset + at));
      const std::uint64_t name_at = strings.sh_offset + symbol.st_name;
      if (name_at >= elf.size())
        return fail(ErrorKind::kCorrupt, "a symbol's name lies outside the program file");
      const std::string_view rest = elf.substr(name_at);
      const std::string_view name = rest.substr(0, rest.find('\0'));
      if (symbol.st_shndx != SHN_UNDEF && std::ranges::find(names, name) != names.end())
        found.push_back({symbol.st_value, symbol.st_size});
    }
  }
  return found;
}

std::optional<std::size_t> faulty_jump(std::string_view code) {
  // add 0x10(%rax),%rcx: offset within the second page plus haddr2, whose sum is compared with 0
  constexpr std::string_view kAdd = "\x48\x03\x48\x10";
  constexpr std::string_view kCopy = "\x48\x89\xca";  // mov %rcx,%rdx: in some of the functions
  constexpr char kJumpIfNotZero = '\x75';
  const std::size_t add = code.find(kAdd);
  if (add == std::string_view::npos) return {};
  std::size_t at = add + kAdd.size();
  if (code.substr(at).starts_with(kCopy)) at += kCopy.size();
  if (at + 1 >= code.size() || code[at] != kJumpIfNotZero) return {};
  return at;
}

Result<unsigned> mend_emulator(pid_t child) {
  const Result<std::uint64_t> loaded = wait_for_program(child);
  if (!loaded && loaded.error().kind == ErrorKind::kNotFound) return 0u;  // it has ended
  if (!loaded) return tl::make_unexpected(loaded.error());
  TC_ASSIGN(const std::string file, read_whole(fmt::format("/proc/{}/exe", child)));
  TC_ASSIGN(const auto functions, exported_functions(file, kAccessors));
  if (functions.empty()) return 0u;
  TC_ASSIGN(const auto header, structure_at<Elf64_Ehdr>(file, 0));
  const std::uint64_t base = header.e_type == ET_DYN ? *loaded : 0;

  const UniqueFd memory(::open(fmt::format("/proc/{}/mem", child).c_str(), O_RDWR | O_CLOEXEC));
  if (!memory) return fail_errno(errno, "its memory can't be opened");
  unsigned mended = 0;
  for (const FunctionRange& function : functions) {
    std::string code(std::min(function.size, kMostCode), '\0');
    const std::uint64_t start = base + function.address;
    if (::pread(memory.get(), code.data(), code.size(), static_cast<off_t>(start)) !=
        static_cast<ssize_t>(code.size()))
      return fail_errno(errno, "its code can't be read");
    const auto jump = faulty_jump(code);
    if (!jump) continue;
    if (::pwrite(memory.get(), kTwoNops.data(), kTwoNops.size(),
                 static_cast<off_t>(start + *jump)) != static_cast<ssize_t>(kTwoNops.size()))
      return fail_errno(errno, "its code can't be written");
    ++mended;
  }
  return mended;
}

}  // namespace thermocline::lab
