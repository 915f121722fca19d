// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/files.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include "base/output.h"
#include "base/system.h"

extern char** environ;

namespace thermocline::lab {

namespace fs = std::filesystem;

fs::path cache_dir() {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr && *xdg == '/')
    return fs::path(xdg) / "thermocline";
  const char* home = std::getenv("HOME");
  return fs::path(home != nullptr ? home : "/root") / ".cache" / "thermocline";
}

Result<std::string> read_whole(const fs::path& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "can't read " + path.string());
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return fail_errno(errno, "can't read " + path.string());
  if (S_ISDIR(info.st_mode)) return fail_errno(EISDIR, "can't read " + path.string());
  std::string content;
  content.reserve(static_cast<std::size_t>(info.st_size));
  std::vector<char> buffer(1u << 20);
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "can't read " + path.string());
    if (n == 0) return content;
    content.append(buffer.data(), static_cast<std::size_t>(n));
  }
}

Status write_whole(const fs::path& path, std::string_view content) {
  std::error_code ec;
  if (path.has_parent_path()) fs::create_directories(path.parent_path(), ec);
  if (ec) return fail_errno(ec.value(), "can't make the folder of " + path.string());
  return thermocline::write_whole(path.string(), content);
}

Result<std::string> read_kept(const fs::path& path) {
  std::error_code ec;
  fs::last_write_time(path, fs::file_time_type::clock::now(), ec);
  return read_whole(path);
}

void prune_cache(const fs::path& dir) {
  constexpr std::chrono::hours kUnused{30 * 24};
  const auto oldest = fs::file_time_type::clock::now() - kUnused;
  std::error_code ec;
  for (fs::recursive_directory_iterator entry(dir, ec);
       !ec && entry != fs::recursive_directory_iterator(); entry.increment(ec)) {
    std::error_code ignored;
    const auto used = entry->last_write_time(ignored);
    if (!ignored && entry->is_regular_file(ignored) && used < oldest)
      fs::remove(entry->path(), ignored);
  }
}

Result<ProgramOutput> run_program(const std::vector<std::string>& arguments) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "can't make a pipe");
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, writer.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, writer.get(), STDERR_FILENO);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail_errno(error, "can't run " + arguments.front());
  writer.reset();
  ProgramOutput output;
  std::vector<char> buffer(1u << 16);
  for (;;) {
    const ssize_t n = ::read(reader.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    output.text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  output.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return output;
}

std::uint64_t fingerprint(std::string_view bytes, std::uint64_t seed) {
  for (const char c : bytes) {
    seed ^= static_cast<unsigned char>(c);
    seed *= 0x100000001b3u;
  }
  return seed;
}

Result<std::uint64_t> file_fingerprint(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return fail_errno(errno, "can't read " + path.string());
  return fingerprint(fmt::format("{}:{}:{}.{}", path.string(), info.st_size, info.st_mtim.tv_sec,
                                 info.st_mtim.tv_nsec));
}

}  // namespace thermocline::lab
