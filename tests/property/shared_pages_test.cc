// SPDX-License-Identifier: Apache-2.0
// Random processes that map, touch, unmap and exit: what the tiers hold is never more than there
// is, and after a whole epoch exactly that, each page with the heat of the windows in which anybody
// touched it.
#include "engine/shared_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace thermocline {
namespace {

constexpr std::uint64_t kFilePages = 1500;
constexpr unsigned kTouch = 3;

/// A machine with one file in memory, and processes that map parts of it and have private pages.
struct Machine {
  struct Process {
    ProcessIdentity identity;
    std::uint64_t first = 0, count = 0, offset = 0;  // of the mapping
    std::set<std::uint64_t> present;                 // pages of the file
    std::uint64_t own = 0;                           // private pages behind the mapping
    [[nodiscard]] Mapping mapping() const {
      Mapping m;
      m.first = Vpn(first);
      m.end = Vpn(first + count);
      m.shared = m.file = true;
      m.offset = PageCount(offset);
      m.inode = 4;
      return m;
    }
  };

  Process& add(std::mt19937& rng) {
    const int pid = ++pids;
    Process& process = processes[pid];
    process.identity.pid = Pid(pid);
    process.identity.start_ticks = rng() % 4;
    process.identity.asid = make_asid(Pid(pid), process.identity.start_ticks, 0);
    process.first = 4096 + rng() % 3000;
    process.offset = rng() % (kFilePages / 2);
    process.count = 1 + rng() % (kFilePages - process.offset);
    process.own = rng() % 50;
    return process;
  }

  /// What a scan of the process tells, and whether it touched `page` of the file.
  template <class Touched>
  void tell(const Process& p, SharedPages& shared, std::optional<unsigned> window,
            Touched touched) const {
    std::vector<EntryObservation> entries;
    for (std::uint64_t i = 0; i < p.count + p.own; ++i) {
      const std::uint64_t page = p.offset + i;
      const bool own = i >= p.count;
      const bool present = own || p.present.contains(page);
      entries.push_back({NodeId(own ? 0 : node[page % kFilePages]), present, present,
                         present && !own && touched(page), false});
    }
    for (std::size_t at = 0; at < entries.size(); at += 512) {
      std::vector<std::byte> bytes;
      RecordHeader header;
      header.asid = p.identity.asid;
      const std::size_t n = std::min<std::size_t>(512, entries.size() - at);
      RecordWriter(bytes).append(header, 0, Vpn(p.first + at), kOrder4K,
                                 std::span(entries).subspan(at, n));
      RecordReader reader(bytes);
      shared.apply(*reader.next(), window);
    }
    shared.clear_range(p.identity.asid, Vpn(0), PageCount(p.first));
    shared.clear_range(p.identity.asid, Vpn(p.first + p.count + p.own), PageCount(1 << 20));
  }

  [[nodiscard]] bool has(std::uint64_t page) const {
    return std::any_of(processes.begin(), processes.end(),
                       [&](const auto& entry) { return entry.second.present.contains(page); });
  }

  std::map<int, Process> processes;
  std::vector<int> node = std::vector<int>(kFilePages, 0);
  int pids = 0;
};

TEST(SharedPagesProperty, TiersHoldEachPageOnce) {
  for (std::uint32_t seed = 1; seed <= 12; ++seed) {
    std::mt19937 rng(seed);
    HeatMap heat;
    heat.set_node_tiers(std::vector{TierId(0), TierId(1)});
    heat.set_window_heat(kTouch);
    SharedPages shared(heat, {});
    Machine machine;
    // Heat of the file's pages: since somebody has had them without a break, and in all. The heat
    // map may forget them when nobody has them, at once or an epoch later.
    std::map<std::uint64_t, unsigned> least, most;
    for (int& node : machine.node) node = static_cast<int>(rng() % 2);
    for (unsigned epoch = 0; epoch < 12; ++epoch) {
      // Some come and some go, in the order in which a daemon finds out.
      if (machine.processes.size() > 1 && rng() % 3 == 0) {
        const auto gone = std::next(machine.processes.begin(),
                                    static_cast<long>(rng() % machine.processes.size()));
        shared.leave(gone->second.identity.asid);
        heat.forget(gone->second.identity.asid);
        machine.processes.erase(gone);
      }
      while (machine.processes.size() < 2 || rng() % 3 == 0) {
        const Machine::Process& p = machine.add(rng);
        shared.set_mappings(p.identity, std::vector{p.mapping()}, 0);
      }
      if (rng() % 4 == 0) {
        Machine::Process& p = machine.processes.begin()->second;  // unmaps a part
        p.count = 1 + p.count / 2;
        std::erase_if(p.present, [&](std::uint64_t n) { return n >= p.offset + p.count; });
        shared.set_mappings(p.identity, std::vector{p.mapping()}, 0);
      }
      shared.settle();
      std::erase_if(least, [&](const auto& entry) { return !machine.has(entry.first); });
      for (unsigned window = 0; window < 3; ++window) {
        std::set<std::uint64_t> touched;
        for (auto& [pid, p] : machine.processes) {
          std::set<std::uint64_t> by_it;
          for (unsigned i = 0; i < 40; ++i) by_it.insert(p.offset + rng() % p.count);
          for (const std::uint64_t page : by_it) p.present.insert(page);
          touched.insert(by_it.begin(), by_it.end());
          machine.tell(p, shared, window, [&](std::uint64_t page) { return by_it.contains(page); });
          std::uint64_t own = 0;
          for (const auto& [id, other] : machine.processes) own += other.own;
          const Occupancy now = heat.occupancy();
          // What went in this epoch may be counted until its end.
          if (epoch > 0 && window > 0) {
            EXPECT_LE((now.per_tier[0] + now.per_tier[1]).get(), kFilePages + own);
          }
        }
        for (const std::uint64_t page : touched) {
          least[page] += kTouch;
          most[page] += kTouch;
        }
      }
      shared.end_epoch(true);
      std::set<std::uint64_t> there;
      std::uint64_t own = 0;
      for (const auto& [pid, p] : machine.processes) {
        there.insert(p.present.begin(), p.present.end());
        own += p.own;
      }
      const Occupancy now = heat.occupancy();
      if (rng() % 2 != 0 || epoch == 11) {
        // One more epoch in which nothing changes settles what a change of homes left open.
        for (const auto& [pid, p] : machine.processes)
          machine.tell(p, shared, std::nullopt, [](std::uint64_t) { return false; });
        shared.end_epoch(true);
        const Occupancy after = heat.occupancy();
        EXPECT_EQ((after.per_tier[0] + after.per_tier[1]).get(), there.size() + own)
            << "seed " << seed << ", epoch " << epoch;
      }
      EXPECT_LE((now.per_tier[0] + now.per_tier[1]).get(), kFilePages + own);
      for (const auto& [page, at_most] : most) {
        if (!there.contains(page)) continue;
        unsigned found = 0, places = 0;
        for (const auto& [pid, p] : machine.processes) {
          if (page < p.offset || page >= p.offset + p.count) continue;
          const auto entry = heat.look_up(p.identity.asid, Vpn(p.first + page - p.offset));
          if (!entry) continue;
          ++places;
          found = entry->first.get();
        }
        EXPECT_EQ(places, 1u) << "seed " << seed << ", epoch " << epoch << ", page " << page;
        EXPECT_LE(found, std::min(255u, at_most))
            << "seed " << seed << ", epoch " << epoch << ", page " << page;
        EXPECT_GE(found, std::min(255u, least[page]))
            << "seed " << seed << ", epoch " << epoch << ", page " << page;
      }
    }
  }
}

}  // namespace
}  // namespace thermocline
