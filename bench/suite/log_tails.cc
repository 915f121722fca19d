// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/text.h"
#include "bench/suite/report.h"

namespace thermocline::suite {

namespace {

constexpr std::size_t kTailLines = 40;
constexpr std::streamoff kTailBytes = 16 * 1024;

std::string tail_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return "(there is no such file)";
  const std::streamoff size = in.tellg();
  in.seekg(std::max<std::streamoff>(0, size - kTailBytes));
  std::string text(static_cast<std::size_t>(std::min(size, kTailBytes)), '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(0, in.gcount())));
  const auto lines = split(trim(text), '\n');
  std::string out;
  for (std::size_t i = lines.size() > kTailLines ? lines.size() - kTailLines : 0; i < lines.size();
       ++i)
    out += printable(trim(lines[i])) + "\n";
  return out;
}

}  // namespace

std::map<std::string, std::string> read_log_tails(const Summary& summary,
                                                  const std::string& folder) {
  std::map<std::string, std::string> tails;
  for (const Table& table : summary.tables)
    for (const Failure& failure : table.failed) {
      const std::filesystem::path path = failure.log;
      const bool leads_out =
          path.is_absolute() || std::find(path.begin(), path.end(), "..") != path.end();
      if (!path.empty() && !leads_out) tails[failure.log] = tail_of(folder / path);
    }
  return tails;
}

}  // namespace thermocline::suite
