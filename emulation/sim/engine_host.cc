// SPDX-License-Identifier: Apache-2.0
#include "emulation/sim/engine_host.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cmath>
#include <future>
#include <optional>
#include <vector>

#include "tracking/attachments.h"
#include "tracking/record.h"
#include "uapi/thermocline.h"

namespace thermocline::sim {

namespace {

constexpr Pid kFirstPid{1000};
/// Address spaces don't overlap, so that a page number tells its tenant, too.
constexpr std::uint64_t kSpacing = std::uint64_t{1} << 32;

constexpr std::uint64_t kRecordPages = THERMOCLINE_RECORD_MAX_ENTRIES;
/// Pages whose records are handed to the engine at a time.
constexpr std::uint64_t kChunkPages = 32 * kRecordPages;
constexpr std::uint64_t kBlock = 512;

/// Going to a range on its own, and a record for it: some 300 instructions at 0.3 ns, and four
/// misses of the caches.
constexpr double kRangeNs = 500;

Nanoseconds rounded(double ns) {
  return Nanoseconds(std::llround(ns));
}

Vpn vpn_of(std::size_t tenant, std::uint64_t page) {
  return Vpn((tenant + 1) * kSpacing + page);
}

std::size_t tenant_of(Pid pid) {
  return static_cast<std::size_t>(pid.get() - kFirstPid.get());
}

/// Clock and CPU time. There are no files and no devices.
class SimSystem final : public System {
 public:
  explicit SimSystem(const World& world) : world_(world) {}
  Result<std::string> read_file(const std::string& path) const override { return none(path); }
  Result<std::vector<std::string>> list_dir(const std::string& path) const override {
    return none(path);
  }
  bool exists(const std::string&) const override { return false; }
  Result<std::string> read_link_name(const std::string& path) const override { return none(path); }
  Nanoseconds now() const override { return world_.now(); }
  Nanoseconds process_cpu_time() const override { return cpu; }
  Result<UniqueFd> open_device(const std::string& path, int) override { return none(path); }
  int ioctl(int, unsigned long, void*) override { return -ENOTTY; }
  long move_pages(Pid, std::span<void* const>, std::span<const int>, std::span<int>, int) override {
    return -ENOSYS;
  }
  Result<UniqueFd> pidfd_open(Pid) override { return UniqueFd(); }
  bool pidfd_exited(int) const override { return false; }

  Nanoseconds cpu{};

 private:
  static tl::unexpected<Error> none(const std::string& path) {
    return fail(ErrorKind::kNotFound, "a simulated machine has no {}", path);
  }
  const World& world_;
};

/// Time and CPU time that something takes on a core of its own, or of the program's.
void spend(World& world, SimSystem& system, double ns, Charge charge) {
  system.cpu += rounded(ns);
  if (charge == Charge::kProgram) world.stall(ns * 1e-9);
  world.run_until(world.now() + rounded(ns));
}

class SimTracker final : public Tracker {
 public:
  SimTracker(World& world, SimSystem& system, bool helper)
      : world_(world), system_(system), helper_(helper) {}

  const std::string& name() const override {
    static const std::string kName = "simulated";
    return kName;
  }
  Status attach(const ProcessIdentity& process) override {
    attachments_.put(process.asid, {tenant_of(process.pid), 0, {}});
    return {};
  }
  void detach(Asid asid) override { attachments_.erase(asid); }
  bool scans_ranges() const override { return true; }

  Result<ScanStats> scan(const ScanRequest& request, const RecordSink& sink) override {
    TC_ASSIGN(Attachment * attachment, attachments_.find(request.asid));
    const Machine& machine = world_.machine();
    world_.close_window(attachment->tenant);
    const RecordHeader header = header_of(request, world_.now());
    std::uint64_t begin = 0, end = world_.workload().tenants[attachment->tenant].pages;
    attachment->places.resize((end + kBlock - 1) / kBlock);
    if (!request.ranges.empty()) {
      const std::uint64_t base = vpn_of(attachment->tenant, 0).get();
      const ScanRange& range = request.ranges.front();
      // A section of the address space, or a few pages that are looked at.
      if (request.ranges.size() > 1 || range.count.get() < kBlock)
        return scan_ranges(*attachment, request.ranges, header, sink);
      begin = std::clamp(range.first.get(), base, base + end) - base;
      end = std::clamp(range.first.get() + range.count.get(), base, base + end) - base;
    }
    const std::uint64_t pages = end - begin;
    ScanStats stats;
    const auto take = [&](const Chunk& chunk) {
      stats.accessed += chunk.accessed;
      stats.records += chunk.records;
      stats.bytes += chunk.bytes.size();
      sink(chunk.bytes);
    };
    const auto fill = [&](std::uint64_t from, Chunk& chunk) {
      fill_chunk(header, *attachment, begin, from, std::min(kChunkPages, end - from), chunk);
    };
    if (helper_ && pages > kChunkPages) {
      Chunk* ready = &chunks_[0];
      Chunk* next = &chunks_[1];
      fill(begin, *ready);
      for (std::uint64_t at = begin + kChunkPages;; at += kChunkPages) {
        std::future<void> filling;
        if (at < end)
          filling = std::async(std::launch::async, [&fill, at, next] { fill(at, *next); });
        take(*ready);
        if (!filling.valid()) break;
        filling.get();
        std::swap(ready, next);
      }
    } else {
      for (std::uint64_t at = begin; at < end; at += kChunkPages) {
        fill(at, chunks_[0]);
        take(chunks_[0]);
      }
    }
    attachment->records += stats.records;
    stats.entries = pages;
    const double looked = static_cast<double>(pages - stats.accessed) * machine.scan_idle_ns +
                          static_cast<double>(stats.accessed) * machine.scan_accessed_ns;
    stats.elapsed = rounded(looked);
    world_.stall(machine.flush_us * 1e-6 * machine.threads);
    spend(world_, system_, looked + static_cast<double>(pages) * machine.apply_ns,
          machine.tracking);
    return stats;
  }

 private:
  struct Attachment {
    std::size_t tenant = 0;
    std::uint64_t records = 0;
    /// Where pages are, by the block that a record begins with: most don't change from window to
    /// window.
    struct Places {
      std::optional<std::uint64_t> moves;  ///< World::moves_in() when it was so
      std::uint64_t pages = 0;             ///< of the record: the last one of a section is shorter
      std::vector<NodeRun> runs;
    };
    std::vector<Places> places;
  };
  struct Chunk {
    std::vector<std::byte> bytes;
    std::uint64_t accessed = 0, records = 0;
  };

  /// One record a range. Their bits are those of the window that ends here; the program's other
  /// pages lose theirs with it, which the first pass of an epoch would do anyway.
  Result<ScanStats> scan_ranges(Attachment& attachment, std::span<const ScanRange> ranges,
                                const RecordHeader& header, const RecordSink& sink) {
    const Machine& machine = world_.machine();
    const Tenant& tenant = world_.workload().tenants[attachment.tenant];
    const std::uint64_t base = vpn_of(attachment.tenant, 0).get();
    ScanStats stats;
    std::vector<std::byte> bytes;
    RecordWriter writer(bytes);
    for (const ScanRange& range : ranges) {
      for (std::uint64_t at = range.first.get() - base, end = at + range.count.get(); at < end;) {
        // Chances are drawn by words.
        const std::uint64_t word = at / 64 * 64;
        const std::uint64_t pages = std::min(end, word + 64) - at;
        std::uint64_t touched = 0;
        world_.touched(attachment.tenant, tenant.first + word,
                       std::min<std::uint64_t>(64, tenant.pages - word), &touched);
        touched >>= at - word;
        const std::uint64_t there = pages == 64 ? ~0ull : (1ull << pages) - 1, clean = 0;
        touched &= there;
        std::vector<NodeRun> runs;
        add_runs(tenant.first + at, tenant.first + at + pages, runs);
        writer.append(header, attachment.records++, vpn_of(attachment.tenant, at), kOrder4K,
                      static_cast<std::uint32_t>(pages),
                      {{&there, 1}, {&there, 1}, {&touched, 1}, {&clean, 1}}, runs);
        stats.accessed += static_cast<std::uint64_t>(std::popcount(touched));
        stats.entries += pages;
        ++stats.records;
        at += pages;
      }
    }
    stats.bytes = bytes.size();
    sink(bytes);
    const double looked = static_cast<double>(stats.records) * kRangeNs +
                          static_cast<double>(stats.entries) * machine.scan_accessed_ns;
    stats.elapsed = rounded(looked);
    world_.stall(machine.flush_us * 1e-6 * machine.threads);
    spend(world_, system_, looked, machine.tracking);
    return stats;
  }

  /// Records of the tenant's pages [from, from + count), of a scan that begins at `begin`; both are
  /// multiples of kBlock.
  void fill_chunk(const RecordHeader& header, Attachment& attachment, std::uint64_t begin,
                  std::uint64_t from, std::uint64_t count, Chunk& chunk) const {
    const Tenant& tenant = world_.workload().tenants[attachment.tenant];
    chunk.bytes.clear();
    chunk.accessed = 0;
    chunk.records = 0;
    std::vector<std::uint64_t> touched(kRecordPages / 64), present(kRecordPages / 64, ~0ull);
    const std::vector<std::uint64_t> clean(kRecordPages / 64, 0);
    RecordWriter writer(chunk.bytes);
    for (std::uint64_t at = from; at < from + count; at += kRecordPages) {
      const std::uint64_t pages = std::min(kRecordPages, from + count - at);
      const std::size_t words = (pages + 63) / 64;
      world_.touched(attachment.tenant, tenant.first + at, pages, touched.data());
      for (std::size_t w = 0; w < words; ++w)
        chunk.accessed += static_cast<std::uint64_t>(std::popcount(touched[w]));
      if (pages % 64 != 0) present[words - 1] = (std::uint64_t{1} << (pages % 64)) - 1;
      auto& places = attachment.places[at / kBlock];
      const std::uint64_t moves = world_.moves_in(tenant.first + at, tenant.first + at + pages);
      if (places.moves != moves || places.pages != pages) {
        places.moves = moves;
        places.pages = pages;
        places.runs.clear();
        add_runs(tenant.first + at, tenant.first + at + pages, places.runs);
      }
      const std::span<const std::uint64_t> there(present.data(), words);
      writer.append(header, attachment.records + (at - begin) / kRecordPages,
                    vpn_of(attachment.tenant, at), kOrder4K, static_cast<std::uint32_t>(pages),
                    {there, there, {touched.data(), words}, {clean.data(), words}}, places.runs);
      ++chunk.records;
    }
  }

  void add_runs(std::uint64_t page, std::uint64_t end, std::vector<NodeRun>& runs) const {
    const std::uint8_t* tiers = world_.tiers();
    const auto add = [&](std::uint8_t tier, std::uint64_t n) {
      if (!runs.empty() && runs.back().node->get() == tier) {
        runs.back().count += static_cast<std::uint32_t>(n);
      } else {
        runs.push_back({NodeId(tier), static_cast<std::uint32_t>(n)});
      }
    };
    while (page < end) {
      const std::uint64_t stop = std::min(end, (page / kBlock + 1) * kBlock);
      if (world_.one_tier(page / kBlock)) {
        add(tiers[page], stop - page);
        page = stop;
        continue;
      }
      while (page < stop) {
        std::uint64_t to = page + 1;
        while (to < stop && tiers[to] == tiers[page]) ++to;
        add(tiers[page], to - page);
        page = to;
      }
    }
  }

  World& world_;
  SimSystem& system_;
  bool helper_;
  Attachments<Attachment> attachments_;
  std::array<Chunk, 2> chunks_;
};

class SimMover final : public Mover {
 public:
  SimMover(World& world, SimSystem& system, PageCount headroom)
      : world_(world), system_(system), headroom_(headroom) {}

  void execute(std::span<const PageMove> moves, std::span<MoveOutcome> outcomes) override {
    const Machine& machine = world_.machine();
    const double ns =
        1000 * (machine.move_call_us + machine.move_page_us * static_cast<double>(moves.size()));
    const AccessRate rate = world_.rate();
    double share = 0;
    for (std::size_t i = 0; i < moves.size(); ++i) {
      const std::uint64_t page = page_of(moves[i].vpn);
      const auto to = static_cast<std::uint8_t>(moves[i].to.get());
      if (world_.tier(page) == to) {
        outcomes[i] = MoveOutcome::kMoved;
        continue;
      }
      if (world_.used(to) >= world_.capacity()[to] + headroom_.get()) {
        outcomes[i] = MoveOutcome::kNoMemory;
        continue;
      }
      share += world_.share(page);
      world_.move(page, to);
      outcomes[i] = MoveOutcome::kMoved;
    }
    world_.stall(machine.shootdown_us * 1e-6 * machine.threads +
                 blocked_seconds(machine, rate * share, ns * 1e-9));
    world_.set_copying(static_cast<double>(moves.size() * kPageSize) / (ns * 1e-9));
    spend(world_, system_, ns, machine.moving);
    world_.set_copying(0);
  }

 private:
  [[nodiscard]] std::uint64_t page_of(Vpn vpn) const {
    const auto tenant = static_cast<std::size_t>(vpn.get() / kSpacing) - 1;
    return world_.workload().tenants[tenant].first + vpn.get() % kSpacing;
  }

  World& world_;
  SimSystem& system_;
  PageCount headroom_;  ///< of each tier, beyond what it can hold: the engine's to keep free
};

/// The policy itself; what deciding costs goes by.
class ChargedPolicy final : public Policy {
 public:
  ChargedPolicy(std::unique_ptr<Policy> policy, World& world, SimSystem& system)
      : policy_(std::move(policy)), world_(world), system_(system) {}
  [[nodiscard]] std::string_view name() const override { return policy_->name(); }
  [[nodiscard]] std::span<const std::string_view> rules() const override {
    return policy_->rules();
  }
  [[nodiscard]] Plan decide(const View& view) override {
    const Machine& machine = world_.machine();
    spend(world_, system_, machine.decide_ns * static_cast<double>(world_.workload().pages),
          machine.tracking);
    return policy_->decide(view);
  }
  [[nodiscard]] bool needs_touches() const override { return policy_->needs_touches(); }
  [[nodiscard]] bool needs_loaded_latency() const override {
    return policy_->needs_loaded_latency();
  }
  [[nodiscard]] Bytes memory() const override { return policy_->memory(); }
  [[nodiscard]] std::optional<PluginHealth> plugin_health() const override {
    return policy_->plugin_health();
  }

 private:
  std::unique_ptr<Policy> policy_;
  World& world_;
  SimSystem& system_;
};

std::vector<TierState> tier_states(const World& world, const EngineOptions& options,
                                   bool loaded_latency) {
  std::vector<TierState> states;
  for (std::size_t t = 0; t < world.machine().tiers.size(); ++t) {
    const auto tier = static_cast<std::uint8_t>(t);
    TierState state;
    state.id = TierId(tier);
    // The engine's headroom comes on top of what pages of the program may use.
    state.nodes = {{NodeId(tier),
                    PageCount(world.capacity()[t] + options.headroom.get() - world.used(t)),
                    PageCount(0), PageCount(0), PageCount(0)}};
    state.latency_ns = static_cast<std::uint64_t>(world.machine().tiers[t].latency_ns);
    state.bandwidth_mbps =
        static_cast<std::uint64_t>(world.machine().tiers[t].bandwidth_gbps * 1000);
    if (loaded_latency)
      state.loaded_latency_ns =
          static_cast<std::uint64_t>(std::llround(world.loaded_latency_ns(t)));
    states.push_back(state);
  }
  return states;
}

}  // namespace

struct EngineHost::Parts {
  World& world;
  SimSystem system;
};

EngineHost::EngineHost(World& world, std::unique_ptr<Policy> policy, const EngineOptions& options,
                       bool helper)
    : parts_(new Parts{world, SimSystem(world)}) {
  SimSystem& system = parts_->system;
  const bool loaded_latency = policy->needs_loaded_latency();
  Engine::Parts parts{system,
                      std::make_unique<SimTracker>(world, system, helper),
                      std::make_unique<ChargedPolicy>(std::move(policy), world, system),
                      std::make_unique<SimMover>(world, system, options.headroom),
                      [&world, options, loaded_latency]() -> Result<std::vector<TierState>> {
                        return tier_states(world, options, loaded_latency);
                      },
                      [&world]() -> Result<std::vector<ProcessIdentity>> {
                        std::vector<ProcessIdentity> processes;
                        for (std::size_t t = 0; t < world.workload().tenants.size(); ++t) {
                          ProcessIdentity process;
                          process.pid = Pid(kFirstPid.get() + static_cast<std::int32_t>(t));
                          process.start_ticks = 1;
                          process.command = fmt::format("tenant-{}", t);
                          processes.push_back(process);
                        }
                        return processes;
                      },
                      {}};
  engine_ = std::make_unique<Engine>(std::move(parts), options);
}

EngineHost::~EngineHost() = default;

void EngineHost::run_until(Nanoseconds time, const std::function<void()>& each) {
  World& world = parts_->world;
  while (world.now() < time) {
    const Nanoseconds wanted = engine_->step(world.now());
    each();
    if (wanted > world.now()) world.run_until(std::min(wanted, time));
  }
}

}  // namespace thermocline::sim
