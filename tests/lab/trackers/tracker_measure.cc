// SPDX-License-Identifier: Apache-2.0
// What a source of access records costs and how right it is, on this machine, against a process
// whose touches are known: a random share of its 4 KiB pages in each window, drawn anew.
//
//   tracker_measure TRACKER [MIB [PERCENT [auto|clear_refs|cold [ROUNDS [drop]]]]]
//
// Of a source that samples regions, the first PERCENT of the pages are touched over and over from
// the begin on, and each round is a scan a second later; the first 10 s are not judged.
//
// With "drop" the process drops its cached translations before it touches pages: a touch through
// one sets no accessed bit, and where a hypervisor shadows page tables none is ever evicted.
//
// Default 1024 MiB, 10 % touched, auto, 7 rounds. Prints medians of the rounds. Times are CPU time
// of this process, the kernel's share included, so other load counts little. Exit status 0, or 1
// when a page that was touched or not is told wrong more often than 1 in 100; 77 where the source
// doesn't work.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "tracking/record.h"
#include "tracking/tracker.h"

namespace thermocline::labtest {
namespace {

struct Order {
  std::uint64_t seed;
  std::uint64_t percent;
  bool drop = false;
};

/// Told by an order of this seed: the first PERCENT of the pages, until killed.
constexpr std::uint64_t kOverAndOver = ~std::uint64_t{0};

/// Whether the window of this seed touches a page (splitmix64).
bool touched(const Order& order, std::uint64_t page, std::uint64_t pages) {
  if (order.seed == kOverAndOver) return page < pages * order.percent / 100;
  std::uint64_t z = order.seed + page * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return (z ^ (z >> 31)) % 100 < order.percent;
}

/// Pages stay as they are, but for the processor.
void drop_translations(char* memory, std::uint64_t pages) {
  ::mprotect(memory, pages * kPageSize, PROT_READ);
  ::mprotect(memory, pages * kPageSize, PROT_READ | PROT_WRITE);
}

/// Each time around the cached translations are dropped, as an emulated processor keeps them longer
/// than a real one.
[[noreturn]] void keep_touching(char* memory, std::uint64_t pages) {
  for (;;) {
    drop_translations(memory, pages);
    for (std::uint64_t p = 0; p < pages; ++p)
      *static_cast<volatile char*>(memory + p * kPageSize) = 1;
  }
}

[[noreturn]] void obey(char* memory, std::uint64_t pages, int orders, int answers) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  Order order;
  while (::read(orders, &order, sizeof(order)) == sizeof(order)) {
    if (order.drop) drop_translations(memory, pages);
    for (std::uint64_t p = 0; p < pages && order.seed != kOverAndOver; ++p)
      if (touched(order, p, pages)) *static_cast<volatile char*>(memory + p * kPageSize) = 1;
    if (::write(answers, "k", 1) != 1) break;
    if (order.seed == kOverAndOver) keep_touching(memory, pages * order.percent / 100);
  }
  ::_exit(0);
}

template <class T>
T median(std::vector<T> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Round {
  double recall = 0, precision = 0;
};

Round judge(const std::vector<char>& told, const Order& order) {
  std::uint64_t hit = 0, said = 0, true_ones = 0;
  for (std::uint64_t p = 0; p < told.size(); ++p) {
    const bool truth = touched(order, p, told.size());
    true_ones += truth;
    said += told[p] != 0;
    hit += truth && told[p] != 0;
  }
  const auto share = [](std::uint64_t part, std::uint64_t all) {
    return all == 0 ? 1.0 : static_cast<double>(part) / static_cast<double>(all);
  };
  return {share(hit, true_ones), share(hit, said)};
}

int run(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "auto";
  const auto number = [&](int i, std::uint64_t otherwise) {
    return argc > i ? parse_u64(argv[i]).value_or(0) : otherwise;
  };
  const std::uint64_t mib = number(2, 1024), percent = number(3, 10), rounds = number(5, 7);
  const bool drop = argc > 6 && std::string_view(argv[6]) == "drop";
  TrackerOptions options;
  const std::string_view how = argc > 4 ? argv[4] : "auto";
  if (how == "cold") options.clear = TrackerOptions::Clear::kCold;
  if (how == "clear_refs") options.clear = TrackerOptions::Clear::kClearRefs;
  if (mib == 0 || rounds == 0 || percent > 100) {
    fmt::print(stderr, "tracker_measure: wants MiB, percent and rounds as numbers above 0\n");
    return 2;
  }
  const std::uint64_t pages = mib * 256;
  void* memory = ::mmap(nullptr, pages * kPageSize, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int orders[2], answers[2];
  if (memory == MAP_FAILED || ::madvise(memory, pages * kPageSize, MADV_NOHUGEPAGE) != 0 ||
      ::pipe(orders) != 0 || ::pipe(answers) != 0) {
    fmt::print(stderr, "tracker_measure: can't set up {} MiB\n", mib);
    return 1;
  }
  const pid_t child = ::fork();
  if (child == 0) obey(static_cast<char*>(memory), pages, orders[0], answers[1]);
  ::close(orders[0]);
  ::close(answers[1]);
  const auto tell = [&](const Order& order) {
    char answer = 0;
    if (::write(orders[1], &order, sizeof(order)) != sizeof(order) ||
        ::read(answers[0], &answer, 1) != 1)
      std::abort();
  };
  tell({0, 100});

  const auto system = make_real_system();
  const auto complain = [](const Error& error) {
    fmt::print(stderr, "tracker_measure: {}\n", error.message);
    return static_cast<int>(error.exit_code());
  };
  auto tracker = make_tracker(*system, name, options);
  if (!tracker) return complain(tracker.error());
  auto process = identify_process(*system, Pid(child));
  if (!process) return complain(process.error());
  if (const Status attached = (*tracker)->attach(*process); !attached)
    return complain(attached.error());
  ScanRequest request;
  request.asid = process->asid;
  const ScanRange range{Vpn::of_address(reinterpret_cast<std::uintptr_t>(memory)),
                        PageCount(pages)};
  request.ranges = std::span(&range, 1);

  std::vector<char> told(pages);
  std::uint64_t unknown = 0;
  const auto take = [&](std::span<const std::byte> bytes) {
    RecordReader reader(bytes);
    while (const auto record = reader.next())
      for (std::uint32_t i = 0; i < record->count; ++i) {
        const std::uint64_t at = (record->first - range.first).get() + i;
        told[at] = record->accessed.test(i);
        unknown += record->present.test(i) && !record->observable.test(i);
      }
  };
  std::vector<double> recalls, precisions;
  std::vector<std::int64_t> reads, clears;
  const bool samples = std::any_of(
      tracker_factories().begin(), tracker_factories().end(), [&](const TrackerFactory& factory) {
        return factory.name == (*tracker)->name() &&
               factory.abilities.grain == TrackerAbilities::Grain::kRegion;
      });
  if (samples) {
    tell({kOverAndOver, percent});
    ::sleep(9);
  }
  for (std::uint64_t r = 0; r <= rounds; ++r) {
    // Reading with what records cost, but not what the comparison here does.
    request.clear = false;
    Nanoseconds begin = system->process_cpu_time();
    auto stats = (*tracker)->scan(request, [](std::span<const std::byte>) {});
    const Nanoseconds read = system->process_cpu_time() - begin;
    request.clear = true;
    begin = system->process_cpu_time();
    if (stats) stats = (*tracker)->scan(request, [](std::span<const std::byte>) {});
    const Nanoseconds both = system->process_cpu_time() - begin;
    const Order order{samples ? kOverAndOver : r + 1, percent, drop};
    if (samples)
      ::sleep(1);
    else
      tell(order);
    request.clear = false;
    std::fill(told.begin(), told.end(), 0);
    unknown = 0;
    if (stats) stats = (*tracker)->scan(request, take);
    if (!stats) return complain(stats.error());
    if (r == 0) continue;  // every page was touched before
    const Round round = judge(told, order);
    recalls.push_back(round.recall);
    precisions.push_back(round.precision);
    reads.push_back(read.count());
    clears.push_back((both - read).count());
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);

  const auto per_gib = [&](std::int64_t ns) {
    return static_cast<double>(ns) / 1e6 * 1024.0 / static_cast<double>(mib);
  };
  fmt::print(
      "{}: {} MiB, {} % touched, clear {}{}: read {:.3f} ms/GiB (best {:.3f}), clear {:.2f} ms/GiB "
      "(CPU time, "
      "measured); "
      "recall {:.4f} %, precision {:.4f} %, {} of {} pages unknown\n",
      (*tracker)->name(), mib, percent, how, drop ? ", translations dropped" : "",
      per_gib(median(reads)), per_gib(*std::min_element(reads.begin(), reads.end())),
      per_gib(median(clears)), 100 * median(recalls), 100 * median(precisions), unknown, pages);
  return median(recalls) >= 0.99 && median(precisions) >= 0.99 ? 0 : 1;
}

}  // namespace
}  // namespace thermocline::labtest

int main(int argc, char** argv) {
  return thermocline::labtest::run(argc, argv);
}
