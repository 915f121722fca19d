// SPDX-License-Identifier: Apache-2.0
// An unmodified program as a child of `workload`, which talks with it over a socket. It is the
// process whose memory a workload is about. It never outlives `workload`, however that ends.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "bench/workloads/channel.h"

namespace thermocline::workloads {

/// Absolute or relative path of a program: `name` itself when it has a slash, else from PATH.
/// kUnsupported when it isn't there.
[[nodiscard]] Result<std::string> find_program(const std::string& name);

/// Program, arguments and how to reach it.
struct Launch {
  std::string name;     ///< what the program is called by (argv[0])
  std::string program;  ///< see find_program(); empty: `name`
  bool huge_pages = false;
  /// Arguments, given the path of the socket that the program is to listen on; the folder it is in
  /// is the program's own, and its working folder.
  std::function<std::vector<std::string>(const std::string& socket)> arguments;
  /// The program doesn't listen: its standard input and output are the channel.
  bool by_standard_input = false;
};

class Server {
 public:
  /// Starts the program and waits until it can be talked to. kUnsupported when it is not there,
  /// kFailure when it ends, with the last thing that it said.
  [[nodiscard]] static Result<std::unique_ptr<Server>> start(const Launch& launch);
  /// Kills and reaps it, removes its folder.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  [[nodiscard]] Pid pid() const { return pid_; }
  /// As the kernel has it (/proc/PID/comm).
  [[nodiscard]] std::string comm() const;
  /// Its resident memory without pages of files: its program text is the page cache's.
  [[nodiscard]] Result<Bytes> resident() const;
  [[nodiscard]] Channel& channel() { return *channel_; }

  /// `error` of the channel; or, when the program has ended, an error that says how and what it
  /// said last.
  [[nodiscard]] Error explain(Error error);
  /// Last line of what it wrote to standard error, or also to standard output where that is not the
  /// channel; may be empty.
  [[nodiscard]] std::string last_words() const;

 private:
  Server() = default;
  Status spawn(const std::string& program, const Launch& launch, int input);
  Status wait_for_socket(const std::string& path);
  /// How it ended ("was killed by signal 9"); nullopt while it runs.
  std::optional<std::string> ending();

  Pid pid_;
  std::string name_;
  std::string folder_;
  std::optional<Channel> channel_;
  bool reaped_ = false;
};

}  // namespace thermocline::workloads
