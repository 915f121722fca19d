// SPDX-License-Identifier: Apache-2.0
// move_integrity NODE_A NODE_B SECONDS [--huge] [--mib N] [--spoil]
//
// Four threads write patterns into memory and check them, each the words that are its own of every
// page, while the daemon's mover carries the pages from A to B and back. A fifth thread unmaps,
// remaps, forks, protects and drops parts of a region of its own, which is moved as well, and
// checks what must have stayed. Whatever the mover meets there: no word may be another one than was
// written.
//
// The mover is another process, the parent. Prints what was checked and what became of moves, and
// fails with 1 when a word was wrong, a move was refused, or less than half of all memory went each
// way. Takes longer than asked for if it must for a trip there and back. --spoil writes one wrong
// word: that must be found.
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/workloads/random.h"
#include "mover/mover.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace thermocline {
namespace {

using workloads::mix64;
using workloads::Random;

constexpr std::size_t kWordsAPage = kPageSize / sizeof(std::uint64_t);
constexpr unsigned kThreads = 4;
constexpr std::size_t kHuge = 512;            // pages
constexpr std::size_t kTroubled = 4 * kHuge;  // pages of the region that the fifth thread owns
/// One in so many batches is of any size, the others as large as the daemon's.
constexpr std::uint64_t kOddBatches = 4;
constexpr std::size_t kBatch = 512;

/// What the checker tells the mover's process. All zero at first.
struct Told {
  std::atomic<std::uint64_t> words, bad, unmaps, remaps, forks, drops, protects, collapses;
  std::atomic<std::uint64_t> bad_address, bad_wanted, bad_got;
  std::atomic<std::uint64_t> filled;  // threads that have filled their memory
  std::atomic<bool> stop;
};

/// A page's words as of one of its generations; 0: never written.
std::uint64_t pattern(std::uint64_t address, std::uint32_t generation) {
  return generation == 0 ? 0 : mix64(address ^ std::uint64_t{generation} << 32);
}

using Word = std::atomic_ref<std::uint64_t>;

class Checker {
 public:
  Checker(Told& told, std::byte* memory, std::size_t pages, std::byte* troubled, bool huge,
          bool spoil)
      : told_(told),
        memory_(memory),
        pages_(pages),
        troubled_(troubled),
        huge_(huge),
        spoil_(spoil) {}

  [[noreturn]] void run() {
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < kThreads; ++t) threads.emplace_back([this, t] { own_words(t); });
    threads.emplace_back([this] { trouble(); });
    for (std::thread& thread : threads) thread.join();
    ::_exit(told_.bad == 0 ? 0 : 1);
  }

 private:
  void expect(std::uint64_t address, std::uint64_t wanted, std::uint64_t got) {
    if (wanted == got) return;
    if (told_.bad.fetch_add(1) > 0) return;
    told_.bad_address = address;
    told_.bad_wanted = wanted;
    told_.bad_got = got;
  }

  /// Words first, first + step, ... of the page at `at`: checked as of a generation (those of the
  /// page that `of` was), and written as of another one unless that is 0.
  void visit(std::byte* at, const std::byte* of, std::size_t first, std::size_t step,
             std::uint32_t now, std::uint32_t next) {
    auto* const words = reinterpret_cast<std::uint64_t*>(at);
    const auto base = reinterpret_cast<std::uint64_t>(of);
    for (std::size_t w = first; w < kWordsAPage; w += step) {
      expect(base + 8 * w, pattern(base + 8 * w, now),
             Word(words[w]).load(std::memory_order_relaxed));
      if (next != 0) Word(words[w]).store(pattern(base + 8 * w, next), std::memory_order_relaxed);
    }
    told_.words.fetch_add((kWordsAPage - first + step - 1) / step, std::memory_order_relaxed);
  }

  void own_words(unsigned t) {
    std::vector<std::uint32_t> generation(pages_, 1);
    const auto page = [&](std::size_t i) { return memory_ + i * kPageSize; };
    for (std::size_t i = 0; i < pages_; ++i) visit(page(i), page(i), t, kThreads, 0, 1);
    told_.filled.fetch_add(1);
    Random random(7, t);
    for (std::uint64_t visits = 0; !told_.stop; ++visits) {
      if (visits % 64 == 0) ::sched_yield();
      // Where moving a huge page fails the kernel splits it: made whole again, under the mover.
      if (huge_ && t == 0 && visits % 128 == 0 &&
          ::madvise(page(random.below(pages_ / kHuge) * kHuge), kHuge * kPageSize, MADV_COLLAPSE) ==
              0)
        ++told_.collapses;
      const std::size_t i = random.below(pages_);
      visit(page(i), page(i), t, kThreads, generation[i], generation[i] + 1);
      ++generation[i];
      if (spoil_ && t == 0 && visits == 1000)
        Word(reinterpret_cast<std::uint64_t*>(page(i))[0]).store(1);
    }
    for (std::size_t i = 0; i < pages_; ++i) visit(page(i), page(i), t, kThreads, generation[i], 0);
  }

  void trouble() {
    constexpr std::size_t kParts = kTroubled / kHuge, kPart = kHuge * kPageSize;
    std::vector<std::uint32_t> generation(kTroubled, 0);
    const auto page = [&](std::size_t i) { return troubled_ + i * kPageSize; };
    // Room of the kernel's choice for what is moved away and back again.
    void* const away = ::mmap(nullptr, kPart, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    Random random(7, kThreads);
    const auto forget = [&](std::size_t part) {
      std::fill_n(generation.begin() + static_cast<std::ptrdiff_t>(part * kHuge), kHuge, 0u);
    };
    for (bool first = true; !told_.stop; first = false) {
      const std::size_t part = random.below(kParts);
      std::byte* const at = page(part * kHuge);
      for (std::size_t i = part * kHuge; i < (part + 1) * kHuge; ++i)
        visit(page(i), page(i), 0, 1, generation[i], generation[i] + 1), ++generation[i];
      if (first) told_.filled.fetch_add(1);
      switch (random.below(5)) {
        case 0:
          if (::munmap(at, kPart) != 0 ||
              ::mmap(at, kPart, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                     0) != at)
            std::abort();
          forget(part);
          ++told_.unmaps;
          break;
        case 1:
          if (::mremap(at, kPart, kPart, MREMAP_MAYMOVE | MREMAP_FIXED, away) != away) std::abort();
          for (std::size_t i = 0; i < kHuge; ++i)
            visit(static_cast<std::byte*>(away) + i * kPageSize, page(part * kHuge + i), 0, 1,
                  generation[part * kHuge + i], generation[part * kHuge + i] + 1),
                ++generation[part * kHuge + i];
          if (::mremap(away, kPart, kPart, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at) std::abort();
          ++told_.remaps;
          break;
        case 2: {
          // The child has what was there, the parent goes on; what one writes the other doesn't
          // see.
          const pid_t child = ::fork();
          if (child < 0) std::abort();
          if (child == 0) {
            for (std::size_t i = part * kHuge; i < (part + 1) * kHuge; ++i)
              visit(page(i), page(i), 0, 1, generation[i], 1u << 30);
            if (random.below(2) == 0) ::execl("/bin/true", "true", nullptr);
            ::_exit(0);
          }
          for (std::size_t i = part * kHuge; i < (part + 1) * kHuge; ++i)
            visit(page(i), page(i), 0, 1, generation[i], generation[i] + 1), ++generation[i];
          ::waitpid(child, nullptr, 0);
          ++told_.forks;
          break;
        }
        case 3:
          if (::madvise(at, kPart, MADV_DONTNEED) != 0) std::abort();
          forget(part);
          ++told_.drops;
          break;
        default:
          if (::mprotect(at, kPart, PROT_NONE) != 0) std::abort();
          ::usleep(1000);
          if (::mprotect(at, kPart, PROT_READ | PROT_WRITE) != 0) std::abort();
          ++told_.protects;
      }
    }
    for (std::size_t i = 0; i < kTroubled; ++i) visit(page(i), page(i), 0, 1, generation[i], 0);
  }

  Told& told_;
  std::byte* memory_;
  std::size_t pages_;
  std::byte* troubled_;
  bool huge_;
  bool spoil_;
};

/// What became of the moves one way.
struct Way {
  std::array<std::uint64_t, kMoveOutcomes> pages{}, troubled{};
};

std::byte* map_pages(std::size_t pages, bool huge) {
  // A huge page more, so that it can begin at one.
  void* const at = ::mmap(nullptr, (pages + kHuge) * kPageSize, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  auto begin =
      (reinterpret_cast<std::uintptr_t>(at) + kHuge * kPageSize - 1) & ~(kHuge * kPageSize - 1);
  auto* const aligned = reinterpret_cast<std::byte*>(begin);
  ::madvise(aligned, pages * kPageSize, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  return aligned;
}

/// Carries all pages to a node, in batches of an order that is drawn.
void carry(Mover& mover, Random& random, const std::byte* memory, std::size_t pages,
           const std::byte* troubled, NodeId to, bool huge, const Told& told, Way& way) {
  std::vector<PageMove> all;
  const auto add = [&](const std::byte* at, std::size_t count) {
    // Of huge pages now and then only a part is asked for.
    for (std::size_t i = 0; i < count;) {
      const bool whole = huge && random.below(8) != 0;
      PageMove move;
      move.asid = Asid(1);
      move.vpn = Vpn::of_address(reinterpret_cast<std::uint64_t>(at) + i * kPageSize);
      move.order = whole ? kOrder2M : kOrder4K;
      move.to = to;
      move.owners = random.below(4) == 0 ? Owners::kForks : Owners::kOne;
      if (huge && !whole) move.vpn = move.vpn + PageCount(random.below(kHuge));
      all.push_back(move);
      i += huge ? kHuge : 1;
    }
  };
  add(memory, pages);
  add(troubled, kTroubled);
  for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[random.below(i)]);
  const std::uint64_t first = reinterpret_cast<std::uint64_t>(troubled) >> kPageShift;
  for (std::size_t i = 0; i < all.size() && !told.stop;) {
    const std::size_t most = random.below(kOddBatches) == 0 ? 1 + random.below(kBatch) : kBatch;
    const std::span batch = std::span(all).subspan(i, std::min(most, all.size() - i));
    std::vector<MoveOutcome> outcomes(batch.size(), MoveOutcome::kRefused);
    mover.execute(batch, outcomes);
    // What is no huge page any more goes in small ones.
    std::vector<PageMove> small;
    for (std::size_t k = 0; k < batch.size(); ++k) {
      if (batch[k].order == kOrder4K || outcomes[k] != MoveOutcome::kGone) continue;
      for (std::size_t p = 0; p < kHuge; ++p) {
        small.push_back(batch[k]);
        small.back().order = kOrder4K;
        small.back().vpn = batch[k].vpn + PageCount(p);
      }
    }
    std::vector<MoveOutcome> of_small(small.size(), MoveOutcome::kRefused);
    mover.execute(small, of_small);
    for (std::size_t k = 0; k < small.size(); ++k) {
      const bool is_troubled =
          small[k].vpn.get() >= first && small[k].vpn.get() < first + kTroubled;
      ++(is_troubled ? way.troubled : way.pages)[static_cast<std::size_t>(of_small[k])];
    }
    for (std::size_t k = 0; k < batch.size(); ++k) {
      const bool is_troubled =
          batch[k].vpn.get() >= first && batch[k].vpn.get() < first + kTroubled;
      (is_troubled ? way.troubled : way.pages)[static_cast<std::size_t>(outcomes[k])] +=
          batch[k].order.pages().get();
    }
    i += batch.size();
  }
}

std::string text_of(const std::array<std::uint64_t, kMoveOutcomes>& outcomes) {
  std::string text;
  for (std::size_t o = 0; o < kMoveOutcomes; ++o)
    text += fmt::format("{}{} {}", o == 0 ? "" : ", ", outcomes[o],
                        outcome_name(static_cast<MoveOutcome>(o)));
  return text;
}

int run(int argc, char** argv) {
  bool huge = false, spoil = false;
  std::size_t pages = 8u << (20 - kPageShift);
  for (int i = 4; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--huge")
      huge = true;
    else if (word == "--spoil")
      spoil = true;
    else if (word == "--mib" && i + 1 < argc)
      pages = std::strtoul(argv[++i], nullptr, 10) << (20 - kPageShift);
    else
      argc = 0;
  }
  if (argc < 4 || pages < kHuge) {
    std::fputs("usage: move_integrity NODE_A NODE_B SECONDS [--huge] [--mib N] [--spoil]\n",
               stderr);
    return 2;
  }
  const std::array nodes{NodeId(std::atoi(argv[1])), NodeId(std::atoi(argv[2]))};
  const auto seconds = std::chrono::seconds(std::atoi(argv[3]));
  pages = pages / kHuge * kHuge;

  void* const shared =
      ::mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  std::byte* const memory = map_pages(pages, huge);
  std::byte* const troubled = map_pages(kTroubled, huge);
  if (shared == MAP_FAILED || memory == nullptr || troubled == nullptr)
    return std::perror("move_integrity: mmap"), 2;
  Told& told = *new (shared) Told{};
  const pid_t checker = ::fork();
  if (checker < 0) return std::perror("move_integrity: fork"), 2;
  if (checker == 0) {
    // Written to while a fork shares it, a huge page becomes small ones.
    if (huge) ::madvise(memory, pages * kPageSize, MADV_DONTFORK);
    Checker(told, memory, pages, troubled, huge, spoil).run();
  }

  const auto system = make_real_system();
  const auto mover =
      make_kernel_mover(*system, {[checker](Asid) { return Pid(checker); }, nullptr});
  // Of pages that aren't there yet nothing can be said.
  while (told.filled < kThreads + 1) {
    ::usleep(10000);
    if (::waitpid(checker, nullptr, WNOHANG) != 0)
      return std::fputs("FAIL: the checker ended before it had begun\n", stderr), 1;
  }
  std::array<Way, 2> ways;
  Random random(11);
  std::uint64_t trips = 0;
  for (const Nanoseconds end = system->now() + seconds; trips < 2 || system->now() < end; ++trips)
    carry(*mover, random, memory, pages, troubled, nodes[(trips + 1) % 2], huge, told,
          ways[trips % 2]);
  told.stop = true;
  int status = 0;
  ::waitpid(checker, &status, 0);

  fmt::print("{} threads, {} pages{}: {} words checked, {} of them wrong; {} trips of all pages\n",
             kThreads, pages, huge ? " in huge ones" : "", told.words.load(), told.bad.load(),
             trips);
  fmt::print("beside it: {} unmaps, {} remaps, {} forks, {} drops, {} protects, {} collapses\n",
             told.unmaps.load(), told.remaps.load(), told.forks.load(), told.drops.load(),
             told.protects.load(), told.collapses.load());
  bool failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  if (told.bad != 0)
    fmt::print("FAIL: the first wrong word, at {:#x}, should be {:#x} and is {:#x}\n",
               told.bad_address.load(), told.bad_wanted.load(), told.bad_got.load());
  else if (failed)
    fmt::print("FAIL: the checker ended with status {:#x}\n", status);
  for (std::size_t w = 0; w < ways.size(); ++w) {
    fmt::print("to node {}: {}; of the troubled region {}\n", nodes[(w + 1) % 2].get(),
               text_of(ways[w].pages), text_of(ways[w].troubled));
    const auto of = [&](MoveOutcome o) { return ways[w].pages[static_cast<std::size_t>(o)]; };
    // While a fork lives that shares it, the kernel denies what was asked for one owner alone.
    const std::uint64_t trips_there = (trips + 1 - w) / 2;
    if (of(MoveOutcome::kMoved) < trips_there * pages / 2) {
      fmt::print("FAIL: less than half of all memory\n");
      failed = true;
    }
    const auto refused = static_cast<std::size_t>(MoveOutcome::kRefused);
    if (ways[w].pages[refused] + ways[w].troubled[refused] > 0) {
      fmt::print("FAIL: moves that nothing speaks against were refused\n");
      failed = true;
    }
  }
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  return thermocline::run(argc, argv);
}
