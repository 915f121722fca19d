// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/cpio.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <utility>

namespace thermocline::lab {

namespace {

/// Paths in the archive have no leading slash.
std::string_view relative(std::string_view path) {
  while (!path.empty() && path.front() == '/') path.remove_prefix(1);
  while (!path.empty() && path.back() == '/') path.remove_suffix(1);
  return path;
}

void pad(std::string& bytes) {
  bytes.resize((bytes.size() + 3) / 4 * 4, '\0');
}

}  // namespace

void CpioWriter::add_entry(std::string_view path, std::uint32_t mode, std::string_view content) {
  // magic, inode, mode, uid, gid, links, mtime, size, dev (2), rdev (2), name size, check
  bytes_ += fmt::format(
      "070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
      inode_++, mode, 0, 0, 1, 0, content.size(), 0, 0, 0, 0, path.size() + 1, 0);
  bytes_ += path;
  bytes_ += '\0';
  pad(bytes_);
  bytes_ += content;
  pad(bytes_);
}

void CpioWriter::add_parents(std::string_view path) {
  for (std::size_t slash = path.find('/'); slash != std::string_view::npos;
       slash = path.find('/', slash + 1)) {
    const std::string_view parent = path.substr(0, slash);
    if (seen_.emplace(parent).second) add_entry(parent, S_IFDIR | 0755, {});
  }
}

void CpioWriter::add_dir(std::string_view path, std::uint32_t mode) {
  path = relative(path);
  add_parents(path);
  if (seen_.emplace(path).second) add_entry(path, S_IFDIR | mode, {});
}

void CpioWriter::add_file(std::string_view path, std::string_view content, std::uint32_t mode) {
  path = relative(path);
  add_parents(path);
  if (seen_.emplace(path).second) add_entry(path, S_IFREG | mode, content);
}

void CpioWriter::add_symlink(std::string_view path, std::string_view target) {
  path = relative(path);
  add_parents(path);
  if (seen_.emplace(path).second) add_entry(path, S_IFLNK | 0777, target);
}

bool CpioWriter::has(std::string_view path) const {
  return seen_.contains(relative(path));
}

std::string CpioWriter::finish() {
  inode_ = 0;
  add_entry("TRAILER!!!", 0, {});
  seen_.clear();
  inode_ = 0;
  return std::exchange(bytes_, {});
}

}  // namespace thermocline::lab
