// SPDX-License-Identifier: Apache-2.0
#include "control/doctor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "topology/topology.h"

namespace thermocline {

namespace {

/// Capabilities by their number in CapEff (uapi/linux/capability.h).
struct Capability {
  unsigned bit;
  std::string_view name;
  std::string_view what_for;
};
constexpr Capability kNeeded[] = {{21, "CAP_SYS_ADMIN", "the module"},
                                  {23, "CAP_SYS_NICE", "moving other users' pages"},
                                  {19, "CAP_SYS_PTRACE", "looking at other users' processes"}};
constexpr std::uint64_t kOldestMajor = 6, kOldestMinor = 1;
constexpr const char* kCxlDevices = "/sys/bus/cxl/devices";
constexpr const char* kDaxDevices = "/sys/bus/dax/devices";

class Examination {
 public:
  explicit Examination(System& system) : system_(system) {}

  std::vector<Finding> all(std::span<const TrackerFactory> trackers) {
    kernel();
    privileges();
    tiers();
    devices();
    for (const TrackerFactory& tracker : trackers)
      if (tracker.automatic) probe(tracker);
    if (!trackers.empty() && !tracks_) none_tracks();
    module_signing();
    btf();
    numa_balancing();
    demotion();
    damon();
    huge_pages();
    cgroups();
    return std::move(findings_);
  }

 private:
  void add(std::string what, Severity severity, std::string state, std::string advice = "") {
    findings_.push_back({std::move(what), severity, std::move(state), std::move(advice)});
  }

  /// Trimmed content; none when it isn't there or this user may not read it.
  [[nodiscard]] std::optional<std::string> read(const std::string& path) const {
    const auto content = system_.read_file(path);
    if (!content) return std::nullopt;
    return std::string(trim(*content));
  }
  /// The word in brackets of "always [madvise] never".
  static std::string chosen(std::string_view text) {
    const auto open = text.find('['), close = text.find(']');
    if (open == std::string_view::npos || close == std::string_view::npos || close < open)
      return printable(text);
    return printable(text.substr(open + 1, close - open - 1));
  }

  void kernel() {
    const auto release = read("/proc/sys/kernel/osrelease");
    if (!release) return add("kernel", Severity::kNote, "its release can't be read");
    const auto parts = split(*release, '.');
    const auto major = parse_u64(parts[0]);
    const auto minor = parts.size() > 1
                           ? parse_u64(parts[1].substr(0, parts[1].find_first_not_of("0123456789")))
                           : parse_u64("");
    if (!major || !minor) return add("kernel", Severity::kNote, printable(*release));
    if (*major < kOldestMajor || (*major == kOldestMajor && *minor < kOldestMinor))
      return add("kernel", Severity::kProblem, printable(*release),
                 fmt::format("use Linux {}.{} or later", kOldestMajor, kOldestMinor));
    add("kernel", Severity::kOk, printable(*release));
  }

  void privileges() {
    const std::string status = read("/proc/self/status").value_or("");
    std::optional<std::uint64_t> effective;
    for (const std::string_view line : split(status, '\n')) {
      const auto w = words(line);
      if (w.size() != 2 || w[0] != "CapEff:") continue;
      if (const auto value = parse_u64(w[1], 16)) effective = *value;
    }
    if (!effective) return add("privileges", Severity::kNote, "can't be read");
    std::vector<std::string> missing;
    for (const Capability& one : kNeeded)
      if (((*effective >> one.bit) & 1) == 0)
        missing.push_back(fmt::format("{} ({})", one.name, one.what_for));
    if (missing.empty()) return add("privileges", Severity::kOk, "those of the daemon");
    add("privileges", Severity::kProblem, fmt::format("without {}", fmt::join(missing, ", ")),
        "run this, and the daemon, as root");
  }

  void tiers() {
    const Result<Topology> found = discover(system_);
    if (!found)
      return add("tiers", Severity::kProblem, found.error().message,
                 "`thermocline tiers` tells more");
    if (found->tiers.size() < 2)
      add("tiers", Severity::kProblem, found->why,
          "without a second node: `thermocline emulate numa-remote` on two sockets, `thermocline "
          "lab "
          "run` on any machine");
    else
      add("tiers", Severity::kOk, found->why);
    for (const std::string& note : found->notes)
      // Told below, with advice.
      if (note.find("demotion_enabled") == std::string::npos) add("tiers", Severity::kNote, note);
    cxl_nodes_ = std::any_of(found->nodes.begin(), found->nodes.end(), [](const Node& node) {
      return node.kind == MemoryKind::kCxl && node.has_memory;
    });
  }

  /// Memory that the machine has and the kernel doesn't use as such.
  void devices() {
    std::vector<std::string> memory, unused;
    for (const std::string& name :
         system_.list_dir(kCxlDevices).value_or(std::vector<std::string>{}))
      if (name.starts_with("mem")) memory.push_back(printable(name));
    for (const std::string& name :
         system_.list_dir(kDaxDevices).value_or(std::vector<std::string>{})) {
      const auto driver = system_.read_link_name(fmt::format("{}/{}/driver", kDaxDevices, name));
      if (!driver || *driver != "kmem") unused.push_back(printable(name));
    }
    if (!unused.empty())
      add("memory devices", Severity::kNote,
          fmt::format("{} {} no memory of the kernel's", fmt::join(unused, ", "),
                      unused.size() == 1 ? "is" : "are"),
          fmt::format("daxctl reconfigure-device --mode=system-ram {}", fmt::join(unused, " ")));
    else if (!memory.empty() && !cxl_nodes_)
      add("memory devices", Severity::kNote,
          fmt::format("CXL memory ({}) that no node has", fmt::join(memory, ", ")),
          "cxl create-region -t ram, then daxctl reconfigure-device --mode=system-ram");
  }

  void probe(const TrackerFactory& tracker) {
    const Status works = tracker.probe(system_, {});
    tracks_ = tracks_ || works;
    if (works) return add("tracker " + tracker.name, Severity::kOk, tracker.summary);
    add("tracker " + tracker.name, Severity::kNote, "doesn't work here", works.error().message);
  }
  void none_tracks() {
    add("trackers", Severity::kProblem, "none works here",
        "load the module, or mend what the lines above say of another");
  }

  /// Whether a module that nobody signed can be loaded.
  void module_signing() {
    if (system_.exists("/sys/module/thermocline"))
      return add("module signing", Severity::kOk, "thermocline.ko is loaded");
    std::vector<std::string> why;
    if (const auto lockdown = read("/sys/kernel/security/lockdown");
        lockdown && chosen(*lockdown) != "none")
      why.push_back(fmt::format("lockdown is \"{}\"", chosen(*lockdown)));
    if (read("/sys/module/module/parameters/sig_enforce") == "Y")
      why.emplace_back("the kernel wants signed modules");
    if (secure_boot() && why.empty()) why.emplace_back("Secure Boot is on");
    if (why.empty()) return add("module signing", Severity::kOk, "modules need no signature");
    add("module signing", Severity::kNote,
        fmt::format("{}: a module that is not signed isn't loaded", fmt::join(why, ", ")),
        "build it with DKMS, which signs, and enrol its key: mokutil --import "
        "/var/lib/dkms/mok.pub, then reboot and confirm");
  }
  /// The UEFI variable: four bytes of attributes, then 1 when it is on.
  [[nodiscard]] bool secure_boot() const {
    const auto value = system_.read_file(
        "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");
    return value && value->size() == 5 && value->back() == 1;
  }

  void btf() {
    if (system_.exists("/sys/kernel/btf/vmlinux"))
      add("BTF", Severity::kOk, "the kernel describes its types");
    else
      add("BTF", Severity::kNote, "the kernel doesn't describe its types",
          "BPF programs that read its structures need CONFIG_DEBUG_INFO_BTF");
  }

  void numa_balancing() {
    const auto mode = read("/proc/sys/kernel/numa_balancing");
    if (!mode) return add("NUMA balancing", Severity::kOk, "not in this kernel");
    if (*mode == "0") return add("NUMA balancing", Severity::kOk, "off");
    add("NUMA balancing", Severity::kNote,
        *mode == "2" ? "the kernel itself moves hot pages to the fast tier (mode 2)"
                     : fmt::format("the kernel moves pages to the CPUs that use them (mode {})",
                                   printable(*mode)),
        "sysctl kernel.numa_balancing=0, so that one of the two decides");
  }

  void demotion() {
    const auto enabled = read("/sys/kernel/mm/numa/demotion_enabled");
    if (enabled != "true" && enabled != "1")
      return add("demotion by reclaim", Severity::kOk, enabled ? "off" : "not in this kernel");
    add("demotion by reclaim", Severity::kNote,
        "the kernel demotes pages by itself when the fast tier is full",
        "echo 0 > /sys/kernel/mm/numa/demotion_enabled, unless something else relies on it");
  }

  /// DAMON's parts that move or reclaim, and contexts that somebody set up.
  void damon() {
    std::vector<std::string> active;
    for (const char* part : {"damon_reclaim", "damon_lru_sort"})
      if (read(fmt::format("/sys/module/{}/parameters/enabled", part)) == "Y")
        active.emplace_back(part);
    if (const auto contexts = read("/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds");
        contexts && *contexts != "0")
      active.push_back(
          fmt::format("{} kdamond{} in sysfs", printable(*contexts), *contexts == "1" ? "" : "s"));
    if (active.empty()) return add("DAMON", Severity::kOk, "not used by anybody");
    add("DAMON", Severity::kNote,
        fmt::format("in use ({}): it clears accessed bits too", fmt::join(active, ", ")),
        "two that clear the same bits see less each; stop one where both watch the same memory");
  }

  void huge_pages() {
    const auto enabled = read("/sys/kernel/mm/transparent_hugepage/enabled");
    if (!enabled) return add("huge pages", Severity::kOk, "none in this kernel");
    const std::string mode = chosen(*enabled);
    if (mode != "always") return add("huge pages", Severity::kOk, mode);
    add("huge pages", Severity::kNote, "always: heat is known, and memory moved, in units of 2 MiB",
        "for a program whose hot pages lie scattered, \"madvise\" tells hot from cold better");
  }

  void cgroups() {
    if (system_.exists("/sys/fs/cgroup/cgroup.controllers"))
      add("cgroups", Severity::kOk, "version 2");
    else
      add("cgroups", Severity::kNote, "version 2 is not mounted at /sys/fs/cgroup",
          "targets can't be named by cgroup; boot with systemd.unified_cgroup_hierarchy=1");
  }

  System& system_;
  std::vector<Finding> findings_;
  bool cxl_nodes_ = false;
  bool tracks_ = false;
};

}  // namespace

std::string_view to_string(Severity severity) {
  switch (severity) {
    case Severity::kOk:
      return "ok";
    case Severity::kNote:
      return "note";
    case Severity::kProblem:
      return "problem";
  }
  return "";
}

std::vector<Finding> examine_machine(System& system, std::span<const TrackerFactory> trackers) {
  return Examination(system).all(trackers);
}

bool is_ready(std::span<const Finding> findings) {
  return std::none_of(findings.begin(), findings.end(),
                      [](const Finding& f) { return f.severity == Severity::kProblem; });
}

}  // namespace thermocline
