// SPDX-License-Identifier: Apache-2.0
#include "cli/page_carrier.h"

#include <algorithm>

#include "base/text.h"
#include "tracking/followed_process.h"
#include "tracking/present_pages.h"
#include "tracking/proc_maps.h"

namespace thermocline {

namespace {

/// Entries of one read of pagemap.
constexpr std::uint64_t kChunk = 8192;
/// Pages of one call: the kernel's fixed cost of a call is spread, and the program waits for less
/// than a millisecond or two.
constexpr std::uint64_t kBatch = 512;
constexpr std::uint64_t kHuge = 512;
/// After so many batches in a row that found no room the node counts as full. One alone may be of
/// pages that are special: hugetlbfs has a pool of its own.
constexpr unsigned kFullBatches = 4;

/// What the kernel maps into every process: nobody can move it.
bool is_of_the_kernel(std::string_view line) {
  return line.ends_with("[vdso]") || line.ends_with("[vvar]") || line.ends_with("[vvar_vclock]") ||
         line.ends_with("[vsyscall]");
}

class Carrier {
 public:
  Carrier(System& system, const CarryRequest& request, const CarryProgress& progress)
      : system_(system), request_(request), progress_(progress) {}

  Result<CarryResult> run(const ProcessIdentity& identity) {
    TC_ASSIGN(const FollowedProcess process, FollowedProcess::open(system_, identity));
    if (auto nodes = NodeMap::read(system_)) nodes_ = std::move(*nodes);
    pid_ = identity.pid;
    mover_ = make_kernel_mover(system_, {[pid = identity.pid](Asid) { return pid; }, nullptr});
    const auto text = system_.read_file(process.proc_path("maps"));
    if (!text) {
      TC_TRY(process.check(system_));
      return tl::make_unexpected(text.error());
    }
    std::string ours;
    for (const std::string_view line : split(*text, '\n'))
      if (!line.empty() && !is_of_the_kernel(trim(line))) ours += std::string(line) + "\n";
    TC_ASSIGN(const auto mappings, parse_maps(ours));
    const PageCount in_memory = pages_in_memory(system_, process);
    for (const Mapping& mapping : mappings) {
      const bool named = !request_.ranges.empty();
      if (!named && set_aside(mapping, in_memory)) {
        result_.set_aside += mapping.end - mapping.first;
        continue;
      }
      if (!named) {
        TC_TRY(carry_range(process, mapping.first, mapping.end));
      }
      for (const ScanRange& range : request_.ranges) {
        const Vpn first = std::max(mapping.first, range.first);
        const Vpn end = std::min(mapping.end, range.first + range.count);
        if (first < end) TC_TRY(carry_range(process, first, end));
      }
      if (stopped_ || result_.full) break;
    }
    TC_TRY(flush(process));
    return result_;
  }

 private:
  [[nodiscard]] Status carry_range(const FollowedProcess& process, Vpn from, Vpn end) {
    while (from < end && !stopped_ && !result_.full) {
      // Up to where a huge page may begin: none is cut in two.
      raw_.resize(std::min(kChunk - from.get() % kHuge, (end - from).get()));
      const long got = system_.pread(process.pagemap(), std::as_writable_bytes(std::span(raw_)),
                                     from.get() * sizeof(std::uint64_t));
      if (got < 0)
        return fail_errno(static_cast<int>(-got), "can't read " + process.proc_path("pagemap"));
      const std::size_t n = static_cast<std::size_t>(got) / sizeof(std::uint64_t);
      if (n == 0) return process.check(system_);
      TC_TRY(take(process, from, n));
      from = from + PageCount(n);
      if (progress_) stopped_ = !progress_(result_);
    }
    return {};
  }

  /// The pages of `n` entries of raw_, of which the first is of page `first`.
  [[nodiscard]] Status take(const FollowedProcess& process, Vpn first, std::size_t n) {
    entries_.resize(n);
    std::transform(raw_.begin(), raw_.begin() + static_cast<std::ptrdiff_t>(n), entries_.begin(),
                   parse_pagemap);
    TC_TRY(find_nodes(process, first));
    for (std::size_t i = 0; i < n;) {
      const bool huge = is_huge(first, i);
      const std::size_t pages = huge ? kHuge : 1;
      if (entries_[i].present && node_[i] >= 0) {
        if (NodeId(node_[i]) == request_.to) {
          if (!request_.from) result_.already += PageCount(pages);
        } else if (!request_.from || NodeId(node_[i]) == *request_.from) {
          result_.asked += PageCount(pages);
          if (!request_.dry_run)
            TC_TRY(add(process, first + PageCount(i), huge ? kOrder2M : kOrder4K));
        }
      }
      i += pages;
    }
    return {};
  }

  /// Node of each entry; -1: not there, or nobody can tell.
  [[nodiscard]] Status find_nodes(const FollowedProcess& process, Vpn first) {
    node_.assign(entries_.size(), -1);
    std::vector<void*> unknown;
    std::vector<std::size_t> index;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      if (!entries_[i].present) continue;
      if (nodes_ && entries_[i].pfn != 0) {
        if (const NodeMap::Range* range = nodes_->find(entries_[i].pfn))
          node_[i] = range->node.get();
      } else {
        unknown.push_back(reinterpret_cast<void*>((first + PageCount(i)).address()));
        index.push_back(i);
      }
    }
    if (unknown.empty()) return {};
    std::vector<int> told(unknown.size(), -1);
    const long rc = system_.move_pages(process.identity().pid, unknown, {}, told, 0);
    if (rc < 0) {
      TC_TRY(process.check(system_));
      return fail_errno(
          static_cast<int>(-rc),
          fmt::format("can't ask where pages of process {} are", process.identity().pid.get()));
    }
    for (std::size_t k = 0; k < index.size(); ++k) node_[index[k]] = told[k];
    return {};
  }

  /// Whether entry `i` begins 2 MiB that lie in one piece, as a huge page does. Where they are
  /// small pages after all, the mover finds out.
  [[nodiscard]] bool is_huge(Vpn first, std::size_t i) const {
    if ((first + PageCount(i)).get() % kHuge != 0 || i + kHuge > entries_.size()) return false;
    if (!entries_[i].present || entries_[i].pfn == 0 || entries_[i].pfn % kHuge != 0) return false;
    for (std::size_t k = 1; k < kHuge; ++k)
      if (!entries_[i + k].present || entries_[i + k].pfn != entries_[i].pfn + k) return false;
    return true;
  }

  [[nodiscard]] Status add(const FollowedProcess& process, Vpn page, PageOrder order) {
    PageMove move;
    move.asid = Asid(1);
    move.vpn = page;
    move.order = order;
    move.to = request_.to;
    move.owners = request_.shared ? Owners::kAll : Owners::kOne;
    batch_.push_back(move);
    batch_pages_ += order.pages().get();
    return batch_pages_ < kBatch ? Status{} : flush(process);
  }

  [[nodiscard]] Status flush(const FollowedProcess& process) {
    if (batch_.empty()) return {};
    const PageCount before = result_.of(MoveOutcome::kMoved);
    execute(batch_);
    // What was no huge page after all is moved page by page.
    std::vector<PageMove> small;
    for (std::size_t i = 0; i < batch_.size(); ++i) {
      if (batch_[i].order != kOrder2M || outcomes_[i] != MoveOutcome::kGone) {
        count(batch_[i], outcomes_[i]);
        continue;
      }
      for (std::uint64_t k = 0; k < kHuge; ++k) {
        small.push_back(batch_[i]);
        small.back().order = kOrder4K;
        small.back().vpn = batch_[i].vpn + PageCount(k);
      }
    }
    if (!small.empty()) {
      execute(small);
      for (std::size_t i = 0; i < small.size(); ++i) count(small[i], outcomes_[i]);
    }
    const bool no_room = result_.of(MoveOutcome::kMoved) == before &&
                         result_.of(MoveOutcome::kNoMemory) > no_memory_before_;
    no_memory_before_ = result_.of(MoveOutcome::kNoMemory);
    without_room_ = no_room ? without_room_ + 1 : 0;
    result_.full = without_room_ >= kFullBatches;
    batch_.clear();
    batch_pages_ = 0;
    return process.check(system_);
  }

  void execute(std::span<const PageMove> moves) {
    outcomes_.assign(moves.size(), MoveOutcome::kRefused);
    mover_->execute(moves, outcomes_);
    // Small parts of one large page: the first took them all along, and the kernel calls the others
    // busy. Where they are now tells.
    std::vector<void*> pages;
    std::vector<std::size_t> index;
    for (std::size_t i = 0; i < moves.size(); ++i) {
      if (outcomes_[i] != MoveOutcome::kBusy || moves[i].order != kOrder4K) continue;
      pages.push_back(reinterpret_cast<void*>(moves[i].vpn.address()));
      index.push_back(i);
    }
    std::vector<int> where(pages.size(), -1);
    if (pages.empty() || system_.move_pages(pid_, pages, {}, where, 0) < 0) return;
    for (std::size_t k = 0; k < index.size(); ++k)
      if (where[k] == request_.to.get()) outcomes_[index[k]] = MoveOutcome::kMoved;
  }
  void count(const PageMove& move, MoveOutcome outcome) {
    result_.outcomes[static_cast<std::size_t>(outcome)] += move.order.pages();
  }

  System& system_;
  const CarryRequest& request_;
  const CarryProgress& progress_;
  std::optional<NodeMap> nodes_;
  std::unique_ptr<Mover> mover_;
  Pid pid_;
  CarryResult result_;
  std::vector<std::uint64_t> raw_;
  std::vector<PagemapEntry> entries_;
  std::vector<int> node_;
  std::vector<PageMove> batch_;
  std::vector<MoveOutcome> outcomes_;
  std::uint64_t batch_pages_ = 0;
  PageCount no_memory_before_;
  unsigned without_room_ = 0;
  bool stopped_ = false;
};

}  // namespace

Result<CarryResult> carry_pages(System& system, const ProcessIdentity& process,
                                const CarryRequest& request, const CarryProgress& progress) {
  return Carrier(system, request, progress).run(process);
}

Result<std::vector<ScanRange>> parse_ranges(std::span<const std::string> texts) {
  constexpr std::uint64_t kEnd = std::uint64_t{1} << 57;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> pages;
  for (const std::string& text : texts) {
    const auto refuse = [&](const char* why) {
      return fail(ErrorKind::kUsage,
                  "--range {}: {}; give addresses as /proc/PID/maps does, such as "
                  "7f0000000000-7f0000200000",
                  printable(text), why);
    };
    const auto dash = text.find('-');
    if (dash == std::string::npos) return refuse("there is no end");
    const auto number = [](std::string_view part) {
      if (part.starts_with("0x") || part.starts_with("0X")) part.remove_prefix(2);
      return parse_u64(part, 16);
    };
    const auto first = number(std::string_view(text).substr(0, dash));
    const auto end = number(std::string_view(text).substr(dash + 1));
    if (!first || !end) return refuse("these are no addresses");
    if (*first >= *end) return refuse("it ends before it begins");
    if (*end > kEnd) return refuse("no program has memory there");
    pages.emplace_back(*first / kPageSize, (*end + kPageSize - 1) / kPageSize);
  }
  std::sort(pages.begin(), pages.end());
  std::vector<ScanRange> ranges;
  for (const auto& [first, end] : pages) {
    if (!ranges.empty() && Vpn(first) <= ranges.back().first + ranges.back().count) {
      ScanRange& last = ranges.back();
      last.count = std::max(last.count, PageCount(end - last.first.get()));
    } else {
      ranges.push_back({Vpn(first), PageCount(end - first)});
    }
  }
  return ranges;
}

}  // namespace thermocline
