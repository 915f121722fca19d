// SPDX-License-Identifier: Apache-2.0
// What a guest's hardware looks like, and the QEMU arguments that make it. Pure: starts nothing.
// The recipes were measured; the reasons for odd flags stand beside them in machine.cc.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "emulation/timing/model.h"

namespace thermocline::lab {

/// How the slow node comes to be.
enum class Profile {
  kHmat,    ///< CPU-less boot memory; firmware tells it is slower (HMAT). Own tier on 6.12, not
            ///< on 6.1
  kNvdimm,  ///< NVDIMM -> DAX -> hot-plugged memory. Own tier on both kernels
  kCxl,  ///< a CXL type-3 device behind a fixed window: the real plumbing, ~100x slower (emulated
         ///< MMIO)
};

[[nodiscard]] Result<Profile> parse_profile(std::string_view text);
[[nodiscard]] std::string_view profile_name(Profile profile);

/// A machine of boot-memory nodes: what `--topology` chooses and the hmat profile is the simplest
/// of.
struct NodeLayout {
  struct Node {
    Bytes size;
    bool has_cpus = false;
    int initiator = 0;  ///< nearest node with CPUs
  };
  std::string name;
  std::string about;
  std::vector<Node> nodes;
  std::vector<std::vector<int>> distance;  ///< ACPI SLIT, [from][to]
  /// HMAT: [initiator][target]; rows of nodes without CPUs are ignored. Empty: the machine has no
  /// HMAT.
  std::vector<std::vector<int>> latency_ns;
  std::vector<std::vector<int>> bandwidth_gib;  ///< GiB/s
};

/// Layouts that `--topology` knows, for fixtures and tests of tier discovery.
[[nodiscard]] const std::vector<NodeLayout>& layouts();
[[nodiscard]] Result<NodeLayout> find_layout(const std::string& name);

struct MachineSpec {
  Profile profile = Profile::kHmat;
  std::optional<NodeLayout> layout;  ///< instead of a profile
  Bytes fast{std::uint64_t{1} << 30};
  std::optional<Bytes> slow;  ///< Default: 1 GiB, 512 MiB for CXL
  unsigned cpus = 2;
  unsigned cxl_devices = 1;     ///< each becomes a node of its own, of size `slow`; 1 to 4
  bool persistent_cxl = false;  ///< kernels before 6.3 have no volatile regions
  /// One emulated CPU that counts instructions, the same in every run, instead of a thread for
  /// each.
  bool deterministic = false;
};

struct Machine {
  std::vector<std::string> qemu;     ///< -M, -cpu, -m, -smp, nodes and devices
  std::vector<std::string> modules;  ///< the guest must load these, in this order
  std::string config;                ///< shell variables for the guest's init
  timing::GuestMemory memory;        ///< where QEMU puts the nodes' memory
};

/// kUsage for sizes that can't be: below 128 MiB (fast: 96 MiB), not a multiple of 2 MiB (CXL: 256
/// MiB), no CPU.
[[nodiscard]] Result<Machine> build_machine(const MachineSpec& spec);

}  // namespace thermocline::lab
