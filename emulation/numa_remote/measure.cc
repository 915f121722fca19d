// SPDX-License-Identifier: Apache-2.0
#include "emulation/numa_remote/measure.h"

#include <emmintrin.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <thread>

#include "base/text.h"
#include "emulation/numa_remote/limit.h"
#include "emulation/probe/memory_probe.h"

namespace thermocline::numa_remote {

namespace {

using literals::operator""_MiB;
using probe::kLine;

/// Time of one measurement; long enough for some 10^5 misses.
constexpr double kWindowNs = 30e6;
/// Hops before the first measurement: translations and the caches' write-backs settle.
constexpr std::size_t kWarmHops = 40'000;
/// Lines that a loader reads between two looks at its orders, and pauses that it then takes: from
/// next to no load to all that the CPUs can ask for.
constexpr std::size_t kBurstLines = 64;
constexpr unsigned kPauses[] = {1024, 256, 96, 32, 8, 0};
/// Half of the CPUs with this share of the bandwidth of all: the node is the limit.
constexpr double kSaturatedShare = 0.9;
/// Idle windows: the best counts, and how far they are apart tells whether the machine was quiet.
constexpr int kIdleWindows = 3;

Status run_on(CpuId cpu) {
  const std::size_t count = cpu.get() + 1;
  const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(count),
                                                             [](cpu_set_t* p) { CPU_FREE(p); });
  const std::size_t size = CPU_ALLOC_SIZE(count);
  CPU_ZERO_S(size, set.get());
  CPU_SET_S(cpu.get(), size, set.get());
  if (::sched_setaffinity(0, size, set.get()) != 0)
    return fail_errno(errno, fmt::format("can't run on CPU {}", cpu.get()));
  return {};
}

/// Size of the largest cache of a CPU, or of a large one when the kernel doesn't tell.
Bytes largest_cache(const System& system, CpuId cpu) {
  const std::string dir = fmt::format("/sys/devices/system/cpu/cpu{}/cache", cpu.get());
  Bytes largest;
  if (const auto names = system.list_dir(dir))
    for (const std::string& name : *names)
      if (const auto text = system.read_file(dir + "/" + name + "/size"))
        if (const auto size = parse_bytes(trim(*text))) largest = std::max(largest, *size);
  return largest.get() != 0 ? largest : 64_MiB;
}

/// Two CPUs of a core share what it can have on its way from memory: the first of each.
std::vector<CpuId> one_a_core(const System& system, const std::vector<CpuId>& cpus) {
  std::vector<CpuId> out;
  std::set<std::uint32_t> taken;
  for (const CpuId cpu : cpus) {
    if (taken.contains(cpu.get())) continue;
    out.push_back(cpu);
    const auto text = system.read_file(
        fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu.get()));
    const auto siblings = text ? parse_list(trim(*text)) : tl::make_unexpected(text.error());
    if (siblings) taken.insert(siblings->begin(), siblings->end());
  }
  return out;
}

/// Bound memory that isn't there ends the largest process of the machine, unless another offers
/// itself.
class FirstToGo {
 public:
  explicit FirstToGo(System& system) : system_(system) {
    const auto text = system.read_file(kPath);
    if (text) before_ = trim(*text);
    static_cast<void>(system.write_file(kPath, "1000"));
  }
  ~FirstToGo() {
    if (!before_.empty()) static_cast<void>(system_.write_file(kPath, before_));
  }
  FirstToGo(const FirstToGo&) = delete;
  FirstToGo& operator=(const FirstToGo&) = delete;

 private:
  static constexpr const char* kPath = "/proc/self/oom_score_adj";
  System& system_;
  std::string before_;
};

/// Share of a mapping in huge pages is all of it. From /proc/self/smaps.
bool in_huge_pages(const System& system, const probe::NodeBuffer& buffer) {
  const auto text = system.read_file("/proc/self/smaps");
  if (!text) return false;
  const auto at = reinterpret_cast<std::uintptr_t>(buffer.data());
  bool here = false;
  for (const std::string_view line : split(*text, '\n')) {
    const auto dash = line.find('-');
    if (const auto begin = parse_u64(line.substr(0, std::min(dash, line.size())), 16);
        begin && dash != std::string_view::npos) {
      const auto rest = line.substr(dash + 1);
      const auto end = parse_u64(rest.substr(0, std::min(rest.find(' '), rest.size())), 16);
      here = end && *begin <= at && at < *end;
    } else if (here && line.starts_with("AnonHugePages:")) {
      const auto kib = parse_u64(words(line)[1]);
      return kib && Bytes(*kib << 10) >= Bytes(buffer.size());
    }
  }
  return false;
}

/// One CPU that reads its part of a buffer from beginning to end, over and over.
class alignas(64) Loader {
 public:
  Loader(CpuId cpu, const char* data, std::size_t size)
      : thread_([=, this] { work(cpu, data, size); }) {}
  ~Loader() {
    order_ = kStop;
    thread_.join();
  }
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;
  /// Pauses after each burst.
  void read(unsigned pauses) { order_ = static_cast<int>(pauses); }
  void rest() { order_ = kRest; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  static constexpr int kRest = -1, kStop = -2;

  void work(CpuId cpu, const char* data, std::size_t size) {
    static_cast<void>(run_on(cpu));  // it is one of the process's own; else it reads from elsewhere
    std::size_t at = 0;
    std::uint64_t sum = 0;
    for (int order = order_; order != kStop; order = order_) {
      if (order == kRest) {
        ::usleep(200);
        continue;
      }
      const auto* words = reinterpret_cast<const std::uint64_t*>(data + at);
      for (std::size_t i = 0; i < kBurstLines * kLine / sizeof(std::uint64_t); ++i) sum += words[i];
      at = at + 2 * kBurstLines * kLine <= size ? at + kBurstLines * kLine : 0;
      // The only writer: an addition that locks would hold the reads up.
      bytes_.store(bytes_.load(std::memory_order_relaxed) + kBurstLines * kLine,
                   std::memory_order_relaxed);
      for (int i = 0; i < order; ++i) _mm_pause();
    }
    sum_ = sum;
  }

  std::atomic<int> order_ = kRest;
  std::atomic<std::uint64_t> bytes_ = 0;
  std::uint64_t sum_ = 0;  ///< so that the reads count
  std::thread thread_;
};

std::uint64_t total(const std::vector<std::unique_ptr<Loader>>& loaders) {
  std::uint64_t sum = 0;
  for (const auto& loader : loaders) sum += loader->bytes();
  return sum;
}

/// Takes the buffer out of the caches, so that no hop of the coming window finds its line there.
void flush(const probe::NodeBuffer& buffer) {
  for (std::size_t at = 0; at < buffer.size(); at += kLine) _mm_clflush(buffer.data() + at);
  _mm_mfence();
}

/// Chases for a window; what the loaders read meanwhile.
LoadPoint chase_window(char*& at, const std::vector<std::unique_ptr<Loader>>& loaders) {
  constexpr std::size_t kHops = 2'000;
  const std::uint64_t bytes = total(loaders);
  const double begin = probe::now_ns();
  double now = begin;
  std::size_t hops = 0;
  for (; now - begin < kWindowNs; hops += kHops) {
    probe::chase(at, kHops);
    now = probe::now_ns();
  }
  return {static_cast<double>(total(loaders) - bytes) / (now - begin),
          (now - begin) / static_cast<double>(hops)};
}

/// GB/s of the first `count` loaders at full speed.
double bandwidth(const std::vector<std::unique_ptr<Loader>>& loaders, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) loaders[i]->read(0);
  const auto pass = [](double ns) {
    const double end = probe::now_ns() + ns;
    while (probe::now_ns() < end) ::usleep(1000);
  };
  pass(kWindowNs / 4);
  const std::uint64_t bytes = total(loaders);
  const double begin = probe::now_ns();
  pass(kWindowNs);
  const double result = static_cast<double>(total(loaders) - bytes) / (probe::now_ns() - begin);
  for (std::size_t i = 0; i < count; ++i) loaders[i]->rest();
  return result;
}

Result<NodeFigures> measure_node(const System& system, const Setting& setting, NodeId node,
                                 Bytes cache, Figures& all) {
  const std::size_t cpus = setting.cpus.size();
  const std::size_t part = std::max((16_MiB).get(), 2 * cache.get() / cpus / kLine * kLine);
  const Bytes loaded(part * cpus);
  TC_ASSIGN(const Bytes room, fillable(system, node));
  // Bound memory takes what files hold, but not all of it at once.
  if (room + Bytes(cached_files(system, node).get() / 2) < all.chased + loaded)
    return fail(ErrorKind::kFailure,
                "node {} has {} free; measuring takes {}, more than the caches of its CPUs hold",
                node.get(), format_bytes(room), format_bytes(all.chased + loaded));
  TC_ASSIGN(const auto chased, probe::NodeBuffer::map(all.chased, node, MADV_HUGEPAGE));
  TC_ASSIGN(const auto read, probe::NodeBuffer::map(loaded, node, MADV_HUGEPAGE));
  probe::make_cycle(chased);
  std::memset(read.data(), 1, read.size());
  all.huge_pages = all.huge_pages && in_huge_pages(system, chased);

  NodeFigures out;
  out.node = node;
  char* at = chased.data();
  double worst = 0;
  for (int i = 0; i < kIdleWindows; ++i) {
    flush(chased);
    probe::chase(at, i == 0 ? kWarmHops : kWarmHops / 10);
    const double ns = chase_window(at, {}).latency_ns;
    out.idle_ns = i == 0 ? ns : std::min(out.idle_ns, ns);
    worst = std::max(worst, ns);
  }
  out.spread = worst / out.idle_ns - 1;

  // The first CPU chases while the others load; for bandwidth it reads as well.
  std::vector<std::unique_ptr<Loader>> loaders;
  for (std::size_t i = 1; i < cpus; ++i)
    loaders.push_back(std::make_unique<Loader>(setting.cpus[i], read.data() + i * part, part));
  if (!loaders.empty())
    for (const unsigned pauses : kPauses) {
      flush(chased);
      for (const auto& loader : loaders) loader->read(pauses);
      probe::chase(at, kWarmHops / 10);
      out.loaded.push_back(chase_window(at, loaders));
      for (const auto& loader : loaders) loader->rest();
    }
  loaders.push_back(std::make_unique<Loader>(setting.cpus[0], read.data(), part));
  out.gb_per_s = bandwidth(loaders, cpus);
  out.saturated = cpus > 1 && bandwidth(loaders, cpus / 2) > kSaturatedShare * out.gb_per_s;
  return out;
}

}  // namespace

double least_ns(const NodeFigures& node) {
  double least = node.idle_ns;
  for (const LoadPoint& point : node.loaded) least = std::min(least, point.latency_ns);
  return least;
}

Result<Figures> measure(System& system, Setting setting,
                        const std::function<void(const std::string&)>& progress) {
  const FirstToGo first_to_go(system);
  setting.cpus = one_a_core(system, setting.cpus);
  Figures out;
  out.cpus = static_cast<unsigned>(setting.cpus.size());
  out.huge_pages = true;
  const Bytes cache = largest_cache(system, setting.cpus.front());
  out.chased = std::max(
      64_MiB, Bytes((4 * cache.get() + (2_MiB).get() - 1) / (2_MiB).get() * (2_MiB).get()));
  // In a thread of its own, which can be put on a CPU without a trace in this one.
  Status status;
  std::thread([&] {
    status = run_on(setting.cpus.front());
    if (!status) return;
    const auto one = [&](NodeId node, NodeFigures& figures) -> Status {
      progress(fmt::format("measuring node {}", node.get()));
      TC_ASSIGN(figures, measure_node(system, setting, node, cache, out));
      return {};
    };
    status = one(setting.fast, out.fast);
    if (status) status = one(setting.slow, out.slow);
  }).join();
  if (!status) return tl::make_unexpected(status.error());
  return out;
}

}  // namespace thermocline::numa_remote
