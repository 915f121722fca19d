// SPDX-License-Identifier: Apache-2.0
#include "tracking/damon_control.h"

#include <unistd.h>

#include <cerrno>
#include <thread>

#include "base/text.h"
#include "tracking/process.h"

namespace thermocline {

namespace {

const std::string kAll = "/sys/kernel/mm/damon/admin/kdamonds/";
const std::string kCount = kAll + "nr_kdamonds";
const std::string kState = kAll + "0/state";
const std::string kContexts = kAll + "0/contexts/";
const std::string kContext = kContexts + "0/";
const std::string kPattern = kContext + "schemes/0/access_pattern/";

/// "thermocl" as the one size of a region that the marking scheme matches.
constexpr std::uint64_t kMark = 0x746865726d6f636c;
constexpr std::uint64_t kLow32 = 0xffffffff;

Result<std::uint64_t> number(const System& system, const std::string& path) {
  TC_ASSIGN(const std::string text, system.read_file(path));
  return parse_u64(trim(text));
}

bool holds(const System& system, const std::string& path, std::uint64_t value) {
  const auto there = number(system, path);
  return there && *there == value;
}

/// Writes what the kernel refuses with EBUSY while it is at something else in these files.
Status write(System& system, const std::string& path, const std::string& text) {
  Status written;
  for (int i = 0; i < 50; ++i) {
    written = system.write_file(path, text);
    if (written || written.error().errno_value != EBUSY) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return written;
}

Status write(System& system, const std::string& path, std::uint64_t value) {
  return write(system, path, std::to_string(value));
}

/// Whose the settings are.
enum class Owner { kNobody, kDead, kOther };

Result<Owner> owner(const System& system) {
  TC_ASSIGN(const std::uint64_t count, number(system, kCount));
  if (count == 0) return Owner::kNobody;
  const auto pid = number(system, kPattern + "age/min");
  if (count != 1 || !holds(system, kPattern + "sz/min", kMark) || !pid) return Owner::kOther;
  const auto lives = identify_process(system, Pid(static_cast<std::int32_t>(*pid & 0x7fffffff)));
  const bool same =
      lives && holds(system, kPattern + "nr_accesses/min", lives->start_ticks & kLow32);
  return same ? Owner::kOther : Owner::kDead;
}

Status give_back(System& system) {
  // Not running any more is what is wanted.
  const auto state = system.read_file(kState);
  if (state && trim(*state) == "on") (void)write(system, kState, "off");
  return write(system, kCount, 0);
}

}  // namespace

Status DamonControl::probe(System& system) {
  if (!system.exists(kCount))
    return fail(
        ErrorKind::kUnsupported,
        "this kernel has no DAMON that can be set up from here (no {}): it was built without "
        "CONFIG_DAMON_VADDR or CONFIG_DAMON_SYSFS",
        kCount);
  const auto whose = owner(system);
  if (!whose && whose.error().kind == ErrorKind::kPermission)
    return fail(ErrorKind::kPermission, "only root may set up DAMON: run as root");
  if (!whose) return tl::make_unexpected(whose.error());
  if (*whose == Owner::kOther)
    return fail(ErrorKind::kUnsupported,
                "DAMON is set up by somebody else ({} is not 0): end that program (damo, another "
                "thermoclined), or write off to the state of each kdamond and 0 there",
                kCount);
  for (const char* module : {"damon_reclaim", "damon_lru_sort"}) {
    const std::string enabled = fmt::format("/sys/module/{}/parameters/enabled", module);
    const auto text = system.read_file(enabled);
    if (text && trim(*text) == "Y")
      return fail(ErrorKind::kUnsupported,
                  "DAMON is at work for {}, and does one thing at a time: write N to {}", module,
                  enabled);
  }
  return {};
}

Result<DamonControl> DamonControl::take(System& system) {
  TC_TRY(probe(system));
  TC_ASSIGN(const Owner whose, owner(system));
  if (whose == Owner::kDead) TC_TRY(give_back(system));
  TC_TRY(write(system, kCount, 1));
  DamonControl control(system);
  TC_TRY(control.configure());
  return control;
}

DamonControl::~DamonControl() {
  if (system_ != nullptr) (void)give_back(*system_);
}

Status DamonControl::configure() {
  // The mark first: from here on these settings are known as ours.
  System& system = *system_;
  TC_ASSIGN(const ProcessIdentity self, identify_process(system, Pid(::getpid())));
  TC_TRY(write(system, kContexts + "nr_contexts", 1));
  TC_TRY(write(system, kContext + "schemes/nr_schemes", 1));
  const auto mark = [&system](const std::string& what, std::uint64_t value) -> Status {
    TC_TRY(write(system, kPattern + what + "/max", value));
    return write(system, kPattern + what + "/min", value);
  };
  TC_TRY(mark("age", static_cast<std::uint64_t>(self.pid.get())));
  TC_TRY(mark("nr_accesses", self.start_ticks & kLow32));
  TC_TRY(mark("sz", kMark));
  TC_TRY(write(system, kContext + "schemes/0/action", "stat"));

  TC_TRY(write(system, kContext + "operations", "vaddr"));
  const auto microseconds = [](Nanoseconds time) {
    return static_cast<std::uint64_t>(time.count() / 1000);
  };
  const std::string intervals = kContext + "monitoring_attrs/intervals/";
  TC_TRY(write(system, intervals + "sample_us", microseconds(kSample)));
  TC_TRY(write(system, intervals + "aggr_us", microseconds(kSample * kSamples)));
  TC_TRY(write(system, intervals + "update_us", 1'000'000));
  TC_TRY(write(system, kContext + "monitoring_attrs/nr_regions/min", 10));
  return write(system, kContext + "monitoring_attrs/nr_regions/max", 1000);
}

Status DamonControl::watch(std::span<const Pid> processes) {
  System& system = *system_;
  TC_ASSIGN(const std::string state, system.read_file(kState));
  // It ends by itself when all its processes have: then there is nothing to stop.
  if (trim(state) == "on") (void)write(system, kState, "off");
  const std::string targets = kContext + "targets/";
  TC_TRY(write(system, targets + "nr_targets", processes.size()));
  if (processes.empty()) return {};
  for (std::size_t i = 0; i < processes.size(); ++i)
    TC_TRY(write(system, fmt::format("{}{}/pid_target", targets, i),
                 static_cast<std::uint64_t>(processes[i].get())));
  return write(system, kState, "on");
}

Result<Pid> DamonControl::thread() const {
  TC_ASSIGN(const std::uint64_t pid, number(*system_, kAll + "0/pid"));
  return Pid(static_cast<std::int32_t>(pid));
}

}  // namespace thermocline
