// SPDX-License-Identifier: Apache-2.0
// The process that a plug-in runs in, as seen by its owner: started, spoken to with a deadline, and
// ended. What it sends is untrusted. Never waits longer than it is told to, and leaves no process
// behind.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/system.h"
#include "base/units.h"
#include "policies/plugin/wire.h"

namespace thermocline::plugin {

struct Frame {
  FrameType type{};
  std::vector<std::byte> payload;
};

class PluginProcess {
 public:
  using Clock = std::chrono::steady_clock;

  /// Runs the program `host`, which finds the plug-in open as kPluginFd and its end of the socket
  /// as kSocketFd. Of what this process has open it gets standard error, nothing else; its
  /// environment is empty.
  [[nodiscard]] static Result<PluginProcess> start(const std::string& host, int plugin_fd);
  PluginProcess(PluginProcess&& o) noexcept;
  PluginProcess& operator=(PluginProcess&& o) noexcept;
  PluginProcess(const PluginProcess&) = delete;
  PluginProcess& operator=(const PluginProcess&) = delete;
  /// Kills it, and waits for it for a moment. One that takes longer is reaped when the next one
  /// ends, or by reap_late().
  ~PluginProcess();
  /// How many of those are still there.
  static std::size_t reap_late();

  /// kFailure, as a sentence without its subject: "didn't answer in time", "crashed (Aborted)".
  [[nodiscard]] Status send(FrameType type, std::span<const std::byte> payload,
                            Clock::time_point deadline);
  /// The same; kCorrupt for anything but a frame of at most `most` bytes of payload.
  [[nodiscard]] Result<Frame> receive(std::uint64_t most, Clock::time_point deadline);
  /// Whether receive() has something to look at by then, an end included.
  [[nodiscard]] bool wait_for_input(Clock::time_point deadline) const;

  /// Lets it use so much more CPU time from now on, and a little; then the kernel ends it.
  void allow_cpu(Nanoseconds time) const;
  [[nodiscard]] Nanoseconds cpu_time() const;

  static constexpr int kSocketFd = 3;
  static constexpr int kPluginFd = 4;

 private:
  PluginProcess(pid_t pid, UniqueFd socket) : pid_(pid), socket_(std::move(socket)) {}
  void end();
  /// Reads or writes until all of it is done.
  [[nodiscard]] Status transfer(std::span<std::byte> bytes, bool write, Clock::time_point deadline);
  /// How it ended, after the socket has.
  [[nodiscard]] tl::unexpected<Error> gone();

  pid_t pid_ = -1;  ///< -1: reaped, or moved from
  UniqueFd socket_;
  Nanoseconds last_cpu_{};  ///< of one that has ended by itself
};

/// The program that start() runs when none is named, beside this program's own file: as installed,
/// or in a build's folder. kUnsupported when it isn't there.
[[nodiscard]] Result<std::string> host_program();

}  // namespace thermocline::plugin
