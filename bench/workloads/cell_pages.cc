// SPDX-License-Identifier: Apache-2.0
// cell_pages: what a cell of the benchmark suite needs done with pages, in the guest:
//   launch  starts a program with its memory bound to a node or interleaved over two
//   place   puts the pages of a process that count most on the fast node, as many as it held before
//   hold    takes memory of a node away, as memory of the kernel, until so much is left, and keeps
//   it
#include <fcntl.h>
#include <numaif.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <unordered_map>

#include "base/text.h"
#include "bench/workloads/command_line.h"
#include "bench/workloads/common.h"

namespace thermocline::workloads {
namespace {

constexpr std::size_t kBatch = 512;
constexpr int kRounds = 8;

/// Replaces this process. The policy is the process's, so it lasts: for programs that no tiering
/// system looks after.
Status launch(const std::string& bind, const std::string& interleave,
              const std::vector<std::string>& command) {
  TC_ASSIGN(const auto nodes, parse_list(bind.empty() ? interleave : bind));
  unsigned long mask = 0;
  for (const std::uint32_t node : nodes) {
    if (node >= 64) return fail(ErrorKind::kUsage, "{} is no node of a guest", node);
    mask |= 1ul << node;
  }
  if (::set_mempolicy(bind.empty() ? MPOL_INTERLEAVE : MPOL_BIND, &mask, 65) != 0)
    return fail_errno(errno, "can't set the memory policy");
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execvp(words[0], words.data());
  return fail_errno(errno, "can't start " + command[0]);
}

/// Page numbers of the writable private memory of a process, in order.
Result<std::vector<std::uint64_t>> pages_of(const System& system, int pid) {
  TC_ASSIGN(const std::string maps, system.read_file(fmt::format("/proc/{}/maps", pid)));
  std::vector<std::uint64_t> pages;
  for (const std::string_view line : split(maps, '\n')) {
    const auto w = words(line);
    if (w.size() < 2 || !w[1].starts_with("rw") || !w[1].ends_with('p')) continue;
    const auto ends = split(w[0], '-');
    TC_ASSIGN(const std::uint64_t from, parse_u64(ends[0], 16));
    TC_ASSIGN(const std::uint64_t to, parse_u64(ends[1], 16));
    for (std::uint64_t page = from >> 12; page < to >> 12; ++page) pages.push_back(page);
  }
  return pages;
}

/// Node of each page or a negative errno; with `target` they are moved there first.
Result<std::vector<int>> where(System& system, int pid, std::span<const std::uint64_t> pages,
                               std::optional<int> target = std::nullopt) {
  std::vector<int> nodes(pages.size(), -ENOENT);
  for (std::size_t at = 0; at < pages.size(); at += kBatch) {
    const std::size_t n = std::min(kBatch, pages.size() - at);
    std::vector<void*> addresses(n);
    for (std::size_t i = 0; i < n; ++i) addresses[i] = reinterpret_cast<void*>(pages[at + i] << 12);
    const std::vector<int> targets(target ? n : 0, target.value_or(0));
    const long result = system.move_pages(Pid(pid), addresses, targets,
                                          std::span(nodes).subspan(at, n), MPOL_MF_MOVE);
    // A full node ends the call before it has told the state of every page.
    if (result == -ENOMEM && target) {
      TC_ASSIGN(const std::vector<int> now, where(system, pid, pages.subspan(at, n)));
      std::copy(now.begin(), now.end(), nodes.begin() + static_cast<std::ptrdiff_t>(at));
    } else if (result < 0) {
      return fail_errno(static_cast<int>(-result), "can't move or find pages");
    }
  }
  return nodes;
}

/// Lines "PAGE COUNT", hexadecimal and decimal, or empty; the highest count first.
Result<std::vector<std::pair<std::uint64_t, std::uint64_t>>> read_counts(const std::string& file) {
  std::ifstream in(file);
  if (!in) return fail_errno(errno, "can't read " + file);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> counts;
  for (std::string line; std::getline(in, line);) {
    const auto w = words(line);
    if (w.empty()) continue;
    if (w.size() != 2) return fail(ErrorKind::kCorrupt, "{} has a line \"{}\"", file, line);
    TC_ASSIGN(const std::uint64_t page, parse_u64(w[0], 16));
    TC_ASSIGN(const std::uint64_t count, parse_u64(w[1]));
    counts.emplace_back(page, count);
  }
  std::stable_sort(counts.begin(), counts.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  return counts;
}

/// Splits the huge pages of which a part is wanted: they can only be moved whole. Those that are
/// wanted whole, or not at all, stay. `pages` in order.
Status split_mixed(System& system, int pid, std::span<const std::uint64_t> pages,
                   const std::unordered_map<std::uint64_t, bool>& wanted) {
  constexpr std::uint64_t kHugeShift = 9;
  constexpr const char* kSplit = "/sys/kernel/debug/split_huge_pages";
  TC_ASSIGN(const std::string rollup, system.read_file(fmt::format("/proc/{}/smaps_rollup", pid)));
  const auto at = rollup.find("AnonHugePages:");
  if (at == std::string::npos || words(std::string_view(rollup).substr(at)).at(1) == "0") return {};
  for (std::size_t i = 0; i < pages.size();) {
    const std::uint64_t block = pages[i] >> kHugeShift;
    std::size_t in = 0, all = 0;
    for (; i < pages.size() && pages[i] >> kHugeShift == block; ++i, ++all)
      in += wanted.contains(pages[i]);
    if (in == 0 || in == all) continue;
    const std::uint64_t start = block << (kHugeShift + 12);
    TC_TRY(system.write_file(
        kSplit, fmt::format("{},{:#x},{:#x}", pid, start, start + (1ull << (kHugeShift + 12)))));
  }
  return {};
}

Status place(System& system, int pid, const std::string& file, int fast, int slow) {
  TC_ASSIGN(const auto counts, read_counts(file));
  TC_ASSIGN(const auto pages, pages_of(system, pid));
  TC_ASSIGN(const auto nodes, where(system, pid, pages));
  std::unordered_map<std::uint64_t, int> node_of;
  std::size_t room = 0;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    if (nodes[i] < 0) continue;
    node_of[pages[i]] = nodes[i];
    if (nodes[i] == fast) ++room;
  }
  std::vector<std::uint64_t> in;
  std::unordered_map<std::uint64_t, bool> wanted;
  for (const auto& [page, count] : counts) {
    const auto at = node_of.find(page);
    if (at == node_of.end()) continue;
    if (wanted.size() == room) break;
    wanted[page] = true;
    if (at->second != fast) in.push_back(page);
  }
  TC_TRY(split_mixed(system, pid, pages, wanted));
  std::vector<std::uint64_t> out;
  for (const std::uint64_t page : pages) {
    const auto at = node_of.find(page);
    if (at != node_of.end() && at->second == fast && !wanted.contains(page)) out.push_back(page);
  }
  // Pages that nothing is known of are as good as any other: what must leave is what makes room.
  out.resize(std::min(out.size(), in.size()));
  const std::size_t all = in.size();
  // By turns, as a full fast node takes nothing in; what could not go now goes in a later round.
  for (int round = 0; round < kRounds && !in.empty(); ++round) {
    std::vector<std::uint64_t> in_left, out_left;
    for (std::size_t at = 0; at < std::max(in.size(), out.size()); at += kBatch) {
      const auto half = [&](std::vector<std::uint64_t>& list, std::vector<std::uint64_t>& left,
                            int to) -> Status {
        if (at >= list.size()) return {};
        const auto part = std::span(list).subspan(at, std::min(kBatch, list.size() - at));
        TC_ASSIGN(const auto now, where(system, pid, part, to));
        for (std::size_t i = 0; i < part.size(); ++i)
          if (now[i] != to) left.push_back(part[i]);
        return {};
      };
      TC_TRY(half(out, out_left, slow));
      TC_TRY(half(in, in_left, fast));
    }
    out = std::move(out_left);
    in = std::move(in_left);
  }
  fmt::print("place room_pages {} wanted_pages {} exchanged_pages {} left_pages {}\n", room,
             wanted.size(), all - in.size(), in.size());
  // One in fifty that stays outside is a yardstick that is off by less than what it measures.
  if (in.size() > wanted.size() / 50)
    return fail(ErrorKind::kFailure, "{} of {} pages could not be put on node {}", in.size(), all,
                fast);
  return {};
}

/// What programs get of a node before the kernel looks elsewhere: free pages above the low
/// watermark, and those on the lists of the CPUs.
Result<std::uint64_t> free_pages(const System& system, int node) {
  TC_ASSIGN(const std::string zones, system.read_file("/proc/zoneinfo"));
  std::uint64_t sum = 0, free = 0;
  bool here = false;
  for (const std::string_view line : split(zones, '\n')) {
    const auto w = words(line);
    if (w.size() >= 4 && w[0] == "Node") here = w[1] == fmt::format("{},", node);
    if (!here) continue;
    if (w.size() == 3 && w[0] == "pages" && w[1] == "free") {
      TC_ASSIGN(free, parse_u64(w[2]));
    } else if (w.size() == 2 && w[0] == "low") {
      TC_ASSIGN(const std::uint64_t low, parse_u64(w[1]));
      sum += free > low ? free - low : 0;
      free = 0;
    } else if (w.size() == 2 && w[0] == "count:") {
      TC_ASSIGN(const std::uint64_t count, parse_u64(w[1]));
      sum += count;
    }
  }
  return sum;
}

/// Fills pipes: their pages are on no list that reclaim looks at, and no program's.
Status fill_pipes(std::uint64_t pages) {
  constexpr int kPipeBytes = 1 << 20;
  const std::vector<std::byte> page(4096);
  int ends[2] = {-1, -1};
  for (std::uint64_t room = 0; pages > 0; --pages, --room) {
    if (room == 0) {
      if (::pipe2(ends, O_NONBLOCK) != 0) return fail_errno(errno, "can't make a pipe");
      const int size = ::fcntl(ends[1], F_SETPIPE_SZ, kPipeBytes);
      if (size < 0) return fail_errno(errno, "can't make a pipe larger");
      room = static_cast<std::uint64_t>(size) / page.size();
    }
    if (::write(ends[1], page.data(), page.size()) != static_cast<ssize_t>(page.size()))
      return fail_errno(errno, "can't fill a pipe");
  }
  return {};
}

Status hold(const System& system, int node, std::uint64_t leave_kib,
            const std::string& ready_file) {
  constexpr int kTries = 8;
  constexpr std::uint64_t kClose = 12, kPipeItself = 4;
  if (node < 0 || node >= 64) return fail(ErrorKind::kUsage, "{} is no node of a guest", node);
  const unsigned long mask = 1ul << node;
  const std::uint64_t leave = leave_kib / 4;
  TC_ASSIGN(std::uint64_t free, free_pages(system, node));
  for (int i = 0; i < kTries && free > leave + kClose; ++i) {
    if (::set_mempolicy(MPOL_BIND, &mask, 65) != 0)
      return fail_errno(errno, "can't set the memory policy");
    // Pipes themselves take memory, too.
    const std::uint64_t surplus = free - leave;
    TC_TRY(fill_pipes(surplus - surplus / 16 - kPipeItself));
    if (::set_mempolicy(MPOL_DEFAULT, nullptr, 0) != 0)
      return fail_errno(errno, "can't set the memory policy");
    TC_ASSIGN(free, free_pages(system, node));
  }
  TC_TRY(write_ready_file(ready_file, fmt::format("{}\n", free * 4096)));
  for (;;) ::pause();
}

Result<int> run(int argc, char** argv) {
  CLI::App app{"cell_pages: memory policies and placement for cells of the benchmark suite."};
  app.require_subcommand(1);
  std::string bind, interleave, counts;
  std::vector<std::string> command;
  int pid = 0, fast = 0, slow = 1;
  CLI::App* const launch_verb = app.add_subcommand("launch", "start a program with a policy");
  CLI::Option* const bind_option = launch_verb->add_option("--bind", bind, "a node");
  launch_verb->add_option("--interleave", interleave, "nodes")->excludes(bind_option);
  launch_verb->add_option("command", command)->required();
  CLI::App* const place_verb = app.add_subcommand("place", "put pages on the fast node");
  place_verb->add_option("--pid", pid)->required();
  place_verb->add_option("--counts", counts, "lines PAGE COUNT")->required();
  place_verb->add_option("--fast", fast)->required();
  place_verb->add_option("--slow", slow)->required();
  std::uint64_t leave = 0;
  std::string ready_file;
  CLI::App* const hold_verb = app.add_subcommand("hold", "take memory of a node away");
  hold_verb->add_option("--node", fast)->required();
  hold_verb->add_option("--leave", leave, "KiB that stay free")->required();
  hold_verb->add_option("--ready-file", ready_file, "made when it is held")->required();
  TC_ASSIGN(const bool go_on, understand(app, "cell_pages", argc, argv));
  if (!go_on) return 0;
  if (*launch_verb) {
    TC_TRY(launch(bind, interleave, command));
    return 0;
  }
  const std::unique_ptr<System> system = make_real_system();
  if (*hold_verb) {
    TC_TRY(hold(*system, fast, leave, ready_file));
    return 0;
  }
  TC_TRY(place(*system, pid, counts, fast, slow));
  return 0;
}

}  // namespace
}  // namespace thermocline::workloads

int main(int argc, char** argv) {
  return thermocline::workloads::run_program(
      "cell_pages", [&] { return thermocline::workloads::run(argc, argv); });
}
