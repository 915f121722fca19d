// SPDX-License-Identifier: Apache-2.0
// Boots a guest, runs one command in it, streams its output and returns its exit code; or gives a
// prompt.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "emulation/lab/kernels.h"
#include "emulation/lab/machine.h"

namespace thermocline::lab {

/// A guest under the memory-timing model (emulation/timing).
struct TimingSpec {
  timing::Model model;
  timing::Mode mode = timing::Mode::kReference;
  timing::TruthOptions truth;
};

struct RunSpec {
  MachineSpec machine;
  std::string kernel = "6.12";
  std::vector<std::string> files;      ///< as ImageSpec::files
  std::vector<std::string> modules;    ///< more modules to load
  std::vector<std::string> append;     ///< more words for the kernel's command line
  std::vector<std::string> qemu_args;  ///< more arguments for QEMU
  std::vector<std::string> env;        ///< NAME=VALUE for the command
  std::string out_dir;                 ///< host folder that is $TC_OUT in the guest; empty: none
  std::string log_file;                ///< where the whole kernel log goes; empty: nowhere
  std::chrono::seconds timeout{120};
  bool interactive = false;  ///< the terminal is the guest's; no timeout
  std::optional<TimingSpec> timing;
  /// Takes the command's output instead of the terminal, when set.
  std::function<void(std::string_view)> output;
  /// What the command does, for somebody who waits for all its output; empty: it says so itself.
  std::string doing;
  bool verbose = false;  ///< the kernel log goes to standard error as it comes
  std::vector<std::string> command;
};

/// The command's exit code, 0 to 255. An Error when there is none or it can't be trusted: QEMU or
/// the kernel is missing (kUnsupported), the guest could not be set up, hung, panicked, ended
/// early, or its kernel log or taint flags tell of a bug; then the log has been shown on standard
/// error. Blocks SIGINT, SIGTERM and SIGHUP while it runs: any of them ends the guest (exit code
/// 128 + signal).
[[nodiscard]] Result<int> run_guest(const RunSpec& spec);

/// The QEMU plug-in of the timing model, in the build tree or installed; kUnsupported when it is
/// missing.
[[nodiscard]] Result<std::string> timing_plugin_file();
/// Whether this QEMU is one whose clock the timing model can drive; the Error says why not.
[[nodiscard]] Status check_timing_plugin();

/// QEMU's version, "10.0.2"; kUnsupported when it is missing.
[[nodiscard]] Result<std::string> qemu_version();

/// What the host learned from a guest's three channels, and the verdict from it; pure, for tests.
struct GuestStory {
  bool ready = false;
  bool timed_out = false;
  std::string setup_failure;
  int exit_code = -1;  ///< -1: never told
  std::uint64_t taint = 0;
  std::string kernel_log;
  std::string qemu_error;  ///< what QEMU said on standard error
  int qemu_signal = 0;     ///< that ended QEMU, or 0
  std::chrono::seconds timeout{0};

  /// Takes a control line; lines without the nonce are ignored.
  void take_control_line(std::string_view line, std::string_view nonce);
  [[nodiscard]] Result<int> verdict() const;
};

}  // namespace thermocline::lab
