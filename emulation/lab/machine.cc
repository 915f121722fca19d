// SPDX-License-Identifier: Apache-2.0
#include "emulation/lab/machine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <utility>

#include "base/text.h"

namespace thermocline::lab {

namespace {

constexpr std::array<std::pair<Profile, std::string_view>, 3> kProfiles = {
    {{Profile::kHmat, "hmat"}, {Profile::kNvdimm, "nvdimm"}, {Profile::kCxl, "cxl"}}};

using literals::operator""_MiB;
using literals::operator""_GiB;

/// Part of a DAX device that memory blocks of 128 MiB can't use: the metadata at its start.
constexpr Bytes kDaxLoss = 128_MiB;

std::string mib(Bytes size) {
  return fmt::format("{}M", size.get() >> 20);
}

/// Adds "-option value".
class Arguments {
 public:
  template <class... Args>
  void add(std::string option, fmt::format_string<Args...> format, Args&&... args) {
    list_.push_back(std::move(option));
    list_.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  [[nodiscard]] std::vector<std::string> take() { return std::move(list_); }

 private:
  std::vector<std::string> list_;
};

/// CPUs "first-last" of the n-th of `parts` nodes that share `cpus`.
std::string cpu_share(unsigned cpus, unsigned parts, unsigned n) {
  const unsigned first = cpus * n / parts;
  const unsigned last = cpus * (n + 1) / parts - 1;
  return first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last);
}

/// Where q35 puts memory: below 4 GiB up to a limit that depends on the total, the rest above.
constexpr Bytes kFourGiB = 4_GiB;
Bytes low_memory(Bytes total) {
  return total.get() >= 0xb0000000u ? std::min(total, 2_GiB) : total;
}

/// The part [offset, offset + size) of the machine's plain memory.
void place_memory(NodeId node, Bytes offset, Bytes size, Bytes total, timing::GuestMemory& out) {
  const Bytes low = low_memory(total);
  const Bytes end = offset + size;
  if (offset < low) out.ranges.push_back({node, offset.get(), std::min(end, low) - offset});
  if (end > low) {
    const Bytes start = std::max(offset, low);
    out.ranges.push_back({node, (kFourGiB + start - low).get(), end - start});
  }
}

/// Where memory that is plugged in begins: above the rest, in steps of 1 GiB.
Bytes plugged_memory(Bytes total) {
  const std::uint64_t step = (1_GiB).get();
  return Bytes(((kFourGiB + total - low_memory(total)).get() + step - 1) / step * step);
}

/// The hmat profile as a layout: what a server with one socket and one CXL expander tells.
NodeLayout hmat_layout(Bytes fast, Bytes slow) {
  return {"hmat",
          "one socket, one slow node without CPUs",
          {{fast, true, 0}, {slow, false, 0}},
          {{10, 20}, {20, 10}},
          {{80, 250}, {}},
          {{200, 30}, {}}};
}

Status add_layout(const NodeLayout& layout, const MachineSpec& spec, Arguments& out,
                  timing::GuestMemory& memory) {
  const unsigned cpus = spec.cpus;
  unsigned sockets = 0;
  Bytes total;
  for (const auto& node : layout.nodes) {
    if (node.has_cpus) ++sockets;
    total += node.size;
  }
  if (cpus < sockets)
    return fail(ErrorKind::kUsage, "the topology {} needs at least {} CPUs: give --smp {}{}",
                layout.name, sockets, sockets,
                spec.deterministic ? " and --timing-mode parallel" : "");
  const bool hmat = !layout.latency_ns.empty();
  out.add("-M", "q35{}", hmat ? ",hmat=on" : "");
  out.add("-m", "{}", mib(total));
  // One socket for each node with CPUs: the guest kernel wants packages not to span nodes.
  if (cpus % sockets == 0)
    out.add("-smp", "{},sockets={},cores={},threads=1", cpus, sockets, cpus / sockets);
  else
    out.add("-smp", "{}", cpus);
  unsigned socket = 0;
  Bytes offset;
  memory.cpu_node.resize(cpus);
  for (std::size_t n = 0; n < layout.nodes.size(); ++n) {
    const auto& node = layout.nodes[n];
    const NodeId id(static_cast<std::int32_t>(n));
    place_memory(id, offset, node.size, total, memory);
    offset += node.size;
    if (node.has_cpus)
      std::fill(memory.cpu_node.begin() + cpus * socket / sockets,
                memory.cpu_node.begin() + cpus * (socket + 1) / sockets, id);
    std::string text = fmt::format("node,nodeid={}", n);
    if (node.has_cpus) text += ",cpus=" + cpu_share(cpus, sockets, socket++);
    if (node.size.get() != 0) {
      out.add("-object", "memory-backend-ram,id=m{},size={}", n, mib(node.size));
      text += fmt::format(",memdev=m{}", n);
    }
    if (hmat && !node.has_cpus) text += fmt::format(",initiator={}", node.initiator);
    out.add("-numa", "{}", text);
  }
  for (std::size_t a = 0; a < layout.nodes.size(); ++a)
    for (std::size_t b = 0; b < layout.nodes.size(); ++b)
      if (a != b) out.add("-numa", "dist,src={},dst={},val={}", a, b, layout.distance[a][b]);
  if (!hmat) return {};
  for (std::size_t a = 0; a < layout.nodes.size(); ++a) {
    if (!layout.nodes[a].has_cpus) continue;
    for (std::size_t b = 0; b < layout.nodes.size(); ++b) {
      if (layout.nodes[b].size.get() == 0) continue;
      out.add("-numa",
              "hmat-lb,initiator={},target={},hierarchy=memory,data-type=access-latency,latency={}",
              a, b, layout.latency_ns[a][b]);
      out.add("-numa",
              "hmat-lb,initiator={},target={},hierarchy=memory,data-type=access-bandwidth,"
              "bandwidth={}G",
              a, b, layout.bandwidth_gib[a][b]);
    }
  }
  return {};
}

/// The fast node alone, with an empty node 1 that hot-plugged memory may join.
void add_fast_node(const MachineSpec& spec, bool with_node1, Arguments& out) {
  out.add("-smp", "{}", spec.cpus);
  out.add("-object", "memory-backend-ram,id=m0,size={}", mib(spec.fast));
  out.add("-numa", "node,nodeid=0,cpus={},memdev=m0", cpu_share(spec.cpus, 1, 0));
  if (!with_node1) return;
  out.add("-numa", "node,nodeid=1");
  out.add("-numa", "dist,src=0,dst=1,val=20");
}

timing::GuestMemory fast_memory(const MachineSpec& spec) {
  timing::GuestMemory memory;
  memory.cpu_node.resize(spec.cpus);
  place_memory(NodeId(0), Bytes(), spec.fast, spec.fast, memory);
  return memory;
}

Machine nvdimm_machine(const MachineSpec& spec, Bytes slow) {
  const Bytes device = slow + kDaxLoss;
  Arguments out;
  out.add("-M", "q35,nvdimm=on");
  out.add("-m", "{},maxmem={},slots=4", mib(spec.fast), mib(spec.fast + device + 1_GiB));
  add_fast_node(spec, true, out);
  out.add("-object", "memory-backend-ram,id=nv0,size={}", mib(device));
  out.add("-device", "nvdimm,memdev=nv0,id=nvd0,node=1");
  Machine machine{out.take(),
                  {"libnvdimm", "nfit", "nd_pmem", "dax_pmem", "device_dax", "kmem"},
                  "TC_PROFILE=nvdimm\nTC_FAST_NODE=0\n",
                  fast_memory(spec)};
  machine.memory.ranges.push_back({NodeId(1), plugged_memory(spec.fast).get(), device});
  return machine;
}

Machine cxl_machine(const MachineSpec& spec, Bytes slow) {
  // A persistent namespace is larger than the memory it gives, and regions come in steps of 256
  // MiB.
  const Bytes device = spec.persistent_cxl ? slow + 256_MiB : slow;
  const unsigned count = spec.cxl_devices;
  Arguments out;
  out.add("-M", "q35,cxl=on");
  out.add("-m", "{},maxmem={},slots=4", mib(spec.fast),
          mib(spec.fast + Bytes(device.get() * count) + 4_GiB));
  add_fast_node(spec, false, out);
  out.add("-device", "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1");
  for (unsigned n = 0; n < count; ++n) {
    out.add("-object", "memory-backend-ram,id=cm{},size={},share=on", n, mib(device));
    out.add("-device", "cxl-rp,port={},bus=cxl.1,id=rp{},chassis=0,slot={}", n, n, n + 2);
    // The label area keeps the namespace; a plain memory object of 1 MiB will do, nothing outlives
    // the guest.
    if (spec.persistent_cxl) out.add("-object", "memory-backend-ram,id=lsa{},size=1M", n);
    out.add("-device", "cxl-type3,bus=rp{},{}-memdev=cm{}{},id=cxl-mem{},sn={}", n,
            spec.persistent_cxl ? "persistent" : "volatile", n,
            spec.persistent_cxl ? fmt::format(",lsa=lsa{}", n) : "", n, 0x1234 + n);
  }
  // The node comes from the window: one for each device. QEMU wants them in one option.
  const std::uint64_t step = (4_GiB).get();
  std::string windows;
  for (unsigned n = 0; n < count; ++n)
    windows += fmt::format("{}cxl-fmw.{}.targets.0=cxl.1,cxl-fmw.{}.size={}", n == 0 ? "" : ",", n,
                           n, mib(Bytes((device.get() + step - 1) / step * step)));
  out.add("-M", "{}", windows);
  Machine machine;
  machine.qemu = out.take();
  // Windows lie behind the space for plugged memory (what -m leaves, and 1 GiB a slot) and the host
  // bridge's registers, in steps of 256 MiB.
  machine.memory = fast_memory(spec);
  std::uint64_t window = (plugged_memory(spec.fast) + Bytes(device.get() * count) + 4_GiB +
                          Bytes((4_GiB).get()) + 256_MiB)
                             .get();
  for (unsigned n = 0; n < count; ++n) {
    machine.memory.ranges.push_back({NodeId(static_cast<std::int32_t>(n + 1)), window, device});
    window += (device.get() + step - 1) / step * step;
  }
  if (spec.persistent_cxl)
    machine.modules = {"libnvdimm", "cxl_acpi", "cxl_port", "cxl_pci",    "cxl_mem",
                       "cxl_pmem",  "nd_pmem",  "dax_pmem", "device_dax", "kmem"};
  else
    machine.modules = {"cxl_acpi", "cxl_port", "cxl_pci", "cxl_mem", "dax_cxl", "kmem"};
  machine.config = fmt::format(
      "TC_PROFILE=cxl\nTC_FAST_NODE=0\nTC_CXL_DEVICES={}\nTC_CXL_KIND={}\nTC_CXL_BYTES={}\nTC_"
      "NAMESPACE_BYTES={}\n",
      count, spec.persistent_cxl ? "pmem" : "ram", device.get(), (slow + kDaxLoss).get());
  return machine;
}

}  // namespace

Result<Profile> parse_profile(std::string_view text) {
  for (const auto& [profile, name] : kProfiles)
    if (name == text) return profile;
  return fail(ErrorKind::kUsage, "'{}' is no profile; use hmat, nvdimm or cxl", text);
}

std::string_view profile_name(Profile profile) {
  for (const auto& [candidate, name] : kProfiles)
    if (candidate == profile) return name;
  return "?";
}

const std::vector<NodeLayout>& layouts() {
  // Latencies and bandwidths are labels that firmware of such machines would give; emulated memory
  // is all alike.
  static const std::vector<NodeLayout> kLayouts = {
      {"one-node", "one socket, no other memory", {{1_GiB, true, 0}}, {{10}}, {}, {}},
      {"two-socket",
       "two sockets with memory each",
       {{1_GiB, true, 0}, {1_GiB, true, 1}},
       {{10, 21}, {21, 10}},
       {{90, 140}, {140, 90}},
       {{200, 60}, {60, 200}}},
      {"two-socket-no-hmat",
       "two sockets, firmware without HMAT",
       {{1_GiB, true, 0}, {1_GiB, true, 1}},
       {{10, 21}, {21, 10}},
       {},
       {}},
      {"cxl-node",
       "one socket, one CXL node",
       {{1_GiB, true, 0}, {1_GiB, false, 0}},
       {{10, 20}, {20, 10}},
       {{80, 250}, {}},
       {{200, 30}, {}}},
      {"cxl-node-no-hmat",
       "one socket, one CXL node, firmware without HMAT",
       {{1_GiB, true, 0}, {1_GiB, false, 0}},
       {{10, 20}, {20, 10}},
       {},
       {}},
      {"two-cxl",
       "one socket, two CXL nodes of different speed",
       {{1_GiB, true, 0}, {512_MiB, false, 0}, {512_MiB, false, 0}},
       {{10, 20, 24}, {20, 10, 26}, {24, 26, 10}},
       {{80, 220, 400}, {}, {}},
       {{200, 40, 20}, {}, {}}},
      {"hbm-dram-cxl",
       "one socket with HBM (node 1), DRAM (node 0) and CXL (node 2)",
       {{1_GiB, true, 0}, {512_MiB, false, 0}, {512_MiB, false, 0}},
       {{10, 13, 20}, {13, 10, 23}, {20, 23, 10}},
       {{100, 90, 260}, {}, {}},
       {{200, 800, 30}, {}, {}}},
      {"two-socket-two-cxl",
       "two sockets with a CXL node each",
       {{512_MiB, true, 0}, {512_MiB, true, 1}, {512_MiB, false, 0}, {512_MiB, false, 1}},
       {{10, 21, 14, 24}, {21, 10, 24, 14}, {14, 24, 10, 26}, {24, 14, 26, 10}},
       {{90, 140, 250, 400}, {140, 90, 400, 250}, {}, {}},
       {{200, 60, 30, 15}, {60, 200, 15, 30}, {}, {}}},
      {"cpu-only-node",
       "two sockets, the second without memory of its own",
       {{1_GiB, true, 0}, {Bytes(), true, 1}, {512_MiB, false, 0}},
       {{10, 21, 20}, {21, 10, 28}, {20, 28, 10}},
       {{90, 0, 250}, {140, 0, 300}, {}},
       {{200, 0, 30}, {60, 0, 20}, {}}},
  };
  return kLayouts;
}

Result<NodeLayout> find_layout(const std::string& name) {
  std::vector<std::string> names;
  for (const NodeLayout& layout : layouts()) {
    if (layout.name == name) return layout;
    names.push_back(layout.name);
  }
  return fail(ErrorKind::kUsage, "'{}' is no topology; use one of {}", name,
              fmt::join(names, ", "));
}

Result<Machine> build_machine(const MachineSpec& spec) {
  if (spec.cpus < 1 || spec.cpus > 64) return fail(ErrorKind::kUsage, "--smp must be 1 to 64");
  if (spec.deterministic && spec.cpus != 1)
    return fail(ErrorKind::kUsage,
                "reference mode has one CPU: leave out --smp, or give --timing-mode parallel");
  const bool cxl = spec.profile == Profile::kCxl && !spec.layout;
  if (spec.cxl_devices < 1 || spec.cxl_devices > 4 || (spec.cxl_devices > 1 && !cxl))
    return fail(ErrorKind::kUsage, "--cxl-devices must be 1 to 4, and wants --profile cxl");
  const Bytes slow = spec.slow.value_or(cxl ? 512_MiB : 1_GiB);
  const Bytes step = cxl ? 256_MiB : 2_MiB;
  if (spec.fast < 96_MiB || spec.fast.get() % (2_MiB).get() != 0 || spec.fast > 256_GiB)
    return fail(ErrorKind::kUsage, "--fast must be 96M to 256G, a multiple of 2M (it is {})",
                format_bytes(spec.fast));
  if (slow < 128_MiB || slow.get() % step.get() != 0 || slow > 256_GiB)
    return fail(ErrorKind::kUsage, "--slow must be {} to 256G, a multiple of {} (it is {})",
                cxl ? "256M" : "128M", cxl ? "256M" : "2M", format_bytes(slow));

  Machine machine;
  if (spec.layout || spec.profile == Profile::kHmat) {
    const NodeLayout layout = spec.layout ? *spec.layout : hmat_layout(spec.fast, slow);
    Arguments out;
    TC_TRY(add_layout(layout, spec, out, machine.memory));
    machine.qemu = out.take();
    std::size_t slow_node = 0;
    for (std::size_t n = 0; n < layout.nodes.size(); ++n)
      if (!layout.nodes[n].has_cpus) slow_node = n;
    machine.config = fmt::format("TC_PROFILE={}\nTC_FAST_NODE=0\nTC_SLOW_NODE={}\n", layout.name,
                                 slow_node == 0 ? "" : std::to_string(slow_node));
  } else if (cxl) {
    machine = cxl_machine(spec, slow);
  } else {
    machine = nvdimm_machine(spec, slow);
  }
  // max: all the emulator has. -hypervisor: 6.12 refuses CXL regions inside a VM. -erms, -fsrm:
  // byte-wise string instructions are slow to emulate, above all on CXL memory.
  Arguments cpu;
  if (spec.deterministic) {
    cpu.add("-accel", "tcg,thread=single");
    cpu.add("-icount", "shift=0,sleep=off");
    cpu.add("-rtc", "base=2026-01-01T00:00:00,clock=vm");
    cpu.add("-seed", "1");
  } else {
    cpu.add("-accel", "tcg,thread=multi");
  }
  cpu.add("-cpu", "max,-hypervisor,-erms,-fsrm");
  for (std::string& argument : cpu.take()) machine.qemu.push_back(std::move(argument));
  return machine;
}

}  // namespace thermocline::lab
