// SPDX-License-Identifier: Apache-2.0
// Writes a cpio archive in the "newc" format, the one the kernel unpacks as its first root file
// system (Documentation/driver-api/early-userspace/buffer-format.rst). Uncompressed: an emulated
// CPU unpacks that fastest. Same input, same bytes: owner 0, no times.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

namespace thermocline::lab {

/// Not thread-safe. Paths are absolute in the guest; missing parent folders are added by
/// themselves, a path that is added twice keeps its first content.
class CpioWriter {
 public:
  void add_dir(std::string_view path, std::uint32_t mode = 0755);
  void add_file(std::string_view path, std::string_view content, std::uint32_t mode = 0644);
  void add_symlink(std::string_view path, std::string_view target);
  [[nodiscard]] bool has(std::string_view path) const;
  /// Ends the archive and gives its bytes; the writer is empty afterwards. Archives can be joined.
  [[nodiscard]] std::string finish();

 private:
  void add_entry(std::string_view path, std::uint32_t mode, std::string_view content);
  void add_parents(std::string_view path);

  std::string bytes_;
  std::set<std::string, std::less<>> seen_;
  std::uint32_t inode_ = 0;
};

}  // namespace thermocline::lab
