// SPDX-License-Identifier: GPL-2.0
// The memory-timing model as a QEMU TCG plug-in: sees every access of the guest, runs it through a
// small cache hierarchy, charges what misses cost and drives the guest's clock with the sum.
// Started by `thermocline lab run --timing`; argument plan=FILE (plan.h). docs/emulation.md says
// what is modelled and what is not.
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "emulation/timing/plugin/clock.h"
#include "emulation/timing/plugin/core.h"
#include "emulation/timing/plugin/memory.h"
#include "emulation/timing/plugin/plan.h"
#include "emulation/timing/plugin/profile.h"
#include "emulation/timing/plugin/qemu_api.h"
#include "emulation/timing/plugin/truth.h"
#include "emulation/timing/plugin/unwind.h"

extern "C" {
__attribute__((visibility("default"))) int qemu_plugin_version = 4;
}

namespace timing_plugin {

namespace {

constexpr std::uint64_t kNanosecond = 1000;        // picoseconds
constexpr std::uint64_t kMicrosecond = 1'000'000;  // picoseconds
/// Stalls after which QEMU looks at its timers again.
constexpr std::uint64_t kKickPs = 20 * kMicrosecond;
/// How far a vCPU may be ahead of the slowest one that runs, and how it waits.
constexpr std::uint64_t kSkewPs = 50 * kMicrosecond;
constexpr long kNapsNs = 2'000'000;  ///< all together: others may wait for this vCPU
constexpr long kFirstNapNs = 10'000;
constexpr long kLongestNapNs = 200'000;
/// Host time for which all vCPUs may be idle before the guest's clock goes on with the host's.
/// Where one wakes another and waits for it, nobody runs until the host has woken that one's
/// thread: that is none of the guest's time.
constexpr std::int64_t kHandOverNs = 300'000;
/// Instructions after which a vCPU looks in even if it misses nothing.
constexpr std::uint64_t kLookIn = 20'000;
/// Added to a vCPU's count so that it looks in at its next block.
constexpr std::uint64_t kLookInNow = std::uint64_t{1} << 62;

struct Core {
  Filter filter;
  Words* words = nullptr;
  std::uint64_t base_instructions = 0;  ///< those that `words` does not count, modulo 2^64
  Window window;
  Cache l2;
  Prefetcher prefetcher;
  Tlb tlb;
  std::uint64_t walks = 0;
  std::uint64_t new_translations = 0;  ///< since QEMU's own TLB was emptied
  std::uint64_t idle_ps = 0;           ///< time that passed without instructions
  std::uint64_t kicked_ps = 0;
  std::uint64_t looks_in_at = kLookIn;  ///< instructions
  Sampler sampler;                      ///< in the vCPU's time without its idle time
  std::uint32_t space = 0;
  std::uint64_t unknown_spaces = 0;  ///< switches, where the guest's registers are not shown
  unsigned number = 0;
  std::uint64_t node = 0;
  std::atomic<std::uint64_t> published_ps{0};
  std::atomic<bool> running{false};
  bool flush_wanted = false;

  [[nodiscard]] std::uint64_t instructions() const {
    const std::uint64_t since = words->since;
    return base_instructions + (since >= kLookInNow ? since - kLookInNow : since);
  }
  [[nodiscard]] std::uint64_t busy_ps() const { return window.now(instructions()); }
  [[nodiscard]] std::uint64_t local_ps() const { return busy_ps() + idle_ps; }
};

struct Tier {
  DeviceQueue queue;
  std::vector<std::uint64_t> latency_ps;  ///< by node of the CPU
  std::uint64_t node = 0;
};

class SpinLock {
 public:
  void lock() {
    for (unsigned tries = 0; busy_.test_and_set(std::memory_order_acquire); ++tries)
      if (tries >= kTries) ::sched_yield();  // the holder may wait for this host CPU
  }
  void unlock() { busy_.clear(std::memory_order_release); }

 private:
  static constexpr unsigned kTries = 100;
  std::atomic_flag busy_;
};

// What has a destructor is never destroyed: vCPUs still run while the emulator exits.
Plan& plan = *new Plan;
Clock guest_clock;
std::array<Core, kMaxVcpus>& cores = *new std::array<Core, kMaxVcpus>;
unsigned vcpus = 0;
qemu_plugin_scoreboard* scoreboard = nullptr;
bool clock_taken = false;

// Shared by all vCPUs: under `shared_lock`.
SpinLock shared_lock;
Cache& llc = *new Cache;
std::vector<Tier>& tiers = *new std::vector<Tier>;
Truth& truth = *new Truth;
KernelText& kernel_text = *new KernelText;
Unwinder& unwinder = *new Unwinder;

// Parallel mode: the latest time that any vCPU has reached, and the host's time since all are idle.
std::atomic<std::int64_t> global_ns{0};
std::atomic<int> running{0};
std::atomic<std::int64_t> idle_since{0};
thread_local Core* own_core = nullptr;

[[noreturn]] void refuse(const std::string& why) {
  std::fprintf(
      stderr, "the timing model can't %s: %s; use %sthe QEMU of Debian 12's backports suite\n",
      plan.mode == Mode::kReport ? "watch this QEMU" : "drive this QEMU's clock", why.c_str(),
      plan.mode == Mode::kReport
          ? ""
          : "--timing-mode report, which counts but leaves the clock alone, or ");
  std::fflush(stderr);
  std::_Exit(1);
}

/// What counting can do without.
void go_without(const std::string& why, const char* loss) {
  std::fprintf(stderr, "timing model: warning: %s; %s\n", why.c_str(), loss);
}

std::int64_t host_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

void raise_to(std::atomic<std::int64_t>& value, std::int64_t at_least) {
  std::int64_t old = value.load(std::memory_order_relaxed);
  while (old < at_least && !value.compare_exchange_weak(old, at_least)) {
  }
}

// ---- The clock.

/// Instructions cost what the plan says, idle time what QEMU skipped, memory its stalls.
std::int64_t reference_clock() {
  Core& core = cores[0];
  const std::int64_t raw = guest_clock.counted_raw();
  const std::int64_t idle = guest_clock.counted() - raw;
  core.idle_ps = static_cast<std::uint64_t>(idle) * kNanosecond;
  const std::uint64_t busy_ps =
      static_cast<std::uint64_t>(raw) * plan.ps_per_instruction + core.window.stalled_ps();
  return idle + static_cast<std::int64_t>(busy_ps / kNanosecond);
}

std::int64_t parallel_clock() {
  if (own_core != nullptr && own_core->words != nullptr) {
    const std::uint64_t local = own_core->local_ps();
    own_core->published_ps.store(local, std::memory_order_relaxed);
    raise_to(global_ns, static_cast<std::int64_t>(local / kNanosecond));
  } else if (running.load() <= 0) {
    // Nobody computes: time goes on with the host's, otherwise sleepers would sleep for ever.
    const std::int64_t since = idle_since.load();
    const std::int64_t now = host_ns();
    if (since != 0 && now > since && idle_since.exchange(now) == since)
      global_ns.fetch_add(now - since);
  }
  return global_ns.load();
}

void set_parallel_clock(std::int64_t now) {
  raise_to(global_ns, now);
}

/// A vCPU that comes back from idling is where all others are.
void catch_up(Core& core) {
  const std::uint64_t now = static_cast<std::uint64_t>(global_ns.load()) * kNanosecond;
  const std::uint64_t local = core.local_ps();
  if (now > local) core.idle_ps += now - local;
  core.published_ps.store(core.local_ps(), std::memory_order_relaxed);
}

/// Lets slower vCPUs come near, so that no one sees another's future.
void stay_near(const Core& core) {
  const std::uint64_t own = core.published_ps.load(std::memory_order_relaxed);
  long nap = kFirstNapNs;
  for (long napped = 0; napped < kNapsNs; napped += nap, nap = std::min(2 * nap, kLongestNapNs)) {
    std::uint64_t slowest = own;
    for (unsigned i = 0; i < vcpus; ++i)
      if (i != core.number && cores[i].running.load(std::memory_order_relaxed))
        slowest = std::min(slowest, cores[i].published_ps.load(std::memory_order_relaxed));
    if (own - slowest <= kSkewPs) return;
    const timespec time{0, nap};
    ::nanosleep(&time, nullptr);
  }
}

/// Of a vCPU that may be running. It changes what lowers the sum first (count_on): what is seen
/// between is too little, never too much.
std::uint64_t instructions_seen(Core& core) {
  const std::atomic_ref base_now(core.base_instructions);
  for (;;) {
    const std::uint64_t base = base_now.load(std::memory_order_acquire);
    const std::uint64_t since = std::atomic_ref(core.words->since).load(std::memory_order_acquire);
    if (base_now.load(std::memory_order_acquire) != base) continue;
    const std::uint64_t sum = base + (since >= kLookInNow ? since - kLookInNow : since);
    return static_cast<std::int64_t>(sum) < 0 ? 0 : sum;  // it has hardly begun
  }
}

/// Counts on from here, so that the vCPU comes to on_look_in() when it should look in or, should
/// it not have to wait before, when its next sample is due.
void count_on(Core& core) {
  const std::uint64_t instructions = core.instructions();
  const std::uint64_t busy = core.window.now(instructions);
  const std::uint64_t next = core.sampler.next_ps();
  const std::uint64_t sample =
      next > busy ? (next - busy + plan.ps_per_instruction - 1) / plan.ps_per_instruction : 0;
  const std::uint64_t look_in =
      core.looks_in_at > instructions ? core.looks_in_at - instructions : 0;
  const std::uint64_t since = kLookIn - std::min(look_in, sample);
  const std::atomic_ref base_now(core.base_instructions);
  const std::atomic_ref since_now(core.words->since);
  const bool raise = static_cast<std::int64_t>(core.base_instructions + since - instructions) > 0;
  if (raise) base_now.store(instructions - since, std::memory_order_release);
  since_now.store(since, std::memory_order_release);
  if (!raise) base_now.store(instructions - since, std::memory_order_release);
}

/// A vCPU's idle time up to now, which it only knows when it is back.
std::uint64_t idle_of(const Core& core, std::uint64_t now_ns) {
  if (plan.mode != Mode::kParallel || core.running.load(std::memory_order_relaxed))
    return core.idle_ps;
  const std::uint64_t published = core.published_ps.load(std::memory_order_relaxed);
  const std::uint64_t now = now_ns * kNanosecond;
  return core.idle_ps + (now > published ? now - published : 0);
}

/// All vCPUs' time and work so far, never less than it was before. Under `shared_lock`.
Truth::Instant instant_of(const Core& core, std::uint64_t instructions) {
  static Truth::Instant before;
  Truth::Instant at;
  at.ns = (core.window.now(instructions) + core.idle_ps) / kNanosecond;
  if (plan.mode == Mode::kParallel)
    at.ns = std::max(at.ns, static_cast<std::uint64_t>(global_ns.load()));
  for (unsigned i = 0; i < vcpus; ++i) {
    if (cores[i].words == nullptr) continue;
    if (plan.mode == Mode::kReport)
      at.ns = std::max(at.ns, cores[i].published_ps.load(std::memory_order_relaxed) / kNanosecond);
    at.instructions += i == core.number ? instructions : instructions_seen(cores[i]);
    at.kernel_instructions += cores[i].words->kernel;
    at.walks += cores[i].walks;
    at.stalled_ps += cores[i].window.stalled_ps();
    at.idle_ps += idle_of(cores[i], at.ns);
  }
  at.ns = std::max(at.ns, before.ns);
  at.instructions = std::max(at.instructions, before.instructions);
  at.kernel_instructions = std::max(at.kernel_instructions, before.kernel_instructions);
  at.walks = std::max(at.walks, before.walks);
  at.stalled_ps = std::max(at.stalled_ps, before.stalled_ps);
  at.idle_ps = std::max(at.idle_ps, before.idle_ps);
  before = at;
  return at;
}

/// After time has passed: timers, other vCPUs, the end of a slice.
void time_passed(Core& core) {
  const std::uint64_t local = core.local_ps();
  core.published_ps.store(local, std::memory_order_relaxed);
  // Time went faster than instructions: the next sample comes sooner than it was planned.
  if (core.sampler.is_near(local - core.idle_ps, kLookIn * plan.ps_per_instruction) &&
      core.words->since < kLookInNow)
    count_on(core);
  const std::uint64_t kick_base = plan.mode == Mode::kReference ? core.window.stalled_ps() : local;
  if (clock_taken && kick_base - core.kicked_ps >= kKickPs) {
    core.kicked_ps = kick_base;
    guest_clock.kick(plan.mode == Mode::kParallel ? parallel_clock() : 0);
    if (plan.mode == Mode::kParallel) stay_near(core);
  }
}

// ---- Accesses.

/// Index into plan.ranges, or their number when the address is no memory of the model (devices).
std::size_t range_of(std::uint64_t physical) {
  std::size_t i = 0;
  while (i < plan.ranges.size() && physical - plan.ranges[i].start >= plan.ranges[i].size) ++i;
  return i;
}

void write_back(const Core& core, std::uint64_t line, std::uint64_t now) {
  const std::size_t range = range_of(line << kLineShift);
  if (range == plan.ranges.size()) return;
  const std::uint64_t tier = plan.ranges[range].tier;
  // Nobody waits for it, but it takes the device's time.
  (void)tiers[tier].queue.wait(core.number, now);
  truth.write_back(tier);
}

/// Brings a physical line into the last-level cache; picoseconds until it is there.
std::uint64_t fetch(Core& core, std::uint64_t physical, std::size_t range, std::uint64_t address,
                    Truth::Why why, std::uint64_t start) {
  const std::lock_guard guard(shared_lock);
  const Cache::Outcome outcome = llc.access(physical >> kLineShift, false);
  if (outcome.wrote_back) write_back(core, outcome.victim, start);
  if (outcome.hit) return plan.llc.latency_ps;
  const std::uint64_t tier_number = plan.ranges[range].tier;
  Tier& tier = tiers[tier_number];
  const std::uint64_t latency = tier.latency_ps[core.node] + tier.queue.wait(core.number, start);
  constexpr std::uint64_t kUserPages = (std::uint64_t{1} << 36) - 1;
  const bool kernel = static_cast<std::int64_t>(address) < 0;
  truth.miss(range, physical >> kPageShift, address >> kPageShift & kUserPages,
             kernel ? 0 : core.space, why);
  truth.waited(tier_number, latency);
  if (start / kNanosecond >= truth.slice_ends_ns())
    truth.end_slice(instant_of(core, core.instructions()));
  return latency;
}

/// Puts a line into the second-level cache; true when it was there.
bool fill_l2(Core& core, std::uint64_t line, bool modify) {
  const Cache::Outcome l2 = core.l2.access(line, modify);
  if (l2.wrote_back) {
    const std::lock_guard guard(shared_lock);
    const Cache::Outcome outcome = llc.access(l2.victim, true);
    if (outcome.wrote_back) write_back(core, outcome.victim, core.local_ps());
  }
  return l2.hit;
}

void prefetch(Core& core, std::uint64_t line, std::size_t range, std::uint64_t address,
              std::uint64_t now) {
  const Prefetcher::Lines lines = core.prefetcher.follow(line);
  for (std::uint64_t l = lines.first; l <= lines.last; ++l)
    if (!fill_l2(core, l, false))
      core.prefetcher.arrives(
          l, now + fetch(core, l << kLineShift, range, address, Truth::Why::kPrefetch, now));
}

std::uint64_t pointer_in(qemu_plugin_meminfo_t info) {
  const qemu_plugin_mem_value value = qemu_plugin_mem_get_value(info);
  return value.type == QEMU_PLUGIN_MEM_VALUE_U64 ? value.data.u64 : 0;
}

/// An access that the filter does not know.
template <bool kStore>
__attribute__((noinline)) void look_up(Core& core, qemu_plugin_meminfo_t info,
                                       std::uint64_t address) {
  const std::uint64_t instructions = core.instructions();
  const std::uint64_t key = core.filter.key(address);
  if (!kStore && core.window.brings(key)) {
    // What else is read from a line on its way waits with it; that it came has been paid for.
    if (!core.window.join([info] { return pointer_in(info); }, instructions))
      core.filter.insert(address, false);
    return;
  }
  const qemu_plugin_hwaddr* where = qemu_plugin_get_hwaddr(info, address);
  if (where == nullptr) return;
  const std::uint64_t physical = qemu_plugin_hwaddr_phys_addr(where);
  // CXL memory behind a fixed window is a device to QEMU; the ranges tell what is memory.
  const std::size_t range = range_of(physical);
  if (range == plan.ranges.size()) return;

  std::uint64_t latency = 0;
  // A 2 MiB page maps its inside one to one; a 4 KiB page looks like one in 1 of 512 cases.
  const bool huge = ((address ^ physical) & ((std::uint64_t{1} << 21) - 1)) == 0;
  if (!core.tlb.access(address, huge)) {
    latency += plan.walk_ps;
    ++core.walks;
    if (++core.new_translations >= plan.tlb_entries && !core.flush_wanted) {
      core.flush_wanted = true;
      core.words->since += kLookInNow;
    }
  }
  const std::uint64_t line = physical >> kLineShift;
  const bool l2_hit = fill_l2(core, line, kStore);
  if (kStore && l2_hit) {
    core.filter.insert(address, true);
    prefetch(core, line, range, address, core.local_ps());
    return;
  }
  const std::uint64_t start = core.window.start(address, instructions);
  if (l2_hit) {
    // A line that the prefetcher ordered may still be on its way.
    const std::uint64_t there = core.prefetcher.arrival(line);
    const std::uint64_t now = start + core.idle_ps + latency;
    latency += std::max(plan.l2.latency_ps, there > now ? there - now : 0);
  } else {
    latency += fetch(core, physical, range, address,
                     kStore ? Truth::Why::kStore : Truth::Why::kLoad, start + core.idle_ps);
  }
  prefetch(core, line, range, address, start + core.idle_ps);
  if (kStore) {
    core.window.add_store(key, start + latency, instructions);
    core.filter.insert(address, true);
  } else {
    // A line from memory is not in the filter yet: see above.
    if (latency <= plan.llc.latency_ps) core.filter.insert(address, false);
    core.window.add_load(key, pointer_in(info), start + latency, instructions);
  }
  time_passed(core);
}

void on_read(unsigned vcpu, qemu_plugin_meminfo_t info, std::uint64_t address, void*) {
  Core& core = cores[vcpu];
  if (!core.filter.may_read(address)) look_up<false>(core, info, address);
}

void on_write(unsigned vcpu, qemu_plugin_meminfo_t info, std::uint64_t address, void*) {
  Core& core = cores[vcpu];
  if (!core.filter.may_write(address)) look_up<true>(core, info, address);
}

// ---- Instructions with a meaning for the model.

struct Registers {
  qemu_plugin_register* general[16] = {};
  GByteArray* buffer = nullptr;
  GByteArray* (*resize)(GByteArray*, unsigned) = nullptr;

  bool find(std::string& error) {
    const auto make =
        reinterpret_cast<GByteArray* (*)()>(::dlsym(RTLD_DEFAULT, "g_byte_array_new"));
    resize = reinterpret_cast<GByteArray* (*)(GByteArray*, unsigned)>(
        ::dlsym(RTLD_DEFAULT, "g_byte_array_set_size"));
    const GArray* all =
        make != nullptr && resize != nullptr ? qemu_plugin_get_registers() : nullptr;
    static const char* const kNames[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                           "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    const auto* list =
        all != nullptr ? reinterpret_cast<const qemu_plugin_reg_descriptor*>(all->data) : nullptr;
    for (unsigned i = 0; list != nullptr && i < all->len; ++i)
      for (unsigned r = 0; r < 16; ++r)
        if (std::strcmp(list[i].name, kNames[r]) == 0) general[r] = list[i].handle;
    for (qemu_plugin_register* handle : general)
      if (handle == nullptr) {
        error = "QEMU does not show the guest's registers";
        return false;
      }
    buffer = make();
    return true;
  }
  [[nodiscard]] bool known() const { return buffer != nullptr; }
  std::uint64_t read(unsigned number) {
    resize(buffer, 0);
    std::uint64_t value = 0;
    if (qemu_plugin_read_register(general[number], buffer) == sizeof value)
      std::memcpy(&value, buffer->data, sizeof value);
    return value;
  }
};
std::array<Registers, kMaxVcpus> registers;

void on_set_cr3(unsigned vcpu, void* argument) {
  Core& core = cores[vcpu];
  if (!registers[vcpu].known()) {
    core.filter.set_address_space(++core.unknown_spaces);
    core.tlb.empty_user();
    return;
  }
  const std::uint64_t value =
      registers[vcpu].read(static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(argument)));
  constexpr std::uint64_t kKeep = std::uint64_t{1} << 63;
  const std::lock_guard guard(shared_lock);
  core.space = truth.space_of(value & 0x000f'ffff'ffff'f000);
  core.filter.set_address_space(core.space);
  if ((value & kKeep) == 0) core.tlb.empty_user();
}

void on_set_cr4(unsigned vcpu, void*) {
  cores[vcpu].tlb.empty();
}

void on_invlpg(unsigned vcpu, void* argument) {
  Core& core = cores[vcpu];
  if (!registers[vcpu].known()) {
    core.filter.set_address_space(++core.unknown_spaces);
    core.tlb.empty();
    return;
  }
  const std::uint64_t address =
      registers[vcpu].read(static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(argument)));
  core.tlb.invalidate(address);
  core.filter.forget_page(address);
}

/// Reads of the time-stamp counter and fences wait for what is outstanding.
void on_serialise(unsigned vcpu, void* is_counter) {
  Core& core = cores[vcpu];
  core.window.drain(core.instructions());
  if (is_counter != nullptr) core.window.stall(plan.counter_ps);
}

/// Spinning costs what it does on hardware; the emulator then has fewer rounds to go.
void on_pause(unsigned vcpu, void*) {
  cores[vcpu].window.stall(plan.pause_ps);
}

/// Marks (mark.h): a name of up to eight letters, or an order to the model.
void on_mark(unsigned vcpu, qemu_plugin_meminfo_t info, std::uint64_t, void* argument) {
  Core& core = cores[vcpu];
  const std::uint64_t value = pointer_in(info);
  const std::uint64_t instructions =
      core.instructions() - reinterpret_cast<std::uintptr_t>(argument);
  const std::lock_guard guard(shared_lock);
  if (value >> 56 == 1) {
    const std::uint64_t node = value >> 48 & 0xff;
    for (Tier& tier : tiers)
      if (tier.node == node) tier.queue.set_background(value & 0xffff'ffff);
    return;
  }
  if (value >> 56 == 2) {
    const std::uint64_t purpose = value >> 52 & 0xf;
    const std::uint64_t pages = value >> 32 & 0xfffff;
    if (purpose < kPurposeNames.size() && pages != 0)
      kernel_text.add({(value & 0xffff'ffff) | 0xffff'ffff'0000'0000, pages << kPageShift,
                       static_cast<Purpose>(purpose)});
    return;
  }
  std::string name;
  for (unsigned shift = 0; shift < 64 && (value >> shift & 0xff) != 0; shift += 8) {
    const char c = static_cast<char>(value >> shift & 0xff);
    name += c > ' ' && c < 0x7f ? c : '?';
  }
  truth.mark(instant_of(core, instructions), name.empty() ? "?" : name, core.space);
}

/// Reads the guest's memory; from the thread of a vCPU, whose address space it is.
bool read_guest(unsigned vcpu, std::uint64_t address, void* to, std::size_t bytes) {
  GByteArray* const buffer = registers[vcpu].buffer;
  if (!qemu_plugin_read_memory_vaddr(address, buffer, bytes)) return false;
  std::memcpy(to, buffer->data, bytes);
  return true;
}

/// Takes the kernel's unwind tables out of the guest, once: they are there from the beginning.
void load_unwinder(unsigned vcpu) {
  std::vector<std::int32_t> places((plan.places_end - plan.places) / sizeof(std::int32_t));
  std::vector<std::uint8_t> entries(places.size() * Unwinder::kEntryBytes);
  if (places.empty() ||
      !read_guest(vcpu, plan.places, places.data(), places.size() * sizeof places[0]) ||
      !read_guest(vcpu, plan.entries, entries.data(), entries.size()) ||
      !unwinder.load(plan.places, std::move(places), std::move(entries))) {
    std::fprintf(stderr,
                 "timing model: this kernel's unwind tables are in no form that is known, "
                 "so callers can't be told; leave --truth-profile out\n");
    std::fflush(stderr);
    std::_Exit(1);
  }
}

/// The words of a kernel stack from `address` on, as far as they can be read.
std::span<const std::uint64_t> read_stack(unsigned vcpu, std::uint64_t address) {
  // Nested as deep as the kernel goes, a purpose shows within half of this.
  constexpr std::uint64_t kBytes = 4096;
  constexpr std::uint64_t kStack = 16384;  // size of a stack, and what it is aligned to
  static thread_local std::array<std::uint64_t, kBytes / 8> words;
  std::size_t bytes = 0;
  if (address >> 63 == 0 || address % 8 != 0) return {};
  // Page by page: behind the end of a stack there may be none.
  while (bytes < kBytes && (bytes == 0 || address % kStack != 0)) {
    const std::uint64_t page = (std::uint64_t{1} << kPageShift) - (address & 0xfff);
    const std::size_t n = std::min(kBytes - bytes, page);
    if (!read_guest(vcpu, address, reinterpret_cast<char*>(words.data()) + bytes, n)) break;
    bytes += n;
    address += n;
  }
  return {words.data(), bytes / 8};
}

/// What the kernel is at on a vCPU, where a block begins. Under `shared_lock`.
Purpose kernel_purpose(unsigned vcpu, std::uint64_t pc) {
  constexpr unsigned kRsp = 4;
  constexpr unsigned kRbp = 5;
  if (!unwinder.known()) load_unwinder(vcpu);
  const Frame frame{pc, registers[vcpu].read(kRsp), registers[vcpu].read(kRbp)};
  const std::span<const std::uint64_t> stack = read_stack(vcpu, frame.sp);
  return kernel_text.of(frame, stack, unwinder, [&](std::uint64_t address, std::uint64_t& word) {
    const std::uint64_t offset = address - frame.sp;
    if (offset % 8 != 0 || offset / 8 >= stack.size())
      return address >> 63 != 0 && read_guest(vcpu, address, &word, sizeof word);
    word = stack[offset / 8];
    return true;
  });
}

/// Looks at what the vCPU is at, if a sample is due. Nothing of the guest is changed by it.
void take_samples(Core& core, std::uint64_t pc) {
  const std::uint64_t samples = core.sampler.take(core.busy_ps());
  if (samples == 0) return;
  const std::lock_guard guard(shared_lock);
  if (pc >> 63 != 0)
    truth.sample_kernel(kernel_purpose(core.number, pc), samples);
  else
    truth.sample_user(core.space, samples);
}

/// At the beginning of a block: when there was much to count, what was asked for, or a sample.
void on_look_in(unsigned vcpu, void* block) {
  Core& core = cores[vcpu];
  take_samples(core, reinterpret_cast<std::uintptr_t>(block));
  const std::uint64_t instructions = core.instructions();
  if (!core.flush_wanted && instructions < core.looks_in_at) {
    count_on(core);
    return;
  }
  core.looks_in_at = instructions + kLookIn;
  count_on(core);
  if (core.flush_wanted) {
    // A hardware TLB would have lost what QEMU's still holds: accessed bits come back as they
    // should.
    core.flush_wanted = false;
    core.new_translations = 0;
    guest_clock.flush_emulator_tlb(vcpu);
  }
  time_passed(core);
}

void look_at(qemu_plugin_insn* insn, std::uint64_t behind) {
  unsigned char code[16];
  const std::size_t n = qemu_plugin_insn_data(insn, code, sizeof code);
  static constexpr unsigned char kMark[] = {0x2e, 0x3e, 0x26, 0x36, 0x2e, 0x3e};
  if (n > sizeof kMark && std::memcmp(code, kMark, sizeof kMark) == 0) {
    qemu_plugin_register_vcpu_mem_cb(insn, on_mark, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_W,
                                     reinterpret_cast<void*>(behind));
    return;
  }
  if (n == 2 && code[0] == 0xf3 && code[1] == 0x90)
    qemu_plugin_register_vcpu_insn_exec_cb(insn, on_pause, QEMU_PLUGIN_CB_NO_REGS, nullptr);
  const unsigned char* op = code;
  unsigned extend = 0;
  if (n > 3 && (op[0] & 0xf0) == 0x40) extend = (*op++ & 1u) << 3;
  if (op + 2 > code + n || op[0] != 0x0f) return;
  const unsigned char modrm = op + 2 < code + n ? op[2] : 0;
  const unsigned reg = modrm >> 3 & 7;
  const auto number = reinterpret_cast<void*>(std::uintptr_t{(modrm & 7u) | extend});
  const auto call = [insn](qemu_vcpu_udata_cb function, qemu_plugin_cb_flags flags,
                           void* argument) {
    qemu_plugin_register_vcpu_insn_exec_cb(insn, function, flags, argument);
  };
  if (op[1] == 0x22 && reg == 3) call(on_set_cr3, QEMU_PLUGIN_CB_R_REGS, number);
  if (op[1] == 0x22 && reg == 4) call(on_set_cr4, QEMU_PLUGIN_CB_NO_REGS, nullptr);
  if (op[1] == 0x01 && reg == 7 && modrm < 0xc0) {
    // Linux always writes invlpg (REGISTER); of anything else the address is not known.
    if (modrm >> 6 == 0 && (modrm & 7) != 4 && (modrm & 7) != 5)
      call(on_invlpg, QEMU_PLUGIN_CB_R_REGS, number);
    else
      call(on_set_cr4, QEMU_PLUGIN_CB_NO_REGS, nullptr);
  }
  const bool counter = op[1] == 0x31 || (op[1] == 0x01 && modrm == 0xf9);  // rdtsc, rdtscp
  const bool fence = op[1] == 0xae && (modrm == 0xe8 || modrm == 0xf0);    // lfence, mfence
  if (counter || fence)
    call(on_serialise, QEMU_PLUGIN_CB_NO_REGS, reinterpret_cast<void*>(std::uintptr_t{counter}));
}

void on_translate(qemu_plugin_id_t, qemu_plugin_tb* tb) {
  const std::size_t n = qemu_plugin_tb_n_insns(tb);
  const qemu_plugin_u64 since{scoreboard, offsetof(Words, since)};
  qemu_plugin_register_vcpu_tb_exec_cond_cb(
      tb, on_look_in, plan.profile_ns != 0 ? QEMU_PLUGIN_CB_R_REGS : QEMU_PLUGIN_CB_NO_REGS,
      QEMU_PLUGIN_COND_GE, since, kLookIn, reinterpret_cast<void*>(qemu_plugin_tb_vaddr(tb)));
  qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, since, n);
  if (qemu_plugin_tb_vaddr(tb) >> 63 != 0) {
    const qemu_plugin_u64 kernel{scoreboard, offsetof(Words, kernel)};
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, kernel, n);
  }
  for (std::size_t i = 0; i < n; ++i) {
    qemu_plugin_insn* insn = qemu_plugin_tb_get_insn(tb, i);
    qemu_plugin_register_vcpu_mem_cb(insn, on_read, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_R,
                                     nullptr);
    qemu_plugin_register_vcpu_mem_cb(insn, on_write, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_W,
                                     nullptr);
    look_at(insn, n - 1 - i);
  }
}

// ---- vCPUs come and go.

/// True when there is a vCPU with a time. (Before, not even `cores` need be there.)
constinit std::atomic<bool> time_is_known{false};

void on_init(qemu_plugin_id_t, unsigned vcpu) {
  // The scoreboard may have moved to make room for this one.
  for (unsigned i = 0; i < vcpus; ++i)
    if (i == vcpu || cores[i].words != nullptr)
      cores[i].words = static_cast<Words*>(qemu_plugin_scoreboard_find(scoreboard, i));
  Core& core = cores[vcpu];
  own_core = &core;
  std::string error;
  if (!registers[vcpu].find(error)) {
    if (plan.mode != Mode::kReport || plan.profile_ns != 0) refuse(error);
    if (vcpu == 0) go_without(error, "address spaces are not told apart");
  }
  time_is_known = true;
  ::prctl(PR_SET_TIMERSLACK, 1);
  core.running = true;
  ++running;
  if (plan.mode == Mode::kReport || clock_taken) return;
  if (!guest_clock.take(plan.mode == Mode::kReference ? reference_clock : parallel_clock,
                        set_parallel_clock, error))
    refuse(error);
  clock_taken = true;
}

void on_idle(qemu_plugin_id_t, unsigned vcpu) {
  Core& core = cores[vcpu];
  core.window.drain(core.instructions());
  if (plan.mode == Mode::kParallel) parallel_clock();
  core.running = false;
  if (--running == 0) idle_since = host_ns() + kHandOverNs;
}

void on_resume(qemu_plugin_id_t, unsigned vcpu) {
  if (plan.mode == Mode::kParallel && running.load() == 0) {
    Core* const self = own_core;
    own_core = nullptr;  // as any thread: takes the idle time in
    parallel_clock();
    own_core = self;
  }
  ++running;
  Core& core = cores[vcpu];
  if (plan.mode == Mode::kParallel) catch_up(core);
  core.running = true;
}

void on_exit(qemu_plugin_id_t, void*) {
  const std::lock_guard guard(shared_lock);
  truth.finish(instant_of(cores[0], cores[0].words != nullptr ? cores[0].instructions() : 0));
}

bool read_file(const char* path, std::string& text) {
  std::FILE* file = std::fopen(path, "re");
  if (file == nullptr) return false;
  char buffer[4096];
  for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, file)) > 0;)
    text.append(buffer, n);
  std::fclose(file);
  return true;
}

/// Whether QEMU's calls of gettimeofday() come to the one below.
bool tells_emulator_the_time() {
  Dl_info own{};
  Dl_info found{};
  void* const function = ::dlsym(RTLD_DEFAULT, "gettimeofday");
  return ::dladdr(&time_is_known, &own) != 0 && function != nullptr &&
         ::dladdr(function, &found) != 0 && own.dli_fbase == found.dli_fbase;
}

/// The guest's time, which begins with its first CPU.
std::int64_t emulator_time_us() {
  return time_is_known ? static_cast<std::int64_t>(cores[0].local_ps() / kMicrosecond) : 0;
}

int install(qemu_plugin_id_t id, const qemu_info_t& info, int argc, char** argv) {
  std::string error;
  std::string text;
  if (argc == 1 && std::strcmp(argv[0], "check=on") == 0) {
    // No guest: only says whether this QEMU is one whose clock can be driven.
    if (info.version.cur < 4 || std::strcmp(info.target_name, "x86_64") != 0)
      error = "its plug-in interface is older than version 4, or it emulates no x86-64";
    if (error.empty()) guest_clock.prepare(Mode::kReference, error);
    if (!error.empty()) refuse(error);
    std::_Exit(0);
  }
  if (argc != 1 || std::strncmp(argv[0], "plan=", 5) != 0 || !read_file(argv[0] + 5, text)) {
    std::fprintf(stderr, "timing model: give the plug-in a readable plan=FILE\n");
    return 1;
  }
  if (!read_plan(text, plan, error)) {
    std::fprintf(stderr, "timing model: %s\n", error.c_str());
    return 1;
  }
  if (!info.system_emulation || std::strcmp(info.target_name, "x86_64") != 0)
    refuse("it is not a system emulator for x86-64");
  if (info.version.cur < 4) refuse("its plug-in interface is older than version 4");
  vcpus = static_cast<unsigned>(info.system.smp_vcpus);
  if (vcpus > kMaxVcpus || plan.cpu_node.size() < vcpus) {
    std::fprintf(stderr, "timing model: the plan is not made for %u CPUs\n", vcpus);
    return 1;
  }
  if (plan.mode == Mode::kReference && vcpus != 1) refuse("reference mode has one CPU");
  if (plan.mode == Mode::kReference && !tells_emulator_the_time())
    refuse("the plug-in must be preloaded (LD_PRELOAD) in reference mode");
  if (!guest_clock.prepare(plan.mode, error)) {
    if (plan.mode != Mode::kReport) refuse(error);
    go_without(error, "accessed bits may stay clear for longer than on hardware");
    error.clear();
  }
  if (!truth.open(plan, error)) {
    std::fprintf(stderr, "timing model: %s\n", error.c_str());
    return 1;
  }
  for (const Text& function : plan.texts) kernel_text.add(function);
  llc.shape(plan.llc);
  for (const TierSpec& spec : plan.tiers) {
    tiers.push_back({{}, spec.latency_ps, spec.node});
    tiers.back().queue.shape(spec);
  }
  for (unsigned i = 0; i < vcpus; ++i) {
    cores[i].number = i;
    cores[i].node = plan.cpu_node[i];
    cores[i].window.shape(plan);
    cores[i].l2.shape(plan.l2);
    cores[i].prefetcher.shape(plan.prefetch);
    cores[i].tlb.shape(plan.tlb_entries, plan.tlb_ways);
    cores[i].sampler.shape(plan.profile_ns * kNanosecond, i);
  }
  scoreboard = qemu_plugin_scoreboard_new(sizeof(Words));
  qemu_plugin_register_vcpu_init_cb(id, on_init);
  qemu_plugin_register_vcpu_idle_cb(id, on_idle);
  qemu_plugin_register_vcpu_resume_cb(id, on_resume);
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
  qemu_plugin_register_atexit_cb(id, on_exit, nullptr);
  return 0;
}

}  // namespace

}  // namespace timing_plugin

extern "C" __attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id,
                                                                          const qemu_info_t* info,
                                                                          int argc, char** argv) {
  return timing_plugin::install(id, *info, argc, argv);
}

/// In reference mode the plug-in is preloaded as well, so that this stands before the C library's.
/// QEMU sizes its TLB by what it had to do in the last tenth of a second, and what its TLB forgets
/// a guest sees: accessed bits come back. By the host's time that would differ from run to run.
extern "C" __attribute__((visibility("default"))) int gettimeofday(timeval* now, void*) noexcept {
  const std::int64_t us = timing_plugin::emulator_time_us();
  now->tv_sec = us / 1'000'000;
  now->tv_usec = us % 1'000'000;
  return 0;
}
