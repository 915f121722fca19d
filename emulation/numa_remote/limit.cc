// SPDX-License-Identifier: Apache-2.0
#include "emulation/numa_remote/limit.h"

#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <set>
#include <vector>

#include "base/text.h"
#include "emulation/numa_remote/kernel_files.h"
#include "topology/topology.h"

namespace thermocline::numa_remote {

namespace {

using literals::operator""_MiB;

constexpr std::uint64_t kHugePage = 2 << 20;
constexpr Bytes kLeast = 16_MiB;
/// Cached files that are worth a word.
constexpr Bytes kWorthDropping = 64_MiB;
/// Huge pages that are reserved in one step: 4 GiB.
constexpr std::uint64_t kPagesAtOnce = 2048;
/// Blocks in a row that can't be taken, after which no more are tried: each may take seconds.
constexpr unsigned kMostBusy = 16;
/// A block with pages in it that nobody can move keeps the kernel trying until a signal comes.
constexpr itimerval kPatience = {{1, 0}, {5, 0}};

/// Interrupts a system call that takes longer than kPatience, again each second until it ends.
class Patience {
 public:
  Patience() {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, &before_);
    ::setitimer(ITIMER_REAL, &kPatience, nullptr);
  }
  ~Patience() {
    const itimerval off{};
    ::setitimer(ITIMER_REAL, &off, nullptr);
    ::sigaction(SIGALRM, &before_, nullptr);
  }
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;

 private:
  struct sigaction before_ {};
};

/// Online blocks of a node in the order in which they are best taken: movable ones first, high
/// addresses first, where the kernel's own data is least likely.
Result<std::vector<OfflinedBlock>> online_blocks(const System& system, NodeId node) {
  std::vector<OfflinedBlock> blocks;
  std::set<unsigned> low;
  const std::string dir = fmt::format("/sys/devices/system/node/node{}", node.get());
  TC_ASSIGN(const auto names, system.list_dir(dir));
  for (const std::string& name : names) {
    constexpr std::string_view kPrefix = "memory";
    const auto number = parse_u64(name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : "");
    if (!number) continue;
    const std::string block = block_path(static_cast<unsigned>(*number));
    const auto state = system.read_file(block + "/state");
    const auto zones = system.read_file(block + "/valid_zones");
    if (!state || trim(*state) != "online" || !zones) continue;
    // Of a block that is online it names the zone it is in; "none": it spans several and stays.
    if (trim(*zones) == "none") continue;
    blocks.push_back({static_cast<unsigned>(*number), trim(*zones) == "Movable"});
    if (trim(*zones).starts_with("DMA")) low.insert(blocks.back().number);
  }
  // Memory that devices with 32-bit addresses need stays, unless there is no other.
  if (std::any_of(blocks.begin(), blocks.end(),
                  [&](const auto& b) { return !low.contains(b.number); }))
    std::erase_if(blocks, [&](const auto& b) { return low.contains(b.number); });
  std::sort(blocks.begin(), blocks.end(), [](const OfflinedBlock& a, const OfflinedBlock& b) {
    return a.movable != b.movable ? a.movable : a.number > b.number;
  });
  return blocks;
}

/// Whole blocks while more than one is to go. Blocks that can't be taken are passed over.
Result<Bytes> take_blocks(System& system, Journal& journal, Bytes wanted, const LimitHooks& hooks) {
  const auto size = number_in(system, "/sys/devices/system/memory/block_size_bytes", 16);
  const auto blocks = online_blocks(system, journal.who.fast);
  if (!size || !blocks || blocks->empty()) return Bytes();  // no memory hot-plug in this kernel
  Bytes taken;
  unsigned busy = 0;
  for (const OfflinedBlock& block : *blocks) {
    if (busy == kMostBusy) break;
    TC_ASSIGN(const Bytes now, fillable(system, journal.who.fast));
    if (now < wanted + Bytes(*size)) break;
    if (!journal.min_free_kib)
      if (const auto kib = number_in(system, kMinFreePath)) journal.min_free_kib = *kib;
    if (hooks.stopped()) return fail(ErrorKind::kFailure, "interrupted");
    hooks.progress(fmt::format("taking memory of node {} offline, in blocks of {} ({} so far)",
                               journal.who.fast.get(), format_bytes(Bytes(*size)),
                               format_bytes(taken)));
    journal.blocks.push_back(block);
    TC_TRY(hooks.save(journal));
    const Patience patience;
    if (system.write_file(block_path(block.number) + "/state", "offline")) {
      taken += Bytes(*size);
      busy = 0;
    } else {
      journal.blocks.pop_back();
      ++busy;
    }
  }
  return taken;
}

/// The rest into the node's pool of 2 MiB pages.
Result<Bytes> hold_pages(System& system, Journal& journal, Bytes wanted, const LimitHooks& hooks) {
  const std::string path = pool_path(journal.who.fast) + "/nr_hugepages";
  const auto before = number_in(system, path);
  if (!before) return Bytes();  // no huge pages in this kernel
  journal.held = HeldPages{*before, 0};
  // Free memory may lie in pieces: the kernel joins some as it goes, and more when told to. What
  // others take in the meantime comes off what is held.
  for (int fruitless = 0; fruitless < 4;) {
    TC_ASSIGN(const Bytes now, fillable(system, journal.who.fast));
    const std::uint64_t more = std::min(now.minus_floor(wanted).get() / kHugePage, kPagesAtOnce);
    const std::uint64_t less =
        std::min(wanted.minus_floor(now).get() / kHugePage, journal.held->added);
    if (more == 0 && less == 0) break;
    if (hooks.stopped()) return fail(ErrorKind::kFailure, "interrupted");
    if (more > 0)
      hooks.progress(fmt::format("reserving memory of node {} in huge pages ({} to go)",
                                 journal.who.fast.get(), format_bytes(now - wanted)));
    if (more > 0 && fruitless > 0)
      static_cast<void>(system.write_file(
          fmt::format("/sys/devices/system/node/node{}/compact", journal.who.fast.get()), "1"));
    const std::uint64_t target = *before + journal.held->added + more - less;
    journal.held->added += more;
    TC_TRY(hooks.save(journal));
    TC_TRY(system.write_file(path, std::to_string(target)));
    TC_ASSIGN(const std::uint64_t reached, number_in(system, path));
    journal.held->added = reached - std::min(reached, *before);
    if (reached < target || less > 0) ++fruitless;
    TC_TRY(hooks.save(journal));
  }
  return Bytes(journal.held->added * kHugePage);
}

}  // namespace

Result<Bytes> fillable(const System& system, NodeId node) {
  // Only this node's figures: discover() would look at much more.
  Topology topology;
  Node here;
  here.id = node;
  here.online = here.has_memory = here.allowed = true;
  topology.nodes.push_back(here);
  TC_TRY(topology.refresh_free(system));
  TC_TRY(topology.refresh_zones(system));
  const Node& now = topology.nodes.front();
  return now.free.minus_floor(bytes_of(now.watermarks.low + now.reserved));
}

Bytes cached_files(const System& system, NodeId node) {
  Bytes cached;
  if (const auto meminfo =
          system.read_file(fmt::format("/sys/devices/system/node/node{}/meminfo", node.get())))
    for (const std::string_view line : split(*meminfo, '\n')) {
      const auto parts = words(line);  // Node 0 Active(file): 1234 kB
      if (parts.size() < 4 || (parts[2] != "Active(file):" && parts[2] != "Inactive(file):"))
        continue;
      if (const auto kib = parse_u64(parts[3])) cached += Bytes(*kib << 10);
    }
  return cached;
}

std::string fillable_text(const System& system, NodeId node, Bytes fillable) {
  std::string text =
      fmt::format("programs can fill {} of node {} now", format_bytes(fillable), node.get());
  if (const Bytes cached = cached_files(system, node); cached > kWorthDropping)
    text += fmt::format("; {} hold cached files (echo 1 >/proc/sys/vm/drop_caches frees them)",
                        format_bytes(cached));
  return text;
}

Result<Limit> limit_fast(System& system, Journal& journal, Bytes wanted, const LimitHooks& hooks) {
  Limit out;
  const NodeId node = journal.who.fast;
  if (wanted < kLeast)
    return fail(ErrorKind::kUsage,
                "--fast-bytes {}: it must be at least {}, for the machine's sake",
                format_bytes(wanted), format_bytes(kLeast));
  TC_ASSIGN(out.before, fillable(system, node));
  if (wanted > out.before)
    return fail(ErrorKind::kUsage, "--fast-bytes {}: {}", format_bytes(wanted),
                fillable_text(system, node, out.before));
  TC_ASSIGN(out.offlined, take_blocks(system, journal, wanted, hooks));
  TC_ASSIGN(out.held, hold_pages(system, journal, wanted, hooks));
  TC_ASSIGN(out.left, fillable(system, node));
  const Bytes off = std::max(out.left, wanted) - std::min(out.left, wanted);
  if (off > std::max(4_MiB, Bytes(wanted.get() / 100)))
    return fail(ErrorKind::kFailure,
                "node {} could be brought to {}, not to {}: {} in memory blocks and {} in huge "
                "pages were all that it gave; stop programs that use it, or ask for another size",
                node.get(), format_bytes(out.left), format_bytes(wanted),
                format_bytes(out.offlined), format_bytes(out.held));
  return out;
}

}  // namespace thermocline::numa_remote
